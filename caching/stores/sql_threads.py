"""How the SQL store's operations take turns: threads for a server, and a gate before a file."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

LINGER = 5.0  # seconds that a thread waits for more to do


class Gate:
    """Lets up to `places` threads in, in the order in which they came, until it is shut.

    SQLAlchemy's pool knows no order: a thread that asks again at once is served before those that have waited.
    """

    def __init__(self, places: int) -> None:
        self._places, self._inside, self._is_shut = places, 0, False
        self._waiting: deque[threading.Lock] = deque()
        self._changed = threading.Condition(threading.Lock())

    def enter(self, patience: float) -> None:
        """Raises `TimeoutError` if there is no place within `patience` seconds."""
        with self._changed:
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
            self._admit()
        if turn.acquire(timeout=patience):
            return
        with self._changed:
            if turn in self._waiting:  # else it was let in just now
                self._waiting.remove(turn)
                raise TimeoutError(f"The database was busy for longer than {patience} s.")

    def leave(self) -> None:
        with self._changed:
            self._inside -= 1
            self._admit()
            self._changed.notify_all()

    def _admit(self) -> None:
        while self._waiting and not self._is_shut and self._inside < self._places:
            self._inside += 1
            self._waiting.popleft().release()

    def shut(self, patience: float) -> None:
        """Return when nobody is inside any more, or after `patience` seconds."""
        with self._changed:
            self._is_shut = True
            self._changed.wait_for(lambda: not self._inside, patience)

    def open(self) -> None:
        with self._changed:
            self._is_shut = False
            self._admit()


class Crew:
    """Up to `size` threads that do jobs, in order. Daemons, so that one which hangs does not keep the process alive."""

    def __init__(self, size: int) -> None:
        self._size, self._threads, self._idle = size, 0, 0
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._counting = threading.Lock()

    def submit(self, work: Callable[..., Any], *args: Any) -> Job:
        job = Job(work, args)
        with self._counting:
            self._jobs.put(job)
            if self._idle < self._jobs.qsize() and self._threads < self._size:
                self._threads += 1
                threading.Thread(target=self._run, name="rejoinder-sql", daemon=True).start()
        return job

    def _run(self) -> None:
        while True:
            with self._counting:
                self._idle += 1
            try:
                job = self._jobs.get(timeout=LINGER)
            except Empty:
                with self._counting:
                    self._idle -= 1
                    if self._jobs.empty():  # nothing was put between our last look and the lock
                        self._threads -= 1
                        return
                continue
            with self._counting:
                self._idle -= 1
            job.do()
            del job  # an idle thread holds on to nothing


class Job:
    """Something to do in another thread. Like a `Future`, at half the price."""

    __slots__ = ("_args", "_done", "_error", "_result", "_wake", "_work", "is_wanted")

    def __init__(self, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._work, self._args, self.is_wanted = work, args, True
        self._result: Any = None
        self._error: BaseException | None = None
        self._done = threading.Lock()
        self._done.acquire()
        self._wake: Callable[[], object] | None = None
        """What a waiting event loop is told by."""

    def do(self) -> None:
        try:
            if self.is_wanted:
                self._result = self._work(*self._args)
        except BaseException as error:
            self._error = error
        finally:
            self._done.release()
            if self._wake is not None:
                with suppress(RuntimeError):  # that the loop is closed
                    self._wake()

    async def aresult(self, patience: float) -> Any:
        """`result` for a task."""
        loop = asyncio.get_running_loop()
        is_done = asyncio.Event()
        self._wake = partial(loop.call_soon_threadsafe, is_done.set)
        # It may have been done before anybody could be told; and a loop that was busy for too long is no silent server.
        if self._done.locked():
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await is_done.wait()
        return self.result(0)

    def result(self, patience: float) -> Any:
        """What the work returned, or what it raised. Raises `TimeoutError` if it takes longer than `patience`."""
        if not self._done.acquire(timeout=patience):
            self.is_wanted = False  # it need not begin any more
            raise TimeoutError
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # or it and its traceback would hold each other
        return self._result
