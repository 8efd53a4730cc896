"""`with Cache…` blocks: nesting, threads, tasks."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import rejoinder

MESSAGES = [{"role": "user", "content": "Hello"}]


def ask(echo: rejoinder.Echo) -> Any:
    return rejoinder.completion("echo/m", MESSAGES, client=echo)


def test_block_is_used_inside_and_not_outside() -> None:
    echo = rejoinder.Echo()
    with rejoinder.Cache.memory():
        ask(echo)
        assert ask(echo).cache
    assert not ask(echo).cache


def test_nested_block_restores_the_outer_cache() -> None:
    echo = rejoinder.Echo(["outer", "inner"])
    with rejoinder.Cache.memory():
        ask(echo)
        with rejoinder.Cache.memory():
            assert ask(echo).choices[0].message.content == "inner"
        assert ask(echo).choices[0].message.content == "outer"


def test_same_cache_may_be_entered_twice() -> None:
    echo, cache = rejoinder.Echo(), rejoinder.Cache.memory()
    with cache:
        with cache:
            ask(echo)
        assert ask(echo).cache


def test_threads_started_inside_use_the_block() -> None:
    echo = rejoinder.Echo()
    with rejoinder.Cache.memory():
        ask(echo)
        with ThreadPoolExecutor(4) as pool:
            assert all(answer.cache for answer in pool.map(lambda _: ask(echo), range(8)))


def test_threads_that_ran_before_do_not_use_the_block() -> None:
    echo, go, done, answers = rejoinder.Echo(), threading.Event(), threading.Event(), []

    def work() -> None:
        go.wait(5)
        answers.append(ask(echo))
        done.set()

    threading.Thread(target=work).start()
    with rejoinder.Cache.memory():
        ask(echo)
        go.set()
        done.wait(5)
    assert not answers[0].cache


async def test_tasks_started_inside_use_the_block_and_others_do_not() -> None:
    echo, inside = rejoinder.Echo(), asyncio.Event()

    async def other() -> bool:
        await inside.wait()
        return (await rejoinder.acompletion("echo/m", MESSAGES, client=echo)).cache

    outsider = asyncio.create_task(other())
    async with rejoinder.Cache.memory():
        await rejoinder.acompletion("echo/m", MESSAGES, client=echo)
        answer = await asyncio.create_task(rejoinder.acompletion("echo/m", MESSAGES, client=echo))
        inside.set()
        assert answer.cache
        assert not await outsider


def test_block_does_not_close_its_cache() -> None:
    echo, cache = rejoinder.Echo(), rejoinder.Cache.memory()
    with cache:
        ask(echo)
    with cache:
        assert ask(echo).cache
