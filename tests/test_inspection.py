"""What a cache holds: listed, measured, cleared and pruned; and equal calls as samples."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest

import rejoinder
from rejoinder.caching import inspection
from rejoinder.caching.entry import Entry, pack
from rejoinder.caching.stores.base import Record, Store
from rejoinder.caching.stores.disk import DiskStore
from rejoinder.caching.stores.memory import MemoryStore
from tests.fixtures.calls import both, text_of
from tests.fixtures.servers import redis_server

KEY = "a key of sixteen characters or more"


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def no_cache_of_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("REJOINDER_CACHE_DIR", str(tmp_path / "default"))
    yield
    rejoinder.cache = None


@pytest.fixture(params=["local", "disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore(clock=CLOCK) if request.param == "local" else DiskStore(tmp_path / "disk", clock=CLOCK)


CLOCK = Clock()


def cache_on(store: Store, **options: Any) -> rejoinder.Cache:
    return rejoinder.Cache(store=store, clock=CLOCK, **options)


def ask(model: str, text: str, cache: rejoinder.Cache, **more: Any) -> Any:
    return rejoinder.completion(model, [{"role": "user", "content": text}], cache=cache, **more)


def fill(store: Store) -> rejoinder.Cache:
    """Two fresh answers of one model and one of another, one that has expired, and one kept only for its grace."""
    cache = cache_on(store)
    for model, text in (("echo/a", "1"), ("echo/a", "2"), ("echo/b", "1")):
        ask(model, text, cache)
    ask("echo/a", "old", cache_on(store, ttl=1))
    ask("echo/c", "old", cache_on(store, ttl=1, stale_if_error="1D"))
    CLOCK.now += 10
    return cache


# ── looking ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_sizes_are_by_model_and_add_up(store: Store) -> None:
    cache = fill(store)
    found = dict(rejoinder.cache_size(cache=cache))
    assert list(found) == ["echo/a", "echo/b", "echo/c"]
    records = [*store.scan(), *store.expired()]
    assert sum(found.values()) == sum(record.size for record in records)
    assert dict(rejoinder.cache_size(["echo/b", "echo/c"], cache=cache)) == {
        name: found[name] for name in ("echo/b", "echo/c")
    }


def test_expired_is_what_its_own_ttl_says_whether_the_store_still_serves_it_or_not(store: Store) -> None:
    expired = list(rejoinder.cache_list_expired(cache=fill(store)))
    assert sorted((item.model, item.state) for item in expired) == [("echo/a", "expired"), ("echo/c", "expired")]
    assert all(item.ttl == 1 and item.stored_at == CLOCK.now - 10 for item in expired)


def test_bytes_that_are_no_entry_are_corrupt_and_pruneable(store: Store) -> None:
    cache = cache_on(store)
    ask("echo/a", "1", cache)
    (record,) = store.scan()
    good = store.get(record.key) or b""
    for number, data in enumerate((b"junk", good[:-1], good[:60] + b"\xff" + good[61:], b"RJE9" + good[4:])):
        store.set(f"default:bad{number}", data)
    store.set("default:notes", pack(Entry(CLOCK.now, None, b"{}", notes=b"[1]")))
    items = list(rejoinder.cache_list_expired(cache=cache))
    assert sorted(item.key for item in items) == ["bad0", "bad1", "bad2", "bad3", "notes"]
    assert all(item.state == "corrupt" and item.fault for item in items)
    assert rejoinder.cache_prune(cache=cache) == 5
    assert ask("echo/a", "1", cache).cache


def test_flipped_bit_on_the_disk_is_seen(tmp_path: Path) -> None:
    import sqlite3

    cache = rejoinder.Cache(type="disk", disk_cache_dir=tmp_path)
    ask("echo/a", "1", cache)
    with sqlite3.connect(tmp_path / "cache.sqlite3") as connection:
        (value,) = connection.execute("SELECT value FROM bodies").fetchone()
        connection.execute("UPDATE bodies SET value = ?", (value[:-1] + bytes([value[-1] ^ 1]),))
    (item,) = rejoinder.cache_list(cache=cache)
    assert (item.state, item.model) == ("corrupt", "(corrupt)")
    assert "checksum" in item.fault


def test_values_of_ones_own_and_other_namespaces_are_told_apart(store: Store) -> None:
    cache, other = cache_on(store), cache_on(store, namespace="team:a/b")
    cache.set("mine", [1])
    ask("echo/a", "1", other)
    assert [item.model for item in rejoinder.cache_list(cache=cache)] == ["(values of your own)"]
    (item,) = rejoinder.cache_list(cache=other)
    assert (item.namespace, item.model) == ("team:a/b", "echo/a")
    assert len(list(inspection.walk(cache))) == 2


@pytest.mark.parametrize("seal", ["sign_with", "encrypt_with"])
def test_sealed_entries_are_corrupt_to_nobody_who_has_no_key(store: Store, seal: str) -> None:
    if seal == "encrypt_with":
        pytest.importorskip("cryptography", reason="needs the extra: pip install 'rejoinder[encrypt]'")
    sealed = cache_on(store, **{seal: KEY})
    ask("echo/a", "1", sealed)
    (item,) = rejoinder.cache_list(cache=cache_on(store))
    assert (item.state, item.model) == ("sealed", "(sealed)")
    assert rejoinder.cache_prune(cache=cache_on(store)) == 0
    (item,) = rejoinder.cache_list(cache=sealed)
    assert (item.state, item.model) == ("fresh", "echo/a")
    (item,) = rejoinder.cache_list(cache=cache_on(store, **{seal: KEY + "!"}))
    assert item.state == "corrupt"


def test_looking_keeps_nothing_from_eviction(tmp_path: Path) -> None:
    cache = rejoinder.Cache(type="disk", disk_cache_dir=tmp_path)
    ask("echo/a", "1", cache)
    list(rejoinder.cache_list(cache=cache))
    assert isinstance(cache.store, DiskStore)
    assert not cache.store._uses


def test_which_cache_is_looked_at(tmp_path: Path) -> None:
    assert rejoinder.cache_path() == tmp_path / "default"
    assert rejoinder.cache_size() == []
    assert not (tmp_path / "default").exists()
    rejoinder.cache = rejoinder.Cache.disk(cache_path_root=tmp_path / "set")
    assert rejoinder.cache_path() == tmp_path / "set"
    with rejoinder.Cache.disk(cache_path_root=tmp_path / "inner"):
        assert rejoinder.cache_path() == tmp_path / "inner"
    layers = rejoinder.Cache([rejoinder.Cache.memory(), rejoinder.Cache.disk(cache_path_root=tmp_path / "last")])
    assert rejoinder.cache_path(cache=layers) == tmp_path / "last"
    with pytest.raises(rejoinder.ConfigurationError, match="local store has no folder"):
        rejoinder.cache_path(cache=rejoinder.Cache())
    with pytest.raises(rejoinder.WrongType):
        rejoinder.cache_size(cache="disk")  # type: ignore[arg-type]


# ── removing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_clear_removes_a_model_and_no_other(store: Store) -> None:
    cache = fill(store)
    assert rejoinder.cache_clear("echo/a", cache=cache) == 3
    assert [name for name, _ in rejoinder.cache_size(cache=cache)] == ["echo/b", "echo/c"]
    assert rejoinder.cache_clear("echo/nobody", cache=cache) == 0
    assert ask("echo/b", "1", cache).cache


def test_clear_removes_the_namespace_and_no_other(store: Store) -> None:
    cache, other = fill(store), cache_on(store, namespace="other")
    ask("echo/a", "1", other)
    assert rejoinder.cache_clear(cache=cache) == 5
    assert rejoinder.cache_size(cache=cache) == []
    assert ask("echo/a", "1", other).cache


def test_prune_removes_what_has_expired_and_nothing_fresh(store: Store) -> None:
    cache = fill(store)
    assert rejoinder.cache_prune("echo/c", cache=cache) == 1
    assert rejoinder.cache_prune(cache=cache) == 1
    assert rejoinder.cache_prune(cache=cache) == 0
    assert [ask(model, text, cache).cache for model, text in (("echo/a", "1"), ("echo/a", "2"), ("echo/b", "1"))] == [
        True
    ] * 3


def test_two_prunes_at_once_remove_each_entry_once(store: Store) -> None:
    old = cache_on(store, ttl=1)
    for number in range(150):
        old.set(f"old{number}", number)
    cache = cache_on(store)
    cache.set("new", 1)
    CLOCK.now += 10
    with ThreadPoolExecutor(2) as threads:
        removed = list(threads.map(lambda _: rejoinder.cache_prune(cache=cache), range(2)))
    assert sum(removed) == 150
    assert cache.get("new") == 1


def test_walk_of_a_large_cache_needs_no_more_memory_than_of_a_small_one() -> None:
    def peak(count: int) -> int:
        store = Endless(count)
        tracemalloc.start()
        try:
            found = inspection.sizes(inspection.walk(rejoinder.Cache(store=store)))
            assert sum(row.entries for row in found) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(20_000) < 1.5 * peak(500)


class Endless(MemoryStore):
    """As many entries of 10 KB as one likes, made as they are asked for."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def scan(self, prefix: str = "") -> Iterator[Record]:
        return (Record(f"default:{number}", 10_000, 0.0, None) for number in range(self.count))

    def peek(self, keys: Sequence[str]) -> list[bytes | None]:
        return [pack(Entry(0.0, None, b"x" * 10_000, notes=b'{"model":"echo/a"}')) for _ in keys]


def test_page_ends_by_number_and_by_bytes() -> None:
    small = [Record(f"{number}", 10, 0.0, None) for number in range(250)]
    assert [len(page) for page in inspection.pages(small)] == [100, 100, 50]
    large = [record._replace(size=inspection.PAGE_BYTES) for record in small[:3]]
    assert [len(page) for page in inspection.pages(large)] == [1, 1, 1]


def test_everything_works_on_redis() -> None:
    with redis_server() as server:
        cache = rejoinder.Cache(type="redis", redis_url=server.url, budget=5)
        for number in range(120):
            ask(f"echo/{number % 2}", f"{number}", cache)
        cache.store.set("default:bad", b"junk")
        server.command("RPUSH", "rejoinder:e:default:list", "not ours")
        ask("echo/old", "x", rejoinder.Cache(type="redis", redis_url=server.url, ttl=0.001, stale_if_error="1D"))
        found = inspection.sizes(rejoinder.cache_list(cache=cache))
        assert [(row.model, row.entries) for row in found] == [
            ("(corrupt)", 1),
            ("echo/0", 60),
            ("echo/1", 60),
            ("echo/old", 1),
        ]
        assert rejoinder.cache_prune(cache=cache) == 2
        assert rejoinder.cache_clear("echo/1", cache=cache) == 60
        assert [name for name, _ in rejoinder.cache_size(cache=cache)] == ["echo/0"]


def test_explanation_of_an_expired_answer_says_so(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, clock=CLOCK)  # memory drops it as the call that is explained is looked up
    ask("echo/a", "old", cache_on(store, ttl=1))
    CLOCK.now += 10
    found = cache_on(store).explain("echo/a", [{"role": "user", "content": "old"}])
    assert not found.hit
    assert found.reason == "the same request is stored, but too old."


# ── samples ───────────────────────────────────────────────────────────────────────────────────────────────────────


@both
def test_equal_calls_are_samples_that_replay_in_order(ask: Any) -> None:
    cache = rejoinder.Cache()
    echo = rejoinder.Echo([f"answer {number}" for number in range(30)])
    with rejoinder.samples():
        first = [text_of(ask(client=echo, cache=cache)) for _ in range(30)]
    assert first == [f"answer {number}" for number in range(30)]
    assert echo.calls == 30
    with rejoinder.samples():
        assert [text_of(ask(client=echo, cache=cache)) for _ in range(30)] == first
    assert echo.calls == 30


def test_sample_of_a_block_is_the_one_that_a_call_can_name() -> None:
    echo = rejoinder.Echo(["one", "two", "plain"])
    messages = [{"role": "user", "content": "Hi"}]

    def said(**more: Any) -> str:
        return text_of(rejoinder.completion("echo/m", messages, client=echo, **more))

    with rejoinder.Cache() as cache, rejoinder.samples():
        assert [said(), said()] == ["one", "two"]
    assert said(cache=cache) == "plain"
    with cache:
        assert said(cache={"sample": 2}) == "two"
        with rejoinder.samples():
            assert said(cache={"sample": 2}) == "two"
            assert said() == "one"  # a call that names its sample was not counted


def test_other_requests_streams_and_inner_blocks_count_for_themselves() -> None:
    echo = rejoinder.Echo([f"{number}" for number in range(9)])
    with rejoinder.Cache(), rejoinder.samples():

        def said(text: str, **more: Any) -> str:
            return text_of(rejoinder.completion("echo/m", [{"role": "user", "content": text}], client=echo, **more))

        assert [said("a"), said("b"), said("a")] == ["0", "1", "2"]
        with rejoinder.samples():
            assert [said("a"), said("b"), said("a")] == ["0", "1", "2"]
            chunks = rejoinder.completion("echo/m", [{"role": "user", "content": "b"}], client=echo, stream=True)
            assert text_of(list(chunks)) == "3"
        assert said("b") == "3"


def test_own_keys_are_sampled_too() -> None:
    cache, echo = rejoinder.Cache(), rejoinder.Echo(["one", "two"])
    cache.get_cache_key = lambda **call: "the same"  # type: ignore[method-assign]
    for _ in range(2):
        with rejoinder.samples():
            said = [text_of(ask("echo/m", "Hi", cache, client=echo)) for _ in range(2)]
        assert said == ["one", "two"]


def test_tasks_started_in_order_are_samples_in_order() -> None:
    cache, echo = rejoinder.Cache(), rejoinder.Echo([f"{number}" for number in range(8)])

    async def all_at_once() -> list[str]:
        with rejoinder.samples():
            calls = [
                rejoinder.acompletion("echo/m", [{"role": "user", "content": "Hi"}], client=echo, cache=cache)
                for _ in range(8)
            ]
            return [text_of(answer) for answer in await asyncio.gather(*calls)]

    first = asyncio.run(all_at_once())
    assert sorted(first) == [f"{number}" for number in range(8)]
    assert asyncio.run(all_at_once()) == first
    assert echo.calls == 8


def test_threads_in_the_context_of_a_block_share_its_count() -> None:
    cache, echo = rejoinder.Cache(), rejoinder.Echo([f"{number}" for number in range(8)])
    for _ in range(2):
        with rejoinder.samples(), ThreadPoolExecutor(4) as threads:
            jobs = [threads.submit(copy_context().run, ask, "echo/m", "Hi", cache, client=echo) for _ in range(8)]
            assert sorted(text_of(job.result()) for job in jobs) == [f"{number}" for number in range(8)]
    assert echo.calls == 8


def test_explaining_does_not_count() -> None:
    cache, echo = rejoinder.Cache(), rejoinder.Echo(["one", "two"])
    messages = [{"role": "user", "content": "Hi"}]
    with rejoinder.samples():
        assert text_of(ask("echo/m", "Hi", cache, client=echo)) == "one"
    with rejoinder.samples():
        assert [cache.explain("echo/m", messages).hit for _ in range(3)] == [True] * 3
        assert text_of(ask("echo/m", "Hi", cache, client=echo)) == "one"
        assert not cache.explain("echo/m", messages).hit
