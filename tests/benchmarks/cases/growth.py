"""Whether memory grows with the number of calls."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.upstream import Upstream

from ..measure import Effort, Messages, new_prompt
from ..report import Budget, Row
from ..subject import Loop, Subject, loop, use_cache

CALLS = 20_000
STATM = Path("/proc/self/statm")
MEGABYTE = 2**20
ENTRIES = 100
"""What the cache may keep: its own growth up to its bound is not what is asked here."""


def growth(effort: Effort) -> Iterator[Row]:
    """Hits, misses, streams and replays, half of them async: after a tenth of the calls, and after all."""
    if not STATM.exists():
        pytest.skip("the resident memory of a process is read from /proc, which this system does not have")
    use_cache(type="local", max_entries=ENTRIES)
    laps = effort.count(CALLS, 400) // 8
    with Upstream(chunks=5) as upstream, loop() as running:
        subject, known = Subject(upstream.url), new_prompt()
        for _ in range(laps // 10):
            _lap(subject, known, running)
        before = _resident()
        for _ in range(laps):
            _lap(subject, known, running)
        after = _resident()
    name = f"memory after {8 * laps:,} calls"
    yield Row(name, after, before, "MB", Budget(at_most=1.02), "no growth; misses, hits, streams, replays")


def _lap(subject: Subject, known: Messages, running: Loop) -> None:
    """Eight calls."""
    subject.ask(new_prompt())
    subject.ask(known)
    subject.stream(new_prompt())
    subject.stream(known)

    async def alap() -> None:
        await subject.aask(new_prompt())
        await subject.aask(known)
        await subject.astream(new_prompt())
        await subject.astream(known)

    running.block(alap)()


def _resident() -> float:
    gc.collect()
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MEGABYTE
