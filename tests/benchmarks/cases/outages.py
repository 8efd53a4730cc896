"""What a store costs that is down (refuses connections) or hangs (accepts them and never answers)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from statistics import median

from tests.fixtures.servers import refusing_server, silent_server
from tests.fixtures.upstream import Upstream

from ..measure import Effort, aeach_timed, each_timed, interleaved, new_prompts
from ..report import Budget, Row, Unmeasured
from ..subject import Subject, use_cache

Times = list[float]
BROKEN: dict[str, Callable[[], AbstractContextManager[int]]] = {"down": refusing_server, "hangs": silent_server}


def outages(effort: Effort) -> Iterator[Row | Unmeasured]:
    count = effort.count(100)
    # It warns of each broken store once, as it should; here that would be a screen of text.
    logging.getLogger("rejoinder").addFilter(lambda record: False)
    with Upstream() as upstream, asyncio.Runner() as running:
        subject = Subject(upstream.url)
        for word, server in BROKEN.items():
            with server() as port:
                yield from _rows(f"store {word}, sync", effort, _sync(subject, port, count))
                yield from _rows(f"store {word}, async", effort, _async(subject, port, count, running))


def _rows(name: str, effort: Effort, blocks: dict[str, Callable[[], Times]]) -> Iterator[Row | Unmeasured]:
    try:
        figures = interleaved(effort.rounds, blocks)
    except Exception as error:
        yield Unmeasured(name, f"a call failed: {error!r}", failed=True)
        return
    usual = min(median(times) for times in figures["floor"]) * 1e3
    first = min(times[0] for times in figures["subject"]) * 1e3
    later = min(median(times[1:]) for times in figures["subject"]) * 1e3
    slowest = min(max(times[1:]) for times in figures["subject"]) * 1e3
    # Each round has a store of its own, and so a first call of its own. What the very first imports is not the store's.
    yield Row(f"{name}, first call", first, usual, "ms", Budget(more=100, unit="ms"))
    remark = f"none failed; the slowest {slowest:.1f} ms"
    yield Row(f"{name}, later calls", later, usual, "ms", Budget(more=1, unit="ms"), remark)


def _sync(subject: Subject, port: int, count: int) -> dict[str, Callable[[], Times]]:
    def broken() -> Times:
        use_cache(type="redis", host="127.0.0.1", port=port)
        return each_timed(subject.ask, new_prompts(count))

    return {"subject": broken, "floor": lambda: each_timed(subject.ask_uncached, new_prompts(count))}


def _async(subject: Subject, port: int, count: int, running: asyncio.Runner) -> dict[str, Callable[[], Times]]:
    async def broken() -> Times:
        use_cache(type="redis", host="127.0.0.1", port=port)
        return await aeach_timed(subject.aask, new_prompts(count))

    async def uncached() -> Times:
        return await aeach_timed(subject.aask_uncached, new_prompts(count))

    return {"subject": lambda: running.run(broken()), "floor": lambda: running.run(uncached())}
