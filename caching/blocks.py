"""The `with Cache…` blocks of a process, and which cache a call inside them uses."""

from __future__ import annotations

import contextvars
import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cache import Cache

ambient: contextvars.ContextVar[tuple[Cache, ...]] = contextvars.ContextVar("rejoinder_cache", default=())
"""The caches of the `with Cache…` blocks around this point, the innermost last."""

_blocks: list[tuple[Cache, weakref.WeakSet[threading.Thread]]] = []
"""The open blocks of the process, each with the threads that ran when it was opened."""


def innermost() -> Cache | None:
    """The cache of the innermost `with` block around this call.

    Tasks inherit it with their context. A thread has a context of its own, so that one started inside a block would not
    know of it: a thread that was not there when a block was opened counts as started inside.
    """
    around = ambient.get()
    if around:
        return around[-1]
    if _blocks:
        me = threading.current_thread()
        for cache, before in reversed(_blocks):
            if me not in before:
                return cache
    return None


def enter(cache: Cache) -> None:
    """A block of `cache` begins here."""
    ambient.set((*ambient.get(), cache))
    _blocks.append((cache, weakref.WeakSet(threading.enumerate())))


def leave(cache: Cache) -> None:
    """The innermost block of `cache` ends."""
    ambient.set(ambient.get()[:-1])
    for index in reversed(range(len(_blocks))):
        if _blocks[index][0] is cache:
            del _blocks[index]
            break
