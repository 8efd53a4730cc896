"""What a store is: bytes by key, with a TTL. The cache in front of it owns all meaning."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, NamedTuple
from urllib.parse import quote

from ...core import threads


class Record(NamedTuple):
    """What a store can say of one entry without decoding it."""

    key: str
    size: int  # bytes, as stored
    stored_at: float  # seconds since the epoch
    expires_at: float | None  # seconds since the epoch; None: never


class TooLarge(ValueError):
    """This value is more than the store can hold, which says nothing of the next one."""


MARK = "tag:"
"""What a mark's key begins with, after its namespace: "team%3Aa:tag:draft:" and the rest of the tagged key."""


MARKS_OUTLAST = 60.0
"""Seconds between the end of what has a tag and the end of its mark."""


def mark_of(prefix: str, tag: str) -> str:
    """What the keys of the marks of `tag` begin with. `prefix` is the namespace's, with its colon."""
    return f"{prefix}{MARK}{quote(tag, safe='')}:"


def longest_lease(ttl: float) -> float:
    """Seconds that a lease may have yet to run where one for `ttl` is asked for.

    One that ends later was taken before the clock was set back, perhaps by a process that has died since. It counts as
    ended; else callers would wait for it for as long as the step was.
    """
    return max(60.0, 10 * ttl)


def is_mark(key: str) -> bool:
    """Whether `key` is a mark's, and no answer's."""
    return key.partition(":")[2].startswith(MARK)


class Store(ABC):
    """A map from text keys to bytes. Subclass it, write four methods, inherit `StoreConformance` in a test.

    - Any method may raise any exception: the cache counts it, logs it once and answers the call without the cache.
    - An operation must not block for longer than `budget` seconds where the medium allows to say so (socket timeout,
      busy timeout).
    - The methods are called from many threads at once, and after a fork in the child.
    - The async twins default to a thread. Override them where the medium has a native client, and keep a client per
      event loop: a connection made in one loop does not work in another.
    """

    name: ClassVar[str]
    """The word for it in `Cache(type=…)`, in messages and in statistics."""

    instant: ClassVar[bool] = False
    """True if `get` waits for no network and is quicker than the way to a thread: event loops call it directly."""

    checked: ClassVar[bool] = False
    """True if what `get` gives is what `set` was given: the store has its own checksum, or needs none."""

    in_process: ClassVar[bool] = False
    """True if it keeps bytes in this process's memory: nothing is gained by deflating them, and `set` never waits."""

    leases: ClassVar[bool] = False
    """True if `lease` works across processes. A store without it gives single-flight inside one process only."""

    budget: float = 0.1
    """Seconds that one operation may take before it counts as failed."""

    def __repr__(self) -> str:
        path = getattr(self, "path", None)
        return f"{type(self).__name__}({'' if path is None else path})"

    # ── the four methods ──────────────────────────────────────────────────────────────────────────────────────────

    @abstractmethod
    def get(self, key: str) -> bytes | None:
        """The bytes stored under `key`, or None if there are none or they have expired."""

    @abstractmethod
    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        """Store `value` under `key`, atomically, for `ttl` seconds (None: until removed). Replaces what was there."""

    @abstractmethod
    def delete(self, key: str) -> bool:
        """Remove `key`. True if it was there."""

    @abstractmethod
    def scan(self, prefix: str = "") -> Iterator[Record]:
        """Every live entry whose key starts with `prefix`, in any order, in bounded memory."""

    # ── what may be left as it is ─────────────────────────────────────────────────────────────────────────────────

    def clear(self, prefix: str = "") -> int:
        """Remove every key that starts with `prefix`; how many there were."""
        return sum(self.delete(record.key) for record in list(self.scan(prefix)))

    def prune(self) -> int:
        """Remove what has expired, where the medium does not do so by itself; how many there were."""
        return 0

    def expired(self, prefix: str = "") -> Iterator[Record]:
        """Like `scan`, every entry that has expired and yet is there until `prune`. Some media keep none."""
        return iter(())

    def tag(self, key: str, tags: Sequence[str], ttl: float | None = None) -> None:
        """Note that `key`, which is about to be set for `ttl` seconds, belongs to each of `tags`.

        Here a tag is an entry of its own beside each that has it, a mark. A medium that evicts must not lose the tags
        of what it keeps, so it overrides this and `tagged` with something native.
        """
        prefix, rest = key[: key.find(":") + 1], key[key.find(":") + 1 :]
        for tag in tags:
            # The key is set a moment later than its mark, and so ends later.
            self.set(mark_of(prefix, tag) + rest, b"", None if ttl is None else ttl + MARKS_OUTLAST)

    def tagged(self, prefix: str, tag: str) -> Iterator[str]:
        """The keys that were given `tag` and start with `prefix`, a namespace's with its colon. Some may be gone."""
        mark = mark_of(prefix, tag)
        return (prefix + record.key[len(mark) :] for record in self.scan(mark))

    def clear_tag(self, prefix: str, tag: str) -> int:
        """Remove every key of the namespace `prefix` that was given `tag`; how many there were."""
        keys = list(self.tagged(prefix, tag))
        count = sum(self.delete(key) for key in keys)
        self.clear(mark_of(prefix, tag))
        return count

    def tags_of(self, key: str) -> Sequence[str]:
        """The tags of what is under `key`, if this store may evict it while a layer before has a copy.

        A medium that keeps marks leaves this as it is: a mark is there as long as a copy may serve.
        """
        return ()

    def peek(self, keys: Sequence[str]) -> list[bytes | None]:
        """What is there under each key, expired or not, to be looked at and not used.

        None: nothing. Empty: the store sees that its bytes are damaged. A store that removes what has expired, and that
        does not care when a value was last used, leaves this as it is.
        """
        return [self.get(key) for key in keys]

    def close(self) -> None:  # noqa: B027 - not every medium has something to close
        """Release connections and files. A closed store may be used again, and then opens anew."""

    def lease(self, key: str, ttl: float) -> str | None:
        """Take the right to answer `key` for `ttl` seconds: a token, or None while somebody else holds it.

        An async twin that is cancelled must leave nothing taken: see `leaving_nothing_taken`.
        """
        raise NotImplementedError(f"The {self.name} store has no leases.")

    def renew(self, key: str, token: str, ttl: float) -> bool:
        """Hold on to a lease for `ttl` seconds from now. False if it is no longer ours."""
        raise NotImplementedError(f"The {self.name} store has no leases.")

    def release(self, key: str, token: str) -> bool:
        """Give a lease back. False, and nothing done, if it is no longer ours."""
        raise NotImplementedError(f"The {self.name} store has no leases.")

    def release_soon(self, key: str, token: str) -> None:
        """Give a lease back without waiting, whatever comes of it: for a task that was cancelled while it took it.

            task:     sends "take it", is cancelled
            thread:                                  sends "give it back", there is nothing
            server:                                                                         gets "take it"

        So it is tried again, until what the task has sent must have come to an end.
        """

        def release() -> None:
            for pause in (0.0, self.budget / 10, self.budget, 5 * self.budget):
                time.sleep(pause)
                with contextlib.suppress(Exception):  # then it ends by itself
                    if self.release(key, token):
                        return

        if token:
            # No daemon: a process that ends after an interrupt should not let others wait for its lease to end.
            threads.start(release, daemon=False)

    @contextlib.contextmanager
    def leaving_nothing_taken(self, key: str, token: str) -> Iterator[None]:
        """Around what takes a lease: is a task cancelled in there, the lease is given back."""
        try:
            yield
        except asyncio.CancelledError:
            self.release_soon(key, token)  # it may be ours by now
            raise

    # ── async twins ───────────────────────────────────────────────────────────────────────────────────────────────

    async def aget(self, key: str) -> bytes | None:
        return await asyncio.to_thread(self.get, key)

    async def aset(self, key: str, value: bytes, ttl: float | None = None) -> None:
        await asyncio.to_thread(self.set, key, value, ttl)

    async def adelete(self, key: str) -> bool:
        return await asyncio.to_thread(self.delete, key)

    async def aclear(self, prefix: str = "") -> int:
        return await asyncio.to_thread(self.clear, prefix)

    async def atag(self, key: str, tags: Sequence[str], ttl: float | None = None) -> None:
        await asyncio.to_thread(self.tag, key, tags, ttl)

    async def aclear_tag(self, prefix: str, tag: str) -> int:
        return await asyncio.to_thread(self.clear_tag, prefix, tag)

    async def aclose(self) -> None:
        await asyncio.to_thread(self.close)

    async def alease(self, key: str, ttl: float) -> str | None:
        return await Taking(self.lease, self.release_soon, key, ttl).taken()

    async def arenew(self, key: str, token: str, ttl: float) -> bool:
        return await asyncio.to_thread(self.renew, key, token, ttl)

    async def arelease(self, key: str, token: str) -> bool:
        return await asyncio.to_thread(self.release, key, token)


class Taking:
    """A lease that a thread takes for a task. Is the task cancelled meanwhile, the lease is given back.

        task:   waits                cancelled, leaves
        thread:        SET … NX                         sees that nobody wants it, and gives it back

    The thread does so itself, because the loop may be about to end, and take its tasks and callbacks along.
    """

    def __init__(
        self, take: Callable[[str, float], str | None], give_back: Callable[[str, str], None], key: str, ttl: float
    ) -> None:
        self._take, self._give_back, self._key, self._ttl = take, give_back, key, ttl
        self._lock = threading.Lock()
        self._is_wanted, self._token = True, ""

    async def taken(self) -> str | None:
        """The token, or None while somebody else holds the lease."""
        try:
            return await asyncio.to_thread(self._in_thread)
        except asyncio.CancelledError:
            with self._lock:
                self._is_wanted = False
            self._give_back(self._key, self._token)
            raise

    def _in_thread(self) -> str | None:
        token = self._take(self._key, self._ttl)
        with self._lock:
            if self._is_wanted:
                self._token = token or ""
                return token
        self._give_back(self._key, token or "")
        return None
