"""The tags of entries, for stores that keep them with the entries: none is there longer than what has it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from ...core.locks import new_lock

PATIENCE = 60.0
"""Seconds that a tag waits for the entry it was noted for. Between `tag` and `set` lies another store's budget."""

NONE: frozenset[str] = frozenset()


class AwaitedTags:
    """Tags of what is about to be set: `tag` notes them, and the `set` that follows takes them.

    Not put on what is there under the key, because that may be evicted, with its tags, before it is replaced. Of two
    that store the same, each takes the tags of both:

        thread 1: tag        set                what is there has the tags
        thread 2:      tag            set       and this must too, though the first may be gone again
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._noted: dict[str, tuple[float, frozenset[str], int]] = {}  # the oldest first; for so many sets
        self._lock = new_lock()

    def note(self, key: str, tags: Iterable[str]) -> None:
        now = self._clock()
        with self._lock:
            _, others, sets = self._noted.pop(key, (now, NONE, 0))  # of somebody else, who is about to set it as well
            self._noted[key] = now, others.union(tags), sets + 1
            while self._noted:
                oldest = next(iter(self._noted))
                if self._noted[oldest][0] > now - PATIENCE:
                    return
                del self._noted[oldest]

    def take(self, key: str) -> frozenset[str]:
        if not self._noted:
            return NONE
        with self._lock:
            noted_at, tags, sets = self._noted.get(key, (0.0, NONE, 0))
            if sets > 1:
                self._noted[key] = noted_at, tags, sets - 1
            else:
                self._noted.pop(key, None)
            return tags


class TagIndex:
    """Which keys have which tags, both ways. Not for several threads at once."""

    def __init__(self) -> None:
        self._tags: dict[str, frozenset[str]] = {}
        self._keys: dict[tuple[str, str], set[str]] = {}

    def add(self, key: str, tags: frozenset[str]) -> None:
        if not tags:
            return
        self._tags[key] = self.of(key) | tags
        for tag in tags:
            self._keys.setdefault((_prefix(key), tag), set()).add(key)

    def remove(self, key: str) -> None:
        for tag in self._tags.pop(key, NONE):
            place = _prefix(key), tag
            keys = self._keys[place]
            keys.discard(key)
            if not keys:
                del self._keys[place]

    def of(self, key: str) -> frozenset[str]:
        return self._tags.get(key, NONE)

    def keys(self, prefix: str, tag: str) -> list[str]:
        """The keys of the namespace `prefix` that have `tag`."""
        return list(self._keys.get((prefix, tag), ()))

    def __len__(self) -> int:
        """How many keys have tags, and tags have keys."""
        return len(self._tags) + len(self._keys)


def _prefix(key: str) -> str:
    return key[: key.find(":") + 1]
