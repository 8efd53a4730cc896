"""The wire over a caller's own SDK client: its transport, its headers, its credentials. Retries stay ours."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2

from ..core.api_errors import APIConnectionError, APITimeoutError
from ..core.errors import WrongType
from ..core.types import Options, Request
from .base import Call, Reply
from .http import HttpReply, HttpWire


class ClientWire:
    """Sends through an `openai.OpenAI`, `anthropic.Anthropic` or one of their async forms, given as `client=`."""

    def __init__(self, client: Any, name: str) -> None:
        if not hasattr(client, "post") or not hasattr(client, "with_options"):
            raise WrongType(
                f"client={type(client).__name__} is no SDK client: give an openai or anthropic client, or an Echo."
            )
        self.client, self.name = client.with_options(max_retries=0), name
        self.url = httpx2.URL(str(client.base_url))

    def _options(self, call: Call, request: Request, options: Options) -> dict[str, Any]:
        headers = {"content-type": "application/json", **call.headers, **(request.extra_headers or {})}
        sent: dict[str, Any] = {"headers": headers}
        if options.timeout is not None:
            sent["timeout"] = options.timeout
        if call.form is not None:
            from .multipart import Upload

            headers["content-type"] = "multipart/form-data"
            files = {name: value.as_httpx for name, value in call.form.items() if isinstance(value, Upload)}
            plain = {name: value for name, value in call.form.items() if name not in files}
            return {"body": plain, "files": files, "cast_to": httpx2.Response, "options": sent}
        return {"body": _parsed(call.body), "cast_to": httpx2.Response, "options": sent}

    def send(self, call: Call, request: Request, options: Options) -> Reply:
        try:
            response = self.client.post(call.path, **self._options(call, request, options))
        except Exception as error:
            return self._answered(error)
        return Reply(response.status_code, response.headers, response.content)

    async def asend(self, call: Call, request: Request, options: Options) -> Reply:
        try:
            response = await self.client.post(call.path, **self._options(call, request, options))
        except Exception as error:
            return self._answered(error)
        return Reply(response.status_code, response.headers, response.content)

    def open(self, call: Call, request: Request, options: Options) -> HttpReply | ClientReply:
        try:
            stream = self.client.post(
                call.path, stream=True, stream_cls=self._stream("Stream"), **self._options(call, request, options)
            )
        except Exception as error:
            return ClientReply(self._answered(error))
        return HttpReply(_response(stream), self, request, options)

    async def aopen(self, call: Call, request: Request, options: Options) -> HttpReply | ClientReply:
        try:
            stream = await self.client.post(
                call.path, stream=True, stream_cls=self._stream("AsyncStream"), **self._options(call, request, options)
            )
        except Exception as error:
            return ClientReply(self._answered(error))
        return HttpReply(_response(stream), self, request, options)

    def _stream(self, name: str) -> Any:
        """The SDK's class for streams, made for chunks as they come: of it we only take the open response."""
        package = importlib.import_module(next(kind.__module__ for kind in type(self.client).__mro__).partition(".")[0])
        return getattr(package, name)[object]

    connection_error = HttpWire.connection_error

    def _answered(self, error: Exception) -> Reply:
        """An SDK's error as the answer that it stands for, or as our error of transport."""
        response = getattr(error, "response", None)
        if response is not None:
            return Reply(response.status_code, response.headers, response.content)
        name = type(error).__name__
        sent = httpx2.Request("POST", self.url)
        if name == "APITimeoutError":
            raise APITimeoutError(request=sent) from error
        if name == "APIConnectionError":
            raise APIConnectionError(
                message=f"No answer from {self.name!r}: {error.__cause__ or error}.", request=sent
            ) from error
        raise error


def _response(stream: Any) -> httpx2.Response:
    """The open response of an SDK's stream. Newer SDKs give it itself, because that is what it is to be cast to."""
    return stream if isinstance(stream, httpx2.Response) else stream.response


def _parsed(body: bytes) -> Any:
    import orjson

    return orjson.loads(body)


class ClientReply:
    """An error that the SDK has read whole, where a stream was asked for."""

    def __init__(self, reply: Reply) -> None:
        self.status, self.headers, self._body = reply

    def read(self) -> bytes:
        return self._body

    async def aread(self) -> bytes:
        return self._body

    def batches(self) -> Iterator[bytes]:
        yield self._body

    async def abatches(self) -> AsyncIterator[bytes]:
        yield self._body

    def close(self) -> None:
        """The SDK has closed it."""

    async def aclose(self) -> None:
        """The SDK has closed it."""
