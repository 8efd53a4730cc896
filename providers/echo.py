"""The echo provider: no network, no key. For users' tests, and for ours.

It speaks the OpenAI protocol through the same codec as everybody else; only the wire is different.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any

import orjson

from ..core.locks import new_lock
from ..core.types import Options, Request
from .base import Call, Reply

Answer = str | Mapping[str, Any] | Exception


class Echo:
    """A scripted model.

    >>> import rejoinder
    >>> echo = rejoinder.Echo(["Hello.", RuntimeError("the line is dead")])
    >>> rejoinder.completion("echo/any", [{"role": "user", "content": "Hi"}], client=echo).choices[0].message.content
    'Hello.'

    `answers` are given in turn, the last one for ever: a text; a dict, as an answer's message (`{"content": …,
    "tool_calls": […]}`) or as a whole answer (`{"choices": […]}`); or with "status" (and "headers", "message") an error
    answer; an exception is raised by the wire. A callable is asked for each request's body. Without answers, it repeats
    the last user message. `latency` is in seconds, before the first byte; `chunk_latency` before each further chunk.
    """

    def __init__(
        self,
        answers: Iterable[Answer] | Callable[[dict[str, Any]], Answer] | Answer | None = None,
        *,
        latency: float = 0.0,
        chunk_latency: float = 0.0,
        chunk_size: int = 8,
        is_mock: bool = False,
    ) -> None:
        if isinstance(answers, (str, Mapping, Exception)):
            answers = [answers]
        self.answers = answers if callable(answers) or answers is None else list(answers)
        self.latency, self.chunk_latency, self.chunk_size = latency, chunk_latency, chunk_size
        self.requests: list[dict[str, Any]] = []
        """The bodies it was asked with, in order."""
        self.is_mock = is_mock
        """Its answers are in no ledger: a model was named that was never asked."""
        self.closed_early = 0
        """How many streams were left before their end."""
        self._lock = new_lock()

    @property
    def calls(self) -> int:
        """How often it was asked."""
        return len(self.requests)

    def answer(self, body: dict[str, Any]) -> tuple[int, Answer]:
        """The number of this call, and what it is answered with."""
        with self._lock:
            self.requests.append(body)
            number = len(self.requests)
        if self.answers is None:
            return number, _last_text(body)
        if callable(self.answers):
            return number, self.answers(body)
        return number, self.answers[min(number, len(self.answers)) - 1] if self.answers else ""


def _last_text(body: Mapping[str, Any]) -> str:
    if "messages" not in body:
        from .echo_endpoints import echoed_text

        return echoed_text(body)
    content = body["messages"][-1].get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if isinstance(part, Mapping))


PLAIN = Echo()
"""What answers "echo/…" where no `client=` is given."""


def wire_for(client: Any) -> EchoWire:
    return EchoWire(client if client is not None else PLAIN)


class EchoWire:
    """Carries a call to an `Echo`."""

    url = "echo:"

    def __init__(self, echo: Echo) -> None:
        self.echo = echo

    def send(self, call: Call, request: Request, options: Options) -> Reply:
        self._wait(time.sleep, options)
        return _whole(request.endpoint, *self._answer(call))

    async def asend(self, call: Call, request: Request, options: Options) -> Reply:
        await self._await(options)
        return _whole(request.endpoint, *self._answer(call))

    def open(self, call: Call, request: Request, options: Options) -> EchoReply:
        self._wait(time.sleep, options)
        return EchoReply(self.echo, request.endpoint, *self._answer(call))

    async def aopen(self, call: Call, request: Request, options: Options) -> EchoReply:
        await self._await(options)
        return EchoReply(self.echo, request.endpoint, *self._answer(call))

    def _wait(self, sleep: Callable[[float], Any], options: Options) -> None:
        late = self._late(options)
        if self.echo.latency:
            sleep(min(self.echo.latency, options.timeout) if late else self.echo.latency)
        if late:
            raise _timeout()

    async def _await(self, options: Options) -> None:
        late = self._late(options)
        if self.echo.latency:
            await asyncio.sleep(min(self.echo.latency, options.timeout) if late else self.echo.latency)
        if late:
            raise _timeout()

    def _late(self, options: Options) -> bool:
        return isinstance(options.timeout, (int, float)) and self.echo.latency > options.timeout

    def _answer(self, call: Call) -> tuple[int, dict[str, Any], Answer]:
        body = orjson.loads(call.body) if call.form is None else dict(call.form)
        number, answer = self.echo.answer(body)
        if isinstance(answer, Exception):
            raise answer
        return number, body, answer


def _timeout() -> Exception:
    import httpx2

    from ..core.api_errors import APITimeoutError

    return APITimeoutError(request=httpx2.Request("POST", "about:blank"))


def _error(answer: Answer) -> Reply | None:
    """The reply of a scripted error answer, if it is one."""
    if not isinstance(answer, Mapping) or not isinstance(answer.get("status"), int):
        return None
    status = answer["status"]
    body = answer.get("body") or {
        "error": {"message": answer.get("message", f"scripted {status}"), "code": answer.get("code")}
    }
    return Reply(status, dict(answer.get("headers") or {}), orjson.dumps(body))


def _whole(endpoint: str, number: int, body: dict[str, Any], answer: Answer) -> Reply:
    return _error(answer) or Reply(200, {}, _body(endpoint, number, body, answer))


def _body(endpoint: str, number: int, body: Mapping[str, Any], answer: Answer) -> bytes:
    if endpoint == "chat":
        return orjson.dumps(_completion(number, body, answer))
    from .echo_endpoints import whole

    return whole(endpoint, number, body, answer)


def _completion(number: int, body: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    if isinstance(answer, Mapping) and "choices" in answer:
        return dict(answer)
    message: dict[str, Any] = {"role": "assistant", "content": None}
    message.update(answer if isinstance(answer, Mapping) else {"content": answer})
    finish = message.pop("finish_reason", "tool_calls" if message.get("tool_calls") else "stop")
    prompt = sum(len(str(item.get("content") or "").split()) for item in body["messages"])
    written = len(str(message.get("content") or "").split())
    return {
        "id": f"echo-{number}",
        "object": "chat.completion",
        "created": 1_700_000_000 + number,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written},
    }


def _chunks(answer: Mapping[str, Any], size: int) -> Iterator[dict[str, Any]]:
    """The stream of an answer: its text in pieces of `size` characters."""
    base = {**answer, "object": "chat.completion.chunk"}
    usage, choices = base.pop("usage", None), base.pop("choices")
    for choice in choices:
        index, message = choice.get("index", 0), dict(choice["message"])
        text, calls = message.pop("content", None) or "", message.pop("tool_calls", None) or []
        pieces: list[dict[str, Any]] = [{**message, "role": "assistant", "content": text[:size]}]
        pieces += [{"content": text[start : start + size]} for start in range(size, len(text), size)]
        pieces += [{"tool_calls": [{**call, "index": place}]} for place, call in enumerate(calls)]
        for piece in pieces:
            yield {**base, "choices": [{"index": index, "delta": piece, "finish_reason": None}]}
        yield {**base, "choices": [{"index": index, "delta": {}, "finish_reason": choice["finish_reason"]}]}
    if usage is not None:
        yield {**base, "choices": [], "usage": usage}


class EchoReply:
    """A streamed answer of an `Echo`. A dict answer may have "break_after": chunks before the line goes dead."""

    def __init__(self, echo: Echo, endpoint: str, number: int, body: dict[str, Any], answer: Answer) -> None:
        error = _error(answer)
        self.status, self.headers = (error.status, error.headers) if error else (200, {})
        self._error, self._echo, self._ended = error, echo, False
        self._break_after: int | None = None
        if isinstance(answer, Mapping) and "break_after" in answer:
            answer = dict(answer)
            self._break_after = answer.pop("break_after")
        if error is None:
            wanted = (body.get("stream_options") or {}).get("include_usage")
            chunks = self._chunks_of(endpoint, number, body, answer)
            self._chunks = [chunk for chunk in chunks if chunk.get("choices", True) or wanted]

    def _chunks_of(self, endpoint: str, number: int, body: dict[str, Any], answer: Answer) -> Iterable[dict[str, Any]]:
        if endpoint == "chat":
            return _chunks(_completion(number, body, answer), self._echo.chunk_size)
        from .echo_endpoints import events

        return events(endpoint, _body(endpoint, number, body, answer))

    def read(self) -> bytes:
        return self._error.body if self._error else b""

    async def aread(self) -> bytes:
        return self.read()

    def batches(self) -> Iterator[bytes]:
        for number, data in enumerate(self._events()):
            if number and self._echo.chunk_latency:
                time.sleep(self._echo.chunk_latency)
            yield data
        self._ended = True

    async def abatches(self) -> AsyncIterator[bytes]:
        for number, data in enumerate(self._events()):
            if number and self._echo.chunk_latency:
                await asyncio.sleep(self._echo.chunk_latency)
            yield data
        self._ended = True

    def _events(self) -> Iterator[bytes]:
        chunks = self._chunks if self._break_after is None else itertools.islice(self._chunks, self._break_after)
        for chunk in chunks:
            yield b"data: " + orjson.dumps(chunk) + b"\n\n"
        if self._break_after is not None:
            raise ConnectionResetError("the scripted stream breaks here")
        yield b"data: [DONE]\n\n"

    def close(self) -> None:
        if not self._ended:
            self._ended = True
            self._echo.closed_early += 1

    async def aclose(self) -> None:
        self.close()
