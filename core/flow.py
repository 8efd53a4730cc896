"""One flow, two drivers.

A *flow* is a generator that decides, and yields an `Io` for each piece of input or output it wants done. `run` does it
with the synchronous half, `arun` with the asynchronous half, so that the data path is written once. The idea is that
of httpx's `auth_flow`.

    def lookup(store, key):
        data = yield Io(store.get, store.aget, (key,))
        return decode(data)

    run(lookup(store, "k"))            # calls store.get("k")
    await arun(lookup(store, "k"))     # awaits store.aget("k")
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class Io(NamedTuple):
    """One piece of input or output, in both its forms."""

    function: Callable[..., Any]
    afunction: Callable[..., Awaitable[Any]]
    args: tuple[Any, ...] = ()


Flow = Generator[Io, Any, T]


def run(flow: Flow[T]) -> T:
    """Drive `flow` to its end in this thread, and return its result.

    An exception raised by a piece of I/O is thrown into the flow at the place where it was asked for.
    """
    try:
        io = flow.send(None)
        while True:
            try:
                result = io.function(*io.args)
            except BaseException as error:
                io = flow.throw(error)
            else:
                io = flow.send(result)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def arun(flow: Flow[T]) -> T:
    """Drive `flow` to its end in the running event loop, and return its result."""
    try:
        io = flow.send(None)
        while True:
            try:
                result = await io.afunction(*io.args)
            except BaseException as error:
                io = flow.throw(error)
            else:
                io = flow.send(result)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
