"""The stores that need no server keep the promises of every store."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


class TestDocumentedStore(StoreConformance):
    """The worked example of docs/add-a-store.md, as it is printed there."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        page = Path(__file__).parents[1] / "docs" / "add-a-store.md"
        example = re.search(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
        assert example is not None
        names: dict[str, Any] = {"__name__": "folder_store"}
        exec(example[1], names)
        yield from closing(names["FolderStore"](tmp_path))
