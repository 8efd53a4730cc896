"""What the Redis store keeps for each event loop: its clients, places for calls, and the writes of a turn."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import os
from asyncio import AbstractEventLoop
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import suppress
from itertools import chain
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

from .redis_servers import Clients

Write = tuple[bytes, bytes, float | None]
"""A key, its value and its TTL."""

_TURNS = 10  # of the event loop, that an answer may be late without the server being to blame

_BATCH, _BATCH_BYTES = 200, 256_000  # of writes sent together, which are to be done within the budget of one


class Lane:
    """What one event loop talks through: clients of its own, and how many calls may use them at a time."""

    __slots__ = ("_size", "client", "clients", "held_back", "keeper", "outages", "pid", "places", "writes")

    def __init__(self, client: Any, clients: Clients, places: int, keeper: AsyncGenerator[None] | None) -> None:
        self.client, self.clients, self.places, self.keeper = client, clients, asyncio.Semaphore(places), keeper
        self.outages, self.pid, self.writes = 0, os.getpid(), Writes()
        self.held_back, self._size = 0, places

    def hold_back(self) -> None:
        """Begin with two places, one more after each call that has gone well.

        Handshakes of TLS take milliseconds of a core. Were there as many at once as there are places, a loop's first
        calls would together use up the budget that each has, be given up, and begin again no better.
        """
        places = min(2, self._size)
        self.held_back, self.places = self._size - places, asyncio.Semaphore(places)

    def let_in(self) -> None:
        self.held_back -= 1
        self.places.release()

    def abandon(self) -> None:
        """Close the sockets after the loop was closed without a chance to. A closed loop can no longer be waited on."""
        pools = [client.connection_pool for client in self.clients.opened()]
        for connection in chain(*(chain(pool._available_connections, pool._in_use_connections) for pool in pools)):
            writer, connection._reader, connection._writer = connection._writer, None, None
            if writer is not None:
                with suppress(RuntimeError):  # that the loop is closed; by then the transport knows that it is closing
                    writer.transport.close()
                # The rest of closing, which the transport has just failed to leave to the loop.
                finish = getattr(writer.transport, "_call_connection_lost", None)
                if finish is not None:
                    finish(None)


class Writes:
    """The writes of one turn of an event loop. The first goes its own way at once; those that follow it go together.

    A task of their own sends them, so that a writer who is cancelled takes nobody's write along.
    """

    __slots__ = ("_has_first", "_under_way", "_waiting")

    def __init__(self) -> None:
        self._has_first = False
        self._waiting: list[tuple[Write, asyncio.Future[None]]] = []
        self._under_way: set[asyncio.Task[None]] = set()

    def is_first(self, send: Callable[[list[Write]], Awaitable[list[Exception | None]]]) -> bool:
        """Whether the caller is the first of this turn. For the others `send` is called, at the turn's end."""
        if self._has_first:
            return False
        self._has_first = True
        # In a context of its own, which outlives no call.
        asyncio.get_running_loop().call_soon(self._send_off, send, context=contextvars.Context())
        return True

    async def join(self, write: Write) -> None:
        """Have it sent with the others; its own error is raised here."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((write, done))
        await done

    def _send_off(self, send: Callable[[list[Write]], Awaitable[list[Exception | None]]]) -> None:
        waiting, self._waiting, self._has_first = self._waiting, [], False
        for batch in _batches([each for each in waiting if not each[1].done()]):
            task = asyncio.get_running_loop().create_task(_deliver(send, batch))
            self._under_way.add(task)  # asyncio itself holds on to a task only weakly
            task.add_done_callback(self._under_way.discard)


async def _deliver(
    send: Callable[[list[Write]], Awaitable[list[Exception | None]]],
    batch: list[tuple[Write, asyncio.Future[None]]],
) -> None:
    try:
        errors = await send([write for write, _ in batch])
    except Exception as error:
        # To each its own, as each adds to its traceback.
        errors = [copy.copy(error).with_traceback(None) for _ in batch]
    except BaseException:  # the loop is ending
        for _, done in batch:
            done.cancel()
        raise
    for (_, done), problem in zip(batch, errors, strict=True):
        if done.done():
            continue
        if problem is None:
            done.set_result(None)
        else:
            done.set_exception(problem)


def _batches(waiting: list[tuple[Write, asyncio.Future[None]]]) -> Iterator[list[tuple[Write, asyncio.Future[None]]]]:
    batch: list[tuple[Write, asyncio.Future[None]]] = []
    size = 0
    for each in waiting:
        length = len(each[0][1])
        if batch and (len(batch) == _BATCH or size + length > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += length
    if batch:
        yield batch


class Patience:
    """Like `asyncio.timeout`, but a loop too busy to read its sockets is not mistaken for a server that is silent.

    Once the seconds are over, the loop gets a few turns to deliver what has arrived. They cost an idle loop nothing.
    """

    __slots__ = ("_limit", "_loop", "_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds, self._limit = seconds, asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle = self._loop.call_later(self._seconds, self._take_turn, _TURNS)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._limit.__aexit__(kind, error, traceback)

    def _take_turn(self, left: int) -> None:
        if left:
            self._timer = self._loop.call_soon(self._take_turn, left - 1)
        else:
            self._limit.reschedule(self._loop.time())


async def keep(clients: Clients, lanes: WeakKeyDictionary[AbstractEventLoop, Lane]) -> AsyncGenerator[None]:
    """Close `clients` while its loop still runs: asyncio ends the generators of a loop before it closes the loop."""
    try:
        yield
    finally:
        loop = asyncio.get_running_loop()
        lane = lanes.get(loop)
        if lane is not None and lane.clients is clients:
            del lanes[loop]
        for client in clients.opened():
            await client.aclose()


def finish(keeper: AsyncGenerator[None]) -> None:
    task = asyncio.ensure_future(keeper.aclose())
    _finishing.add(task)  # asyncio itself holds on to a task only weakly
    task.add_done_callback(_finishing.discard)


_finishing: set[asyncio.Future[None]] = set()


def loops_of(lanes: WeakKeyDictionary[AbstractEventLoop, Lane]) -> list[AbstractEventLoop]:
    # One step, unlike list(lanes), which other threads may disturb.
    return [loop for reference in lanes.keyrefs() if (loop := reference()) is not None]
