"""Bounds, what goes first, and tags that go with it: the stores of this machine."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rejoinder
from rejoinder.caching.stores.base import Store
from rejoinder.caching.stores.disk import DiskStore
from rejoinder.caching.stores.eviction import HALF_LIFE, STEP, added, weight_of
from rejoinder.caching.stores.memory import MemoryStore
from rejoinder.caching.stores.tags import PATIENCE, AwaitedTags
from tests.conformance.eviction import EVICTIONS, Bounded, EvictionConformance, keys
from tests.conformance.store import in_threads


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


class TestMemory(EvictionConformance):
    @pytest.fixture
    def bounded(self) -> Bounded:
        return MemoryStore


class TestDisk(EvictionConformance):
    @pytest.fixture
    def bounded(self, tmp_path: Path) -> Iterator[Bounded]:
        made: list[DiskStore] = []

        def make(**options: Any) -> DiskStore:
            made.append(DiskStore(tmp_path, budget=5, **options))
            return made[-1]

        yield make
        for store in made:
            store.close()


# ── through the cache ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("type", ["local", "disk"])
def test_cache_passes_bounds_and_eviction_on(type: str, tmp_path: Path) -> None:
    where: dict[str, Any] = {"disk_cache_dir": tmp_path} if type == "disk" else {}
    cache = rejoinder.Cache(type=type, eviction="fifo", max_entries=2, max_bytes=500_000, **where)
    for name in "abc":
        cache.set(name, name)
        cache.get("a")
    assert [cache.get(name) for name in "abc"] == [None, "b", "c"]
    assert (cache.set("large", random.randbytes(600_000).hex()), cache.stats()["write_errors"]) == (False, 1)
    assert cache.stats()["writing"] == "closed"
    cache.close()
    with pytest.raises(rejoinder.ConfigurationError, match=r"eviction='lrU'.* Did you mean 'lru'\?"):
        rejoinder.Cache(type=type, eviction="lrU", **where)
    with pytest.raises(rejoinder.ConfigurationError, match=r"takes no evicton\. Did you mean 'eviction'"):
        rejoinder.Cache(type=type, evicton="lru", **where)


@pytest.mark.parametrize("eviction", EVICTIONS)
@pytest.mark.parametrize("type", ["local", "disk"])
def test_size_is_that_of_what_is_left(type: str, eviction: str, tmp_path: Path) -> None:
    where: dict[str, Any] = {"disk_cache_dir": tmp_path} if type == "disk" else {}
    cache = rejoinder.Cache(type=type, eviction=eviction, max_entries=5, tags=["draft"], budget=5, **where)
    messages = [{"role": "user", "content": "Hi"}]
    for number in range(12):
        echo = rejoinder.Echo("word " * number)
        rejoinder.completion("echo/m", messages, seed=number, cache=cache, client=echo)
    listed = list(rejoinder.cache_list(cache=cache))
    assert len(listed) == 5
    size = sum(record.size for record in cache.store.scan())
    assert rejoinder.cache_size(cache=cache) == [("echo/m", size)]
    assert size == sum(item.size for item in listed) > 0
    assert cache.clear() == 5
    assert rejoinder.cache_size(cache=cache) == []
    cache.close()


# ── memory and disk alike ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=["memory", "disk"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bounded]:
    made: list[Store] = []

    def make(**options: Any) -> Store:
        of_disk: dict[str, Any] = {"directory": tmp_path, "budget": 5}
        made.append(MemoryStore(**options) if request.param == "memory" else DiskStore(**of_disk, **options))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.mark.parametrize("eviction", EVICTIONS)
def test_order_is_the_one_of_a_plain_sort(make: Bounded, eviction: str) -> None:
    """Against a model that sorts everything, whatever is stored, used and removed before."""
    clock, draw = Clock(), random.Random(eviction)
    store = make(max_entries=30, eviction=eviction, clock=clock)
    model: dict[str, dict[str, Any]] = {}
    for step in range(2_000):
        key = f"k{draw.randrange(60)}"
        action = draw.random()
        if action < 0.4:
            ttl = draw.choice([None, draw.uniform(1_000, 9_000)])
            model.pop(key, None)
            store.set(key, b"value", ttl)
            if len(model) == 30:
                del model[min(model, key=lambda name: model[name][eviction])]
            ends = float("inf") if ttl is None else clock.now + ttl
            model[key] = {"lru": step, "lfu": (1, step), "fifo": step, "ttl": (ends, step)}
        elif action < 0.95:
            assert (store.get(key) is not None) == (key in model)
            if key in model:
                model[key] |= {"lru": step, "lfu": (model[key]["lfu"][0] + 1, step)}
        else:
            assert store.delete(key) == (model.pop(key, None) is not None)
        if step % 10 == 0:
            assert keys(store) == set(model), step


# ── uses that fade ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_more_uses_weigh_more_and_a_later_one_more_than_an_earlier() -> None:
    assert weight_of(0, 3) > weight_of(0, 2) > weight_of(STEP) > weight_of(0)
    assert weight_of(HALF_LIFE) == weight_of(0, 2) == added(weight_of(0), weight_of(1))
    assert added(weight_of(9 * HALF_LIFE), weight_of(2_000 * HALF_LIFE)) == weight_of(2_000 * HALF_LIFE)


def test_equally_many_uses_weigh_the_same_however_they_are_summed() -> None:
    weight = weight_of(5)
    for uses in range(2, 500):
        weight = added(weight, weight_of(6))
        assert weight == pytest.approx(weight_of(7, uses), abs=1e-8)
    assert (
        added(added(weight_of(5), weight_of(5)), weight_of(5))
        == added(weight_of(5, 2), weight_of(5))
        == weight_of(5, 3)
    )


def test_old_favourite_goes_in_the_end(make: Bounded) -> None:
    clock = Clock()
    store = make(max_entries=2, eviction="lfu", clock=clock)
    store.set("favourite", b"value")
    for _ in range(1_000):
        store.get("favourite")
    for day in range(8):
        store.set(f"day {day}", b"value")
        clock.now += HALF_LIFE
    assert "favourite" in keys(store)
    for day in range(8, 12):
        store.set(f"day {day}", b"value")
        clock.now += HALF_LIFE
    assert "favourite" not in keys(store)


# ── memory ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("eviction", EVICTIONS)
def test_nothing_is_left_of_what_is_gone(eviction: str) -> None:
    clock = Clock()
    store = MemoryStore(max_entries=50, max_bytes=4_000, eviction=eviction, clock=clock)

    def work(number: int) -> None:
        for turn in range(300):
            key = f"n:{(number * 7 + turn) % 90}"
            store.tag(key, [f"tag{turn % 5}", "all"])
            store.set(key, b"x" * (turn % 100), 0.2 if turn % 3 else None)
            store.get(f"n:{turn % 90}")
            if turn % 7 == 0:
                store.delete(key)
            if turn % 50 == 0:
                store.clear_tag("n:", "tag3")
                store.prune()

    in_threads(8, work)
    assert store._bytes == sum(len(item[0]) for item in store._items.values()) <= 4_000
    assert {key for place in store._tags._keys for key in store._tags._keys[place]} <= set(store._items)
    clock.now += 1_000
    store.prune()
    store.clear()
    ranks, heap = getattr(store._order, "ranks", {}), getattr(store._order, "heap", [])
    assert (store._bytes, len(store._items), len(store._tags), len(ranks)) == (0, 0, 0, 0)
    assert len(heap) <= 2 * 50 + 64 + 1
    assert len(store._awaited._noted) == 0


def test_tags_of_what_expires_are_gone_at_the_look_that_finds_it_expired() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    store.tag("n:a", ["red"], 10)
    store.set("n:a", b"value", 10)
    assert len(store._tags) == 2
    clock.now += 11
    assert store.get("n:a") is None
    assert len(store._tags) == 0


def test_tag_that_waits_in_vain_is_given_up() -> None:
    now = [0.0]
    awaited = AwaitedTags(clock=lambda: now[0])
    for number in range(100):
        awaited.note(f"n:{number}", ["red"])
    now[0] += PATIENCE
    awaited.note("n:new", ["red"])
    assert awaited.take("n:0") == frozenset()
    assert awaited.take("n:new") == {"red"}
    assert awaited._noted == {}


def test_two_who_set_one_key_lose_no_tag() -> None:
    store = MemoryStore()
    store.tag("n:a", ["red"])
    store.tag("n:a", ["blue"])
    store.set("n:a", b"first")
    store.set("n:a", b"second")
    assert list(store.tagged("n:", "red")) == list(store.tagged("n:", "blue")) == ["n:a"]
