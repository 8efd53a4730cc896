"""Forks at any moment of a program whose threads use a cache: both sides go on."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import rejoinder
from rejoinder import Cache, Echo
from tests.fixtures.calls import ataken, text_of

from .. import places
from ..children import Child
from ..places import Place
from ..report import Opening, Row, Scale, over, row, told

NAME = "fork after use"
THREADS = 4
PATIENCE = 20.0
"""Seconds that a child has."""
PROMISE = "both sides are answered rightly; the child stores and finds what it stores"
EVERYWHERE: list[Opening] = [places.memory, places.disk, places.redis, places.sqlite]


def rows(scale: Scale) -> Iterator[Row]:
    warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
    rejoinder.warm_up()
    more: list[Opening] = [places.postgres, places.object_folder] if scale.is_full else []
    yield from over(NAME, EVERYWHERE + more, lambda place: forked(place, scale.of(100, 3)))


def forked(place: Place, forks: int) -> Iterator[Row]:
    cache, faults = place.cache(lease_ttl=2.0), []
    # What calls import: the child of a fork while another thread imports may wait in that import for ever.
    ask(cache, "first")
    asyncio.run(twice(cache, "second"))
    with Busy(cache) as busy:
        for number in range(forks):
            time.sleep(random.uniform(0, 0.02))
            child = Child(lambda say, number=number: live(cache, number, place.survives_fork))  # type: ignore[misc]
            try:
                faults += [f"child {number}: {fault}" for fault in child.result(PATIENCE)]
            except Exception as error:
                faults.append(f"child {number}: {type(error).__name__}: {error}")
    faults += busy.faults
    cache.close()
    kind = "" if place.survives_fork else ", where a child does without the store"
    done = f"{forks} forks while {THREADS} threads of the parent call, with leases and locks held{kind}"
    found = f"{busy.calls:,} calls of the parent and {4 * forks:,} of its children, {len(faults)} wrong or hanging"
    yield row(NAME, place.name, done, told(found, faults), PROMISE, held=not faults)


class Busy:
    """Threads that ask and are answered until the block ends."""

    def __init__(self, cache: Cache) -> None:
        self.cache, self.calls, self.faults, self._is_over = cache, 0, list[str](), False
        self._numbers = itertools.count()
        self._threads = [threading.Thread(target=self._call, daemon=True) for _ in range(THREADS)]

    def __enter__(self) -> Busy:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over = True
        for thread in self._threads:
            thread.join(PATIENCE)
            if thread.is_alive():
                self.faults.append("a thread of the parent hangs")

    def _call(self) -> None:
        while not self._is_over:
            text = f"parent {next(self._numbers) // 2}"  # each is asked twice, perhaps at once
            try:
                if text_of(ask(self.cache, text, Echo(latency=0.001))) != text:
                    self.faults.append(f"{text} was answered wrongly")
            except Exception as error:
                self.faults.append(f"the parent: {type(error).__name__}: {error}")
            self.calls += 1


def live(cache: Cache, number: int, may_store: bool) -> list[str]:
    """What goes wrong in a child."""
    faults, text = [], f"child {number}"
    answers = [ask(cache, text), ask(cache, text), *asyncio.run(twice(cache, f"{text} async"))]
    for answer, said, is_hit in zip(answers, [text, text, f"{text} async", f"{text} async"], [0, 1, 0, 1], strict=True):
        if text_of(answer) != said:
            faults.append(f"{said} was answered with {text_of(answer)}")
        if bool(answer.cache) != bool(is_hit) and may_store:
            faults.append(f"{said}: cache is {answer.cache}; {cache.stats()['last_error']}")
    if may_store:
        cache.close()
    return faults


async def twice(cache: Cache, text: str) -> list[Any]:
    return [await ataken(messages=[{"role": "user", "content": text}], cache=cache, client=Echo()) for _ in range(2)]


def ask(cache: Cache, text: str, echo: Echo | None = None) -> Any:
    return rejoinder.completion("echo/m", [{"role": "user", "content": text}], cache=cache, client=echo or Echo())
