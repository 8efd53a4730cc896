"""What Ollama answers: whole, or one JSON object a line. What is decided here is said in `ollama.py`."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from typing import Any

import orjson

from ..core.types import Request
from .base import ProviderFault, StreamDecoder
from .broken import CUT_SHORT, MALFORMED, is_json, malformed
from .failures import fault_in_answer
from .lines import LineSplitter

Json = dict[str, Any]

FINISH_REASONS = {"stop": "stop", "length": "length", "load": "stop", "unload": "stop"}
DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


def fault_of(body: bytes) -> ProviderFault:
    """An error that came inside a 200: `{"error": "…"}`, whose words are all there is to tell its status by."""
    return ProviderFault(fault_in_answer(body), body)


def completion(body: bytes, request: Request) -> bytes:
    """A whole answer as `chat.completion` JSON. Raises `ProviderFault`."""
    try:
        answer = orjson.loads(body)
        if answer.get("error") or "message" not in answer:
            raise fault_of(body)
        message = message_of(answer["message"], 0)
        calls = message.get("tool_calls")
        choice = {"index": 0, "message": message, **ending_of(answer, has_calls=bool(calls))}
        logprobs = logprobs_of(answer.get("logprobs"))
        if logprobs:
            choice["logprobs"] = logprobs
        result = {**head(answer, "chat.completion", request), "choices": [choice], "usage": usage_of(answer)}
        return orjson.dumps({**result, **durations(answer)})
    except MALFORMED as error:
        raise malformed("Ollama", error, body) from error


def head(answer: Mapping[str, Any], kind: str, request: Request) -> Json:
    """The vendor gives answers no id."""
    return {"id": "", "object": kind, "created": created(answer), "model": answer.get("model") or request.model}


def created(answer: Mapping[str, Any]) -> int:
    """The vendor's timestamp (RFC 3339, to the nanosecond) in seconds."""
    given = answer.get("created_at")
    if not given:
        return int(time.time())
    moment = datetime.datetime.fromisoformat(given)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp())


def message_of(message: Mapping[str, Any], first: int) -> Json:
    """What a message, or a piece of one, says. `first`: how many tool calls came before."""
    calls = [_tool_call(call, first + place) for place, call in enumerate(message.get("tool_calls") or ())]
    text, thinking = text_of(message.get("content")), text_of(message.get("thinking"))
    said: Json = {"role": "assistant", "content": text or (None if calls else "")}
    if thinking:
        said["reasoning_content"] = thinking
    if calls:
        said["tool_calls"] = calls
    return said


def _tool_call(call: Mapping[str, Any], place: int) -> Json:
    function = call["function"]
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else orjson.dumps(arguments or {}).decode()
    identity = call.get("id") or f"call_{place}"  # older servers give none
    return {"id": identity, "type": "function", "function": {"name": function["name"], "arguments": text or "{}"}}


def ending_of(answer: Mapping[str, Any], *, has_calls: bool) -> Json:
    """A choice's fields on why the answer ends: OpenAI's word and the vendor's, which is "stop" for calls too."""
    reason = answer.get("done_reason")
    finished = FINISH_REASONS.get(reason or "stop", "stop")
    if has_calls and finished == "stop":
        finished = "tool_calls"
    return {"finish_reason": finished, "native_finish_reason": reason}


def usage_of(answer: Mapping[str, Any]) -> Json:
    prompt, written = int(answer.get("prompt_eval_count") or 0), int(answer.get("eval_count") or 0)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def durations(answer: Mapping[str, Any]) -> Json:
    return {name: answer[name] for name in DURATIONS if answer.get(name) is not None}


def logprobs_of(items: Any) -> Json | None:
    """The vendor's are OpenAI's, without the list around them."""
    if not items:
        return None
    content = [{"bytes": None, **item, "top_logprobs": item.get("top_logprobs") or []} for item in items]
    return {"content": content, "refusal": None}


def text_of(value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{value!r} instead of text")
    return value or ""


class OllamaStream(StreamDecoder):
    """One JSON object a line, each with a piece of the message; the last says `done`."""

    holds = "message"
    """The field without which a line is none of the answer's."""

    def __init__(self, request: Request) -> None:
        self._request, self._lines = request, LineSplitter()
        self._calls = 0
        self._has_begun = self._has_text = self._finished = False

    def feed(self, data: bytes) -> list[bytes]:
        return [chunk for line in self._lines.feed(data) for chunk in self._read(line)]

    def end(self) -> list[bytes]:
        rest = self._lines.end()
        if self._has_begun and not self._finished and not is_json(rest):
            raise ProviderFault(CUT_SHORT, rest)
        chunks = self._read(rest)
        if not self._finished:
            raise ProviderFault(CUT_SHORT)
        return chunks

    def _read(self, line: bytes) -> list[bytes]:
        line = line.strip()
        if self._finished or not line:
            return []
        try:
            event = orjson.loads(line)
            if event.get("error") or self.holds not in event:
                raise fault_of(line)
            return self._chunks(event)
        except MALFORMED as error:
            raise malformed("Ollama", error, line) from error

    def _chunks(self, event: Json) -> list[bytes]:
        base = head(event, "chat.completion.chunk", self._request)
        delta = message_of(event["message"], self._calls)
        for place, call in enumerate(delta.get("tool_calls") or (), self._calls):
            call["index"] = place
        self._calls += len(delta.get("tool_calls") or ())
        self._has_text = self._has_text or bool(delta["content"])
        self._finished = bool(event.get("done"))
        logprobs = logprobs_of(event.get("logprobs"))
        choice: Json = {"index": 0, "delta": self._news(delta), "finish_reason": None}
        if logprobs:
            choice["logprobs"] = logprobs
        if not self._finished:
            return [orjson.dumps({**base, "choices": [choice]})]
        choice.update(ending_of(event, has_calls=self._calls > 0))
        last = {**base, "choices": [], "usage": usage_of(event), **durations(event)}
        return [orjson.dumps({**base, "choices": [choice]}), orjson.dumps(last)]

    def _news(self, delta: Json) -> Json:
        """The delta without what is said already or says nothing: the role after the first, empty texts."""
        kept = {name: value for name, value in delta.items() if name != "role" and value}
        if not self._has_begun:
            kept["role"] = "assistant"
        self._has_begun = True
        if self._finished and not self._has_text and not self._calls:
            kept["content"] = ""
        return kept
