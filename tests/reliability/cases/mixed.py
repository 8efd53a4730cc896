"""Eight at once do everything that a store can do; a checker reads all their notes."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rejoinder.caching.stores.base import Store

from .. import places
from ..checker import Worker, judged
from ..children import together
from ..places import Place
from ..report import Opening, Row, Scale, over, row, told

NAME = "mixed operations"
WORKERS = 8
PROMISE = "values whole and once written, own writes read, no step back, nothing expired, no lease held twice, no error"

EVERYWHERE: list[Opening] = [places.memory, places.disk, places.redis, places.sqlite, places.postgres, places.mariadb]
EVERYWHERE += [places.duckdb, places.object_folder, places.s3, places.cosmos]
QUICK: list[Opening] = [places.memory, places.disk, places.redis, places.sqlite]


def rows(scale: Scale) -> Iterator[Row]:
    def check(place: Place) -> Iterator[Row]:
        return checked(place, scale.of(round(10_000 * place.pace), 150))

    return over(NAME, EVERYWHERE if scale.is_full else QUICK, check)


def checked(place: Place, operations: int) -> Iterator[Row]:
    started = time.monotonic()
    notes = in_processes(place, operations) if place.is_shared else in_threads(place.make(), operations)
    took = time.monotonic() - started
    faults = judged(notes)
    errors = [error for note in notes for error in note["errors"]]
    reads = sum(len(note["seen"]) for note in notes)
    leases = sum(len(note["held"]) for note in notes)
    found = f"{reads:,} different values read, {leases:,} leases held: {len(faults)} faults, {len(errors)} errors"
    kind = "processes" if place.is_shared else "threads"
    done = f"{WORKERS} {kind} × {operations:,} operations in {took:.0f} s"
    yield row(NAME, place.name, done, told(found, faults + errors), PROMISE, held=not faults + errors and reads > 0)


def in_processes(place: Place, operations: int) -> list[dict[str, Any]]:
    return together([lambda n=n: _work(n, place.make(), operations) for n in range(WORKERS)])  # type: ignore[misc]


def in_threads(store: Store, operations: int) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(lambda number: _work(number, store, operations), range(WORKERS)))


def _work(number: int, store: Store, operations: int) -> dict[str, Any]:
    return Worker(number, WORKERS, store, random.Random(f"{number} {time.time()}")).work(operations)
