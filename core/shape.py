"""Brings almost-OpenAI JSON into OpenAI's shape: what a dozen servers forget, rename or give as another type.

Pure functions. An answer that is right comes out as it went in; mending twice changes nothing more; and nothing is
invented that a reader could take for the vendor's word: a missing `created` is 0, a missing `id` is "". What has no
place in the shape but may matter is kept beside it under `vendor_<name>`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from .errors import RejoinderError

Json = dict[str, Any]

FINISH_REASONS = {
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "complete": "stop",
    "completed": "stop",
    "max_tokens": "length",
    "max_length": "length",
    "model_length": "length",
    "tool_call": "tool_calls",
    "tool_use": "tool_calls",
    "function": "function_call",
    "safety": "content_filter",
    "sensitive": "content_filter",
    "refusal": "content_filter",
    "recitation": "content_filter",
}
"""How an answer ended, in other vendors' words and in OpenAI's. A word in neither is left alone."""

SERVICE_TIERS = frozenset({"auto", "default", "flex", "scale", "priority", "fast"})
TEXT_PARTS = frozenset({"text", "output_text", "input_text"})
THINKING_PARTS = frozenset({"thinking", "reasoning", "reasoning.text", "reasoning.summary"})
CACHED_NAMES = ("prompt_cache_hit_tokens", "cache_read_input_tokens", "cached_tokens", "num_cached_tokens")
USAGE_DETAILS = (
    ("prompt_tokens_details", "cached_tokens", CACHED_NAMES),
    ("prompt_tokens_details", "cache_write_tokens", ("cache_creation_input_tokens",)),
    ("completion_tokens_details", "reasoning_tokens", ("reasoning_tokens",)),
)
"""Where a count belongs, and the names under which vendors give it beside the details."""


class Misshapen(RejoinderError, ValueError):
    """The vendor's JSON is no answer, and cannot be read as one."""


def mend_completion(data: Json) -> Json:
    """A `chat.completion` out of what a vendor calls one. Raises `Misshapen` if there is no choice in it."""
    choices = data.get("choices")
    mended = _envelope(data, "chat.completion")
    mended["choices"] = [_choice(choice, place) for place, choice in enumerate(_dicts(choices))]
    if not mended["choices"]:
        raise Misshapen("The answer has no choices.")
    return mended


def mend_chunk(data: Json) -> Json:
    """A `chat.completion.chunk` out of what a vendor calls one. One without choices is right: it carries usage."""
    mended = _envelope(data, "chat.completion.chunk")
    mended["choices"] = [_chunk_choice(choice, place) for place, choice in enumerate(_dicts(data.get("choices")))]
    return mended


def completion_as_chunk(data: Json) -> Json:
    """A whole answer as the single chunk of a stream, for servers that do not stream though they were asked to."""
    chunk = {**mend_completion(data), "object": "chat.completion.chunk"}
    chunk["choices"] = [_as_delta(choice) for choice in chunk["choices"]]
    return chunk


def parsed(data: bytes) -> Json:
    """The JSON object in `data`. Raises `Misshapen` if it is none."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        value = _leniently(data)
        if value is None:
            raise Misshapen(f"The answer is not JSON ({error}): {_start(data)!r}.") from None
    if not isinstance(value, dict):
        raise Misshapen(f"The answer is not a JSON object: {_start(data)!r}.")
    return value


def _leniently(data: bytes) -> Any:
    """What Python's own `json` makes of it, as it is Python that writes such: numbers that are none (-Infinity), half
    of a surrogate pair, line breaks in a text, bytes that are no UTF-8, a byte order mark. None if that is nothing."""
    import json

    try:
        value = json.loads(data.decode("utf-8-sig", "replace"), strict=False, parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return None
    return _encodable(value)


def _encodable(value: Any) -> Any:
    """`value` with a replacement character for each surrogate that has lost its other half."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    if isinstance(value, dict):
        return {_encodable(name): _encodable(item) for name, item in value.items()}
    return value


def _start(data: bytes) -> str:
    return data[:200].decode("utf-8", "replace")


def _envelope(data: Json, kind: str) -> Json:
    mended = {**data, "object": kind, "id": _text(data.get("id")), "model": _text(data.get("model"))}
    mended["created"] = _count(data.get("created")) or 0
    if "usage" in data:
        mended["usage"] = _usage(data["usage"])
    if "service_tier" in data:
        mended["service_tier"] = _tier(data["service_tier"])
        _set_aside(mended, "service_tier", lambda value: isinstance(value, str) and value in SERVICE_TIERS)
    _set_aside(mended, "system_fingerprint", _is_text)
    _set_aside(mended, "obfuscation", _is_text)
    _set_aside(mended, "moderation", lambda value: False)
    _set_aside(mended, "metadata", lambda value: isinstance(value, dict) and all(map(_is_text, value.values())))
    if "cache" in mended:  # a field of ours, which only we may set
        mended["vendor_cache"] = mended.pop("cache")
    return mended


def _tier(tier: Any) -> Any:
    """Groq's word for the ordinary tier, in OpenAI's; its others have no counterpart."""
    return "default" if tier == "on_demand" else tier


def _choice(choice: Json, place: int) -> Json:
    message = choice.get("message")
    if not isinstance(message, dict):
        delta = choice.get("delta")
        message = delta if isinstance(delta, dict) else {"content": choice.get("text")}
    mended = {**choice, "index": _index(choice, place), "message": _message(message)}
    mended["finish_reason"] = _finish_reason(choice) or ("tool_calls" if message.get("tool_calls") else "stop")
    if "logprobs" in choice:
        mended["logprobs"] = _logprobs(choice["logprobs"])
    return mended


def _chunk_choice(choice: Json, place: int) -> Json:
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        message = choice.get("message")
        delta = message if isinstance(message, dict) else {"content": choice["text"]} if "text" in choice else {}
    mended = {**choice, "index": _index(choice, place), "delta": _delta(delta)}
    if "finish_reason" in choice:
        mended["finish_reason"] = _finish_reason(choice)
    if "logprobs" in choice:
        mended["logprobs"] = _logprobs(choice["logprobs"])
    return mended


def _as_delta(choice: Json) -> Json:
    delta = {**choice["message"]}
    calls = delta.get("tool_calls")
    if calls:
        delta["tool_calls"] = [{**call, "index": place} for place, call in enumerate(calls)]
    return {**{name: value for name, value in choice.items() if name != "message"}, "delta": delta}


def _message(message: Json) -> Json:
    mended = {**_said(message), "role": "assistant"}
    mended.setdefault("content", None)
    if "tool_calls" in message:
        mended["tool_calls"] = _tool_calls(message["tool_calls"], _tool_call)
    for name, needed in (("function_call", ("name",)), ("audio", ("id", "data"))):
        hollow = mended.get(name)
        if isinstance(hollow, dict) and not any(hollow.get(field) for field in needed):
            del mended[name]  # {"name": "", "arguments": ""} is how a Go server says that there is none
    _set_aside(mended, "function_call", _is_function)
    _set_aside(mended, "audio", _is_audio)
    notes = mended.get("annotations")
    if isinstance(notes, list) and not all(map(_is_citation, notes)):
        mended["vendor_annotations"] = [note for note in notes if not _is_citation(note)]
        mended["annotations"] = [note for note in notes if _is_citation(note)]
    _set_aside(mended, "annotations", lambda value: isinstance(value, list))
    return mended


def _delta(delta: Json) -> Json:
    mended = _said(delta)
    if mended.get("role") not in (None, "developer", "system", "user", "assistant", "tool"):
        mended["role"] = "assistant"
    if "tool_calls" in delta:
        mended["tool_calls"] = _tool_calls(delta["tool_calls"], _tool_call_piece)
    _set_aside(mended, "function_call", lambda value: isinstance(value, dict) and _texts(value, "name", "arguments"))
    _set_aside(mended, "audio", _is_audio_piece)
    return mended


def _said(message: Json) -> Json:
    """What messages and deltas share: text, thinking, refusal."""
    mended = dict(message)
    content = message.get("content")
    if isinstance(content, list):
        mended["content"], thinking = _split_parts(content)
        if any(_part_type(part) not in TEXT_PARTS | THINKING_PARTS for part in _dicts(content)):
            mended["vendor_content"] = content
    else:
        thinking = ""
        if "content" in message:
            mended["content"] = _text_of(content)
    thinking = thinking or _thinking_in(message)
    if thinking and not isinstance(message.get("reasoning_content"), str):
        mended["reasoning_content"] = thinking
    _set_aside(mended, "refusal", _is_text)
    if not mended.get("refusal", True):
        mended["refusal"] = None
    return mended


def _split_parts(parts: list[Any]) -> tuple[str | None, str]:
    """The text and the thinking in a content that is a list of parts. No text part at all is None, not ""."""
    text = [_text_of(part) or "" for part in parts if isinstance(part, str) or _part_type(part) in TEXT_PARTS]
    thinking = [_text_of(part) or "" for part in parts if _part_type(part) in THINKING_PARTS]
    return ("".join(text) if text else None), "".join(thinking)


def _part_type(part: Any) -> str:
    return _text(part.get("type"), "text") if isinstance(part, dict) else ""


def _thinking_in(message: Json) -> str:
    """The reasoning text under the names that are not `reasoning_content`.

    `reasoning`: OpenRouter, Groq, Cerebras, Ollama, vLLM, Together. `reasoning_text`: Copilot. `reasoning_details`:
    OpenRouter's list, which says the same as `reasoning` where both are there, and whose encrypted items have no text.
    """
    for name in ("reasoning", "reasoning_text", "thinking"):
        text = _text_of(message.get(name))
        if text:
            return text
    return "".join(_text_of(part) or "" for part in _dicts(message.get("reasoning_details")))


def _text_of(value: Any) -> str | None:
    """The text in a string, a part, or a list of parts; None where there is none."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(item if isinstance(item, str) else _text_in_part(item) for item in value)
    if isinstance(value, dict):
        return _text_in_part(value) or None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return None


def _text_in_part(part: Any) -> str:
    if not isinstance(part, dict):
        return ""
    for name in ("text", "thinking", "summary", "content", "value"):
        inner = part.get(name)
        if isinstance(inner, str):
            return inner
        if isinstance(inner, list):  # Mistral: {"type": "thinking", "thinking": [{"type": "text", "text": …}]}
            return "".join(_text(item.get("text")) for item in _dicts(inner))
        if isinstance(inner, dict):  # {"text": {"value": …}}
            return _text(inner.get("value"))
    return ""


def _tool_calls(calls: Any, mend: Callable[[Json, int], Json]) -> list[Json] | None:
    if isinstance(calls, dict):
        calls = [calls]
    return [mend(call, place) for place, call in enumerate(_dicts(calls))] if isinstance(calls, list) else None


def _tool_call(call: Json, place: int) -> Json:
    mended = {**call, "id": _text(call.get("id")) or f"call_{place}"}
    custom = call.get("custom")
    if isinstance(custom, dict) and custom.get("name") and call.get("type") == "custom":
        mended["custom"] = {**custom, "name": _text(custom["name"]), "input": _arguments(custom.get("input"))}
        return mended
    function = _function_of(call)
    mended["type"] = "function"
    mended["function"] = {
        **function,
        "name": _text(function.get("name")),
        "arguments": _arguments(function.get("arguments")),
    }
    return mended


def _tool_call_piece(call: Json, place: int) -> Json:
    mended = {**call}
    index = _count(call.get("index"))
    mended["index"] = place if index is None else index
    if "id" in call:
        mended["id"] = _text(call["id"]) or None
    if call.get("type") not in (None, "function"):
        mended["type"] = "function"
    if "function" in call or "name" in call:
        function = dict(_function_of(call))
        if "name" in function:
            function["name"] = _text(function["name"]) or None
        if function.get("arguments") is not None:
            function["arguments"] = _arguments(function["arguments"])
        mended["function"] = function
    return mended


def _function_of(call: Json) -> Json:
    """The function's name and arguments, which some servers put beside the id."""
    function = call.get("function")
    if isinstance(function, dict):
        return function
    name = function if isinstance(function, str) else call.get("name")
    return {"name": name, "arguments": call.get("arguments", call.get("input"))}


def _arguments(value: Any) -> str:
    """The arguments as JSON text; Ollama's own API and some gateways give the object itself."""
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _usage(usage: Any) -> Json | None:
    if not isinstance(usage, dict):
        return None
    prompt = _first_count(usage, "prompt_tokens", "input_tokens")
    completion = _first_count(usage, "completion_tokens", "output_tokens")
    total = _count(usage.get("total_tokens"))
    if prompt is None and completion is None and total is None:
        return None
    mended = {**usage, "prompt_tokens": prompt or 0, "completion_tokens": completion or 0}
    mended["total_tokens"] = mended["prompt_tokens"] + mended["completion_tokens"] if total is None else total
    for name in ("prompt_tokens_details", "completion_tokens_details"):
        if name in usage:
            mended[name] = _details(usage[name])
    for details, field, names in USAGE_DETAILS:
        count = _first_count(usage, *names)
        held = mended.get(details) or {}
        if count is not None and held.get(field) is None:
            mended[details] = {**held, field: count}
    return mended


def _details(details: Any) -> Json | None:
    if not isinstance(details, dict):
        return None
    return {name: _count(value) if name.endswith("_tokens") else value for name, value in details.items()}


def _logprobs(logprobs: Any) -> Json | None:
    """Chat's form; that of the old completions (`tokens` and `token_logprobs` side by side) is brought into it."""
    if not isinstance(logprobs, dict):
        return None
    mended = dict(logprobs)
    tokens, values = logprobs.get("tokens"), logprobs.get("token_logprobs")
    if "content" not in logprobs and isinstance(tokens, list) and isinstance(values, list):
        mended["content"] = [{"token": token, "logprob": value} for token, value in zip(tokens, values, strict=False)]
    for name in ("content", "refusal"):
        if name in mended:
            mended[name] = _token_list(mended[name])
    return mended


def _token_list(tokens: Any) -> list[Json] | None:
    if not isinstance(tokens, list):
        return None
    return [
        {**_token(token), "top_logprobs": [_token(other) for other in _dicts(token.get("top_logprobs"))]}
        for token in _dicts(tokens)
    ]


def _token(token: Json) -> Json:
    logprob = token.get("logprob")
    number = logprob if isinstance(logprob, (int, float)) and not isinstance(logprob, bool) else -9999.0
    mended = {**token, "token": _text(token.get("token")), "logprob": number}
    octets = token.get("bytes")
    if octets is not None and not (isinstance(octets, list) and all(_count(octet) is not None for octet in octets)):
        mended["bytes"] = None
    return mended


def _finish_reason(choice: Json) -> str | None:
    reason = choice.get("finish_reason")
    if not isinstance(reason, str) or not reason:
        return None
    return FINISH_REASONS.get(reason.lower(), reason)


def _index(choice: Json, place: int) -> int:
    index = _count(choice.get("index"))
    return place if index is None else index


def _text(value: Any, default: str = "") -> str:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else default


def _count(value: Any) -> int | None:
    """A whole number, however it is written; None where there is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return round(value) if abs(value) < 2**63 else None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return None


def _first_count(data: Json, *names: str) -> int | None:
    return next((count for name in names if (count := _count(data.get(name))) is not None), None)


def _dicts(values: Any) -> list[Json]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _set_aside(mended: Json, name: str, fits: Callable[[Any], bool]) -> None:
    """Moves a value that does not fit its field to `vendor_<name>`; an empty one just goes."""
    value = mended.get(name)
    if value is None or fits(value):
        return
    del mended[name]
    if value:
        mended[f"vendor_{name}"] = value


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _texts(value: Json, *names: str) -> bool:
    return all(value.get(name) is None or isinstance(value[name], str) for name in names)


def _is_function(value: Any) -> bool:
    return isinstance(value, dict) and _is_text(value.get("name")) and _is_text(value.get("arguments"))


def _is_audio(value: Any) -> bool:
    fields = ("id", "data", "transcript")
    return isinstance(value, dict) and all(_is_text(value.get(name)) for name in fields) and _has_expiry(value)


def _has_expiry(value: Json) -> bool:
    return isinstance(value.get("expires_at"), int) and not isinstance(value["expires_at"], bool)


def _is_audio_piece(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _texts(value, "id", "data", "transcript")
        and (value.get("expires_at") is None or _has_expiry(value))
    )


def _is_citation(note: Any) -> bool:
    citation = note.get("url_citation") if isinstance(note, dict) and note.get("type") == "url_citation" else None
    return (
        isinstance(citation, dict)
        and _is_text(citation.get("title"))
        and _is_text(citation.get("url"))
        and all(isinstance(citation.get(name), int) for name in ("start_index", "end_index"))
    )
