"""A stream as one answer, and one answer as a stream. Pure functions on OpenAI-shaped JSON."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

import orjson

from ..core.shape import parsed

JOINED = frozenset({"content", "refusal", "reasoning_content", "reasoning", "tool_plan", "arguments"})
"""Texts that come in pieces. Any other text counts once, its last value."""

DETAILS = ("text", "summary")
"""Those in an item of `reasoning_details`."""


def fold(chunks: Iterable[bytes]) -> bytes:
    """The whole answer that these chunks make, as `chat.completion` JSON."""
    answer: dict[str, Any] = {"id": "", "object": "chat.completion", "created": 0, "model": "", "choices": []}
    choices: dict[int, dict[str, Any]] = {}
    for data in chunks:
        chunk = parsed(data)
        for choice in chunk.pop("choices", None) or ():
            _fold_choice(choices.setdefault(choice.get("index") or 0, {"message": {}}), choice)
        for name, value in chunk.items():
            if name != "object" and value is not None and (value or not answer.get(name)):
                answer[name] = value
    answer["choices"] = [_finish_choice(index, choices[index]) for index in sorted(choices)]
    return orjson.dumps(answer)


def _fold_choice(into: dict[str, Any], choice: dict[str, Any]) -> None:
    for name, value in choice.items():
        if name == "delta":
            _fold_delta(into["message"], value or {})
        elif name == "logprobs" and value:
            into["logprobs"] = _joined_logprobs(into.get("logprobs"), value)
        elif isinstance(value, dict) and isinstance(into.get(name), dict):  # Azure's filters, a few with each piece
            into[name] = {**into[name], **value}
        elif value is not None:
            into[name] = value


def _fold_delta(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if value is None:
            message.setdefault(name, None)
        elif name == "tool_calls":
            _fold_tool_calls(_kept(message, name, []), value)
        elif name in JOINED and isinstance(value, str):
            message[name] = (message.get(name) or "") + value
        elif name == "reasoning_details" and isinstance(value, list):
            message[name] = _joined_details([*(message.get(name) or []), *value])
        elif name == "audio" and isinstance(value, dict):
            message[name] = _joined_audio(message.get(name) or {}, value)
        elif name == "function_call" and isinstance(value, dict):
            _fold_delta(_kept(message, name, {}), value)
        elif isinstance(value, list):
            message[name] = [*(message.get(name) or []), *value]
        elif isinstance(value, dict) and isinstance(message.get(name), dict):
            _fold_delta(message[name], value)
        else:
            message[name] = value


def _joined_details(pieces: list[Any]) -> list[Any]:
    """OpenRouter's reasoning with the pieces of each item made one, as a whole answer has it and as it goes back.

    https://openrouter.ai/docs/use-cases/reasoning-tokens (2026-11)
    """
    joined: list[Any] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if isinstance(piece, dict) and isinstance(last, dict) and _is_one_item(last, piece):
            texts = {name: (last.get(name) or "") + (piece.get(name) or "") for name in DETAILS if name in piece}
            joined[-1] = {**last, **{name: value for name, value in piece.items() if value is not None}, **texts}
        else:
            joined.append(piece)
    return joined


def _is_one_item(last: dict[str, Any], piece: dict[str, Any]) -> bool:
    return piece.get("index") is not None and all(last.get(name) == piece.get(name) for name in ("index", "type"))


def _joined_audio(held: dict[str, Any], piece: dict[str, Any]) -> dict[str, Any]:
    """Sound and its transcript come in pieces, each of the sound's in a base64 of its own."""
    joined = {**held, **{name: value for name, value in piece.items() if value is not None}}
    if held.get("transcript") and piece.get("transcript"):
        joined["transcript"] = held["transcript"] + piece["transcript"]
    if held.get("data") and piece.get("data"):
        sound = base64.b64decode(held["data"]) + base64.b64decode(piece["data"])
        joined["data"] = base64.b64encode(sound).decode()
    return joined


def _kept(message: dict[str, Any], name: str, new: Any) -> Any:
    """What `message` has under `name`, or `new`, put there."""
    if message.get(name) is None:
        message[name] = new
    return message[name]


def _fold_tool_calls(calls: list[dict[str, Any]], pieces: Iterable[dict[str, Any]]) -> None:
    for piece in pieces:
        call = _call_of(calls, piece)
        for name, value in piece.items():
            if name == "function":
                function = call["function"]
                for part, text in (value or {}).items():
                    if part == "arguments" and isinstance(text, str):
                        function["arguments"] = function["arguments"] + text
                    elif text:
                        function[part] = text
            elif name != "index" and value is not None and (value or name not in call):
                call[name] = value


def _call_of(calls: list[dict[str, Any]], piece: dict[str, Any]) -> dict[str, Any]:
    """The call that a piece belongs to: by index; a new id under an index already taken is a call of its own."""
    index, identity = piece.get("index"), piece.get("id")
    for call in reversed(calls):
        same_place = index is None or call["index"] == index
        if same_place and (not identity or not call.get("id") or call["id"] == identity):
            return call  # type: ignore[no-any-return]
    call = {"index": index, "id": None, "type": "function", "function": {"name": "", "arguments": ""}}
    calls.append(call)
    return call


def _joined_logprobs(old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    joined = dict(old or {})
    for name, value in new.items():
        joined[name] = [*(joined.get(name) or []), *value] if isinstance(value, list) else value
    return joined


def _finish_choice(index: int, choice: dict[str, Any]) -> dict[str, Any]:
    message = choice["message"]
    for position, call in enumerate(message.get("tool_calls") or ()):
        call.pop("index", None)
        if not call.get("id"):
            call["id"] = f"call_{position}"
    message["role"] = message.get("role") or "assistant"
    message.setdefault("content", None)
    return {**choice, "index": index, "finish_reason": choice.get("finish_reason") or "stop"}


def unfold(body: bytes) -> list[bytes]:
    """The stream that this answer might have been: a role, the content, a finish reason, and the usage."""
    answer = parsed(body)
    base = {**answer, "object": "chat.completion.chunk"}
    usage = base.pop("usage", None)
    chunks: list[Any] = []
    for choice in base.pop("choices", ()):
        chunks += _unfold_choice(choice)
    result = [orjson.dumps({**base, "choices": [choice]}) for choice in chunks]
    if usage is not None:
        result.append(orjson.dumps({**base, "choices": [], "usage": usage}))
    return result


def _unfold_choice(choice: dict[str, Any]) -> list[dict[str, Any]]:
    index, message = choice.get("index", 0), dict(choice.get("message") or {})
    calls = message.pop("tool_calls", None) or []
    pieces: list[dict[str, Any]] = [{**message, "role": message.get("role") or "assistant"}]
    pieces += [{"tool_calls": [{**call, "index": position}]} for position, call in enumerate(calls)]
    rest = {name: value for name, value in choice.items() if name not in ("index", "message")}
    result = [{"index": index, "delta": piece, "finish_reason": None} for piece in pieces]
    result[0].update({name: value for name, value in rest.items() if name == "logprobs" and value})
    rest.pop("logprobs", None)
    return [*result, {"index": index, "delta": {}, **rest}]
