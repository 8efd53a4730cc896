"""What a cache does with answers: whose they are, which are kept, for how long, and under whose rules."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rejoinder
from rejoinder import Cache, CachePolicy, Echo
from tests.fixtures.calls import MESSAGES, ataken, awhole, both, both_streams, streamed, text_of, whole

TEXT = "The answer."


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> Cache:
    return Cache(clock=clock)


@pytest.fixture
def echo() -> Echo:
    return Echo(lambda body: f"{TEXT} {len(counted)}" if counted.append(1) is None else "")


counted: list[int] = []


@pytest.fixture(autouse=True)
def nothing_set() -> Iterator[None]:
    counted.clear()
    yield
    rejoinder.cache = None


# ── answers belong to their callers ───────────────────────────────────────────────────────────────────────────────────


@both
def test_a_hit_equals_the_fresh_answer(ask: Callable[..., Any], echo: Echo, cache: Cache) -> None:
    fresh, hit = (ask(client=echo, cache=cache) for _ in range(2))
    assert fresh == hit
    assert type(fresh) is type(hit)
    assert (fresh.cache, hit.cache, fresh["cache"], hit["cache"]) == (False, True, False, True)
    assert fresh.model_dump(exclude={"cache"}) == hit.model_dump(exclude={"cache"})


@both
def test_what_a_caller_does_to_its_answer_stays_with_it(ask: Callable[..., Any], echo: Echo, cache: Cache) -> None:
    for _ in range(3):
        answer = ask(client=echo, cache=cache)
        assert text_of(answer) == f"{TEXT} 1"
        answer.choices[0].message.content = "spoiled"
        answer.choices.append("spoiled")
        answer.usage = None
        answer.id = "spoiled"


def test_what_a_caller_does_to_a_chunk_stays_with_it(echo: Echo, cache: Cache) -> None:
    for _ in range(3):
        chunks = streamed(client=echo, cache=cache)
        assert text_of(chunks) == f"{TEXT} 1"
        for chunk in chunks:
            chunk.choices.clear()


@both
def test_what_a_caller_does_to_its_messages_meanwhile_changes_no_key(ask: Callable[..., Any], cache: Cache) -> None:
    messages = [{"role": "user", "content": "before"}]

    def answer(body: Any) -> str:
        messages[0]["content"] = "after"
        return TEXT

    ask(client=Echo(answer), cache=cache, messages=messages)
    assert ask(client=Echo(["no"]), cache=cache, messages=[{"role": "user", "content": "before"}]).cache
    assert not ask(client=Echo(["no"]), cache=cache, messages=[{"role": "user", "content": "after"}]).cache


@pytest.mark.parametrize(
    "twin",
    [copy.copy, copy.deepcopy, lambda answer: pickle.loads(pickle.dumps(answer))],
    ids=["copy", "deep", "pickle"],
)
def test_a_copy_keeps_its_mark(twin: Callable[[Any], Any], echo: Echo, cache: Cache) -> None:
    for _ in range(2):
        answer = whole(client=echo, cache=cache)
        assert twin(answer) == answer
        assert twin(answer).cache is answer.cache


# ── what is kept ──────────────────────────────────────────────────────────────────────────────────────────────────────

CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
UNWORTHY = {
    "a refusal": {"content": None, "refusal": "I will not."},
    "what a filter cut": {"content": "half", "finish_reason": "content_filter"},
    "arguments cut short": {"tool_calls": [{**CALL, "function": {"name": "f", "arguments": '{"a": '}}]},
    "arguments that are no object": {"tool_calls": [{**CALL, "function": {"name": "f", "arguments": "[1]"}}]},
}


@pytest.mark.parametrize("message", UNWORTHY.values(), ids=UNWORTHY.keys())
@pytest.mark.parametrize("ask", [whole, awhole, streamed], ids=["sync", "async", "stream"])
def test_an_unworthy_answer_is_given_and_not_stored(ask: Callable[..., Any], message: Any, cache: Cache) -> None:
    echo = Echo([message])
    for _ in range(2):
        ask(client=echo, cache=cache)
    assert echo.calls == 2
    assert (cache.stats()["refused"], cache.stats()["stored"]) == (2, 0)


@both
def test_a_good_tool_call_is_stored(ask: Callable[..., Any], cache: Cache) -> None:
    echo = Echo([{"tool_calls": [CALL]}])
    ask(client=echo, cache=cache)
    assert ask(client=echo, cache=cache).choices[0].message.tool_calls[0].function.name == "f"
    assert echo.calls == 1


# ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@both
def test_an_answer_serves_for_its_ttl(ask: Callable[..., Any], echo: Echo, clock: Clock) -> None:
    cache = Cache(ttl=60, clock=clock)
    ask(client=echo, cache=cache)
    clock.now += 59
    assert ask(client=echo, cache=cache).cache
    clock.now += 2
    assert not ask(client=echo, cache=cache).cache
    assert cache.stats()["stale"] == 1


@both
def test_a_call_may_set_the_ttl_and_the_age(ask: Callable[..., Any], echo: Echo, cache: Cache, clock: Clock) -> None:
    with cache:
        ask(client=echo, cache={"ttl": 10})
        clock.now += 5
        assert ask(client=echo).cache
        assert ask(client=echo, cache={"s-maxage": 6}).cache
        assert not ask(client=echo, cache={"s-maxage": 4, "no-store": True}).cache
        clock.now += 6
        assert not ask(client=echo).cache


@both
def test_a_policy_expires(ask: Callable[..., Any], echo: Echo, cache: Cache, clock: Clock) -> None:
    with cache:
        ask(client=echo, cache=CachePolicy(expiry="1h"))
        assert ask(client=echo, cache=CachePolicy(expiry="1h")).cache
        clock.now += 3601
        assert not ask(client=echo, cache=CachePolicy(expiry="1h")).cache


@both
def test_a_clock_set_back_makes_answers_new_and_not_lost(ask: Callable[..., Any], echo: Echo, clock: Clock) -> None:
    cache = Cache(ttl=60, clock=clock)
    ask(client=echo, cache=cache)
    clock.now -= 10_000
    assert ask(client=echo, cache=cache).cache


# ── controls ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@both
def test_no_cache_asks_again_and_stores(ask: Callable[..., Any], echo: Echo, cache: Cache) -> None:
    with cache:
        ask(client=echo)
        assert text_of(ask(client=echo, cache={"no-cache": True})) == f"{TEXT} 2"
        assert text_of(ask(client=echo)) == f"{TEXT} 2"


@both
def test_no_store_stores_nothing(ask: Callable[..., Any], echo: Echo, cache: Cache) -> None:
    with cache:
        ask(client=echo, cache={"no-store": True})
        assert not ask(client=echo).cache


@both
def test_namespaces_do_not_see_each_other(ask: Callable[..., Any], echo: Echo, cache: Cache) -> None:
    with cache:
        for namespace in (None, "a", "a:b", "b", "default2"):
            given = {} if namespace is None else {"cache": {"namespace": namespace}}
            assert not ask(client=echo, **given).cache
            assert ask(client=echo, **given).cache
    assert cache.clear() == 1, "its own only"


MODES = {
    "on": (True, True),
    "off": (False, False),
    "read_only": (True, False),
    "write_only": (False, True),
    "refresh": (False, True),
    "shadow": (False, True),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("where", ["cache", "call", "process"])
@both
def test_a_mode_reads_and_stores_what_it_says(
    ask: Callable[..., Any], where: str, mode: str, echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, stores = MODES[mode]
    before = Cache()
    ask(client=echo, cache=before)
    if where == "process":
        monkeypatch.setenv("REJOINDER_CACHE_MODE", mode)
    cache = Cache(store=before.store, mode=mode if where == "cache" else "default_on")
    given: dict[str, Any] = {"cache": {"mode": mode}} if where == "call" else {}
    with cache:
        assert ask(client=echo, **given).cache is reads
        other = {"messages": [{"role": "user", "content": "other"}], "client": echo}
        ask(**other, **given)
    assert ask(**other, cache=before).cache is stores


@both
def test_replay_only_sends_nothing(ask: Callable[..., Any], echo: Echo, cache: Cache) -> None:
    with cache:
        with pytest.raises(rejoinder.CacheMiss, match="echo/m"):
            ask(client=echo, cache={"mode": "replay_only"})
        assert echo.calls == 0
        ask(client=echo)
        assert ask(client=echo, cache={"mode": "replay_only"}).cache


def test_an_unknown_mode_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(rejoinder.ConfigurationError, match="refresh"):
        Cache(mode="refesh")
    monkeypatch.setenv("REJOINDER_CACHE_MODE", "onn")
    with pytest.raises(rejoinder.ConfigurationError, match="REJOINDER_CACHE_MODE"):
        Cache()


@both
def test_default_off_serves_only_who_asks(ask: Callable[..., Any], echo: Echo) -> None:
    with Cache(mode="default_off"):
        assert not any(ask(client=echo).cache for _ in range(2))
        ask(client=echo, caching=True)
        assert ask(client=echo, caching=True).cache
        assert ask(client=echo, cache={"use-cache": True}).cache
        assert not ask(client=echo).cache


@both
def test_caching_false_passes_the_cache_by(ask: Callable[..., Any], echo: Echo, cache: Cache) -> None:
    with cache:
        for given in ({"caching": False}, {"cache": False}):
            assert not any(ask(client=echo, **given).cache for _ in range(2))
        assert not list(cache.store.scan())


def test_call_types_are_chosen(echo: Echo) -> None:
    with Cache(supported_call_types=["acompletion"]):
        assert not any(whole(client=echo).cache for _ in range(2))
        awhole(client=echo)
        assert awhole(client=echo).cache


# ── which cache ───────────────────────────────────────────────────────────────────────────────────────────────────────


@both
def test_the_process_has_a_cache(ask: Callable[..., Any], echo: Echo) -> None:
    first = rejoinder.enable_cache()
    ask(client=echo)
    assert ask(client=echo).cache
    assert rejoinder.cache is first
    second = rejoinder.update_cache(namespace="other")
    assert rejoinder.cache is second
    assert not ask(client=echo).cache
    rejoinder.disable_cache()
    assert rejoinder.cache is None
    assert not ask(client=echo).cache


@both
def test_the_innermost_block_counts_and_ends(ask: Callable[..., Any], echo: Echo, tmp_path: Path) -> None:
    rejoinder.cache = Cache()
    with Cache.memory() as outer:
        ask(client=echo)
        with Cache.disk(cache_path_root=tmp_path) as inner:
            ask(client=echo)
            assert inner.stats()["stored"] == 1
        assert ask(client=echo).cache
        with pytest.raises(ZeroDivisionError), Cache.memory():
            raise ZeroDivisionError
        assert ask(client=echo).cache
    assert outer.stats()["stored"] == 1
    assert not ask(client=echo).cache
    assert rejoinder.cache.stats()["stored"] == 1
    inner.close()


async def test_tasks_have_blocks_of_their_own() -> None:
    echo = Echo([TEXT], latency=0.002)

    async def one(number: int) -> int:
        async with Cache.memory() as cache:
            await ataken(client=echo)
            await asyncio.sleep(0.001 * (number % 3))
            await ataken(client=echo)
            stats = cache.stats()
            return int(stats["hits"] == stats["stored"] == 1)

    assert await asyncio.gather(*(one(number) for number in range(20))) == [1] * 20


def test_the_same_cache_may_be_entered_twice(echo: Echo) -> None:
    cache = Cache()
    with cache, cache:
        whole(client=echo)
    with cache:
        assert whole(client=echo).cache
    assert not whole(client=echo).cache


def test_a_cache_seed_separates_samples(echo: Echo, tmp_path: Path) -> None:
    for seed in (1, 2, "1", None):
        with Cache.disk(cache_seed=seed, cache_path_root=tmp_path) as cache:
            assert whole(client=echo).cache is (seed == "1"), "1 and '1' are one seed"
            assert whole(client=echo).cache
            cache.close()


def test_samples_of_a_call_are_kept_apart(echo: Echo, cache: Cache) -> None:
    with cache:
        texts = [text_of(whole(client=echo, cache={"sample": number % 3})) for number in range(6)]
    assert texts[:3] == texts[3:]
    assert len(set(texts)) == 3


def test_epochs_are_kept_apart(echo: Echo, cache: Cache) -> None:
    with cache:
        for number in range(2):
            with rejoinder.epoch(number):
                assert not whole(client=echo).cache
                assert whole(client=echo).cache
        with rejoinder.epoch(7):
            assert not whole(client=echo, cache=CachePolicy(per_epoch=False)).cache
        with rejoinder.epoch(8):
            assert whole(client=echo, cache=CachePolicy(per_epoch=False)).cache


# ── own values, own keys ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["local", "disk"])
def test_a_stored_none_is_a_hit(kind: str, tmp_path: Path) -> None:
    cache = Cache() if kind == "local" else Cache.disk(cache_path_root=tmp_path)
    assert cache.get("k", "default") == "default"
    assert cache.set("k", None)
    assert cache.get("k", "default") is None

    async def the_same() -> None:
        assert await cache.aset("a", None)
        assert await cache.aget("a", "default") is None

    asyncio.run(the_same())
    cache.close()


@both
def test_a_key_function_of_the_callers_own_counts(ask: Callable[..., Any], echo: Echo, cache: Cache) -> None:
    seen: list[dict[str, Any]] = []
    cache.get_cache_key = lambda **kwargs: seen.append(kwargs) or kwargs["messages"][0]["content"][:1]  # type: ignore
    ask(client=echo, cache=cache, messages=[{"role": "user", "content": "apple"}], temperature=1)
    assert ask(client=echo, cache=cache, messages=[{"role": "user", "content": "avocado"}]).cache
    assert seen[0]["model"] == "echo/m"
    assert seen[0]["temperature"] == 1


@pytest.mark.parametrize(
    "function", [lambda **k: 1 / 0, lambda **k: None, lambda **k: b"x", lambda **k: ""], ids=range(4)
)
@both
def test_a_key_function_that_fails_says_so_or_is_passed_by(
    ask: Callable[..., Any], function: Any, echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    strict, lenient = Cache(), Cache(on_key_error="skip")
    strict.get_cache_key = lenient.get_cache_key = function  # type: ignore[method-assign]
    with pytest.raises(rejoinder.CacheKeyError, match="get_cache_key"):
        ask(client=echo, cache=strict)
    assert echo.calls == 0
    for _ in range(3):
        assert not ask(client=echo, cache=lenient).cache
    assert lenient.stats()["key_errors"] == 3
    assert len([record for record in caplog.records if "get_cache_key" in record.getMessage()]) == 1


@both_streams
def test_a_miss_is_counted_once(read: Callable[..., Any], cache: Cache) -> None:
    echo = Echo([TEXT])
    for _ in range(3):
        read(client=echo, cache=cache)
    counts = {name: count for name, count in cache.stats().items() if isinstance(count, int) and count}
    assert counts == {"hits": 2, "misses": 1, "stored": 1}


def test_an_expired_entry_is_counted_once_a_call(tmp_path: Path) -> None:
    clock = Clock()
    for cache in (Cache(clock=clock), Cache.disk(cache_path_root=tmp_path, clock=clock)):
        with cache:
            whole(client=Echo([TEXT]), cache={"ttl": 1000})
            clock.now += 50
            whole(client=Echo([TEXT]), cache={"s-maxage": 10})
        assert cache.stats()["stale"] == 1
        cache.close()


def test_no_key_of_a_caller_is_in_the_store(tmp_path: Path) -> None:
    secret = "sk-do-not-keep-this-anywhere"
    cache = Cache.disk(cache_path_root=tmp_path)
    given = {"client": Echo([TEXT]), "cache": cache, "api_key": secret, "extra_headers": {"Authorization": secret}}
    whole(**given)
    streamed(**given, messages=[{"role": "user", "content": "another"}])
    cache.close()
    data = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert TEXT.encode() in data
    assert secret.encode() not in data


def test_threads_count_right(cache: Cache) -> None:
    echo = Echo([TEXT])
    whole(client=echo, cache=cache)
    threads = [threading.Thread(target=lambda: [whole(client=echo, cache=cache) for _ in range(50)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.stats()["hits"] == 400
    assert MESSAGES[0]["role"] == "user"
