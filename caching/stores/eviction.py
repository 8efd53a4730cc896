"""What goes first where there is no room: the words for it, and the orders that memory keeps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from typing import Any

from ...core.errors import ConfigurationError, suggestion

EVICTIONS = ("lru", "lfu", "fifo", "ttl")
"""Least recently used; least often used; first in, first out; what ends soonest."""

HALF_LIFE = 86_400.0
"""Seconds after which a use counts half for "lfu", so that what everybody asked for last month does not stay for ever.

A favourite of a thousand uses is worth as much as a newcomer after ten days without one.
"""

SPARE = 64


def check_eviction(word: str) -> str:
    """`word`, if it is one of `EVICTIONS`. Raises `ConfigurationError`."""
    if word not in EVICTIONS:
        known = ", ".join(EVICTIONS)
        raise ConfigurationError(f"eviction={word!r}: there are {known}.{suggestion(str(word).lower(), EVICTIONS)}")
    return word


# ── how often, with uses that fade ────────────────────────────────────────────────────────────────────────────────────
# At the time t, uses at the times t_i are worth the sum of 2^((t_i - t) / HALF_LIFE). A factor of 2^(-t / HALF_LIFE) is
# in each such sum, so that entries compare without it at any time: nothing has to be counted down. What remains is too
# large a number, and its logarithm is not. (Cormode, Shkapenyuk, Srivastava, Xu: Forward decay, 2009.)
#
# Times are whole hours, and digits end somewhere, so that equally many uses within an hour weigh the same. Of those,
# the entry goes that was used longest ago.

STEP = 3600.0
DIGITS = 9


def weight_of(used_at: float, uses: int = 1) -> float:
    """What `uses` at the time `used_at` weigh."""
    return round(used_at // STEP * STEP / HALF_LIFE + math.log2(uses), DIGITS)


def added(weight: float, other: float) -> float:
    """What both weigh together."""
    larger, smaller = (weight, other) if weight > other else (other, weight)
    return round(larger + math.log2(1.0 + 2.0 ** (smaller - larger)), DIGITS)


# ── orders in memory ──────────────────────────────────────────────────────────────────────────────────────────────────


class Order(ABC):
    """In which order keys have to go. All but `touch` are called by one thread at a time."""

    touch: Callable[[str], object]
    """`key` is used. May raise KeyError if it is gone meanwhile."""

    def add(self, key: str, expires_at: float | None) -> None:  # noqa: B027 - some orders need no note
        """`key` is stored, and was not there."""

    def remove(self, key: str) -> None:  # noqa: B027
        """`key` is gone."""

    @abstractmethod
    def first(self) -> str:
        """The key that has to go, of those which are there; there is one at least."""


class _Listed(Order):
    """The order of the dict itself."""

    def __init__(self, items: OrderedDict[str, Any]) -> None:
        self.items = items
        self.touch = _ignore

    def first(self) -> str:
        return next(iter(self.items))


class _Used(_Listed):
    """The same, where what is used goes to the end."""

    def __init__(self, items: OrderedDict[str, Any]) -> None:
        super().__init__(items)
        self.touch = items.move_to_end  # nothing around it: it is part of every hit


class _Ranked(Order):
    """The lowest rank goes first. While an entry is there, its rank stays or rises.

    The heap has the rank that an entry had once. Where the lowest of these is still true, no other can be lower; where
    it is not, it is put back with what it is now, which costs as much as there were uses, and no more.
    """

    def __init__(self) -> None:
        self.ranks: dict[str, list[float]] = {}  # a value, and of equal ones the number of the last use
        self.heap: list[tuple[float, float, str]] = []
        self.numbers = count()
        self.touch = _ignore

    @abstractmethod
    def rank(self, expires_at: float | None) -> float:
        """Of an entry that is stored now."""

    def add(self, key: str, expires_at: float | None) -> None:
        value, number = self.ranks[key] = [self.rank(expires_at), next(self.numbers)]
        heappush(self.heap, (value, number, key))
        if len(self.heap) > 2 * len(self.ranks) + SPARE:  # mostly of entries that are gone
            self.heap = [(value, number, key) for key, (value, number) in self.ranks.items()]
            heapify(self.heap)

    def remove(self, key: str) -> None:
        self.ranks.pop(key, None)

    def first(self) -> str:
        while True:
            value, number, key = self.heap[0]
            rank = self.ranks.get(key)
            if rank is None:
                heappop(self.heap)
            elif rank == [value, number]:
                return key
            else:
                heapreplace(self.heap, (rank[0], rank[1], key))


class _Ending(_Ranked):
    def rank(self, expires_at: float | None) -> float:
        return math.inf if expires_at is None else expires_at


class _Weighed(_Ranked):
    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self.clock = clock
        self.touch = self._weigh

    def rank(self, expires_at: float | None) -> float:
        return weight_of(self.clock())

    def _weigh(self, key: str) -> None:
        # No lock: of two uses at once one may be lost. Changed in place, so that a key which another thread removes
        # meanwhile does not come back.
        rank = self.ranks[key]
        rank[0], rank[1] = added(rank[0], weight_of(self.clock())), next(self.numbers)


def _ignore(key: str) -> None:
    pass


ORDERS: dict[str, Callable[[OrderedDict[str, Any], Callable[[], float]], Order]] = {
    "lru": lambda items, clock: _Used(items),
    "lfu": lambda items, clock: _Weighed(clock),
    "fifo": lambda items, clock: _Listed(items),
    "ttl": lambda items, clock: _Ending(),
}
