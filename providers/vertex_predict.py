"""Vertex AI's `predict`: vectors of texts and pictures, and pictures by Imagen (at the Gemini API too).

https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api, …/multimodal-embeddings-api
and …/imagen-api (read 2026-11; answers for vectors as recorded)
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import orjson

from ..core.types import Request
from .base import Call, Failure, Provider, ProviderFault, StreamDecoder
from .broken import MALFORMED, malformed
from .failures import fault_in_answer
from .gemini import GeminiCodec, merged
from .gemini_messages import invalid
from .openai import wire_json
from .vectors import in_openais_shape
from .vertex import OURS, VertexCodec

Json = dict[str, Any]
OF_EACH = {"task_type": "task_type", "title": "title"}
OF_ALL = {"dimensions": "outputDimensionality", "auto_truncate": "autoTruncate"}


class VertexEmbed(VertexCodec):
    """Texts to vectors. An item may be an instance in the vendor's words: {"content": …}, {"image": …}."""

    def parameters(self, provider: Provider) -> frozenset[str]:
        return frozenset({"input", "encoding_format", *OF_EACH, *OF_ALL}) | OURS | provider.extra

    def encode(self, request: Request, provider: Provider) -> Call:
        asked = request.parameters
        given = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
        body: Json = {"instances": [_instance(item, request) for item in given]}
        name = "dimension" if _is_multimodal(request) else "outputDimensionality"
        own = {
            name if theirs == "outputDimensionality" else theirs: asked[ours]
            for ours, theirs in OF_ALL.items()
            if ours in asked
        }
        if own:
            body["parameters"] = own
        path = self.path(request)
        return Call(
            path, wire_json(merged(body, request.extra_body or {})), provider.headers, self.base(request) + path
        )

    def path(self, request: Request) -> str:
        return predict(super().path(request))

    def decode(self, body: bytes, request: Request) -> bytes:
        try:
            answer = orjson.loads(body)
            if "predictions" not in answer:
                raise ProviderFault(fault_in_answer(body), body)
            tokens = sum(_tokens(item) for item in answer["predictions"])
            return in_openais_shape([_vector(item) for item in answer["predictions"]], tokens, request)
        except MALFORMED as error:
            raise malformed("Vertex AI", error, body) from error

    def decoder(self, request: Request) -> StreamDecoder:
        raise invalid("Vertex AI does not stream vectors. Leave out stream=True.")


def predict(path: str) -> str:
    """The path of `generateContent` as that of `predict`."""
    return path.rpartition(":")[0] + ":predict"


def _is_multimodal(request: Request) -> bool:
    return request.model.startswith("multimodal")


def _instance(item: Any, request: Request) -> Json:
    if isinstance(item, Mapping):
        return dict(item)
    if not isinstance(item, str):
        raise invalid("Vertex AI embeds texts, not tokens: give input as text, or a list of texts.")
    if _is_multimodal(request):
        return {"text": item}
    asked = request.parameters
    return {"content": item, **{theirs: asked[ours] for ours, theirs in OF_EACH.items() if ours in asked}}


def _vector(prediction: Json) -> Any:
    if "embeddings" in prediction:
        return prediction["embeddings"]["values"]
    return prediction["textEmbedding"] if "textEmbedding" in prediction else prediction["imageEmbedding"]


def _tokens(prediction: Json) -> int:
    held = prediction.get("embeddings") or {}
    return int((held.get("statistics") or {}).get("token_count") or 0)


# Pictures

PARAMETERS = {
    "add_watermark": "addWatermark",
    "aspect_ratio": "aspectRatio",
    "enhance_prompt": "enhancePrompt",
    "guidance_scale": "guidanceScale",
    "image_size": "sampleImageSize",
    "language": "language",
    "n": "sampleCount",
    "negative_prompt": "negativePrompt",
    "person_generation": "personGeneration",
    "safety_setting": "safetySetting",
    "seed": "seed",
}
OUTPUT = frozenset({"output_format", "output_compression"})
RATIOS = {"1:1": 1.0, "4:3": 4 / 3, "3:4": 3 / 4, "16:9": 16 / 9, "9:16": 9 / 16}
FORMATS = {"png": "image/png", "jpeg": "image/jpeg", "jpg": "image/jpeg"}


class Imagen(GeminiCodec):
    """A text to pictures, which come as base64; there are no links."""

    def parameters(self, provider: Provider) -> frozenset[str]:
        return frozenset({"prompt", "size", "response_format", *PARAMETERS, *OUTPUT}) | provider.extra

    def encode(self, request: Request, provider: Provider) -> Call:
        asked = request.parameters
        if asked.get("response_format", "b64_json") != "b64_json":
            raise invalid("Imagen gives pictures as base64, not as links: response_format='b64_json'.")
        own: Json = {"sampleCount": 1, **{theirs: asked[ours] for ours, theirs in PARAMETERS.items() if ours in asked}}
        if "size" in asked:
            own.setdefault("aspectRatio", ratio_of(asked["size"]))
        if "output_format" in asked:
            kind = FORMATS.get(asked["output_format"], asked["output_format"])
            own["outputOptions"] = {"mimeType": kind}
        if "output_compression" in asked:
            own["outputOptions"] = {**own.get("outputOptions", {}), "compressionQuality": asked["output_compression"]}
        body = {"instances": [{"prompt": asked["prompt"]}], "parameters": own}
        path = self.path(request)
        return Call(
            path, wire_json(merged(body, request.extra_body or {})), provider.headers, self.base(request) + path
        )

    def path(self, request: Request) -> str:
        return predict(super().path(request))

    def decode(self, body: bytes, request: Request) -> bytes:
        try:
            answer = orjson.loads(body)
            if answer.get("error"):
                raise ProviderFault(fault_in_answer(body), body)
            predictions = answer.get("predictions") or []
            data = [_picture(item) for item in predictions if item.get("bytesBase64Encoded")]
            if not data:
                raise _withheld(predictions, body)
            return orjson.dumps({"created": int(time.time()), "data": data})
        except MALFORMED as error:
            raise malformed("Vertex AI", error, body) from error

    def decoder(self, request: Request) -> StreamDecoder:
        raise invalid("Imagen does not stream. Leave out stream=True.")


class VertexImagen(Imagen, VertexCodec):
    def parameters(self, provider: Provider) -> frozenset[str]:
        return Imagen.parameters(self, provider) | OURS


def _picture(prediction: Json) -> Json:
    data = prediction["bytesBase64Encoded"]
    if not isinstance(data, str):
        raise TypeError("no picture")
    picture = {"b64_json": data, "mime_type": prediction.get("mimeType")}
    return {**picture, "revised_prompt": prediction["prompt"]} if prediction.get("prompt") else picture


def _withheld(predictions: list[Json], body: bytes) -> ProviderFault:
    """The vendor's filters leave pictures out, and say why only if they are asked to."""
    reasons = [str(item["raiFilteredReason"]) for item in predictions if item.get("raiFilteredReason")]
    said = "; ".join(reasons) or "The answer has no pictures: the vendor's filters left them out."
    return ProviderFault(Failure(said, "filtered", kind="content_policy", status=400), body)


def ratio_of(size: Any) -> str:
    """OpenAI's width and height as one of the vendor's ratios. Raises `InvalidRequest` if none is near."""
    if size in RATIOS:
        return str(size)
    width, cross, height = str(size).partition("x")
    if cross and width.isdecimal() and height.isdecimal() and int(width) and int(height):
        ratio = int(width) / int(height)
        near = min(RATIOS, key=lambda name: abs(RATIOS[name] - ratio))
        if abs(RATIOS[near] / ratio - 1) < 0.1:  # the vendor's own 4:3 has 1280 by 896 points
            return near
    raise invalid(f"size={size!r}: Imagen's pictures are {', '.join(RATIOS)}; give one of these as aspect_ratio.")
