"""The front door of the endpoints beside chat. Each goes the way of `completion`: cache, keys, retries, fallbacks."""

from __future__ import annotations

import asyncio
import base64
import functools
import mimetypes
import re
from collections.abc import Callable, Mapping, Sequence
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, cast, overload
from urllib.parse import urlsplit

from ..core.flow import arun, run
from ..core.types import Request
from ..providers import table
from ..providers.base import Provider
from .api import mocked
from .embedding import begin_embedding
from .engine import begin_with, complete_with_fallbacks
from .miss import Streamed
from .shape import OURS, base_of, conversation, present
from .shape import check as check_messages
from .stream import AsyncStream, Stream, form_of

if TYPE_CHECKING:
    from ..core.endpoint_answers import (
        CountedTokens,
        Embeddings,
        Images,
        Moderation,
        Ranking,
        Recognition,
        Response,
        Speech,
        TextCompletion,
        Transcription,
        Translation,
    )


class CallParams(TypedDict, total=False):
    """What every call may be given: where it goes, how, and what the cache does. `api.Params` says what each means."""

    api_key: Any
    api_base: str | None
    base_url: str | None
    api_version: str | None
    azure_ad_token: str | None
    azure_ad_token_provider: Callable[[], str] | None
    client: Any
    extra_body: Mapping[str, Any] | None
    extra_headers: Mapping[str, str] | None
    timeout: Any
    request_timeout: float | None
    deadline: float | None
    num_retries: int | None
    max_retries: int | None
    fallbacks: Any
    drop_params: bool | None
    mock_response: Any
    metadata: Mapping[str, Any] | None
    caching: bool | None
    cache: Any


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


# From arguments to a request

REQUIRED: Mapping[str, tuple[str, ...]] = {
    "embedding": ("input",),
    "text_completion": ("prompt",),
    "image_generation": ("prompt",),
    "transcription": ("file",),
    "translation": ("file",),
    "speech": ("input",),
    "moderation": ("input",),
    "rerank": ("query", "documents"),
    "ocr": ("document",),
}
"""What a call cannot do without."""

TEXTS = frozenset({"text_completion", "responses"})
"""Endpoints that have streams wherever they are had."""
STREAMED = TEXTS | {"image_generation", "transcription", "speech"}
OF_MESSAGES = frozenset({"count_tokens"})
"""What takes messages, as chat does."""
READ_FIRST = frozenset({"transcription", "translation", "ocr"})
"""What may have to read a file before it is a request."""


def shape_endpoint(endpoint: str, model: str, params: Mapping[str, Any]) -> Request:
    """The request of a call of `endpoint`. Raises `UnknownProvider` and `InvalidRequest`."""
    if type(model) is not str or not model:
        raise _invalid(f"model={model!r} must be text such as 'openai/gpt-4o'.")
    provider, name = table.resolve(model)
    get = params.get
    request = Request(
        endpoint,
        provider.name,
        name,
        table.api_base(provider, get("api_base") or get("base_url") or base_of(get("client")), params, name),
        conversation(get("messages")) if endpoint in OF_MESSAGES else (),
        {key: value for key, value in params.items() if key not in OURS and present(value) is not None},
        present(get("extra_body")),
        present(get("extra_headers")),
        table.api_version(provider, get("api_version")),
        bool(present(get("stream"))),
        present(get("stream_options")),
    )
    check(request)
    prepare = PREPARE.get(endpoint)
    request = request if prepare is None else prepare(request)
    if request.stream:
        check_stream(request, provider)
    return request


def check(request: Request) -> None:
    """Raise `InvalidRequest` for what no vendor would take, before anything is sent."""
    for name in REQUIRED.get(request.endpoint, ()):
        value = request.parameters.get(name)
        if value is None or (hasattr(value, "__len__") and len(value) == 0):
            raise _invalid(
                f"{request.endpoint} needs {name}=…; it is {'missing' if value is None else 'empty'}.", request
            )
    for name in ("extra_body", "extra_headers", "stream_options"):
        value = getattr(request, name)
        if value is not None and not isinstance(value, Mapping):
            raise _invalid(f"{name}={value!r} must be a dict, not {type(value).__name__}.", request)
    if request.endpoint in OF_MESSAGES:
        check_messages(request)


def check_stream(request: Request, provider: Provider) -> None:
    """Raise `InvalidRequest` for a stream that there is not: at all, or of this provider's."""
    endpoint = request.endpoint
    if endpoint not in STREAMED:
        raise _invalid(f"{endpoint} has no streams; leave stream=True out.", request)
    is_sound = form_of(endpoint, request.stream_options) == "speech"
    if endpoint not in TEXTS and not is_sound and endpoint not in provider.event_streams:
        hint = (
            "leave stream_format='sse' out, for a stream of sound" if endpoint == "speech" else "leave stream=True out"
        )
        raise _invalid(f"{provider.name!r} has no streams of events for {endpoint}; {hint}.", request)


def _embedding(request: Request) -> Request:
    given = request.parameters["input"]
    if hasattr(given, "tolist"):  # tokens in an array
        return _with(request, input=given.tolist())
    if isinstance(given, (str, list, Mapping)):
        return request
    if not isinstance(given, Sequence) or isinstance(given, (bytes, bytearray)):
        raise _invalid(
            f"input={given!r:.80} must be a text, a list of texts, or tokens; not {type(given).__name__}.", request
        )
    return _with(request, input=list(given))


def _responses(request: Request) -> Request:
    parameters = dict(request.parameters)
    kind = parameters.pop("text_format", None)
    if kind is not None:
        if not isinstance(kind, type):
            raise _invalid(
                f"text_format={kind!r:.80} must be a pydantic class; text={{'format': …}} takes a dict.", request
            )
        from ..core.schema import response_format

        schema = response_format(kind)["json_schema"]
        parameters["text"] = {**(parameters.get("text") or {}), "format": {"type": "json_schema", **schema}}
    return request._replace(parameters=parameters)


def _speech(request: Request) -> Request:
    """`stream_format` is how the sound is sent, and not part of what is said: it goes where the key does not look."""
    parameters = dict(request.parameters)
    form = parameters.pop("stream_format", None)
    if form not in (None, "sse", "audio"):
        raise _invalid(f"stream_format={form!r} must be 'sse' or 'audio'.", request)
    options = {**(request.stream_options or {}), "stream_format": form} if form else request.stream_options
    return request._replace(parameters=parameters, stream=request.stream or form == "sse", stream_options=options)


def _hearing(request: Request) -> Request:
    from ..providers.multipart import upload

    try:
        return _with(request, file=upload(request.parameters["file"]))
    except (ValueError, OSError) as error:
        raise _invalid(f"The file cannot be sent: {error}.", request) from None


def _rerank(request: Request) -> Request:
    documents = request.parameters["documents"]
    if isinstance(documents, (str, Mapping)) or not isinstance(documents, Sequence):
        raise _invalid(f"documents={documents!r:.80} must be a list of texts.", request)
    return _with(request, documents=list(documents))


def _with(request: Request, **parameters: Any) -> Request:
    return request._replace(parameters={**request.parameters, **parameters})


def _count_tokens(request: Request) -> Request:
    form = request.parameters.get("response_format")
    if not isinstance(form, type):
        return request
    from ..core.schema import response_format

    return _with(request, response_format=response_format(form))


ADDRESS = re.compile(r"data:|\w+://")
IMAGES = (".avif", ".gif", ".jpeg", ".jpg", ".png", ".tiff", ".webp")


def _ocr(request: Request) -> Request:
    """The document in the vendor's form. A file becomes a data URL."""
    document = request.parameters["document"]
    if isinstance(document, Mapping):
        if "file" not in document:
            return request
        document = document["file"]
    is_address = isinstance(document, str) and bool(ADDRESS.match(document))
    url = document if is_address else _data_url(document, request)
    is_image = url.startswith("data:image/") or urlsplit(url).path.lower().endswith(IMAGES)
    kind = "image_url" if is_image else "document_url"
    return _with(request, document={"type": kind, kind: url})


def _data_url(document: Any, request: Request) -> str:
    from ..providers.multipart import upload

    try:
        file = upload(document)
    except (ValueError, OSError) as error:
        raise _invalid(f"The document cannot be sent: {error}.", request) from None
    guessed = file.content_type or mimetypes.guess_type(file.name)[0]
    kind = "application/pdf" if file.data.startswith(b"%PDF") else guessed or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(file.data).decode()}"


PREPARE: Mapping[str, Callable[[Request], Request]] = {
    "embedding": _embedding,
    "responses": _responses,
    "speech": _speech,
    "transcription": _hearing,
    "translation": _hearing,
    "rerank": _rerank,
    "count_tokens": _count_tokens,
    "ocr": _ocr,
}


def _invalid(message: str, request: Request | None = None) -> Exception:
    from ..core.api_errors import invalid

    if request is None:
        return invalid(message)
    return invalid(message, provider=request.provider, model=request.model)


# The way of a call


def begin_endpoint(endpoint: str, model: str, params: Mapping[str, Any], call_type: str) -> Any:
    """One call of any endpoint: the answer, where it can be had without waiting, else the flow that gets it."""
    if "fallbacks" in params:
        start = functools.partial(_begin_without_messages, endpoint)
        return complete_with_fallbacks(model, None, params, call_type, start)
    request = shape_endpoint(endpoint, model, params)
    if endpoint == "embedding":
        return begin_embedding(request, model, params, call_type)
    if "file" in request.parameters:
        params = {**params, "file": request.parameters["file"].data}  # a key function gets the bytes, not a path
    if request.parameters.get("conversation"):
        params = {**params, "caching": False}  # what the vendor remembers of it changes with every call
    if endpoint in OF_MESSAGES:
        params = {name: value for name, value in params.items() if name != "messages"}
        return begin_with(request, model, request.messages, params, call_type)
    return begin_with(request, model, None, params, call_type)


def _begin_without_messages(endpoint: str, model: str, _: None, params: Mapping[str, Any], call_type: str) -> Any:
    return begin_endpoint(endpoint, model, params, call_type)


def _call(endpoint: str, model: str, params: dict[str, Any]) -> Any:
    params = mocked(params) if "mock_response" in params else params
    found = begin_endpoint(endpoint, model, params, endpoint)
    if type(found) is GeneratorType:
        found = run(found)
    return handed_over(found, endpoint, params, Stream)


async def _acall(endpoint: str, model: str, params: dict[str, Any]) -> Any:
    params = mocked(params) if "mock_response" in params else params
    begin = functools.partial(begin_endpoint, endpoint, model, params, f"a{endpoint}")
    found = await asyncio.to_thread(begin) if endpoint in READ_FIRST else begin()
    if type(found) is GeneratorType:
        found = await arun(found)
    return handed_over(found, endpoint, params, AsyncStream)


def handed_over(found: Any, endpoint: str, params: Mapping[str, Any], kind: Any) -> Any:
    """What the caller gets of what was found: an answer that knows its class, or a stream of `kind`."""
    if type(found) is not Streamed:
        if isinstance(params.get("text_format"), type):
            from ..core.answers import expecting

            return expecting(found, params["text_format"])
        return found
    wants_usage = bool((params.get("stream_options") or {}).get("include_usage"))
    return kind(found.member, found.info, wants_usage, form_of(endpoint, params))


# The functions


def embedding(model: str, input: Any, **params: Unpack[EmbeddingParams]) -> Embeddings:
    """The vectors of texts, in their order. `input` is a text, a list of texts, or tokens: a list, or a list of lists.

    Each item is cached by itself: the vendor is asked, in one request, for what no earlier call has asked for.
    """
    return cast("Embeddings", _call("embedding", model, {"input": input, **params}))


async def aembedding(model: str, input: Any, **params: Unpack[EmbeddingParams]) -> Embeddings:
    """`embedding` for a running event loop."""
    return cast("Embeddings", await _acall("embedding", model, {"input": input, **params}))


@overload
def text_completion(prompt: Any, model: str, *, stream: Literal[True], **params: Unpack[TextParams]) -> Stream: ...
@overload
def text_completion(
    prompt: Any, model: str, *, stream: Literal[False] | None = None, **params: Unpack[TextParams]
) -> TextCompletion: ...
def text_completion(prompt: Any, model: str, **params: Any) -> TextCompletion | Stream:
    """How a text goes on: OpenAI's older completions. With `stream=True` a `Stream` of pieces."""
    return cast("TextCompletion | Stream", _call("text_completion", model, {"prompt": prompt, **params}))


@overload
async def atext_completion(
    prompt: Any, model: str, *, stream: Literal[True], **params: Unpack[TextParams]
) -> AsyncStream: ...
@overload
async def atext_completion(
    prompt: Any, model: str, *, stream: Literal[False] | None = None, **params: Unpack[TextParams]
) -> TextCompletion: ...
async def atext_completion(prompt: Any, model: str, **params: Any) -> TextCompletion | AsyncStream:
    """`text_completion` for a running event loop."""
    return cast("TextCompletion | AsyncStream", await _acall("text_completion", model, {"prompt": prompt, **params}))


@overload
def responses(
    input: Any = None, model: str = "", *, stream: Literal[True], **params: Unpack[ResponsesParams]
) -> Stream: ...
@overload
def responses(
    input: Any = None, model: str = "", *, stream: Literal[False] | None = None, **params: Unpack[ResponsesParams]
) -> Response: ...
def responses(input: Any = None, model: str = "", **params: Any) -> Response | Stream:
    """An answer of OpenAI's Responses API. With `stream=True` a `Stream` of its events, typed by the openai package.

    `output_parsed` is the answer as an object of the pydantic class given as `text_format`.

    A response that failed is raised as the error it names. One that is incomplete, or that is yet to come
    (`background=True`), is given, and not stored. Calls with a `conversation` are not cached: the vendor changes it
    with every call.
    """
    return cast("Response | Stream", _call("responses", model, {"input": input, **params}))


@overload
async def aresponses(
    input: Any = None, model: str = "", *, stream: Literal[True], **params: Unpack[ResponsesParams]
) -> AsyncStream: ...
@overload
async def aresponses(
    input: Any = None, model: str = "", *, stream: Literal[False] | None = None, **params: Unpack[ResponsesParams]
) -> Response: ...
async def aresponses(input: Any = None, model: str = "", **params: Any) -> Response | AsyncStream:
    """`responses` for a running event loop."""
    return cast("Response | AsyncStream", await _acall("responses", model, {"input": input, **params}))


@overload
def image_generation(prompt: str, model: str, *, stream: Literal[True], **params: Unpack[ImageParams]) -> Stream: ...
@overload
def image_generation(
    prompt: str, model: str, *, stream: Literal[False] | None = None, **params: Unpack[ImageParams]
) -> Images: ...
def image_generation(prompt: str, model: str, **params: Any) -> Images | Stream:
    """Pictures of what `prompt` says. Those that come as links are kept for less than an hour: links live no longer.

    With `stream=True` a `Stream` of events: `partial_images` unfinished pictures, then each finished one.
    """
    return cast("Images | Stream", _call("image_generation", model, {"prompt": prompt, **params}))


@overload
async def aimage_generation(
    prompt: str, model: str, *, stream: Literal[True], **params: Unpack[ImageParams]
) -> AsyncStream: ...
@overload
async def aimage_generation(
    prompt: str, model: str, *, stream: Literal[False] | None = None, **params: Unpack[ImageParams]
) -> Images: ...
async def aimage_generation(prompt: str, model: str, **params: Any) -> Images | AsyncStream:
    """`image_generation` for a running event loop."""
    return cast("Images | AsyncStream", await _acall("image_generation", model, {"prompt": prompt, **params}))


@overload
def transcription(model: str, file: Any, *, stream: Literal[True], **params: Unpack[TranscriptionParams]) -> Stream: ...
@overload
def transcription(
    model: str, file: Any, *, stream: Literal[False] | None = None, **params: Unpack[TranscriptionParams]
) -> Transcription: ...
def transcription(model: str, file: Any, **params: Any) -> Transcription | Stream:
    """What is said in `file`: a path, bytes, a file object, or a tuple of a name and one of these.

    A file object is sent from its beginning, and left where it stood. The key is made of the bytes, not of the name.
    With `stream=True` a `Stream` of events: the text as it is understood, then all of it.
    """
    return cast("Transcription | Stream", _call("transcription", model, {"file": file, **params}))


@overload
async def atranscription(
    model: str, file: Any, *, stream: Literal[True], **params: Unpack[TranscriptionParams]
) -> AsyncStream: ...
@overload
async def atranscription(
    model: str, file: Any, *, stream: Literal[False] | None = None, **params: Unpack[TranscriptionParams]
) -> Transcription: ...
async def atranscription(model: str, file: Any, **params: Any) -> Transcription | AsyncStream:
    """`transcription` for a running event loop."""
    return cast("Transcription | AsyncStream", await _acall("transcription", model, {"file": file, **params}))


def translation(model: str, file: Any, **params: Unpack[HearingParams]) -> Translation:
    """What is said in `file`, in English. `file` is as for `transcription`."""
    return cast("Translation", _call("translation", model, {"file": file, **params}))


async def atranslation(model: str, file: Any, **params: Unpack[HearingParams]) -> Translation:
    """`translation` for a running event loop."""
    return cast("Translation", await _acall("translation", model, {"file": file, **params}))


@overload
def speech(
    model: str, input: str, voice: Any = None, *, stream_format: Literal["sse"], **params: Unpack[SpeechParams]
) -> Stream: ...
@overload
def speech(
    model: str,
    input: str,
    voice: Any = None,
    *,
    stream: Literal[True],
    stream_format: Literal["sse", "audio"] | None = None,
    **params: Unpack[SpeechParams],
) -> Stream: ...
@overload
def speech(
    model: str,
    input: str,
    voice: Any = None,
    *,
    stream: Literal[False] | None = None,
    stream_format: Literal["audio"] | None = None,
    **params: Unpack[SpeechParams],
) -> Speech: ...
def speech(model: str, input: str, voice: Any = None, **params: Any) -> Speech | Stream:
    """`input`, spoken. The answer has `content`, `read()` and `write_to_file(path)`.

    With `stream=True` a `Stream` of bytes, as the sound comes; with `stream_format="sse"` one of events with sound in
    them, in base64, the last of which has the usage.
    """
    return cast("Speech | Stream", _call("speech", model, {"input": input, "voice": voice, **params}))


@overload
async def aspeech(
    model: str, input: str, voice: Any = None, *, stream_format: Literal["sse"], **params: Unpack[SpeechParams]
) -> AsyncStream: ...
@overload
async def aspeech(
    model: str,
    input: str,
    voice: Any = None,
    *,
    stream: Literal[True],
    stream_format: Literal["sse", "audio"] | None = None,
    **params: Unpack[SpeechParams],
) -> AsyncStream: ...
@overload
async def aspeech(
    model: str,
    input: str,
    voice: Any = None,
    *,
    stream: Literal[False] | None = None,
    stream_format: Literal["audio"] | None = None,
    **params: Unpack[SpeechParams],
) -> Speech: ...
async def aspeech(model: str, input: str, voice: Any = None, **params: Any) -> Speech | AsyncStream:
    """`speech` for a running event loop."""
    return cast("Speech | AsyncStream", await _acall("speech", model, {"input": input, "voice": voice, **params}))


MODERATION = "openai/omni-moderation-latest"


def moderation(input: Any, model: str | None = None, **params: Unpack[CallParams]) -> Moderation:
    """Whether texts or pictures are harmful, and how."""
    return cast("Moderation", _call("moderation", model or MODERATION, {"input": input, **params}))


async def amoderation(input: Any, model: str | None = None, **params: Unpack[CallParams]) -> Moderation:
    """`moderation` for a running event loop."""
    return cast("Moderation", await _acall("moderation", model or MODERATION, {"input": input, **params}))


def rerank(
    model: str,
    query: str,
    documents: Sequence[Any],
    top_n: int | None = None,
    return_documents: bool = True,
    **params: Unpack[RerankParams],
) -> Ranking:
    """`documents` by how well they fit `query`, the best first."""
    own = {"query": query, "documents": documents, "top_n": top_n, "return_documents": return_documents}
    return cast("Ranking", _call("rerank", model, {**own, **params}))


async def arerank(
    model: str,
    query: str,
    documents: Sequence[Any],
    top_n: int | None = None,
    return_documents: bool = True,
    **params: Unpack[RerankParams],
) -> Ranking:
    """`rerank` for a running event loop."""
    own = {"query": query, "documents": documents, "top_n": top_n, "return_documents": return_documents}
    return cast("Ranking", await _acall("rerank", model, {**own, **params}))


def count_tokens(model: str, messages: Sequence[Any], **params: Unpack[CountParams]) -> CountedTokens:
    """How many tokens the vendor counts in a request of `completion` with these arguments; nothing is generated.

    The vendor is asked, once for equal requests. `token_counter` estimates, and asks nobody.
    """
    return cast("CountedTokens", _call("count_tokens", model, {"messages": messages, **params}))


async def acount_tokens(model: str, messages: Sequence[Any], **params: Unpack[CountParams]) -> CountedTokens:
    """`count_tokens` for a running event loop."""
    return cast("CountedTokens", await _acall("count_tokens", model, {"messages": messages, **params}))


def ocr(model: str, document: Any, **params: Unpack[OcrParams]) -> Recognition:
    """What is written in `document`: a URL, or a file as for `transcription`, or the vendor's own dict.

    A text without "://" is a path. A file is sent in the request, and read anew for each call.
    """
    return cast("Recognition", _call("ocr", model, {"document": document, **params}))


async def aocr(model: str, document: Any, **params: Unpack[OcrParams]) -> Recognition:
    """`ocr` for a running event loop."""
    return cast("Recognition", await _acall("ocr", model, {"document": document, **params}))
