"""Clocks that are set forward and back by a year, while answers are kept and leases held.

This module is loaded before rejoinder is: the process's own `time.time` is replaced, so that everything sees the steps.
Servers keep their own clocks; there, only this side's is stepped.
"""

from __future__ import annotations

import time

_real = time.time
_shift = 0.0


def stepped() -> float:
    return _real() + _shift


time.time = stepped

# ruff: noqa: E402 - the clock comes first
from collections.abc import Iterator
from typing import Any

import rejoinder
from rejoinder import Cache, Echo
from tests.fixtures.calls import crowd, text_of

from .. import places
from ..places import Place
from ..report import Opening, Row, Scale, over, row, told

NAME = "clock steps"
YEAR = 365 * 86400.0
TTL = 60.0
LEASE = 0.3
LONGEST = 5.0
"""Seconds in which any call must be answered."""
EVERYWHERE: list[Opening] = [places.memory, places.disk, places.sqlite, places.object_folder, places.redis]


def rows(scale: Scale) -> Iterator[Row]:
    assert rejoinder.Cache().clock is stepped, "rejoinder was loaded before the clock could be replaced"
    servers: list[Opening] = [places.postgres, places.s3, places.cosmos] if scale.is_full else []
    yield from over(NAME, EVERYWHERE + servers, lambda place: checked(place, scale.of(10, 1)))


def step(seconds: float) -> None:
    global _shift
    _shift += seconds


def checked(place: Place, rounds: int) -> Iterator[Row]:
    """Both steps, again and again, each a row."""
    faults = [fault for number in range(rounds) for fault in forward(place.cache(ttl=TTL, lease_ttl=LEASE), number)]
    found = f"{len(faults)} answers served after their end, or lost for ever"
    promise = "what had an end is asked again, what has none is served, all is kept anew"
    yield row(NAME, place.name, f"{rounds} × a year forward", told(found, faults), promise, held=not faults)
    faults = [fault for number in range(rounds) for fault in back(place.cache(ttl=TTL, lease_ttl=LEASE), number)]
    found = f"{len(faults)} calls unanswered within {LONGEST:g} s, or answers lost for ever"
    promise = "a lease that was held does not hold callers up; an answer serves longer by the step at most"
    yield row(NAME, place.name, f"{rounds} × a year back", told(found, faults), promise, held=not faults)


def forward(cache: Cache, number: int) -> Iterator[str]:
    """The clock is a year late, and is set right."""
    echo = Echo()
    ask(cache, f"ends {number}", echo)

    cache.set(f"stays {number}", "for ever", ttl=100 * YEAR)
    if not ask(cache, f"ends {number}", echo).cache:
        yield "an answer was not kept"
    token = cache.store.lease(f"k{number}", LEASE) if cache.store.leases else None
    step(YEAR)
    if ask(cache, f"ends {number}", echo).cache:
        yield "an answer was served after its end"
    if not ask(cache, f"ends {number}", echo).cache:
        yield "an answer was not kept anew"
    if cache.get(f"stays {number}") != "for ever":
        yield "what had not ended was lost"
    time.sleep(LEASE if token else 0)
    if token and cache.store.lease(f"k{number}", LEASE) is None:
        yield "a lease stays for ever"
    cache.store.prune()
    cache.close()


def back(cache: Cache, number: int) -> Iterator[str]:
    """The clock is a year early, and is set right: what was stored is of the future."""
    echo = Echo()
    ask(cache, f"future {number}", echo)
    if cache.store.leases:
        cache.store.lease(place_of(cache, f"held {number}"), LEASE)  # by somebody who dies
    step(-YEAR)
    try:
        answers = crowd([lambda text=text: ask(cache, text, echo) for text in asked(number)], LONGEST)  # type: ignore[misc]
    except AssertionError as error:
        yield str(error)
    else:
        for text, answer in zip(asked(number), answers, strict=True):
            if isinstance(answer, BaseException) or text_of(answer) != text:
                yield f"{text!r} was answered with {answer!r}"
    if not ask(cache, f"new {number}", echo).cache:
        yield "an answer was not kept after the step"
    step(2 * YEAR)
    if ask(cache, f"future {number}", echo).cache:
        yield "an answer outlived its end and the step"
    step(-YEAR)
    cache.clear()
    cache.close()


def asked(number: int) -> list[str]:
    return [f"{what} {number}" for what in ("future", "held", "new")]


def ask(cache: Cache, text: str, echo: Echo, **more: Any) -> Any:
    return rejoinder.completion("echo/m", [{"role": "user", "content": text}], client=echo, cache=cache, **more)


def place_of(cache: Cache, text: str) -> str:
    """The key in the store of the answer to a question."""
    key = cache.get_cache_key("echo/m", [{"role": "user", "content": text}])
    return cache.prefix + key
