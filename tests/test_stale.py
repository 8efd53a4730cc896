"""Answers past their time: while a new one is fetched, and where the vendor fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

import rejoinder

MESSAGES = [{"role": "user", "content": "What time is it?"}]


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def made(clock: Clock, **options: Any) -> rejoinder.Cache:
    from rejoinder.caching.stores.memory import MemoryStore

    return rejoinder.Cache(store=MemoryStore(clock=clock), clock=clock, **options)


def ask(echo: rejoinder.Echo, cache: rejoinder.Cache, is_async: bool, **more: Any) -> Any:
    if is_async:

        async def go() -> Any:
            answer = await rejoinder.acompletion("echo/m", MESSAGES, client=echo, cache=cache, num_retries=0, **more)
            await asyncio.sleep(0.02)
            return answer

        return asyncio.run(go())
    return rejoinder.completion("echo/m", MESSAGES, client=echo, cache=cache, num_retries=0, **more)


def wait_until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 2
    while not what() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert what()


@pytest.mark.parametrize("is_async", [False, True])
def test_stale_answer_serves_while_a_new_one_is_fetched(clock: Clock, is_async: bool) -> None:
    echo, cache = rejoinder.Echo(["old", "new"]), made(clock, ttl=60, stale_while_revalidate=30)
    assert ask(echo, cache, is_async).choices[0].message.content == "old"
    clock.now += 70
    stale = ask(echo, cache, is_async)
    assert (stale.choices[0].message.content, stale.cache, stale.cache_info.kind) == ("old", True, "stale")
    wait_until(lambda: cache.counts["stored"] == 2)
    assert ask(echo, cache, is_async).choices[0].message.content == "new"
    assert echo.calls == 2


def test_answer_beyond_its_grace_is_not_served(clock: Clock) -> None:
    echo, cache = rejoinder.Echo(["old", "new"]), made(clock, ttl=60, stale_while_revalidate=30)
    ask(echo, cache, False)
    clock.now += 91
    assert ask(echo, cache, False).choices[0].message.content == "new"


@pytest.mark.parametrize("is_async", [False, True])
def test_stale_answer_serves_where_the_vendor_fails(clock: Clock, is_async: bool) -> None:
    echo, cache = rejoinder.Echo(["old", {"status": 503}]), made(clock, ttl=60, stale_if_error="1h")
    ask(echo, cache, is_async)
    clock.now += 3000
    stale = ask(echo, cache, is_async)
    assert (stale.choices[0].message.content, stale.cache_info.kind) == ("old", "stale")
    assert echo.calls == 2


def test_vendor_is_asked_before_a_stale_answer_serves_for_an_error(clock: Clock) -> None:
    echo, cache = rejoinder.Echo(["old", "new"]), made(clock, ttl=60, stale_if_error="1h")
    ask(echo, cache, False)
    clock.now += 3000
    assert ask(echo, cache, False).choices[0].message.content == "new"


def test_error_without_a_stale_answer_is_raised(clock: Clock) -> None:
    echo, cache = rejoinder.Echo([{"status": 503}]), made(clock, ttl=60, stale_if_error="1h")
    with pytest.raises(rejoinder.InternalServerError):
        ask(echo, cache, False)
