"""Keeps leases alive while the calls they stand for are under way: one thread a process, started when first needed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from .stores.base import Store


class Held(NamedTuple):
    store: Store
    key: str
    token: str
    ttl: float


class LeaseKeeper:
    """Renews every held lease at a third of its TTL. A process that dies renews nothing, and its leases run out."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[Held, float]] = {}
        self._conditions: dict[str, Callable[[], bool]] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def hold(self, store: Store, key: str, token: str, ttl: float) -> None:
        """Renew this lease until `drop`."""
        with self._changed:
            self._held[token] = (Held(store, key, token, ttl), time.monotonic() + ttl / 3)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="rejoinder-leases", daemon=True)
                self._thread.start()
            else:
                self._changed.notify()

    def only_while(self, token: str, condition: Callable[[], bool]) -> None:
        """Renew only while `condition` holds: who waits for a stream that nobody reads on would wait for ever."""
        with self._changed:
            if token in self._held:
                self._conditions[token] = condition

    def drop(self, token: str) -> None:
        """Stop renewing."""
        with self._changed:
            self._held.pop(token, None)
            self._conditions.pop(token, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                due = [held for held, moment in self._held.values() if moment <= now]
                if not due:
                    soonest = min((moment for _, moment in self._held.values()), default=now + 60.0)
                    self._changed.wait(soonest - now)
                    continue
                for held in due:
                    self._held[held.token] = (held, now + held.ttl / 3)
            for held in due:
                self._renew(held)

    def _renew(self, held: Held) -> None:
        condition = self._conditions.get(held.token)
        if condition is not None and not condition():
            return
        try:
            kept = held.store.renew(held.key, held.token, held.ttl)
        except Exception:
            return  # the store is in trouble; its breaker and the lease's own end will see to it
        if not kept:
            self.drop(held.token)


keeper = LeaseKeeper()


def _forget() -> None:
    global keeper
    keeper = LeaseKeeper()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
