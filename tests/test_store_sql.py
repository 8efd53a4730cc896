"""The SQL store, against every database that can be had, and against servers that fail."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
import secrets
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="pip install 'rejoinder[sql]'")

import sqlalchemy as sa
from sqlalchemy.dialects import mssql, oracle
from sqlalchemy.schema import CreateIndex, CreateTable

from rejoinder.caching.cache import Cache
from rejoinder.caching.stores.base import mark_of
from rejoinder.caching.stores.sql import SQLStore
from rejoinder.caching.stores.sql_dialects import DIALECTS, merge
from rejoinder.caching.stores.sql_statements import LONGEST, Statements, encode, id_of
from rejoinder.core.errors import ConfigurationError, MissingPackage
from tests.conformance.store import StoreConformance, closing, in_fork, in_threads
from tests.fixtures.databases import Database, MariaDB, Postgres, mariadb_server, postgres_server
from tests.fixtures.servers import refusing_server, silent_server

PATIENT = 5.0  # seconds: a busy machine is not what these tests are about


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="module")
def mariadb() -> Iterator[MariaDB]:
    with mariadb_server() as server:
        yield server


def emptied(server: Database) -> str:
    """The server's url, after its tables were dropped."""
    engine = SQLStore(server.url)._engine
    with engine.begin() as connection:
        tables = sa.MetaData()
        tables.reflect(connection)
        tables.drop_all(connection)
    engine.dispose()
    return server.url


class TestOnSQLite(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SQLStore]:
        yield from closing(SQLStore(f"sqlite:///{tmp_path}/cache.sqlite3", budget=PATIENT))  # type: ignore[misc]


class TestOnDuckDB(StoreConformance):
    many = 703
    """More than a page; each write takes DuckDB milliseconds."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SQLStore]:
        pytest.importorskip("duckdb_engine", reason="pip install duckdb duckdb-engine")
        yield from closing(SQLStore(f"duckdb:///{tmp_path}/cache.duckdb", budget=PATIENT))  # type: ignore[misc]


class TestOnPostgreSQL(StoreConformance):
    @pytest.fixture
    def store(self, postgres: Postgres) -> Iterator[SQLStore]:
        yield from closing(SQLStore(emptied(postgres), budget=PATIENT))  # type: ignore[misc]


class TestOnMariaDB(StoreConformance):
    @pytest.fixture
    def store(self, mariadb: MariaDB) -> Iterator[SQLStore]:
        yield from closing(SQLStore(emptied(mariadb), budget=PATIENT))  # type: ignore[misc]


LIVE = {"SQL Server": "REJOINDER_TEST_MSSQL_URL", "Oracle": "REJOINDER_TEST_ORACLE_URL"}
LIVE_URLS = {name: os.environ[variable] for name, variable in LIVE.items() if os.environ.get(variable)}


class TestOnAServerOfTheCallers(StoreConformance):
    __test__ = bool(LIVE_URLS)

    @pytest.fixture(params=LIVE_URLS)
    def store(self, request: pytest.FixtureRequest) -> Iterator[SQLStore]:
        store = SQLStore(LIVE_URLS[request.param], table=f"rejoinder_{secrets.token_hex(4)}", budget=PATIENT)
        yield from closing(store)  # type: ignore[misc]
        store._sql.tables.drop_all(store._engine)
        store.close()


@pytest.mark.parametrize("name", LIVE)
def test_conformance_ran_on_a_live_server_too(name: str) -> None:
    if name not in LIVE_URLS:
        pytest.skip(f"no {name} can be had from a package: {LIVE[name]} may name one, and then the suite runs on it")


@pytest.fixture(params=["postgres", "mariadb"])
def server(request: pytest.FixtureRequest) -> Database:
    """Each of the servers in turn, empty."""
    database: Database = request.getfixturevalue(request.param)
    emptied(database)
    return database


@pytest.fixture
def store(server: Database) -> Iterator[SQLStore]:
    yield from closing(SQLStore(server.url, budget=PATIENT))  # type: ignore[misc]


def seconds_to_fail(call: Callable[[], Any]) -> float:
    started = time.monotonic()
    with pytest.raises((sa.exc.DBAPIError, TimeoutError)):
        call()
    return time.monotonic() - started


def run(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Another process, in which `store` waits patiently at the url that is the first argument."""
    begin = "import sys, time; from rejoinder.caching.stores.sql import SQLStore\n"
    begin += f"store = SQLStore(sys.argv[1], budget={PATIENT})\n"
    return subprocess.Popen(
        [sys.executable, "-c", begin + code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


# What is stored


SIMILAR = [
    "key",
    "Key",
    "KEY",
    "kéy",
    "ke\u0301y",
    "key ",
    "key  ",
    " key",
    "key\0",
    "key\t",
    "straße",
    "strasse",
    "ǆ",
    "ǅ",
]


def test_keys_that_databases_think_equal_are_not(store: SQLStore) -> None:
    for key in SIMILAR:
        assert store.get(key) is None
        store.set(key, key.encode())
    assert [store.get(key) for key in SIMILAR] == [key.encode() for key in SIMILAR]
    assert sorted(record.key for record in store.scan()) == sorted(SIMILAR)
    assert store.clear("key ") == 2


def test_leases_of_such_keys_are_not_one(store: SQLStore) -> None:
    assert all(store.lease(key, 10) for key in SIMILAR)
    assert not any(store.lease(key, 10) for key in SIMILAR)


@pytest.mark.parametrize("length", [199, 200, 201, 5000])
def test_keys_of_any_length_are_told_apart_and_scanned(store: SQLStore, length: int) -> None:
    keys = [letter * (length - 1) + end for letter in "aé" for end in "xy"]
    for key in keys:
        store.set(key, key.encode())
    assert [store.get(key) for key in keys] == [key.encode() for key in keys]
    assert {record.key for record in store.scan()} == set(keys)
    assert {record.key for record in store.scan(keys[0][:-1])} == set(keys[:2])
    assert store.clear(keys[0]) == 1
    assert {record.key for record in store.scan("a")} == {keys[1]}
    assert store.clear("é") == 2


def test_a_key_cut_inside_a_letter_is_still_found_by_its_prefix(store: SQLStore) -> None:
    key = "a" + "é" * 300
    store.set(key, b"value")
    for length in (1, 99, 100, 101, 102, 300):
        assert [record.key for record in store.scan(key[:length])] == [key]


def test_a_value_may_have_sixteen_megabytes(store: SQLStore) -> None:
    value = os.urandom(2**20) * 16
    store.set("large", value)
    assert store.get("large") == value


def test_expired_entries_are_given_back_by_prune_with_expired_leases(store: SQLStore) -> None:
    for number in range(1100):
        store.set(f"dead{number}", b"value", 0.001)
    store.set("alive", b"value", 100)
    store.lease("dead", 0.001)
    lease = store.lease("alive", 100)
    assert lease
    time.sleep(0.01)
    assert store.prune() == 1100
    with store._engine.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM rejoinder_entries")).scalar() == 1
        assert connection.execute(sa.text("SELECT count(*) FROM rejoinder_entries_leases")).scalar() == 1
    assert store.renew("alive", lease, 10)


def test_a_tag_of_many_is_cleared_in_few_statements(tmp_path: Path) -> None:
    store = SQLStore(f"sqlite:///{tmp_path}/few.db", budget=5)
    keys = [f"n:{number}" for number in range(700)] + ["n:" + "long" * 100 + str(number) for number in range(700)]
    with store._engine.begin() as connection:
        store._create_tables(connection)
        marks = [mark_of("n:", "red") + key[2:] for key in keys]
        rows = [
            {
                "id": id_of(name),
                "long_key": name if len(name) > LONGEST else None,
                "value": b"",
                "length": 0,
                "ttl": None,
            }
            for name in map(encode, [*keys, *marks, "n:untagged"])
        ]
        connection.execute(store._sql.replace, rows)
    statements: list[str] = []
    sa.event.listen(store._engine, "before_cursor_execute", lambda *event: statements.append(event[2]))
    assert store.clear_tag("n:", "red") == 1400
    assert [record.key for record in store.scan()] == ["n:untagged"]
    assert len(statements) < 30
    store.close()


def test_the_clock_is_the_servers(store: SQLStore, server: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    store.set("k", b"value", 100)
    token = store.lease("k", 100)
    assert token
    ahead = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: ahead)
    with contextlib.closing(SQLStore(server.url, budget=PATIENT)) as other:
        assert other.get("k") == b"value"
        assert other.lease("k", 100) is None
        assert other.renew("k", token, 100)


# Tables


def test_a_table_that_somebody_drops_is_made_anew(store: SQLStore) -> None:
    store.set("k", b"value")
    store._sql.tables.drop_all(store._engine)
    assert store.get("k") is None
    store.set("k", b"again")
    assert store.get("k") == b"again"


def test_tables_of_different_names_do_not_meet(server: Database) -> None:
    one, two = (SQLStore(server.url, table=table, budget=PATIENT) for table in ("one", "Two words%s"))
    with contextlib.closing(one), contextlib.closing(two):
        one.set("k", b"1")
        assert two.get("k") is None
        two.set("k", b"2")
        assert (one.get("k"), two.get("k")) == (b"1", b"2")
        assert two.clear() == 1
        assert one.get("k") == b"1"


def test_whoever_may_not_create_tables_uses_those_that_are_there(store: SQLStore, server: Database) -> None:
    store.set("k", b"value")
    rights = "SELECT, INSERT, UPDATE, DELETE"
    with store._engine.begin() as connection:
        if isinstance(server, Postgres):
            connection.execute(sa.text("CREATE ROLE modest LOGIN"))
            tables = "rejoinder_entries, rejoinder_entries_leases"
            connection.execute(sa.text("REVOKE CREATE ON SCHEMA public FROM PUBLIC"))
            connection.execute(sa.text(f"GRANT {rights} ON {tables} TO modest"))
        else:
            connection.execute(sa.text("CREATE USER modest@'127.0.0.1'"))
            connection.execute(sa.text(f"GRANT {rights} ON rejoinder.* TO modest@'127.0.0.1'"))
    url = sa.make_url(server.url).set(username="modest")
    with contextlib.closing(SQLStore(url, budget=PATIENT)) as modest:
        assert modest.get("k") == b"value"
        modest.set("k", b"theirs")
        assert modest.lease("k", 10)
    with contextlib.closing(SQLStore(url, table="other", budget=PATIENT)) as modest, pytest.raises(sa.exc.DBAPIError):
        modest.get("k")


def test_an_engine_of_the_callers_is_used_and_left_open(server: Database) -> None:
    theirs = SQLStore(server.url)._engine.url
    engine = sa.create_engine(theirs)
    store = SQLStore(engine=engine, budget=PATIENT)
    store.set("k", b"value")
    store.close()
    assert engine.pool.checkedin() == 1  # type: ignore[attr-defined]
    assert SQLStore(server.url, budget=PATIENT).get("k") == b"value"
    engine.dispose()


# Processes


def test_processes_that_begin_at_once_share_one_table(server: Database) -> None:
    work = """
input()
number = sys.argv[2]
for turn in range(20):
    store.set(f"{number}:{turn}", number.encode())
    store.set("shared", number.encode() * 1000)
    assert len(set(store.get("shared"))) == 1
print(store.lease("one of us", 60) or "")
"""
    processes = [run(work, server.url, str(number)) for number in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    tokens = [process.communicate(timeout=30)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert len([token for token in tokens if token]) == 1
    with contextlib.closing(SQLStore(server.url, budget=PATIENT)) as store:
        assert len(list(store.scan())) == 4 * 20 + 1


def test_the_lease_of_a_killed_process_ends(server: Database, store: SQLStore) -> None:
    process = run("print(store.lease('k', 0.5), flush=True); time.sleep(60)", server.url)
    assert process.stdout is not None
    token = process.stdout.readline().strip()
    assert store.lease("k", 10) is None
    process.kill()
    process.communicate()
    assert store.renew("k", token, 0.3)  # still held, by nobody
    deadline = time.monotonic() + 5
    while not (mine := store.lease("k", 10)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert mine != token


def test_a_process_ends_although_its_server_hangs() -> None:
    with silent_server() as port:
        code = "store.budget = 0.05\ntry: store.get('k')\nexcept TimeoutError: print('late', flush=True)"
        process = run(code, f"postgresql://u@127.0.0.1:{port}/d")
        assert process.stdout is not None
        assert process.stdout.readline() == "late\n"
        assert process.wait(1.5) == 0  # while libpq would wait for two seconds


def test_stores_that_begin_at_once_do_not_trip_over_each_other(server: Database) -> None:
    for turn in range(3):
        stores = [SQLStore(server.url, table=f"turn{turn}", budget=PATIENT) for _ in range(8)]
        in_threads(8, lambda number, stores=stores: stores[number].set("k", b"value"))  # type: ignore[misc]
        assert all(store.get("k") == b"value" for store in stores)
        for store in stores:
            store.close()


def test_a_forked_child_leaves_the_connection_of_its_parent_alone(server: Database, store: SQLStore) -> None:
    def who() -> int:
        asked = sa.text("SELECT pg_backend_pid()" if isinstance(server, Postgres) else "SELECT connection_id()")
        with store._engine.connect() as connection:
            return int(connection.execute(asked).scalar_one())

    store.set("k", b"value")
    parents = who()

    def child() -> None:
        assert store.get("k") == b"value"
        assert who() != parents
        store.close()

    in_fork(child)
    assert who() == parents


@pytest.mark.parametrize("scheme", ["sqlite", "duckdb"])
def test_what_a_forked_child_stores_its_parent_finds(scheme: str, tmp_path: Path) -> None:
    if scheme == "duckdb":
        pytest.importorskip("duckdb_engine", reason="pip install duckdb duckdb-engine")
    with contextlib.closing(SQLStore(f"{scheme}:///{tmp_path}/cache", budget=PATIENT)) as store:
        store.set("parent", b"value")

        def child() -> None:
            assert store.get("parent") == b"value"
            store.set("child", b"value")
            store.close()

        in_fork(child)
        assert {record.key for record in store.scan()} == {"parent", "child"}


# Outages


def test_a_connection_that_the_server_has_closed_costs_no_error(store: SQLStore, server: Database) -> None:
    store.set("k", b"value")
    with contextlib.closing(SQLStore(server.url, budget=PATIENT)) as other, other._engine.connect() as connection:
        if isinstance(server, Postgres):
            who = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            who += " AND backend_type = 'client backend'"
            connection.execute(sa.text(who)).all()
        else:
            who = "SELECT id FROM information_schema.processlist WHERE id <> connection_id() AND command = 'Sleep'"
            for (id,) in connection.execute(sa.text(who)).all():
                connection.execute(sa.text(f"KILL {id}"))
    assert store.get("k") == b"value"


@pytest.mark.parametrize("start", [postgres_server, mariadb_server])
def test_a_server_may_be_killed_and_come_back(start: Callable[[], contextlib.AbstractContextManager[Database]]) -> None:
    with start() as server, contextlib.closing(SQLStore(server.url)) as store:
        patient = SQLStore(server.url, budget=PATIENT)
        patient.set("k", b"value")
        assert patient.get("k") == b"value"
        with contextlib.suppress(TimeoutError):
            store.get("k")  # opens a connection
        server.kill()
        for _ in range(3):
            assert seconds_to_fail(lambda: store.get("k")) < 0.3
            assert seconds_to_fail(lambda: asyncio.run(store.aset("k", b"lost"))) < 0.3
        server.start()
        assert patient.get("k") == b"value"
        patient.set("k", b"after")
        assert patient.get("k") == b"after"
        patient.close()


def test_a_frozen_server_costs_the_budget_and_thawed_it_answers(server: Database) -> None:
    with contextlib.closing(SQLStore(server.url)) as store:
        store.budget = PATIENT
        store.set("k", b"value")
        store.budget = 0.1
        with server.frozen():
            for _ in range(4):
                assert 0.08 < seconds_to_fail(lambda: store.get("k")) < 0.3
            with ThreadPoolExecutor(20) as threads:
                times = list(threads.map(lambda _: seconds_to_fail(lambda: store.get("k")), range(20)))
            assert max(times) < 0.5
        store.budget = PATIENT
        assert store.get("k") == b"value"


def test_a_lease_that_came_too_late_is_given_back(server: Database, store: SQLStore) -> None:
    assert store.lease("other", 10)
    with contextlib.closing(SQLStore(server.url)) as late:
        late.budget = PATIENT
        assert late.get("k") is None
        late.budget = 0.1
        with server.frozen(), pytest.raises(TimeoutError):
            late.lease("k", 600)
        assert late._crew.submit(lambda: None).result(PATIENT) is None  # behind the release
        deadline = time.monotonic() + 5
        while not store.lease("k", 10):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_connection_that_took_too_long_serves_the_next_call(server: Database) -> None:
    with contextlib.closing(SQLStore(server.url)) as store:
        store.budget = 0.001
        with pytest.raises(TimeoutError):
            store.set("k", b"value")
        deadline = time.monotonic() + PATIENT
        while store._engine.pool.checkedin() == 0:  # type: ignore[attr-defined]
            assert time.monotonic() < deadline
            time.sleep(0.005)
        store.budget = PATIENT
        store.get("k")
        assert store._engine.pool.checkedin() == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
@pytest.mark.parametrize("trouble", [silent_server, refusing_server])
def test_a_server_that_does_not_answer_costs_the_budget(
    scheme: str, trouble: Callable[[], contextlib.AbstractContextManager[int]]
) -> None:
    with trouble() as port, contextlib.closing(SQLStore(f"{scheme}://u:hush@127.0.0.1:{port}/d")) as store:
        for call in (lambda: store.get("k"), lambda: store.set("k", b"v"), lambda: asyncio.run(store.aget("k"))):
            assert seconds_to_fail(call) < 0.3


# Settings


def test_the_password_is_nowhere_to_be_seen(server: Database) -> None:
    url = sa.make_url(server.url).set(username="nobody_known", password="hush-hush")
    seen = []
    with contextlib.closing(SQLStore(url, budget=PATIENT)) as store, refusing_server() as port:
        nowhere = SQLStore(url.set(port=port), budget=PATIENT)
        for each in (store, nowhere):
            with pytest.raises(sa.exc.DBAPIError) as caught:
                each.get("k")
            seen += ["".join(traceback.format_exception(caught.value)), repr(each), repr(each._engine)]
    assert not [text for text in seen if "hush" in text]


@pytest.mark.parametrize(
    "url", ["postgresql://u:hush@h:hush/d", "hush", "postgresql://u:p@hush@h:x/d", "hush://u:p@h/d"]
)
def test_a_url_that_cannot_be_read_is_not_quoted(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SQLStore(url)
    shown = "".join(traceback.format_exception(caught.value))
    assert "hush" not in shown.replace(url, "") or url.startswith("hush://")


def test_an_error_shows_neither_keys_nor_values(store: SQLStore) -> None:
    with store._engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE rejoinder_entries (id INTEGER)"))
    with pytest.raises(sa.exc.DBAPIError, match="long_key") as caught:
        store.set("secret key", b"secret value")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("postgresql://h/d", "psycopg", "postgres"),
        ("mysql://h/d", "pymysql", "mysql"),
        ("mariadb://h/d", "pymysql", "mysql"),
        ("mssql://h/d", "pymssql", "mssql"),
        ("oracle://h/d", "oracledb", "oracle"),
        ("duckdb:///d.duckdb", "duckdb", "duckdb"),
    ],
)
def test_a_missing_driver_is_named_with_its_extra(
    url: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    for name in [name for name in sys.modules if name.startswith(("duckdb.", "duckdb_engine"))]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingPackage, match=rf"'{module}': pip install 'rejoinder\[{extra}\]'"):
        SQLStore(url)


def test_without_sqlalchemy_the_extra_is_named() -> None:
    code = "import sys; sys.modules['sqlalchemy'] = None; import rejoinder.caching.stores.sql"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "The SQL store needs 'sqlalchemy': pip install 'rejoinder[sql]'." in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either a url or an engine"),
        ({"url": "sqlite://"}, "needs a file"),
        ({"url": "sqlite:///:memory:"}, "needs a file"),
        ({"url": "postgre://h/d"}, "Did you mean 'postgresql'"),
        ({"url": "sqlite:///x", "engine": sa.create_engine("sqlite:///x")}, "either a url or an engine"),
        ({"engine": sa.create_engine("sqlite:///x"), "echo": True}, "takes no echo"),
        ({"url": "postgresql+psycopg_async://h/d"}, "synchronous driver"),
        ({"url": "postgresql://h/d", "port": 1}, "'port'"),
    ],
)
def test_settings_that_cannot_work_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SQLStore(**arguments)


def test_what_the_url_says_of_timeouts_goes_first(postgres: Postgres) -> None:
    for query, limit in (("?options=-cstatement_timeout%3D77s", "77s"), ("", "1s")):
        store = SQLStore(postgres.url + query, budget=0.5)
        with contextlib.closing(store), store._engine.connect() as connection:
            assert connection.execute(sa.text("SHOW statement_timeout")).scalar() == limit


def test_mariadb_gives_up_by_itself(mariadb: MariaDB) -> None:
    with contextlib.closing(SQLStore(mariadb.url)) as store, store._engine.connect() as connection:
        asked = sa.text("SELECT @@max_statement_time, @@innodb_lock_wait_timeout, @@lock_wait_timeout")
        assert [float(value) for value in connection.execute(asked).one()] == [1, 1, 1]


def test_a_cache_names_the_store_by_its_type(tmp_path: Path) -> None:
    cache = Cache(type="sql", url=f"sqlite:///{tmp_path}/cache.sqlite3", table="answers", budget=0.7)
    assert isinstance(cache.store, SQLStore)
    assert (cache.type, cache.store.table) == ("sql", "answers")
    assert 0.5 < cache.store.budget <= 0.7
    with pytest.raises(ConfigurationError, match="'host'"):
        Cache(type="sql", url="postgresql://h/d", host="elsewhere")


# SQL Server and Oracle, as far as one gets without them


LIST = "__[POSTCOMPILE_ids]"  # as many parameters as there are values
FILLING = {"after": b"", "last": b"", "ids": [b"1"]}


def statements(name: str) -> dict[str, str]:
    """All SQL that the store would send, as the dialect writes it, with NOW for the clock."""
    dialect = {"mssql": mssql.dialect(deprecate_large_types=True), "oracle": oracle.dialect()}[name]
    sql = Statements("rejoinder_entries", DIALECTS[name], dialect)
    written = {table.name: CreateTable(table).compile(dialect=dialect) for table in (sql.entries, sql.leases)}
    written |= {str(each.name): CreateIndex(each).compile(dialect=dialect) for each in sql.entries.indexes}
    for word, statement in vars(sql).items():
        if isinstance(statement, sa.Executable):
            # A limit is written out only once everything has a value.
            filled = statement.params(FILLING) if isinstance(statement, sa.Select) else statement
            options = {"render_postcompile": isinstance(statement, sa.Select)}
            written[word] = filled.compile(dialect=dialect, compile_kwargs=options).string.replace(LIST, ":ids")
    return {word: " ".join(str(each).split()).replace(DIALECTS[name].clock, "NOW") for word, each in written.items()}


@pytest.mark.parametrize("name", ["mssql", "oracle"])
def test_an_independent_parser_reads_every_statement(name: str) -> None:
    sqlglot = pytest.importorskip("sqlglot", reason="pip install sqlglot")
    for word, statement in statements(name).items():
        whole = statement.replace("NOW", str(DIALECTS[name].clock))
        if name == "mssql":
            whole = re.sub(r":(\w+)", r"@\1", whole)
        parsed = sqlglot.parse(whole, read={"mssql": "tsql"}.get(name, name))
        assert len(parsed) == 1, word
        assert not list(parsed[0].find_all(sqlglot.exp.Command)), word  # what it gives up on


@pytest.mark.parametrize("name", ["mssql", "oracle"])
def test_the_sql_for_databases_that_cannot_be_had_is_known(name: str) -> None:
    assert statements(name) == KNOWN[name]


KNOWN: dict[str, dict[str, str]] = {
    "mssql": {
        "rejoinder_entries": "CREATE TABLE rejoinder_entries "
        "( id VARBINARY(255) NOT NULL, long_key VARBINARY(max) NULL, "
        "value VARBINARY(max) NULL, length INTEGER NOT NULL, stored_at DOUBLE PRECISION NOT NULL, "
        "expires_at DOUBLE PRECISION NULL, PRIMARY KEY (id) )",
        "rejoinder_entries_leases": "CREATE TABLE rejoinder_entries_leases "
        "( id VARBINARY(255) NOT NULL, token VARBINARY(255) NOT "
        "NULL, expires_at DOUBLE PRECISION NOT NULL, PRIMARY KEY (id) )",
        "ix_rejoinder_entries_expires_at": "CREATE INDEX ix_rejoinder_entries_expires_at ON "
        "rejoinder_entries (expires_at)",
        "find": "SELECT rejoinder_entries.value FROM rejoinder_entries WHERE rejoinder_entries.id = :id AND "
        "(rejoinder_entries.expires_at IS NULL OR rejoinder_entries.expires_at > NOW)",
        "replace": "MERGE INTO rejoinder_entries WITH (HOLDLOCK) AS old USING (SELECT :id AS id) new ON (old.id = "
        "new.id) WHEN MATCHED THEN UPDATE SET long_key = :long_key, value = :value, length = :length, "
        "stored_at = NOW, expires_at = NOW + :ttl WHEN NOT MATCHED THEN INSERT (id, long_key, value, "
        "length, stored_at, expires_at) VALUES (:id, :long_key, :value, :length, NOW, NOW + :ttl);",
        "find_all": "SELECT rejoinder_entries.id, rejoinder_entries.value FROM rejoinder_entries WHERE "
        "rejoinder_entries.id IN (:ids_1)",
        "remove": "DELETE FROM rejoinder_entries WHERE rejoinder_entries.id = :id",
        "page": "SELECT TOP 500 rejoinder_entries.id, rejoinder_entries.long_key, rejoinder_entries.length, "
        "rejoinder_entries.stored_at, rejoinder_entries.expires_at FROM rejoinder_entries WHERE "
        "rejoinder_entries.id > :after AND rejoinder_entries.id <= :last AND "
        "(rejoinder_entries.expires_at IS NULL OR rejoinder_entries.expires_at > NOW) ORDER BY "
        "rejoinder_entries.id",
        "dead_page": "SELECT TOP 500 rejoinder_entries.id, rejoinder_entries.long_key, rejoinder_entries.length, "
        "rejoinder_entries.stored_at, rejoinder_entries.expires_at FROM rejoinder_entries WHERE "
        "rejoinder_entries.id > :after AND rejoinder_entries.id <= :last AND "
        "rejoinder_entries.expires_at <= NOW ORDER BY rejoinder_entries.id",
        "ids": "SELECT TOP 500 rejoinder_entries.id FROM rejoinder_entries WHERE rejoinder_entries.id > :after "
        "AND rejoinder_entries.id <= :last ORDER BY rejoinder_entries.id",
        "remove_all": "DELETE FROM rejoinder_entries WHERE rejoinder_entries.id IN (:ids)",
        "dead": "SELECT TOP 500 rejoinder_entries.id FROM rejoinder_entries WHERE rejoinder_entries.expires_at "
        "<= NOW ORDER BY rejoinder_entries.expires_at",
        "remove_dead": "DELETE FROM rejoinder_entries WHERE rejoinder_entries.id IN (:ids) AND "
        "rejoinder_entries.expires_at <= NOW",
        "take_over": "UPDATE rejoinder_entries_leases SET token=:mine, expires_at=(NOW + :ttl) WHERE "
        "rejoinder_entries_leases.id = :lease AND (rejoinder_entries_leases.expires_at <= NOW OR "
        "rejoinder_entries_leases.expires_at > NOW + :longest OR rejoinder_entries_leases.token = :mine)",
        "take": "INSERT INTO rejoinder_entries_leases (id, token, expires_at) VALUES (:lease, :mine, (NOW + :ttl))",
        "renew": "UPDATE rejoinder_entries_leases SET expires_at=(NOW + :ttl) WHERE rejoinder_entries_leases.id = "
        ":lease AND rejoinder_entries_leases.token = :mine AND rejoinder_entries_leases.expires_at > NOW",
        "release": "DELETE FROM rejoinder_entries_leases WHERE rejoinder_entries_leases.id = :lease AND "
        "rejoinder_entries_leases.token = :mine AND rejoinder_entries_leases.expires_at > NOW",
        "prune_leases": "DELETE FROM rejoinder_entries_leases WHERE rejoinder_entries_leases.expires_at <= NOW",
    },
    "oracle": {
        "rejoinder_entries": "CREATE TABLE rejoinder_entries "
        "( id RAW(255) NOT NULL, long_key BLOB, value BLOB, length "
        "INTEGER NOT NULL, stored_at BINARY_DOUBLE NOT NULL, expires_at BINARY_DOUBLE, PRIMARY KEY (id) "
        ")",
        "rejoinder_entries_leases": "CREATE TABLE rejoinder_entries_leases "
        "( id RAW(255) NOT NULL, token RAW(255) NOT NULL, "
        "expires_at BINARY_DOUBLE NOT NULL, PRIMARY KEY (id) )",
        "ix_rejoinder_entries_expires_at": "CREATE INDEX ix_rejoinder_entries_expires_at ON "
        "rejoinder_entries (expires_at)",
        "find": "SELECT rejoinder_entries.value FROM rejoinder_entries WHERE rejoinder_entries.id = :id AND "
        "(rejoinder_entries.expires_at IS NULL OR rejoinder_entries.expires_at > NOW)",
        "replace": "MERGE INTO rejoinder_entries old USING (SELECT :id AS id FROM dual) new ON (old.id = new.id) "
        "WHEN MATCHED THEN UPDATE SET long_key = :long_key, value = :value, length = :length, stored_at "
        "= NOW, expires_at = NOW + :ttl WHEN NOT MATCHED THEN INSERT (id, long_key, value, length, "
        "stored_at, expires_at) VALUES (:id, :long_key, :value, :length, NOW, NOW + :ttl)",
        "find_all": "SELECT rejoinder_entries.id, rejoinder_entries.value FROM rejoinder_entries WHERE "
        "rejoinder_entries.id IN (:ids_1)",
        "remove": "DELETE FROM rejoinder_entries WHERE rejoinder_entries.id = :id",
        "page": "SELECT rejoinder_entries.id, rejoinder_entries.long_key, rejoinder_entries.length, "
        "rejoinder_entries.stored_at, rejoinder_entries.expires_at FROM rejoinder_entries WHERE "
        "rejoinder_entries.id > :after AND rejoinder_entries.id <= :last AND "
        "(rejoinder_entries.expires_at IS NULL OR rejoinder_entries.expires_at > NOW) ORDER BY "
        "rejoinder_entries.id FETCH FIRST 500 ROWS ONLY",
        "dead_page": "SELECT rejoinder_entries.id, rejoinder_entries.long_key, rejoinder_entries.length, "
        "rejoinder_entries.stored_at, rejoinder_entries.expires_at FROM rejoinder_entries WHERE "
        "rejoinder_entries.id > :after AND rejoinder_entries.id <= :last AND "
        "rejoinder_entries.expires_at <= NOW ORDER BY rejoinder_entries.id FETCH FIRST 500 ROWS ONLY",
        "ids": "SELECT rejoinder_entries.id FROM rejoinder_entries WHERE rejoinder_entries.id > :after AND "
        "rejoinder_entries.id <= :last ORDER BY rejoinder_entries.id FETCH FIRST 500 ROWS ONLY",
        "remove_all": "DELETE FROM rejoinder_entries WHERE rejoinder_entries.id IN (:ids)",
        "dead": "SELECT rejoinder_entries.id FROM rejoinder_entries WHERE rejoinder_entries.expires_at <= NOW "
        "ORDER BY rejoinder_entries.expires_at FETCH FIRST 500 ROWS ONLY",
        "remove_dead": "DELETE FROM rejoinder_entries WHERE rejoinder_entries.id IN (:ids) AND "
        "rejoinder_entries.expires_at <= NOW",
        "take_over": "UPDATE rejoinder_entries_leases SET token=:mine, expires_at=(NOW + :ttl) WHERE "
        "rejoinder_entries_leases.id = :lease AND (rejoinder_entries_leases.expires_at <= NOW OR "
        "rejoinder_entries_leases.expires_at > NOW + :longest OR rejoinder_entries_leases.token = :mine)",
        "take": "INSERT INTO rejoinder_entries_leases (id, token, expires_at) VALUES (:lease, :mine, (NOW + :ttl))",
        "renew": "UPDATE rejoinder_entries_leases SET expires_at=(NOW + :ttl) WHERE rejoinder_entries_leases.id = "
        ":lease AND rejoinder_entries_leases.token = :mine AND rejoinder_entries_leases.expires_at > NOW",
        "release": "DELETE FROM rejoinder_entries_leases WHERE rejoinder_entries_leases.id = :lease AND "
        "rejoinder_entries_leases.token = :mine AND rejoinder_entries_leases.expires_at > NOW",
        "prune_leases": "DELETE FROM rejoinder_entries_leases WHERE rejoinder_entries_leases.expires_at <= NOW",
    },
}


def test_the_merge_statement_runs_where_there_is_one(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DIALECTS, "postgresql", dataclasses.replace(DIALECTS["postgresql"], replace=merge))
    with contextlib.closing(SQLStore(emptied(postgres), budget=PATIENT)) as store:
        store.set("k", b"first", 100)
        store.set("other", b"value")
        store.set("k", b"second")
        assert store.get("k") == b"second"
        assert {record.key: record.expires_at for record in store.scan()} == {"k": None, "other": None}
        store.set("k", b"third", 0.001)
        time.sleep(0.01)
        assert {record.key for record in store.scan()} == {"other"}
        in_threads(8, lambda number: store.set("contended", b"%d" % number))
        assert store.get("contended") in {b"%d" % number for number in range(8)}
