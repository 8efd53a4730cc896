"""The pieces of single-flight: flights, leases, the breaker, the drivers of flows."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rejoinder import Cache, Echo
from rejoinder.caching.breaker import Breaker
from rejoinder.caching.flights import ALONE, LATE, LOST, Flights, Outcome
from rejoinder.caching.leases import LeaseKeeper
from rejoinder.caching.stores.base import Store
from rejoinder.caching.stores.disk import DiskStore
from rejoinder.core.flow import Flow, Io, arun, run
from tests.fixtures.calls import ataken, auntil, crowd, until, within

# ── flights ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_leads_and_the_others_follow() -> None:
    flights = Flights()
    flight, leads = flights.join("k")
    assert leads
    assert flights.join("k") == (flight, False)
    assert flights.join("other")[1]
    flights.land(flight, "answer")
    assert flight.wait(None) == Outcome("landed", "answer")
    assert flights.join("k")[1], "a flight that has landed is over"


def test_of_a_crowd_one_leads() -> None:
    flights = Flights()
    joined = crowd([lambda: flights.join("k")] * 64)
    assert sum(leads for _, leads in joined) == 1
    assert len({id(flight) for flight, _ in joined}) == 1


def test_a_failure_is_the_followers_and_an_interrupt_is_not() -> None:
    flights, error = Flights(), ValueError("no")
    flight, _ = flights.join("k")
    flights.fail(flight, error, "terms")
    assert flight.wait(None) == Outcome("failed", error, "terms")
    for own in (KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit(), SystemExit()):
        flight, _ = flights.join("k")
        flights.fail(flight, own, "terms")
        assert flight.wait(None) is LOST


def test_what_happened_first_stays() -> None:
    flights = Flights()
    flight, _ = flights.join("k")
    flights.land(flight, "first")
    flights.fail(flight, ValueError(), None)
    assert flight.wait(None) == Outcome("landed", "first")


def test_a_flight_that_is_over_takes_no_newer_one_along() -> None:
    flights = Flights()
    old, _ = flights.join("k")
    flights.leave(old)
    new, leads = flights.join("k")
    assert leads
    flights.land(old, "late")
    assert flights.join("k") == (new, False)


def test_a_follower_waits_no_longer_than_it_may() -> None:
    flight, _ = Flights().join("k")
    started = time.monotonic()
    assert flight.wait(started + 0.02) is LATE
    assert flight.wait(started - 1) is LATE
    assert asyncio.run(flight.await_(time.monotonic() + 0.02)) is LATE
    assert 0.04 <= time.monotonic() - started < 1


async def test_a_thread_that_runs_a_loop_does_not_wait() -> None:
    flight, _ = Flights().join("k")
    assert flight.wait(None) is ALONE


async def test_a_cancelled_follower_takes_nobody_along() -> None:
    flights = Flights()
    flight, _ = flights.join("k")
    first, second = (asyncio.create_task(flight.await_(None)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    flights.land(flight, "answer")
    assert await within(1, second) == Outcome("landed", "answer")


async def test_a_follower_whose_loop_is_closed_stops_no_other() -> None:
    flights = Flights()
    flight, _ = flights.join("k")
    loop = asyncio.new_event_loop()

    def begin() -> None:
        task = loop.create_task(flight.await_(None))
        loop.run_until_complete(asyncio.sleep(0))
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()

    await asyncio.to_thread(begin)
    waiting = asyncio.create_task(flight.await_(None))
    await asyncio.sleep(0)
    flights.land(flight, "answer")
    assert (await within(1, waiting)).value == "answer"


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_flight_whose_loop_nobody_runs_is_lost(is_closed: bool) -> None:
    loop, flights = asyncio.new_event_loop(), Flights()

    async def lead() -> Any:
        return flights.join("k")[0]

    flight = loop.run_until_complete(lead())
    if is_closed:
        loop.close()
    try:
        [outcome] = crowd([lambda: flight.wait(None)], 3)
        assert outcome is LOST
        assert asyncio.run(flight.await_(None)) is LOST
    finally:
        loop.close()


def test_a_garbage_collection_amid_a_join_may_end_a_flight() -> None:
    """A stream that the cycle collector frees ends its flight, in whichever thread and line the collector runs."""
    flights = Flights()
    old, _ = flights.join("old")

    class Ends:
        def __del__(self) -> None:
            flights.fail(old, asyncio.CancelledError(), None)

    def collect() -> None:
        cycle: list[Any] = [Ends()]
        cycle.append(cycle)
        del cycle
        with flights._lock, old._lock:  # where `join` and `set` allocate
            gc.collect()

    crowd([collect], 3)
    assert len(flights) == 0


# ── leases ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = DiskStore(tmp_path, budget=5)
    yield store
    store.close()


def test_a_held_lease_outlives_its_time_and_a_dropped_one_does_not(store: Store) -> None:
    keeper = LeaseKeeper()
    token = store.lease("k", 0.15)
    assert token
    keeper.hold(store, "k", token, 0.15)
    end = time.monotonic() + 0.4
    while time.monotonic() < end:
        assert store.lease("k", 0.15) is None
        time.sleep(0.02)
    keeper.drop(token)
    until(lambda: store.lease("k", 0.15), 2)


def test_a_lease_is_not_renewed_while_its_condition_does_not_hold(store: Store) -> None:
    keeper, is_wanted = LeaseKeeper(), threading.Event()
    is_wanted.set()
    token = store.lease("k", 0.15)
    assert token
    keeper.hold(store, "k", token, 0.15)
    keeper.only_while(token, is_wanted.is_set)
    time.sleep(0.05)
    assert store.lease("k", 0.15) is None
    is_wanted.clear()
    until(lambda: store.lease("k", 10), 2)
    is_wanted.set()
    until(lambda: not keeper._held, 2)  # it is somebody else's now
    assert not keeper._conditions


def test_a_failing_store_does_not_end_the_keeper(store: Store) -> None:
    class Fails(DiskStore):
        def renew(self, key: str, token: str, ttl: float) -> bool:
            raise OSError("gone")

    keeper = LeaseKeeper()
    keeper.hold(Fails(store.directory), "a", "token", 0.03)  # type: ignore[attr-defined]
    token = store.lease("b", 0.15)
    assert token
    keeper.hold(store, "b", token, 0.15)
    time.sleep(0.05)
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        assert store.lease("b", 0.15) is None
        time.sleep(0.02)


async def test_calls_cancelled_at_any_moment_leave_no_lease(tmp_path: Path) -> None:
    from rejoinder.caching.leases import keeper

    cache, chance = Cache.disk(cache_path_root=tmp_path, lease_ttl=600, budget=5), random.Random(7)
    echo = Echo(["x"], latency=0.002)
    tasks = []
    for number in range(150):
        messages = [{"role": "user", "content": f"{number}"}]
        task = asyncio.create_task(ataken(client=echo, cache=cache, messages=messages))
        asyncio.get_running_loop().call_later(chance.random() * 0.02, task.cancel)
        tasks.append(task)
        if number % 10 == 9:
            await asyncio.gather(*tasks, return_exceptions=True)
    assert len(cache.flights) == 0
    await auntil(lambda: not keeper._held)
    await auntil(lambda: not leased(tmp_path))


def leased(folder: Path) -> int:
    import sqlite3

    connection = sqlite3.connect(folder / "cache.sqlite3")
    try:
        count: int = connection.execute("SELECT count(*) FROM leases").fetchone()[0]
        return count
    finally:
        connection.close()


# ── the breaker ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_open_breaker_lets_one_try_after_its_pause() -> None:
    clock = Clock()
    breaker = Breaker(first=1, clock=clock)
    assert breaker.allows()
    assert breaker.fail()
    assert not breaker.allows()
    clock.now = 1.01
    assert [breaker.allows() for _ in range(3)] == [True, False, False]
    breaker.succeed()
    assert breaker.allows()


def test_its_pause_doubles_with_each_failed_try_up_to_the_longest() -> None:
    clock = Clock()
    breaker = Breaker(first=1, longest=5, clock=clock)
    breaker.fail()
    pauses = []
    for _ in range(5):
        began = clock.now
        while not breaker.allows():
            clock.now += 0.25
        pauses.append(clock.now - began)
        assert not breaker.fail(), "only the first failure opens it"
    assert pauses == [1, 2, 4, 5, 5]


def test_a_burst_of_failures_counts_once() -> None:
    clock = Clock()
    breaker = Breaker(first=1, clock=clock)
    assert [breaker.fail() for _ in range(100)].count(True) == 1
    clock.now = 1.01
    assert breaker.allows()


def test_after_a_recovery_the_pause_is_short_again() -> None:
    clock = Clock()
    breaker = Breaker(first=1, clock=clock)
    for _ in range(6):
        breaker.fail()
        clock.now += 100
        assert breaker.allows()
    breaker.succeed()
    assert breaker.fail()
    clock.now += 1.01
    assert breaker.allows()


# ── flows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def half(number: int) -> int:
    if number % 2:
        raise ValueError(number)
    return number // 2


async def ahalf(number: int) -> int:
    await asyncio.sleep(0)
    return half(number)


def halved(number: int, done: list[str]) -> Flow[str]:
    try:
        while True:
            number = yield Io(half, ahalf, (number,))
    except ValueError as error:
        return f"odd: {error}"
    finally:
        done.append("finally")


@pytest.mark.parametrize("drive", [run, lambda flow: asyncio.run(arun(flow))], ids=["sync", "async"])
def test_errors_of_io_are_raised_where_it_was_asked_for(drive: Any) -> None:
    done: list[str] = []
    assert drive(halved(12, done)) == "odd: 3"
    assert done == ["finally"]


async def test_a_cancelled_flow_is_cancelled_where_it_waits() -> None:
    done: list[str] = []

    async def hangs(number: int) -> None:
        await asyncio.sleep(60)

    def flow() -> Flow[None]:
        try:
            yield Io(half, hangs, (1,))
        except asyncio.CancelledError:
            yield Io(half, ahalf, (2,))  # what it does on its way out is still done
            done.append("out")
            raise

    task = asyncio.create_task(arun(flow()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["out"]
