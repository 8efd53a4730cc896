"""Perplexity: OpenAI's protocol, whose answers name the pages that the text refers to as [1], [2] beside the choices.

https://docs.perplexity.ai/api-reference/sonar-post (read 2026-11). These references become `annotations` of the message
too; in a stream, of the last piece.
"""

from __future__ import annotations

from typing import Any

import orjson

from ..core import shape
from ..core.types import Request
from .annotations import of_perplexity
from .base import StreamDecoder
from .openai import Mend, OpenAICodec, OpenAIStream

Json = dict[str, Any]


class PerplexityCodec(OpenAICodec):
    """Chat completions, with annotations."""

    def decode(self, body: bytes, request: Request) -> bytes:
        answer = super().decode(body, request)
        if b'"citations"' not in answer:
            return answer
        data = shape.parsed(answer)
        for choice in data["choices"]:
            _annotate(choice.get("message"), (choice.get("message") or {}).get("content"), data)
        return orjson.dumps(data)

    def decoder(self, request: Request) -> StreamDecoder:
        return PerplexityStream(self._fix(request))


class PerplexityStream(OpenAIStream):
    """Chunks, the last of which has the annotations."""

    def __init__(self, fix: Mend | None = None) -> None:
        super().__init__(fix)
        self._texts: dict[Any, list[str]] = {}
        """What each choice has said, by its index."""

    def feed(self, data: bytes) -> list[bytes]:
        return [self._noted(chunk) for chunk in super().feed(data)]

    def end(self) -> list[bytes]:
        return [self._noted(chunk) for chunk in super().end()]

    def _noted(self, chunk: bytes) -> bytes:
        data = shape.parsed(chunk)
        is_last = False
        for choice in data.get("choices") or ():
            delta = choice.get("delta") or {}
            said = self._texts.setdefault(choice.get("index"), [])
            said.append(delta.get("content") or "")
            if choice.get("finish_reason"):
                is_last = _annotate(delta, "".join(said), data) or is_last
        return orjson.dumps(data) if is_last else chunk


def _annotate(holder: Any, text: Any, data: Json) -> bool:
    """Puts the annotations of `text` into a message or delta. Says whether there are any."""
    notes = of_perplexity(text or "", data.get("citations") or (), data.get("search_results") or ())
    if notes and isinstance(holder, dict):
        holder["annotations"] = notes
    return bool(notes)
