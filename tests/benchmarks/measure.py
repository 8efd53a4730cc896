"""How things are timed: subject and floor in turns, the first round dropped, the quietest round taken.

Other work on a machine only ever adds time. So the median inside a round tells what a call costs in that round, and the
lowest median of all rounds what it costs undisturbed. Taking turns lets a slow moment hit both sides.
"""

from __future__ import annotations

import gc
import itertools
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
Messages = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    rounds: int = 8
    """Rounds that count; one more comes first and is dropped."""
    scale: float = 1.0
    """Of the number of calls in a round."""

    def count(self, calls: int, least: int = 2) -> int:
        return max(least, round(calls * self.scale))


FULL = Effort()
QUICK = Effort(rounds=3, scale=0.2)


def interleaved(rounds: int, blocks: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """What each block returned in each round that counts. Every second round goes backwards."""
    results: dict[str, list[T]] = {name: [] for name in blocks}
    for number in range(rounds + 1):
        for name in sorted(blocks, reverse=bool(number % 2)):
            gc.collect()
            result = blocks[name]()
            if number:
                results[name].append(result)
    return results


class Pair(NamedTuple):
    """Seconds, or whatever the row is about, for both sides."""

    subject: float
    floor: float


def paired(
    rounds: int, subject: Callable[[T], object], floor: Callable[[T], object], inputs: Callable[[], Iterable[T]]
) -> Pair:
    """The median of what one call takes, in the quietest round, for both sides.

    They take turns by the call, not by the round, so that both meet the machine in the same mood.
    """
    clock, medians = time.perf_counter, []
    for _ in range(rounds + 1):
        gc.collect()
        times: list[tuple[float, float]] = []
        for value in inputs():
            start = clock()
            subject(value)
            middle = clock()
            floor(value)
            times.append((middle - start, clock() - middle))
        medians.append(_medians(times))
    return _quietest(medians)


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, and what it starts in here, on one core, where the system can do that.

    A core that idles is slow to wake, the more so the longer it has idled. With a server on another core the answer to
    one and the same GET takes 25 or 100 µs, and a client that works 5 µs longer between two requests may tip it over.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


async def apaired(
    rounds: int,
    subject: Callable[[T], Awaitable[object]],
    floor: Callable[[T], Awaitable[object]],
    inputs: Callable[[], Iterable[T]],
) -> Pair:
    """`paired` for coroutines, in the running loop."""
    clock, medians = time.perf_counter, []
    for _ in range(rounds + 1):
        gc.collect()
        times: list[tuple[float, float]] = []
        for value in inputs():
            start = clock()
            await subject(value)
            middle = clock()
            await floor(value)
            times.append((middle - start, clock() - middle))
        medians.append(_medians(times))
    return _quietest(medians)


def _medians(times: Iterable[tuple[float, float]]) -> Pair:
    subject, floor = zip(*times, strict=True)
    return Pair(median(subject), median(floor))


def _quietest(rounds: Sequence[Pair]) -> Pair:
    """The lowest of each side, without the first round."""
    subject, floor = zip(*rounds[1:], strict=True)
    return Pair(min(subject), min(floor))


def each_timed(call: Callable[[T], object], inputs: Iterable[T]) -> list[float]:
    """What each call takes, in seconds."""
    clock, times = time.perf_counter, []
    for value in inputs:
        start = clock()
        call(value)
        times.append(clock() - start)
    return times


async def aeach_timed(call: Callable[[T], Awaitable[object]], inputs: Iterable[T]) -> list[float]:
    clock, times = time.perf_counter, []
    for value in inputs:
        start = clock()
        await call(value)
        times.append(clock() - start)
    return times


_numbers = itertools.count()


def new_prompt(size: int = 300) -> Messages:
    """A prompt that nobody has asked before in this process, of about `size` characters."""
    text = f"Question {next(_numbers)}: " + "what would you say to this? " * (size // 28)
    return [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": text}]


def new_prompts(count: int) -> list[Messages]:
    return [new_prompt() for _ in range(count)]
