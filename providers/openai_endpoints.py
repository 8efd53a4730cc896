"""The endpoints of the OpenAI protocol beside chat, and rerank as Cohere's followers speak it.

https://platform.openai.com/docs/api-reference (parameters as in the openai package 3.54, 2026-11)
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from ..core import shape
from ..core.endpoint_folds import ENDS, IMAGE_END, SPEECH_END, TRANSCRIPT_END, UNFOLDS
from ..core.types import Request
from .base import Call, Provider, ProviderFault, StreamDecoder
from .failures import fault_in_answer
from .multipart import form
from .openai import OpenAICodec, OpenAIStream, wire_json
from .openai_streams import EventStream, ResponseStream, SoundStream, TranscriptStream, answer

PARAMETERS = {
    "embedding": "input dimensions encoding_format user",
    "text_completion": (
        "prompt best_of echo frequency_penalty logit_bias logprobs max_tokens n presence_penalty seed stop suffix "
        "temperature top_p user"
    ),
    "responses": (
        "input access_programs background background_options context_management conversation include instructions "
        "max_output_tokens max_tool_calls moderation parallel_tool_calls previous_response_id prompt prompt_cache_key "
        "prompt_cache_options prompt_cache_retention reasoning safety_identifier service_tier store temperature text "
        "tool_choice tools top_logprobs top_p truncation user"
    ),
    "image_generation": (
        "prompt background moderation n output_compression output_format partial_images quality response_format "
        "safety_identifier size style user reasoning"
    ),
    "transcription": (
        "file chunking_strategy include keywords known_speaker_names known_speaker_references language languages "
        "prompt response_format temperature timestamp_granularities"
    ),
    "translation": "file prompt response_format temperature",
    "speech": "input voice instructions response_format speed",
    "moderation": "input",
    "rerank": "query documents top_n return_documents rank_fields max_chunks_per_doc max_tokens_per_doc truncation",
    "count_tokens": "tools tool_choice response_format reasoning_effort parallel_tool_calls instructions truncation",
    "ocr": (
        "document bbox_annotation_format document_annotation_format document_annotation_prompt extract_footer "
        "extract_header id image_limit image_min_size include_image_base64 pages table_format "
        "confidence_scores_granularity"
    ),
}
"""What each endpoint takes beside the model and the stream's own."""

PATHS = {
    "embedding": "/embeddings",
    "text_completion": "/completions",
    "responses": "/responses",
    "image_generation": "/images/generations",
    "transcription": "/audio/transcriptions",
    "translation": "/audio/translations",
    "speech": "/audio/speech",
    "moderation": "/moderations",
    "rerank": "/rerank",
    "count_tokens": "/responses/input_tokens",
    "ocr": "/ocr",
}
NEEDS = {
    "embedding": "data",
    "text_completion": "choices",
    "responses": "output",
    "image_generation": "data",
    "transcription": "text",
    "translation": "text",
    "moderation": "results",
    "ocr": "pages",
}
"""The field without which an answer is none."""

STREAM_ENDS = {
    "image_generation": frozenset({IMAGE_END}),
    "transcription": frozenset({TRANSCRIPT_END, "transcription.done"}),
    "speech": frozenset({SPEECH_END}),
}
"""The events without which a stream is not whole."""

PLAIN_TEXTS = frozenset({"text", "srt", "vtt"})
"""Response formats of transcriptions that are no JSON."""


class EndpointCodec(OpenAICodec):
    """An endpoint whose request is JSON, and whose answer is JSON that already is the shape that callers get."""

    endpoint = ""

    def __init__(self, endpoint: str = "") -> None:
        super().__init__()
        self.endpoint = endpoint or self.endpoint
        self.path = PATHS[self.endpoint]
        self._parameters = frozenset(PARAMETERS[self.endpoint].split())

    def parameters(self, provider: Provider) -> frozenset[str]:
        return self._parameters | provider.extra

    def encode(self, request: Request, provider: Provider) -> Call:
        return Call(self.path_at(provider), wire_json(self.body(request, provider)), provider.headers)

    def path_at(self, provider: Provider) -> str:
        return provider.endpoints.get(self.endpoint) or self.path

    def body(self, request: Request, provider: Provider) -> dict[str, Any]:
        body: dict[str, Any] = {"model": request.model, **request.parameters}
        for ours, theirs in provider.renamed.items():
            if ours in body:
                body[theirs] = body.pop(ours)
        if request.stream:
            body["stream"] = True
        if request.extra_body:
            body.update(request.extra_body)
        return body

    def decode(self, body: bytes, request: Request) -> bytes:
        answer(body, NEEDS[self.endpoint])
        return body

    def decoder(self, request: Request) -> StreamDecoder:
        return EventStream(STREAM_ENDS[self.endpoint], self.unstreamed(request))

    def unstreamed(self, request: Request) -> Callable[[bytes], list[bytes]]:
        """What makes the stream of a whole answer: an error, or that of a server that does not stream."""
        return lambda body: UNFOLDS[self.endpoint](self.decode(body, request))

    def template(self, provider: Provider, request: Request, api_key: str | None) -> tuple[str, dict[str, str]]:
        url, headers = super().template(provider, request, api_key)
        return url.removesuffix(self.path) + self.path_at(provider), headers


class TextCodec(EndpointCodec):
    """The older completions: text in, text out."""

    endpoint = "text_completion"

    def body(self, request: Request, provider: Provider) -> dict[str, Any]:
        body = super().body(request, provider)
        if request.stream and request.stream_options and provider.stream_usage:
            body.setdefault("stream_options", request.stream_options)
        return body

    def decoder(self, request: Request) -> StreamDecoder:
        return OpenAIStream()


class ResponsesCodec(EndpointCodec):
    """The Responses API. A response that failed is an error, whole and streamed."""

    endpoint = "responses"

    def body(self, request: Request, provider: Provider) -> dict[str, Any]:
        body = super().body(request, provider)
        options = {name: value for name, value in (request.stream_options or {}).items() if name != "include_usage"}
        if request.stream and options:
            body.setdefault("stream_options", options)
        return body

    def decoder(self, request: Request) -> StreamDecoder:
        return ResponseStream(ENDS, self.unstreamed(request))


class ImageCodec(EndpointCodec):
    """Pictures. A stream has as many ends as pictures were asked for."""

    endpoint = "image_generation"

    def decoder(self, request: Request) -> StreamDecoder:
        count = request.parameters.get("n") or 1
        return EventStream(STREAM_ENDS[self.endpoint], self.unstreamed(request), count)


class HearingCodec(EndpointCodec):
    """Transcriptions and translations: a form with a file in it, or JSON with its bytes."""

    def encode(self, request: Request, provider: Provider) -> Call:
        fields = self.body(request, provider)
        if not provider.takes_forms:
            sound = fields.pop("file")
            data = base64.b64encode(sound.data).decode()
            fields["input_audio"] = {"data": data, "format": sound.format}
            return Call(self.path_at(provider), wire_json(fields), provider.headers)
        body, content_type = form(fields)
        headers = {**provider.headers, "content-type": content_type}
        return Call(self.path_at(provider), body, headers, form=fields)

    def decoder(self, request: Request) -> StreamDecoder:
        return TranscriptStream(STREAM_ENDS["transcription"], self.unstreamed(request))

    def decode(self, body: bytes, request: Request) -> bytes:
        if request.parameters.get("response_format") not in PLAIN_TEXTS:
            return super().decode(body, request)
        if body.startswith(b'{"error"'):
            raise ProviderFault(fault_in_answer(body), body)
        return orjson.dumps({"text": body.decode("utf-8", "replace")})


class SpeechCodec(EndpointCodec):
    """Spoken text. The answer is sound, or JSON around sound (Mistral, recorded)."""

    endpoint = "speech"

    def encode(self, request: Request, provider: Provider) -> Call:
        call = super().encode(request, provider)
        return call._replace(headers={**call.headers, "accept": "application/octet-stream"})

    def body(self, request: Request, provider: Provider) -> dict[str, Any]:
        body = super().body(request._replace(stream=False), provider)  # sound comes in pieces unasked
        if request.stream and (request.stream_options or {}).get("stream_format") == "sse":
            body["stream_format"] = "sse"
        return body

    def decoder(self, request: Request) -> StreamDecoder:
        return SoundStream(STREAM_ENDS["speech"], self.unstreamed(request))

    def decode(self, body: bytes, request: Request) -> bytes:
        is_samples = request.parameters.get("response_format") == "pcm" and not body.rstrip().endswith((b"}", b">"))
        if body and (is_samples or not body.startswith((b"{", b"<"))):
            return body
        try:
            return base64.b64decode(answer(body, "audio_data")["audio_data"], validate=True)
        except (binascii.Error, TypeError):
            raise ProviderFault(fault_in_answer(body)._replace(status=502), body) from None


class RerankCodec(EndpointCodec):
    """Documents by relevance, in Cohere's words. `return_documents` is done here: not every vendor does it."""

    endpoint = "rerank"

    def body(self, request: Request, provider: Provider) -> dict[str, Any]:
        body = super().body(request, provider)
        body.pop("return_documents", None)
        return body

    def decode(self, body: bytes, request: Request) -> bytes:
        data = shape.parsed(body) if b'"results"' not in body and b'"data"' in body else answer(body, "results")
        found = data.pop("data", None) if "results" not in data else data["results"]  # `data`: Voyage
        if not isinstance(found, list) or not all(isinstance(item, Mapping) for item in found):
            raise ProviderFault(fault_in_answer(body), body)
        found = sorted(found, key=lambda item: -(item.get("relevance_score") or 0.0))
        documents = request.parameters.get("documents") or ()
        results = [ranked(item, documents, request.parameters.get("return_documents")) for item in found]
        return orjson.dumps({**data, "results": results[: request.parameters.get("top_n")]})


def ranked(item: Mapping[str, Any], documents: Any, wanted: Any) -> dict[str, Any]:
    """One result, with its document where that is wanted."""
    document, place = item.get("document"), item.get("index")
    if document is None and wanted and isinstance(place, int) and 0 <= place < len(documents):
        document = documents[place]
    if isinstance(document, str):
        document = {"text": document}
    return {**item, "document": document}


OWN: Mapping[str, type[EndpointCodec]] = {
    "text_completion": TextCodec,
    "responses": ResponsesCodec,
    "image_generation": ImageCodec,
    "transcription": HearingCodec,
    "translation": HearingCodec,
    "speech": SpeechCodec,
    "rerank": RerankCodec,
}
"""The endpoints that need more than a path and a list of parameters."""


def codec(endpoint: str) -> EndpointCodec:
    """The codec of one of these endpoints."""
    return OWN.get(endpoint, EndpointCodec)(endpoint)
