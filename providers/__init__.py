"""How each vendor speaks: a request out, an answer in. Knows nothing of caches or routes."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .listing import ProviderInfo


class Package(ModuleType):
    """This package's class. `rejoinder.providers` is the package, and also what users call to list its rows."""

    def __call__(self) -> list[ProviderInfo]:
        """Every provider that is known, with what it supports, by name."""
        from .listing import rows

        return rows()


sys.modules[__name__].__class__ = Package
