"""Vectors of Amazon Bedrock's models, by InvokeModel: Titan, Nova and Cohere, each in its own protocol.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html, …-titan-embed-mm.html,
…-embed.html and https://docs.aws.amazon.com/nova/latest/userguide/embeddings-schema.html (read 2026-11)

Titan and Nova take one item in a request: `router/embedding.py` makes one of each. An item may be an object in the
model's own words ({"inputImage": …}), which is sent as it is. Titan counts tokens in its answer, the others in headers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from ..core.types import Request
from .base import Call, Provider, Reply, StreamDecoder
from .bedrock import NOVA, BedrockCodec
from .bedrock_answers import fault_of
from .bedrock_choices import COUNTS
from .bedrock_messages import invalid
from .broken import MALFORMED, malformed
from .cohere_endpoints import texts_body, vectors_in
from .openai import wire_json
from .vectors import in_openais_shape

Json = dict[str, Any]

COHERE = re.compile(r"cohere\.")
PICTURES = re.compile("titan-embed-(image|g1-image)")


class BedrockEmbed(BedrockCodec):
    """Texts to vectors."""

    whole = "invoke"

    def parameters(self, provider: Provider) -> frozenset[str]:
        ours = {"input", "dimensions", "encoding_format", "normalize", "embedding_types", "embedding_purpose"}
        return frozenset(ours | {"input_type", "truncate", "max_tokens"}) | provider.extra

    def encode(self, request: Request, provider: Provider) -> Call:
        asked = request.parameters
        given = asked["input"]
        if COHERE.search(request.model):
            body = texts_body({name: value for name, value in asked.items() if name != "encoding_format"})
        else:
            body = _one(given[0] if isinstance(given, list) and len(given) == 1 else given, request)
        return self.call(request, provider, wire_json({**body, **(request.extra_body or {})}))

    def decode(self, body: bytes, request: Request) -> bytes:
        try:
            answer = orjson.loads(body)
            if not answer.keys() & {"embedding", "embeddings", "embeddingsByType"}:
                raise fault_of(body)
            return in_openais_shape(_vectors(answer), int(answer.get("inputTextTokenCount") or 0), request)
        except MALFORMED as error:
            raise malformed("Bedrock", error, body) from error

    def decode_reply(self, reply: Reply, request: Request) -> bytes:
        answer = self.decode(reply.body, request)
        counts = {name.lower(): value for name, value in reply.headers.items()}
        count = counts.get(next(iter(COUNTS)), "")
        if b'"usage":{"prompt_tokens":0,' not in answer or not (count.isascii() and count.isdigit()):
            return answer
        return orjson.dumps(
            {**orjson.loads(answer), "usage": {"prompt_tokens": int(count), "total_tokens": int(count)}}
        )

    def decoder(self, request: Request) -> StreamDecoder:
        raise invalid("Bedrock does not stream vectors. Leave out stream=True.", request.model)


def _one(item: Any, request: Request) -> Json:
    """What Titan and Nova are asked. Raises `InvalidRequest` for what is not one item."""
    asked, model = request.parameters, request.model
    if isinstance(item, Mapping):
        return dict(item)
    if not isinstance(item, str):
        raise invalid(f"{model!r} embeds texts, one in a request, and no tokens.", model)
    size = asked.get("dimensions")
    if NOVA.search(model):
        own = {"embeddingPurpose": asked.get("embedding_purpose", "GENERIC_INDEX")}
        own.update({"embeddingDimension": size} if size else {})
        text = {"truncationMode": asked.get("truncate", "END"), "value": item}
        return {"taskType": "SINGLE_EMBEDDING", "singleEmbeddingParams": {**own, "text": text}}
    if PICTURES.search(model):
        return {"inputText": item, **({"embeddingConfig": {"outputEmbeddingLength": size}} if size else {})}
    names = {"dimensions": "dimensions", "normalize": "normalize", "embedding_types": "embeddingTypes"}
    return {"inputText": item, **{theirs: asked[ours] for ours, theirs in names.items() if ours in asked}}


def _vectors(answer: Json) -> list[Any]:
    """The vectors, whoever gave them."""
    if answer.get("embedding") is not None:
        return [answer["embedding"]]
    if "embeddingsByType" in answer:  # Titan, which was asked for bits alone
        return [next(iter(answer["embeddingsByType"].values()))]
    found = answer["embeddings"]
    if isinstance(found, list) and found and isinstance(found[0], dict):
        return [item["embedding"] for item in found]  # Nova
    return vectors_in(found)
