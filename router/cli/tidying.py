"""`rejoinder cache` clear, prune, verify: removing what is not wanted, after asking."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...core.errors import ConfigurationError
from .command import Options
from .screen import agreed, as_json, entries_text, size_text, table, watched
from .walking import as_dict, item_dict, items, raise_for_unknown_models, short, show_sizes, summed, walked

if TYPE_CHECKING:
    from ...caching.cache import Cache
    from ...caching.inspection import CacheItem, Sizes

SHOWN = 1000
"""Corrupt entries that are listed; more are only counted."""


def clear(options: Options) -> int:
    some = bool(options.model or options.tag)
    if options.all == some:
        raise ConfigurationError("Need to specify either --all, or --model or --tag.")
    from .opening import opened, prefix

    cache = opened(options)
    rows = summed(options, cache)
    if not rows and options.model:
        raise_for_unknown_models(options, cache)
    if not _may_remove(options, rows, "Clearing the following caches", "Nothing to clear."):
        return 0 if not rows else 1
    if some:
        removed = _remove(options, cache, lambda item: True)
    else:
        removed = cache.store.clear(prefix(options))
    return _removed(options, rows, removed)


def prune(options: Options) -> int:
    from .opening import opened

    cache = opened(options)
    rows = summed(options, cache, lambda item: item.is_pruneable)
    if not _may_remove(options, rows, "Pruning the following caches", "No expired cache entries to prune."):
        return 0 if not rows else 1
    removed = _remove(options, cache, lambda item: item.is_pruneable)
    if not options.model and not options.namespace:
        removed += cache.store.prune()  # expired meanwhile, and the medium's own litter
    return _removed(options, rows, removed)


def verify(options: Options) -> int:
    from .opening import opened

    cache = opened(options)
    count = sealed = bad = 0
    corrupt: list[CacheItem] = []
    for item in watched(walked(options, cache), "Reading"):
        count += 1
        sealed += item.state == "sealed"
        if item.state == "corrupt":
            bad += 1
            corrupt += [item] if bad <= SHOWN else []
    if not options.json:
        if corrupt:
            rows = [(item.namespace, short(item.key), size_text(item.size), item.fault) for item in corrupt]
            print(table("Corrupt Entries", ("Namespace", "Key", "Size", "Fault"), rows, ("Size",)) + "\n")
        print(f"{entries_text(count)} read, {bad:,} corrupt.")
        if sealed:
            print(f"{entries_text(sealed)} could not be checked: signed or encrypted, and no key was given.")
    fixed = 0
    if bad and options.fix and agreed(f"Remove {entries_text(bad)}?", yes=options.yes):
        fixed = _remove(options, cache, lambda item: item.state == "corrupt")
        if not options.json:
            print(f"Removed {entries_text(fixed)}.")
    if options.json:
        told = {"entries": count, "corrupt_entries": bad, "sealed": sealed, "removed": fixed}
        print(as_json({**told, "corrupt": [item_dict(item) for item in corrupt]}))
    return 1 if bad > fixed else 0


def _may_remove(options: Options, rows: list[Sizes], title: str, nothing: str) -> bool:
    """Show what would go, and ask. False: there is nothing, or the answer is no."""
    if not rows:
        print(as_json({"removed": 0, **as_dict(rows)}) if options.json else nothing)
        return False
    if not options.json:
        show_sizes(rows, title, nothing)
    total, size = sum(row.entries for row in rows), sum(row.bytes for row in rows)
    if agreed(f"\nRemove {entries_text(total)} ({size_text(size)})?", yes=options.yes):
        return True
    print("Nothing was removed.", file=sys.stderr)
    return False


def _remove(options: Options, cache: Cache, wanted: Callable[[CacheItem], bool]) -> int:
    from ...caching.inspection import remove

    return remove(cache.store, (item for item in items(options, cache, "Removing") if wanted(item)))


def _removed(options: Options, rows: list[Sizes], removed: int) -> int:
    if options.json:
        print(as_json({"removed": removed, **as_dict(rows)}))
    else:
        print(f"Removed {entries_text(removed)}.")
    return 0
