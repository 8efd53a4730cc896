"""The disk store's file: opened, known again, locked, and set aside when it is damaged."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from .disk_schema import VERSION, add_missing, initialise
from .eviction import added

T = TypeVar("T")

log = logging.getLogger("rejoinder")

APPLICATION = 0x726A6E64  # "rjnd", in the file's header: tells our file from somebody else's

# The second, because the module cannot decode messages in which SQLite quotes a damaged file.
FAILURES = (sqlite3.DatabaseError, UnicodeDecodeError)
Failure = sqlite3.DatabaseError | UnicodeDecodeError

UNWRITABLE = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)

LOOK_EVERY = 0.2  # seconds for which a reader trusts that its file is still the one at the path
LOG_LIMIT = 4 * 2**20  # bytes that the write-ahead log keeps when it is empty


class Link:
    """One thread's connection, and how to notice that it is no longer one to the file at the path.

    `parts` of the schema are added with the first change. The lock is there for those who close it from another thread:
    `DiskStore.close` and a fork.
    """

    def __init__(self, path: Path, budget: float, parts: Sequence[str]) -> None:
        self.path, self.budget, self.parts = path, budget, parts
        self.lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, ...] | None = None
        self._is_complete = False  # all parts are known to be there
        self._frozen = False  # opened as immutable, because nothing else worked: we see no changes
        self._pid = os.getpid()
        self._look_at = 0.0

    def open(self, *, create: bool) -> sqlite3.Connection | None:
        """The connection, opened if need be; None if there is no file (and `create` is false)."""
        # The process id is asked for only now and then, since `_after_fork_in_child` has already seen to forks.
        if self._connection is not None and time.monotonic() < self._look_at:
            return self._connection
        return self._look_again(create)

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    def distrust(self) -> None:
        """Look at the path before the next use. A writer must: what it writes to a removed file is lost."""
        self._look_at = 0.0

    def transact(self, work: Callable[[sqlite3.Connection], T], *, create: bool) -> T | None:
        """Do `work` in a transaction. None if there is no file to change."""
        connection = self.open(create=create)
        if connection is None:
            return None
        try:
            connection.execute("BEGIN IMMEDIATE")  # in here, so that an interrupt right after it leaves nothing open
            if not self._is_complete:
                add_missing(connection, self.parts)
            result = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            # A failed write may have rolled back by itself, and where the disk is full rolling back may fail as well;
            # what the caller needs to hear is the first error.
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        self._is_complete = True
        return result

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._pid == os.getpid():
            connection.close()
        else:
            # Inherited by a fork that did not run `_before_fork` (one made in C). Closing it here would act on locks
            # and files that belong to the parent: https://www.sqlite.org/howtocorrupt.html, section 2.6.
            abandoned.append(connection)

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
        with held(opening, self.budget), _alone(self.path.parent, self.budget):
            if create:
                _create(self.path)
            self._identity = _identity(self.path, frozen=False)
            if self._identity is None:  # set aside by another process while this one waited for its turn
                return None
            self._is_complete = False
            self._connection, self._frozen = _connect(self.path, self.budget, create=create)
            self._identity = _identity(self.path, self._frozen)
        return self._connection

    def _set_aside(self, error: Failure) -> bool:
        """Rename the file, unless another thread or process was faster. False if that is not possible."""
        target = self.path.with_name(f"{self.path.name}.corrupt-{int(time.time())}")
        try:
            with held(opening, self.budget), _alone(self.path.parent, self.budget):
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
    # Only ever a file that is new, and with `opening` held: closing a descriptor drops the locks that other
    # connections of this process have on the same file.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _connect(path: Path, budget: float, *, create: bool) -> tuple[sqlite3.Connection | None, bool]:
    """A connection and whether it is frozen; no connection if there is no table in the file yet."""
    # Where nobody may write, or where no room is left for its index, a write-ahead log cannot be opened, unless the
    # file is declared immutable.
    for query in ("mode=rw", "mode=ro", "immutable=1"):
        connection = _raw(path, budget, query)
        try:
            version = _version(connection, path)
            if version == 0 and create:
                initialise(connection, APPLICATION)
            elif version == 0:
                connection.close()
                return None, False
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT}")
            return connection, query == "immutable=1"
        except BaseException as error:
            connection.close()
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if query == "immutable=1" or code not in UNWRITABLE:
                raise
    raise AssertionError("unreachable: the last way either returns or raises")


def _raw(path: Path, budget: float, query: str) -> sqlite3.Connection:
    # check_same_thread: the lock of `_Link` sees to it; `close` and a fork come from other threads.
    connection = sqlite3.connect(
        f"{path.as_uri()}?{query}", uri=True, timeout=budget, isolation_level=None, check_same_thread=False
    )
    connection.create_function("added", 2, added, deterministic=True)
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

opening = threading.Lock()
"""Held while a connection of this process is opened, or its file set aside."""


abandoned: list[sqlite3.Connection] = []
"""Of a parent process: never closed."""


@contextlib.contextmanager
def held(lock: threading.Lock, budget: float) -> Iterator[None]:
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
