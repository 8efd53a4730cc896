"""What was paid, what was saved, and what was paid twice: by model, tags and run.

Pure accounting. Whoever adds says what a call came to in tokens and dollars; nothing here knows of vendors or prices.

A line of the ledger is a day, a model, tags, a run and a kind:

    paid        the vendor gave the answer
    duplicate   … though one was stored that could have served (counted under "paid" too)
    would_save  … in shadow mode, where the stored one would have served (counted under both)
    agreed      … and said the same (counted under all three)
    others      the answer was not paid for: "exact", "shared", "stale" and whatever else a hit may be
"""

from __future__ import annotations

import _thread
import atexit
import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..core.errors import ConfigurationError, WrongType, suggestion

log = logging.getLogger("rejoinder")

PAID, DUPLICATE, WOULD_SAVE, AGREED = "paid", "duplicate", "would_save", "agreed"
NOT_SAVED = frozenset({PAID, DUPLICATE, WOULD_SAVE, AGREED})
"""The kinds that are not answers out of the cache."""
DAY = 86_400
MOST_LINES = 10_000
"""Lines that are kept apart in memory; further ones lose their tags and run, not their counts."""
MOST_PENDING, AT_A_TIME = 10_000, 8
"""Counts that wait to be summed up; with more, each call sums up a few."""
OTHERS = "(others)"
"""The run of lines that were too many to be kept apart."""


class Amount(NamedTuple):
    """What some calls came to."""

    calls: int = 0
    prompt_tokens: int = 0
    """All that was read, with what came from the vendor's prompt cache."""
    completion_tokens: int = 0
    """All that was written, with the reasoning."""
    cache_read_tokens: int = 0
    """Of the prompt, read from the vendor's prompt cache."""
    cache_write_tokens: int = 0
    """Of the prompt, written to it."""
    reasoning_tokens: int = 0
    dollars: float = 0.0
    """Of the calls whose price is known."""
    unpriced: int = 0
    """Calls, and parts of calls, whose price is not known: they are in no sum of dollars."""

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def plus(self, other: Amount) -> Amount:
        return Amount._make(mine + theirs for mine, theirs in zip(self, other, strict=True))


NOTHING = Amount()


class Where(NamedTuple):
    """What a call is counted under."""

    model: str
    tags: tuple[str, ...] = ()
    run: str = ""


class Line(NamedTuple):
    """What an amount is kept under. `day` counts from 1970-01-01, in UTC."""

    day: int
    model: str
    tags: tuple[str, ...]
    run: str
    kind: str

    @property
    def date(self) -> str:
        return time.strftime("%Y-%m-%d", time.gmtime(self.day * DAY))


GROUPS: Mapping[str, Callable[[Line], Iterable[str]]] = {
    "model": lambda line: (line.model,),
    "tag": lambda line: line.tags or ("",),
    "run": lambda line: (line.run,),
    "day": lambda line: (line.date,),
}
"""What lines can be summed up by. A call with several tags counts under each of them."""


class Summary:
    """Sums of lines."""

    def __init__(self, kinds: Mapping[str, Amount]) -> None:
        self.kinds = dict(kinds)
        """The amount of each kind."""

    def _sum(self, kinds: Iterable[str]) -> Amount:
        total = NOTHING
        for kind in kinds:
            total = total.plus(self.kinds.get(kind, NOTHING))
        return total

    @property
    def paid(self) -> Amount:
        """What vendors were paid for."""
        return self._sum((PAID,))

    @property
    def saved(self) -> Amount:
        """What the answers out of the cache would have cost."""
        return self._sum(sorted(self.kinds.keys() - NOT_SAVED))

    @property
    def duplicate(self) -> Amount:
        """What was paid for answers although stored ones could have served."""
        return self._sum((DUPLICATE,))

    @property
    def would_save(self) -> Amount:
        """What a cache would have saved, as shadow mode has seen."""
        return self._sum((WOULD_SAVE,))

    @property
    def calls(self) -> int:
        return self.paid.calls + self.saved.calls

    @property
    def unpriced(self) -> int:
        """Calls that are in no sum of dollars."""
        return self.paid.unpriced + self.saved.unpriced

    @property
    def agreement(self) -> float | None:
        """How many of the answers that would have served say the same as the new ones, 0 to 1; None: there are none."""
        seen = self.would_save.calls
        return self.kinds.get(AGREED, NOTHING).calls / seen if seen else None

    @property
    def saved_share(self) -> float | None:
        """How much of what all answers cost was saved, 0 to 1: of the dollars; of the tokens where no price is known.

        None: they cost nothing that is known.
        """
        paid, saved = self.paid, self.saved
        if paid.dollars or saved.dollars:
            return saved.dollars / (paid.dollars + saved.dollars)
        return saved.tokens / (paid.tokens + saved.tokens) if paid.tokens or saved.tokens else None

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON values."""
        return {
            "calls": self.calls,
            "paid": self.paid._asdict(),
            "saved": self.saved._asdict(),
            "saved_by": {kind: self.kinds[kind]._asdict() for kind in sorted(self.kinds.keys() - NOT_SAVED)},
            "duplicate": self.duplicate._asdict(),
            "would_save": self.would_save._asdict(),
            "agreement": self.agreement,
            "saved_share": self.saved_share,
            "unpriced": self.unpriced,
        }

    def __str__(self) -> str:
        parts = [f"paid {amount_text(self.paid)}", f"saved {amount_text(self.saved)}"]
        parts += [f"duplicate {amount_text(self.duplicate)}"] if self.duplicate.calls else []
        if self.agreement is not None:
            parts.append(f"would save {amount_text(self.would_save)}, {self.agreement:.0%} of them the same answer")
        return f"{self.calls:,} call{'' if self.calls == 1 else 's'}: " + "; ".join(parts)

    def __repr__(self) -> str:
        return f"<Summary of {self}>"


def dollars_text(dollars: float) -> str:
    """Money for people: cents, and more digits where it is less than a dollar.

    >>> [dollars_text(amount) for amount in (0, 12.345, 0.0123456, 0.00000012)]
    ['$0.00', '$12.35', '$0.0123', '$0.00000012']
    """
    if dollars >= 1 or not dollars:
        return f"${dollars:,.2f}"
    if dollars >= 0.001:
        return f"${dollars:.4f}"
    return f"${dollars:.10f}".rstrip("0")


def amount_text(amount: Amount) -> str:
    """
    >>> amount_text(Amount(calls=3, prompt_tokens=1_000, completion_tokens=200, dollars=0.0123, unpriced=1))
    '3 (1,200 tokens, $0.0123 and 1 of unknown price)'
    """
    if not amount.calls and not amount.tokens:
        return "0"
    price = dollars_text(amount.dollars)
    if amount.unpriced:
        price = f"{price} and {amount.unpriced:,} of unknown price" if amount.dollars else "price unknown"
    return f"{amount.calls:,} ({amount.tokens:,} tokens, {price})"


def summed(lines: Iterable[tuple[Line, Amount]]) -> Summary:
    kinds: dict[str, Amount] = {}
    for line, amount in lines:
        kinds[line.kind] = kinds.get(line.kind, NOTHING).plus(amount)
    return Summary(kinds)


class Ledger:
    """Counts of calls.

    >>> import rejoinder
    >>> cache = rejoinder.Cache.memory(ledger=True)
    >>> for _ in range(3):
    ...     answer = rejoinder.completion("echo/m", [{"role": "user", "content": "Hi"}], cache=cache)
    >>> print(cache.ledger)
    3 calls: paid 1 (2 tokens, price unknown); saved 2 (4 tokens, price unknown)

    `rejoinder.ledger = Ledger()` counts all calls of the process, `Cache(ledger=…)` those that use that cache. With a
    `file` the counts are added to what that has, by a thread of its own every `flush_every` seconds and when the
    process ends; any number of processes may share one. `summary` and `by` tell what *this* ledger has counted,
    `Ledger.read(file)` what the file has. Nothing in here fails a call or makes it wait: what it came to is worked out
    in that thread, or when somebody asks.
    """

    def __init__(
        self, file: str | Path | None = None, *, flush_every: float = 1.0, clock: Callable[[], float] = time.time
    ) -> None:
        self.file = None if file is None else Path(file).expanduser()
        self.flush_every, self.clock = flush_every, clock
        self._lines: dict[Line, Amount] = {}
        self._unsaved: dict[Line, Amount] = {}
        self._has_failed = False
        self.forget_others()
        _living.add(self)

    def forget_others(self) -> None:
        """After a fork: what is not in the file yet is the parent's to write, and its locks are the parent's."""
        # Counts come in without a lock: a stream may end, and so count, in a garbage collection inside any of ours.
        self._pending: deque[tuple[Line, Amount | Callable[[], Amount]]] = deque()
        self._unsaved = {}
        self._summing, self._saving = threading.Lock(), threading.Lock()
        self._is_scheduled = self._is_registered = False

    def add(self, where: Where, kind: str, amount: Amount | Callable[[], Amount]) -> None:
        """Count a call, or part of one. Its amount may be a function, which is called soon and must not raise."""
        self._pending.append((Line(int(self.clock() // DAY), *where, kind), amount))
        if len(self._pending) > MOST_PENDING and self._summing.acquire(blocking=False):
            try:
                self._sum_up(AT_A_TIME)
            finally:
                self._summing.release()
        if self.file is not None and not self._is_scheduled:
            self._schedule()

    def _sum_up(self, most: int = sys.maxsize) -> None:
        for _ in range(min(most, len(self._pending))):
            line, given = self._pending.popleft()
            amount = given() if callable(given) else given
            _put(self._lines, line, amount)
            if self.file is not None:
                _put(self._unsaved, line, amount)

    def lines(self) -> dict[Line, Amount]:
        """All that was counted."""
        with self._summing:
            self._sum_up()
            return dict(self._lines)

    def summary(self) -> Summary:
        """All lines, summed up."""
        return summed(self.lines().items())

    def by(self, part: str) -> dict[str, Summary]:
        """Sums by "model", "tag", "run" or "day", sorted. "" is what has no tag or run."""
        if part not in GROUPS:
            raise ConfigurationError(f"by({part!r}): there are {', '.join(GROUPS)}.{suggestion(part, GROUPS)}")
        groups: dict[str, list[tuple[Line, Amount]]] = {}
        for item in self.lines().items():
            for name in GROUPS[part](item[0]):
                groups.setdefault(name, []).append(item)
        return {name: summed(groups[name]) for name in sorted(groups)}

    def clear(self) -> None:
        """Begin anew. What a file has stays there."""
        with self._summing:
            self._sum_up()
            self._lines = {}

    # ── the file ──────────────────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def read(cls, file: str | Path) -> Ledger:
        """A ledger with what a file has. Raises `ConfigurationError` if there is none."""
        from .ledger_file import read

        path = Path(file).expanduser()
        if not path.is_file():
            raise ConfigurationError(f"There is no ledger {path}.")
        ledger = cls()
        ledger._lines = read(path)
        return ledger

    def flush(self) -> bool:
        """Write to the file what it does not have yet. False if that failed: it is tried again with the next counts."""
        if self.file is None:
            return True
        from .ledger_file import write

        with self._saving:
            with self._summing:
                self._sum_up()
                unsaved, self._unsaved = self._unsaved, {}
            if not unsaved:
                return True
            try:
                write(self.file, unsaved)
            except Exception as error:
                with self._summing:
                    for line, amount in unsaved.items():
                        _put(self._unsaved, line, amount)
                self._failed(error)
                return False
        self._has_failed = False
        return True

    def _failed(self, error: Exception) -> None:
        if not self._has_failed:
            log.warning("The ledger %s cannot be written; calls go on, and it is tried again. %s", self.file, error)
        self._has_failed = True

    def _schedule(self) -> None:
        """Flush in a while, in a thread. One a second is cheap, and there is none where nothing is asked."""
        self._is_scheduled = True
        try:
            if not self._is_registered:
                self._is_registered = True
                self._register()
            # Not a `threading.Thread`: that takes a lock to start, and a stream that ends in a garbage collection may
            # count while this very thread has it.
            _thread.start_new_thread(self._flush_later, ())
        except RuntimeError as error:  # the interpreter is ending
            log.debug("The ledger %s is not written any more: %s", self.file, error)

    def _register(self) -> None:
        """Have it flushed when the process ends; one of multiprocessing's ends without what `atexit` has."""
        atexit.register(_flush, weakref.ref(self))
        if (multiprocessing := sys.modules.get("multiprocessing.util")) is not None:
            multiprocessing.Finalize(None, _flush, (weakref.ref(self),), exitpriority=0)

    def _flush_later(self) -> None:
        time.sleep(self.flush_every)
        self._is_scheduled = False  # before: what is counted from now on may be too late for this one
        self.flush()

    def __str__(self) -> str:
        return str(self.summary())

    def __repr__(self) -> str:
        return f"<Ledger{'' if self.file is None else f' {self.file}'}: {self}>"


def _put(lines: dict[Line, Amount], line: Line, amount: Amount) -> None:
    if line not in lines and len(lines) >= MOST_LINES:
        line = line._replace(tags=(), run=OTHERS)
    lines[line] = lines.get(line, NOTHING).plus(amount)


def _flush(ledger: weakref.ref[Ledger]) -> None:
    living = ledger()
    if living is not None:
        living.flush()


def checked_ledger(given: Any, where: str) -> Ledger | None:
    """The ledger that a setting asks for: one, True for a new one, a file's name, or None."""
    if given is None or given is False:
        return None
    if isinstance(given, Ledger):
        return given
    if given is True:
        return Ledger()
    if isinstance(given, (str, Path)) and str(given):
        return Ledger(given)
    raise WrongType(f"{where}={given!r} must be a rejoinder.Ledger, True, a file's name or None.")


_living: weakref.WeakSet[Ledger] = weakref.WeakSet()


def _after_fork() -> None:
    for ledger in list(_living):
        ledger.forget_others()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
