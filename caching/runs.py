"""Runs: named stretches of a program whose calls are counted together."""

from __future__ import annotations

import contextvars
import threading
import weakref
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING

from ..core import settings
from .ledger import Ledger, Summary

if TYPE_CHECKING:
    from .cache import Cache

ambient: contextvars.ContextVar[tuple[Run, ...]] = contextvars.ContextVar("rejoinder_runs", default=())
"""The runs around this point, the innermost last."""

under_way: list[tuple[tuple[Run, ...], weakref.WeakSet[threading.Thread]]] = []
"""The open runs of the process, each with those around it, and with the threads that ran when it began."""


class Run:
    """A ledger of its own for the calls inside a `with` block, and words that these calls are counted under.

    >>> import rejoinder
    >>> with rejoinder.run("evening", tags=["nightly"]) as run:
    ...     answer = rejoinder.completion("echo/m", [{"role": "user", "content": "Hi"}])
    >>> print(run)
    evening: 1 call: paid 1 (2 tokens, price unknown); saved 0

    Tasks started inside count too, and threads that were started while it lasted. Calls in a run inside a run count in
    both; other ledgers name the innermost, with the tags of all.
    """

    def __init__(self, name: str, tags: Iterable[str] = ()) -> None:
        self.name, self.tags = name, as_tags(tags)
        self.ledger = Ledger()
        self._depth = 0

    def summary(self) -> Summary:
        """What was counted so far."""
        return self.ledger.summary()

    def by(self, part: str) -> dict[str, Summary]:
        """The same by "model", "tag", "run" or "day"."""
        return self.ledger.by(part)

    def __enter__(self) -> Run:
        around = (*around_here(), self)
        self._depth += 1
        ambient.set(around)
        under_way.append((around, weakref.WeakSet(threading.enumerate())))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        ambient.set(tuple(run for run in ambient.get() if run is not self))
        for index in reversed(range(len(under_way))):
            if under_way[index][0][-1] is self:
                del under_way[index]
                break

    def __str__(self) -> str:
        return f"{self.name}: {self.ledger}"

    def __repr__(self) -> str:
        return f"<Run {self}>"


run = Run


def as_tags(given: Iterable[str] | str | None) -> tuple[str, ...]:
    """Tags in one form: sorted, each once."""
    if not given:
        return ()
    return (given,) if isinstance(given, str) else tuple(sorted({str(tag) for tag in given}))


def around_here() -> tuple[Run, ...]:
    """The runs around this call, the innermost last. Threads count as for caches (see `blocks.innermost`)."""
    around = tuple(run for run in ambient.get() if run._depth)  # a context may outlive the runs that it was copied in
    if around:
        return around
    me = threading.current_thread() if under_way else None
    for runs, before in reversed(under_way):
        if me not in before:
            return runs
    return ()


def is_counted(cache: Cache | None) -> bool:
    """Whether a call with this cache is counted by anybody."""
    return settings.ledger is not None or bool(under_way) or (cache is not None and cache.ledger is not None)


def ledgers_of(cache: Cache | None, runs: Iterable[Run]) -> tuple[Ledger, ...]:
    """All that count a call with this cache inside these runs, each once."""
    found = [settings.ledger, cache.ledger if cache is not None else None, *(run.ledger for run in runs)]
    return tuple({id(ledger): ledger for ledger in found if ledger is not None}.values())
