"""One `completion()` to any LLM provider, and never pay for the same answer twice.

>>> import rejoinder
>>> rejoinder.cache = rejoinder.Cache(type="redis", host="localhost", port=6379)  # doctest: +SKIP
>>> rejoinder.completion("openai/gpt-4o", [{"role": "user", "content": "Hi"}], caching=True)  # doctest: +SKIP

Importing this loads nothing else: each name is fetched from its module on first use (PEP 562).
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from .caching.cache import Cache as Cache
    from .caching.entry import Entry as Entry
    from .caching.explain import Explanation as Explanation
    from .caching.policy import CachePolicy as CachePolicy
    from .caching.stores.base import Record as Record
    from .caching.stores.base import Store as Store
    from .core.answers import CacheInfo as CacheInfo
    from .core.answers import Chunk as Chunk
    from .core.answers import Completion as Completion
    from .core.answers import Usage as Usage
    from .core.api_errors import APIConnectionError as APIConnectionError
    from .core.api_errors import APIError as APIError
    from .core.api_errors import APIStatusError as APIStatusError
    from .core.api_errors import APITimeoutError as APITimeoutError
    from .core.api_errors import AuthenticationError as AuthenticationError
    from .core.api_errors import BadRequestError as BadRequestError
    from .core.api_errors import ConflictError as ConflictError
    from .core.api_errors import ContentPolicyViolation as ContentPolicyViolation
    from .core.api_errors import ContentPolicyViolationError as ContentPolicyViolationError
    from .core.api_errors import ContextWindowExceeded as ContextWindowExceeded
    from .core.api_errors import ContextWindowExceededError as ContextWindowExceededError
    from .core.api_errors import InternalServerError as InternalServerError
    from .core.api_errors import InvalidRequest as InvalidRequest
    from .core.api_errors import MissingAPIKey as MissingAPIKey
    from .core.api_errors import NotFoundError as NotFoundError
    from .core.api_errors import PermissionDeniedError as PermissionDeniedError
    from .core.api_errors import RateLimitError as RateLimitError
    from .core.api_errors import UnprocessableEntityError as UnprocessableEntityError
    from .core.errors import CacheError as CacheError
    from .core.errors import CacheKeyError as CacheKeyError
    from .core.errors import CacheMiss as CacheMiss
    from .core.errors import ConfigurationError as ConfigurationError
    from .core.errors import MissingPackage as MissingPackage
    from .core.errors import RejoinderError as RejoinderError
    from .core.errors import UnknownProvider as UnknownProvider
    from .core.errors import WrongType as WrongType
    from .providers.echo import Echo as Echo
    from .router.ambient import disable_cache as disable_cache
    from .router.ambient import enable_cache as enable_cache
    from .router.ambient import epoch as epoch
    from .router.ambient import update_cache as update_cache
    from .router.ambient import warm_up as warm_up
    from .router.api import acompletion as acompletion
    from .router.api import completion as completion
    from .router.client import Client as Client
    from .router.client import OpenAIWrapper as OpenAIWrapper
    from .router.cost import completion_cost as completion_cost
    from .router.stream import AsyncStream as AsyncStream
    from .router.stream import Stream as Stream

    cache: Cache | None
    num_retries: int
    request_timeout: float
    drop_params: bool

_MODULES = {
    "caching.cache": ("Cache",),
    "caching.entry": ("Entry",),
    "caching.explain": ("Explanation",),
    "caching.policy": ("CachePolicy",),
    "caching.stores.base": ("Record", "Store"),
    "core.answers": ("CacheInfo", "Chunk", "Completion", "Usage"),
    "core.api_errors": (
        "APIConnectionError",
        "APIError",
        "APIStatusError",
        "APITimeoutError",
        "AuthenticationError",
        "BadRequestError",
        "ConflictError",
        "ContentPolicyViolation",
        "ContentPolicyViolationError",
        "ContextWindowExceeded",
        "ContextWindowExceededError",
        "InternalServerError",
        "InvalidRequest",
        "MissingAPIKey",
        "NotFoundError",
        "PermissionDeniedError",
        "RateLimitError",
        "UnprocessableEntityError",
    ),
    "core.errors": (
        "CacheError",
        "CacheKeyError",
        "CacheMiss",
        "ConfigurationError",
        "MissingPackage",
        "RejoinderError",
        "UnknownProvider",
        "WrongType",
    ),
    "providers.echo": ("Echo",),
    "router.ambient": ("disable_cache", "enable_cache", "epoch", "update_cache", "warm_up"),
    "router.api": ("acompletion", "completion"),
    "router.client": ("Client", "OpenAIWrapper"),
    "router.cost": ("completion_cost",),
    "router.stream": ("AsyncStream", "Stream"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
_SETTINGS = ("cache", "drop_params", "num_retries", "request_timeout")

__all__ = sorted([*_HOME, *_SETTINGS, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rejoinder' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)


class _Face(ModuleType):
    """The module's class: its settings are checked when they are assigned, and read when a call is made."""


def _setting(name: str) -> property:
    def read(module: _Face) -> Any:
        return getattr(import_module(".core.settings", __name__), name)

    def write(module: _Face, value: Any) -> None:
        checks = import_module(".router.ambient", __name__)
        setattr(import_module(".core.settings", __name__), name, checks.checked(name, value))

    def reset(module: _Face) -> None:
        checks = import_module(".router.ambient", __name__)
        setattr(import_module(".core.settings", __name__), name, checks.DEFAULTS[name])

    return property(read, write, reset)


for _name in _SETTINGS:
    setattr(_Face, _name, _setting(_name))
sys.modules[__name__].__class__ = _Face
