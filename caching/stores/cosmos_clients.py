"""What the Cosmos store talks through: one client for all threads, and one for each event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from asyncio import AbstractEventLoop
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from typing import Any
from weakref import WeakKeyDictionary


class Client:
    """What threads talk through. Opened in a thread of its own, since the SDK does not bound what its opening takes."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._opening: Future[Any] | None = None

    def container(self, open: Callable[[], Any], budget: float) -> Any:
        opening = self._opening
        if opening is None or (opening.done() and opening.exception() is not None):
            with self._lock:
                if self._opening is opening:
                    self._opening = Future()
                    threading.Thread(target=_fulfil, args=(self._opening, open), daemon=True).start()
                opening = self._opening
        assert opening is not None
        return opening.result(budget)


def _fulfil(promise: Future[Any], work: Callable[[], Any]) -> None:
    try:
        promise.set_result(work())
    except BaseException as error:
        promise.set_exception(error)


class Lane:
    """What one event loop talks through."""

    def __init__(self, keeper: AsyncGenerator[None], opening: asyncio.Task[Any]) -> None:
        self.pid, self.keeper, self.opening = os.getpid(), keeper, opening
        opening.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, though nobody waits

    @property
    def has_failed(self) -> bool:
        done = self.opening
        return done.done() and (done.cancelled() or done.exception() is not None)

    async def aclose(self) -> None:
        self.opening.cancel()
        await self.keeper.aclose()


async def keep(client: Any, lanes: WeakKeyDictionary[AbstractEventLoop, Lane]) -> AsyncGenerator[None]:
    """Close `client` while its loop still runs: asyncio ends the generators of a loop before it closes the loop."""
    try:
        yield
    finally:
        lanes.pop(asyncio.get_running_loop(), None)
        await client.close()


def finish(lane: Lane) -> None:
    task = asyncio.ensure_future(lane.aclose())
    _finishing.add(task)  # asyncio itself holds on to a task only weakly
    task.add_done_callback(_finishing.discard)


_finishing: set[asyncio.Future[None]] = set()
