"""The disk store's file: what older versions wrote is kept, they get on with what is added, and it stays true."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from rejoinder.caching.stores import disk, disk_schema
from rejoinder.caching.stores.disk import DiskStore
from tests.conformance.eviction import EVICTIONS, keys

# What the first version had in its file, and said to it.
OLD_SCHEMA = """
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
OLD_ADD = "INSERT INTO entries (key, body, checksum, expires_at, stored_at, used_at, size) VALUES (?, ?, ?, ?, ?, ?, ?)"


def old_file(directory: Path, count: int) -> sqlite3.Connection:
    """A file as the first version made it, with so many entries."""
    directory.mkdir()
    connection = sqlite3.connect(directory / disk.FILE, isolation_level=None, timeout=10)
    connection.executescript(
        "PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; BEGIN;"
        f"{OLD_SCHEMA} PRAGMA application_id = {0x726A6E64}; PRAGMA user_version = 1; COMMIT;"
    )
    connection.execute("BEGIN")
    for number in range(count):
        old_set(connection, f"n:{number}", b"old %d" % number)
    connection.execute("COMMIT")
    return connection


def old_set(connection: sqlite3.Connection, key: str, value: bytes) -> None:
    name, now = key.encode(), time.time()
    connection.execute("DELETE FROM entries WHERE key = ?", (name,))
    body = connection.execute("INSERT INTO bodies (value) VALUES (?)", (value,)).lastrowid
    checksum = zlib.crc32(value, zlib.crc32(name))
    connection.execute(OLD_ADD, (name, body, checksum, None, now, now, len(value)))


def one(connection: sqlite3.Connection, statement: str) -> object:
    return connection.execute(statement).fetchone()[0]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def old(directory: Path) -> Iterator[sqlite3.Connection]:
    connection = old_file(directory, 300)
    yield connection
    connection.close()


# ── older and newer versions ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("eviction", EVICTIONS)
def test_the_first_write_adds_what_is_missing_and_loses_nothing(
    directory: Path, old: sqlite3.Connection, eviction: str
) -> None:
    store = DiskStore(directory, budget=5, eviction=eviction, max_entries=301)
    before = one(old, "SELECT count(*) FROM sqlite_master")
    assert store.get("n:7") == b"old 7"
    assert one(old, "SELECT count(*) FROM sqlite_master") == before  # a reader changes nothing
    store.tag("n:new", ["red"])
    store.set("n:new", b"new")
    assert [store.get(f"n:{number}") for number in range(300)] == [b"old %d" % number for number in range(300)]
    assert list(store.tagged("n:", "red")) == ["n:new"]
    assert one(old, "PRAGMA user_version") == 1
    store.set("n:one more", b"value")
    assert len(keys(store)) == 301
    store.close()


UPGRADER = """
store = DiskStore(sys.argv[1], budget=10, eviction=sys.argv[2], max_entries=10_000)
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    store.tag(f"n:{sys.argv[3]}:{number}", [sys.argv[3], "all"])
    store.set(f"n:{sys.argv[3]}:{number}", b"value")
    assert store.get(f"n:{number}") == b"old %d" % number
store.close()
"""


def test_processes_upgrade_one_file_at_once(directory: Path, old: sqlite3.Connection) -> None:
    head = "import sys\nfrom rejoinder.caching.stores.disk import DiskStore\n"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(disk.__file__).parents[3]), *sys.path]),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", head + UPGRADER, str(directory), EVICTIONS[number % 4], str(1000 + number)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(5)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for number in range(20):  # and an older version does not wait until they have done so
        old_set(old, f"n:late:{number}", b"old")
    assert [process.communicate(timeout=30) and process.returncode for process in processes] == [0] * 5
    store = DiskStore(directory, budget=5)
    assert len(keys(store)) == one(old, "SELECT entries FROM totals") == 300 + 20 + 5 * 20
    assert len(list(store.tagged("n:", "all"))) == 100
    assert store.clear_tag("n:", "1003") == 20
    assert one(old, "SELECT entries FROM totals") == 400
    assert one(old, "PRAGMA integrity_check") == "ok"
    assert list(directory.glob("*corrupt*")) == []
    store.close()


def test_an_older_version_gets_on_with_what_was_added(directory: Path, old: sqlite3.Connection) -> None:
    stores = [DiskStore(directory, budget=5, eviction=eviction, max_entries=400) for eviction in EVICTIONS]
    for store in stores:
        store.tag("n:3", ["red"])
        store.set("n:3", b"new")
    old_set(old, "n:3", b"old again")
    old_set(old, "n:another", b"old")
    old.execute("UPDATE entries SET used_at = ? WHERE key = ?", (time.time(), b"n:5"))
    assert old.execute("DELETE FROM entries WHERE key >= ? AND key <= ?", (b"n:10", b"n:109")).rowcount == 11
    assert [store.get("n:3") for store in stores] == [b"old again"] * 4
    assert list(stores[0].tagged("n:", "red")) == []  # the answer that had the tag is gone
    assert one(old, "SELECT entries FROM totals") == len(keys(stores[0])) == 290
    for store in stores:
        store.set("n:more", b"value")
        store.close()
    assert one(old, "PRAGMA integrity_check") == "ok"


def test_what_an_older_version_wrote_counts_as_used_once(directory: Path) -> None:
    old = old_file(directory, 3)
    store = DiskStore(directory, budget=5, eviction="lfu", max_entries=3)
    for key in ("n:0", "n:2", "n:2"):
        assert store.get(key)
    for number in range(2):
        store.set(f"new{number}", b"value")
        assert store.get(f"new{number}")
        assert store.get(f"new{number}")
    assert keys(store) == {"n:2", "new0", "new1"}
    store.close()
    old.close()


def test_tags_are_asked_for_in_a_file_that_has_none(directory: Path, old: sqlite3.Connection) -> None:
    store = DiskStore(directory, budget=5)
    assert list(store.tagged("n:", "red")) == []
    assert store.clear_tag("n:", "red") == 0
    assert list(store.tagged("n:", "red")) == []
    assert len(keys(store)) == 300
    assert list(directory.glob("*corrupt*")) == []
    store.close()


def test_nothing_is_created_to_look_for_a_tag(directory: Path) -> None:
    store = DiskStore(directory)
    assert list(store.tagged("n:", "red")) == []
    assert store.clear_tag("n:", "red") == 0
    store.tag("n:a", ["red"])
    store.close()
    assert not directory.exists()


# ── what stays true ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_tags_go_with_their_entries_whatever_removes_them(directory: Path) -> None:
    now = [1_000.0]
    store = DiskStore(directory, budget=5, max_entries=5, clock=lambda: now[0])
    connection = sqlite3.connect(directory / disk.FILE) if directory.exists() else None
    assert connection is None

    def tagged(key: str, ttl: float | None = None) -> None:
        now[0] += 1
        store.tag(key, ["red", "blue"], ttl)
        store.set(key, b"value", ttl)

    for number in range(6):
        tagged(f"n:{number}")
    tagged("n:brief", 10)
    with sqlite3.connect(store.path) as connection:
        rows = "SELECT count(*) FROM tags"
        assert one(connection, rows) == 10
        store.delete("n:5")
        assert one(connection, rows) == 8
        now[0] += 11
        assert store.prune() == 1
        assert one(connection, rows) == 6
        store.set("n:4", b"again")  # which is still what was tagged
        assert one(connection, rows) == 6
        assert store.clear_tag("n:", "red") == 3
        assert one(connection, rows) == 0
        tagged("n:last")
        assert store.clear() == 1
        assert one(connection, rows) == 0
    connection.close()
    store.close()


@pytest.mark.parametrize("eviction", EVICTIONS)
def test_what_goes_first_is_found_by_an_index(directory: Path, eviction: str) -> None:
    store = DiskStore(directory, budget=5, eviction=eviction)
    for number in range(50):
        store.set(f"k{number}", b"value", number or None)
    store.close()
    connection = sqlite3.connect(store.path)
    order = f"SELECT key, size FROM entries WHERE key <> ? ORDER BY {disk_schema.ORDERS[eviction]}"
    plan = connection.execute(f"EXPLAIN QUERY PLAN {order}", (b"k",)).fetchall()
    assert ["USING INDEX" in row[3] for row in plan] == [True]  # a temporary tree would be a second row
    tags = connection.execute(f"EXPLAIN QUERY PLAN {disk_schema.CLEAR_TAG}", (b"t", b"", b"\xff", 5)).fetchall()
    assert not any(row[3].startswith("SCAN entries") for row in tags)
    connection.close()


def test_uses_of_one_process_are_known_to_the_next(directory: Path) -> None:
    with_uses = DiskStore(directory, budget=5, eviction="lfu", max_entries=3)
    for key in "abc":
        with_uses.set(key, b"value")
    for key in "aabcc":
        with_uses.get(key)
    with_uses.close()
    another = DiskStore(directory, budget=5, eviction="lfu", max_entries=3)
    another.set("d", b"value")
    assert keys(another) == {"a", "c", "d"}
    another.close()


def test_a_late_note_does_not_make_an_entry_older(directory: Path) -> None:
    slow, quick = (DiskStore(directory, budget=5, max_entries=2) for _ in range(2))
    slow.set("a", b"value")
    slow.get("a")
    quick.set("b", b"value")
    quick.set("a", b"again")
    slow.close()  # notes a use from before
    quick.set("c", b"value")
    assert keys(quick) == {"a", "c"}
    quick.close()


def test_bounds_of_different_stores_of_one_file_hold_at_their_own_writes(directory: Path) -> None:
    wide, narrow = DiskStore(directory, budget=5, max_entries=50), DiskStore(directory, budget=5, max_entries=10)
    for number in range(40):
        wide.set(f"k{number}", b"value")
    assert len(keys(wide)) == 40
    narrow.set("k", b"value")
    assert len(keys(wide)) == 10
    wide.close()
    narrow.close()
