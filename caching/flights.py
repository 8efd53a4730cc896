"""Single-flight inside a process: of all callers that ask the same at once, one asks the vendor.

The first caller of a key leads a flight, the others follow it. Callers may be threads and tasks of any event loops, in
any mixture. How a flight ends, and what its followers then do:

    landed    with an answer             they take it
    live      with a stream under way    they read along, from its first chunk
    failed    with the vendor's error    on equal terms (same key, timeout, retries) they get the same error;
                                         on other terms one of them leads the next flight
    lost      cancelled, abandoned       one of them leads the next flight: nobody else's cancellation is theirs

A follower never waits on a thread that runs an event loop, because the leader may be a task of that very loop:

    loop's thread: task A leads, awaits the vendor
    loop's thread: a callback calls completion(), finds A's flight, waits …   A can never go on

Nor does it wait for a task whose loop nobody runs any more: that flight is lost.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Outcome(NamedTuple):
    """How a flight ended for a follower."""

    kind: str
    """"landed", "live", "failed", "lost", "late" (the follower's own time is up) or "alone" (it must not wait)."""
    value: Any = None
    terms: Any = None


LOOK_EVERY = 0.5
"""Seconds after which who waits looks whether there is still something to wait for."""

LOST = Outcome("lost")
LATE = Outcome("late")
ALONE = Outcome("alone")


class Signal:
    """Something that happens once, and that threads and tasks can wait for."""

    __slots__ = ("_lock", "_waiters", "outcome")

    def __init__(self) -> None:
        self.outcome: Outcome | None = None
        self._lock = threading.RLock()  # a garbage collection inside it may end a stream, and so a flight
        self._waiters: list[Callable[[], None]] = []

    def set(self, outcome: Outcome) -> bool:
        """Tell everybody. False if it had happened before."""
        with self._lock:
            if self.outcome is not None:
                return False
            self.outcome = outcome
            waiters, self._waiters = self._waiters, []
        for wake in waiters:
            wake()
        return True

    def _add(self, wake: Callable[[], None]) -> None:
        with self._lock:
            if self.outcome is None:
                self._waiters.append(wake)
                return
        wake()

    def is_hopeless(self) -> bool:
        """Whether it can never happen."""
        return False

    def _slice(self, deadline: float | None) -> float:
        """Seconds to wait before looking again; 0: none are left, or there is nothing to wait for."""
        if self.is_hopeless():
            self.set(LOST)
            return 0.0
        return LOOK_EVERY if deadline is None else max(0.0, min(LOOK_EVERY, deadline - time.monotonic()))

    def wait(self, deadline: float | None) -> Outcome:
        """Block this thread until it happens, or until `deadline` (time.monotonic)."""
        if self.outcome is None:
            if in_event_loop():
                return ALONE
            event = threading.Event()
            self._add(event.set)
            while (seconds := self._slice(deadline)) and not event.wait(seconds):
                continue
        return self.outcome or LATE

    async def await_(self, deadline: float | None) -> Outcome:
        """The same for a task. Cancelling it touches nobody else."""
        if self.outcome is None:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()
            self._add(lambda: _wake(loop, future))
            while (seconds := self._slice(deadline)) and not (await asyncio.wait({future}, timeout=seconds))[0]:
                continue
        return self.outcome or LATE


def _wake(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    def resolve() -> None:
        if not future.done():
            future.set_result(None)

    try:
        loop.call_soon_threadsafe(resolve)
    except RuntimeError:
        return  # the follower's loop is closed: nobody waits any more


def in_event_loop() -> bool:
    """Whether this thread is running an event loop right now."""
    return asyncio._get_running_loop() is not None


class Flight(Signal):
    """One call to a vendor that others may share. It is set as soon as there is something to share."""

    __slots__ = ("_loop", "key", "token")

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key
        self.token = ""
        """That of the lease that goes with it, if there is one."""
        self._loop: asyncio.AbstractEventLoop | None = asyncio._get_running_loop()

    def is_hopeless(self) -> bool:
        """Whether its leader is a task of an event loop that nobody runs."""
        return self._loop is not None and not self._loop.is_running()


class Flights:
    """The flights under way, by key."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, key: str) -> bool:
        """Whether somebody is at it, who can come to an end."""
        flight = self._flights.get(key)
        return flight is not None and not flight.is_hopeless()

    def join(self, key: str) -> tuple[Flight, bool]:
        """The flight of `key`, and whether the caller leads it."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None:
                return flight, False
            flight = self._flights[key] = Flight(key)
            return flight, True

    def goes_live(self, flight: Flight, stream: Any) -> None:
        """The leader has a stream: followers may read along. The flight stays, for those who come later."""
        flight.set(Outcome("live", stream))

    def land(self, flight: Flight, entry: Any) -> None:
        """The leader has an answer."""
        self.leave(flight)
        flight.set(Outcome("landed", entry))

    def fail(self, flight: Flight, error: BaseException, terms: Any) -> None:
        """The leader has an error. One that is only the leader's own (a cancellation, say) leaves the flight lost."""
        self.leave(flight)
        flight.set(Outcome("failed", error, terms) if isinstance(error, Exception) else LOST)

    def leave(self, flight: Flight) -> None:
        """The flight is over: the next caller of its key leads a new one."""
        with self._lock:
            if self._flights.get(flight.key) is flight:
                del self._flights[flight.key]

    def forget(self) -> None:
        """After a fork: the leaders are in the parent."""
        self._flights, self._lock = {}, threading.RLock()
