"""In this process's memory: least recently used goes first, bounded by entries and by bytes."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

from .base import Record, Store


class MemoryStore(Store):
    """A dict with a bound.

    `max_entries` and `max_bytes` (of values) bound it; None lifts a bound. What is larger than `max_bytes` is not kept.
    """

    name: ClassVar[str] = "local"
    instant: ClassVar[bool] = True
    checked: ClassVar[bool] = True
    in_process: ClassVar[bool] = True

    def __init__(
        self,
        *,
        max_entries: int | None = 10_000,
        max_bytes: int | None = 256 * 2**20,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.max_entries, self.max_bytes, self.clock = max_entries, max_bytes, clock
        self._items: OrderedDict[str, tuple[bytes, float | None, float]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        # No lock: each step is one atomic dict operation, and a key that another thread drops between two of them is
        # only a miss, or one missing touch in the order of use.
        item = self._items.get(key)
        if item is None:
            return None
        if item[1] is not None and item[1] <= self.clock():
            self._forget(key, item)
            return None
        try:  # noqa: SIM105 - `suppress` would double the time of a hit
            self._items.move_to_end(key)
        except KeyError:
            pass
        return item[0]

    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        now = self.clock()
        with self._lock:
            self._drop(key)
            if self.max_bytes is not None and len(value) > self.max_bytes:
                return
            self._items[key] = (value, None if ttl is None else now + ttl, now)
            self._bytes += len(value)
            while self._is_over():
                self._drop(next(iter(self._items)))

    def delete(self, key: str) -> bool:
        with self._lock:
            return self._drop(key)

    def scan(self, prefix: str = "") -> Iterator[Record]:
        return self._listed(prefix, live=True)

    def expired(self, prefix: str = "") -> Iterator[Record]:
        return self._listed(prefix, live=False)

    def _listed(self, prefix: str, *, live: bool) -> Iterator[Record]:
        now = self.clock()
        with self._lock:
            items = list(self._items.items())
        for key, (value, expires_at, stored_at) in items:
            if key.startswith(prefix) and (expires_at is None or expires_at > now) is live:
                yield Record(key, len(value), stored_at, expires_at)

    def peek(self, keys: Sequence[str]) -> list[bytes | None]:
        found = [self._items.get(key) for key in keys]
        return [None if item is None else item[0] for item in found]

    def clear(self, prefix: str = "") -> int:
        with self._lock:
            return sum([self._drop(key) for key in list(self._items) if key.startswith(prefix)])

    def prune(self) -> int:
        now = self.clock()
        with self._lock:
            dead = [
                key for key, (_, expires_at, _) in self._items.items() if expires_at is not None and expires_at <= now
            ]
            return sum([self._drop(key) for key in dead])

    def _forget(self, key: str, item: tuple[bytes, float | None, float]) -> None:
        with self._lock:
            if self._items.get(key) is item:  # not what another thread has stored since
                self._drop(key)

    def _is_over(self) -> bool:
        too_many = self.max_entries is not None and len(self._items) > self.max_entries
        too_large = self.max_bytes is not None and self._bytes > self.max_bytes
        return too_many or too_large

    def _drop(self, key: str) -> bool:
        item = self._items.pop(key, None)
        if item is None:
            return False
        self._bytes -= len(item[0])
        return True
