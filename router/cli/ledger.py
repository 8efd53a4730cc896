"""`rejoinder cache ledger`: what calls have cost and saved, out of a ledger's file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from ...core.errors import ConfigurationError
from .command import Options, Parser
from .screen import as_json, counted, table

if TYPE_CHECKING:
    from ...caching.ledger import Amount, Ledger, Summary

NONE = "(none)"
"""What has no tag, or belongs to no run."""


def ledger_arguments(parser: Parser) -> None:
    parser.add_argument("--by", choices=("model", "tag", "run", "day"), default="model", help="a line for each (model)")
    parser.add_argument("--file", metavar="FILE", help="the ledger (else the one that REJOINDER_LEDGER names)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def ledger(options: Options) -> int:
    from ...caching.ledger import Ledger

    file = options.file or os.environ.get("REJOINDER_LEDGER")
    if not file:
        raise ConfigurationError("Which ledger? Give --file FILE, or set REJOINDER_LEDGER.")
    kept = Ledger.read(file)
    groups = kept.by(options.by)
    if options.json:
        told = {name: summary.as_dict() for name, summary in groups.items()}
        print(as_json({"by": options.by, "groups": told, "total": kept.summary().as_dict()}))
        return 0
    if not groups:
        print("Nothing has been counted yet.")
        return 0
    print(shown(kept, options.by, groups))
    return 0


def shown(kept: Ledger, by: str, groups: Mapping[str, Summary]) -> str:
    """The table, and what is to be known about it."""
    total = kept.summary()
    rows = [(name or NONE, summary) for name, summary in groups.items()]
    rows += [("Total", total)] if len(rows) > 1 else []
    columns = {**COLUMNS, **(SHADOW if total.would_save.calls else {})}
    head = [by.capitalize(), *columns]
    lines = [[name, *(cell(summary) for cell in columns.values())] for name, summary in rows]
    return "\n".join([table("Ledger", head, lines, list(columns)), *remarks(total, by)])


def remarks(total: Summary, by: str) -> Iterator[str]:
    if total.unpriced:
        yield ""
        yield f"?: no price is known of {counted(total.unpriced, 'call')}. rejoinder.register_model can say it."
    if by == "tag":
        yield ""
        yield "A call with several tags is counted under each, and once in the total."


def money(amount: Amount) -> str:
    from ...caching.ledger import dollars_text

    if amount.unpriced:
        return f"{dollars_text(amount.dollars)} + ?" if amount.dollars else "?"
    return dollars_text(amount.dollars)


def percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


COLUMNS: Mapping[str, Callable[[Summary], str]] = {
    "Calls": lambda summary: f"{summary.calls:,}",
    "Hits": lambda summary: f"{summary.saved.calls:,}",
    "Tokens paid": lambda summary: f"{summary.paid.tokens:,}",
    "Paid": lambda summary: money(summary.paid),
    "Tokens saved": lambda summary: f"{summary.saved.tokens:,}",
    "Saved": lambda summary: money(summary.saved),
    "% saved": lambda summary: percent(summary.saved_share),
    "Duplicate": lambda summary: money(summary.duplicate),
}
SHADOW: Mapping[str, Callable[[Summary], str]] = {
    "Would hit": lambda summary: f"{summary.would_save.calls:,}",
    "Would save": lambda summary: money(summary.would_save),
    "% same": lambda summary: percent(summary.agreement),
}
"""Columns for what shadow mode has seen."""
