"""A network between the cache and its server that cuts, loses, delays and chokes, and servers that are killed.

Threads and tasks call all the while, with questions old and new. Each must be answered rightly; what the trouble adds
to a call must stay within what the budget allows; and once it is over, answers must come from the cache again.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import rejoinder
from rejoinder import Cache, Echo
from tests.fixtures.calls import ataken, text_of, whole
from tests.fixtures.proxy import CALM, Proxy, Trouble

from .. import places
from ..places import Place, hurry
from ..report import Opening, Row, Scale, over, percentile, row, told

NAME = "a bad network"
THREADS, TASKS = 8, 100
BUDGET = 0.1
OPERATIONS = 5
"""What a call may ask of the store: look, lease, look again, keep, release. On a slow link each takes its time."""
WORST = OPERATIONS * BUDGET + 0.5
"""Seconds; half a second is what 108 callers on a busy machine may wait for the processor."""
PROMISE = f"no failed call, right answers, none later than {WORST:g} s, and hits again"
OLD = 40
"""Questions that are asked again and again."""
RECOVERY = 40.0
"""Seconds after which hits must be back; a breaker that has opened again and again pauses for thirty."""


def rows(scale: Scale) -> Iterator[Row]:
    seconds = 3.0 if scale.is_full else 0.4
    rejoinder.warm_up()
    opening: list[Opening] = [places.redis, places.postgres] if scale.is_full else [places.redis]
    yield from over(NAME, opening, lambda place: troubled(place, seconds, scale))


def troubled(place: Place, seconds: float, scale: Scale) -> Iterator[Row]:
    with Proxy(place.server.port) as proxy:
        rerouted = places.on_redis if place.name == "redis" else places.on_postgres
        behind = rerouted(place.server, proxy.port)
        for name, make in list(TROUBLES.items())[:: 1 if scale.is_full else 4]:
            cache = behind.cache(budget=BUDGET, ttl=60)
            if not scale.is_full:
                hurry(cache)
            with Callers(cache) as callers:
                callers.wait_for_hits()
                callers.phase = "calm"
                time.sleep(seconds / 2)
                callers.phase = "trouble"
                make(proxy, place.server, seconds)
                proxy.trouble = CALM
                callers.phase = "after"
                back = callers.wait_for_hits()
            cache.close()
            yield judged(place.name, name, callers, back, seconds)


def judged(store: str, name: str, callers: Callers, back: float | None, seconds: float) -> Row:
    calm, trouble = callers.times["calm"], callers.times["trouble"]
    figures = " / ".join(f"{1000 * percentile(trouble, share):.1f}" for share in (0.5, 0.99, 1))
    usual = " / ".join(f"{1000 * percentile(calm, share):.1f}" for share in (0.5, 0.99, 1))
    calls = sum(map(len, callers.times.values()))
    found = f"{calls:,} calls, {len(callers.faults)} failed; ms at p50 / p99 / worst {figures}, before {usual}; "
    found += f"hits again after {back:.1f} s" if back is not None else f"no hits within {RECOVERY:.0f} s"
    held = not callers.faults and max(trouble) <= WORST and back is not None
    done = f"{name}, for {seconds:g} s, while {THREADS} threads and {TASKS} tasks call"
    return row(NAME, store, done, told(found, callers.faults), PROMISE, held=held)


# ── trouble ───────────────────────────────────────────────────────────────────────────────────────────────────────────

Make = Callable[[Proxy, Any, float], None]


def lasting(**trouble: Any) -> Make:
    def make(proxy: Proxy, server: Any, seconds: float) -> None:
        proxy.trouble = Trouble(**trouble)
        time.sleep(seconds)

    return make


def cut_again_and_again(proxy: Proxy, server: Any, seconds: float) -> None:
    for _ in range(10):
        proxy.cut()
        time.sleep(seconds / 10)


def refused(proxy: Proxy, server: Any, seconds: float) -> None:
    proxy.trouble = Trouble(refuses=True)
    proxy.cut()
    time.sleep(seconds)


def killed(proxy: Proxy, server: Any, seconds: float) -> None:
    server.kill()
    time.sleep(seconds)
    for attempt in range(20):  # the processes of a PostgreSQL see only after a while that the first of them is gone
        try:
            server.start()
            break
        except RuntimeError:
            if attempt == 19:
                raise
            time.sleep(0.3)


TROUBLES: dict[str, Make] = {
    "the server is killed and started again": killed,
    "connections are reset ten times": cut_again_and_again,
    "answers end in the middle": lasting(ends_after=7),
    "nothing gets through": lasting(silent=True),
    "new connections are reset": refused,
    "30 ms more each way": lasting(latency=0.03),
    "200 ms more each way": lasting(latency=0.2),
    "20 kB/s": lasting(bytes_per_second=20_000),
}


# ── callers ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Callers:
    """Threads and tasks that ask until the block ends, each about every tenth of a second."""

    cache: Cache
    phase: str = "warm"
    times: dict[str, list[float]] = field(default_factory=lambda: {"warm": [], "calm": [], "trouble": [], "after": []})
    faults: list[str] = field(default_factory=list)
    hits: int = 0

    def __enter__(self) -> Callers:
        self._is_over = False
        self._threads = [threading.Thread(target=self._call, daemon=True) for _ in range(THREADS)]
        self._threads.append(threading.Thread(target=asyncio.run, args=(self._call_in_tasks(),), daemon=True))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over = True
        for thread in self._threads:
            thread.join(30)
            if thread.is_alive():
                self.faults.append("a caller hangs")

    def wait_for_hits(self) -> float | None:
        """Seconds until answers come from the cache in numbers; None: they do not."""
        started, goal = time.monotonic(), self.hits + THREADS
        while time.monotonic() - started < RECOVERY:
            if self.hits >= goal:
                return time.monotonic() - started
            time.sleep(0.01)
        return None

    def _call(self) -> None:
        dice = random.Random()
        while not self._is_over:
            text, phase, started = question(dice), self.phase, time.monotonic()
            try:
                answer = whole(messages=[{"role": "user", "content": text}], client=ECHO, cache=self.cache)
            except BaseException as error:
                self.faults.append(f"{type(error).__name__}: {error}")
            else:
                self._note(answer, text, phase, started)
            time.sleep(dice.uniform(0.05, 0.15))

    async def _call_in_tasks(self) -> None:
        await asyncio.gather(*(self._acall() for _ in range(TASKS)))
        await self.cache.aclose()

    async def _acall(self) -> None:
        dice = random.Random()
        while not self._is_over:
            await asyncio.sleep(dice.uniform(0.1, 0.3))
            text, phase, started = question(dice), self.phase, time.monotonic()
            try:
                answer = await ataken(messages=[{"role": "user", "content": text}], client=ECHO, cache=self.cache)
            except BaseException as error:
                self.faults.append(f"{type(error).__name__}: {error}")
            else:
                self._note(answer, text, phase, started)

    def _note(self, answer: Any, text: str, phase: str, started: float) -> None:
        took = time.monotonic() - started
        if text_of(answer) != text:
            self.faults.append(f"asked {text[:20]!r}, and was told {text_of(answer)[:20]!r}")
        self.hits += answer.cache
        # By the phase in which it began, or the one in which it ended, if that was the worse.
        self.times["trouble" if "trouble" in (phase, self.phase) else phase].append(took)


ECHO = Echo()  # says what was asked, so that everybody knows what is right


def question(dice: random.Random) -> str:
    number = dice.randrange(OLD) if dice.random() < 0.8 else dice.randrange(10**9)
    return f"{number} " + "and why is that so? " * (number % 200)
