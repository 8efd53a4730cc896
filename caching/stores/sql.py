"""In a SQL database that is there anyway: shared by processes and hosts, with leases.

One table of entries and one of leases. Their keys are bytes: text would be compared by the database's collation, where
"Key", "kéy" and "key " may all be "key", and a cache would give one question the answer of another.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

from ...core.errors import ConfigurationError, MissingPackage
from ...core.flow import Flow, Io, arun, run
from .base import Record, Store, longest_lease, mark_of

try:
    import sqlalchemy as sa
except ImportError:
    raise MissingPackage("The SQL store", "sqlalchemy", "rejoinder[sql]") from None

from .sql_dialects import dialect_of, missing, read_url, timeouts
from .sql_statements import BATCH, END, LONGEST, Statements, decode, encode, id_of, span
from .sql_threads import Crew, Gate

T = TypeVar("T")

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
        self._url = read_url(url) if url is not None else engine.url  # type: ignore[union-attr]
        self._dialect = dialect_of(self._url.get_backend_name())
        self._engine = self._open() if engine is None else engine.execution_options(**self._dialect.mode)
        if self._engine.dialect.is_async:
            raise ConfigurationError(
                f"The SQL store needs a synchronous driver, and {self._engine.driver!r} is not one. Leave it out of "
                f"the url or write {self._dialect.driver!r}; async calls do not block the event loop all the same."
            )
        self._sql = Statements(table, self._dialect, self._engine.dialect)
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
        row = yield self._asking(_first, self._sql.find, {"id": id_of(encode(key))})
        # Oracle has no empty bytes: it stores and returns NULL.
        return None if row is None else bytes(row[0] or b"")

    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        run(self._setting(key, value, ttl))

    async def aset(self, key: str, value: bytes, ttl: float | None = None) -> None:
        await arun(self._setting(key, value, ttl))

    def _setting(self, key: str, value: bytes, ttl: float | None) -> Flow[None]:
        name = encode(key)
        long_key = name if len(name) > LONGEST else None
        entry = {"id": id_of(name), "long_key": long_key, "value": value, "length": len(value), "ttl": ttl}
        yield self._asking(_execute, self._sql.replace, entry)

    def delete(self, key: str) -> bool:
        return self._ask(_count, self._sql.remove, {"id": id_of(encode(key))}) > 0

    async def adelete(self, key: str) -> bool:
        return await self._aask(_count, self._sql.remove, {"id": id_of(encode(key))}) > 0

    def scan(self, prefix: str = "") -> Iterator[Record]:
        return self._pages(self._sql.page, prefix)

    def _pages(self, statement: Any, prefix: str) -> Iterator[Record]:
        name = encode(prefix)
        after, last = span(name)
        while rows := self._ask(_all, statement, {"after": after, "last": last}):
            for id, long_key, size, stored_at, expires_at in rows:
                found = long_key or id[: -len(END)]
                if found.startswith(name):
                    yield Record(decode(found), size, stored_at, expires_at)
            after = rows[-1][0]

    # ── the rest ──────────────────────────────────────────────────────────────────────────────────────────────────

    def expired(self, prefix: str = "") -> Iterator[Record]:
        return self._pages(self._sql.dead_page, prefix)

    def peek(self, keys: Sequence[str]) -> list[bytes | None]:
        ids = [id_of(encode(key)) for key in keys]
        found: dict[bytes, bytes] = {}
        for start in range(0, len(ids), BATCH):  # Oracle takes a thousand values in a list
            rows = self._ask(_all, self._sql.find_all, {"ids": ids[start : start + BATCH]})
            found |= {bytes(id): bytes(value or b"") for id, value in rows}
        return [found.get(id) for id in ids]

    def clear(self, prefix: str = "") -> int:
        name = encode(prefix)
        if len(name) > LONGEST:
            return super().clear(prefix)
        after, last = span(name)
        removed = 0
        while rows := self._ask(_all, self._sql.ids, {"after": after, "last": last}):
            removed += self._ask(_count, self._sql.remove_all, {"ids": [id for (id,) in rows]})
            after = rows[-1][0]
        return removed

    def clear_tag(self, prefix: str, tag: str) -> int:
        ids = [id_of(encode(key)) for key in self.tagged(prefix, tag)]
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
            with self.leaving_nothing_taken(key, token):
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

    def _open(self) -> sa.Engine:
        # What the url says goes first: a proxy may not take everything that a server does.
        limits = {
            name: value
            for name, value in timeouts(self._url.get_dialect().driver, self.budget).items()
            if name not in self._url.query
        }
        options: dict[str, Any] = {
            "hide_parameters": True,  # prompts and answers do not belong into error messages
            "pool_size": self._dialect.places,
            "max_overflow": 0,
            "pool_timeout": self.budget,
            "pool_use_lifo": True,
            "pool_reset_on_return": None if self._dialect.mode else "rollback",
            **self._dialect.mode,
            **self._options,
            "connect_args": {**limits, **self._options.get("connect_args", {})},
        }
        try:
            return sa.create_engine(self._url, **options)
        except ModuleNotFoundError as error:
            raise missing(self._url, self._dialect, str(error.name)) from None
        except TypeError as error:  # names the options, and no values
            raise ConfigurationError(f"The SQL store cannot be set up: {error}") from None

    # ── forks ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _start(self) -> None:
        self._is_ready = False
        self._crew = Crew(self._dialect.places)
        self._gate = Gate(self._dialect.places)

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


def _execute(connection: sa.Connection, statement: Any, values: dict[str, Any]) -> None:
    connection.execute(statement, values)


def _is_read_only(error: sa.exc.DBAPIError) -> bool:
    """Whether it is SQLite that refuses to write: a file opened while its disk was read-only stays so ever after."""
    return bool(getattr(error.orig, "sqlite_errorcode", 0) & 0xFF == 8)  # SQLITE_READONLY, with its extended codes


def _held(key: str, token: str, ttl: float | None = None) -> dict[str, Any]:
    """A lease, as the statements want it."""
    return {"lease": id_of(encode(key)), "mine": encode(token), "ttl": ttl}


def _first(connection: sa.Connection, statement: Any, values: dict[str, Any]) -> Any:
    return connection.execute(statement, values).first()


def _all(connection: sa.Connection, statement: Any, values: dict[str, Any]) -> Any:
    return connection.execute(statement, values).all()


def _count(connection: sa.Connection, statement: Any, values: dict[str, Any]) -> int:
    return int(connection.execute(statement, values).rowcount)


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
