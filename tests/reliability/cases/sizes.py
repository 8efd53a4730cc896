"""Many entries, listed and pruned: in memory that does not grow with their number."""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rejoinder.caching import inspection
from rejoinder.caching.entry import Entry, pack
from rejoinder.caching.stores.base import Store

from .. import places
from ..children import in_child
from ..places import Place
from ..report import Opening, Row, Scale, over, row

NAME = "many entries"
MOST = 32 * 2**20
"""Bytes of memory by which listing and pruning may grow."""
BODY = 1000
EVERYWHERE: list[Opening] = [places.disk, places.redis, places.sqlite]
MODELS = 4


def rows(scale: Scale) -> Iterator[Row]:
    yield from over(NAME, EVERYWHERE, lambda place: many(place, scale.of(200_000, 400)))


def many(place: Place, count: int) -> Iterator[Row]:
    in_child(lambda: fill(place.make(), count))
    found = in_child(lambda: measured(place, listed))
    text = f"{found['entries']:,} entries in {found['seconds']:.1f} s; memory +{found['grown'] / 2**20:.1f} MB"
    limit = f"all are seen, in {MOST >> 20} MB of memory at most"
    held = found["entries"] == count and found["grown"] <= MOST
    yield row(NAME, place.name, f"{count:,} entries of {BODY} bytes listed", text, limit, held=held)
    found = in_child(lambda: measured(place, pruned))
    text = f"{found['entries']:,} removed in {found['seconds']:.1f} s; memory +{found['grown'] / 2**20:.1f} MB"
    held = found["entries"] == count // 2 and found["grown"] <= MOST
    yield row(NAME, place.name, f"{count // 2:,} of them pruned", text, limit, held=held)


def fill(store: Store, count: int) -> None:
    """Every second one has ended by its own TTL, and is kept: where a store lets go by itself, prune has no work."""
    now = time.time()
    values = [
        pack(Entry(now - 1000, ttl, b"x" * BODY, notes=b'{"model":"echo/m%d"}' % model))
        for model in range(MODELS)
        for ttl in (None, 1.0)
    ]
    for number in range(count):
        store.set(f"default:{number:064x}", values[number % len(values)])
    store.close()


def listed(place: Place) -> int:
    models = Counter(item.model for item in inspection.cache_list(cache=place.cache()))
    assert len(models) == MODELS
    return models.total()


def pruned(place: Place) -> int:
    return inspection.cache_prune(cache=place.cache())


def measured(place: Place, work: Any) -> dict[str, Any]:
    """Run in a child of its own, whose memory has not grown yet."""
    next(iter(place.make().scan()), None)  # imports and connections are not what is measured
    before, started = peak(reset=True), time.monotonic()
    entries = work(place)
    return {"entries": entries, "seconds": time.monotonic() - started, "grown": peak() - before}


def peak(*, reset: bool = False) -> int:
    """Bytes of memory that this process has had at most, on Linux since `reset`."""
    status = Path("/proc/self/status")
    if not status.exists():
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
