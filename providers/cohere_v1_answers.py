"""What Cohere's chat answers in version 1: whole, or one event a line. `cohere_v1.py` says what is decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from ..core.types import Request
from .base import ProviderFault, StreamDecoder
from .broken import CUT_SHORT, MALFORMED, malformed
from .cohere_answers import ending_of, fault_of, head, usage_of
from .lines import LineSplitter

Json = dict[str, Any]

KEPT = ("documents", "generation_id", "search_queries", "search_results", "is_search_required", "prompt")
"""The vendor's fields of an answer that OpenAI has no place for."""


def completion(body: bytes, request: Request) -> bytes:
    """A whole answer as `chat.completion` JSON. Raises `ProviderFault`."""
    try:
        answer = orjson.loads(body)
        if not isinstance(answer.get("text"), str):
            raise fault_of(body)
        message: Json = {"role": "assistant", "content": answer["text"], **_beside(answer)}
        if message.get("tool_calls") and not answer["text"]:
            message["content"] = None
        ending = finish(answer, body, has_calls="tool_calls" in message)
        result = {
            **head(_identity(answer), "chat.completion", request),
            "choices": [{"index": 0, "message": message, **ending}],
            **rest_of(answer),
        }
        return orjson.dumps(result)
    except MALFORMED as error:
        raise malformed("Cohere", error, body) from error


def _identity(answer: Mapping[str, Any]) -> Any:
    return answer.get("response_id") or answer.get("generation_id")


def _beside(answer: Mapping[str, Any]) -> Json:
    """What a message has beside its text."""
    said: Json = {"citations": answer["citations"]} if answer.get("citations") else {}
    calls = [tool_call(call, place) for place, call in enumerate(answer.get("tool_calls") or ())]
    return {**said, "tool_calls": calls} if calls else said


def tool_call(call: Mapping[str, Any], place: int) -> Json:
    arguments = orjson.dumps(call.get("parameters") or {}).decode()
    return {"id": f"call_{place}", "type": "function", "function": {"name": call["name"], "arguments": arguments}}


def finish(answer: Mapping[str, Any], body: bytes, *, has_calls: bool) -> Json:
    """Why the answer ends. The vendor says "COMPLETE" of tool calls too."""
    ending = ending_of(answer, body)
    return {**ending, "finish_reason": "tool_calls"} if has_calls and ending["finish_reason"] == "stop" else ending


def rest_of(answer: Mapping[str, Any]) -> Json:
    """An answer's fields beside its choices."""
    rest = {name: answer[name] for name in KEPT if answer.get(name)}
    meta = answer.get("meta") or {}
    return {**rest, "usage": usage_of(meta)} if meta.get("tokens") or meta.get("billed_units") else rest


class CohereV1Stream(StreamDecoder):
    """One JSON object a line, bare or as an event's data."""

    def __init__(self, request: Request) -> None:
        self._lines = LineSplitter()
        self._reader = V1Reader(request)
        self._request = request
        self._body = bytearray()
        """What came before the first event: all of an answer or error that does not stream."""

    def feed(self, data: bytes) -> list[bytes]:
        return [chunk for line in self._lines.feed(data) for chunk in self._line(line)]

    def end(self) -> list[bytes]:
        rest = self._lines.end()
        if not self._reader.has_begun and b"event_type" not in rest:
            return self._unstreamed(bytes(self._body) + rest)
        chunks = self._line(rest) if rest.rstrip().endswith(b"}") else []
        if not self._reader.finished:
            raise ProviderFault(CUT_SHORT, rest)
        return chunks

    def _unstreamed(self, body: bytes) -> list[bytes]:
        """The chunk of an answer, or the fault of an error, that came whole although a stream was asked for."""
        from ..core.shape import completion_as_chunk

        if not body.strip():
            raise ProviderFault(CUT_SHORT, body)
        return [orjson.dumps(completion_as_chunk(orjson.loads(completion(body, self._request))))]

    def _line(self, line: bytes) -> list[bytes]:
        text = line.strip().removeprefix(b"data:").lstrip()
        if self._reader.finished or not text or text.startswith((b"event:", b"id:", b":", b"[DONE]")):
            return []
        if not self._reader.has_begun and b"event_type" not in text:
            self._body += line + b"\n"
            return []
        try:
            return self._reader.read(orjson.loads(text), text)
        except MALFORMED as error:
            raise malformed("Cohere", error, text) from error


class V1Reader:
    """Turns events, parsed, into chunks."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._head = b""
        self._has_text = False
        self._calls = 0
        self._chunks: list[bytes] = []
        self.finished = False

    @property
    def has_begun(self) -> bool:
        return bool(self._head)

    def read(self, event: Json, data: bytes) -> list[bytes]:
        """The chunks of one event. Raises `ProviderFault`, or any of `MALFORMED`."""
        kind = event.get("event_type")
        if kind is None and "message" in event:  # an error as it is outside of streams
            raise fault_of(data)
        if not self._head:
            identity = event.get("generation_id") or _identity(event.get("response") or {})
            self._head = orjson.dumps(head(identity, "chat.completion.chunk", self._request))[:-1]
            self._say({"role": "assistant", "content": None})
        take = EVENTS.get(str(kind))
        if take is not None:
            take(self, event, data)
        chunks, self._chunks = self._chunks, []
        return chunks

    def _say(self, delta: Mapping[str, Any], **choice: Any) -> None:
        said = orjson.dumps({"index": 0, "delta": delta, "finish_reason": None, **choice})
        self._chunks.append(self._head + b',"choices":[' + said + b"]}")

    def _text(self, event: Json, data: bytes) -> None:
        text = event["text"]
        if not isinstance(text, str):
            raise TypeError(f"{text!r} instead of text")
        if text:
            self._has_text = True
            self._say({"content": text})

    def _called(self, event: Json, data: bytes) -> None:
        """All calls at once. The vendor said them in pieces before, as "tool-calls-chunk"."""
        for call in event.get("tool_calls") or ():
            self._say({"tool_calls": [{"index": self._calls, **tool_call(call, self._calls)}]})
            self._calls += 1

    def _cited(self, event: Json, data: bytes) -> None:
        self._say({"citations": event["citations"]})

    def _end(self, event: Json, data: bytes) -> None:
        answer = event.get("response") or {}
        if not self._calls:
            self._called(answer, data)
        if not self._has_text and answer.get("text"):
            self._text(answer, data)
        reason = answer.get("finish_reason") or event.get("finish_reason")
        ending = finish({**answer, "finish_reason": reason}, data, has_calls=self._calls > 0)
        self._say({} if self._has_text or self._calls else {"content": ""}, **ending)
        rest = rest_of(answer)
        counts = event.get("amazon-bedrock-invocationMetrics")  # which has them there, and `meta` is not
        if counts and "usage" not in rest:
            asked, said = counts.get("inputTokenCount"), counts.get("outputTokenCount")
            rest["usage"] = usage_of({"tokens": {"input_tokens": asked, "output_tokens": said}})
        if rest:
            self._chunks.append(self._head + b',"choices":[],' + orjson.dumps(rest)[1:])
        self.finished = True


EVENTS: dict[str, Callable[[V1Reader, Json, bytes], None]] = {
    "text-generation": V1Reader._text,
    "tool-calls-generation": V1Reader._called,
    "citation-generation": V1Reader._cited,
    "stream-end": V1Reader._end,
}
"""The vendor may add kinds; those not here say nothing that a chunk could, or what the last one says again."""
