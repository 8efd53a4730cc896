"""How many upstream calls are made when many ask the same at once, and nobody has the answer yet."""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from typing import Any

from tests.fixtures.servers import redis_server
from tests.fixtures.upstream import Upstream

from ..measure import Effort, Messages, new_prompt
from ..report import Budget, Row
from ..subject import Subject, use_cache

LATENCY = 0.3
THREADS, TASKS, PROCESSES = 50, 200, 4
WAIT = 60.0


def stampedes(effort: Effort) -> Iterator[Row]:
    rounds = min(effort.rounds, 3)
    with Upstream(latency=LATENCY) as upstream:
        use_cache(type="local")
        subject = Subject(upstream.url)
        yield _row(f"{THREADS} identical calls, threads", lambda: _threads(subject), upstream, rounds)
        with asyncio.Runner() as running:
            yield _row(f"{TASKS} identical calls, tasks", lambda: running.run(_tasks(subject)), upstream, rounds)
        with tempfile.TemporaryDirectory() as folder:
            cache: dict[str, Any] = {"type": "disk", "disk_cache_dir": folder}
            yield _row(f"{PROCESSES} processes, one disk", lambda: _processes(upstream, cache), upstream, 1)
        with redis_server() as server:
            cache = {"type": "redis", "host": "127.0.0.1", "port": server.port}
            yield _row(f"{PROCESSES} processes, one Redis", lambda: _processes(upstream, cache), upstream, 1)


def _row(name: str, crowd: Callable[[], list[str]], upstream: Upstream, rounds: int) -> Row:
    """The worst of the rounds: one duplicate is one paid for twice."""
    worst, errors = 0, []
    for _ in range(rounds):
        before = upstream.calls
        errors += crowd()
        worst = max(worst, upstream.calls - before)
    fault = f"{len(errors)} calls failed: {errors[0]}" if errors else ""
    return Row(name, worst, 1, "calls", Budget(at_most=1), "upstream calls, worst round", fault)


def _threads(subject: Subject) -> list[str]:
    messages, start = new_prompt(), threading.Barrier(THREADS)

    def ask(_: int) -> str | None:
        start.wait(WAIT)
        return _failure(lambda: subject.ask(messages))

    with ThreadPoolExecutor(THREADS) as pool:
        return [error for error in pool.map(ask, range(THREADS)) if error]


async def _tasks(subject: Subject) -> list[str]:
    messages = new_prompt()
    answers = await asyncio.gather(*(subject.aask(messages) for _ in range(TASKS)), return_exceptions=True)
    return [repr(answer) for answer in answers if isinstance(answer, BaseException)]


def _processes(upstream: Upstream, cache: dict[str, Any]) -> list[str]:
    # Spawned, not forked: a worker of a server starts like this, and the parent's threads are not in the way.
    context = multiprocessing.get_context("spawn")
    start, errors, messages = context.Barrier(PROCESSES), context.SimpleQueue(), new_prompt()
    arguments = (upstream.url, cache, messages, start, errors)
    processes = [context.Process(target=_ask_once, args=arguments) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    answers = [errors.get() for _ in processes]
    for process in processes:
        process.join(WAIT)
    return [error for error in answers if error]


def _ask_once(url: str, cache: dict[str, Any], messages: Messages, start: Barrier, errors: Any) -> None:
    def ask() -> None:
        use_cache(**cache)
        subject = Subject(url)
        import openai  # noqa: F401  (loads what the first call would, so that all are ready at the barrier)

        start.wait(WAIT)
        subject.ask(messages)

    errors.put(_failure(ask))


def _failure(call: Callable[[], object]) -> str | None:
    try:
        call()
    except Exception as error:
        return repr(error)
    return None
