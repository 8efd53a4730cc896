"""Which store `Cache(type=…)` means, and what options it takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from ...core.errors import ConfigurationError, WrongType, suggestion
from .base import Store

GROUP = "rejoinder.stores"
"""The entry points by which another package adds a type: a class, or a function that makes a `Store`."""

TYPES = {
    **dict.fromkeys(("local", "memory", "in-memory"), "local"),
    **{name: name for name in ("disk", "redis", "sql", "cosmos")},
    **dict.fromkeys(("object", "s3", "gcs", "azure-blob"), "object"),
}
BUDGETS = {"object": 1.0, "cosmos": 1.0}
"""Seconds, for what is never near; the other stores have 0.1."""


def budget_of(type: object) -> float:
    """Seconds that an operation on a store of this type may take before it counts as failed."""
    return BUDGETS.get(TYPES.get(type, ""), 0.1) if isinstance(type, str) else 0.1


def make_store(type: object, given: Mapping[str, Any], budget: float) -> Store:
    """The store that `Cache(type=…)` asks for, its module loaded now. Raises `ConfigurationError`."""
    options = {option: value for option, value in given.items() if value is not None}
    for name in ("max_entries", "max_bytes"):
        if name in options and (not isinstance(options[name], int) or options[name] <= 0):
            raise WrongType(f"{name}={options[name]!r} must be a whole number, more than 0.")
    if isinstance(type, str):
        if type in TYPES:
            return STORES[TYPES[type]](options, budget)
        made = _installed(type)
        if made is not None:
            return _made_elsewhere(type, made, options, budget)
    raise ConfigurationError(f"Cache(type={type!r}): there are {', '.join(TYPES)}.{suggestion(str(type), TYPES)}")


def _installed(type: str) -> Callable[..., Any] | None:
    """What another package offers under this name."""
    from importlib.metadata import entry_points

    offers = list(entry_points(group=GROUP, name=type))
    if not offers:
        return None
    if len({offer.value for offer in offers}) > 1:
        raise ConfigurationError(
            f"Cache(type={type!r}): several packages offer it: {', '.join(sorted(offer.value for offer in offers))}."
        )
    try:
        return offers[0].load()  # type: ignore[no-any-return]
    except Exception as error:
        raise ConfigurationError(
            f"Cache(type={type!r}): {offers[0].value} could not be loaded: {error.__class__.__name__}: {error}"
        ) from error


def _made_elsewhere(type: str, make: Callable[..., Any], options: dict[str, Any], budget: float) -> Store:
    try:
        store = make(**options)
    except TypeError as error:
        raise ConfigurationError(f"Cache(type={type!r}): {error}") from error
    if not isinstance(store, Store):
        raise WrongType(f"Cache(type={type!r}): the entry point must make a rejoinder.Store, not {store!r}.")
    if "budget" not in vars(store):
        store.budget = budget
    return store


def _local(options: dict[str, Any], budget: float) -> Store:
    from .memory import MemoryStore

    return MemoryStore(**_only(options, ("max_entries", "max_bytes", "eviction"), "local"))


def _disk(options: dict[str, Any], budget: float) -> Store:
    from .disk import DiskStore

    options = _only(options, ("disk_cache_dir", "max_entries", "max_bytes", "eviction"), "disk")
    return DiskStore(options.pop("disk_cache_dir", None), budget=budget, **options)


def _redis(options: dict[str, Any], budget: float) -> Store:
    from .redis import RedisStore

    url = options.pop("redis_url", None)
    if url is not None and not isinstance(url, str):
        raise WrongType(f"redis_url={url!r} must be text, such as 'redis://localhost:6379/0'. Seeds are cache_seed=.")
    if "redis_startup_nodes" in options:  # litellm's word for it
        options.setdefault("startup_nodes", options.pop("redis_startup_nodes"))
    elsewhere = url is not None or any(
        name in options for name in ("startup_nodes", "sentinel_nodes", "unix_socket_path")
    )
    said = os.environ.get("REDIS_URL")
    if said and not elsewhere and "host" not in options and not os.environ.get("REDIS_HOST"):
        url, elsewhere = said, True
    for name, variable in (("host", "REDIS_HOST"), ("port", "REDIS_PORT"), ("password", "REDIS_PASSWORD")):
        wanted = url is None if name == "password" else not elsewhere
        if wanted and name not in options and os.environ.get(variable):
            options[name] = os.environ[variable]
    for name in ("disk_cache_dir", "max_entries", "max_bytes", "eviction"):
        if name in options:
            raise ConfigurationError(f"Cache(type='redis') takes no {name}.")
    if "port" in options:
        options["port"] = _port(options["port"])
    if "db" in options:
        options["db"] = _number("db", options["db"])
    if not isinstance(options.get("ssl", False), bool):
        raise WrongType(f"ssl={options['ssl']!r} must be True or False.")
    return RedisStore(url=url, budget=budget, **options)


def _port(given: Any) -> int:
    port = _number("port", given)
    if not 0 < port < 65_536:
        raise ConfigurationError(f"port={port} is none: there are 1 to 65535.")
    return port


def _number(name: str, given: Any) -> int:
    """A number, which may be text as it comes out of the environment."""
    try:
        return int(given)
    except (TypeError, ValueError):
        raise WrongType(f"{name}={given!r} must be a number.") from None


def _sql(options: dict[str, Any], budget: float) -> Store:
    from .sql import SQLStore

    return SQLStore(budget=budget, **options)


def _object(options: dict[str, Any], budget: float) -> Store:
    from .object import open_store

    return open_store(options, budget)


def _cosmos(options: dict[str, Any], budget: float) -> Store:
    from .cosmos import CosmosStore

    return CosmosStore(budget=budget, **options)


def _only(options: dict[str, Any], names: tuple[str, ...], type: str) -> dict[str, Any]:
    """`options`, if a store of this type knows them all."""
    for name in options:
        if name not in names:
            raise ConfigurationError(f"Cache(type={type!r}) takes no {name}.{suggestion(name, names)}")
    return dict(options)


STORES: dict[str, Callable[[dict[str, Any], float], Store]] = {
    "local": _local,
    "disk": _disk,
    "redis": _redis,
    "sql": _sql,
    "object": _object,
    "cosmos": _cosmos,
}
