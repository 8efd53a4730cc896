"""What an experiment found, and how it is shown."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # rejoinder may not be loaded yet: see cases/clocks.py
    from .places import Place

HEADINGS = ("store", "what was done", "what was found", "held")
HELD, BROKEN, FAILED, SKIPPED = "held", "BROKEN", "FAILED", "skipped"


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is done."""

    is_full: bool

    def of(self, full: int, small: int) -> int:
        return full if self.is_full else small


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    experiment: str
    store: str
    done: str
    found: str
    promise: str
    verdict: str
    """ "held" or "BROKEN"; "FAILED", if the experiment itself broke off; "skipped", if it cannot be done here."""

    @property
    def is_bad(self) -> bool:
        return self.verdict in (BROKEN, FAILED)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def row(experiment: str, store: str, done: str, found: str, promise: str, *, held: bool) -> Row:
    return Row(experiment, store, done, found, promise, HELD if held else BROKEN)


Opening = Callable[[], AbstractContextManager["Place"]]


def over(experiment: str, openings: Iterable[Opening], check: Callable[[Place], Iterator[Row]]) -> Iterator[Row]:
    """`check` on each place; one that cannot be had, or that breaks off, costs its own rows only."""
    for opening in openings:
        name = opening.__name__.replace("_", " ")
        try:
            with opening() as place:
                yield from check(place)
        except pytest.skip.Exception as skipped:
            yield Row(experiment, name, "nothing", str(skipped), "-", SKIPPED)
        except Exception as error:
            traceback.print_exc()
            yield Row(experiment, name, "it broke off", f"{type(error).__name__}: {error}", "-", FAILED)


def told(found: str, faults: Sequence[str], most: int = 3) -> str:
    """What was found, and the first of the faults."""
    more = f" and {len(faults) - most:,} more" if len(faults) > most else ""
    return f"{found}: {'; '.join(faults[:most])}{more}" if faults else found


def as_text(rows: Sequence[Row]) -> str:
    """A block for each experiment: long sentences make no table that fits a screen."""
    lines, last = [], ""
    for each in rows:
        if each.experiment != last:
            lines += ["", each.experiment]
            last = each.experiment
        lines.append(f"  {each.verdict:8}{each.store:12}{each.done}")
        lines += [f"{'':22}→ {each.found}", f"{'':22}promise: {each.promise}"]
    return "\n".join(lines[1:])


def as_markdown(rows: Sequence[Row]) -> str:
    """A table for each experiment, for a page of the documentation."""
    return "\n\n".join(_table(name, list(group)) for name, group in groupby(rows, key=lambda row: row.experiment))


def _table(name: str, rows: list[Row]) -> str:
    promises = list(dict.fromkeys(row.promise for row in rows if row.promise != "-"))
    cells = [(row.store, row.done, row.found, row.verdict) for row in rows]
    lines = ["| " + " | ".join(line) + " |" for line in [HEADINGS, ("---",) * len(HEADINGS), *cells]]
    return "\n".join([f"### {name[0].upper()}{name[1:]}", "", f"Promised: {'; '.join(promises)}.", "", *lines])


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def say(text: str) -> None:
    """For whoever waits."""
    print(text, end="", file=sys.stderr, flush=True)
