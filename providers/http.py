"""The wire over httpx2: one client per process, and one per event loop, shared by all deployments.

Loaded on first use: it imports httpx2. Errors of transport become `APIConnectionError`s here and nowhere else.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from typing import Any, Protocol

import httpx2

from ..core import settings
from ..core.api_errors import APIConnectionError, APITimeoutError, invalid
from ..core.types import Options, Request
from .base import Call, Reply, Signer

# A number, though a large one: without it aiohttp, under the async client, stops at 100 connections.
LIMITS = httpx2.Limits(max_connections=10_000, max_keepalive_connections=1_000, keepalive_expiry=60.0)

_lock = threading.Lock()
_client: httpx2.Client | None = None
_async_clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[httpx2.AsyncClient, Any]] = (
    weakref.WeakKeyDictionary()
)


def client() -> httpx2.Client:
    """The process's client. Its pool is safe to share among threads."""
    global _client
    if _client is None:
        with _lock:
            if _client is None:
                _client = httpx2.Client(limits=LIMITS)
    return _client


async def async_client() -> httpx2.AsyncClient:
    """The running loop's client: connections belong to the loop in which they were made."""
    loop = asyncio.get_running_loop()
    held = _async_clients.get(loop)
    if held is None:
        new = _new_async_client()
        guard = _close_with_loop(new)
        _async_clients[loop] = held = (new, guard)
        await anext(guard)
    return held[0]


def _new_async_client() -> httpx2.AsyncClient:
    """Over aiohttp where it is installed: httpx's own pool collapses under hundreds of connections."""
    import openai

    try:
        return openai.DefaultAioHttpClient(limits=LIMITS, follow_redirects=False)
    except RuntimeError:
        return httpx2.AsyncClient(limits=LIMITS)


async def _close_with_loop(client: httpx2.AsyncClient) -> AsyncGenerator[None, None]:
    """Closes `client` when its loop shuts down: `asyncio.run` ends every open async generator before that."""
    try:
        yield
    finally:
        await client.aclose()


def _forget_clients() -> None:
    """After a fork the child must not use its parent's connections, nor close them."""
    global _client, _lock
    _inherited.append((_client, dict(_async_clients)))
    _client, _lock = None, threading.Lock()
    _async_clients.clear()


_inherited: list[Any] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_clients)


def timeout_of(options: Options) -> httpx2.Timeout:
    """The caller's timeout for one attempt; an `httpx.Timeout` is read field by field."""
    value = options.timeout
    if value is None:
        return httpx2.Timeout(settings.request_timeout, connect=min(10.0, settings.request_timeout))
    if isinstance(value, httpx2.Timeout):
        return value
    if hasattr(value, "connect"):
        return httpx2.Timeout(connect=value.connect, read=value.read, write=value.write, pool=value.pool)
    return httpx2.Timeout(float(value))


class Named(Protocol):
    """A wire, as far as its errors of transport speak of it."""

    url: httpx2.URL

    def connection_error(self, error: Exception, request: Request, options: Options) -> APIConnectionError: ...


class HttpWire:
    """A deployment over HTTP: a URL and headers, as the vendor's own SDK would send them."""

    def __init__(self, url: str, headers: Mapping[str, str], sign: Signer | None = None) -> None:
        self.url, self.headers, self.sign = httpx2.URL(url), dict(headers), sign

    def request(self, call: Call, request: Request, options: Options) -> httpx2.Request:
        headers: Any = {**self.headers, **call.headers} if call.headers else self.headers
        if request.extra_headers:
            headers = httpx2.Headers(headers)
            headers.update(checked_headers(request))
        extensions = {"timeout": timeout_of(options).as_dict()}
        url = self.url if call.url is None else call.url
        if self.sign is not None:
            headers = {**headers, **self.sign(str(url), headers, call.body)}
        return httpx2.Request("POST", url, headers=headers, content=call.body, extensions=extensions)

    def send(self, call: Call, request: Request, options: Options) -> Reply:
        try:
            response = client().send(self.request(call, request, options))
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise self.connection_error(error, request, options) from error
        return Reply(response.status_code, response.headers, response.content)

    async def asend(self, call: Call, request: Request, options: Options) -> Reply:
        try:
            response = await (await async_client()).send(self.request(call, request, options))
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise self.connection_error(error, request, options) from error
        return Reply(response.status_code, response.headers, response.content)

    def open(self, call: Call, request: Request, options: Options) -> HttpReply:
        try:
            response = client().send(self.request(call, request, options), stream=True)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise self.connection_error(error, request, options) from error
        return HttpReply(response, self, request, options)

    async def aopen(self, call: Call, request: Request, options: Options) -> HttpReply:
        try:
            response = await (await async_client()).send(self.request(call, request, options), stream=True)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise self.connection_error(error, request, options) from error
        return HttpReply(response, self, request, options)

    def connection_error(self: Named, error: Exception, request: Request, options: Options) -> APIConnectionError:
        name, sent = request.full_model, httpx2.Request("POST", self.url)
        if isinstance(error, (httpx2.TimeoutException, TimeoutError)):
            timeout = APITimeoutError(request=sent)
            timeout.message = f"{name!r} did not answer in time ({_seconds(options)}): {type(error).__name__}."
            timeout.args = (timeout.message,)
            return timeout
        detail = str(error) or type(error).__name__
        return APIConnectionError(message=f"No answer from {name!r} at {self.url}: {detail}.", request=sent)


def _seconds(options: Options) -> str:
    value = settings.request_timeout if options.timeout is None else options.timeout
    return f"{value:g} s" if isinstance(value, (int, float)) else str(value)


SENDABLE = re.compile(r"[\t\x20-\x7e]*")


def checked_headers(request: Request) -> Mapping[str, str]:
    """The caller's headers. Raises `InvalidRequest`, without a value, for one that cannot be sent."""
    for name, value in (request.extra_headers or {}).items():
        for text in (name, value):
            if not isinstance(text, str) or SENDABLE.fullmatch(text) is None:
                raise invalid(
                    f"extra_headers[{name!r}] cannot be sent: names and values are text of printable ASCII characters.",
                    provider=request.provider,
                    model=request.model,
                )
    return request.extra_headers or {}


class HttpReply:
    """A streamed answer. Close it: its connection is not free before."""

    def __init__(self, response: httpx2.Response, wire: Named, request: Request, options: Options) -> None:
        self.status, self.headers = response.status_code, response.headers
        self._response, self._wire, self._request, self._options = response, wire, request, options

    def read(self) -> bytes:
        try:
            return self._response.read()
        finally:
            self._response.close()

    async def aread(self) -> bytes:
        try:
            return await self._response.aread()
        finally:
            await self._response.aclose()

    def batches(self) -> Iterator[bytes]:
        try:
            yield from self._response.iter_bytes()
        except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
            raise self._wire.connection_error(error, self._request, self._options) from error

    async def abatches(self) -> AsyncIterator[bytes]:
        try:
            async for data in self._response.aiter_bytes():
                yield data
        except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
            raise self._wire.connection_error(error, self._request, self._options) from error

    def close(self) -> None:
        self._response.close()

    async def aclose(self) -> None:
        await self._response.aclose()


class Template(httpx2.BaseTransport):
    """Catches the one request that an SDK makes: its URL and headers can be used again without the SDK's cost."""

    PER_CALL = frozenset(
        {
            "content-length",
            "x-stainless-async",
            "x-stainless-read-timeout",
            "x-stainless-retry-count",
            "x-stainless-timeout",
        }
    )

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.url = str(request.url)
        self.headers = {name: value for name, value in request.headers.items() if name.lower() not in self.PER_CALL}
        return httpx2.Response(200, json={}, request=request)

    def client(self) -> httpx2.Client:
        return httpx2.Client(transport=self)
