"""Stores in layers: promotion, write-through, and one layer's trouble."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rejoinder
from rejoinder.caching.stores.base import TooLarge
from rejoinder.caching.stores.disk import DiskStore
from rejoinder.caching.stores.layers import LayeredStore
from rejoinder.caching.stores.memory import MemoryStore
from tests.conformance.store import StoreConformance

MESSAGES = [{"role": "user", "content": "Hello"}]


class BrokenStore(MemoryStore):
    """A store whose medium is gone."""

    def get(self, key: str) -> bytes | None:
        raise OSError("gone")

    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        raise OSError("gone")


class TestLayers(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> LayeredStore:
        return LayeredStore([MemoryStore(), DiskStore(tmp_path)])


class TestLayersWithoutLeases(StoreConformance):
    @pytest.fixture
    def store(self) -> LayeredStore:
        return LayeredStore([MemoryStore(), MemoryStore()])


@pytest.mark.parametrize("is_async", [False, True])
async def test_hit_in_the_second_layer_fills_the_first(is_async: bool) -> None:
    first, second = MemoryStore(), MemoryStore()
    layers = LayeredStore([first, second])
    second.set("k", b"v")
    assert (await layers.aget("k") if is_async else layers.get("k")) == b"v"
    assert first.get("k") == b"v"


def test_what_is_set_goes_into_every_layer_for_its_own_time() -> None:
    now = [1000.0]
    first, second = MemoryStore(clock=lambda: now[0]), MemoryStore(clock=lambda: now[0])
    LayeredStore([first, second], [10, None]).set("k", b"v", 60)
    now[0] += 20
    assert (first.get("k"), second.get("k")) == (None, b"v")


@pytest.mark.parametrize("is_async", [False, True])
async def test_layer_that_fails_is_passed_by_and_counted(is_async: bool) -> None:
    layers = LayeredStore([BrokenStore(), MemoryStore()])
    for _ in range(3):
        if is_async:
            await layers.aset("k", b"v")
            assert await layers.aget("k") == b"v"
        else:
            layers.set("k", b"v")
            assert layers.get("k") == b"v"
    assert [(layer["errors"], layer["breaker"]) for layer in layers.state()] == [(1, "open"), (0, "closed")]


@pytest.mark.parametrize("is_async", [False, True])
async def test_what_is_too_large_for_one_layer_is_kept_in_the_others(is_async: bool, tmp_path: Path) -> None:
    """Setting it, and promoting it at each hit, is no failure of the layer."""
    first, second = MemoryStore(max_bytes=10), DiskStore(tmp_path, budget=5)
    layers = LayeredStore([first, second])
    for _ in range(2):
        if is_async:
            await layers.aset("k", b"x" * 11)
            assert await layers.aget("k") == b"x" * 11
        else:
            layers.set("k", b"x" * 11)
            assert layers.get("k") == b"x" * 11
    layers.set("small", b"v")
    assert (first.get("k"), first.get("small")) == (None, b"v")
    assert [(layer["errors"], layer["breaker"]) for layer in layers.state()] == [(0, "closed"), (0, "closed")]
    layers.close()


@pytest.mark.parametrize("is_async", [False, True])
async def test_what_is_too_large_for_every_layer_says_so(is_async: bool) -> None:
    layers = LayeredStore([MemoryStore(max_bytes=10), MemoryStore(max_bytes=20)])
    with pytest.raises(TooLarge, match="max_bytes=20"):
        await layers.aset("k", b"x" * 30) if is_async else layers.set("k", b"x" * 30)
    assert [layer["breaker"] for layer in layers.state()] == ["closed", "closed"]


@pytest.mark.parametrize("is_async", [False, True])
async def test_tags_go_along_into_the_first_layer_which_may_keep_a_value_longer(is_async: bool, tmp_path: Path) -> None:
    first, second = MemoryStore(), DiskStore(tmp_path, budget=5, max_entries=1)
    layers = LayeredStore([first, second])
    layers.tag("n:a", ["red", "été"])
    layers.set("n:a", b"value")
    first.clear()
    assert (await layers.aget("n:a") if is_async else layers.get("n:a")) == b"value"
    second.set("n:b", b"value")
    assert (first.get("n:a"), second.get("n:a")) == (b"value", None)
    assert layers.clear_tag("n:", "été") == 1
    assert layers.get("n:a") is None
    layers.close()


def test_all_layers_failing_is_an_error_that_the_cache_counts() -> None:
    cache = rejoinder.Cache([BrokenStore(), BrokenStore()])
    echo = rejoinder.Echo(["one", "two"])
    answers = [rejoinder.completion("echo/m", MESSAGES, cache=cache, client=echo) for _ in range(2)]
    assert [answer.choices[0].message.content for answer in answers] == ["one", "two"]
    assert cache.stats()["read_errors"] == 1


@pytest.mark.parametrize("how", ["list", "next_cache"])
def test_cache_of_layers_answers_from_the_second_after_the_first_is_emptied(how: str, tmp_path: Path) -> None:
    disk = rejoinder.Cache.disk(cache_path_root=tmp_path)
    options: dict[str, Any] = {"next_cache": disk} if how == "next_cache" else {}
    cache = rejoinder.Cache(**options) if options else rejoinder.Cache([rejoinder.Cache.memory(), disk])
    echo = rejoinder.Echo()
    rejoinder.completion("echo/m", MESSAGES, cache=cache, client=echo)
    assert isinstance(cache.store, LayeredStore)
    cache.store.stores[0].clear()
    again = rejoinder.completion("echo/m", MESSAGES, cache=cache, client=echo)
    assert (again.cache, echo.calls) == (True, 1)
    assert len(list(cache.store.stores[0].scan())) == 1


def test_one_layer_alone_is_refused() -> None:
    with pytest.raises(rejoinder.ConfigurationError, match="two stores"):
        rejoinder.Cache([rejoinder.Cache.memory()])


def test_wrong_layer_is_refused_by_its_value() -> None:
    with pytest.raises(rejoinder.WrongType, match="'redis'"):
        rejoinder.Cache(["redis", "disk"])  # type: ignore[list-item]
