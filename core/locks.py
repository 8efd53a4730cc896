"""Locks that are free in the child of a fork.

A child has one thread, the one that forked. A lock that another thread held at that moment would stay locked for ever:

    parent, thread 1: stores, and holds the lock
    parent, thread 2:                             forks
    child:                                               stores, and waits for a thread that is not there

So the thread that forks waits for these locks, holds them all, and lets go on both sides. What they guard is whole.
None may be taken while another is held, and each for a moment only.
"""

from __future__ import annotations

import os
import threading
import weakref

PATIENCE = 5.0
"""Seconds that a fork waits for a lock."""

_all: weakref.WeakSet[threading.Lock] = weakref.WeakSet()
_held: list[threading.Lock] = []


def new_lock() -> threading.Lock:
    lock = threading.Lock()
    _all.add(lock)
    return lock


def _living() -> list[threading.Lock]:
    while True:
        try:
            return list(_all)
        except RuntimeError:  # another thread made one meanwhile
            continue


def _before_fork() -> None:
    _held.extend(lock for lock in _living() if lock.acquire(timeout=PATIENCE))


def _after_in_parent() -> None:
    while _held:
        _held.pop().release()


def _after_in_child() -> None:
    _held.clear()
    for lock in _living():
        if lock.locked():  # by the fork, or by a thread that is not here
            lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
