"""What differs by database: one row for each, and what its drivers are told."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import sqlalchemy as sa

from ...core.errors import ConfigurationError, MissingPackage, suggestion


@dataclass(frozen=True, slots=True)
class Dialect:
    """One database."""

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

    places: int = 8
    """Connections at once, to a server each with a thread."""

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


def merge(
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

_on_mysql = Dialect("mysql", "pymysql", _mysql_types, _on_duplicate_key, _MYSQL_CLOCK, _AUTOCOMMIT)
_mssql_merge = partial(merge, hint=" WITH (HOLDLOCK) AS", end=";")
_oracle_merge = partial(merge, source=" FROM dual")

DIALECTS = {
    "sqlite": Dialect("sql", None, _plain_types, _on_conflict, None, _AUTOCOMMIT),
    "duckdb": Dialect("duckdb", None, _plain_types, _on_conflict, None, {}, places=1),  # writers that meet fail
    "postgresql": Dialect("postgres", "psycopg", _plain_types, _on_conflict, _POSTGRESQL_CLOCK, _AUTOCOMMIT),
    "mysql": _on_mysql,
    "mariadb": _on_mysql,
    "mssql": Dialect("mssql", "pymssql", _mssql_types, _mssql_merge, _MSSQL_CLOCK, _AUTOCOMMIT),
    "oracle": Dialect("oracle", "oracledb", _oracle_types, _oracle_merge, _ORACLE_CLOCK, _AUTOCOMMIT),
}


def dialect_of(name: str) -> Dialect:
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


def timeouts(driver: str, budget: float) -> dict[str, Any]:
    if driver == "pysqlite":
        return {"timeout": budget}
    return TIMEOUTS[driver](max(1, math.ceil(budget))) if driver in TIMEOUTS else {}


def read_url(url: str | sa.URL) -> sa.URL:
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
    row = dialect_of(parsed.get_backend_name())
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
        raise missing(parsed, row, package) from None
    except ModuleNotFoundError as error:
        raise missing(parsed, row, str(error.name)) from None
    return parsed


def missing(url: sa.URL, row: Dialect, package: str) -> MissingPackage:
    return MissingPackage(f"The SQL store for {url.get_backend_name()}", package, f"rejoinder[{row.extra}]")
