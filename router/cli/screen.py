"""What the commands print: tables, sizes, ages, progress, and a question before something is removed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO, TypeVar

from ...core.errors import ConfigurationError

T = TypeVar("T")

PATIENCE = 0.5
"""Seconds before progress is shown: what is quicker needs none."""
EVERY = 0.1
"""Seconds between two showings."""


def clean(text: str) -> str:
    """`text` without what moves a terminal's cursor or changes its colours: stored answers come from outside.

    >>> clean("red: " + chr(27) + "[31m")
    'red: \\\\x1b[31m'
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def size_text(size: int) -> str:
    """Bytes for people.

    >>> [size_text(n) for n in (5, 1023, 1024, 5_242_880)]
    ['5 B', '1023 B', '1.00 KB', '5.00 MB']
    """
    if size < 1024:
        return f"{size} B"
    amount, unit = size / 1024, "KB"
    for larger in ("MB", "GB", "TB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.2f} {unit}"


def time_text(seconds: float | None) -> str:
    """A length of time for people, to its largest unit; None is for ever.

    >>> [time_text(n) for n in (0.2, 90, 7200, 200_000, None)]
    ['0 s', '1 min', '2 h', '2 days', 'for ever']
    """
    if seconds is None:
        return "for ever"
    for unit, length in ((" days", 86_400), (" h", 3600), (" min", 60)):
        if seconds >= 2 * length or (seconds >= length and unit != " days"):
            return f"{int(seconds // length)}{unit}"
    return f"{int(max(0, seconds))} s"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """ "1 entry", "1,200 entries"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def entries_text(count: int) -> str:
    return counted(count, "entry", "entries")


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> str:
    """Rows under a head, each column as wide as it must be; those named in `right` end where the head ends."""
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(head, row, widths, strict=True)
        ]
        return "  ".join(padded).rstrip()

    return "\n".join([bold(title), "", line(head), "  ".join("-" * width for width in widths), *map(line, cells)])


def fields(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values, one pair a line."""
    shown = [(name, clean(value)) for name, value in pairs]
    width = max(len(name) for name, _ in shown)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in shown)


def bold(text: str) -> str:
    """In bold on a terminal; plain elsewhere, and where NO_COLOR asks for it (https://no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty()
    return text if plain else f"\x1b[1m{text}\x1b[0m"


def as_json(value: Any) -> str:
    import orjson

    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def watched(items: Iterable[T], doing: str, stream: TextIO | None = None) -> Iterator[T]:
    """The same items; if they take their time, and somebody is at the terminal, with a line that counts them."""
    stream = sys.stderr if stream is None else stream
    if not stream.isatty():
        yield from items
        return
    show_at, count, shown = time.monotonic() + PATIENCE, 0, False
    try:
        for count, item in enumerate(items, 1):
            if time.monotonic() >= show_at:
                print(f"\r{doing}: {entries_text(count)} \x1b[K", end="", file=stream, flush=True)
                show_at, shown = time.monotonic() + EVERY, True
            yield item
    finally:
        if shown:
            print("\r\x1b[K", end="", file=stream, flush=True)


def agreed(question: str, *, yes: bool) -> bool:
    """Whether the person at the terminal agrees. Raises `ConfigurationError` if there is none to ask."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigurationError("Nobody can be asked, as this is not a terminal: add --yes to go ahead.")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):  # the end of input instead of an answer
        print(file=sys.stderr)
    return answer.strip().lower() in ("y", "yes")
