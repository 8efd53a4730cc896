"""A ledger's file: one SQLite table of sums. Loaded when a ledger is written or read.

Every flush is one transaction that adds to the sums, so that any number of processes may share a file, and a process
that is killed loses what it had not flushed and nothing else.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson

from ..core.errors import ConfigurationError
from .ledger import OTHERS, Amount, Line

VERSION = 1
PATIENCE = 5.0
"""Seconds to wait for other processes. Only the ledger's own thread ever waits, and the end of a process."""
MOST_ROWS = 200_000
"""With more, the older half loses its tags and runs, not its counts."""

KEYS, COUNTS = ", ".join(Line._fields), ", ".join(Amount._fields)
CREATE = f"""
CREATE TABLE IF NOT EXISTS ledger (
    {", ".join(f"{name} NOT NULL" for name in (*Line._fields, *Amount._fields))}, PRIMARY KEY ({KEYS})
) WITHOUT ROWID"""
ADD = f"""
INSERT INTO ledger ({KEYS}, {COUNTS}) VALUES ({", ".join("?" * (len(Line._fields) + len(Amount._fields)))})
ON CONFLICT ({KEYS}) DO UPDATE SET {", ".join(f"{name} = {name} + excluded.{name}" for name in Amount._fields)}"""
MIDDLE = "SELECT day FROM ledger ORDER BY day LIMIT 1 OFFSET (SELECT count(*) / 2 FROM ledger)"
OLD = f"""
SELECT day, model, '[]', ?, kind, {", ".join(f"sum({name})" for name in Amount._fields)}
FROM ledger WHERE day <= ? GROUP BY day, model, kind"""


def write(path: Path, lines: Mapping[Line, Amount]) -> None:
    """Add `lines` to what the file has. All of them, or it raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _opened(f"file:{_quoted(path)}?mode=rwc") as connection:
        connection.execute("BEGIN IMMEDIATE")
        _check(connection, path)
        connection.execute(CREATE)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.executemany(ADD, (_row(line, amount) for line, amount in lines.items()))
        _compact(connection)
        connection.execute("COMMIT")


def read(path: Path) -> dict[Line, Amount]:
    """What the file has."""
    with _opened(f"file:{_quoted(path)}?mode=ro") as connection:
        connection.execute("BEGIN")  # all that follows sees the file of one moment, also while another begins it
        if not _check(connection, path):
            return {}
        return {
            Line(day, model, tuple(orjson.loads(tags)), run, kind): Amount(*counts)
            for day, model, tags, run, kind, *counts in connection.execute(f"SELECT {KEYS}, {COUNTS} FROM ledger")
        }


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


@contextlib.contextmanager
def _opened(uri: str) -> Iterator[sqlite3.Connection]:
    """A connection for one transaction. None is kept: it could not be carried over a fork."""
    connection = sqlite3.connect(uri, uri=True, timeout=PATIENCE, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def _check(connection: sqlite3.Connection, path: Path) -> int:
    """The version of what is there, 0 if nothing is. Raises `ConfigurationError` for what is no ledger of ours."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    is_empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if version != (0 if is_empty else VERSION):
        raise ConfigurationError(f"{path} is no ledger of this version of rejoinder: give another file.")
    return version


def _row(line: Line, amount: Amount) -> tuple[object, ...]:
    return (line.day, line.model, orjson.dumps(line.tags).decode(), line.run, line.kind, *amount)


def _compact(connection: sqlite3.Connection) -> None:
    if connection.execute("SELECT count(*) FROM ledger").fetchone()[0] <= MOST_ROWS:
        return
    (middle,) = connection.execute(MIDDLE).fetchone()
    old = connection.execute(OLD, (OTHERS, middle)).fetchall()
    connection.execute("DELETE FROM ledger WHERE day <= ?", (middle,))
    connection.executemany(ADD, old)
