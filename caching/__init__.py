"""What has been answered before: keys, policies, stores, single-flight. Knows nothing of vendors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cache import Cache as Cache
    from .policy import CachePolicy as CachePolicy

__all__ = ["Cache", "CachePolicy"]


def __getattr__(name: str) -> Any:
    if name == "Cache":
        from .cache import Cache

        return Cache
    if name == "CachePolicy":
        from .policy import CachePolicy

        return CachePolicy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
