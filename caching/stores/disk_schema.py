"""What is in the disk store's file: tables, and the statements that several operations share."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from .eviction import HALF_LIFE

VERSION = 1
"""In the file's header. A version that reads it reads all that is added by `PARTS`, or does not see it."""

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

WEIGHT = f"coalesce(weight, used_at / {HALF_LIFE})"
"""Where an older rejoinder wrote the entry it has no weight, and counts as used once."""

ORDERS = {
    "lru": "used_at",
    "lfu": f"{WEIGHT}, used_at",
    "fifo": "stored_at",
    "ttl": "coalesce(expires_at, 9e999), stored_at",
}
"""By eviction: what it has to go by, the first to go first."""

# What later versions have added. Each part is put, at the first change, into a file that lacks it; the number in the
# header stays, since older versions get on with them: they name the columns they know, and triggers do the rest.
PARTS = {
    "tags": (
        "ALTER TABLE entries ADD COLUMN weight REAL",
        "CREATE TABLE tags (tag BLOB NOT NULL, key BLOB NOT NULL, PRIMARY KEY (tag, key)) WITHOUT ROWID",
        "CREATE INDEX tags_of ON tags (key)",
        "CREATE TRIGGER drop_tags AFTER DELETE ON entries BEGIN DELETE FROM tags WHERE key = old.key; END",
    ),
    "totals": (
        "CREATE TABLE totals (entries INTEGER NOT NULL)",
        "INSERT INTO totals SELECT count(*) FROM entries",
        "CREATE TRIGGER count_added AFTER INSERT ON entries BEGIN UPDATE totals SET entries = entries + 1; END",
        "CREATE TRIGGER count_removed AFTER DELETE ON entries BEGIN UPDATE totals SET entries = entries - 1; END",
    ),
    "by_weight": (f"CREATE INDEX by_weight ON entries ({ORDERS['lfu']})",),
    "by_storing": (f"CREATE INDEX by_storing ON entries ({ORDERS['fifo']})",),
    "by_end": (f"CREATE INDEX by_end ON entries ({ORDERS['ttl']})",),
}
INDEXES = {"lfu": "by_weight", "fifo": "by_storing", "ttl": "by_end"}

FIND = "SELECT value, checksum, expires_at FROM entries JOIN bodies USING (body) WHERE key = ?"
PAGE = """SELECT key, size, stored_at, expires_at FROM entries
    WHERE key >= ? AND key < ? AND (expires_at IS NULL OR expires_at > ?) ORDER BY key LIMIT ?"""
DEAD_PAGE = """SELECT key, size, stored_at, expires_at FROM entries
    WHERE key >= ? AND key < ? AND expires_at <= ? ORDER BY key LIMIT ?"""
KEYS = "SELECT key FROM entries WHERE key >= ? AND key < ? ORDER BY key LIMIT ?"
ADD = """INSERT INTO entries (key, body, checksum, expires_at, stored_at, used_at, size, weight)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
REMOVE = "DELETE FROM entries WHERE key = ?"
USE = f"UPDATE entries SET used_at = max(used_at, ?), weight = added({WEIGHT}, ?) WHERE key = ?"
PRUNE = "DELETE FROM entries WHERE key IN (SELECT key FROM entries WHERE expires_at <= ? LIMIT ?)"

HAS_TAGS = "SELECT 1 FROM sqlite_master WHERE name = 'tags'"
ADD_TAG = "INSERT OR IGNORE INTO tags (tag, key) VALUES (?, ?)"
TAGS_OF = "SELECT tag, key FROM tags WHERE key = ?"
TAGGED = "SELECT key FROM tags WHERE tag = ? AND key >= ? AND key < ? ORDER BY key LIMIT ?"
CLEAR_TAG = "DELETE FROM entries WHERE key IN (SELECT key FROM tags WHERE tag = ? AND key >= ? AND key < ? LIMIT ?)"

TAKE = """INSERT INTO leases (key, token, expires_at) VALUES (?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET token = excluded.token, expires_at = excluded.expires_at
    WHERE expires_at <= ? OR expires_at > ?"""
HOLD = "UPDATE leases SET expires_at = ? WHERE key = ? AND token = ? AND expires_at > ?"
BYTES_IN_USE = """SELECT (page_count - freelist_count) * page_size
    FROM pragma_page_count, pragma_freelist_count, pragma_page_size"""


def initialise(connection: sqlite3.Connection, application: int) -> None:
    # Both before the first table, or they have no effect. The default of 4096 reads large values a fifth slower.
    connection.execute("PRAGMA page_size = 8192")
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    header = f"PRAGMA application_id = {application}; PRAGMA user_version = {VERSION};"
    connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} {header} COMMIT;")


def parts_for(eviction: str, *, counts: bool) -> tuple[str, ...]:
    """The parts that a store needs which evicts so, and which bounds the number of entries or does not."""
    index = INDEXES.get(eviction)  # the one for "lru" has always been there
    return ("tags", *(["totals"] if counts else []), *([index] if index else []))


def add_missing(connection: sqlite3.Connection, parts: Sequence[str]) -> None:
    """Add what the file lacks of `parts`, in a transaction that the caller has begun for writing."""
    there = {bytes(name).decode() for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    for part in parts:
        if part not in there:
            for statement in PARTS[part]:  # not as a script, which would commit
                connection.execute(statement)


def bytes_in_use(connection: sqlite3.Connection) -> int:
    (count,) = connection.execute(BYTES_IN_USE).fetchone()
    return int(count)


def entries_in_all(connection: sqlite3.Connection) -> int:
    """How many entries there are. Needs the part "totals": counting would read a page for every eighty of them."""
    (count,) = connection.execute("SELECT entries FROM totals").fetchone()
    return int(count)


def first_to_go(
    connection: sqlite3.Connection, eviction: str, newest: bytes, *, entries: int, size: int
) -> list[tuple[bytes]]:
    """The names of so many `entries`, and of so many that together they have `size` bytes; not of the `newest`."""
    names: list[tuple[bytes]] = []
    order = f"SELECT key, size FROM entries WHERE key <> ? ORDER BY {ORDERS[eviction]}"
    for name, length in connection.execute(order, (newest,)):
        names.append((name,))
        entries, size = entries - 1, size - length - len(name)
        if entries <= 0 and size <= 0:
            break
    return names
