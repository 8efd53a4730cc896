"""kill -9 of processes that write: what they had been told is kept is there and whole, and nothing is half there.

A writer says the name of each value once the call that stored it has returned. The parent never opens a store, so that
whatever may not be used on both sides of a fork can be tried too.
"""

from __future__ import annotations

import itertools
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import rejoinder
from rejoinder import Cache, Echo
from rejoinder.caching import inspection

from .. import places
from ..children import Child, in_child
from ..places import Place
from ..report import Opening, Row, Scale, over, row, told

NAME = "kill -9"
AT_ONCE = 4
ERA = 100
"""Kills until a new and empty place is begun, so that its making is interrupted too."""
LATEST = 0.05
"""Seconds that writers may live: every second batch counted from its start, the others from their first word on."""
LEASE = 0.5
KEPT = "nothing that was acknowledged is lost, nothing is corrupt"


def rows(scale: Scale) -> Iterator[Row]:
    warm()
    counts = {places.disk: (1000, 8), places.sqlite: (300, 4), places.object_folder: (300, 4), places.redis: (200, 4)}
    for opening, (full, small) in counts.items():
        yield from killed_writers(opening, scale.of(full, small))
    yield from over("kill -9 of a leader", LEASED, lambda place: killed_leaders(place, scale.of(40, 1)))


LEASED: list[Opening] = [places.disk, places.redis, places.sqlite]


def warm() -> None:
    rejoinder.completion("echo/m", [{"role": "user", "content": "warm"}], cache=Cache(), client=Echo())


# ── writers ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def killed_writers(opening: Opening, kills: int) -> Iterator[Row]:
    """The row of one store; eras on places of their own."""
    totals: Counter[str] = Counter()
    faults: list[str] = []
    names: list[str] = []

    def era(place: Place) -> Iterator[Row]:
        names.append(place.name)
        _era(place, min(ERA, kills - totals["kills"]), totals, faults)
        return iter(())

    while totals["kills"] < kills:
        bad = list(over(NAME, [opening], era))
        if bad:
            yield from bad
            return
    done = f"{kills:,} writers, {AT_ONCE} at a time, killed within {LATEST * 1000:.0f} ms of their start or first word"
    found = (
        f"{totals['acked']:,} writes acknowledged, {totals['entries']:,} found in the end: {len(faults)} lost or bad"
    )
    if totals["refused"]:
        faults.append(f"{totals['refused']} writes were refused")
    yield row(
        NAME,
        names[0],
        done,
        told(found, faults),
        KEPT,
        held=not faults and totals["acked"] > 0,
    )


def _era(place: Place, kills: int, totals: Counter[str], faults: list[str]) -> None:
    acked: list[str] = []
    for _ in range(0, kills, AT_ONCE):
        names = killed_together(place, AT_ONCE, first=totals["kills"])
        totals["kills"] += AT_ONCE
        totals["refused"] += sum(name.startswith("!") for name in names)
        kept = [name for name in names if not name.startswith("!")]
        acked += kept
        faults += in_child(lambda kept=kept: missing(place.cache(), kept))
    totals["acked"] += len(acked)
    verdict = in_child(lambda: verified(place, acked))
    totals["entries"] += verdict["entries"]
    faults += verdict["faults"]


def killed_together(place: Place, count: int, first: int) -> list[str]:
    """What that many writers said until each of them was killed."""
    writers = [Child(lambda say, number=first + n: write(place.cache(), number, say)) for n in range(count)]  # type: ignore[misc]
    if first // count % 2 == 0:
        for writer in writers:
            writer.wait_for_line()
    time.sleep(random.uniform(0, LATEST))
    for writer in random.sample(writers, count):
        writer.kill()
        time.sleep(random.uniform(0, 0.002))
    return [line for writer in writers for line in writer.lines(30)]


def write(cache: Cache, number: int, say: Callable[[str], None]) -> None:
    """Store values and answers in turn, without end."""
    echo = Echo()
    for turn in itertools.count():
        before = cache.counts["stored"]
        name = f"{'va'[turn % 2]}{number}.{turn}"
        if name[0] == "v":
            cache.set(name, text(name))
        else:
            ask(cache, name, echo)
        say(name if cache.counts["stored"] > before else f"!{name}")


def ask(cache: Cache, name: str, echo: Echo) -> Any:
    return rejoinder.completion("echo/m", [{"role": "user", "content": text(name)}], client=echo, cache=cache)


def text(name: str) -> str:
    """What is stored under a name: short, long, or too long for one page of anything."""
    dice = random.Random(name)
    return f"{name} " + "x" * dice.choice([10, 300, 3_000, 30_000, 200_000]) + f" {name}"


def missing(cache: Cache, names: list[str]) -> list[str]:
    """What of these is not there as it was written."""
    echo, faults = Echo(["this was asked again"]), []
    for name in names:
        if name[0] == "v":
            is_there = cache.get(name) == text(name)
        else:
            answer = ask(cache, name, echo)
            is_there = answer.cache and answer.choices[0].message.content == text(name)
        if not is_there:
            faults.append(f"{name} is lost")
    stats = cache.stats()
    faults += [f"{stats[count]} {count}" for count in ("corrupt", "read_errors", "write_errors") if stats[count]]
    cache.close()
    return faults


def verified(place: Place, names: list[str]) -> dict[str, Any]:
    """The whole place, looked at in the end: all names, each entry, and the files."""
    cache = place.cache()
    faults = missing(cache, names)
    states = Counter(item.state for item in inspection.cache_list(cache=cache))
    faults += [f"{count} entries are {state}" for state, count in states.items() if state != inspection.FRESH]
    if place.folder is not None:
        faults += [f"{path.name} was set aside" for path in place.folder.glob("*.corrupt-*")]
        faults += damage(place)
    return {"entries": states.total(), "faults": faults}


def damage(place: Place) -> list[str]:
    """What SQLite itself says of its file."""
    assert place.folder is not None
    file = place.folder / "cache.sqlite3"
    if not file.exists():
        return []
    with closing(sqlite3.connect(file)) as connection:
        return [line for (line,) in connection.execute("PRAGMA integrity_check") if line != "ok"]


# ── leaders ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def killed_leaders(place: Place, kills: int) -> Iterator[Row]:
    waits = []
    for number in range(kills):
        name = f"a{number}"
        leader = Child(lambda say, name=name: lead(place, name, say))  # type: ignore[misc]
        leader.wait_for_line()
        leader.kill()
        waits.append(in_child(lambda name=name: waited(place, name)))
        leader.lines()
    done = f"{kills} processes killed while they held the lease of {LEASE} s of a question"
    found = f"the next caller was answered after {max(waits):.2f} s at the latest"
    held = max(waits) < LEASE + 0.5
    yield row("kill -9 of a leader", place.name, done, found, "answered once the lease has ended", held=held)


def lead(place: Place, name: str, say: Callable[[str], None]) -> None:
    def answer(body: Any) -> str:
        say("asked")
        time.sleep(60)
        return ""

    ask(place.cache(lease_ttl=LEASE), name, Echo(answer))


def waited(place: Place, name: str) -> float:
    cache = place.cache(lease_ttl=LEASE)
    started = time.monotonic()
    answer = ask(cache, name, Echo())
    took = time.monotonic() - started
    if answer.choices[0].message.content != text(name) or cache.stats()["stored"] != 1:
        raise AssertionError(f"{name} was not answered and stored by {os.getpid()}")
    return took
