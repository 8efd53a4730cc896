"""`rejoinder cache` list, size, stats, path, show, explain: looking at a cache."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from ...core.errors import ConfigurationError
from .command import Options
from .screen import as_json, clean, counted, entries_text, fields, size_text, table, time_text, watched
from .walking import age, as_dict, item_dict, items, raise_for_unknown_models, short, show_sizes, summed

if TYPE_CHECKING:
    from ...caching.cache import Cache
    from ...caching.inspection import CacheItem

MANY = 20
"""Keys that begin alike: more are not counted."""


def path(options: Options) -> int:
    from .opening import opened, place

    cache = opened(options, may_create=True)
    directory = getattr(cache.store, "directory", None)
    where = place(cache) if directory is None else str(directory)
    print(as_json({"path": where}) if options.json else where)
    return 0


def list_(options: Options) -> int:
    from .opening import opened, place

    cache = opened(options)
    if options.entries:
        return _list_entries(options, cache)
    rows = summed(options, cache, (lambda item: item.is_pruneable) if options.pruneable else None)
    if not rows and options.model:
        raise_for_unknown_models(options, cache)
    if options.json:
        print(as_json(as_dict(rows)))
    elif options.pruneable:
        show_sizes(rows, "The following models can be pruned due to cache expiry", "No expired cache entries.")
    else:
        show_sizes(rows, "Cache Sizes", f"Nothing is cached in {place(cache)}.")
    return 0


def _list_entries(options: Options, cache: Cache) -> int:
    now = cache.clock()
    shown: list[CacheItem] = []
    count = 0
    for item in items(options, cache):
        if options.pruneable and not item.is_pruneable:
            continue
        count += 1
        if not options.limit or count <= options.limit:
            shown.append(item._replace(entry=None))
    if not count and options.model:
        raise_for_unknown_models(options, cache)
    if options.json:
        print(as_json({"entries": count, "items": [item_dict(item) for item in shown]}))
        return 0
    rows = []
    for item in shown:
        ttl = "" if item.stored_at is None else time_text(item.ttl)
        rows.append((short(item.key), item.model, item.state, age(item, now), ttl, size_text(item.size)))
    head = ("Key", "Model", "State", "Age", "TTL", "Size")
    print(table("Cache Entries", head, rows, ("Age", "TTL", "Size")) if rows else "Nothing is cached.")
    if count > len(shown):
        print(f"\n{len(shown)} of {entries_text(count)}; --limit 0 shows all.")
    return 0


def size(options: Options) -> int:
    from .opening import opened

    rows = summed(options, opened(options))
    total = sum(row.bytes for row in rows)
    print(as_json({"bytes": total, "entries": sum(row.entries for row in rows)}) if options.json else size_text(total))
    return 0


def stats(options: Options) -> int:
    from .opening import opened, place

    cache = opened(options)
    states = dict.fromkeys(("fresh", "expired", "corrupt", "sealed"), 0)
    namespaces: set[str] = set()
    models: set[str] = set()
    total = largest = 0
    times: list[float] = []
    for item in items(options, cache):
        states[item.state] += 1
        namespaces.add(item.namespace)
        models.add(item.model)
        total, largest = total + item.size, max(largest, item.size)
        if item.stored_at is not None:
            times = [min([*times, item.stored_at]), max([*times, item.stored_at])]
    found = {
        "store": cache.store.name,
        "place": place(cache),
        "entries": sum(states.values()),
        **states,
        "bytes": total,
        "largest": largest,
        "oldest": times[0] if times else None,
        "newest": times[1] if times else None,
        "models": sorted(models),
        "namespaces": sorted(namespaces),
    }
    print(as_json(found) if options.json else _stats_text(found, cache.clock()))
    return 0


def _stats_text(found: dict[str, Any], now: float) -> str:
    lines = [("Store", found["store"]), ("Place", found["place"])]
    lines.append(("Entries", f"{found['entries']:,}"))
    if found["entries"]:
        lines += [(state.capitalize(), f"{found[state]:,}") for state in ("fresh", "expired")]
        lines += [(state.capitalize(), f"{found[state]:,}") for state in ("corrupt", "sealed") if found[state]]
        lines += [("Size", size_text(found["bytes"])), ("Largest", size_text(found["largest"]))]
        if found["oldest"] is not None:
            lines += [("Oldest", time_text(now - found["oldest"])), ("Newest", time_text(now - found["newest"]))]
        lines += [("Models", ", ".join(found["models"])), ("Namespaces", ", ".join(found["namespaces"]))]
    return fields(lines)


def show(options: Options) -> int:
    from .opening import opened

    cache = opened(options)
    item = _find(options, cache)
    if options.json:
        print(as_json({**item_dict(item), **_told(item)}))
        return 0
    told = _told(item)
    lines = [("Key", item.key), ("Namespace", item.namespace), ("Model", item.model), ("State", item.state)]
    if item.fault:
        lines.append(("Fault", item.fault))
    if item.stored_at is not None:
        stored = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(item.stored_at))
        lines += [("Stored", f"{stored}, {age(item, cache.clock())} ago"), ("TTL", time_text(item.ttl))]
    lines.append(("Size", size_text(item.size)))
    if told:
        lines += [("Stream", counted(told["chunks"], "chunk"))] if told["chunks"] else []
        lines += [("Usage", told["usage_line"])] if told["usage_line"] else []
        lines += [("Tags", ", ".join(told["tags"]))] if told["tags"] else []
        lines += [("Finish", told["finish_reason"])] if told["finish_reason"] else []
    print(fields(lines))
    if told:
        _print_beginning(told["answer"], options.lines)
    return 0


def _print_beginning(text: str, most: int) -> None:
    lines = text.splitlines()
    print()
    for line in lines[:most]:
        print(f"  {clean(line[:500])}" + (" …" if len(line) > 500 else ""))
    if len(lines) > most:
        print(f"  … {counted(len(lines) - most, 'more line')}")


def explain(options: Options) -> int:
    from .. import shape as shape  # so that a cache can give the key of a call
    from .calls import call_of
    from .opening import opened

    cache = opened(options, cache_seed=options.cache_seed)
    found = cache.explain(**call_of(options))
    if options.json:
        parts = [difference._asdict() for difference in found.differences]
        told = {"hit": found.hit, "key": found.key, "reason": found.reason, "nearest": found.nearest}
        print(as_json({**told, "differences": parts}))
    else:
        print(found)
    return 0


def _find(options: Options, cache: Cache) -> CacheItem:
    """The one entry whose key is, or begins with, what was typed; with its namespace before it or without."""
    from ...caching.inspection import judged
    from .opening import prefix

    wanted: str = options.key
    place = next(_exact(cache, [(prefix(options) or "default:") + wanted, wanted]), None)
    if place is None:
        found = _beginning_with(wanted, cache, prefix(options))
        if not found:
            raise ConfigurationError(
                f"No entry's key begins with {wanted!r}. `rejoinder cache list --entries` shows keys."
            )
        if len(found) > 1:
            several = f"more than {MANY}" if len(found) > MANY else str(len(found))
            raise ConfigurationError(f"{several} keys begin with {wanted!r}: {', '.join(sorted(found)[:3])} …")
        (place,) = found
    (data,) = cache.store.peek([place])
    if data is None:
        raise ConfigurationError(f"The entry {place!r} was removed just now.")
    return judged(cache, place, data)


def _exact(cache: Cache, places: list[str]) -> Iterator[str]:
    return (place for place, data in zip(places, cache.store.peek(places), strict=True) if data is not None)


def _beginning_with(wanted: str, cache: Cache, prefix: str) -> set[str]:
    """Places; as soon as there are too many, no more."""
    found: set[str] = set()
    records = chain(cache.store.scan(prefix), cache.store.expired(prefix))
    for record in watched(records, "Looking"):
        if record.key.startswith(wanted) or record.key.partition(":")[2].startswith(wanted):
            found.add(record.key)
            if len(found) > MANY:
                break
    return found


def _told(item: CacheItem) -> dict[str, Any]:
    """What an entry's answer says, if it can be read."""
    from .calls import told

    return told(item.entry) if item.entry is not None else {}
