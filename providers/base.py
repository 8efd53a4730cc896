"""What a provider is: a row of the table, a codec that speaks its protocol, a wire that carries the bytes.

A codec does no I/O. It turns a `Request` into a `Call`, an answer's body into OpenAI-shaped JSON, and a stream's bytes
into OpenAI-shaped chunks. A wire sends a `Call` and knows nothing of what is in it.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from ..core.types import Options, Request


class Call(NamedTuple):
    """What a codec wants sent."""

    path: str
    """Below the base URL, e.g. "/chat/completions"."""
    body: bytes
    headers: Mapping[str, str] = {}
    """Beyond those of the deployment."""
    url: str | None = None
    """Where to send it, if that differs from call to call (it names the model, say); else it is the template's URL."""
    form: Mapping[str, Any] | None = None
    """The fields of a body that is a form, for a caller's own client, which wants to write it itself."""


class Failure(NamedTuple):
    """What a codec reads in an error's body."""

    message: str
    code: str | None = None
    """The vendor's own word for it."""
    kind: str | None = None
    """ "context_window", "content_policy" or "authentication" where the vendor says so; else the status decides."""
    status: int | None = None
    """The HTTP status that an error inside a 200 answer or a stream stands for."""
    retry_after: float | None = None
    """Seconds that the vendor asks to wait, if it says so in the body."""


class ProviderFault(Exception):
    """Raised by a codec for an error inside a 200 answer, or an answer that is none. The engine gives it its class."""

    def __init__(self, failure: Failure, body: bytes = b"") -> None:
        super().__init__(failure.message)
        self.failure, self.body = failure, body


class StreamDecoder(ABC):
    """Turns the bytes of one stream into OpenAI-shaped chunks. Bytes may be cut anywhere."""

    @abstractmethod
    def feed(self, data: bytes) -> list[bytes]:
        """The chunks (JSON, `chat.completion.chunk`) that `data` completes. Raises `ProviderFault`."""

    @abstractmethod
    def end(self) -> list[bytes]:
        """What is left when the bytes end. Raises `ProviderFault` if the answer is not complete."""


class Codec(ABC):
    """One protocol."""

    @abstractmethod
    def encode(self, request: Request, provider: Provider) -> Call:
        """What to send. Raises `InvalidRequest` for what the protocol cannot say."""

    @abstractmethod
    def decode(self, body: bytes, request: Request) -> bytes:
        """An answer as OpenAI-shaped JSON (`chat.completion`). Raises `ProviderFault`."""

    def decode_reply(self, reply: Reply, request: Request) -> bytes:
        """The same of a whole answer, for protocols that say something in headers too."""
        return self.decode(reply.body, request)

    @abstractmethod
    def decoder(self, request: Request) -> StreamDecoder:
        """A decoder for one stream."""

    @abstractmethod
    def failure(self, status: int, body: bytes) -> Failure:
        """What an error's body says. Never raises, whatever the body."""

    def failed(self, reply: Reply) -> Failure:
        """The same of a whole answer, for protocols that say something in headers too."""
        return self.failure(reply.status, reply.body)

    @abstractmethod
    def template(self, provider: Provider, request: Request, api_key: str | None) -> tuple[str, dict[str, str]]:
        """The URL and headers that the vendor's SDK would use for this request's deployment and path."""

    @abstractmethod
    def parameters(self, provider: Provider) -> frozenset[str]:
        """The chat parameters that this provider takes."""

    def parameters_for(self, request: Request, provider: Provider) -> frozenset[str]:
        """Those that it takes for this request, where that differs from model to model."""
        return self.parameters(provider)


class Reply(NamedTuple):
    """A whole answer as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class OpenReply(Protocol):
    """An answer whose body is still coming. `batches` gives bytes as they arrive; both forms exist, one is used."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    def read(self) -> bytes: ...
    async def aread(self) -> bytes: ...
    def batches(self) -> Iterator[bytes]: ...
    def abatches(self) -> AsyncIterator[bytes]: ...
    def close(self) -> None: ...
    async def aclose(self) -> None: ...


Signer = Callable[[str, Mapping[str, str], bytes], Mapping[str, str]]
"""Gives the headers that sign one call, out of its URL, its headers and its body."""


class Wire(Protocol):
    """Carries a `Call` to a deployment and its answer back. Errors of transport are `APIConnectionError`s."""

    def send(self, call: Call, request: Request, options: Options) -> Reply: ...
    async def asend(self, call: Call, request: Request, options: Options) -> Reply: ...
    def open(self, call: Call, request: Request, options: Options) -> OpenReply: ...
    async def aopen(self, call: Call, request: Request, options: Options) -> OpenReply: ...


class Most(NamedTuple):
    """What a vendor takes in one request, at most."""

    items: int = sys.maxsize
    tokens: int = sys.maxsize


ANY_NUMBER = Most()


@dataclass(frozen=True, slots=True)
class Provider:
    """One row of the table: where a vendor is, and in what it differs from its protocol."""

    name: str
    base_url: str
    """Where it answers; empty if the caller must say."""
    codec: str = "openai"
    """Which protocol it speaks: a name in `providers.table.CODECS`."""
    key_env: tuple[str, ...] = ()
    """Environment variables that may hold the key, the first that is set counts."""
    base_env: tuple[str, ...] = ()
    """Environment variables that may hold another base URL."""
    version_env: tuple[str, ...] = ()
    """Environment variables that may hold the API version, for a vendor that has one."""
    needs_key: bool = True
    open_ended: bool = False
    """True if it takes parameters that OpenAI does not know (sampling of local servers, say): they are passed on."""
    refused: frozenset[str] = frozenset()
    """Chat parameters that it does not take."""
    extra: frozenset[str] = frozenset()
    """Parameters of its own that it takes beside OpenAI's."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Parameters that it knows by another name."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers that it wants on each call."""
    credential: Callable[[], str] | None = None
    """Gives a short-lived key for each call, where the caller gives none."""
    place: Callable[[Mapping[str, Any], str], str] | None = None
    """Gives the base URL, where it depends on other arguments of the call, or on the model."""
    signer: Callable[[Mapping[str, str]], Signer] | None = None
    """Gives what signs calls, out of `Options.identity`; for a vendor whose calls are signed, if there is no key."""
    served_as: Mapping[str, str] = field(default_factory=dict)
    """Models that it serves in another protocol: how their names begin, and the name of that row."""
    routes: Mapping[str, str] = field(default_factory=dict)
    """Words before a model's name that only say which protocol is wanted, and the name of that row."""
    stream_usage: bool = True
    """True if it takes `stream_options={"include_usage": true}`."""
    endpoints: Mapping[str, str] = field(default_factory=dict)
    """Paths of endpoints that are elsewhere than the protocol has them; "" for one that it lacks."""
    most_to_embed: Most = ANY_NUMBER
    """How many items, and tokens of them all, it takes in one request for vectors; larger inputs are cut."""
    event_streams: frozenset[str] = frozenset()
    """Endpoints other than those of text that it streams as OpenAI does: "image_generation", "transcription", "speech".
    Sound alone comes in pieces from everybody."""
    most_by_model: Mapping[str, Most] = field(default_factory=dict)
    """The same of single models, by a word in their names."""
    takes_forms: bool = True
    """True if sound goes to it as a file in a form; else it goes in JSON, as `input_audio`."""
    prompt_cache: str = ""
    """How its prompt cache is asked for: "automatic" (it caches by itself), "top_level" (marks on blocks, and one for
    the whole request), "blocks" (marks on blocks only), "points" (blocks that are marks); "" if it has none, or none is
    known."""
    fix: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    """Mends an answer or chunk (already parsed) where the vendor leaves the protocol."""
    history: Callable[[Mapping[str, Any], str], Mapping[str, Any]] | None = None
    """Gives each message as the vendor takes it, by its model; for one that refuses fields it does not know."""
    docs: str = ""
    """The vendor's page that the row was checked against."""
