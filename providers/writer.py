"""Writer's protocol: OpenAI's messages at a path of its own, and text completions that stream in a way of their own.

https://dev.writer.com/home/chat-completion and …/home/text-generation (read 2026-11; the stream as recorded)

A streamed text comes as events `{"value": "…"}`, and nothing marks its end but the connection's: one that is broken off
between two events cannot be told from one that is whole, if the transport does not tell.
"""

from __future__ import annotations

import time
from typing import Any

import orjson

from ..core.types import Request
from .base import Provider, ProviderFault, StreamDecoder
from .broken import CUT_SHORT
from .failures import fault_in_answer
from .openai import OpenAICodec
from .openai_endpoints import TextCodec
from .openai_streams import answer
from .sse import Event, EventSplitter

Json = dict[str, Any]


class WriterChat(OpenAICodec):
    path = "/chat"


class WriterText(TextCodec):
    def body(self, request: Request, provider: Provider) -> Json:
        return super().body(request._replace(stream_options=None), provider)  # its texts are streamed without counts

    def decoder(self, request: Request) -> StreamDecoder:
        return WriterStream(request)


class WriterStream(StreamDecoder):
    """Pieces of a text as OpenAI's."""

    def __init__(self, request: Request) -> None:
        self._events = EventSplitter()
        self._base: Json = {"id": "", "object": "text_completion", "created": int(time.time()), "model": request.model}
        self._body = bytearray()
        """What came before the first event: all of an answer or error that does not stream."""
        self._is_events = self._has_text = False

    def feed(self, data: bytes) -> list[bytes]:
        if self._is_events:
            return self._read(self._events.feed(data))
        self._body += data
        start = self._body.lstrip()
        if not start or start.startswith((b"{", b"[", b"<")):
            return []
        self._is_events = True
        return self._read(self._events.feed(bytes(self._body)))

    def end(self) -> list[bytes]:
        if not self._is_events:
            return [orjson.dumps(answer(bytes(self._body), "choices"))]
        pieces = self._read(self._events.end())
        if not self._has_text:
            raise ProviderFault(CUT_SHORT)
        return [*pieces, self._piece("", "stop")]

    def _read(self, events: list[Event]) -> list[bytes]:
        pieces = []
        for _, data in events:
            if data.startswith(b"[DONE]"):
                continue
            try:
                event = orjson.loads(data)
            except orjson.JSONDecodeError:
                raise ProviderFault(CUT_SHORT, data) from None
            text = event.get("value") if isinstance(event, dict) else None
            if not isinstance(text, str):
                raise ProviderFault(fault_in_answer(data), data)
            self._has_text = True
            pieces.append(self._piece(text))
        return pieces

    def _piece(self, text: str, reason: str | None = None) -> bytes:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
        return orjson.dumps({**self._base, "choices": [choice]})
