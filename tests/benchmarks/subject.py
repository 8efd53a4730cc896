"""rejoinder and the openai SDK, as a user would call them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.fixtures.upstream import Upstream

from .measure import Messages

KEY = "sk-mock"


class WrongMeasurement(Exception):
    """The subject did something else than what was to be measured, such as going upstream for a hit."""


class Subject:
    """rejoinder against one upstream, with what `rejoinder.cache` is at the time of the call."""

    def __init__(self, url: str) -> None:
        import rejoinder

        self._completion, self._acompletion = rejoinder.completion, rejoinder.acompletion
        self._arguments: dict[str, Any] = {"model": "openai/gpt-4o-mini", "api_base": url, "api_key": KEY}

    def ask(self, messages: Messages) -> Any:
        return self._completion(messages=messages, **self._arguments)

    async def aask(self, messages: Messages) -> Any:
        return await self._acompletion(messages=messages, **self._arguments)

    def ask_uncached(self, messages: Messages) -> Any:
        return self._completion(messages=messages, caching=False, **self._arguments)

    async def aask_uncached(self, messages: Messages) -> Any:
        return await self._acompletion(messages=messages, caching=False, **self._arguments)

    def stream(self, messages: Messages) -> int:
        return sum(1 for _ in self._completion(messages=messages, stream=True, **self._arguments))

    async def astream(self, messages: Messages) -> int:
        count = 0
        async for _ in await self._acompletion(messages=messages, stream=True, **self._arguments):
            count += 1
        return count


class SDK:
    """The openai package, called directly."""

    def __init__(self, url: str) -> None:
        import openai

        self._client = openai.OpenAI(base_url=url, api_key=KEY)
        self._async_client = openai.AsyncOpenAI(base_url=url, api_key=KEY)

    def ask(self, messages: Any) -> Any:
        return self._client.chat.completions.create(model="gpt-4o-mini", messages=messages)

    async def aask(self, messages: Any) -> Any:
        return await self._async_client.chat.completions.create(model="gpt-4o-mini", messages=messages)

    def stream(self, messages: Any) -> int:
        create = self._client.chat.completions.create
        return sum(1 for _ in create(model="gpt-4o-mini", messages=messages, stream=True))

    async def astream(self, messages: Any) -> int:
        count = 0
        create = self._async_client.chat.completions.create
        async for _ in await create(model="gpt-4o-mini", messages=messages, stream=True):
            count += 1
        return count


@contextmanager
def calls_expected(upstream: Upstream, expected: int) -> Iterator[None]:
    """Raise `WrongMeasurement` unless the block makes that many upstream calls."""
    before = upstream.calls
    yield
    made = upstream.calls - before
    if made != expected:
        raise WrongMeasurement(f"{made} upstream calls where {expected} were expected")


def use_cache(**arguments: Any) -> Any:
    """Set `rejoinder.cache` to a new one, and return it."""
    import rejoinder

    rejoinder.cache = rejoinder.Cache(**arguments)
    return rejoinder.cache
