"""Whether memory grows with the number of calls."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.upstream import Upstream

from ..measure import Effort, Messages, new_prompt
from ..report import Budget, Row
from ..subject import Subject, use_cache

CALLS = 20_000
STATM = Path("/proc/self/statm")
MEGABYTE = 2**20
SPARE_BLOCKS = 500
"""What may come to stay once, by whatever is done for the first time. On top of it, a block in eight calls."""
ENTRIES = 100
"""What the cache may keep: its own growth up to its bound is not what is asked here."""


def growth(effort: Effort) -> Iterator[Row]:
    """Hits, misses, streams and replays, half of them async: once warm, and many calls later."""
    if not STATM.exists():
        pytest.skip("the resident memory of a process is read from /proc, which this system does not have")
    use_cache(type="local", max_entries=ENTRIES)
    _fill_parser()
    laps = effort.count(CALLS, 400) // 8
    with Upstream(chunks=5) as upstream, asyncio.Runner() as running:
        subject, known = Subject(upstream.url), new_prompt()
        for _ in range(max(laps // 4, 100)):
            _lap(subject, known, running)
        before, blocks = _resident(), sys.getallocatedblocks()
        for _ in range(laps):
            _lap(subject, known, running)
        after, blocks = _resident(), sys.getallocatedblocks() - blocks
    name = f"memory after {8 * laps:,} calls"
    remark = f"{blocks:+,} blocks of Python memory, {blocks / (8 * laps):+.2f} a call"
    fault = "objects are kept" if blocks > SPARE_BLOCKS + laps else ""
    yield Row(name, after, before, "MB", Budget(at_most=1.02), remark, fault)


def _lap(subject: Subject, known: Messages, running: asyncio.Runner) -> None:
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

    running.run(alap())


def _fill_parser() -> None:
    """Fill pydantic's cache of short strings (16,384, for the whole process), or each new answer's id would count."""
    import pydantic_core

    pydantic_core.from_json(json.dumps([f"chatcmpl-{number}" for number in range(200_000)]))


def _resident() -> float:
    gc.collect()
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MEGABYTE
