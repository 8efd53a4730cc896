"""Policies of a cache beside its TTL: tags, sliding and early renewal, kept errors, `store_if`, an old cache, modes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rejoinder
from rejoinder import Cache, Echo
from rejoinder.caching import entry as entries
from rejoinder.caching import keys
from rejoinder.caching.stores.memory import MemoryStore
from rejoinder.core.errors import ConfigurationError, WrongType
from tests.fixtures.calls import ataken, both, streamed, text_of, whole

TOO_LONG = {
    "status": 400,
    "body": {"error": {"message": "maximum context length is 8 tokens", "code": "context_length_exceeded"}},
}
NO_MODEL = {"status": 404, "body": {"error": {"message": "no such model"}}}


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def made(clock: Clock, **options: Any) -> Cache:
    return Cache(store=MemoryStore(clock=clock), clock=clock, **options)


def settled(ask: Callable[..., Any], **params: Any) -> Any:
    """What is asked, with time for what it started in its own loop."""
    if ask is whole:
        return ask(**params)

    async def go() -> Any:
        answer = await ataken(**params)
        await asyncio.sleep(0.02)
        return answer

    return asyncio.run(go())


def wait_until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not what() and time.monotonic() < deadline:
        time.sleep(0.002)
    assert what()


# ── tags ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=["local", "disk", "layers"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Cache:
    if request.param == "layers":
        return Cache([Cache.memory(), Cache.disk(cache_path_root=tmp_path, budget=5)])
    return Cache.memory() if request.param == "local" else Cache.disk(cache_path_root=tmp_path, budget=5)


def about(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


@both
def test_what_has_a_tag_is_removed_together(cache: Cache, ask: Callable[..., Any]) -> None:
    echo = Echo()
    ask(client=echo, cache=cache, **about("neither"))
    with cache:
        ask(client=echo, cache={"tags": ["draft", "team-a"]}, **about("both"))
        ask(client=echo, cache={"tags": "draft"}, **about("one"))
    assert cache.clear(tag="draft") == 2
    assert [ask(client=echo, cache=cache, **about(text)).cache for text in ("neither", "both", "one")] == [
        True,
        False,
        False,
    ]


async def test_tags_are_cleared_by_a_task_too(cache: Cache) -> None:
    with cache:
        await ataken(client=Echo(), cache={"tags": ["draft"]})
    assert await cache.aclear(tag="draft") == 1


def test_a_tag_of_the_cache_is_on_all_its_answers_and_stays_in_its_namespace() -> None:
    store, echo = MemoryStore(), Echo()
    ours, theirs = (Cache(store=store, namespace=name, tags=["run-7"]) for name in ("ours", "theirs"))
    for cache in (ours, theirs):
        whole(client=echo, cache=cache)
    assert ours.clear(tag="run-7") == 1
    assert whole(client=echo, cache=theirs).cache


def test_marks_of_tags_are_no_answers(cache: Cache) -> None:
    with cache:
        whole(client=Echo(), cache={"tags": ["a", "b"]})
    assert len(list(rejoinder.cache_list(cache=cache))) == 1
    assert cache.clear() == 1


def test_tags_travel_in_bundles(tmp_path: Path) -> None:
    first, second = Cache.memory(), Cache.memory()
    with first:
        whole(client=Echo(), cache={"tags": ["draft"]})
    rejoinder.export_bundle(tmp_path / "b.jsonl", cache=first)
    rejoinder.import_bundle(tmp_path / "b.jsonl", cache=second)
    assert second.clear(tag="draft") == 1


@pytest.mark.parametrize("tags", [7, [""], ["a", 1], {"a": 1}])
def test_wrong_tags_are_refused(tags: Any) -> None:
    with pytest.raises(WrongType, match="tags"):
        Cache(tags=tags)


# ── sliding, early ────────────────────────────────────────────────────────────────────────────────────────────────────


@both
def test_an_answer_that_serves_is_kept_for_longer(clock: Clock, ask: Callable[..., Any]) -> None:
    echo, cache = Echo(["old", "new"]), made(clock, ttl=100, sliding=True)
    ask(client=echo, cache=cache)
    for _ in range(5):
        clock.now += 90
        answer = ask(client=echo, cache=cache)
        assert (text_of(answer), answer.cache) == ("old", True)
    assert answer.cache_info.age == 450
    clock.now += 101
    assert text_of(ask(client=echo, cache=cache)) == "new"


def test_sliding_writes_once_in_a_tenth_of_the_ttl(clock: Clock) -> None:
    echo, cache = Echo(), made(clock, ttl=100, sliding=True)
    for _ in range(100):
        whole(client=echo, cache=cache)
        clock.now += 1
    assert cache.counts["renewed"] <= 10


def test_a_sliding_answer_keeps_its_tags(clock: Clock) -> None:
    echo, cache = Echo(), made(clock, ttl=100, sliding=True, tags=["t"])
    whole(client=echo, cache=cache)
    clock.now += 90
    whole(client=echo, cache=cache)
    clock.now += 90
    assert cache.clear(tag="t") == 1


def test_max_age_counts_from_when_the_answer_was_given(clock: Clock) -> None:
    echo, cache = Echo(["old", "new"]), made(clock, ttl=100, sliding=True)
    for _ in range(3):
        whole(client=echo, cache=cache)
        clock.now += 60
    with cache:
        assert text_of(whole(client=echo, cache={"max-age": 150})) == "new"


@both
def test_near_its_end_an_answer_serves_and_a_new_one_is_fetched(clock: Clock, ask: Callable[..., Any]) -> None:
    echo, cache = Echo(["old", "new"]), made(clock, ttl=100, early_refresh=20)
    settled(ask, client=echo, cache=cache)
    clock.now += 79
    settled(ask, client=echo, cache=cache)
    assert echo.calls == 1
    clock.now += 2
    assert text_of(settled(ask, client=echo, cache=cache)) == "old"
    wait_until(lambda: cache.counts["stored"] == 2)
    answer = settled(ask, client=echo, cache=cache)
    assert (text_of(answer), answer.cache, echo.calls) == ("new", True, 2)


def test_a_failed_early_refresh_leaves_the_answer(clock: Clock) -> None:
    echo, cache = Echo(["old", NO_MODEL]), made(clock, ttl=100, early_refresh=20, error_ttl=60)
    whole(client=echo, cache=cache)
    clock.now += 85
    whole(client=echo, cache=cache)
    wait_until(lambda: cache.counts["stale_errors"] == 1)
    assert text_of(whole(client=Echo(["never"]), cache=cache)) == "old"


def test_what_another_process_fetched_meanwhile_is_not_fetched_again(tmp_path: Path) -> None:
    first, second = (Cache.disk(cache_path_root=tmp_path, ttl=100, early_refresh=100, budget=5) for _ in range(2))
    echo = Echo(latency=0.02)
    a_minute_ago = Cache.disk(cache_path_root=tmp_path, ttl=100, budget=5, clock=lambda: time.time() - 60)
    whole(client=echo, cache=a_minute_ago)
    for cache in (first, second):
        whole(client=echo, cache=cache)
    wait_until(lambda: not any(len(list(cache.flights._flights)) for cache in (first, second)))
    assert echo.calls == 2


# ── errors that are kept ──────────────────────────────────────────────────────────────────────────────────────────────


@both
@pytest.mark.parametrize(
    ("answer", "kind"), [(TOO_LONG, rejoinder.ContextWindowExceeded), (NO_MODEL, rejoinder.NotFoundError)]
)
def test_an_error_that_would_only_come_again_is_kept(
    clock: Clock, ask: Callable[..., Any], answer: Any, kind: type[Exception]
) -> None:
    echo, cache = Echo([answer, "fine"]), made(clock, error_ttl=60)
    with pytest.raises(kind) as first:
        ask(client=echo, cache=cache)
    with pytest.raises(kind, match="nothing was sent") as second:
        ask(client=echo, cache=cache)
    assert echo.calls == 1
    assert (second.value.status_code, second.value.provider) == (first.value.status_code, "echo")  # type: ignore[attr-defined]
    with pytest.raises(kind):
        streamed(client=echo, cache=cache)
    clock.now += 61
    assert text_of(ask(client=echo, cache=cache)) == "fine"


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503])
def test_an_error_that_may_pass_is_not_kept(status: int) -> None:
    echo, cache = Echo([{"status": status}, "fine"]), Cache(error_ttl=60)
    with pytest.raises(rejoinder.APIStatusError):
        whole(client=echo, cache=cache, num_retries=0)
    assert text_of(whole(client=echo, cache=cache)) == "fine"


def test_no_error_is_kept_unless_asked() -> None:
    echo, cache = Echo([NO_MODEL, "fine"]), Cache()
    with pytest.raises(rejoinder.NotFoundError):
        whole(client=echo, cache=cache)
    assert text_of(whole(client=echo, cache=cache)) == "fine"


def test_a_kept_error_is_a_miss_for_a_call_that_wants_none() -> None:
    echo, cache = Echo([NO_MODEL, "fine"]), Cache()
    with cache:
        with pytest.raises(rejoinder.NotFoundError):
            whole(client=echo, cache={"error-ttl": "1h"})
        assert text_of(whole(client=echo)) == "fine"
        assert text_of(whole(client=echo, cache={"error-ttl": "1h"})) == "fine"
    assert cache.stats()["corrupt"] == 0


def test_a_kept_error_does_not_take_a_stale_answers_place(clock: Clock) -> None:
    echo, cache = Echo(["old", NO_MODEL]), made(clock, ttl=60, stale_if_error=1000, error_ttl=60)
    whole(client=echo, cache=cache)
    for _ in range(2):
        clock.now += 61
        assert text_of(whole(client=echo, cache=cache)) == "old"


ASKED: dict[str, dict[str, Any]] = {
    "text_completion": {"prompt": "Hi"},
    "responses": {"input": "Hi"},
    "image_generation": {"prompt": "Hi"},
    "transcription": {"file": b"RIFF"},
    "speech": {"input": "Hi", "voice": "v"},
    "moderation": {"input": "Hi"},
    "rerank": {"query": "Hi", "documents": ["a"]},
    "count_tokens": {"messages": [{"role": "user", "content": "Hi"}]},
    "ocr": {"document": b"%PDF"},
}


@pytest.mark.parametrize("endpoint", ASKED)
def test_kept_errors_of_other_endpoints_are_raised_too(endpoint: str) -> None:
    echo, cache = Echo([NO_MODEL, "fine"]), Cache(error_ttl=60)
    for _ in range(2):
        with pytest.raises(rejoinder.NotFoundError):
            getattr(rejoinder, endpoint)(model="echo/m", client=echo, cache=cache, **ASKED[endpoint])
    assert (echo.calls, cache.counts["errors_served"]) == (1, 1)


# ── store_if ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@both
def test_store_if_has_the_last_word(ask: Callable[..., Any]) -> None:
    short = Cache(store_if=lambda answer: len(text_of(answer)) < 5)
    assert [ask(client=Echo(["long answer"]), cache=short).cache for _ in range(2)] == [False, False]
    assert [ask(client=Echo(["tiny"]), cache=short).cache for _ in range(2)] == [False, True]


def test_store_if_may_keep_what_is_not_kept_by_itself_or_leave_it() -> None:
    filtered = {"choices": [{"finish_reason": "content_filter", "message": {"role": "assistant", "content": "x"}}]}
    for said, kept in ((True, True), (None, False), (False, False)):
        cache = Cache(store_if=lambda answer, said=said: said)
        assert [whole(client=Echo([filtered]), cache=cache).cache for _ in range(2)] == [False, kept]


def test_a_store_if_that_raises_fails_no_call(caplog: pytest.LogCaptureFixture) -> None:
    cache = Cache(store_if=lambda answer: 1 / 0)  # type: ignore[arg-type, return-value]
    assert [whole(client=Echo(), cache=cache).cache for _ in range(2)] == [False, False]
    assert "store_if raised ZeroDivisionError" in caplog.text


def test_store_if_must_be_a_function() -> None:
    with pytest.raises(WrongType, match="store-if"):
        whole(client=Echo(), cache={"store-if": "always"}, caching=True)


# ── from an old cache to a new one ────────────────────────────────────────────────────────────────────────────────────


@both
def test_what_the_old_cache_has_is_served_and_copied(tmp_path: Path, ask: Callable[..., Any]) -> None:
    old = Cache.disk(cache_seed=41, cache_path_root=tmp_path, budget=5)
    ask(client=Echo(["old"]), cache=old)
    new = Cache(old=old, mode="read_old_write_new")
    first = ask(client=Echo(["never"]), cache=new)
    assert (text_of(first), first.cache, new.counts["migrated"]) == ("old", True, 1)
    old.clear()
    assert text_of(ask(client=Echo(["never"]), cache=new)) == "old"


def test_what_the_old_cache_has_not_is_written_to_the_new_one_only() -> None:
    old = Cache()
    new = Cache(old=old)
    whole(client=Echo(), cache=new)
    assert (old.counts["stored"], new.counts["stored"]) == (0, 1)


def test_a_copy_is_as_old_as_what_it_was_copied_from(clock: Clock) -> None:
    old = made(clock, ttl=100)
    whole(client=Echo(["old"]), cache=old)
    clock.now += 60
    new = made(clock, old=old)
    whole(client=Echo(["never"]), cache=new)
    clock.now += 41
    assert text_of(whole(client=Echo(["new"]), cache=new)) == "new"


def test_an_old_key_function_finds_what_it_stored() -> None:
    class Loose(Cache):
        def get_cache_key(self, *args: Any, **kwargs: Any) -> str:
            return "one for all"

    old = Loose()
    whole(client=Echo(["old"]), cache=old)
    assert text_of(whole(client=Echo(["never"]), cache=Cache(old=old))) == "old"


def test_an_old_cache_that_fails_is_passed_by() -> None:
    class Broken(MemoryStore):
        def get(self, key: str) -> bytes | None:
            raise OSError("gone")

    assert text_of(whole(client=Echo(["new"]), cache=Cache(old=Cache(store=Broken())))) == "new"


def test_read_old_write_new_needs_an_old_cache() -> None:
    with pytest.raises(ConfigurationError, match="needs old="):
        Cache(mode="read_old_write_new")
    with pytest.raises(WrongType, match="old="):
        Cache(old="disk")  # type: ignore[arg-type]


@both
def test_an_answer_under_an_earlier_versions_key_is_moved_when_it_is_read(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[..., Any]
) -> None:
    cache = Cache()
    new_key = cache.get_cache_key("echo/m", rejoinder_messages())
    ask(client=Echo(["kept"]), cache=cache)
    [record] = cache.store.scan()
    earlier = keys.request_key(rejoinder.core.settings.shape("echo/m", rejoinder_messages()), version=0)  # type: ignore[attr-defined]
    cache.store.set("default:" + earlier, cache.store.get(record.key) or b"")
    cache.store.delete(record.key)
    monkeypatch.setattr(keys, "EARLIER", (0,))
    assert text_of(ask(client=Echo(["never"]), cache=cache)) == "kept"
    assert cache.store.get("default:" + new_key) is not None
    assert cache.counts["migrated"] == 1


def rejoinder_messages() -> Any:
    from tests.fixtures.calls import MESSAGES

    return MESSAGES


@both
def test_an_entry_of_an_earlier_format_is_read(monkeypatch: pytest.MonkeyPatch, ask: Callable[..., Any]) -> None:
    cache = Cache()
    ask(client=Echo(["kept"]), cache=cache)
    [record] = cache.store.scan()
    packed = cache.store.get(record.key) or b""
    monkeypatch.setitem(entries.FORMATS, b"RJE0", lambda data: entries.unpack(entries.MAGIC + data[4:]))
    cache.store.set(record.key, b"RJE0" + packed[4:])
    assert text_of(ask(client=Echo(["never"]), cache=cache)) == "kept"


# ── modes ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@both
def test_the_mode_around_a_call_counts_before_its_caches(ask: Callable[..., Any]) -> None:
    cache, echo = Cache(), Echo()
    ask(client=echo, cache=cache)
    with rejoinder.in_mode("refresh"):
        assert not ask(client=echo, cache=cache).cache
        with cache:
            assert ask(client=echo, cache={"mode": "on"}).cache
        with rejoinder.in_mode("replay_only"):
            assert ask(client=echo, cache=cache).cache
            with pytest.raises(rejoinder.CacheMiss):
                ask(client=echo, cache=cache, **about("something else"))
    assert ask(client=echo, cache=cache).cache


def test_the_mode_of_the_process_counts_before_its_caches() -> None:
    cache, echo = Cache(mode="replay_only"), Echo()
    rejoinder.cache_mode = "refresh"
    try:
        assert not whole(client=echo, cache=cache).cache
        with rejoinder.in_mode("read_only"):
            assert whole(client=echo, cache=cache).cache
    finally:
        rejoinder.cache_mode = None
    with pytest.raises(rejoinder.CacheMiss):
        whole(client=echo, cache=cache, **about("something else"))


def test_a_wrong_mode_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean 'refresh'"), rejoinder.in_mode("refrsh"):
        pass
    with pytest.raises(WrongType, match=r"rejoinder\.cache_mode=7"):
        rejoinder.cache_mode = 7  # type: ignore[assignment]
    assert rejoinder.cache_mode is None


def test_cache_true_is_a_week_unless_the_cache_says_otherwise(clock: Clock) -> None:
    week = 7 * 86_400
    for ttl, lives in ((None, week), ("1D", 86_400)):
        cache, echo = made(clock, ttl=ttl), Echo(["first", "second"])
        with cache:
            whole(client=echo, cache=True)
            clock.now += lives - 1
            assert text_of(whole(client=echo, cache=True)) == "first"
            clock.now += 2
            assert text_of(whole(client=echo, cache=True)) == "second"
