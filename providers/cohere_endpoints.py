"""Cohere's vectors and rankings.

https://docs.cohere.com/reference/embed and …/reference/rerank (read 2026-11; parameters also by the vendor's SDK 7.3)

Vectors come back in OpenAI's shape, rankings in Cohere's, which is everybody's. What the vendor says beside
(`meta`, the texts as it read them) stays.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from ..core.types import Request
from .base import Call, Provider, StreamDecoder
from .broken import MALFORMED, malformed
from .cohere import CohereCodec, invalid
from .cohere_answers import fault_of
from .openai import wire_json

Json = dict[str, Any]

INPUT_TYPE = "search_document"
"""What texts are embedded for, where the caller does not say; the vendor's later models must be told."""

FORMATS = {"float": ["float"], "base64": ["base64"]}


class CohereEndpoint(CohereCodec):
    """An endpoint that does not stream."""

    takes: frozenset[str]
    needs: str
    """The field without which an answer is none."""

    def parameters(self, provider: Provider) -> frozenset[str]:
        return (self.takes | provider.extra) - provider.refused

    def decoder(self, request: Request) -> StreamDecoder:
        raise invalid(f"Cohere does not stream the endpoint {request.endpoint!r}. Leave out stream=True.")

    def decode(self, body: bytes, request: Request) -> bytes:
        try:
            theirs = orjson.loads(body)
            if self.needs not in theirs:
                raise fault_of(body)
            return orjson.dumps(self.answer(theirs, request))
        except MALFORMED as error:
            raise malformed("Cohere", error, body) from error

    @abstractmethod
    def answer(self, theirs: Json, request: Request) -> Json:
        """The answer in the shape of its endpoint. Raises any of `MALFORMED`."""


class CohereEmbed(CohereEndpoint):
    """Texts to vectors. Images go in as `images` (data URLs), mixtures as `inputs`, the vendor's own."""

    path, needs = "/v2/embed", "embeddings"
    takes = frozenset(
        {
            "dimensions",
            "embedding_types",
            "encoding_format",
            "images",
            "input",
            "input_type",
            "inputs",
            "max_tokens",
            "output_dimension",
            "priority",
            "truncate",
        }
    )

    def encode(self, request: Request, provider: Provider) -> Call:
        return self._call({"model": request.model, **texts_body(request.parameters)}, request, provider)

    def answer(self, theirs: Json, request: Request) -> Json:
        vectors = theirs["embeddings"]
        by_type: Mapping[str, list[Any]] = vectors if isinstance(vectors, dict) else {"float": vectors}
        # OpenAI's field holds one form; others that were asked for stand beside it under the vendor's names.
        first = "float" if "float" in by_type else min(by_type)
        others = {name: items for name, items in by_type.items() if name != first}
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": _vector(vector),
                **{name: items[index] for name, items in others.items()},
            }
            for index, vector in enumerate(by_type[first])
        ]
        kept = {name: theirs[name] for name in ("id", "meta", "texts", "images") if theirs.get(name)}
        tokens = _billed(theirs)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {**kept, "object": "list", "model": request.model, "data": data, "usage": usage}


def texts_body(parameters: Mapping[str, Any]) -> Json:
    """What to send, without the model."""
    asked = dict(parameters)
    body: Json = {"input_type": asked.pop("input_type", INPUT_TYPE)}
    given = asked.pop("input", None)
    if given is not None:
        body["texts"] = _texts(given)
    if "dimensions" in asked:
        body["output_dimension"] = asked.pop("dimensions")
    form = asked.pop("encoding_format", None)
    if form is not None:
        body["embedding_types"] = FORMATS.get(form, [form])
    return {**body, **asked}


def vectors_in(embeddings: Any) -> list[Any]:
    """The vectors of an answer, numbers if there are such: they come bare, or by their type."""
    if not isinstance(embeddings, dict):
        return list(embeddings)
    return list(embeddings["float" if "float" in embeddings else min(embeddings)])


def _texts(given: Any) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise invalid("Cohere embeds texts, not tokens: input must be a string or a list of strings.")
    return list(texts)


def _vector(vector: Any) -> Any:
    if not isinstance(vector, (list, str)):
        raise TypeError(f"{vector!r} instead of a vector")
    return vector


def _billed(theirs: Json) -> int:
    units = (theirs.get("meta") or {}).get("billed_units") or {}
    return int(units.get("input_tokens") or 0) + int(units.get("image_tokens") or 0)


class CohereRerank(CohereEndpoint):
    """Documents by relevance. The vendor no longer sends them back; `return_documents=True` puts them in here."""

    path, needs = "/v2/rerank", "results"
    takes = frozenset(
        {"documents", "max_tokens_per_doc", "priority", "query", "relevant_spans", "return_documents", "top_n"}
    )

    def encode(self, request: Request, provider: Provider) -> Call:
        asked = {name: value for name, value in request.parameters.items() if name != "return_documents"}
        documents = [_document(document) for document in asked.get("documents") or ()]
        return self._call({"model": request.model, **asked, "documents": documents}, request, provider)

    def answer(self, theirs: Json, request: Request) -> Json:
        documents = request.parameters.get("documents") or ()
        results = [
            {**result, "index": int(result["index"]), "relevance_score": float(result["relevance_score"])}
            for result in theirs["results"]
        ]
        if request.parameters.get("return_documents"):
            for result in results:
                document = documents[result["index"]]
                result["document"] = {"text": document} if isinstance(document, str) else document
        return {**theirs, "model": request.model, "results": results}


def _document(document: Any) -> str:
    """A document as text, the only form that this version of the API takes."""
    if isinstance(document, str):
        return document
    if isinstance(document, Mapping) and isinstance(document.get("text"), str) and len(document) == 1:
        text: str = document["text"]
        return text
    return wire_json(document).decode()
