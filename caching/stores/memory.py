"""In this process's memory, bounded by entries and by bytes."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

from ...core.locks import new_lock
from .base import Record, Store, TooLarge
from .eviction import ORDERS, check_eviction
from .tags import AwaitedTags, TagIndex


class MemoryStore(Store):
    """A dict with a bound.

    `max_entries` and `max_bytes` (of values) bound it; None lifts a bound. `eviction` says what goes first: "lru" what
    was used longest ago, "lfu" what was used least often (uses fade, see `eviction.HALF_LIFE`), "fifo" what was stored
    first, "ttl" what ends soonest. What is stored again begins anew. A value larger than `max_bytes` raises `TooLarge`.
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
        eviction: str = "lru",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.max_entries, self.max_bytes, self.clock = max_entries, max_bytes, clock
        self.eviction = check_eviction(eviction)
        self._items: OrderedDict[str, tuple[bytes, float | None, float]] = OrderedDict()
        self._bytes = 0
        self._order = ORDERS[eviction](self._items, clock)
        self._touch = self._order.touch
        self._tags, self._awaited = TagIndex(), AwaitedTags()
        self._lock = new_lock()

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
            self._touch(key)
        except KeyError:
            pass
        return item[0]

    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        now, tags = self.clock(), self._awaited.take(key)
        expires_at = None if ttl is None else now + ttl
        with self._lock:
            tags |= self._tags.of(key)
            self._drop(key)
            if self.max_bytes is not None and len(value) > self.max_bytes:
                raise TooLarge(f"{len(value):,} bytes are more than the store's max_bytes={self.max_bytes:,}.")
            # Before the new one is there, which otherwise might always be the first to go.
            while self._items and not self._has_room(len(value)):
                self._drop(self._order.first())
            self._items[key] = (value, expires_at, now)
            self._bytes += len(value)
            self._order.add(key, expires_at)
            self._tags.add(key, tags)

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

    def tag(self, key: str, tags: Sequence[str], ttl: float | None = None) -> None:
        self._awaited.note(key, tags)

    async def atag(self, key: str, tags: Sequence[str], ttl: float | None = None) -> None:
        self.tag(key, tags, ttl)  # nothing that waits

    def tagged(self, prefix: str, tag: str) -> Iterator[str]:
        with self._lock:
            return iter(self._tags.keys(prefix, tag))

    def tags_of(self, key: str) -> Sequence[str]:
        return tuple(self._tags.of(key))

    def clear_tag(self, prefix: str, tag: str) -> int:
        with self._lock:
            return sum([self._drop(key) for key in self._tags.keys(prefix, tag)])

    def _forget(self, key: str, item: tuple[bytes, float | None, float]) -> None:
        with self._lock:
            if self._items.get(key) is item:  # not what another thread has stored since
                self._drop(key)

    def _has_room(self, size: int) -> bool:
        """Whether one more entry of so many bytes is within the bounds."""
        too_many = self.max_entries is not None and len(self._items) >= self.max_entries
        too_large = self.max_bytes is not None and self._bytes + size > self.max_bytes
        return not (too_many or too_large)

    def _drop(self, key: str) -> bool:
        item = self._items.pop(key, None)
        if item is None:
            return False
        self._bytes -= len(item[0])
        self._order.remove(key)
        self._tags.remove(key)
        return True
