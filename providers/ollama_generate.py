"""Ollama's own text completions: `/api/generate`, whole and as one JSON object a line.

https://docs.ollama.com/api/generate (read 2026-11)

Sampling parameters go into `options`, as in `ollama.py`. `context`, which an older way of going on with a conversation
takes, stays in the answer; thinking is beside a choice's text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from ..core.types import Request
from .base import Call, Provider, StreamDecoder
from .broken import MALFORMED, malformed
from .ollama import OPTIONS, OllamaCodec, format_of, options_of
from .ollama_answers import OllamaStream, durations, ending_of, fault_of, head, text_of, usage_of

Json = dict[str, Any]

SAME = frozenset(
    {
        *("context", "format", "images", "keep_alive", "logprobs", "prompt", "raw", "shift", "suffix", "system"),
        *("template", "think", "top_logprobs", "truncate"),
    }
)


class OllamaGenerate(OllamaCodec):
    """How a text goes on."""

    path = "/api/generate"
    takes = SAME | OPTIONS.keys() | {"options", "response_format"}

    def encode(self, request: Request, provider: Provider) -> Call:
        asked = request.parameters
        body: Json = {"model": request.model, **{name: asked[name] for name in sorted(SAME) if name in asked}}
        if "response_format" in asked:
            body.update(format_of(asked["response_format"]))
        options = options_of(asked)
        if options:
            body["options"] = options
        body["stream"] = request.stream  # without it the vendor streams
        return self._call(body, request, provider)

    def decode(self, body: bytes, request: Request) -> bytes:
        try:
            answer = orjson.loads(body)
            if answer.get("error") or "response" not in answer:
                raise fault_of(body)
            choice = {**_choice(answer), **ending_of(answer, has_calls=False)}
            return orjson.dumps({**_head(answer, request), "choices": [choice], **_rest(answer)})
        except MALFORMED as error:
            raise malformed("Ollama", error, body) from error

    def decoder(self, request: Request) -> StreamDecoder:
        return GenerateStream(request)


class GenerateStream(OllamaStream):
    holds = "response"

    def _chunks(self, event: Json) -> list[bytes]:
        base, choice = _head(event, self._request), _choice(event)
        self._has_begun, self._finished = True, bool(event.get("done"))
        if not self._finished:
            return [orjson.dumps({**base, "choices": [{**choice, "finish_reason": None}]})]
        choice.update(ending_of(event, has_calls=False))
        return [orjson.dumps({**base, "choices": [choice]}), orjson.dumps({**base, "choices": [], **_rest(event)})]


def _head(answer: Mapping[str, Any], request: Request) -> Json:
    return head(answer, "text_completion", request)


def _choice(answer: Mapping[str, Any]) -> Json:
    choice: Json = {"index": 0, "text": text_of(answer["response"]), "logprobs": None}
    thinking = text_of(answer.get("thinking"))
    if thinking:
        choice["reasoning_content"] = thinking
    if answer.get("logprobs"):
        items = answer["logprobs"]
        choice["logprobs"] = {
            "tokens": [item["token"] for item in items],
            "token_logprobs": [item["logprob"] for item in items],
            "top_logprobs": [
                {top["token"]: top["logprob"] for top in item.get("top_logprobs") or ()} or None for item in items
            ],
        }
    return choice


def _rest(answer: Mapping[str, Any]) -> Json:
    kept = {"context": answer["context"]} if answer.get("context") else {}
    return {"usage": usage_of(answer), **durations(answer), **kept}
