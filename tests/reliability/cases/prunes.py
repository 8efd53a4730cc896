"""Several prune the same cache at once: what is dead goes, once, and what is alive stays."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rejoinder.caching import inspection
from rejoinder.caching.entry import Entry, pack
from rejoinder.caching.stores.base import Store

from .. import places
from ..children import in_child, together
from ..places import Place
from ..report import Opening, Row, Scale, over, row

NAME = "two prunes at once"
PROMISE = "no error; all that is dead is gone, nothing that is alive"
EVERYWHERE: list[Opening] = [places.memory, places.disk, places.redis, places.sqlite]


def rows(scale: Scale) -> Iterator[Row]:
    more: list[Opening] = [places.postgres, places.mariadb, places.object_folder] if scale.is_full else []
    yield from over(NAME, EVERYWHERE + more, lambda place: pruned(place, scale.of(5_000, 150)))


def pruned(place: Place, count: int) -> Iterator[Row]:
    """A third is alive, a third dead by its own TTL, a third dead for the store as well."""
    if place.is_shared:
        in_child(lambda: fill(place.make(), count))
        removed = together([lambda: inspection.cache_prune(cache=place.cache())] * 2)
        left = in_child(lambda: states(place.make()))
    else:
        store = place.make()
        fill(store, count)
        cache = Place("", lambda budget: store).cache()
        with ThreadPoolExecutor(2) as pool:
            prunes: list[Callable[[], int]] = [lambda: inspection.cache_prune(cache=cache)] * 2
            removed = list(pool.map(lambda prune: prune(), prunes))
        left = states(store)
    done = f"two cache_prune at once, of {2 * count:,} dead entries among {3 * count:,}"
    found = f"removed {removed[0]:,} and {removed[1]:,}; left are {left['alive']:,} alive, {left['dead']:,} dead"
    held = left == {"alive": count, "dead": 0}  # an object store counts what both of them remove twice
    yield row(NAME, place.name, done, found, PROMISE, held=held)


def fill(store: Store, count: int) -> None:
    now = time.time()
    alive, dead = (pack(Entry(now - 1000, ttl, b"{}")) for ttl in (None, 1.0))
    for number in range(count):
        store.set(f"default:alive{number}", alive)
        store.set(f"default:kept{number}", dead)
        store.set(f"default:dead{number}", dead, 0.001)
    store.close()


def states(store: Store) -> dict[str, Any]:
    keys = [record.key for records in (store.scan(), store.expired()) for record in records]
    alive = sum(key.startswith("default:alive") for key in keys)
    return {"alive": alive, "dead": len(keys) - alive}
