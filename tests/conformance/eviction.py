"""What every store with bounds promises. Inherit `EvictionConformance` and give it a `bounded` fixture."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rejoinder.caching.stores.base import Store, TooLarge
from rejoinder.core.errors import ConfigurationError

from .store import in_threads

Bounded = Callable[..., Store]
EVICTIONS = ["lru", "lfu", "fifo", "ttl"]


def keys(store: Store) -> set[str]:
    return {record.key for record in store.scan()}


@pytest.mark.parametrize("eviction", EVICTIONS)
class EvictionConformance:
    """Give a fixture `bounded` that makes a store of `eviction`, `max_entries` and `max_bytes`, and closes it."""

    max_bytes = 400_000
    """A bound that holds twenty values of 10,000 bytes with what surrounds them, and not fifty."""

    def test_there_are_no_more_entries_than_the_bound(self, bounded: Bounded, eviction: str) -> None:
        store = bounded(eviction=eviction, max_entries=20)

        def work(number: int) -> None:
            for turn in range(40):
                key = f"{number}:{turn}"
                store.set(key, b"value", 100 + turn if turn % 2 else None)
                store.get(f"{number}:{turn // 2}")
                if turn % 8 == 0:
                    store.delete(key)

        in_threads(8, work)
        assert len(keys(store)) == 20

    def test_there_are_no_more_bytes_than_the_bound(self, bounded: Bounded, eviction: str) -> None:
        store = bounded(eviction=eviction, max_entries=None, max_bytes=self.max_bytes)

        def work(number: int) -> None:
            for turn in range(12):
                store.set(f"{number}:{turn}", b"x" * 10_000, 100 + turn if turn % 2 else None)
                store.get(f"{number}:{turn // 2}")

        in_threads(8, work)
        assert 20 <= len(keys(store)) <= self.max_bytes // 10_000

    def test_what_has_to_go_goes(self, bounded: Bounded, eviction: str) -> None:
        ttls: dict[str, float | None] = {"a": None, "b": 200, "c": 50, "d": None}
        store = bounded(eviction=eviction, max_entries=4)
        for key, ttl in ttls.items():
            store.set(key, b"value", ttl)
        for key in "aaadccb":
            assert store.get(key) is not None
        order = {"lru": "adcb", "lfu": "dbca", "fifo": "abcd", "ttl": "cbad"}[eviction]
        for number, victim in enumerate(order[:3]):
            before = keys(store)
            store.set(f"new{number}", b"value")
            assert before - keys(store) == {victim}
            if eviction == "lfu":  # or it would be the next
                for _ in range(3):
                    store.get(f"new{number}")
        assert order[3] in keys(store)

    def test_a_use_counts_where_it_should(self, bounded: Bounded, eviction: str) -> None:
        store = bounded(eviction=eviction, max_entries=2)
        store.set("first", b"value", 100)
        store.set("second", b"value", 200)
        store.get("first")
        store.set("third", b"value", 300)
        assert keys(store) == {"third", "first" if eviction in ("lru", "lfu") else "second"}

    def test_a_new_entry_is_not_the_one_to_go(self, bounded: Bounded, eviction: str) -> None:
        store = bounded(eviction=eviction, max_entries=3)
        for key in "abc":
            store.set(key, b"value")
            store.get(key)
        for number in range(5):
            store.set(f"new{number}", b"value", 10)
            assert f"new{number}" in keys(store)
            assert len(keys(store)) == 3

    def test_what_replaces_needs_no_room(self, bounded: Bounded, eviction: str) -> None:
        store = bounded(eviction=eviction, max_entries=2)
        store.set("a", b"value")
        store.set("b", b"value")
        for ttl in (None, 100, 50, None):
            store.set("a", b"another", ttl)
            assert keys(store) == {"a", "b"}

    def test_what_is_stored_again_begins_anew(self, bounded: Bounded, eviction: str) -> None:
        store = bounded(eviction=eviction, max_entries=2)
        store.set("a", b"value", 10)
        store.get("a")
        store.set("b", b"value", 50)
        store.set("a", b"again", 100)
        store.set("c", b"value", 200)
        assert keys(store) == {"a", "c"}

    def test_what_is_removed_is_not_counted(self, bounded: Bounded, eviction: str) -> None:
        store = bounded(eviction=eviction, max_entries=3)
        for turn in range(4):
            for number in range(3):
                store.set(f"k{number}", b"value", 100)
            if turn % 2:
                assert store.clear() == 3
            else:
                assert [store.delete(f"k{number}") for number in range(3)] == [True] * 3
        for number in range(3):
            store.set(f"new{number}", b"value")
        assert keys(store) == {"new0", "new1", "new2"}

    def test_tags_go_with_what_is_evicted(self, bounded: Bounded, eviction: str) -> None:
        store = bounded(eviction=eviction, max_entries=2)
        for number in range(5):
            store.tag(f"n:{number}", ["red", "blue"])
            store.set(f"n:{number}", b"value")
        left = keys(store)
        assert len(left) == 2
        assert set(store.tagged("n:", "red")) == set(store.tagged("n:", "blue")) == left
        assert {frozenset(store.tags_of(key)) for key in left} == {frozenset({"red", "blue"})}
        (evicted, *_) = {f"n:{number}" for number in range(5)} - left
        store.set(evicted, b"without tags")
        assert store.clear_tag("n:", "red") == 1
        assert keys(store) == {evicted}

    def test_tags_do_not_bound(self, bounded: Bounded, eviction: str) -> None:
        store = bounded(eviction=eviction, max_entries=2)
        for key in ("n:a", "n:b"):
            store.tag(key, [f"tag{number}" for number in range(10)])
            store.set(key, b"value")
        assert keys(store) == {"n:a", "n:b"}

    def test_what_is_larger_than_the_bound_says_so(self, bounded: Bounded, eviction: str) -> None:
        store = bounded(eviction=eviction, max_entries=None, max_bytes=self.max_bytes)
        store.set("small", b"value")
        store.set("k", b"old")
        with pytest.raises(TooLarge, match=rf"{self.max_bytes + 1:,} bytes.*max_bytes={self.max_bytes:,}"):
            store.set("k", b"x" * (self.max_bytes + 1))
        assert store.get("k") is None  # the old answer is not the answer
        assert store.get("small") == b"value"

    def test_a_wrong_word_is_refused_with_the_right_one(self, bounded: Bounded, eviction: str) -> None:
        with pytest.raises(ConfigurationError, match=f"there are lru, lfu, fifo, ttl. Did you mean '{eviction}'"):
            bounded(eviction=eviction.upper())
