"""Which cache a command is about."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from ...caching.cache import Cache, prefix_of
from ...caching.inspection import BUDGET
from ...caching.stores.base import Store
from ...core.errors import ConfigurationError, suggestion
from .command import Options

SCHEMES = {
    **dict.fromkeys(("redis", "rediss", "unix", "valkey", "valkeys"), "redis"),
    **dict.fromkeys(("s3", "gs", "az", "file"), "object"),
    "cosmos": "cosmos",
    **dict.fromkeys(("sqlite", "duckdb", "postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle"), "sql"),
}
"""What an address begins with, and the store that it is of. SQLAlchemy's may name a driver: postgresql+psycopg."""

SEALS = {"sign_with": "REJOINDER_SIGN_WITH", "encrypt_with": "REJOINDER_ENCRYPT_WITH"}
"""Where the keys of sealed entries come from: not from the command line, which every user of the machine can list."""


COSMOS = "AZURE_COSMOS_CONNECTION_STRING"
"""Where the account of a Cosmos DB and its key come from, for the same reason."""


def opened(options: Options, *, may_create: bool = False, cache_seed: str | None = None) -> Cache:
    """The cache that the options name. It connects when it is first used."""
    more: dict[str, Any] = {"namespace": options.namespace, "cache_seed": cache_seed, "budget": BUDGET}
    more |= {name: os.environ[variable].splitlines() for name, variable in SEALS.items() if os.environ.get(variable)}
    url = options.url
    if not url or "://" not in url:
        return Cache(store=disk(folder(url, may_create) if url else None), **more)
    scheme, _, rest = url.partition("://")
    kind = SCHEMES.get(scheme.partition("+")[0])
    if kind is None:
        raise ConfigurationError(f"--url {scheme}://…: there are {', '.join(SCHEMES)}.{suggestion(scheme, SCHEMES)}")
    more |= _own(options, kind)
    if kind == "redis":
        return Cache(type="redis", redis_url=f"{scheme.replace('valkey', 'redis')}://{rest}", **more)
    if kind == "cosmos":
        return Cache(type="cosmos", **_container(rest), **more)
    return Cache(type=kind, url=url, **more)


def _own(options: Options, kind: str) -> dict[str, str]:
    """What only stores of one kind have: where in a database, or in a Redis, the entries are."""
    given = {}
    for name, its_kind in (("prefix", "redis"), ("table", "sql")):
        value = getattr(options, name, None)
        if value is not None:
            if kind != its_kind:
                raise ConfigurationError(f"--{name} is for a {its_kind} cache, and --url names a {kind} one.")
            given[name] = value
    return given


def _container(rest: str) -> dict[str, Any]:
    """What "DATABASE/CONTAINER?partition=SEED" says."""
    place, _, query = rest.partition("?")
    database, _, container = place.strip("/").partition("/")
    asked = parse_qs(query)
    secret = os.environ.get(COSMOS)
    if not secret or not container or set(asked) - {"partition"}:
        raise ConfigurationError(
            f"Write --url 'cosmos://DATABASE/CONTAINER?partition=SEED' (a seed is a partition), and the account's "
            f"connection string into {COSMOS}."
        )
    partition = asked.get("partition", [None])[0]
    return {
        "connection_string": secret,
        "database_id": database,
        "container_id": container,
        "partition": partition,
        "create": False,
    }


def disk(directory: Path | None) -> Store:
    """Without a bound: how large it may become is said by the program that uses it, and an import must not evict."""
    from ...caching.stores.disk import DiskStore

    return DiskStore(directory, max_bytes=None, budget=BUDGET)


def folder(path: str, may_create: bool) -> Path:
    """The folder of a cache on disk, given as such or as the file in it."""
    from ...caching.stores.disk import FILE

    given = Path(path).expanduser()
    if given.name == FILE:
        given = given.parent
    if given.is_file():
        raise ConfigurationError(f"{given} is a file. A cache on disk is a folder with a {FILE} in it.")
    if not may_create and not (given / FILE).exists():
        raise ConfigurationError(f"There is no cache in {given}: it has no {FILE}.")
    return given


def prefix(options: Options) -> str:
    """What the places begin with that the options are about."""
    return prefix_of(options.namespace) if options.namespace else ""


def place(cache: Cache) -> str:
    """Where the cache is, for people; without passwords."""
    path = getattr(cache.store, "path", None)
    return str(path) if path is not None else repr(cache.store)
