"""On this machine's disk: one SQLite file that many processes and threads share."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import sys
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from . import disk_file
from .base import Record, Store, TooLarge, longest_lease
from .disk_file import FAILURES, Link, held
from .disk_schema import (
    ADD,
    ADD_TAG,
    CLEAR_TAG,
    DEAD_PAGE,
    FIND,
    HAS_TAGS,
    HOLD,
    KEYS,
    PAGE,
    PRUNE,
    REMOVE,
    TAGGED,
    TAGS_OF,
    TAKE,
    USE,
    bytes_in_use,
    entries_in_all,
    first_to_go,
    parts_for,
)
from .eviction import check_eviction, weight_of
from .tags import AwaitedTags

T = TypeVar("T")

FILE = "cache.sqlite3"

BATCH = 500  # rows a page of a scan, and rows a transaction of clear and prune
NOTES = 1000  # entries whose uses are remembered until the next write; those of further ones are not noted
NOTE_EVERY = 60.0  # seconds between two writings of these notes
FORK_WAIT = 5.0  # seconds that a fork waits for the operations of other threads


class DiskStore(Store):
    """A file that survives the process, is shared by processes, and needs no server.

    `directory` holds the file; None is `default_directory()`. Nothing is created before the first write, and a read
    never creates anything. `max_bytes` bounds the database file (its write-ahead log adds a few megabytes), and
    `max_entries` how many there are; None lifts a bound. What has expired goes first, then by `eviction`: "lru" what
    was used longest ago, "lfu" what was used least often (uses fade, see `eviction.HALF_LIFE`), "fifo" what was stored
    first, "ttl" what ends soonest. A use is noted in batches with a later write or `close`, so that a hit writes
    nothing, and other processes know of it late. A value larger than `max_bytes` raises `TooLarge`.

    A damaged file is renamed to `cache.sqlite3.corrupt-<seconds>` (the latest one is kept) and a new one started, with
    one warning in the log. Each value carries a checksum, so that a flipped bit is a miss and not a wrong answer. A
    file that a newer version or another program wrote is left alone, and every operation raises.

    Not for network file systems: SQLite's write-ahead log needs shared memory between its users.
    """

    name: ClassVar[str] = "disk"
    leases: ClassVar[bool] = True
    instant: ClassVar[bool] = True
    checked: ClassVar[bool] = True

    def __init__(
        self,
        directory: str | Path | None = None,
        *,
        max_bytes: int | None = 2**30,
        max_entries: int | None = None,
        eviction: str = "lru",
        budget: float = 0.1,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.directory = default_directory() if directory is None else Path(directory).expanduser().absolute()
        self.path = self.directory / FILE
        self.max_bytes, self.max_entries, self.eviction = max_bytes, max_entries, check_eviction(eviction)
        self.budget, self.clock = budget, clock
        self._noted_at = clock()
        self._start()
        _stores.add(self)

    # ── the four methods ──────────────────────────────────────────────────────────────────────────────────────────

    def get(self, key: str) -> bytes | None:
        name = _name(key)
        rows = self._read(FIND, (name,))
        if not rows:
            return None
        value, checksum, expires_at = rows[0]
        now = self.clock()
        # Types are asked for because in a damaged file a column may hold anything.
        if expires_at is not None and not (type(expires_at) is float and expires_at > now):
            return None
        if type(value) is not bytes or _checksum(name, value) != checksum:
            return None
        if len(self._uses) < NOTES:
            noted = self._uses.get(name)
            self._uses[name] = (now, 1 if noted is None else noted[1] + 1)
        return value

    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        name, now, tags = _name(key), self.clock(), self._awaited.take(key)
        expires_at = None if ttl is None else now + ttl
        if self.max_bytes is not None and len(value) > self.max_bytes:
            self.delete(key)
            raise TooLarge(f"{len(value):,} bytes are more than the store's max_bytes={self.max_bytes:,}.")

        def work(connection: sqlite3.Connection) -> None:
            tagged = connection.execute(TAGS_OF, (name,)).fetchall() + [(_name(tag), name) for tag in tags]
            connection.execute(REMOVE, (name,))
            body = connection.execute("INSERT INTO bodies (value) VALUES (?)", (value,)).lastrowid
            entry = (name, body, _checksum(name, value), expires_at, now, now, len(value), weight_of(now))
            connection.execute(ADD, entry)
            self._uses.pop(name, None)  # of what was there before
            if tagged:
                connection.executemany(ADD_TAG, tagged)
            if len(self._uses) >= NOTES or not 0 <= now - self._noted_at < NOTE_EVERY:
                self._note_uses(connection)
            self._make_room(connection, name)

        self._write(work, create=True)

    def delete(self, key: str) -> bool:
        return bool(self._change(REMOVE, (_name(key),)))

    def scan(self, prefix: str = "") -> Iterator[Record]:
        return self._pages(PAGE, prefix)

    def _pages(self, statement: str, prefix: str) -> Iterator[Record]:
        start, end = _span(prefix)
        while rows := self._read(statement, (start, end, self.clock(), BATCH)):
            for name, size, stored_at, expires_at in rows:
                key = _key(name)
                if key is not None:
                    yield Record(key, size, stored_at, expires_at)
            start = _after(rows[-1][0])

    # ── more than a store must have ───────────────────────────────────────────────────────────────────────────────

    def expired(self, prefix: str = "") -> Iterator[Record]:
        return self._pages(DEAD_PAGE, prefix)

    def peek(self, keys: Sequence[str]) -> list[bytes | None]:
        return [self._peek(_name(key)) for key in keys]

    def _peek(self, name: bytes) -> bytes | None:
        rows = self._read(FIND, (name,))
        if not rows:
            return None
        value: bytes = rows[0][0]
        return value if type(value) is bytes and _checksum(name, value) == rows[0][1] else b""

    def clear(self, prefix: str = "") -> int:
        start, end = _span(prefix)
        removed = 0
        # In small transactions, since a writer elsewhere waits no longer than its budget. The start moves on, so that
        # this ends although others may keep adding.
        while names := self._read(KEYS, (start, end, BATCH)):
            last = names[-1][0]
            removed += self._change("DELETE FROM entries WHERE key >= ? AND key <= ?", (start, last))
            start = _after(last)
        self._shrink()
        return removed

    def prune(self) -> int:
        now, removed = self.clock(), 0
        while batch := self._change(PRUNE, (now, BATCH)):
            removed += batch
        self._change("DELETE FROM leases WHERE expires_at <= ?", (now,))
        self._shrink()
        return removed

    def tag(self, key: str, tags: Sequence[str], ttl: float | None = None) -> None:
        self._awaited.note(key, tags)

    async def atag(self, key: str, tags: Sequence[str], ttl: float | None = None) -> None:
        self.tag(key, tags, ttl)  # nothing that waits

    def tagged(self, prefix: str, tag: str) -> Iterator[str]:
        if not self._read(HAS_TAGS, ()):  # a file of an older version that nobody has changed since
            return
        start, end = _span(prefix)
        while names := self._read(TAGGED, (_name(tag), start, end, BATCH)):
            yield from (key for (name,) in names if (key := _key(name)) is not None)
            start = _after(names[-1][0])

    def tags_of(self, key: str) -> Sequence[str]:
        if not self._read(HAS_TAGS, ()):
            return ()
        return [text for tag, _ in self._read(TAGS_OF, (_name(key),)) if (text := _key(tag)) is not None]

    def clear_tag(self, prefix: str, tag: str) -> int:
        start, end = _span(prefix)
        removed = 0
        while batch := self._change(CLEAR_TAG, (_name(tag), start, end, BATCH)):
            removed += batch
        self._shrink()
        return removed

    def close(self) -> None:
        if self._uses:
            # Closing must work where writing does not; an unwritten note costs at most an early eviction.
            with contextlib.suppress(sqlite3.Error, OSError):
                self._write(self._note_uses, create=False)
        for link in self._all_links():
            with link.lock:
                link.close()

    def lease(self, key: str, ttl: float) -> str | None:
        name, token, now = _name(key), secrets.token_hex(16), self.clock()
        latest = now + longest_lease(ttl)
        return token if self._change(TAKE, (name, token, now + ttl, now, latest), create=True) else None

    def renew(self, key: str, token: str, ttl: float) -> bool:
        name, now = _name(key), self.clock()
        return bool(self._change(HOLD, (now + ttl, name, token, now)))

    def release(self, key: str, token: str) -> bool:
        live = "DELETE FROM leases WHERE key = ? AND token = ? AND expires_at > ?"
        return bool(self._change(live, (_name(key), token, self.clock())))

    async def aget(self, key: str) -> bytes | None:
        # Without a thread: readers of a write-ahead log wait for nobody, and the hop would cost ten times the read.
        return self.get(key)

    # ── how it is done ────────────────────────────────────────────────────────────────────────────────────────────

    def _start(self) -> None:
        """Begin with no connections: when new, and in the child of a fork."""
        self._threads = threading.local()
        self._links: weakref.WeakSet[Link] = weakref.WeakSet()
        self._registry = threading.Lock()
        self._writing = threading.Lock()
        self._uses: dict[bytes, tuple[float, int]] = {}  # when, the last time, and how often since the last writing
        self._awaited = AwaitedTags()

    def _link(self) -> Link:
        try:
            link: Link = self._threads.link
        except AttributeError:
            parts = parts_for(self.eviction, counts=self.max_entries is not None)
            link = self._threads.link = Link(self.path, self.budget, parts)
            with self._registry:
                self._links.add(link)
        return link

    def _all_links(self) -> list[Link]:
        with self._registry:
            return list(self._links)

    def _read(self, statement: str, arguments: tuple[object, ...]) -> list[Any]:
        """All rows; none if there is no file, or if the file was damaged and has been set aside."""
        link = self._link()
        with link.lock:
            try:
                connection = link.open(create=False)
                return [] if connection is None else connection.execute(statement, arguments).fetchall()
            except FAILURES as error:
                if not link.recover(error):
                    raise
                return []

    def _change(self, statement: str, arguments: tuple[object, ...], *, create: bool = False) -> int:
        """Execute one statement; how many rows it changed."""
        return self._write(lambda connection: connection.execute(statement, arguments).rowcount, create=create) or 0

    def _write(self, work: Callable[[sqlite3.Connection], T], *, create: bool) -> T | None:
        """Do `work` in a transaction, once more if a damaged file was set aside. None if there is no file to change."""
        link = self._link()
        # Threads queue here, which is fair and quick; between processes SQLite can only look again and again.
        with held(self._writing, self.budget), link.lock:
            link.distrust()
            try:
                return link.transact(work, create=create)
            except FAILURES as error:
                if not link.recover(error):
                    raise
            return link.transact(work, create=create)

    def _note_uses(self, connection: sqlite3.Connection) -> None:
        uses, self._uses, self._noted_at = self._uses, {}, self.clock()
        # list(): a reader that got hold of the dict before the swap may still be adding to it.
        rows = [(used_at, weight_of(used_at, times), name) for name, (used_at, times) in list(uses.items())]
        connection.executemany(USE, rows)

    def _make_room(self, connection: sqlite3.Connection, newest: bytes) -> None:
        """Remove entries until the file is within its bounds: expired ones first, then as `eviction` says."""
        if self._surplus(connection) <= 0 and self._excess(connection) <= 0:
            return
        self._note_uses(connection)
        connection.execute(PRUNE, (self.clock(), BATCH))
        if (surplus := self._surplus(connection)) > 0:
            self._evict(connection, newest, entries=surplus)
        # A little more than needed, or every write would have to.
        spare = (self.max_bytes or 0) // 50 if self._excess(connection) > 0 else 0
        while (excess := self._excess(connection) + spare) > 0:
            if not self._evict(connection, newest, size=excess):
                return

    def _surplus(self, connection: sqlite3.Connection) -> int:
        """Entries above the bound."""
        return 0 if self.max_entries is None else entries_in_all(connection) - self.max_entries

    def _excess(self, connection: sqlite3.Connection) -> int:
        """Bytes above the bound, of the file's pages."""
        return 0 if self.max_bytes is None else bytes_in_use(connection) - self.max_bytes

    def _evict(self, connection: sqlite3.Connection, newest: bytes, *, entries: int = 0, size: int = 0) -> int:
        names = first_to_go(connection, self.eviction, newest, entries=entries, size=size)
        connection.executemany(REMOVE, names)
        return len(names)

    def _shrink(self) -> None:
        """Give free pages back to the file system, in steps between which others may write."""
        link = self._link()
        # What was asked for is done. Where another process is busy, its writes will use the free pages.
        with contextlib.suppress(sqlite3.Error, OSError), held(self._writing, self.budget), link.lock:
            connection = link.open(create=False)
            if connection is None:
                return
            (free,) = connection.execute("PRAGMA freelist_count").fetchone()
            for _ in range(0, free, 1000):
                # As a script, since this is a statement that frees one page a step, and `execute` takes one step.
                connection.executescript("PRAGMA incremental_vacuum(1000)")
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def default_directory() -> Path:
    """Where the file lives if nobody says: REJOINDER_CACHE_DIR, or "rejoinder" in the user's cache folder."""
    chosen = os.environ.get("REJOINDER_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        base = Path(local) if local else Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", ""))
        if not base.is_absolute():  # the XDG specification: a relative path is to be ignored
            base = Path.home() / ".cache"
    return base / "rejoinder"


# ── keys ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
# Stored as bytes: text with a NUL or half a surrogate pair confuses SQLite's functions, and bytes compare as they are.


def _name(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


def _key(name: bytes) -> str | None:
    """The text again; None for a damaged key or tag, which nobody can ask for."""
    try:
        return name.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None


def _span(prefix: str) -> tuple[bytes, bytes]:
    """The keys that start with `prefix` are those from the first up to, not including, the second."""
    name = _name(prefix)
    return name, name + b"\xff"  # a byte that UTF-8 never has


def _after(name: bytes) -> bytes:
    return name + b"\0"


def _checksum(name: bytes, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(name))


# ── forks ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
# SQLite keeps a list of the files that this process has open and of their locks. A child inherits the list but not the
# locks, so that even a connection it opens itself would trust in locks which it does not have:
#
#     parent: has the file open, holds a shared lock
#     child:  opens it; the inherited list says that the shared lock is already held, so none is taken
#     parent: closes; no other lock is seen, so it deletes the write-ahead log
#     child:  writes on into the deleted log, and its entries are lost
#
# Hence nothing is open at the moment of a fork. Both sides open anew at their next use.

_stores: weakref.WeakSet[DiskStore] = weakref.WeakSet()
_paused: list[threading.Lock] = []


def _before_fork() -> None:
    deadline = time.monotonic() + FORK_WAIT
    while True:
        for link in _open_links():
            if link.lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
                _paused.append(link.lock)
                link.close()
        if not disk_file.opening.acquire(timeout=FORK_WAIT):
            return
        # A thread that came meanwhile may have opened a connection of its own. From here on, none can.
        if not _open_links() or time.monotonic() > deadline:
            _paused.append(disk_file.opening)
            return
        disk_file.opening.release()


def _open_links() -> list[Link]:
    return [link for store in list(_stores) for link in store._all_links() if link.is_open]


def _after_fork_in_parent() -> None:
    while _paused:
        _paused.pop().release()


def _after_fork_in_child() -> None:
    disk_file.opening = threading.Lock()
    _paused.clear()
    for store in list(_stores):
        store._start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
