"""A circuit breaker: a store that fails is taken out of the path for a while."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..core.locks import new_lock


class Breaker:
    """Closed: all may try. Open: nobody does, until the pause is over; then one caller tries, and others still pass by.

    The pause doubles with each failed try, from `first` to `longest` seconds.
    """

    def __init__(
        self, *, first: float = 1.0, longest: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.first, self.longest, self.clock = first, longest, clock
        self.is_open = False
        self._pause = first
        self._until = 0.0
        self._is_trying = False
        self._lock = new_lock()

    def allows(self) -> bool:
        """Whether the caller may try now. Whoever is told yes while open is the one that tries."""
        if not self.is_open:
            return True
        with self._lock:
            if self.clock() < self._until:
                return False
            self._until = self.clock() + self._pause
            self._is_trying = True
            return True

    def succeed(self) -> None:
        if self.is_open:
            with self._lock:
                self.is_open, self._pause, self._is_trying = False, self.first, False

    def fail(self) -> bool:
        """Count a failure. True if it is the one that opens the breaker."""
        with self._lock:
            opens = not self.is_open
            if not opens and not self._is_trying:
                return False  # one of the calls that were under way when it opened; they say nothing new
            if not opens:
                self._pause = min(self._pause * 2, self.longest)
            self.is_open, self._is_trying = True, False
            self._until = self.clock() + self._pause
            return opens
