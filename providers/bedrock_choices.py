"""What Bedrock's models answer by InvokeModel in other protocols than Claude's and Nova's, as OpenAI's.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html (read 2026-11). A streamed event of these
models is made like their whole answers, with a piece of the text in it: one reading serves both. It goes by the fields
that are there and not by the model's name, which an ARN does not tell. The last event also has
`amazon-bedrock-invocationMetrics`, which count the tokens; of a whole answer they are in its headers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from ..core.types import Request
from .base import Failure, ProviderFault, Reply
from .bedrock_answers import fault_of, head
from .broken import MALFORMED, malformed
from .fixes import COMMON
from .openai import mended

Json = dict[str, Any]

METRICS = "amazon-bedrock-invocationMetrics"
COUNTS = {
    "x-amzn-bedrock-input-token-count": "prompt_tokens",
    "x-amzn-bedrock-output-token-count": "completion_tokens",
}
"""Headers of a whole answer."""

FINISH_REASONS = {
    "": "stop",
    "stop": "stop",
    "finish": "stop",
    "complete": "stop",
    "endoftext": "stop",
    "eos": "stop",
    "stop_criteria_met": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "content_filtered": "content_filter",
    "content_filter": "content_filter",
    "error_toxic": "content_filter",
}
"""In OpenAI's words, by the vendors' in lower case."""

BROKEN = frozenset({"error", "error_limit", "timeout"})

Read = Callable[[Json], list[Json]]
"""The choices in an answer or event, as OpenAI's of a text completion, with whatever `delta` or `message` they had."""


def _choice(text: Any, reason: Any, place: int = 0) -> Json:
    if text is not None and not isinstance(text, str):
        raise TypeError(f"{text!r} instead of text")
    return {"index": place, "text": text or "", "reason": reason}


def _outputs(data: Json) -> list[Json]:
    return [_choice(item["text"], item.get("stop_reason"), place) for place, item in enumerate(data["outputs"])]


def _results(data: Json) -> list[Json]:
    return [
        _choice(item["outputText"], item.get("completionReason"), place) for place, item in enumerate(data["results"])
    ]


def _generations(data: Json) -> list[Json]:
    return [_choice(item["text"], item.get("finish_reason"), place) for place, item in enumerate(data["generations"])]


def _completions(data: Json) -> list[Json]:
    return [
        _choice(item["data"]["text"], (item.get("finishReason") or {}).get("reason"), place)
        for place, item in enumerate(data["completions"])
    ]


def _openai(data: Json) -> list[Json]:
    """OpenAI's own form, Mistral's (`stop_reason`) and DeepSeek's (`text`)."""
    found = []
    for place, item in enumerate(data["choices"]):
        reason = item.get("finish_reason") or item.get("stop_reason")
        rest = {name: item[name] for name in ("logprobs",) if item.get(name)}
        choice = {**_choice(item.get("text"), reason, item.get("index") or place), **rest}
        said = item.get("message") or item.get("delta")
        found.append({**choice, "said": said} if isinstance(said, Mapping) else choice)
    return found


READERS: Mapping[str, Read] = {
    "choices": _openai,
    "generation": lambda data: [_choice(data["generation"], data.get("stop_reason"))],
    "outputs": _outputs,
    "results": _results,
    "outputText": lambda data: [_choice(data["outputText"], data.get("completionReason"), data.get("index") or 0)],
    "generations": _generations,
    "completions": _completions,
    "completion": lambda data: [_choice(data["completion"], data.get("stop_reason"))],
    "is_finished": lambda data: [_choice(data.get("text"), data.get("finish_reason"), data.get("index") or 0)],
}
"""By the field that holds what is said: Llama, Mistral, Titan whole and streamed, Cohere, Jurassic, Claude 2, Cohere
streamed."""


def choices_in(data: Json) -> list[Json] | None:
    """The choices of an answer or event; None if it has none of the fields that are known."""
    read = next((read for field, read in READERS.items() if field in data), None)
    return None if read is None else read(data)


def usage_in(data: Mapping[str, Any]) -> Json | None:
    """The counts of an answer or event, wherever they are."""
    metrics = data.get(METRICS)
    if isinstance(metrics, Mapping):
        return counted(metrics.get("inputTokenCount"), metrics.get("outputTokenCount"))
    if isinstance(data.get("usage"), dict) and data["usage"]:
        usage: Json = data["usage"]
        return usage
    if data.get("prompt_token_count") is not None:
        return counted(data["prompt_token_count"], data.get("generation_token_count"))
    if isinstance(data.get("results"), list) and "inputTextTokenCount" in data:
        return counted(data["inputTextTokenCount"], sum(item.get("tokenCount") or 0 for item in data["results"]))
    if isinstance(data.get("completions"), list) and isinstance(data.get("prompt"), dict):
        written = sum(len(item["data"].get("tokens") or ()) for item in data["completions"])
        return counted(len(data["prompt"].get("tokens") or ()), written)
    return None


def counted(prompt: Any, written: Any) -> Json:
    prompt, written = int(prompt or 0), int(written or 0)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def ending(reason: Any, data: bytes, *, has_calls: bool = False) -> Json:
    """A choice's fields on why it ends. Raises `ProviderFault` if it broke."""
    word = str(reason or "").lower()
    if word in BROKEN:
        raise ProviderFault(Failure(f"The answer broke off: {reason}.", str(reason), status=500), data)
    finished = "tool_calls" if has_calls and word in ("", "stop") else FINISH_REASONS.get(word, "stop")
    return {"finish_reason": finished, "native_finish_reason": reason}


def completion(body: bytes, request: Request) -> bytes:
    """A whole answer as `chat.completion` or `text_completion` JSON. Raises `ProviderFault`."""
    try:
        answer = orjson.loads(body)
        choices = choices_in(answer)
        if not choices:
            raise fault_of(body)
        is_chat = request.endpoint == "chat"
        result = {
            **head("chat.completion" if is_chat else "text_completion", request),
            **({"id": answer["id"]} if isinstance(answer.get("id"), str) else {}),
            "choices": [(_message if is_chat else _text)(choice, body) for choice in choices],
        }
        usage = usage_in(answer)
        return mended(orjson.dumps({**result, "usage": usage} if usage else result), COMMON)
    except MALFORMED as error:
        raise malformed("Bedrock", error, body) from error


def _message(choice: Json, body: bytes) -> Json:
    said = choice.get("said") or {}
    message = {**said, "role": "assistant", "content": said.get("content", choice["text"])}
    calls = _calls(said)
    if calls:
        message["tool_calls"] = calls
    message = {name: value for name, value in message.items() if value is not None or name == "content"}
    logprobs = {"logprobs": choice["logprobs"]} if "logprobs" in choice else {}
    return {
        "index": choice["index"],
        "message": message,
        **logprobs,
        **ending(choice["reason"], body, has_calls=bool(calls)),
    }


def _text(choice: Json, body: bytes) -> Json:
    said = (choice.get("said") or {}).get("content")
    logprobs = choice.get("logprobs")
    return {
        "index": choice["index"],
        "text": choice["text"] or said or "",
        "logprobs": logprobs,
        **ending(choice["reason"], body),
    }


def _calls(said: Mapping[str, Any]) -> list[Json]:
    """Mistral's have neither type nor, in a stream, an index."""
    return [{"type": "function", **call} for call in said.get("tool_calls") or ()]


def with_counts(answer: bytes, reply: Reply) -> bytes:
    """`answer` with the usage that the headers of `reply` tell, where its body told none."""
    if b'"usage"' in answer:
        return answer
    headers = {name.lower(): value for name, value in reply.headers.items()}
    found = [headers.get(name, "") for name in COUNTS]
    if not all(count.isascii() and count.isdigit() for count in found):
        return answer
    return orjson.dumps({**orjson.loads(answer), "usage": counted(*found)})


class ChoiceReader:
    """Turns the events of a stream, parsed, into chunks."""

    def __init__(self, request: Request) -> None:
        self._is_chat = request.endpoint == "chat"
        kind = "chat.completion.chunk" if self._is_chat else "text_completion"
        self._head = orjson.dumps(head(kind, request))[:-1]
        self._begun: set[int] = set()
        self._ended: set[int] = set()
        self._with_calls: set[int] = set()

    @property
    def is_complete(self) -> bool:
        return bool(self._begun) and self._begun == self._ended

    def read(self, event: Json, data: bytes) -> list[bytes]:
        """The chunks of one event. Raises `ProviderFault`, or any of `MALFORMED`."""
        choices, usage = choices_in(event), usage_in(event) if METRICS in event or event.get("usage") else None
        if choices is None and usage is None:
            raise fault_of(data)
        chunks = [self._chunk(choice, data) for choice in choices or ()]
        if METRICS in event:  # the last there is, whether or not the model has said why it ends
            chunks += [self._chunk(_choice("", "stop", place), data) for place in sorted(self._begun - self._ended)]
        if usage is not None and (METRICS in event or not choices):
            chunks.append(self._head + b',"choices":[],"usage":' + orjson.dumps(usage) + b"}")
        return chunks

    def _chunk(self, choice: Json, data: bytes) -> bytes:
        place = choice["index"]
        made = self._delta(choice) if self._is_chat else {"text": _text({**choice, "reason": None}, data)["text"]}
        end: Json = {"finish_reason": None}
        self._begun.add(place)
        if choice["reason"]:
            end = ending(choice["reason"], data, has_calls=place in self._with_calls)
            self._ended.add(place)
        said = orjson.dumps({"index": place, **made, **end})
        return mended(self._head + b',"choices":[' + said + b"]}", COMMON)

    def _delta(self, choice: Json) -> Json:
        place = choice["index"]
        said: Mapping[str, Any] = choice.get("said") or {"content": choice["text"]}
        delta = {name: value for name, value in said.items() if value not in (None, "") and name != "role"}
        calls = [{"index": at, **call} for at, call in enumerate(_calls(said))]
        if calls:
            self._with_calls.add(place)
            delta["tool_calls"] = calls
        if place not in self._begun:
            delta["role"] = "assistant"
        return {"delta": delta, **({"logprobs": choice["logprobs"]} if "logprobs" in choice else {})}
