"""On this machine's disk: one SQLite file that many processes and threads share."""

from __future__ import annotations

import contextlib
import logging
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

from .base import Record, Store

T = TypeVar("T")

log = logging.getLogger("rejoinder")

FILE = "cache.sqlite3"
VERSION = 1
APPLICATION = 0x726A6E64  # "rjnd", in the file's header: tells our file from somebody else's

# What is known of an entry and its bytes are two tables. Scans, evictions and notes of use then touch rows of a hundred
# bytes, while a point read costs what it would with one table and an index on the key. One table WITHOUT ROWID, the
# obvious layout, reads values of 100 KB six times slower.
SCHEMA = """
CREATE TABLE entries (
    key BLOB PRIMARY KEY, body INTEGER NOT NULL, checksum INTEGER NOT NULL, expires_at REAL, stored_at REAL NOT NULL,
    used_at REAL NOT NULL, size INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE bodies (body INTEGER PRIMARY KEY, value BLOB NOT NULL);
CREATE INDEX by_use ON entries (used_at);
CREATE INDEX by_expiry ON entries (expires_at) WHERE expires_at IS NOT NULL;
CREATE TRIGGER drop_body AFTER DELETE ON entries BEGIN DELETE FROM bodies WHERE body = old.body; END;
CREATE TABLE leases (key BLOB PRIMARY KEY, token TEXT NOT NULL, expires_at REAL NOT NULL) WITHOUT ROWID;
"""

FIND = "SELECT value, checksum, expires_at FROM entries JOIN bodies USING (body) WHERE key = ?"
PAGE = """SELECT key, size, stored_at, expires_at FROM entries
    WHERE key >= ? AND key < ? AND (expires_at IS NULL OR expires_at > ?) ORDER BY key LIMIT ?"""
DEAD_PAGE = """SELECT key, size, stored_at, expires_at FROM entries
    WHERE key >= ? AND key < ? AND expires_at <= ? ORDER BY key LIMIT ?"""
KEYS = "SELECT key FROM entries WHERE key >= ? AND key < ? ORDER BY key LIMIT ?"
ADD = "INSERT INTO entries (key, body, checksum, expires_at, stored_at, used_at, size) VALUES (?, ?, ?, ?, ?, ?, ?)"
TAKE = """INSERT INTO leases (key, token, expires_at) VALUES (?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET token = excluded.token, expires_at = excluded.expires_at WHERE expires_at <= ?"""
HOLD = "UPDATE leases SET expires_at = ? WHERE key = ? AND token = ? AND expires_at > ?"
PRUNE = "DELETE FROM entries WHERE key IN (SELECT key FROM entries WHERE expires_at <= ? LIMIT ?)"
BYTES_IN_USE = """SELECT (page_count - freelist_count) * page_size
    FROM pragma_page_count, pragma_freelist_count, pragma_page_size"""

# The second, because the module cannot decode messages in which SQLite quotes a damaged file.
FAILURES = (sqlite3.DatabaseError, UnicodeDecodeError)
Failure = sqlite3.DatabaseError | UnicodeDecodeError

BATCH = 500  # rows a page of a scan, and rows a transaction of clear and prune
NOTES = 1000  # uses remembered until the next write; further ones are not noted
NOTE_EVERY = 60.0  # seconds between two writings of these notes
LOOK_EVERY = 0.2  # seconds for which a reader trusts that its file is still the one at the path
LOG_LIMIT = 4 * 2**20  # bytes that the write-ahead log keeps when it is empty
FORK_WAIT = 5.0  # seconds that a fork waits for the operations of other threads


class DiskStore(Store):
    """A file that survives the process, is shared by processes, and needs no server.

    `directory` holds the file; None is `default_directory()`. Nothing is created before the first write, and a read
    never creates anything. `max_bytes` bounds the database file (its write-ahead log adds a few megabytes): what was
    used longest ago goes first, where a use is noted in batches with a later write or `close`, so that a hit writes
    nothing. None lifts the bound. A value larger than `max_bytes` is not kept.

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
        budget: float = 0.1,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.directory = default_directory() if directory is None else Path(directory).expanduser().absolute()
        self.path = self.directory / FILE
        self.max_bytes, self.budget, self.clock = max_bytes, budget, clock
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
            self._uses[name] = now
        return value

    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        name, now = _name(key), self.clock()
        expires_at = None if ttl is None else now + ttl

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM entries WHERE key = ?", (name,))
            if self.max_bytes is not None and len(value) > self.max_bytes:
                return
            body = connection.execute("INSERT INTO bodies (value) VALUES (?)", (value,)).lastrowid
            connection.execute(ADD, (name, body, _checksum(name, value), expires_at, now, now, len(value)))
            if len(self._uses) >= NOTES or not 0 <= now - self._noted_at < NOTE_EVERY:
                self._note_uses(connection)
            self._make_room(connection, name)

        self._write(work, create=True)

    def delete(self, key: str) -> bool:
        name = _name(key)
        return bool(self._change("DELETE FROM entries WHERE key = ?", (name,)))

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
        return token if self._change(TAKE, (name, token, now + ttl, now), create=True) else None

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
        self._links: weakref.WeakSet[_Link] = weakref.WeakSet()
        self._registry = threading.Lock()
        self._writing = threading.Lock()
        self._uses: dict[bytes, float] = {}

    def _link(self) -> _Link:
        try:
            link: _Link = self._threads.link
        except AttributeError:
            link = self._threads.link = _Link(self.path, self.budget)
            with self._registry:
                self._links.add(link)
        return link

    def _all_links(self) -> list[_Link]:
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
        with _held(self._writing, self.budget), link.lock:
            link.distrust()
            try:
                return _transact(link.open(create=create), work)
            except FAILURES as error:
                if not link.recover(error):
                    raise
            return _transact(link.open(create=create), work)

    def _note_uses(self, connection: sqlite3.Connection) -> None:
        uses, self._uses, self._noted_at = self._uses, {}, self.clock()
        # list(): a reader that got hold of the dict before the swap may still be adding to it.
        rows = [(used_at, name) for name, used_at in list(uses.items())]
        connection.executemany("UPDATE entries SET used_at = ? WHERE key = ?", rows)

    def _make_room(self, connection: sqlite3.Connection, newest: bytes) -> None:
        """Remove entries until the file's pages are within the bound: expired ones first, then the longest unused."""
        if self.max_bytes is None or _bytes_in_use(connection) <= self.max_bytes:
            return
        self._note_uses(connection)
        connection.execute(PRUNE, (self.clock(), BATCH))
        goal = self.max_bytes - self.max_bytes // 50  # a little more than needed, or every write would have to
        while (excess := _bytes_in_use(connection) - goal) > 0:
            victims = _longest_unused(connection, excess, newest)
            if not victims:
                return
            connection.executemany("DELETE FROM entries WHERE key = ?", victims)

    def _shrink(self) -> None:
        """Give free pages back to the file system, in steps between which others may write."""
        link = self._link()
        # What was asked for is done. Where another process is busy, its writes will use the free pages.
        with contextlib.suppress(sqlite3.Error, OSError), _held(self._writing, self.budget), link.lock:
            connection = link.open(create=False)
            if connection is None:
                return
            (free,) = connection.execute("PRAGMA freelist_count").fetchone()
            for _ in range(0, free, 1000):
                # As a script, since this is a statement that frees one page a step, and `execute` takes one step.
                connection.executescript("PRAGMA incremental_vacuum(1000)")
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


class _Link:
    """One thread's connection, and how to notice that it is no longer one to the file at the path.

    The lock is there for those who close it from another thread: `DiskStore.close` and a fork.
    """

    def __init__(self, path: Path, budget: float) -> None:
        self.path, self.budget = path, budget
        self.lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, ...] | None = None
        self._frozen = False  # opened as immutable, because nothing else worked: we see no changes
        self._pid = os.getpid()
        self._look_at = 0.0

    def open(self, *, create: bool) -> sqlite3.Connection | None:
        """The connection, opened if need be; None if there is no file (and `create` is false)."""
        # The process id is asked for only now and then, since `_after_fork_in_child` has already seen to forks.
        if self._connection is not None and time.monotonic() < self._look_at:
            return self._connection
        return self._look_again(create)

    def distrust(self) -> None:
        """Look at the path before the next use. A writer must: what it writes to a removed file is lost."""
        self._look_at = 0.0

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._pid == os.getpid():
            connection.close()
        else:
            # Inherited by a fork that did not run `_before_fork` (one made in C). Closing it here would act on locks
            # and files that belong to the parent: https://www.sqlite.org/howtocorrupt.html, section 2.6.
            _abandoned.append(connection)

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # At the end of the process this module's own names may be gone already, and the process closes everything.
        if not is_finalizing():
            self.close()

    def recover(self, error: Failure) -> bool:
        """Close, unless others were merely in the way. True if the file was damaged and is now out of the way."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return False
        frozen = self._frozen
        self.close()
        damaged = (
            isinstance(error, UnicodeDecodeError)
            or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
            # Our statements are fixed: in a sound file they break no constraint and name nothing that is not there.
            or code == sqlite3.SQLITE_CONSTRAINT
            or (code == sqlite3.SQLITE_ERROR and "transaction" not in str(error))
        )
        # An immutable file that somebody changes looks damaged and is not.
        return damaged and not frozen and self._set_aside(error)

    def _look_again(self, create: bool) -> sqlite3.Connection | None:
        self._look_at = time.monotonic() + LOOK_EVERY
        identity = _identity(self.path, self._frozen)
        if self._connection is not None and self._pid == os.getpid() and identity == self._identity:
            return self._connection
        self.close()
        self._pid = os.getpid()
        if identity is None and not create:
            return None
        if create:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _held(_opening, self.budget), _alone(self.path.parent, self.budget):
            if create:
                _create(self.path)
            self._identity = _identity(self.path, frozen=False)
            if self._identity is None:  # set aside by another process while this one waited for its turn
                return None
            self._connection, self._frozen = _connect(self.path, self.budget, create=create)
            self._identity = _identity(self.path, self._frozen)
        return self._connection

    def _set_aside(self, error: Failure) -> bool:
        """Rename the file, unless another thread or process was faster. False if that is not possible."""
        target = self.path.with_name(f"{self.path.name}.corrupt-{int(time.time())}")
        try:
            with _held(_opening, self.budget), _alone(self.path.parent, self.budget):
                if _identity(self.path, frozen=False) != self._identity:
                    return True
                _refuse_foreign(self.path, self.budget)
                for old in self.path.parent.glob(f"{self.path.name}.corrupt-*"):
                    old.unlink(missing_ok=True)
                # The log first: left behind, it would be replayed into the new file.
                for suffix in ("-wal", "-shm", ""):
                    with contextlib.suppress(FileNotFoundError):
                        os.replace(f"{self.path}{suffix}", f"{target}{suffix}")
        except OSError:
            return False
        log.warning(
            "The disk store's file %s is damaged (%s): set aside as %s, starting anew.", self.path, error, target
        )
        return True


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
    """The text again; None for a damaged key, which nobody can ask for."""
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


# ── transactions ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _transact(connection: sqlite3.Connection | None, work: Callable[[sqlite3.Connection], T]) -> T | None:
    if connection is None:
        return None
    try:
        connection.execute("BEGIN IMMEDIATE")  # in here, so that an interrupt right after it leaves nothing open
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        # A failed write may have rolled back by itself, and where the disk is full rolling back may fail as well; what
        # the caller needs to hear is the first error.
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    return result


def _bytes_in_use(connection: sqlite3.Connection) -> int:
    (count,) = connection.execute(BYTES_IN_USE).fetchone()
    return int(count)


def _longest_unused(connection: sqlite3.Connection, excess: int, newest: bytes) -> list[tuple[bytes]]:
    victims: list[tuple[bytes]] = []
    for name, size in connection.execute("SELECT key, size FROM entries WHERE key <> ? ORDER BY used_at", (newest,)):
        victims.append((name,))
        excess -= size + len(name)
        if excess <= 0:
            break
    return victims


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _identity(path: Path, frozen: bool) -> tuple[int, ...] | None:
    """What tells one file at `path` from the next. Not by opening it: closing it would drop SQLite's POSIX locks."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    same_file = (status.st_dev, status.st_ino)
    return (*same_file, status.st_size, status.st_mtime_ns) if frozen else same_file


def _create(path: Path) -> None:
    """An empty file that only its owner may read; SQLite gives its companions the same mode."""
    # Only ever a file that is new, and with `_opening` held: closing a descriptor drops the locks that other
    # connections of this process have on the same file.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _connect(path: Path, budget: float, *, create: bool) -> tuple[sqlite3.Connection | None, bool]:
    """A connection and whether it is frozen; no connection if there is no table in the file yet."""
    # Where nobody may write, a write-ahead log cannot be opened, unless the file is declared immutable.
    for query in ("mode=rw", "mode=ro", "immutable=1"):
        connection = _raw(path, budget, query)
        try:
            version = _version(connection, path)
            if version == 0 and create:
                _initialise(connection)
            elif version == 0:
                connection.close()
                return None, False
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT}")
            return connection, query == "immutable=1"
        except BaseException as error:
            connection.close()
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if query == "immutable=1" or code not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                raise
    raise AssertionError("unreachable: the last way either returns or raises")


def _raw(path: Path, budget: float, query: str) -> sqlite3.Connection:
    # check_same_thread: the lock of `_Link` sees to it; `close` and a fork come from other threads.
    connection = sqlite3.connect(
        f"{path.as_uri()}?{query}", uri=True, timeout=budget, isolation_level=None, check_same_thread=False
    )
    connection.text_factory = bytes  # a damaged type byte must not become a decoding error
    return connection


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """The schema version, 0 for an empty file. Raises RuntimeError for a file that we must not touch."""
    version, application, tables = connection.execute(
        "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_master)"
        " FROM pragma_user_version, pragma_application_id"
    ).fetchone()
    if application == APPLICATION and version > VERSION:
        raise RuntimeError(
            f"The cache file {path} was written by a newer rejoinder (schema {version}; this one knows {VERSION}). "
            "Upgrade rejoinder, or give another directory."
        )
    if application != APPLICATION and (application or version or tables):
        raise RuntimeError(f"The file {path} belongs to another program. Give the cache another directory.")
    return int(version)


def _initialise(connection: sqlite3.Connection) -> None:
    # Both before the first table, or they have no effect. The default of 4096 reads large values a fifth slower.
    connection.execute("PRAGMA page_size = 8192")
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    header = f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};"
    connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} {header} COMMIT;")


def _refuse_foreign(path: Path, budget: float) -> None:
    """Raise if the file can be read well enough to say that it is not ours to set aside."""
    connection = _raw(path, budget, "mode=rw")
    try:
        _version(connection, path)
    except FAILURES:
        return
    finally:
        connection.close()


# ── locks ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

_opening = threading.Lock()
"""Held while a connection of this process is opened, or its file set aside."""


@contextlib.contextmanager
def _held(lock: threading.Lock, budget: float) -> Iterator[None]:
    if not lock.acquire(timeout=budget):
        raise TimeoutError(f"The disk store was busy for longer than its budget of {budget} s.")
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _alone(directory: Path, budget: float) -> Iterator[None]:
    """Hold the directory's lock: among processes, one opens a file or sets one aside at a time.

    Without it, two processes that find the same damaged file do this:

        process 1: finds damage                process 2: finds damage
        process 1: renames it, starts anew
                                               process 2: renames the new, good file
    """
    descriptor = _lock_directory(directory, time.monotonic() + budget)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _lock_directory(directory: Path, deadline: float) -> int | None:
    """A descriptor that holds the lock until it is closed, or None where the file system has no such locks."""
    try:
        import fcntl
    except ImportError:  # Windows, where a file in use cannot be renamed, so that nothing is lost without the lock
        return None
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except PermissionError:  # may be entered but not listed
        return None
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                raise TimeoutError(f"Another process keeps the lock of {directory}.")
            time.sleep(0.001)
        except OSError:  # NFS and the like
            os.close(descriptor)
            return None


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
_abandoned: list[sqlite3.Connection] = []


def _before_fork() -> None:
    for store in list(_stores):
        for link in store._all_links():
            if link.lock.acquire(timeout=FORK_WAIT):
                _paused.append(link.lock)
                link.close()
    if _opening.acquire(timeout=FORK_WAIT):
        _paused.append(_opening)


def _after_fork_in_parent() -> None:
    while _paused:
        _paused.pop().release()


def _after_fork_in_child() -> None:
    global _opening
    _opening = threading.Lock()
    _paused.clear()
    for store in list(_stores):
        store._start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
