"""What a cache holds: listed, measured, cleared and pruned.

Everything walks the store in pages, so that 200,000 entries take no more memory than a few hundred. Only an entry's own
bytes say of which model it is, so a walk reads them all once. To look is not to use: it keeps nothing from eviction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from ..core import settings
from ..core.errors import ConfigurationError, WrongType
from . import entry as entries
from .blocks import innermost
from .cache import VALUE, Cache
from .entry import Entry
from .policy import is_fresh
from .seal import ENCRYPTED, SIGNED
from .stores.base import Record, Store, is_mark

PAGE_ENTRIES, PAGE_BYTES = 100, 4 * 2**20
"""A page of a walk ends with whichever comes first."""

FRESH, EXPIRED, CORRUPT, SEALED = "fresh", "expired", "corrupt", "sealed"
"""The states of an entry. Sealed: signed or encrypted, and looked at without the keys, so that nothing is known."""

NO_MODEL, VALUES, CLOSED, BROKEN = "(no model)", "(values of your own)", "(sealed)", "(corrupt)"
"""What stands for a model where none is known."""

BUDGET = 10.0
"""Seconds that an operation on the default cache may take. Whoever lists a cache would rather wait than not know."""


class CacheItem(NamedTuple):
    """What is known of one entry without using it."""

    namespace: str
    key: str
    """Without the namespace."""
    model: str
    """ "provider/model"; in brackets what stands for it where there is none."""
    size: int
    """Bytes, as stored."""
    state: str
    """ "fresh", "expired", "corrupt" or "sealed"."""
    stored_at: float | None = None
    """Seconds since the epoch; None where the entry does not say."""
    ttl: float | None = None
    """Seconds; None: for ever."""
    fault: str = ""
    """What is wrong with a corrupt one."""
    place: str = ""
    """The key in the store: with the namespace."""
    entry: Entry | None = None

    @property
    def is_pruneable(self) -> bool:
        """Whether it can never again be a fresh answer."""
        return self.state in (EXPIRED, CORRUPT)


class Sizes(NamedTuple):
    """How much there is of one model in one namespace."""

    namespace: str
    model: str
    entries: int
    bytes: int


# ── walking ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def walk(cache: Cache, prefix: str = "", models: Iterable[str] = ()) -> Iterator[CacheItem]:
    """Everything in the store whose place starts with `prefix`, of these models or of all; with what has expired.

    An empty prefix is all namespaces. Raises what the store raises.
    """
    wanted = frozenset(models)
    store = cache.store
    records = (record for record in chain(store.scan(prefix), store.expired(prefix)) if not is_mark(record.key))
    for page in pages(records):
        for record, data in zip(page, store.peek([record.key for record in page]), strict=True):
            if data is not None:  # else removed since it was listed
                item = judged(cache, record.key, data)._replace(size=record.size)
                if not wanted or item.model in wanted:
                    yield item


def pages(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Records by the handful: so many as may be in memory with their bytes."""
    page: list[Record] = []
    size = 0
    for record in records:
        if page and (len(page) >= PAGE_ENTRIES or size + record.size > PAGE_BYTES):
            yield page
            page, size = [], 0
        page.append(record)
        size += record.size
    if page:
        yield page


def judged(cache: Cache, place: str, data: bytes) -> CacheItem:
    """What the cache would make of these bytes, and whether it would serve them now."""
    namespace, _, key = place.partition(":")
    item = CacheItem(unquote(namespace), key, BROKEN, len(data), CORRUPT, place=place)
    if not data:
        return item._replace(fault="its bytes do not fit the store's checksum")
    if cache.seal is None and data[:4] in (SIGNED, ENCRYPTED):
        return item._replace(model=CLOSED, state=SEALED)
    try:
        entry = entries.unpack(data if cache.seal is None else cache.seal.open(place, data))
        model = model_of(key, entry)
    except ValueError as error:
        return item._replace(fault=str(error))
    state = FRESH if is_fresh(entry.stored_at, entry.ttl, None, cache.clock()) else EXPIRED
    return item._replace(model=model, state=state, stored_at=entry.stored_at, ttl=entry.ttl, entry=entry)


def model_of(key: str, entry: Entry) -> str:
    """The model that an entry's notes name. Raises `BadEntry` for notes that cannot be read."""
    model = entry.described().get("model")
    return model if isinstance(model, str) and model else VALUES if key.startswith(VALUE) else NO_MODEL


def sizes(items: Iterable[CacheItem]) -> list[Sizes]:
    """Entries and bytes by namespace and model, in the order of their names."""
    totals: dict[tuple[str, str], tuple[int, int]] = {}
    for item in items:
        count, size = totals.get((item.namespace, item.model), (0, 0))
        totals[item.namespace, item.model] = count + 1, size + item.size
    return [Sizes(*names, *total) for names, total in sorted(totals.items())]


def remove(store: Store, items: Iterable[CacheItem]) -> int:
    """Remove these entries; how many there were. One that was replaced since it was looked at goes too."""
    return sum(store.delete(item.place) for item in items)


# ── the public functions, by Inspect's names ──────────────────────────────────────────────────────────────────────────


def cache_path(*, cache: Cache | None = None) -> Path:
    """The folder of the cache, if it has one: that of the cache in use, else of the default one on disk."""
    store = chosen(cache).store
    directory = getattr(getattr(store, "last", store), "directory", None)
    if directory is None:
        raise ConfigurationError(f"A cache in the {store.name} store has no folder.")
    return Path(directory)


def cache_size(model: str | Sequence[str] | None = None, *, cache: Cache | None = None) -> list[tuple[str, int]]:
    """The models in the cache, by name, and how many bytes their answers take."""
    return [(row.model, row.bytes) for row in sizes(cache_list(model, cache=cache))]


def cache_list(model: str | Sequence[str] | None = None, *, cache: Cache | None = None) -> Iterator[CacheItem]:
    """Everything in the cache's namespace, of one model, several or all; also what no longer serves."""
    found = chosen(cache)
    return walk(found, found.prefix, named(model))


def cache_list_expired(model: str | Sequence[str] | None = None, *, cache: Cache | None = None) -> Iterator[CacheItem]:
    """What `cache_prune` would remove: expired by its own TTL and yet there, or corrupt."""
    return (item for item in cache_list(model, cache=cache) if item.is_pruneable)


def cache_clear(model: str | Sequence[str] | None = None, *, cache: Cache | None = None) -> int:
    """Remove the answers of one model, of several, or all that the cache's namespace holds; how many there were."""
    found = chosen(cache)
    return found.clear() if model is None else remove(found.store, cache_list(model, cache=found))


def cache_prune(model: str | Sequence[str] | None = None, *, cache: Cache | None = None) -> int:
    """Remove what has expired (also what is only kept for a time of grace) or is corrupt; how many there were."""
    found = chosen(cache)
    removed = remove(found.store, cache_list_expired(model, cache=found))
    return removed if model is not None else removed + found.store.prune()  # which also tidies up the medium


def chosen(cache: Cache | None) -> Cache:
    """The given cache; else the one that calls use here; else the default one on disk."""
    if cache is not None and not isinstance(cache, Cache):
        raise WrongType(f"cache={cache!r} must be a Cache, not {type(cache).__name__}.")
    if cache is not None:
        return cache
    return innermost() or settings.cache or Cache(type="disk", budget=BUDGET)


def named(model: str | Sequence[str] | None) -> tuple[str, ...]:
    """One model, several, or none: which means all."""
    if model is None:
        return ()
    models = (model,) if isinstance(model, str) else tuple(model)
    for one in models:
        if not isinstance(one, str) or not one:
            raise WrongType(f"{one!r:.60} is no model: give names such as 'openai/gpt-4o', or None for all.")
    return models
