"""Which answers are being fetched anew in the background, so that no two do the same, and never too many at once."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from .flights import Flight

AT_ONCE = 32
"""Renewals of a cache under way at the same time. What is too many is served as it is; a later hit tries again."""
PAUSE = 5.0
"""Seconds, at most, until an answer is fetched anew again: a vendor that fails is not asked by every hit."""
MOST_PAUSES = 1000


class Renewals:
    """Those under way, and those that have just ended, by key."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """After a fork: they are done in the parent."""
        self._under_way: dict[str, Flight] = {}
        self._ended: dict[str, float] = {}
        self._lock = threading.RLock()

    def begin(self, keys: Iterable[str], window: float, now: float) -> list[str]:
        """Those of `keys` that the caller is to fetch anew, and to `end`: nobody is at them, nor was just now.

        `window` is for how long they may be fetched, in seconds; a tenth of it is between two attempts.
        """
        with self._lock:
            pause = min(PAUSE, window / 10)
            free = [key for key in keys if not self._is_under_way(key) and not 0 <= now - self._end(key) < pause]
            if not free or not self._has_room():
                return []
            self._under_way.update(dict.fromkeys(free, Flight(free[0])))
            return free

    def end(self, keys: Iterable[str], now: float) -> None:
        """These have come to an end, well or not."""
        with self._lock:
            if len(self._ended) > MOST_PAUSES:
                self._ended.clear()
            for key in keys:
                self._under_way.pop(key, None)
                self._ended[key] = now

    def _is_under_way(self, key: str) -> bool:
        flight = self._under_way.get(key)
        return flight is not None and not flight.is_hopeless()

    def _end(self, key: str) -> float:
        return self._ended.get(key, float("-inf"))

    def _has_room(self) -> bool:
        # What a loop was to do that nobody runs any more will never end.
        self._under_way = {key: flight for key, flight in self._under_way.items() if not flight.is_hopeless()}
        return len({id(flight) for flight in self._under_way.values()}) < AT_ONCE
