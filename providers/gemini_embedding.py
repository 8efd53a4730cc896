"""Gemini's vectors.

https://ai.google.dev/api/embeddings#method:-models.batchembedcontents (parameters and answers as recorded, 2026-11)

One item or many, `batchEmbedContents` is what is called: it answers both in one form. Most models do not say how
many tokens they read; the usage is then 0, and not a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from ..core.types import Request
from .base import Call, Provider, ProviderFault, StreamDecoder
from .failures import fault_in_answer
from .gemini import GeminiCodec
from .gemini_messages import invalid
from .openai import wire_json
from .vectors import in_openais_shape

NAMES = {"dimensions": "outputDimensionality", "task_type": "taskType", "title": "title"}


class GeminiEmbed(GeminiCodec):
    """Texts to vectors. Content of Gemini's own (`{"parts": […]}`), or a part of it, may be an item too."""

    def parameters(self, provider: Provider) -> frozenset[str]:
        return frozenset({"input", "encoding_format", *NAMES}) | provider.extra

    def encode(self, request: Request, provider: Provider) -> Call:
        asked = request.parameters
        own = {theirs: asked[ours] for ours, theirs in NAMES.items() if ours in asked}
        model = self.path(request).removeprefix("/").partition(":")[0]
        items = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
        requests = [{"model": model, "content": _content(item), **own, **(request.extra_body or {})} for item in items]
        path = self.path(request)
        return Call(path, wire_json({"requests": requests}), provider.headers, self.base(request) + path)

    def path(self, request: Request) -> str:
        return super().path(request._replace(stream=False)).removesuffix("generateContent") + "batchEmbedContents"

    def decode(self, body: bytes, request: Request) -> bytes:
        try:
            answer = orjson.loads(body)
            vectors = [item["values"] for item in answer["embeddings"]]
        except (orjson.JSONDecodeError, TypeError, KeyError):
            raise ProviderFault(fault_in_answer(body), body) from None
        tokens = (answer.get("usageMetadata") or {}).get("promptTokenCount") or 0
        try:
            return in_openais_shape(vectors, tokens, request)
        except TypeError:
            raise ProviderFault(fault_in_answer(body)._replace(status=502), body) from None

    def decoder(self, request: Request) -> StreamDecoder:
        raise invalid("Gemini does not stream vectors. Leave out stream=True.")


def _content(item: Any) -> Any:
    if isinstance(item, str):
        return {"parts": [{"text": item}]}
    if isinstance(item, Mapping):
        return item if "parts" in item else {"parts": [item]}
    raise invalid("Gemini embeds texts, not tokens: give input as text, or a list of texts.")
