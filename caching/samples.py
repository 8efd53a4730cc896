"""Equal calls as independent samples: the first, the second, the third … each with an answer of its own."""

from __future__ import annotations

import contextlib
import contextvars
from collections import Counter
from collections.abc import Iterator

from ..core.locks import new_lock


class Occurrences:
    """How often each request has been made inside one `samples` block."""

    __slots__ = ("_counts", "_lock")

    def __init__(self, counts: Counter[str] | None = None) -> None:
        self._counts: Counter[str] = Counter(counts or ())
        self._lock = new_lock()

    def next(self, key: str) -> int:
        """Which occurrence of this request it is, from 1."""
        with self._lock:
            self._counts[key] += 1
            return self._counts[key]

    def copy(self) -> Occurrences:
        with self._lock:
            return Occurrences(self._counts)


current: contextvars.ContextVar[Occurrences | None] = contextvars.ContextVar("rejoinder_samples", default=None)


@contextlib.contextmanager
def samples() -> Iterator[None]:
    """Inside, equal calls are not the same call: the n-th is asked, stored and replayed as `cache={"sample": n}`.

    >>> import rejoinder
    >>> for _ in range(2):
    ...     with rejoinder.samples(), rejoinder.Cache.memory() as cache:
    ...         answers = [rejoinder.completion("echo/m", [{"role": "user", "content": "Hi"}]) for _ in range(3)]
    ...         print(cache.stats()["stored"])
    3
    3

    Each block counts from 1, so that running it again replays the same answers in the same order. A call that names
    its own sample is not counted.

    Calls are counted as they begin. One after the other, and in tasks that one loop starts in order (`asyncio.gather`),
    that is the order in which they are written. Threads begin as they please: the answers are the same n, but which
    thread gets which is not fixed. Tasks and the batch functions count with the block around them; a thread of your own
    does if it runs in a copy of the context (`contextvars.copy_context().run`, `asyncio.to_thread`).
    """
    token = current.set(Occurrences())
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # left in another context than it was entered in
            current.reset(token)


@contextlib.contextmanager
def uncounted() -> Iterator[None]:
    """What is asked inside does not count: for looking at what a call would do."""
    counting = current.get()
    token = current.set(None if counting is None else counting.copy())
    try:
        yield
    finally:
        current.reset(token)
