"""From the arguments of a call of an endpoint beside chat to its `Request`, or to an error that says what is wrong."""

from __future__ import annotations

import base64
import mimetypes
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ..core.types import Request
from ..providers import table
from ..providers.base import Provider
from .shape import OURS, base_of, conversation, present
from .shape import check as check_messages
from .stream import form_of

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
