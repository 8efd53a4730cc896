"""The front door of the endpoints beside chat. Each goes the way of `completion`: cache, keys, retries, fallbacks."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Literal, Unpack, cast, overload

from ..core.flow import arun, run
from .api import mocked
from .call_params import CallParams
from .embedding import begin_embedding
from .endpoint_params import (
    CountParams,
    EmbeddingParams,
    HearingParams,
    ImageParams,
    OcrParams,
    RerankParams,
    ResponsesParams,
    SpeechParams,
    TextParams,
    TranscriptionParams,
)
from .endpoint_shape import OF_MESSAGES, READ_FIRST, shape_endpoint
from .engine import begin_with, complete_with_fallbacks
from .miss import Streamed
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
