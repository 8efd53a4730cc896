"""A disk that is full, and one that nobody may write to: calls go on, and so does the cache once it can."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rejoinder
from rejoinder import Cache, Echo
from rejoinder.caching import inspection
from rejoinder.caching.stores.base import Store
from tests.fixtures.calls import text_of
from tests.fixtures.mounts import SmallDisk, small_disk

from ..places import hurry
from ..report import SKIPPED, Row, Scale, percentile, row, told

NAME = "a disk in trouble"
SIZE = 6 * 2**20
BUDGET = 0.1
SLOWEST = 0.5
"""Seconds for any call."""
RECOVERY = 40.0
PROMISE = "no failed call, errors counted, what was stored still read, and stored again afterwards"


def rows(scale: Scale) -> Iterator[Row]:
    calls = scale.of(2000, 30)
    for store, make in STORES.items():
        for trouble, begin, end in TROUBLES:
            try:
                with small_disk(SIZE) as disk:
                    cache = Cache(store=make(disk.path), budget=BUDGET)
                    if not scale.is_full:
                        hurry(cache)
                    yield checked(store, cache, disk, trouble, begin, end, calls)
            except pytest.skip.Exception as skipped:
                yield Row(NAME, store, "nothing", str(skipped), "-", SKIPPED)


def on_disk(folder: Path) -> Store:
    from rejoinder.caching.stores.disk import DiskStore

    return DiskStore(folder, budget=BUDGET)


def on_sqlite(folder: Path) -> Store:
    from rejoinder.caching.stores.sql import SQLStore

    return SQLStore(f"sqlite:///{folder}/cache.sqlite3", budget=BUDGET)


def in_a_folder(folder: Path) -> Store:
    from rejoinder.caching.stores.object import ObjectStore

    return ObjectStore(f"file://{folder}", budget=1.0)


STORES: dict[str, Callable[[Path], Store]] = {"disk": on_disk, "SQLite": on_sqlite, "folder": in_a_folder}
Act = Callable[[SmallDisk], None]
TROUBLES: list[tuple[str, Act, Act]] = [
    ("full", SmallDisk.fill, SmallDisk.free),
    ("read-only", lambda disk: disk.allow_writing(False), lambda disk: disk.allow_writing(True)),
]


def checked(store: str, cache: Cache, disk: SmallDisk, trouble: str, begin: Act, end: Act, calls: int) -> Row:
    faults: list[str] = []
    times: list[float] = []
    known = ask(cache, "known")
    faults += [] if text_of(known) == "known" and ask(cache, "known").cache else ["the first answer was not kept"]
    cache.close()  # what is open for writing keeps a disk writable
    begin(disk)
    for number in range(calls):
        started = time.monotonic()
        try:
            answer = ask(cache, f"{number} " + "x" * 5000)
            if not text_of(answer).startswith(f"{number} "):
                faults.append("a wrong answer")
        except Exception as error:
            faults.append(f"{type(error).__name__}: {error}")
        times.append(time.monotonic() - started)
    errors = sum(cache.stats()[count] for count in ("write_errors", "lease_errors", "read_errors"))
    faults += [] if errors else ["no error was counted"]
    faults += [] if eventually(lambda: ask(cache, "known").cache) else ["what was stored is no longer read"]
    end(disk)
    back = seconds_until_kept(cache)
    faults += [] if back is not None else ["nothing is stored again"]
    faults += [f"{item.key} is {item.state}" for item in inspection.cache_list(cache=cache) if item.state != "fresh"]
    faults += [] if max(times) < SLOWEST else [f"a call took {max(times):.2f} s"]
    cache.close()
    found = f"{calls:,} calls, {errors} errors counted; ms at p50 / p99 / worst " + " / ".join(
        f"{1000 * percentile(times, share):.1f}" for share in (0.5, 0.99, 1)
    )
    found += "" if back is None else f"; stored again after {back:.1f} s"
    done = f"a disk of {SIZE >> 20} MB is {trouble} while calls run"
    return row(NAME, store, done, told(found, faults), PROMISE, held=not faults)


def ask(cache: Cache, text: str) -> Any:
    return rejoinder.completion("echo/m", [{"role": "user", "content": text}], client=Echo(), cache=cache)


def eventually(holds: Callable[[], Any]) -> bool:
    return seconds_until(holds) is not None


def seconds_until_kept(cache: Cache) -> float | None:
    """Until a new answer is stored."""
    numbers = iter(range(10**9))

    def is_kept() -> bool:
        text = f"after {next(numbers)}"
        ask(cache, text)
        return bool(ask(cache, text).cache)

    return seconds_until(is_kept)


def seconds_until(holds: Callable[[], Any]) -> float | None:
    started = time.monotonic()
    while time.monotonic() - started < RECOVERY:
        if holds():
            return time.monotonic() - started
        time.sleep(0.02)
    return None
