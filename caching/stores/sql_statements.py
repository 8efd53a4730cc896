"""All that the SQL store ever says to a database, and how a key becomes the id of a row."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import sqlalchemy as sa

from .sql_dialects import Dialect

BATCH = 500  # rows a page of a scan, and rows a statement of clear and prune


# A row is found by its id: the UTF-8 of the key and the byte FF, which UTF-8 never has. Without it the empty key would
# be Oracle's NULL, and SQL Server, which pads with zeros to compare, would take "a" for "a\0". Of a long key it is the
# beginning and a hash, so that what starts alike still lies together; the key itself is in a column of its own.

END, CUT = b"\xff", b"\xfe"
LONGEST = 200  # bytes; with a hash, below the 255 of the column, which every index can hold


def encode(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


def decode(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")


def id_of(name: bytes) -> bytes:
    if len(name) <= LONGEST:
        return name + END
    return name[:LONGEST] + CUT + hashlib.sha256(name).digest() + END


def span(name: bytes) -> tuple[bytes, bytes]:
    """The ids of keys that start with `name` come after the first, up to and including the second."""
    beginning = name[:LONGEST]
    return beginning or b"\0", beginning + END


class Statements:
    """The two tables, and all that is ever said to the database."""

    def __init__(self, table: str, row: Dialect, dialect: sa.Dialect) -> None:
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

    def _of_entries(self, row: Dialect, dialect: sa.Dialect, now: Any, end: Any) -> None:
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
