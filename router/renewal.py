"""Fetching an answer anew in the background, while the one that is stored serves."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..caching.entry import Entry
from ..core import threads
from ..core.flow import Flow, Io, arun, run
from ..core.types import Request
from .books import Slip, slip_of
from .miss import Place, answer_miss

Params = Mapping[str, Any]
log = logging.getLogger("rejoinder")


def revalidate(entry: Entry, request: Request, params: Params, place: Place, window: float) -> Flow[None]:
    """Have a new answer fetched in the background, unless somebody is at it already, or was just now."""
    cache, key, controls, _ = place
    if controls.may_store and key not in cache.flights and cache.renewals.begin([key], window, cache.clock()):
        fetching = _fetch_anew(entry, request, params, place, slip_of(request, params, cache))
        yield Io(in_thread, in_task, (fetching, lambda: cache.renewals.end([key], cache.clock())))


def in_thread(flow: Flow[None], over: Callable[[], None]) -> None:
    """Have `flow` done in a thread of its own, in this context, and wait for nothing. `over()` is called at its end."""

    def work() -> None:
        try:
            run(flow)
        finally:
            over()

    # A daemon: a vendor that hangs should not keep a program from its end.
    if not threads.start(partial(contextvars.copy_context().run, work), daemon=True):
        log.info("Nothing is fetched in the background: no thread can be started.")
        over()


async def in_task(flow: Flow[None], over: Callable[[], None]) -> None:
    """Have `flow` done in a task of its own, and wait for nothing. `over()` is called at its end."""
    task = asyncio.get_running_loop().create_task(arun(flow))
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    task.add_done_callback(lambda _: over())  # also where it is cancelled before it has begun


_under_way: set[asyncio.Task[None]] = set()
"""Tasks that nobody awaits; a loop alone would not keep them alive."""


def _fetch_anew(entry: Entry, request: Request, params: Params, place: Place, slip: Slip | None) -> Flow[None]:
    # What another process has fetched meanwhile will do: anything that is younger than this entry.
    younger = max(0.0, place.cache.clock() - entry.stored_at) * (1 - 1e-9)
    anew = place.controls._replace(max_age=younger, error_ttl=0.0)
    try:
        found = yield from answer_miss(request._replace(stream=False), params, place._replace(controls=anew))
        if slip is not None and not found.cache:
            slip.counted(found)
    except Exception as error:  # a caller's own function may raise anything, and here is nobody to catch it
        place.cache.counts["stale_errors"] += 1
        log.info("The answer of %s could not be renewed: %s", request.full_model, error)
