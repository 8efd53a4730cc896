"""What a call of each endpoint beside chat may be given, by the name of each parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .call_params import CallParams


class EmbeddingParams(CallParams, total=False):
    """https://platform.openai.com/docs/api-reference/embeddings/create"""

    dimensions: int | None
    encoding_format: str | None
    """"float" or "base64"; with the latter vectors are text."""
    user: str | None


class TextParams(CallParams, total=False):
    """https://platform.openai.com/docs/api-reference/completions/create"""

    best_of: int | None
    echo: bool | None
    frequency_penalty: float | None
    logit_bias: Mapping[Any, float] | None
    logprobs: int | None
    max_tokens: int | None
    n: int | None
    presence_penalty: float | None
    seed: int | None
    stop: str | Sequence[str] | None
    stream_options: Mapping[str, Any] | None
    suffix: str | None
    temperature: float | None
    top_p: float | None
    user: str | None
    replay_timing: bool | None


class ResponsesParams(CallParams, total=False):
    """https://platform.openai.com/docs/api-reference/responses/create"""

    background: bool | None
    conversation: Any
    include: Sequence[str] | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    parallel_tool_calls: bool | None
    previous_response_id: str | None
    prompt: Any
    prompt_cache_key: str | None
    prompt_cache_retention: str | None
    reasoning: Any
    safety_identifier: str | None
    service_tier: str | None
    store: bool | None
    stream_options: Mapping[str, Any] | None
    temperature: float | None
    text: Any
    text_format: Any
    """A pydantic model class that the answer's text is to fit."""
    tool_choice: Any
    tools: Sequence[Any] | None
    top_logprobs: int | None
    top_p: float | None
    truncation: str | None
    user: str | None
    replay_timing: bool | None


class ImageParams(CallParams, total=False):
    """https://platform.openai.com/docs/api-reference/images/create"""

    background: str | None
    moderation: str | None
    n: int | None
    output_compression: int | None
    output_format: str | None
    partial_images: int | None
    """How many unfinished pictures a stream brings before the finished one: 0 to 3."""
    quality: str | None
    response_format: str | None
    safety_identifier: str | None
    size: str | None
    style: str | None
    user: str | None
    replay_timing: bool | None


class HearingParams(CallParams, total=False):
    """https://platform.openai.com/docs/api-reference/audio/createTranscription"""

    prompt: str | None
    response_format: str | None
    temperature: float | None


class TranscriptionParams(HearingParams, total=False):
    chunking_strategy: Any
    include: Sequence[str] | None
    language: str | None
    timestamp_granularities: Sequence[str] | None
    replay_timing: bool | None


class CountParams(CallParams, total=False):
    """What of a chat's parameters has tokens."""

    parallel_tool_calls: bool | None
    reasoning_effort: str | None
    response_format: Any
    thinking: Any
    tool_choice: Any
    tools: Sequence[Any] | None


class OcrParams(CallParams, total=False):
    """https://docs.mistral.ai/api/endpoint/ocr"""

    bbox_annotation_format: Any
    document_annotation_format: Any
    document_annotation_prompt: str | None
    extract_footer: bool | None
    extract_header: bool | None
    image_limit: int | None
    image_min_size: int | None
    include_image_base64: bool | None
    pages: Any
    table_format: str | None


class SpeechParams(CallParams, total=False):
    """https://platform.openai.com/docs/api-reference/audio/createSpeech"""

    instructions: str | None
    response_format: str | None
    speed: float | None
    replay_timing: bool | None


class RerankParams(CallParams, total=False):
    """https://docs.cohere.com/reference/rerank"""

    rank_fields: Sequence[str] | None
    max_chunks_per_doc: int | None
    max_tokens_per_doc: int | None
