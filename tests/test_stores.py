"""The stores that need no server keep the promises of every store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rejoinder.caching.stores.base import Store
from rejoinder.caching.stores.disk import DiskStore
from rejoinder.caching.stores.memory import MemoryStore
from tests.conformance.store import StoreConformance, closing


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    def store(self) -> Iterator[Store]:
        yield from closing(MemoryStore())


class TestDiskStore(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        # A patient one: these tests are about what it answers, and machines that run tests are slow at times.
        yield from closing(DiskStore(tmp_path, budget=5))
