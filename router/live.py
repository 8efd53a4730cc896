"""A stream under way, read by any number of callers: threads and tasks of any loops, from its first chunk.

Whoever needs a chunk that is not there yet pulls the next batch from the vendor, for everybody. So a reader that is slow
holds nobody up, and one that leaves takes nothing away. When the last reader leaves before the end, the vendor's
connection is closed and nothing is kept.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Any

from ..caching.flights import in_event_loop
from ..core.flow import Flow, arun, run
from ..providers.base import OpenReply, StreamDecoder


class Tape:
    """A stream that is all there: a replay."""

    def __init__(self, chunks: list[bytes], timing: tuple[float, ...] = ()) -> None:
        self.chunks, self.timing = chunks, timing
        self.done, self.error = True, None

    def translate(self, error: Exception) -> Exception:
        """Errors of a replay are what they are."""
        return error

    def join(self) -> None:
        """A replay has no connection that readers would have to share."""

    leave = join

    def pull(self, index: int) -> None:
        """There is nothing to wait for."""

    async def apull(self, index: int) -> None:
        """There is nothing to wait for."""

    async def aleave(self) -> None:
        """There is nothing to close."""


class LiveStream:
    """One open answer of a vendor.

    `on_end(stream)` is a flow that runs once, before the last chunk is handed out, when the stream is complete;
    `on_loss(stream, error)` a function that is called once if it breaks or is abandoned.
    """

    timing: tuple[float, ...] = ()

    def __init__(
        self, reply: OpenReply, decoder: StreamDecoder, source: Any, translate: Callable[[Exception], Exception]
    ) -> None:
        self.reply, self.decoder, self.source, self.translate = reply, decoder, source, translate
        self.chunks: list[bytes] = []
        self.moments: list[float] = []
        self.done = False
        self.error: BaseException | None = None
        self.on_end: Callable[[LiveStream], Flow[None]] | None = None
        self.on_loss: Callable[[LiveStream, BaseException | None], Flow[None]] | None = None
        self.loop = asyncio.get_running_loop() if isinstance(source, AsyncIterator) else None
        self._started = time.monotonic()
        self._readers = 0
        self._lock = threading.Lock()  # guards _readers
        self._turn = threading.Lock()  # held by the thread that pulls
        self._pulling: asyncio.Task[None] | None = None

    # ── readers ───────────────────────────────────────────────────────────────────────────────────────────────────

    def join(self) -> None:
        with self._lock:
            self._readers += 1

    def _last_one_leaves(self) -> bool:
        with self._lock:
            self._readers -= 1
            return self._readers == 0 and not self.done

    def leave(self) -> None:
        """A reader goes. The last one closes the connection."""
        if not self._last_one_leaves():
            return
        if self.loop is None:
            self.done = True
            self.reply.close()
            self._lose(None)
        elif not self.loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._abandon(), self.loop)

    async def aleave(self) -> None:
        """The same, in a task."""
        if not self._last_one_leaves():
            return
        if self.loop is None:
            self.done = True
            await asyncio.to_thread(self.reply.close)
            self._lose(None)
        else:
            await self._abandon()

    async def _abandon(self) -> None:
        self.done = True
        if self._pulling is not None:
            self._pulling.cancel()
        await self.reply.aclose()
        if self.on_loss is not None:
            await arun(self.on_loss(self, None))

    def _lose(self, error: BaseException | None) -> None:
        if self.on_loss is not None:
            run(self.on_loss(self, error))

    # ── pulling: synchronous source ───────────────────────────────────────────────────────────────────────────────

    def pull(self, index: int) -> None:
        """Wait until chunk `index` is there, or the stream is over."""
        if self.loop is not None:
            self._pull_from_afar(index)
            return
        with self._turn:
            if index >= len(self.chunks) and not self.done:
                self._pull_batch()

    def _pull_from_afar(self, index: int) -> None:
        """A thread follows a stream that belongs to an event loop of another thread."""
        assert self.loop is not None
        if in_event_loop() or self.loop.is_closed():
            self.error = self.error or self.translate(ConnectionError("the stream's event loop is gone"))
            self.done = True
            return
        asyncio.run_coroutine_threadsafe(self.apull(index), self.loop).result()

    def _pull_batch(self) -> None:
        try:
            while not (batch := self._decode(next(self.source, None))) and not self.done:
                continue
            self.chunks += batch
            if self.done and self.on_end is not None:
                run(self.on_end(self))
        except BaseException as error:
            self._break(error)
            self.reply.close()
            self._lose(error)
            if not isinstance(error, Exception):
                raise

    # ── pulling: asynchronous source ──────────────────────────────────────────────────────────────────────────────

    async def apull(self, index: int) -> None:
        """Wait until chunk `index` is there, or the stream is over. Cancelling a waiter does not stop the pull."""
        if self.loop is None:
            await asyncio.to_thread(self.pull, index)
        elif asyncio.get_running_loop() is not self.loop:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self.apull(index), self.loop))
        elif index >= len(self.chunks) and not self.done:
            if self._pulling is None:
                self._pulling = self.loop.create_task(self._apull_batch())
            await asyncio.shield(self._pulling)

    async def _apull_batch(self) -> None:
        try:
            while not (batch := self._decode(await anext(self.source, None))) and not self.done:
                continue
            self.chunks += batch
            if self.done and self.on_end is not None:
                await arun(self.on_end(self))
        except BaseException as error:
            self._break(error)
            await self.reply.aclose()
            if self.on_loss is not None:
                await arun(self.on_loss(self, error))
            if not isinstance(error, Exception):
                raise
        finally:
            self._pulling = None

    # ── what both do ──────────────────────────────────────────────────────────────────────────────────────────────

    def _decode(self, data: bytes | None) -> list[bytes]:
        if data is None:
            batch = self.decoder.end()
            self.done = True
        else:
            batch = self.decoder.feed(data)
        if batch:
            moment = (time.monotonic() - self._started) * 1000
            self.moments += [moment] * len(batch)
        return batch

    def _break(self, error: BaseException) -> None:
        self.error = self.translate(error) if isinstance(error, Exception) else error
        self.done = True


class Membership:
    """One reader's place at a stream, from the moment it is given out until it is left or forgotten."""

    __slots__ = ("_is_in", "stream")

    def __init__(self, stream: Tape | LiveStream) -> None:
        self.stream, self._is_in = stream, True
        stream.join()

    def leave(self) -> None:
        if self._is_in:
            self._is_in = False
            self.stream.leave()

    async def aleave(self) -> None:
        if self._is_in:
            self._is_in = False
            await self.stream.aleave()

    __del__ = leave


def read(member: Membership) -> Iterator[bytes]:
    """The chunks of a stream from its first, as they come."""
    stream, index = member.stream, 0
    chunks = stream.chunks
    try:
        while True:
            while index < len(chunks):
                yield chunks[index]
                index += 1
            if stream.done and index >= len(chunks):
                break
            stream.pull(index)
        if stream.error is not None:
            raise stream.error
    finally:
        member.leave()


async def aread(member: Membership) -> AsyncGenerator[bytes, None]:
    """The same for a task."""
    stream, index = member.stream, 0
    chunks = stream.chunks
    try:
        while True:
            while index < len(chunks):
                yield chunks[index]
                index += 1
            if stream.done and index >= len(chunks):
                break
            await stream.apull(index)
        if stream.error is not None:
            raise stream.error
    finally:
        await member.aleave()
