"""In a SQL database that is there anyway: shared by processes and hosts, with leases.

One table of entries and one of leases. Their keys are bytes: text would be compared by the database's collation, where
"Key", "kéy" and "key " may all be "key", and a cache would give one question the answer of another.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import secrets
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ClassVar, TypeVar

from ...core.errors import ConfigurationError, MissingPackage, suggestion
from ...core.flow import Flow, Io, arun, run
from .base import Record, Store, longest_lease, mark_of

try:
    import sqlalchemy as sa
except ImportError:
    raise MissingPackage("The SQL store", "sqlalchemy", "rejoinder[sql]") from None

T = TypeVar("T")

BATCH = 500  # rows a page of a scan, and rows a statement of clear and prune
CREW = 8  # connections to a server, each with a thread
LINGER = 5.0  # seconds that a thread waits for more to do
FORK_WAIT = 5.0  # seconds that a fork waits for the operations of other threads on a file
CREATORS = 4  # tries to create the tables while other processes do the same; each try finds one thing more


class SQLStore(Store):
    """A database through SQLAlchemy: PostgreSQL, MySQL, MariaDB, SQLite, DuckDB, SQL Server, Oracle.

    `url` is SQLAlchemy's (`postgresql://user:password@host/database`); where it names no driver, the one of our extra
    is taken. `engine_options` go to `create_engine`. Or bring your own `engine`, a synchronous one: it is used in
    autocommit mode and left open.

    The tables `table` and `<table>_leases` are created at the first use, unless they are there.

    `budget` bounds an operation, with its connect, by waiting no longer: drivers can bound a connect to whole seconds
    at best, and a name server that hangs not at all. So a server is asked in one of eight threads of the store's own.
    What comes too late is thrown away, but a connection that took too long serves the next call. SQLite and DuckDB run
    in the calling thread. `clear`, `prune` and `scan` have the budget for each `BATCH` rows.

    Time is the server's, as hosts differ. Only SQLite and DuckDB, which have no other clock, go by this process's.

    The async twins ask in the same eight threads, within the same budget; for `clear` and `tag`, and for SQLite and
    DuckDB, they run the sync methods in other threads.
    """

    name: ClassVar[str] = "sql"
    leases: ClassVar[bool] = True

    def __init__(
        self,
        url: str | sa.URL | None = None,
        *,
        table: str = "rejoinder_entries",
        budget: float = 0.1,
        engine: sa.Engine | None = None,
        **engine_options: Any,
    ) -> None:
        if (url is None) == (engine is None):
            raise ConfigurationError("The SQL store takes either a url or an engine.")
        if engine is not None and engine_options:
            raise ConfigurationError(f"An engine of your own takes no {', '.join(engine_options)}.")
        self.table, self.budget = table, budget
        self._options, self._is_ours = engine_options, engine is None
        self._url = _read_url(url) if url is not None else engine.url  # type: ignore[union-attr]
        self._dialect = _dialect(self._url.get_backend_name())
        self._engine = self._open() if engine is None else engine.execution_options(**self._dialect.mode)
        if self._engine.dialect.is_async:
            raise ConfigurationError(
                f"The SQL store needs a synchronous driver, and {self._engine.driver!r} is not one. Leave it out of "
                f"the url or write {self._dialect.driver!r}; async calls do not block the event loop all the same."
            )
        self._sql = _Statements(table, self._dialect, self._engine.dialect)
        self._start()
        _stores.add(self)

    def __repr__(self) -> str:
        url = self._url
        where = f"{url.host}:{url.port}" if url.port else url.host or ""
        return f"SQLStore({url.get_backend_name()}://{where}/{url.database or ''}, table={self.table!r})"

    # ── the four methods ──────────────────────────────────────────────────────────────────────────────────────────

    def get(self, key: str) -> bytes | None:
        return run(self._getting(key))

    async def aget(self, key: str) -> bytes | None:
        return await arun(self._getting(key))

    def _getting(self, key: str) -> Flow[bytes | None]:
        row = yield self._asking(_first, self._sql.find, {"id": _id(_encode(key))})
        # Oracle has no empty bytes: it stores and returns NULL.
        return None if row is None else bytes(row[0] or b"")

    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        run(self._setting(key, value, ttl))

    async def aset(self, key: str, value: bytes, ttl: float | None = None) -> None:
        await arun(self._setting(key, value, ttl))

    def _setting(self, key: str, value: bytes, ttl: float | None) -> Flow[None]:
        name = _encode(key)
        long_key = name if len(name) > LONGEST else None
        entry = {"id": _id(name), "long_key": long_key, "value": value, "length": len(value), "ttl": ttl}
        yield self._asking(_execute, self._sql.replace, entry)

    def delete(self, key: str) -> bool:
        return self._ask(_count, self._sql.remove, {"id": _id(_encode(key))}) > 0

    async def adelete(self, key: str) -> bool:
        return await self._aask(_count, self._sql.remove, {"id": _id(_encode(key))}) > 0

    def scan(self, prefix: str = "") -> Iterator[Record]:
        return self._pages(self._sql.page, prefix)

    def _pages(self, statement: Any, prefix: str) -> Iterator[Record]:
        name = _encode(prefix)
        after, last = _span(name)
        while rows := self._ask(_all, statement, {"after": after, "last": last}):
            for id, long_key, size, stored_at, expires_at in rows:
                found = long_key or id[: -len(END)]
                if found.startswith(name):
                    yield Record(_decode(found), size, stored_at, expires_at)
            after = rows[-1][0]

    # ── the rest ──────────────────────────────────────────────────────────────────────────────────────────────────

    def expired(self, prefix: str = "") -> Iterator[Record]:
        return self._pages(self._sql.dead_page, prefix)

    def peek(self, keys: Sequence[str]) -> list[bytes | None]:
        ids = [_id(_encode(key)) for key in keys]
        found: dict[bytes, bytes] = {}
        for start in range(0, len(ids), BATCH):  # Oracle takes a thousand values in a list
            rows = self._ask(_all, self._sql.find_all, {"ids": ids[start : start + BATCH]})
            found |= {bytes(id): bytes(value or b"") for id, value in rows}
        return [found.get(id) for id in ids]

    def clear(self, prefix: str = "") -> int:
        name = _encode(prefix)
        if len(name) > LONGEST:
            return super().clear(prefix)
        after, last = _span(name)
        removed = 0
        while rows := self._ask(_all, self._sql.ids, {"after": after, "last": last}):
            removed += self._ask(_count, self._sql.remove_all, {"ids": [id for (id,) in rows]})
            after = rows[-1][0]
        return removed

    def clear_tag(self, prefix: str, tag: str) -> int:
        ids = [_id(_encode(key)) for key in self.tagged(prefix, tag)]
        removed = 0
        for start in range(0, len(ids), BATCH):
            removed += self._ask(_count, self._sql.remove_all, {"ids": ids[start : start + BATCH]})
        self.clear(mark_of(prefix, tag))
        return removed

    def prune(self) -> int:
        self._ask(_execute, self._sql.prune_leases, {})
        removed = 0
        while rows := self._ask(_all, self._sql.dead, {}):
            removed += self._ask(_count, self._sql.remove_dead, {"ids": [id for (id,) in rows]})
        return removed

    def close(self) -> None:
        self._is_ready = False
        if not self._is_ours:
            return
        # Not between a thread's look at the pool, which has a connection, and its reaching for it: the thread would
        # wait for one that has just been closed.
        self._gate.shut(self.budget)
        self._engine.dispose()
        self._gate.open()

    def lease(self, key: str, ttl: float) -> str | None:
        return run(self._leasing(key, ttl))

    def renew(self, key: str, token: str, ttl: float) -> bool:
        return self._ask(_count, self._sql.renew, _held(key, token, ttl)) > 0

    def release(self, key: str, token: str) -> bool:
        return self._ask(_count, self._sql.release, _held(key, token)) > 0

    async def alease(self, key: str, ttl: float) -> str | None:
        return await arun(self._leasing(key, ttl))

    async def arenew(self, key: str, token: str, ttl: float) -> bool:
        return await self._aask(_count, self._sql.renew, _held(key, token, ttl)) > 0

    async def arelease(self, key: str, token: str) -> bool:
        return await self._aask(_count, self._sql.release, _held(key, token)) > 0

    def _leasing(self, key: str, ttl: float) -> Flow[str | None]:
        token = secrets.token_hex(16)
        lease = _held(key, token, ttl)
        try:
            return token if (yield self._asking(self._take, lease)) else None
        except sa.exc.IntegrityError:  # somebody inserted theirs between our two statements
            return None
        except TimeoutError:
            if not self._dialect.is_embedded:
                # It may yet be taken, and nobody would renew or release it.
                self._crew.submit(self._attempt, _count, self._sql.release, lease)
            raise

    def _take(self, connection: sa.Connection, lease: dict[str, Any]) -> bool:
        # Taking over an expired lease, or one of our own whose answer was lost with its connection. Each statement is
        # atomic; whoever comes between them has the key, and our insert fails.
        if connection.execute(self._sql.take_over, lease | {"longest": longest_lease(lease["ttl"])}).rowcount:
            return True
        connection.execute(self._sql.take, lease)
        return True

    # ── asking ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _asking(self, operation: Callable[..., Any], *args: Any) -> Io:
        return Io(self._ask, self._aask, (operation, *args))

    def _ask(self, operation: Callable[..., T], *args: Any) -> T:
        deadline = time.monotonic() + self.budget
        if self._dialect.is_embedded:
            self._gate.enter(self.budget)
            try:
                return self._perform(deadline, operation, *args)
            finally:
                self._gate.leave()
        try:
            result: T = self._crew.submit(self._perform, deadline, operation, *args).result(self.budget)
        except TimeoutError:
            raise TimeoutError(f"The database did not answer within {self.budget} s.") from None
        return result

    async def _aask(self, operation: Callable[..., T], *args: Any) -> T:
        if self._dialect.is_embedded:
            return await asyncio.to_thread(self._ask, operation, *args)
        # Not by `to_thread`, where many tasks wait for few threads, and each of these as long as the budget allows.
        deadline = time.monotonic() + self.budget
        try:
            result: T = await self._crew.submit(self._perform, deadline, operation, *args).aresult(self.budget)
        except TimeoutError:
            raise TimeoutError(f"The database did not answer within {self.budget} s.") from None
        return result

    def _perform(self, deadline: float, operation: Callable[..., T], *args: Any) -> T:
        try:
            return self._attempt(operation, *args)
        except sa.exc.DBAPIError as error:
            # A connection of the pool that the server has closed meanwhile, a deadlock, a table that somebody dropped:
            # the second attempt has a new connection and looks for the tables.
            if not isinstance(error, sa.exc.IntegrityError):
                self._is_ready = False
            if _is_read_only(error):
                self._engine.dispose()
            if time.monotonic() > deadline - self.budget / 2:
                raise
        return self._attempt(operation, *args)

    def _attempt(self, operation: Callable[..., T], *args: Any) -> T:
        if not self._is_ready:
            self._make_ready()
        with self._engine.begin() as connection:
            return operation(connection, *args)

    def _make_ready(self) -> None:
        for turn in range(CREATORS):
            try:
                with self._engine.begin() as connection:
                    self._create_tables(connection)
                self._is_ready = True
                return
            except sa.exc.DBAPIError as error:
                # DuckDB, which knows no autocommit, fails a transaction whose tables another one has created meanwhile.
                if error.connection_invalidated or self._dialect.mode or turn == CREATORS - 1:
                    raise

    def _create_tables(self, connection: sa.Connection) -> None:
        for _ in range(CREATORS - 1):
            try:
                return self._sql.tables.create_all(connection)
            except sa.exc.DBAPIError as error:
                # Another process created the table between our look and our CREATE, unless it is something worse.
                # Without autocommit the transaction is lost, and the next attempt looks again.
                if error.connection_invalidated or not self._dialect.mode:
                    raise
        return self._sql.tables.create_all(connection)

    @property
    def _places(self) -> int:
        """Connections at once. DuckDB fails writers that meet, instead of letting one wait."""
        return 1 if self._dialect is DIALECTS["duckdb"] else CREW

    def _open(self) -> sa.Engine:
        # What the url says goes first: a proxy may not take everything that a server does.
        timeouts = {
            name: value
            for name, value in _timeouts(self._url.get_dialect().driver, self.budget).items()
            if name not in self._url.query
        }
        options: dict[str, Any] = {
            "hide_parameters": True,  # prompts and answers do not belong into error messages
            "pool_size": self._places,
            "max_overflow": 0,
            "pool_timeout": self.budget,
            "pool_use_lifo": True,
            "pool_reset_on_return": "rollback" if self._dialect is DIALECTS["duckdb"] else None,
            **self._dialect.mode,
            **self._options,
            "connect_args": {**timeouts, **self._options.get("connect_args", {})},
        }
        try:
            return sa.create_engine(self._url, **options)
        except ModuleNotFoundError as error:
            raise _missing(self._url, self._dialect, str(error.name)) from None
        except TypeError as error:  # names the options, and no values
            raise ConfigurationError(f"The SQL store cannot be set up: {error}") from None

    # ── forks ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _start(self) -> None:
        self._is_ready = False
        self._crew = _Crew(CREW)
        self._gate = _Gate(self._places)

    def _before_fork(self) -> None:
        # SQLite's and DuckDB's files must not be open: a child inherits what the library believes of its locks, but
        # not the locks. See https://www.sqlite.org/howtocorrupt.html, section 2.6. Nor may a thread be inside the
        # library, which has locks of its own that would never be free in the child.
        if self._dialect.is_embedded:
            self._gate.shut(FORK_WAIT)
            self._engine.dispose()

    def _after_fork_in_child(self) -> None:
        # Kept alive: the end of an inherited connection would say goodbye to the server in the parent's name.
        _abandoned.append(self._engine.pool)
        if self._is_ours:
            self._engine = self._open()
        else:
            self._engine.dispose(close=False)
        self._start()


class _Gate:
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


class _Crew:
    """Up to `size` threads that do jobs, in order. Daemons, so that one which hangs does not keep the process alive."""

    def __init__(self, size: int) -> None:
        self._size, self._threads, self._idle = size, 0, 0
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._counting = threading.Lock()

    def submit(self, work: Callable[..., Any], *args: Any) -> _Job:
        job = _Job(work, args)
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


class _Job:
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


# ── keys ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
# A row is found by its id: the UTF-8 of the key and the byte FF, which UTF-8 never has. Without it the empty key would
# be Oracle's NULL, and SQL Server, which pads with zeros to compare, would take "a" for "a\0". Of a long key it is the
# beginning and a hash, so that what starts alike still lies together; the key itself is in a column of its own.

END, CUT = b"\xff", b"\xfe"
LONGEST = 200  # bytes; with a hash, below the 255 of the column, which every index can hold


def _encode(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


def _decode(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")


def _id(name: bytes) -> bytes:
    if len(name) <= LONGEST:
        return name + END
    return name[:LONGEST] + CUT + hashlib.sha256(name).digest() + END


def _span(name: bytes) -> tuple[bytes, bytes]:
    """The ids of keys that start with `name` come after the first, up to and including the second."""
    beginning = name[:LONGEST]
    return beginning or b"\0", beginning + END


# ── statements ────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Statements:
    """The two tables, and all that is ever said to the database."""

    def __init__(self, table: str, row: _Dialect, dialect: sa.Dialect) -> None:
        short, long, double = row.types()
        self.tables = sa.MetaData()
        self.entries = sa.Table(
            table,
            self.tables,
            sa.Column("id", short, primary_key=True),
            sa.Column("long_key", long),
            sa.Column("value", long),
            sa.Column("length", sa.Integer, nullable=False),
            sa.Column("stored_at", double, nullable=False),
            sa.Column("expires_at", double, index=True),
        )
        self.leases = sa.Table(
            f"{table}_leases",
            self.tables,
            sa.Column("id", short, primary_key=True),
            sa.Column("token", short, nullable=False),
            sa.Column("expires_at", double, nullable=False),
        )
        # Seconds since the epoch. NULL for no TTL makes the sum NULL: never.
        now: sa.ColumnElement[float] = (
            sa.bindparam("now", callable_=time.time, type_=double)
            if row.clock is None
            else sa.literal_column(row.clock, double)
        )
        end = now + sa.bindparam("ttl", type_=double)
        self._of_entries(row, dialect, now, end)
        self._of_leases(now, end)

    def _of_entries(self, row: _Dialect, dialect: sa.Dialect, now: Any, end: Any) -> None:
        entries, c = self.entries, self.entries.c
        id = sa.bindparam("id", type_=c.id.type)
        ids = sa.bindparam("ids", type_=c.id.type, expanding=True)
        given = {name: sa.bindparam(name, type_=c[name].type) for name in ("long_key", "value", "length")}
        within = (c.id > sa.bindparam("after", type_=c.id.type), c.id <= sa.bindparam("last", type_=c.id.type))
        live, dead = sa.or_(c.expires_at.is_(None), c.expires_at > now), c.expires_at <= now

        self.find = sa.select(c.value).where(c.id == id, live)
        self.find_all = sa.select(c.id, c.value).where(c.id.in_(ids))
        self.replace = row.replace(entries, {"id": id, **given, "stored_at": now, "expires_at": end}, dialect)
        self.remove = sa.delete(entries).where(c.id == id)
        columns = sa.select(c.id, c.long_key, c.length, c.stored_at, c.expires_at)
        self.page = columns.where(*within, live).order_by(c.id).limit(BATCH)
        self.dead_page = columns.where(*within, dead).order_by(c.id).limit(BATCH)
        self.ids = sa.select(c.id).where(*within).order_by(c.id).limit(BATCH)
        self.remove_all = sa.delete(entries).where(c.id.in_(ids))
        self.dead = sa.select(c.id).where(dead).order_by(c.expires_at).limit(BATCH)
        self.remove_dead = sa.delete(entries).where(c.id.in_(ids), dead)

    def _of_leases(self, now: Any, end: Any) -> None:
        leases, c = self.leases, self.leases.c
        id, mine = (sa.bindparam(name, type_=c.id.type) for name in ("lease", "mine"))
        expired, held = c.expires_at <= now, sa.and_(c.id == id, c.token == mine, c.expires_at > now)
        free = sa.or_(expired, c.expires_at > now + sa.bindparam("longest", type_=c.expires_at.type), c.token == mine)

        self.take_over = sa.update(leases).where(c.id == id, free).values(token=mine, expires_at=end)
        self.take = sa.insert(leases).values(id=id, token=mine, expires_at=end)
        self.renew = sa.update(leases).where(held).values(expires_at=end)
        self.release = sa.delete(leases).where(held)
        self.prune_leases = sa.delete(leases).where(expired)


def _execute(connection: sa.Connection, statement: Any, values: dict[str, Any]) -> None:
    connection.execute(statement, values)


def _is_read_only(error: sa.exc.DBAPIError) -> bool:
    """Whether it is SQLite that refuses to write: a file opened while its disk was read-only stays so ever after."""
    return bool(getattr(error.orig, "sqlite_errorcode", 0) & 0xFF == 8)  # SQLITE_READONLY, with its extended codes


def _held(key: str, token: str, ttl: float | None = None) -> dict[str, Any]:
    """A lease, as the statements want it."""
    return {"lease": _id(_encode(key)), "mine": _encode(token), "ttl": ttl}


def _first(connection: sa.Connection, statement: Any, values: dict[str, Any]) -> Any:
    return connection.execute(statement, values).first()


def _all(connection: sa.Connection, statement: Any, values: dict[str, Any]) -> Any:
    return connection.execute(statement, values).all()


def _count(connection: sa.Connection, statement: Any, values: dict[str, Any]) -> int:
    return int(connection.execute(statement, values).rowcount)


# ── what differs by dialect ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Dialect:
    """One row for each database."""

    extra: str
    """Of our package: installs the driver."""

    driver: str | None
    """SQLAlchemy's word for the driver that a url without one gets; None leaves the choice to SQLAlchemy."""

    types: Callable[[], tuple[Any, Any, Any]]
    """Of a column for up to 255 bytes that can be a key, of one for megabytes, and of one for seconds."""

    replace: Callable[[sa.Table, dict[str, Any], sa.Dialect], Any]
    """The statement that inserts a row, or replaces the one with the same id."""

    clock: str | None
    """Seconds since the epoch by the server's clock, stable within a statement. None: there is no server."""

    mode: dict[str, Any]
    """Of connections: execution options of SQLAlchemy."""

    @property
    def is_embedded(self) -> bool:
        return self.clock is None


def _plain_types() -> tuple[Any, Any, Any]:
    return sa.LargeBinary(), sa.LargeBinary(), sa.Double()


def _mysql_types() -> tuple[Any, Any, Any]:
    from sqlalchemy.dialects import mysql

    return sa.VARBINARY(255), mysql.LONGBLOB(), sa.Double()


def _mssql_types() -> tuple[Any, Any, Any]:
    from sqlalchemy.dialects import mssql

    # LargeBinary would be IMAGE, which Microsoft has given up, until SQLAlchemy has seen the server's version.
    return sa.VARBINARY(255), mssql.VARBINARY("max"), sa.Double()  # type: ignore[no-untyped-call]


def _oracle_types() -> tuple[Any, Any, Any]:
    from sqlalchemy.dialects import oracle

    return oracle.RAW(255), oracle.BLOB(), oracle.BINARY_DOUBLE()


def _on_conflict(table: sa.Table, values: dict[str, Any], dialect: sa.Dialect) -> Any:
    if dialect.name == "sqlite":
        from sqlalchemy.dialects.sqlite import insert
    else:
        from sqlalchemy.dialects.postgresql import insert  # type: ignore[assignment]
    new = insert(table).values(values)
    return new.on_conflict_do_update(index_elements=["id"], set_={c: new.excluded[c] for c in values if c != "id"})


def _on_duplicate_key(table: sa.Table, values: dict[str, Any], dialect: sa.Dialect) -> Any:
    from sqlalchemy.dialects.mysql import insert

    new = insert(table).values(values)
    return new.on_duplicate_key_update({c: new.inserted[c] for c in values if c != "id"})


def _merge(
    table: sa.Table, values: dict[str, Any], dialect: sa.Dialect, *, hint: str = "", source: str = "", end: str = ""
) -> Any:
    """The MERGE of the SQL standard. Two at once may both insert: one of them fails, and is repeated."""
    quote = dialect.identifier_preparer.quote
    binds = [value for value in values.values() if isinstance(value, sa.BindParameter)]
    binds.append(sa.bindparam("ttl", type_=table.c.expires_at.type))
    given = {quote(name): str(value.compile(dialect=_neutral())) for name, value in values.items()}
    changes = ", ".join(f"{name} = {value}" for name, value in given.items() if name != "id")
    return sa.text(
        f"MERGE INTO {quote(table.name)}{hint} old USING (SELECT :id AS id{source}) new ON (old.id = new.id) "
        f"WHEN MATCHED THEN UPDATE SET {changes} "
        f"WHEN NOT MATCHED THEN INSERT ({', '.join(given)}) VALUES ({', '.join(given.values())}){end}"
    ).bindparams(*binds)


def _neutral() -> sa.Dialect:
    from sqlalchemy.engine.default import DefaultDialect

    return DefaultDialect(paramstyle="named")


# Not the clock's "now" where there is one that moves on within a statement: no index serves a comparison with it.
_POSTGRESQL_CLOCK = "CAST(extract(epoch FROM statement_timestamp()) AS double precision)"
_MYSQL_CLOCK = "(timestampdiff(MICROSECOND, '1970-01-01', utc_timestamp(6)) / 1e6)"
_MSSQL_CLOCK = "(DATEDIFF_BIG(MICROSECOND, '19700101', SYSUTCDATETIME()) / 1e6)"
_UTC = "SYS_EXTRACT_UTC(SYSTIMESTAMP)"
_ORACLE_CLOCK = (
    f"((TRUNC({_UTC}) - DATE '1970-01-01') * 86400 + EXTRACT(HOUR FROM {_UTC}) * 3600"
    f" + EXTRACT(MINUTE FROM {_UTC}) * 60 + EXTRACT(SECOND FROM {_UTC}))"
)

# Every operation is one statement, or several that stand alone: a transaction would only cost round trips.
_AUTOCOMMIT = {"isolation_level": "AUTOCOMMIT"}

_on_mysql = _Dialect("mysql", "pymysql", _mysql_types, _on_duplicate_key, _MYSQL_CLOCK, _AUTOCOMMIT)
_mssql_merge = partial(_merge, hint=" WITH (HOLDLOCK) AS", end=";")
_oracle_merge = partial(_merge, source=" FROM dual")

DIALECTS = {
    "sqlite": _Dialect("sql", None, _plain_types, _on_conflict, None, _AUTOCOMMIT),
    "duckdb": _Dialect("duckdb", None, _plain_types, _on_conflict, None, {}),
    "postgresql": _Dialect("postgres", "psycopg", _plain_types, _on_conflict, _POSTGRESQL_CLOCK, _AUTOCOMMIT),
    "mysql": _on_mysql,
    "mariadb": _on_mysql,
    "mssql": _Dialect("mssql", "pymssql", _mssql_types, _mssql_merge, _MSSQL_CLOCK, _AUTOCOMMIT),
    "oracle": _Dialect("oracle", "oracledb", _oracle_types, _oracle_merge, _ORACLE_CLOCK, _AUTOCOMMIT),
}


def _dialect(name: str) -> _Dialect:
    row = DIALECTS.get(name)
    if row is None:
        raise ConfigurationError(
            f"The SQL store does not know {name!r}. There are {', '.join(DIALECTS)}.{suggestion(name, DIALECTS)}"
        )
    return row


# Arguments that make a driver, and where possible the server, give up on what nobody waits for any longer: by driver,
# from whole seconds.
TIMEOUTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "psycopg": lambda seconds: {
        "connect_timeout": max(2, seconds),  # less is not possible
        "tcp_user_timeout": seconds * 1000,
        "options": f"-c statement_timeout={seconds}s -c lock_timeout={seconds}s",
    },
    "pymysql": lambda seconds: {
        "connect_timeout": seconds,
        "read_timeout": seconds,
        "write_timeout": seconds,
        # MariaDB and MySQL name the limit of a statement differently; what is marked as the other's is a comment.
        "init_command": f"SET SESSION innodb_lock_wait_timeout = {seconds}, lock_wait_timeout = {seconds}"
        f" /*M!100101 , max_statement_time = {seconds} */ /*!50708 , max_execution_time = {seconds * 1000} */",
    },
    "pymssql": lambda seconds: {"login_timeout": seconds, "timeout": seconds},
    "oracledb": lambda seconds: {"tcp_connect_timeout": seconds},
}


def _timeouts(driver: str, budget: float) -> dict[str, Any]:
    if driver == "pysqlite":
        return {"timeout": budget}
    return TIMEOUTS[driver](max(1, math.ceil(budget))) if driver in TIMEOUTS else {}


def _read_url(url: str | sa.URL) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        # Without its cause, which may quote a piece of the password.
        raise ConfigurationError(
            "The url of the SQL store cannot be read. It looks like postgresql://user:password@host:port/database, "
            "and special characters in its password are percent-encoded."
        ) from None
    if parsed.drivername.partition("+")[0] == "postgres":
        parsed = parsed.set(drivername=parsed.drivername.replace("postgres", "postgresql", 1))
    row = _dialect(parsed.get_backend_name())
    if row.is_embedded and parsed.database in (None, "", ":memory:"):
        raise ConfigurationError(
            "The SQL store needs a file: a database in memory is another one for each connection. "
            "To cache in memory, take Cache(type='local')."
        )
    if "+" not in parsed.drivername and row.driver:
        parsed = parsed.set(drivername=f"{parsed.drivername}+{row.driver}")
    try:
        parsed.get_dialect()
    except sa.exc.NoSuchModuleError:
        package = "duckdb-engine" if parsed.get_backend_name() == "duckdb" else parsed.drivername
        raise _missing(parsed, row, package) from None
    except ModuleNotFoundError as error:
        raise _missing(parsed, row, str(error.name)) from None
    return parsed


def _missing(url: sa.URL, row: _Dialect, package: str) -> MissingPackage:
    return MissingPackage(f"The SQL store for {url.get_backend_name()}", package, f"rejoinder[{row.extra}]")


# ── forks ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

_stores: weakref.WeakSet[SQLStore] = weakref.WeakSet()
_abandoned: list[sa.Pool] = []


def _before_fork() -> None:
    for store in list(_stores):
        store._before_fork()


def _after_fork_in_parent() -> None:
    for store in list(_stores):
        store._gate.open()


def _after_fork_in_child() -> None:
    for store in list(_stores):
        store._after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
