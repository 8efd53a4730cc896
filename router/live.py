"""A stream under way, read by any number of callers: threads and tasks of any loops, from its first chunk.

Whoever needs a chunk that is not there yet pulls the next batch from the vendor, for all. So a reader that is slow
holds nobody up, and one that leaves takes nothing away. When the last reader leaves before the end, the vendor's
connection is closed and nothing is kept.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

from ..caching.flights import in_event_loop
from ..core.flow import Flow, arun, run
from ..providers.base import OpenReply, StreamDecoder
from .faults import twin_of

LOOK_EVERY = 0.5
"""Seconds after which who waits for another loop looks whether it still runs."""

GONE = "the event loop that reads it has stopped"


class OutOfReach(ConnectionError):
    """This reader cannot have the rest of the stream; others may."""


class Tape:
    """A stream that is all there: a replay. `pieces` are its chunks, typed, where somebody has done that already."""

    def __init__(self, chunks: list[bytes], timing: tuple[float, ...] = (), pieces: list[Any] | None = None) -> None:
        self.chunks, self.timing, self.pieces = chunks, timing, pieces
        self.done, self.error = True, None

    def translate(self, error: Exception) -> Exception:
        """Errors of a replay are what they are."""
        return error

    def join(self) -> bool:
        """A replay has no connection that readers would have to share."""
        return True

    def leave(self) -> None:
        """There is nothing to close."""

    def pull(self, index: int) -> None:
        """There is nothing to wait for."""

    async def apull(self, index: int) -> None:
        """There is nothing to wait for."""

    async def aleave(self) -> None:
        """There is nothing to close."""


class LiveStream:
    """One open answer of a vendor.

    `on_end(stream)` is a flow that runs once, when all chunks are there and before any reader is told that it was the
    last; `on_loss(error)` a function that is called once if the stream breaks or is abandoned.
    """

    timing: tuple[float, ...] = ()

    def __init__(
        self, reply: OpenReply, decoder: StreamDecoder, source: Any, translate: Callable[[Exception], Exception]
    ) -> None:
        self.reply, self.decoder, self.source, self.translate = reply, decoder, source, translate
        self.chunks: list[bytes] = []
        self.moments: list[float] = []
        self.done = False
        self.error: Exception | None = None
        self.on_end: Callable[[LiveStream], Flow[None]] | None = None
        self.on_loss: Callable[[BaseException | None], None] | None = None
        self.repeats = ""
        """What `CacheInfo.repeats` says of the answer, once it is whole."""
        self._when_over: list[Callable[[LiveStream], None]] = []
        self.loop = asyncio.get_running_loop() if isinstance(source, AsyncIterator) else None
        self._started = self._moved_at = time.monotonic()
        self._readers = 0
        self._ended = False  # the vendor has said all; what is left is to store it
        self._lock = threading.RLock()  # guards joining and leaving; a garbage collection inside it may make one leave
        self._turn = threading.Lock()  # held by the thread that pulls
        self._pulling: asyncio.Task[None] | None = None

    @property
    def is_moving(self) -> bool:
        """False if it belongs to an event loop that nobody runs, now or ever."""
        return self.loop is None or self.done or self.loop.is_running()

    def is_read(self, patience: float) -> bool:
        """Whether somebody waits for its next chunk, or has had one within so many seconds."""
        is_pulled = self._turn.locked() or self._pulling is not None
        return is_pulled or time.monotonic() - self._moved_at < patience

    # ── readers ───────────────────────────────────────────────────────────────────────────────────────────────────

    def join(self) -> bool:
        """A reader comes. False if the stream broke, or if everybody had left it: there is no whole answer to read."""
        with self._lock:
            if self.error is not None:
                return False
            self._readers += 1
            return True

    def _last_one_leaves(self) -> bool:
        """Whether nobody is left who would want the rest. Nobody can join any more then."""
        with self._lock:
            self._readers -= 1
            if self._readers or self._ended or self.done:
                return False
            self._break(ConnectionError("everybody had stopped reading"))
        self._lose(None)
        return True

    def leave(self) -> None:
        """A reader goes. The last one closes the connection."""
        if not self._last_one_leaves():
            return
        if self.loop is None:
            self.reply.close()
        elif self.loop.is_running():
            _send_to(self.loop, self._close())

    async def aleave(self) -> None:
        """The same, in a task."""
        if not self._last_one_leaves():
            return
        if self.loop is None:
            await asyncio.to_thread(self.reply.close)
        elif self.loop is asyncio.get_running_loop():
            await self._close()
        elif self.loop.is_running():
            _send_to(self.loop, self._close())

    async def _close(self) -> None:
        if self._pulling is not None:
            self._pulling.cancel()
            await asyncio.wait({self._pulling})
        await self.reply.aclose()

    def _break(self, error: BaseException) -> None:
        """There will be no more. Whoever still reads gets `error`, unless it is the puller's own (an interrupt)."""
        if not isinstance(error, Exception):
            error = ConnectionError("the call that was reading it was stopped")
        try:
            self.error = self.translate(error)
        except Exception as untranslated:
            self.error = untranslated
        self.done = True

    def _lose(self, error: BaseException | None) -> None:
        with self._lock:
            on_loss, self.on_loss = self.on_loss, None
        if on_loss is not None:
            on_loss(error)
        self._is_over()

    def when_over(self, tell: Callable[[LiveStream], None]) -> None:
        """`tell(stream)` is called once when it has ended, broken or been left; now if it has. It must not raise."""
        self._when_over.append(tell)
        if self.done:
            self._is_over()

    def _is_over(self) -> None:
        while self._when_over:
            with contextlib.suppress(IndexError):  # another thread has told the last one
                self._when_over.pop()(self)

    # ── pulling: synchronous source ───────────────────────────────────────────────────────────────────────────────

    def pull(self, index: int) -> None:
        """Wait until chunk `index` is there, or the stream is over."""
        if self.loop is not None:
            self._pull_from_afar(self.loop, index)
            return
        with self._turn:
            if index >= len(self.chunks) and not self.done:
                self._pull_batch()

    def _pull_batch(self) -> None:
        try:
            batch = self._decode(next(self.source, None))
            while not batch and not self._ended:
                batch = self._decode(next(self.source, None))
            self.chunks += batch
            if self._ended:
                if self.on_end is not None:
                    run(self.on_end(self))
                self.done = True
                self._is_over()
        except BaseException as error:
            self._break(error)
            self._lose(error)
            self.reply.close()
            if not isinstance(error, Exception):
                raise

    # ── pulling: asynchronous source ──────────────────────────────────────────────────────────────────────────────

    async def apull(self, index: int) -> None:
        """Wait until chunk `index` is there, or the stream is over. Cancelling a waiter does not stop the pull."""
        if self.loop is None:
            await asyncio.to_thread(self.pull, index)
        elif asyncio.get_running_loop() is not self.loop:
            await self._apull_from_afar(self.loop, index)
        elif index >= len(self.chunks) and not self.done:
            if self._pulling is None:
                self._pulling = self.loop.create_task(self._apull_batch())
            await asyncio.wait({self._pulling})

    async def _apull_batch(self) -> None:
        try:
            batch = self._decode(await anext(self.source, None))
            while not batch and not self._ended:
                batch = self._decode(await anext(self.source, None))
            self.chunks += batch
            if self._ended:
                if self.on_end is not None:
                    await arun(self.on_end(self))
                self.done = True
                self._is_over()
        except BaseException as error:
            if not self.done:
                self._break(error)
            self._lose(error)
            await self.reply.aclose()
            if not isinstance(error, Exception):
                raise
        finally:
            self._pulling = None

    # ── pulling for a thread, or a loop, that is not the stream's ─────────────────────────────────────────────────

    def _pull_from_afar(self, loop: asyncio.AbstractEventLoop, index: int) -> None:
        if index < len(self.chunks) or self.done:
            return
        if in_event_loop():
            raise OutOfReach("a thread that runs an event loop cannot wait for another one's stream")
        pulled = self._asked_for(loop, index)
        while not concurrent.futures.wait({pulled}, timeout=LOOK_EVERY).done:
            self._insist_on(loop, pulled)
        self._check_owner(loop)

    async def _apull_from_afar(self, loop: asyncio.AbstractEventLoop, index: int) -> None:
        if index < len(self.chunks) or self.done:
            return
        pulled = self._asked_for(loop, index)
        here = asyncio.wrap_future(pulled)
        # Not awaited itself: if its own loop ends, it is cancelled, and that would look like our cancellation.
        while not (await asyncio.wait({here}, timeout=LOOK_EVERY))[0]:
            self._insist_on(loop, pulled)
        self._check_owner(loop)

    def _asked_for(self, loop: asyncio.AbstractEventLoop, index: int) -> concurrent.futures.Future[None]:
        self._check_owner(loop)
        pulled = _send_to(loop, self.apull(index))
        if pulled is None:
            self._check_owner(loop)
            raise OutOfReach(GONE)
        return pulled

    def _insist_on(self, loop: asyncio.AbstractEventLoop, pulled: concurrent.futures.Future[None]) -> None:
        """Give up, for this reader only, on a loop that stands still: it may be run again, or never."""
        self._check_owner(loop)
        if not loop.is_running():
            if not loop.is_closed():  # then it cannot be told, and trying is an error that gets logged
                pulled.cancel()
            raise OutOfReach(GONE)

    def _check_owner(self, loop: asyncio.AbstractEventLoop) -> None:
        """A stream whose loop is closed is over for everybody."""
        if loop.is_closed() and not self.done:
            self._break(ConnectionError(GONE))
            self._lose(None)

    # ── what both do ──────────────────────────────────────────────────────────────────────────────────────────────

    def _decode(self, data: bytes | None) -> list[bytes]:
        self._moved_at = time.monotonic()
        if data is None:
            batch = self.decoder.end()
            self._ended = True
        else:
            batch = self.decoder.feed(data)
        if batch:
            moment = (self._moved_at - self._started) * 1000
            self.moments += [moment] * len(batch)
        return batch


def _send_to(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]
) -> concurrent.futures.Future[None] | None:
    """Have `loop` do `work`. None if it is closed."""
    try:
        return asyncio.run_coroutine_threadsafe(work, loop)
    except RuntimeError:
        work.close()
        return None


class Membership:
    """One reader's place at a stream, from the moment it is given out until it is left or forgotten."""

    __slots__ = ("_is_in", "stream")

    def __init__(self, stream: Tape | LiveStream) -> None:
        self.stream = stream
        self._is_in = stream.join()

    def __bool__(self) -> bool:
        """Whether there was a place; else the stream is lost."""
        return self._is_in

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
            try:
                stream.pull(index)
            except OutOfReach as error:
                raise stream.translate(error) from None
        if stream.error is not None:
            raise twin_of(stream.error)
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
            try:
                await stream.apull(index)
            except OutOfReach as error:
                raise stream.translate(error) from None
        if stream.error is not None:
            raise twin_of(stream.error)
    finally:
        await member.aleave()
