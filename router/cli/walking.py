"""The entries that a command is about, and how they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ...core.errors import ConfigurationError, suggestion
from .command import Options
from .screen import size_text, table, time_text, watched

if TYPE_CHECKING:
    from ...caching.cache import Cache
    from ...caching.inspection import CacheItem, Sizes

FULL_KEYS = 64
"""Characters of a default key."""


def walked(options: Options, cache: Cache) -> Iterator[CacheItem]:
    from ...caching.inspection import walk
    from .opening import prefix

    return walk(cache, prefix(options))


def items(options: Options, cache: Cache, doing: str = "Reading") -> Iterator[CacheItem]:
    """The entries of the namespace, the models and the tags that the options name."""
    models, tags = (set(getattr(options, name, None) or ()) for name in ("model", "tag"))
    return (
        item
        for item in watched(walked(options, cache), doing)
        if (not models or item.model in models) and (not tags or not tags.isdisjoint(tags_of(item)))
    )


def tags_of(item: CacheItem) -> tuple[str, ...]:
    """The tags of an entry that can be read."""
    return () if item.entry is None else item.entry.tags


def summed(options: Options, cache: Cache, wanted: Callable[[CacheItem], bool] | None = None) -> list[Sizes]:
    from ...caching.inspection import sizes

    return sizes(item for item in items(options, cache) if wanted is None or wanted(item))


def show_sizes(rows: list[Sizes], title: str, nothing: str) -> None:
    """A table of models; with a column of namespaces if there are several."""
    if not rows:
        print(nothing)
        return
    head, right = ["Model", "Entries", "Size"], ("Entries", "Size")
    lines = [[row.model, f"{row.entries:,}", size_text(row.bytes)] for row in rows]
    if len(rows) > 1:
        total = sum(row.entries for row in rows), sum(row.bytes for row in rows)
        lines.append(["Total", f"{total[0]:,}", size_text(total[1])])
    if any(row.namespace != "default" for row in rows):
        head = ["Namespace", *head]
        names = [row.namespace for row in rows] + [""]
        lines = [[name, *line] for name, line in zip(names, lines, strict=False)]
    print(table(title, head, lines, right))


def as_dict(rows: list[Sizes]) -> dict[str, Any]:
    return {
        "entries": sum(row.entries for row in rows),
        "bytes": sum(row.bytes for row in rows),
        "models": [row._asdict() for row in rows],
    }


def item_dict(item: CacheItem) -> dict[str, Any]:
    return {name: value for name, value in item._asdict().items() if name not in ("entry", "place")}


def age(item: CacheItem, now: float) -> str:
    return "" if item.stored_at is None else time_text(max(0.0, now - item.stored_at))


def short(key: str) -> str:
    """The beginning of a digest is enough to name it; a key of somebody's own is shown whole, unless it is endless."""
    if len(key) == FULL_KEYS:
        return key[:16]
    return key if len(key) <= FULL_KEYS else key[: FULL_KEYS - 1] + "…"


def raise_for_unknown_models(options: Options, cache: Cache) -> None:
    """Say which models there are, if one that was named is none of them."""
    known = sorted({item.model for item in watched(walked(options, cache), "Reading")})
    wrong = [model for model in options.model if model not in known]
    if known and wrong:
        raise ConfigurationError(f"Nothing of {wrong[0]!r} is cached.{suggestion(wrong[0], known)}")
