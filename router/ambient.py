"""What holds around calls: the process's settings, checked; the epoch; and `warm_up`."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator
from typing import Any

from ..caching import cache as caching
from ..caching.cache import Cache
from ..caching.ledger import checked_ledger
from ..caching.policy import check_mode, mode_around, mode_blocks
from ..core import settings
from ..core.errors import WrongType
from . import shape as shape  # so that a cache can give the key of a call

DEFAULTS: dict[str, Any] = {
    "cache": None,
    "cache_mode": None,
    "ledger": None,
    "num_retries": 2,
    "request_timeout": 600.0,
    "drop_params": False,
}


def checked(name: str, value: Any) -> Any:
    """`value`, if the setting `name` may have it. Raises `WrongType`."""
    if name == "cache":
        if value is not None and not isinstance(value, Cache):
            hint = " Write rejoinder.Cache(…), with the brackets." if value is Cache else ""
            raise WrongType(
                f"rejoinder.cache = {value!r}: it must be a rejoinder.Cache or None, not {type(value).__name__}.{hint}"
            )
    elif name == "cache_mode":
        if value is not None:
            check_mode(value, "rejoinder.cache_mode")
    elif name == "ledger":
        return checked_ledger(value, "rejoinder.ledger = … : ledger")
    elif name == "num_retries" and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise WrongType(f"rejoinder.num_retries = {value!r}: it must be a whole number, 0 or more.")
    elif name == "request_timeout" and (
        isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0
    ):
        raise WrongType(f"rejoinder.request_timeout = {value!r}: it must be a number of seconds, more than 0.")
    elif name == "drop_params" and not isinstance(value, bool):
        raise WrongType(f"rejoinder.drop_params = {value!r}: it must be True or False.")
    return value


def enable_cache(type: str = "local", **options: Any) -> Cache:
    """Set the process's cache; the arguments are those of `Cache`."""
    cache = Cache(type, **options)
    settings.cache = cache
    return cache


def disable_cache() -> None:
    """Calls use no cache from now on, unless they name one."""
    settings.cache = None


def update_cache(type: str = "local", **options: Any) -> Cache:
    """Replace the process's cache by one with these arguments."""
    return enable_cache(type, **options)


@contextlib.contextmanager
def epoch(number: int) -> Iterator[None]:
    """Calls inside belong to the n-th round of an experiment: each round has its own answers.

    >>> with epoch(2):
    ...     pass
    """
    if isinstance(number, bool) or not isinstance(number, int):
        raise WrongType(f"epoch({number!r}): it must be a whole number.")
    token = caching.epoch.set(number)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # left in another context than it was entered in
            caching.epoch.reset(token)


@contextlib.contextmanager
def in_mode(mode: str) -> Iterator[None]:
    """Calls inside use their caches in this mode, whatever the caches' own is. Threads started inside do, too.

    A call without a cache, or with `caching=False`, is not concerned.

    >>> with in_mode("replay_only"):
    ...     pass
    """
    token, block = mode_around.set(check_mode(mode)), object()
    mode_blocks[block] = mode, weakref.WeakSet(threading.enumerate())
    try:
        yield
    finally:
        del mode_blocks[block]
        with contextlib.suppress(ValueError):  # left in another context than it was entered in: a fixture's, say
            mode_around.reset(token)


def warm_up(*models: str) -> None:
    """Load now what the first call would have to: the SDKs' types, and the codecs of these models' providers."""
    from ..core import answers, api_errors
    from ..providers import http, table

    assert all((answers, api_errors, http))  # imported for their own sake
    for model in models:
        provider, _ = table.resolve(model)
        table.codec(provider.codec)
