"""The ledger: what calls cost, what was saved, what was paid twice; by model, tag and run."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import rejoinder
from rejoinder import Amount, Cache, Echo, Ledger
from rejoinder.caching import ledger as ledgers
from rejoinder.caching import ledger_file
from rejoinder.caching.ledger import Line, Where
from rejoinder.caching.shadow import says_the_same
from rejoinder.core import settings
from rejoinder.router import models
from rejoinder.router.cli import main
from tests.fixtures.calls import MESSAGES, aread, ataken, both, both_streams, crowd, until, whole
from tests.fixtures.upstream import Upstream
from tests.fixtures.worker import Worker

ROOT = Path(__file__).parents[1]
GPT = "openai/gpt-4o"
USAGE = {
    "prompt_tokens": 3_000,
    "completion_tokens": 500,
    "total_tokens": 3_500,
    "prompt_tokens_details": {"cached_tokens": 1_024},
    "completion_tokens_details": {"reasoning_tokens": 200},
}


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    registered = models._registered
    yield
    models._registered = registered
    settings.ledger = settings.cache = None


@pytest.fixture
def cache() -> Cache:
    return Cache.memory(ledger=True)


def vendor(usage: Any = USAGE, text: str = "Well.", **options: Any) -> Echo:
    """A model that counts as it is told."""
    message = {"role": "assistant", "content": text}
    answer = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": usage,
    }
    return Echo(answer, **options)


def kept(cache: Cache) -> Ledger:
    assert cache.ledger is not None
    return cache.ledger


# ── what is counted ───────────────────────────────────────────────────────────────────────────────────────────────────


@both
def test_a_hit_saves_what_its_miss_has_paid(ask: Callable[..., Any], cache: Cache) -> None:
    answers = [ask(model=GPT, client=vendor(), cache=cache) for _ in range(3)]
    total = kept(cache).summary()
    # gpt-4o: $2.50, of the vendor's cache $1.25, written $10.00 for a million.
    price = (1_976 * 2.5 + 1_024 * 1.25 + 500 * 10) / 1e6
    assert total.paid == Amount(1, 3_000, 500, 1_024, 0, 200, pytest.approx(price), 0)
    assert total.paid.dollars == rejoinder.completion_cost(answers[0], GPT)
    assert total.saved == Amount(2, 6_000, 1_000, 2_048, 0, 400, 2 * total.paid.dollars, 0)
    assert total.kinds["exact"] == total.saved
    assert total.duplicate == Amount()
    assert total.saved_share == pytest.approx(2 / 3)


@both_streams
def test_a_stream_counts_once_when_it_is_complete(read: Callable[..., Any], cache: Cache) -> None:
    for _ in range(2):
        read(model=GPT, client=vendor(), cache=cache)
    total = kept(cache).summary()
    assert total.paid == Amount(1, 3_000, 500, 1_024, 0, 200, pytest.approx(0.01122), 0)
    assert total.saved == total.paid


@both_streams
def test_a_stream_past_every_cache_is_asked_for_its_usage(read: Callable[..., Any]) -> None:
    settings.ledger = Ledger()
    chunks = read(model=GPT, client=vendor())
    assert settings.ledger.summary().paid.dollars == pytest.approx(0.01122)
    assert all(chunk.choices for chunk in chunks), "which the caller has not asked for"


def test_a_stream_that_is_left_was_paid_for_all_the_same(cache: Cache) -> None:
    stream = whole(model=GPT, client=vendor(text="a long answer " * 20), cache=cache, stream=True)
    next(stream)
    assert kept(cache).summary().calls == 0
    del stream
    assert kept(cache).summary().paid == Amount(calls=1, unpriced=1)


async def test_an_async_stream_that_is_left_was_paid_for_all_the_same(cache: Cache) -> None:
    stream = await ataken(model=GPT, client=vendor(text="a long answer " * 20), cache=cache, stream=True)
    await anext(stream)
    await stream.aclose()
    assert kept(cache).summary().paid == Amount(calls=1, unpriced=1)


async def test_who_reads_a_stream_along_has_saved_it(cache: Cache) -> None:
    slow = vendor(text="a long answer " * 5, chunk_latency=0.002)
    await asyncio.gather(*(aread(model=GPT, client=slow, cache=cache) for _ in range(4)))
    total = kept(cache).summary()
    assert slow.calls == total.paid.calls == 1
    assert total.kinds["shared"] == Amount(3, 9_000, 1_500, 3_072, 0, 600, pytest.approx(3 * 0.01122), 0)


def test_of_a_crowd_of_threads_one_has_paid(cache: Cache) -> None:
    slow = vendor(latency=0.03)
    crowd([lambda: whole(model=GPT, client=slow, cache=cache)] * 20)
    total = kept(cache).summary()
    assert (total.paid.calls, total.saved.calls) == (slow.calls, 20 - slow.calls) == (1, 19)
    assert total.saved.dollars == pytest.approx(19 * 0.01122)
    assert total.duplicate.calls == 0


def test_many_threads_lose_no_count(cache: Cache) -> None:
    whole(model=GPT, client=vendor(), cache=cache)

    def ask() -> None:
        for _ in range(200):
            whole(model=GPT, client=vendor(), cache=cache)

    crowd([ask] * 8)
    assert kept(cache).summary().saved.calls == 1_600


@both
def test_an_unknown_price_is_told_and_is_not_zero(ask: Callable[..., Any], cache: Cache) -> None:
    for model in ("vllm/ours", GPT):
        ask(model=model, client=vendor(), cache=cache, api_base="http://127.0.0.1:1/v1")
    total = kept(cache).summary()
    assert (total.paid.unpriced, total.unpriced) == (1, 1)
    assert total.paid.tokens == 7_000
    assert total.paid.dollars == pytest.approx(0.01122), "of the one that is known"
    assert "1 of unknown price" in str(total)
    rejoinder.register_model({"vllm/ours": {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6}})
    ask(model="vllm/ours", client=vendor(), cache=cache, api_base="http://127.0.0.1:1/v1")
    assert kept(cache).summary().saved.dollars == pytest.approx(0.0035), "what is registered counts at once"


def test_an_answer_without_a_usage_has_no_price(cache: Cache) -> None:
    whole(model=GPT, client=vendor(usage=None), cache=cache)
    assert kept(cache).summary().paid == Amount(calls=1, unpriced=1)


@pytest.mark.parametrize("usage", [{"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, "cost": "much"}])
def test_a_usage_of_any_form_fails_no_call(usage: Any, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rejoinder.router.books.completion_cost", lambda *_: 1 / 0)
    assert whole(model=GPT, client=vendor(usage), cache=cache).choices[0].message.content == "Well."
    assert kept(cache).summary().paid == Amount(calls=1, unpriced=1)


def test_a_deployment_costs_what_the_model_behind_it_costs(cache: Cache) -> None:
    whole(model="azure/our-deployment", client=vendor(), cache=cache, api_base="https://x.openai.azure.com")
    total = kept(cache).summary()
    assert total.paid.unpriced == 0
    assert total.paid.dollars == pytest.approx(0.01122)
    assert list(kept(cache).by("model")) == ["azure/our-deployment"]


def test_a_failed_call_is_not_counted(cache: Cache) -> None:
    with pytest.raises(rejoinder.BadRequestError):
        whole(client=Echo({"status": 400}), cache=cache)
    assert kept(cache).summary().calls == 0


def test_a_mock_response_is_not_counted() -> None:
    settings.ledger = Ledger()
    whole(model=GPT, mock_response="Well.")
    assert settings.ledger.summary().calls == 0


def test_nothing_is_counted_unless_somebody_asks_for_it() -> None:
    cache = Cache.memory()
    assert cache.ledger is None
    whole(client=vendor(), cache=cache)
    with rejoinder.run("later") as run:
        assert run.summary().calls == 0


def test_each_ledger_counts_a_call_once() -> None:
    settings.ledger = Ledger()
    cache = Cache.memory(ledger=settings.ledger)
    with rejoinder.run("r") as run:
        whole(client=vendor(), cache=cache)
    assert settings.ledger.summary().calls == run.summary().calls == 1


@both
def test_a_stale_answer_is_saved_and_its_renewal_paid(ask: Callable[..., Any]) -> None:
    now = [1_000_000.0]
    cache = Cache.memory(ttl=10, stale_while_revalidate=100, ledger=True, clock=lambda: now[0])
    ask(model=GPT, client=vendor(), cache=cache)
    now[0] += 20

    async def take() -> Any:
        answer = await ataken(model=GPT, client=vendor(), cache=cache)
        while kept(cache).summary().paid.calls < 2:
            await asyncio.sleep(0.002)
        return answer

    answer = asyncio.run(take()) if ask.__name__ == "awhole" else whole(model=GPT, client=vendor(), cache=cache)
    assert answer.cache_info.kind == "stale"
    until(lambda: kept(cache).summary().paid.calls == 2)
    total = kept(cache).summary()
    assert total.kinds["stale"].calls == 1
    assert total.duplicate.calls == 0, "the old one could serve no longer"


def test_items_of_embeddings_are_paid_or_saved_one_by_one(cache: Cache) -> None:
    rejoinder.register_model({"echo/e": {"input_cost_per_token": 1.0}})
    rejoinder.embedding("echo/e", ["one", "two words"], cache=cache)
    asyncio.run(rejoinder.aembedding("echo/e", ["two words", "three"], cache=cache))
    rejoinder.embedding("echo/e", ["one", "three"], cache=cache)
    total = kept(cache).summary()
    assert (total.paid.calls, total.saved.calls) == (2, 1)
    assert total.paid.tokens == total.paid.dollars == 4
    assert total.saved.tokens == total.saved.dollars == 4, "two of the second call, two of the third"


# ── duplicates ────────────────────────────────────────────────────────────────────────────────────────────────────────


@both
def test_what_is_paid_again_is_a_duplicate(ask: Callable[..., Any], cache: Cache) -> None:
    given = {"model": GPT, "client": vendor()}
    ask(**given, cache=cache)
    with cache:
        again = [ask(**given, cache=how) for how in ({"mode": "refresh"}, {"no-cache": True})]
    assert [answer.cache_info.repeats for answer in again] == ["duplicate"] * 2
    total = kept(cache).summary()
    assert (total.paid.calls, total.duplicate.calls) == (3, 2)
    assert total.duplicate.dollars == pytest.approx(2 * 0.01122)


@both_streams
def test_a_stream_paid_again_is_a_duplicate(read: Callable[..., Any], cache: Cache) -> None:
    with cache:
        read(model=GPT, client=vendor())
        read(model=GPT, client=vendor(), cache={"no-cache": True})
    assert kept(cache).summary().duplicate == Amount(1, 3_000, 500, 1_024, 0, 200, pytest.approx(0.01122), 0)


def test_samples_and_epochs_are_no_duplicates(cache: Cache) -> None:
    with cache, rejoinder.samples():
        for _ in range(3):
            whole(model=GPT, client=vendor())
    with cache, rejoinder.epoch(2):
        whole(model=GPT, client=vendor())
    total = kept(cache).summary()
    assert (total.paid.calls, total.duplicate.calls) == (4, 0)


def test_an_answer_past_its_time_is_no_duplicate() -> None:
    now = [1_000_000.0]
    cache = Cache.memory(ttl=10, ledger=True, clock=lambda: now[0])
    whole(client=vendor(), cache=cache)
    now[0] += 20
    assert whole(client=vendor(), cache=cache).cache_info.repeats == ""
    assert kept(cache).summary().duplicate.calls == 0


def test_of_two_processes_that_race_one_has_paid_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "ledger.db"
    monkeypatch.setenv("REJOINDER_LEDGER", str(file))
    # Without single-flight, so that they do not wait for each other's lease.
    options = {"type": "disk", "disk_cache_dir": str(tmp_path / "cache"), "single_flight": False}
    with Upstream() as upstream:
        call = {"model": GPT, "messages": MESSAGES, "api_base": upstream.url, "api_key": "sk-mock"}
        upstream.script({"latency": 0.25}, {"latency": 0.3})
        with Worker(options, call) as first, Worker(options, call) as second:
            for worker in (first, second):
                worker.wait_until_ready()
            for number, worker in enumerate((first, second), 1):
                worker.go()
                until(lambda number=number: upstream.calls == number)
            assert [worker.result()["cached"] for worker in (first, second)] == [[False], [False]]
            for worker in (first, second):
                worker.process.wait(10)
    total = Ledger.read(file).summary()
    assert (total.paid.calls, total.duplicate.calls) == (2, 1)
    assert total.duplicate.dollars == pytest.approx(total.paid.dollars / 2)
    assert total.paid.dollars > 0


# ── shadow mode ───────────────────────────────────────────────────────────────────────────────────────────────────────


@both
def test_shadow_mode_serves_nothing_and_counts_what_it_could_have(ask: Callable[..., Any]) -> None:
    cache, echo = Cache.memory(mode="shadow", ledger=True), Echo(["one", "two"])
    answers = [ask(model="echo/m", client=echo, cache=cache) for _ in range(3)]
    assert [answer.choices[0].message.content for answer in answers] == ["one", "two", "two"]
    assert [(answer.cache, answer.cache_info.repeats) for answer in answers] == [
        (False, ""),
        (False, "different"),
        (False, "same"),
    ]
    stats = cache.stats()
    assert [stats[f"shadow_{name}"] for name in ("hits", "misses", "same")] == [2, 1, 1]
    assert (stats["hits"], stats["shared"], stats["stored"]) == (0, 0, 3)
    total = kept(cache).summary()
    assert (total.paid.calls, total.saved.calls, total.would_save.calls, total.duplicate.calls) == (3, 0, 2, 2)
    assert total.agreement == 0.5


@both
def test_shadow_mode_tells_what_would_have_been_saved(ask: Callable[..., Any]) -> None:
    cache = Cache.memory(mode="shadow", ledger=True)
    for _ in range(2):
        ask(model=GPT, client=vendor(), cache=cache)
    shadow = kept(cache).summary()
    real = Cache.memory(ledger=True)
    for _ in range(2):
        ask(model=GPT, client=vendor(), cache=real)
    assert shadow.would_save == kept(real).summary().saved


@both_streams
def test_shadow_mode_compares_streams(read: Callable[..., Any]) -> None:
    cache = Cache.memory(mode="shadow", ledger=True)
    for size in (8, 3):
        read(model=GPT, client=vendor(text="The same in other pieces", chunk_size=size), cache=cache)
    assert (cache.stats()["shadow_hits"], cache.stats()["shadow_same"]) == (1, 1)
    assert kept(cache).summary().would_save.dollars == pytest.approx(0.01122)


@pytest.mark.parametrize("where", ["call", "process"])
def test_shadow_mode_by_call_and_by_process(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if where == "process":
        monkeypatch.setenv("REJOINDER_CACHE_MODE", "shadow")
    with Cache.memory() as cache:
        given: dict[str, Any] = {"cache": {"mode": "shadow"}} if where == "call" else {}
        assert [whole(client=vendor(), **given).cache for _ in range(2)] == [False, False]
    assert cache.stats()["shadow_hits"] == 1


def test_shadow_mode_lets_equal_calls_go_their_own_ways() -> None:
    cache, slow = Cache.memory(mode="shadow"), vendor(latency=0.03)
    answers = crowd([lambda: whole(client=slow, cache=cache)] * 5)
    assert slow.calls == 5
    assert not any(answer.cache for answer in answers)
    stats = cache.stats()
    assert (stats["shadow_hits"], stats["shadow_misses"]) == (4, 1), "which single-flight would have shared"


def test_a_mode_around_counts_for_embeddings_too() -> None:
    with Cache.memory() as cache, rejoinder.in_mode("shadow"):
        assert not any(rejoinder.embedding("echo/e", ["one"]).cache for _ in range(2))
    assert cache.stats()["shadow_hits"] == 1


def test_an_error_that_was_kept_could_not_have_served() -> None:
    with Cache.memory(error_ttl=60) as cache:
        with pytest.raises(rejoinder.NotFoundError):
            whole(client=Echo({"status": 404}))
        assert whole(client=vendor(), cache={"mode": "shadow"}).cache_info.repeats == ""
    assert cache.stats()["shadow_misses"] == 1


def test_what_shadow_mode_stored_serves_when_it_is_over() -> None:
    shadow = Cache.memory(mode="shadow")
    whole(client=vendor(), cache=shadow)
    assert whole(client=vendor(), cache=Cache(store=shadow.store)).cache


@both
def test_a_store_that_is_down_fails_no_call_in_shadow_mode(ask: Callable[..., Any]) -> None:
    cache = Cache(type="redis", host="127.0.0.1", port=1, mode="shadow", ledger=True)
    for _ in range(2):
        assert ask(client=vendor(), cache=cache).choices[0].message.content == "Well."
    assert cache.stats()["shadow_hits"] == 0
    assert kept(cache).summary().paid.calls == 2


def test_shadow_mode_looks_at_embeddings_item_by_item() -> None:
    cache = Cache.memory(mode="shadow", ledger=True)
    rejoinder.embedding("echo/e", ["one", "two"], cache=cache)
    answer = rejoinder.embedding("echo/e", ["two", "six"], cache=cache)
    assert not answer.cache
    stats = cache.stats()
    assert [stats[f"shadow_{name}"] for name in ("hits", "misses", "same")] == [1, 3, 1]
    total = kept(cache).summary()
    assert (total.paid.tokens, total.would_save.tokens) == (4, 1)


@pytest.mark.parametrize(
    ("stored", "fresh", "same"),
    [
        ({"id": "1", "created": 1, "usage": {"a": 1}}, {"id": "2", "created": 2}, True),
        ({"content": "Yes"}, {"content": "Yes."}, False),
        ({"content": "Yes"}, {"content": "Yes", "refusal": None}, True),
        ({"arguments": '{"a":1,"b":2}'}, {"arguments": '{"b": 2, "a": 1}'}, True),
        ({"arguments": '{"id":1}'}, {"arguments": '{"id":2}'}, False),
        ({"tool_calls": [{"id": "x", "function": {"name": "f"}}]}, {"tool_calls": [{"function": {"name": "f"}}]}, True),
        ({"output": [{"type": "reasoning", "text": "Hm"}, 1]}, {"output": [1]}, True),
    ],
)
def test_answers_agree_that_say_the_same(stored: Any, fresh: Any, same: bool) -> None:
    assert says_the_same(json.dumps(stored).encode(), json.dumps(fresh).encode()) is same


# ── under which words ─────────────────────────────────────────────────────────────────────────────────────────────────


@both
def test_calls_are_counted_by_tag(ask: Callable[..., Any], cache: Cache) -> None:
    ask(client=vendor(), cache=cache, metadata={"tags": ["b", "a", "b"]})
    with cache:
        ask(client=vendor(), cache={"tags": ["a"]}, metadata={"other": 1})
    ask(client=vendor(), cache=cache, metadata={"tags": 3})
    by_tag = kept(cache).by("tag")
    assert {tag: summary.calls for tag, summary in by_tag.items()} == {"": 1, "a": 2, "b": 1}
    assert kept(cache).summary().calls == 3, "however many tags they have"


def test_a_run_counts_what_is_asked_inside() -> None:
    cache = Cache.memory()
    whole(client=vendor(), cache=cache)
    with rejoinder.run("evening", tags=["nightly"]) as run:
        whole(client=vendor(), cache=cache)
        whole(client=vendor(), caching=False)
    whole(client=vendor(), cache=cache)
    assert (run.summary().paid.calls, run.summary().saved.calls) == (1, 1)
    assert list(run.by("run")) == ["evening"]
    assert list(run.by("tag")) == ["nightly"]
    assert str(run).startswith("evening: 2 calls: paid 1")


def test_runs_inside_runs_count_in_both() -> None:
    settings.ledger = Ledger()
    with rejoinder.run("outer", tags=["a"]) as outer, rejoinder.run("inner", tags=["b"]) as inner:
        whole(client=vendor())
    assert outer.summary().calls == inner.summary().calls == 1
    assert [(line.run, line.tags) for line in settings.ledger.lines()] == [("inner", ("a", "b"))]


async def test_tasks_belong_to_the_run_that_started_them() -> None:
    async def one(name: str, calls: int) -> int:
        with rejoinder.run(name) as run:
            await asyncio.gather(*(ataken(client=vendor()) for _ in range(calls)))
        return run.summary().calls

    assert await asyncio.gather(one("a", 1), one("b", 2), one("c", 3)) == [1, 2, 3]


def test_threads_started_inside_a_run_belong_to_it() -> None:
    with ThreadPoolExecutor(1) as before:
        before.submit(int).result()
        with rejoinder.run("r") as run:
            thread = threading.Thread(target=whole, kwargs={"client": vendor()})
            thread.start()
            thread.join()
            before.submit(whole, client=vendor()).result()
        assert run.summary().calls == 1, "that of the thread that was there before is somebody else's"


async def test_what_begins_after_a_run_is_not_its_own() -> None:
    gate = asyncio.Event()

    async def late() -> None:
        await gate.wait()
        await ataken(client=vendor())

    with rejoinder.run("r") as run:
        task = asyncio.create_task(late())
        await asyncio.sleep(0)
    with rejoinder.run("another"):
        gate.set()
        await task
    assert run.summary().calls == 0


# ── the books ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_setting_takes_a_ledger_true_or_a_file(tmp_path: Path) -> None:
    rejoinder.ledger = True  # type: ignore[assignment]
    assert isinstance(rejoinder.ledger, Ledger)
    rejoinder.ledger = str(tmp_path / "x.db")  # type: ignore[assignment]
    assert rejoinder.ledger.file == tmp_path / "x.db"
    with pytest.raises(rejoinder.WrongType, match="ledger=3"):
        rejoinder.ledger = 3  # type: ignore[assignment]
    with pytest.raises(rejoinder.WrongType, match="Ledger"):
        Cache.memory(ledger=3)
    del rejoinder.ledger
    assert rejoinder.ledger is None


def test_an_unknown_word_to_sum_by_is_a_clear_error() -> None:
    with pytest.raises(rejoinder.ConfigurationError, match="Did you mean 'model'"):
        Ledger().by("modle")


def test_what_nobody_asks_for_is_summed_up_little_by_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "MOST_PENDING", 10)
    ledger, worked_out = Ledger(), []
    for number in range(100):
        before = len(worked_out)
        ledger.add(Where("m"), "paid", lambda number=number: worked_out.append(number) or Amount(calls=1))
        assert len(worked_out) - before <= ledgers.AT_A_TIME
        assert number + 1 - len(worked_out) <= 10
    assert ledger.summary().paid.calls == len(worked_out) == 100


def test_lines_without_end_lose_their_runs_and_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "MOST_LINES", 10)
    ledger = Ledger()
    for number in range(1_000):
        ledger.add(Where("m", (), f"run {number}"), "paid", Amount(calls=1))
    assert len(ledger.lines()) == 11
    assert ledger.summary().paid.calls == 1_000


# ── the file ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def filled(file: Path, calls: int = 1, **where: Any) -> None:
    ledger = Ledger(file)
    ledger.add(Where(**{"model": "m", **where}), "paid", Amount(calls, 2, 3, dollars=0.25))
    assert ledger.flush()


def test_what_is_flushed_adds_to_what_the_file_has(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "a %41?#ledger.db"
    for _ in range(2):
        filled(file, tags=("x", "y"), run="r")
    filled(file, model="other")
    found = Ledger.read(file).lines()
    assert {line._replace(day=0): amount for line, amount in found.items()} == {
        Line(0, "m", ("x", "y"), "r", "paid"): Amount(2, 4, 6, dollars=0.5),
        Line(0, "other", (), "", "paid"): Amount(1, 2, 3, dollars=0.25),
    }
    assert list(file.parent.iterdir()) == [file]


def test_a_file_is_written_in_the_background(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    cache = Cache.memory(ledger=Ledger(file, flush_every=0.01))
    for number in (1, 2):
        whole(model=GPT, client=vendor(), cache=cache)
        until(lambda number=number: file.exists() and Ledger.read(file).summary().calls == number)


def test_a_file_can_be_read_while_it_is_begun(tmp_path: Path) -> None:
    for number in range(20):
        file = tmp_path / f"{number}.db"
        ledger = Ledger(file)
        ledger.add(Where("m"), "paid", Amount(calls=1))
        writing = threading.Thread(target=ledger.flush)
        writing.start()
        while writing.is_alive():
            if file.exists():
                assert Ledger.read(file).summary().calls in (0, 1)


def test_threads_and_a_flush_count_each_call_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db", flush_every=0.001)

    def count() -> None:
        for _ in range(500):
            ledger.add(Where("m"), "paid", Amount(calls=1))

    crowd([count] * 4)
    assert ledger.flush()
    assert Ledger.read(tmp_path / "ledger.db").summary().paid.calls == ledger.summary().paid.calls == 2_000


def script(code: str, **environment: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "src"), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )


ASK = "import rejoinder\nfor _ in range(20): rejoinder.completion('echo/m', [{'role': 'user', 'content': 'Hi'}])"


def test_a_variable_switches_it_on_and_the_end_of_a_process_writes_it(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    processes = [script(ASK, REJOINDER_LEDGER=str(file)) for _ in range(2)]
    for process in processes:
        assert process.communicate()[1] == ""
        assert process.returncode == 0
    assert Ledger.read(file).summary().paid.calls == 40


def test_a_process_that_is_killed_loses_no_more_than_what_was_not_flushed(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    process = script(
        "import rejoinder, itertools\n"
        f"rejoinder.ledger = rejoinder.Ledger({str(file)!r}, flush_every=0.001)\n"
        "for _ in itertools.count(): rejoinder.completion('echo/m', [{'role': 'user', 'content': 'Hi'}])"
    )
    until(lambda: file.exists() and file.stat().st_size and Ledger.read(file).summary().calls > 20, 20)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = Ledger.read(file).summary().calls
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    filled(file)
    assert Ledger.read(file).summary().calls == before + 1 > 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_worker_of_multiprocessing_writes_before_it_ends(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    process = script(
        "import multiprocessing, rejoinder\n"
        "def ask(): rejoinder.completion('echo/m', [{'role': 'user', 'content': 'Hi'}])\n"
        "ask()\n"
        "workers = [multiprocessing.get_context('fork').Process(target=ask) for _ in range(2)]\n"
        "[worker.start() for worker in workers], [worker.join() for worker in workers]",
        REJOINDER_LEDGER=str(file),
    )
    assert process.communicate()[1] == ""
    assert Ledger.read(file).summary().paid.calls == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_writes_its_own_counts_only(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db", flush_every=3600)
    ledger.add(Where("parent"), "paid", Amount(calls=1))
    child = os.fork()
    if child == 0:
        ledger.add(Where("child"), "paid", Amount(calls=1))
        os._exit(0 if ledger.flush() else 1)
    assert os.waitpid(child, 0)[1] == 0
    ledger.flush()
    by_model = Ledger.read(tmp_path / "ledger.db").by("model")
    assert {model: summary.calls for model, summary in by_model.items()} == {"child": 1, "parent": 1}


def test_a_file_that_cannot_be_written_fails_no_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = Cache.memory(ledger=Ledger(tmp_path / "file" / "ledger.db", flush_every=0.001))
    with caplog.at_level(logging.WARNING, "rejoinder"):
        whole(client=vendor(), cache=cache)
        assert not kept(cache).flush()
        assert not kept(cache).flush()
    assert caplog.text.count("cannot be written") == 1
    (tmp_path / "file").unlink()
    assert kept(cache).flush(), "it is tried again, and nothing is lost"
    assert Ledger.read(tmp_path / "file" / "ledger.db").summary().calls == 1


@pytest.mark.parametrize("content", [b"", b"no database, but long enough to be taken for one" * 100])
def test_a_file_that_is_no_ledger_is_left_alone(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "precious"
    file.write_bytes(content)
    ledger = Ledger(file)
    ledger.add(Where("m"), "paid", Amount(calls=1))
    assert ledger.flush() is (not content)
    assert content == b"" or file.read_bytes() == content


def test_a_database_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    ledger = Ledger(file)
    ledger.add(Where("m"), "paid", Amount(calls=1))
    assert not ledger.flush()
    with pytest.raises(rejoinder.ConfigurationError, match="no ledger"):
        Ledger.read(file)


def test_a_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_file, "MOST_ROWS", 20)
    file = tmp_path / "ledger.db"
    for day in range(10):
        ledger = Ledger(file, clock=lambda day=day: day * 86_400.0)
        for number in range(5):
            ledger.add(Where("m", (), f"run {number}"), "paid", Amount(calls=1))
        ledger.flush()
    found = Ledger.read(file)
    assert len(found.lines()) <= 25
    assert found.summary().calls == 50
    assert {name: day.calls for name, day in found.by("day").items()} == {f"1970-01-{d:02}": 5 for d in range(1, 11)}
    assert "run 4" in found.by("run"), "those of the last days are kept apart"


# ── on the command line ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A ledger of two models."""
    file = tmp_path / "ledger.db"
    ledger = Ledger(file)
    ledger.add(Where("openai/gpt-4o", ("nightly",), "evening"), "paid", Amount(2, 1_200, 300, dollars=0.006))
    ledger.add(Where("openai/gpt-4o", ("nightly",), "evening"), "exact", Amount(6, 3_600, 900, dollars=0.018))
    ledger.add(Where("vllm/ours"), "paid", Amount(1, 10, 5, unpriced=1))
    ledger.flush()
    return file


def test_the_command_prints_a_table(book: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "ledger", "--file", str(book)]) == 0
    assert (
        capsys.readouterr().out
        == """\
Ledger

Model          Calls  Hits  Tokens paid         Paid  Tokens saved    Saved  % saved  Duplicate
-------------  -----  ----  -----------  -----------  ------------  -------  -------  ---------
openai/gpt-4o      8     6        1,500      $0.0060         4,500  $0.0180    75.0%      $0.00
vllm/ours          1     0           15            ?             0    $0.00     0.0%      $0.00
Total              9     6        1,515  $0.0060 + ?         4,500  $0.0180    75.0%      $0.00

?: no price is known of 1 call. rejoinder.register_model can say it.
"""
    )


@pytest.mark.parametrize(
    ("by", "names"),
    [("model", ["openai/gpt-4o", "vllm/ours"]), ("tag", ["", "nightly"]), ("run", ["", "evening"]), ("day", None)],
)
def test_the_command_sums_by(
    by: str, names: list[str] | None, book: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REJOINDER_LEDGER", str(book))
    assert main(["cache", "ledger", "--by", by, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert names is None or list(told["groups"]) == names
    assert len(told["groups"]) == (2 if names else 1)
    assert told["total"]["saved"]["dollars"] == pytest.approx(0.018)
    assert told["total"]["unpriced"] == 1


def test_the_command_shows_what_shadow_mode_saw(book: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = Ledger(book)
    for kind, calls in (("paid", 4), ("duplicate", 4), ("would_save", 4), ("agreed", 3)):
        ledger.add(Where("openai/gpt-4o"), kind, Amount(calls, 100, 10, dollars=0.5))
    ledger.flush()
    main(["cache", "ledger", "--file", str(book)])
    shown = capsys.readouterr().out
    assert "Would hit" in shown
    assert "75.0%" in shown.splitlines()[4].rpartition(" ")[2]


def test_the_command_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("REJOINDER_LEDGER", raising=False)
    assert main(["cache", "ledger"]) == 1
    assert "--file" in capsys.readouterr().err
    assert main(["cache", "ledger", "--file", str(tmp_path / "none.db")]) == 1
    assert "There is no ledger" in capsys.readouterr().err
    (tmp_path / "bad.db").write_bytes(b"nothing of the kind" * 100)
    assert main(["cache", "ledger", "--file", str(tmp_path / "bad.db")]) == 1
    assert "Traceback" not in capsys.readouterr().err
