"""Streams of the endpoints beside chat: events that are given on as they are, and sound.

https://platform.openai.com/docs/api-reference (Responses, Images, Audio; 2026-11)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson

from ..core import shape
from ..core.endpoint_folds import TRANSCRIPT_END, sound_event
from .base import ProviderFault, StreamDecoder
from .broken import CUT_SHORT
from .failures import fault_in_answer
from .sse import Event, EventSplitter

EVENTS = re.compile(rb"(data|event|id|retry)?:")
"""How a stream of events begins."""
LONGEST_FIELD = len(b"event:")


class EventStream(StreamDecoder):
    """Events, until so many of them are of a kind that ends the answer.

    `unstreamed` makes events out of a body that is none: the whole answer of a server that does not stream. It raises
    `ProviderFault` where that is an error.
    """

    def __init__(self, ends: frozenset[str], unstreamed: Callable[[bytes], list[bytes]], count: int = 1) -> None:
        self._ends, self._unstreamed, self._left = ends, unstreamed, count
        self._events = EventSplitter()
        self._start = bytearray()
        """The first bytes, until it is clear what they are; of a body that is no event stream: all."""
        self._is_events: bool | None = None

    def feed(self, data: bytes) -> list[bytes]:
        if self._is_events:
            return self._pieces(self._events.feed(data))
        self._start += data
        head = self._start.lstrip(b"\xef\xbb\xbf \t\r\n")
        if self._is_events is None and (len(head) >= LONGEST_FIELD or b"\n" in head):
            self._is_events = EVENTS.match(head) is not None
        return self._pieces(self._events.feed(bytes(self._start))) if self._is_events else []

    def end(self) -> list[bytes]:
        if not self._is_events:
            return self._unstreamed(bytes(self._start))
        pieces = self._pieces(self._events.end())
        if self._left > 0:
            raise ProviderFault(CUT_SHORT)
        return pieces

    def _pieces(self, events: list[Event]) -> list[bytes]:
        pieces = []
        for event in events:
            if self._left <= 0 or not event.data.startswith(b"{"):
                continue  # `[DONE]`, which some of OpenAI's followers send
            kind = self._kind(event)
            if kind == "error":
                raise ProviderFault(fault_in_answer(event.data), event.data)
            self.check(kind, event.data)
            self._left -= kind in self._ends
            if (piece := self.piece(kind, event.data)) is not None:
                pieces.append(piece)
        return pieces

    def piece(self, kind: str, data: bytes) -> bytes | None:
        """An event as it is given on; None: not at all."""
        return data

    def check(self, kind: str, data: bytes) -> None:
        """Raise `ProviderFault` for an event that says that the answer failed."""

    def _kind(self, event: Event) -> str:
        """The type of an event, checked: the bytes of one that is cut are not given on."""
        if event.name not in ("message", "error") and event.name not in self._ends:
            return event.name
        try:
            return str(orjson.loads(event.data).get("type") or event.name)
        except orjson.JSONDecodeError:
            raise ProviderFault(CUT_SHORT, event.data) from None


class ResponseStream(EventStream):
    """The same of the Responses API, where a response that failed comes in an event of its own."""

    def check(self, kind: str, data: bytes) -> None:
        if kind == "response.failed":
            answer(orjson.dumps(orjson.loads(data).get("response")), "output")


MISTRAL = {
    "transcription.text.delta": "transcript.text.delta",
    "transcription.segment": "transcript.text.segment",
    "transcription.done": TRANSCRIPT_END,
    "transcription.language": None,
}
"""Mistral's events of a transcription, and OpenAI's for the same.

https://docs.mistral.ai/api/endpoint/audio/transcriptions (2026-11, by clients made from its OpenAPI description)
"""


class TranscriptStream(EventStream):
    """The same of what was said, which Mistral tells in words of its own."""

    def piece(self, kind: str, data: bytes) -> bytes | None:
        if kind not in MISTRAL:
            return data
        name = MISTRAL[kind]
        if name is None:
            return None
        try:
            event = {**orjson.loads(data), "type": name}
        except orjson.JSONDecodeError:
            raise ProviderFault(CUT_SHORT, data) from None
        if name.endswith("delta"):
            event["delta"] = event.pop("text", "")
        elif "speaker_id" in event:
            event["speaker"] = event.pop("speaker_id")
        return orjson.dumps(event)


class SoundStream(EventStream):
    """Sound as it comes, each batch as an event; or events with sound in them, where such come."""

    _is_sound = False

    def feed(self, data: bytes) -> list[bytes]:
        if self._is_sound:
            return [sound_event(data)] if data else []
        pieces = super().feed(data)
        if self._is_events is False and not self._start.startswith((b"{", b"<")):
            self._is_sound = True
            return [sound_event(bytes(self._start))]
        return pieces

    def end(self) -> list[bytes]:
        return [] if self._is_sound else super().end()


def answer(body: bytes, needs: str) -> dict[str, Any]:
    """An answer, parsed. Raises `ProviderFault` if it is an error, or none."""
    try:
        data = shape.parsed(body)
    except shape.Misshapen:
        raise ProviderFault(fault_in_answer(body)._replace(status=502), body) from None
    if data.get("error"):
        raise ProviderFault(fault_in_answer(orjson.dumps({"error": data["error"]})), body)
    if data.get(needs) is None:
        raise ProviderFault(fault_in_answer(body), body)
    return data
