"""How things are timed: subject and floor in turn, the first round dropped, the quietest round taken.

Other work on a machine only ever adds time. So the median inside a round tells what a call costs in that round, and the
lowest median of all rounds what it costs undisturbed. Taking turns lets a slow minute hit both sides.
"""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

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


def quietest(rounds: int, **blocks: Callable[[], float]) -> dict[str, float]:
    """The lowest figure of each block."""
    return {name: min(figures) for name, figures in interleaved(rounds, blocks).items()}


def timed(call: Callable[[T], object], inputs: Iterable[T]) -> float:
    """The median of what one call takes, in seconds."""
    return median(each_timed(call, inputs))


def each_timed(call: Callable[[T], object], inputs: Iterable[T]) -> list[float]:
    """What each call takes, in seconds."""
    clock, times = time.perf_counter, []
    for value in inputs:
        start = clock()
        call(value)
        times.append(clock() - start)
    return times


async def atimed(call: Callable[[T], Awaitable[object]], inputs: Iterable[T]) -> float:
    return median(await aeach_timed(call, inputs))


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
