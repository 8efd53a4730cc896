"""Gemini's answers as OpenAI's: candidates as choices, and what OpenAI has no place for beside them.

https://ai.google.dev/api/generate-content#generatecontentresponse (read 2026-11)

What is decided here:

- Thoughts are `reasoning_content`; a text's thought signature is `extra_content.google.thought_signature` of the
  message, a call's of the call. Images are `message.images`, as data URLs.
- A call without an id gets one made of the answer's id and the call's place, the same each time it is read.
- What does not fit into that (code that was run, the vendor's own tools, parts in another order, more than one signed
  text) is kept whole in `message.content_parts`, which the encoder sends back as it is.
- Grounding is kept whole beside the choice; what of the text rests on which page is `message.annotations` too.
- A prompt that was blocked is an answer with `finish_reason` "content_filter" and a refusal, as with other vendors.
- The vendor's reason for the end is `native_finish_reason`; one that OpenAI has no word for is `finish_reason` too, in
  lower case. Calls that it could not write or may not make are no "stop".
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import orjson

from ..core.types import Request
from .base import Failure, ProviderFault, StreamDecoder
from .broken import CUT_SHORT, MALFORMED, cut_short, is_json, malformed
from .failures import read_failure
from .gemini_turns import Json, Turns, count_of, text_of
from .sse import Event, EventSplitter

STATUSES = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""https://cloud.google.com/apis/design/errors#handling_errors"""

TOO_LONG = re.compile(r"input token count is \d+ but model only supports up to", re.IGNORECASE)
"""How Vertex AI says it; the Gemini API's words are like other vendors'."""

UNKNOWN_CALLER = re.compile(
    rb"API_KEY_INVALID|ACCESS_TOKEN_EXPIRED|ACCESS_TOKEN_TYPE_UNSUPPORTED|CREDENTIALS_MISSING"
    rb"|unregistered callers|reported as leaked"
)
"""Google answers 400 to a wrong key, and 403 to one that is missing or that it took back."""

RETRY_DELAY = re.compile(rb'"retryDelay"\s*:\s*"(\d{1,6}(?:\.\d+)?)s"')
SERVICE_TIERS = {"standard": "default", "flex": "flex", "priority": "priority"}


def failure_of(body: bytes, status: int | None = None) -> Failure:
    """What an error's body says. `status` is the answer's, if that was an error."""
    failure = read_failure(body, status)._replace(retry_after=_retry_delay(body))
    if UNKNOWN_CALLER.search(body):
        return failure._replace(kind="authentication")
    if failure.kind is None and TOO_LONG.search(failure.message):
        return failure._replace(kind="context_window")
    return failure


def _retry_delay(body: bytes) -> float | None:
    """Seconds, out of google.rpc.RetryInfo: the vendor sends no Retry-After."""
    found = RETRY_DELAY.search(body)
    return float(found[1]) if found else None


def fault_of(body: bytes) -> ProviderFault:
    """An error that came inside a 200."""
    failure = failure_of(body)
    return ProviderFault(failure._replace(status=failure.status or STATUSES.get(failure.code or "", 500)), body)


def completion(body: bytes, request: Request) -> bytes:
    """A whole answer as `chat.completion` JSON. Raises `ProviderFault`."""
    try:
        answer = orjson.loads(body)
        if isinstance(answer, list) or "error" in answer:
            raise fault_of(body)
        turns = Turns()
        turns.take(answer)
        choices = [
            {"index": index, "message": turn.message(), **turn.ending()} for index, turn in sorted(turns.items())
        ]
        if not choices:
            raise ValueError("it has neither candidates nor a reason for blocking the prompt")
        result = {**head(answer, request), "object": "chat.completion", "choices": choices, **closing_fields(turns)}
        return orjson.dumps(result)
    except MALFORMED as error:
        raise malformed("Gemini", error, body) from error


def head(answer: Mapping[str, Any], request: Request) -> Json:
    """What each answer and chunk begins with."""
    made = answer.get("createTime")
    return {
        "id": text_of(answer.get("responseId")),
        "object": "chat.completion.chunk",
        "created": int(datetime.fromisoformat(made).timestamp() if made else time.time()),
        "model": text_of(answer.get("modelVersion")) or request.model,
    }


def usage_fields(usage: Mapping[str, Any]) -> Json:
    """`usage` and `service_tier`; nothing where the vendor counts nothing.

    The vendor's prompt count includes what it read from its cache, but not what its tools found and gave the model to
    read; its candidates' count does not include thoughts. OpenAI's include both.
    """
    tier = SERVICE_TIERS.get(usage.get("serviceTier") or "")
    fields: Json = {"service_tier": tier} if tier else {}
    if "promptTokenCount" not in usage and "totalTokenCount" not in usage:
        return fields
    tools, thoughts = count_of(usage.get("toolUsePromptTokenCount")), count_of(usage.get("thoughtsTokenCount"))
    prompt = count_of(usage.get("promptTokenCount")) + tools
    written = count_of(usage.get("candidatesTokenCount")) + thoughts
    counted: Json = {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": count_of(usage.get("totalTokenCount")) or prompt + written,
        "prompt_tokens_details": {
            "cached_tokens": count_of(usage.get("cachedContentTokenCount")),
            "audio_tokens": audio_tokens(usage.get("promptTokensDetails")),
        },
        "completion_tokens_details": {
            "reasoning_tokens": thoughts,
            "audio_tokens": audio_tokens(usage.get("candidatesTokensDetails")),
        },
    }
    if tools:
        counted["tool_use_prompt_tokens"] = tools
    if usage.get("trafficType"):
        counted["traffic_type"] = usage["trafficType"]
    return {"usage": counted, **fields}


def closing_fields(turns: Turns) -> Json:
    """What is said of the whole answer at its end."""
    fields = usage_fields(turns.usage)
    return {"prompt_feedback": turns.feedback, **fields} if turns.feedback else fields


def audio_tokens(details: Any) -> int:
    return sum(count_of(item.get("tokenCount")) for item in details or () if item.get("modality") == "AUDIO")


class GeminiStream(StreamDecoder):
    """Turns pieces of an answer into chunks. The protocol has no sign of its end but the reasons of the candidates."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._events = EventSplitter()
        self._body = bytearray()
        """The first bytes, until it is clear what they are; of a body that is no event stream: all."""
        self._is_events: bool | None = None
        self._head = b""
        self._turns = Turns()
        self._begun: set[int] = set()

    def feed(self, data: bytes) -> list[bytes]:
        if self._is_events:
            return self._read(self._events.feed(data))
        self._body += data
        if self._is_events is None and (start := self._body.lstrip(b"\xef\xbb\xbf \t\r\n")):
            self._is_events = not start.startswith((b"{", b"[", b"<"))
        return self._read(self._events.feed(bytes(self._body))) if self._is_events else []

    def end(self) -> list[bytes]:
        # Half an event at the end is a cut, not a malformed answer.
        if self._is_events:
            chunks = self._read([event for event in self._events.end() if is_json(event.data)])
        else:
            chunks = self._unstreamed()
        if not self._turns.finished:
            raise ProviderFault(CUT_SHORT)
        try:
            for index, turn in sorted(self._turns.items()):
                choice = {"index": index, "delta": turn.closing(), **turn.ending()}
                choice.pop("logprobs", None)
                chunks.append(self._chunk({"choices": [choice]}))
            if rest := closing_fields(self._turns):
                chunks.append(self._chunk({"choices": [], **rest}))
        except MALFORMED as error:
            raise malformed("Gemini", error, b"") from error
        return chunks

    def _unstreamed(self) -> list[bytes]:
        """A body that is no event stream: one answer or error, or a list of pieces (without `alt=sse`)."""
        body = bytes(self._body)
        try:
            whole = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise cut_short(body) from None
        pieces = whole if isinstance(whole, list) else [whole]
        return [chunk for piece in pieces for chunk in self._take(piece, body)]

    def _read(self, events: Iterable[Event]) -> list[bytes]:
        chunks: list[bytes] = []
        for name, data in events:
            if data.startswith(b"[DONE]"):
                continue
            try:
                piece = orjson.loads(data)
            except orjson.JSONDecodeError as error:
                raise malformed("Gemini", error, data) from error
            if name == "error":
                raise fault_of(data)
            chunks += self._take(piece, data)
        return chunks

    def _take(self, piece: Any, data: bytes) -> list[bytes]:
        try:
            if "error" in piece:
                raise fault_of(orjson.dumps({"error": piece["error"]}))
            if not self._head:
                self._head = orjson.dumps(head(piece, self._request))[:-1]
            return [self._said(*addition) for addition in self._turns.take(piece)]
        except MALFORMED as error:
            raise malformed("Gemini", error, data) from error

    def _said(self, index: int, delta: Json, logprobs: Any) -> bytes:
        if index not in self._begun:
            self._begun.add(index)
            delta = {"role": "assistant", **delta}
        choice = {"index": index, "delta": delta, "finish_reason": None}
        return self._chunk({"choices": [{**choice, "logprobs": logprobs} if logprobs else choice]})

    def _chunk(self, fields: Json) -> bytes:
        return self._head + b"," + orjson.dumps(fields)[1:]
