"""Where answers are kept in the experiments: each store on a real medium, opened anew by every process that uses it."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rejoinder import Cache
from rejoinder.caching.stores.base import Store
from tests.fixtures.databases import mariadb_server, postgres_server
from tests.fixtures.emulators import COSMOS_KEY, cosmos_server, s3_server
from tests.fixtures.servers import RedisServer, redis_server

PATIENT = 20.0
"""Seconds for one operation, where the experiment is about what is stored and not about how long it takes."""

QUICK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""A folder in memory. SQLite by way of SQLAlchemy waits for the medium at each write, which is not what is tried."""


@dataclass(frozen=True)
class Place:
    """A medium, and how to open a store on it."""

    name: str
    make: Callable[..., Store]
    """`make(budget)`; in the process that is going to use it."""
    is_shared: bool = True
    """Whether several processes may use it at once. Else threads share one store."""
    pace: float = 1.0
    """How quick it is, as a share of what is done elsewhere."""
    folder: Path | None = None
    """Where its files are."""
    survives_fork: bool = True
    """Whether a child that is forked after the first use may use it."""
    server: Any = None

    def cache(self, budget: float = PATIENT, **options: Any) -> Cache:
        return Cache(store=self.make(budget), budget=budget, **options)


def hurry(cache: Cache) -> None:
    """Let the breakers pause for a tenth of a second instead of one."""
    for breaker in (cache._reading, cache._writing):
        breaker.first = breaker._pause = 0.1


@contextmanager
def memory() -> Iterator[Place]:
    from rejoinder.caching.stores.memory import MemoryStore

    yield Place("memory", lambda budget=PATIENT: MemoryStore(max_entries=None), is_shared=False)


@contextmanager
def disk() -> Iterator[Place]:
    from rejoinder.caching.stores.disk import DiskStore

    with _folder() as folder:
        yield Place("disk", lambda budget=PATIENT: DiskStore(folder, budget=budget), folder=folder)


@contextmanager
def redis(*options: str) -> Iterator[Place]:
    with redis_server(*options) as server:
        yield on_redis(server, server.port)


def on_redis(server: RedisServer, port: int) -> Place:
    """A Redis, by any port that leads to it."""
    from rejoinder.caching.stores.redis import RedisStore

    def make(budget: float = PATIENT) -> Store:
        return RedisStore(host="127.0.0.1", port=port, budget=budget)

    make()  # connects to nothing, and imports what children need
    return Place("redis", make, server=server)


@contextmanager
def sqlite() -> Iterator[Place]:
    with _folder(QUICK) as folder:
        yield _on_sql("SQLite", f"sqlite:///{folder}/cache.sqlite3", folder=folder)


@contextmanager
def duckdb() -> Iterator[Place]:
    pytest.importorskip("duckdb_engine", reason="pip install 'rejoinder[duckdb]'")
    with _folder(QUICK) as folder:
        yield _on_sql("DuckDB", f"duckdb:///{folder}/cache.duckdb", folder=folder, is_shared=False, pace=0.1)


@contextmanager
def postgres() -> Iterator[Place]:
    with postgres_server() as server:
        yield _on_sql("PostgreSQL", server.url, server=server)


@contextmanager
def mariadb() -> Iterator[Place]:
    with mariadb_server() as server:
        yield _on_sql("MariaDB", server.url, server=server)


def on_postgres(server: Any, port: int) -> Place:
    """A PostgreSQL, by any port that leads to it."""
    return _on_sql("PostgreSQL", server.url.replace(f":{server.port}/", f":{port}/"), server=server)


@contextmanager
def object_folder() -> Iterator[Place]:
    pytest.importorskip("obstore", reason="pip install 'rejoinder[object]'")
    from rejoinder.caching.stores.object import ObjectStore

    with _folder() as folder:
        yield Place(
            "folder",
            lambda budget=PATIENT: ObjectStore(f"file://{folder}", budget=budget),
            folder=folder,
            survives_fork=False,
        )


@contextmanager
def s3() -> Iterator[Place]:
    pytest.importorskip("obstore", reason="pip install 'rejoinder[object]'")
    from rejoinder.caching.stores.object import ObjectStore

    with s3_server() as address:
        given: dict[str, Any] = {"endpoint": address, "access_key_id": "a", "secret_access_key": "b"}
        yield Place(
            "S3 (moto)",
            lambda budget=PATIENT: ObjectStore("s3://rejoinder", budget=budget, region="us-east-1", **given),
            pace=0.02,
            survives_fork=False,
        )


@contextmanager
def cosmos() -> Iterator[Place]:
    pytest.importorskip("azure.cosmos", reason="pip install 'rejoinder[cosmos]'")
    from rejoinder.caching.stores.cosmos import CosmosStore

    with cosmos_server() as server:
        given: dict[str, Any] = {"url": server.address, "key": COSMOS_KEY, "container_id": secrets.token_hex(4)}
        yield Place(
            "Cosmos DB",
            lambda budget=PATIENT: CosmosStore(budget=budget, enable_endpoint_discovery=False, **given),
            pace=0.02,
        )


def _on_sql(name: str, url: str, **more: Any) -> Place:
    pytest.importorskip("sqlalchemy", reason="pip install 'rejoinder[sql]'")
    from rejoinder.caching.stores.sql import SQLStore

    def make(budget: float = PATIENT) -> Store:
        return SQLStore(url, budget=budget)

    make()  # connects to nothing, and imports what children need
    return Place(name, make, **more)


@contextmanager
def _folder(parent: str | None = None) -> Iterator[Path]:
    prefix = "rejoinder-reliability-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)
