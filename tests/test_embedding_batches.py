"""Embeddings of more than a vendor takes at once, and of items past their time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import rejoinder
from rejoinder.providers import table
from rejoinder.providers.base import Most
from rejoinder.router import portions, renewal
from tests.fixtures.endpoint_server import Asked, EndpointServer, Reply

Embed = Callable[..., Any]


def vector(item: str) -> list[float]:
    return [float(len(item)), float(sum(map(ord, item)) % 1000)]


def vectors(asked: Asked) -> Reply:
    """10 tokens for each item, the vectors in no order."""
    given = asked.json["input"]
    items = [given] if isinstance(given, str) else given
    data = [{"object": "embedding", "index": index, "embedding": vector(item)} for index, item in enumerate(items)]
    usage = {"prompt_tokens": 10 * len(items), "total_tokens": 10 * len(items)}
    return Reply(json={"object": "list", "model": "m", "data": data[::-1], "usage": usage})


@pytest.fixture
def server() -> Iterator[EndpointServer]:
    with EndpointServer(vectors) as server:
        yield server


@pytest.fixture
def cache() -> Iterator[rejoinder.Cache]:
    with rejoinder.Cache.memory() as cache:
        yield cache


@pytest.fixture(params=["sync", "async"])
def embed(request: pytest.FixtureRequest, server: EndpointServer) -> Embed:
    """Calls of DashScope, which takes ten items at once."""

    def call(input: Any, **params: Any) -> Any:
        given = {
            **{"model": "dashscope/m", "input": input, "api_base": server.url, "api_key": "sk-mock"},
            **{"num_retries": 0, **params},
        }
        if request.param == "sync":
            return rejoinder.embedding(**given)

        async def go() -> Any:
            try:
                return await rejoinder.aembedding(**given)
            finally:
                await asyncio.gather(*renewal._under_way)  # what is renewed in the background

        return asyncio.run(go())

    return call


def read(answer: Any) -> list[Any]:
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return [item.embedding for item in answer.data]


def asked_items(server: EndpointServer) -> list[list[str]]:
    return sorted((request.json["input"] for request in server.requests), key=lambda items: int(items[0][1:]))


TEXTS = [f"t{number}" for number in range(25)]


# Cut to what the vendor takes


@pytest.mark.parametrize("is_cached", [True, False])
def test_large_input_is_cut_and_comes_in_order(is_cached: bool, embed: Embed, server: EndpointServer) -> None:
    with rejoinder.Cache.memory():
        answer = embed(TEXTS, caching=is_cached)
        assert asked_items(server) == [TEXTS[:10], TEXTS[10:20], TEXTS[20:]]
        assert read(answer) == [vector(text) for text in TEXTS]
        assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (250, 250)
        assert embed(TEXTS[::-1], caching=is_cached).cache is is_cached


def test_duplicates_are_asked_once_in_all_parts_together(embed: Embed, server: EndpointServer, cache: Any) -> None:
    answer = embed([*TEXTS, *TEXTS])
    assert asked_items(server) == [TEXTS[:10], TEXTS[10:20], TEXTS[20:]]
    assert read(answer) == [vector(text) for text in TEXTS] * 2
    assert (answer.cache_info.items, answer.cache_info.paid_tokens) == (25, 250)


def test_what_was_answered_before_a_failure_is_stored(embed: Embed, server: EndpointServer, cache: Any) -> None:
    def answer(asked: Asked) -> Reply:
        if "t20" in asked.json["input"]:
            return Reply(json={"error": {"message": "too long"}}, status=400)
        return vectors(asked)

    server.answer = answer
    with pytest.raises(rejoinder.BadRequestError, match="too long"):
        embed(TEXTS)
    assert cache.stats()["stored"] == 20
    server.answer = vectors
    again = embed(TEXTS)
    assert server.requests[-1].json["input"] == TEXTS[20:]
    assert (again.cache_info.kind, again.cache_info.hits, again.cache_info.paid_tokens) == ("partial", 20, 50)


def test_nothing_is_asked_after_a_failure_that_need_not_be(embed: Embed, server: EndpointServer, cache: Any) -> None:
    server.answer = lambda _: Reply(json={"error": {"message": "no"}}, status=400)
    with pytest.raises(rejoinder.BadRequestError):
        embed([f"t{number}" for number in range(200)])
    assert server.calls <= portions.ASKED_AT_ONCE


async def test_tasks_have_a_few_requests_under_way_and_no_more(server: EndpointServer, cache: Any) -> None:
    opened, lock = threading.Event(), threading.Lock()
    under_way, most = 0, 0

    def answer(asked: Asked) -> Reply:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        opened.wait(5)
        with lock:
            under_way -= 1
        return vectors(asked)

    server.answer = answer
    texts = [f"t{number}" for number in range(100)]
    given: Any = {"model": "dashscope/m", "api_base": server.url, "api_key": "sk-mock"}
    task = asyncio.create_task(rejoinder.aembedding(input=texts, **given))
    await asyncio.to_thread(wait_until, lambda: server.calls == portions.ASKED_AT_ONCE)
    opened.set()
    assert read(await task) == [vector(text) for text in texts]
    assert (most, server.calls) == (portions.ASKED_AT_ONCE, 10)


async def test_follower_has_the_items_of_the_first_part_before_the_last_is_there(
    server: EndpointServer, cache: Any
) -> None:
    opened = threading.Event()

    def answer(asked: Asked) -> Reply:
        if "t20" in asked.json["input"]:
            opened.wait(5)
        return vectors(asked)

    server.answer = answer
    given: Any = {"model": "dashscope/m", "api_base": server.url, "api_key": "sk-mock"}
    task = asyncio.create_task(rejoinder.aembedding(input=TEXTS, **given))
    await asyncio.to_thread(wait_until, lambda: server.calls == 3)
    assert read(await rejoinder.aembedding(input=TEXTS[:3], **given)) == [vector(text) for text in TEXTS[:3]]
    assert not task.done()
    opened.set()
    assert len((await task).data) == 25
    assert server.calls == 3


async def test_cancelled_call_leaves_no_item_taken(server: EndpointServer, cache: Any) -> None:
    opened = threading.Event()

    def answer(asked: Asked) -> Reply:
        opened.wait(5)
        return vectors(asked)

    server.answer = answer
    given: Any = {"model": "dashscope/m", "api_base": server.url, "api_key": "sk-mock"}
    task = asyncio.create_task(rejoinder.aembedding(input=TEXTS, **given))
    await asyncio.to_thread(wait_until, lambda: server.calls == 3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    opened.set()
    assert len(cache.flights) == 0
    assert len((await rejoinder.aembedding(input=TEXTS, **given)).data) == 25


def test_cohere_and_gemini_are_given_no_more_than_they_take(server: EndpointServer, cache: Any) -> None:
    def answer(asked: Asked) -> Reply:
        if "requests" in asked.json:
            return Reply(json={"embeddings": [{"values": [1.0]} for _ in asked.json["requests"]]})
        return Reply(json={"embeddings": {"float": [[1.0] for _ in asked.json["texts"]]}})

    server.answer = answer
    texts = [f"t{number}" for number in range(150)]
    for model in ("cohere/m", "gemini/m"):
        rejoinder.embedding(model, texts, api_base=server.url, api_key="sk-mock")
    assert [len(request.json.get("texts") or request.json["requests"]) for request in server.requests] == [
        *(96, 54),
        *(100, 50),
    ]


def test_tokens_of_a_request_are_bounded_too(server: EndpointServer, cache: Any) -> None:
    texts = [f"{number} " + "word " * 1999 for number in range(12)]  # 10 kB: at most 5,000 tokens each
    rejoinder.embedding("mistral/mistral-embed", texts, api_base=server.url, api_key="sk-mock")
    assert [len(request.json["input"]) for request in server.requests] == [3, 3, 3, 3]


def test_servers_without_a_known_bound_get_all_at_once(server: EndpointServer, cache: Any) -> None:
    texts = [f"t{number}" for number in range(3000)]
    rejoinder.embedding("vllm/m", texts, api_base=server.url)
    rejoinder.embedding("openai/m", texts, api_base=server.url, api_key="sk-mock")
    assert [len(request.json["input"]) for request in server.requests] == [3000, 2048, 952]


@pytest.mark.parametrize(
    ("items", "most", "expected"),
    [
        (["a"], Most(1, 1), [["a"]]),
        (["a", "b"], Most(2), [["a", "b"]]),
        (["a", "b", "c"], Most(2), [["a", "b"], ["c"]]),
        (["x" * 100, "y", "z"], Most(9, 10), [["x" * 100], ["y", "z"]]),
        (["y", "x" * 100, "z"], Most(9, 10), [["y"], ["x" * 100], ["z"]]),
        (["ж" * 9, "ж" * 9], Most(9, 19), [["ж" * 9], ["ж" * 9]]),
        ([[1] * 6, [1] * 4, [1]], Most(9, 10), [[[1] * 6, [1] * 4], [[1]]]),
    ],
)
def test_parts_are_as_large_as_they_may_be(items: Any, most: Most, expected: Any) -> None:
    assert portions.portions(items, most) == expected


def test_rows_that_cut_have_endpoints_to_cut_for() -> None:
    for row in table.ROWS:
        if row.most_to_embed != Most():
            assert row.endpoints.get("embedding") != ""
            assert table.codec(row.codec, "embedding") is not None


# Past their time


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def aging(**options: Any) -> tuple[rejoinder.Cache, Clock]:
    from rejoinder.caching.stores.memory import MemoryStore

    clock = Clock()
    return rejoinder.Cache(store=MemoryStore(clock=clock), clock=clock, ttl=60, **options), clock


def wait_until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 2
    while not what() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert what()


def test_item_past_its_time_serves_while_a_new_one_is_fetched(embed: Embed, server: EndpointServer) -> None:
    cache, clock = aging(stale_while_revalidate=30)
    embed(["t1", "t2"], cache=cache)
    clock.now += 50
    embed("t3", cache=cache)
    clock.now += 20
    answer = embed(["t1", "t2", "t3"], cache=cache)
    assert (answer.cache, answer.cache_info.kind, answer.cache_info.late) == (True, "stale", 2)
    assert answer.cache_info.age == 70
    assert read(answer) == [vector(text) for text in ("t1", "t2", "t3")]
    wait_until(lambda: cache.counts["stored"] == 5)
    assert server.requests[-1].json["input"] == ["t1", "t2"]
    assert embed(["t1", "t2"], cache=cache).cache_info.kind == "exact"
    assert server.calls == 3


def test_what_is_too_old_is_asked_for_beside_what_serves(embed: Embed, server: EndpointServer) -> None:
    cache, clock = aging(stale_while_revalidate=30)
    embed("t1", cache=cache)
    clock.now += 40
    embed("t2", cache=cache)
    clock.now += 70
    answer = embed(["t1", "t2"], cache=cache)
    info = answer.cache_info
    assert (answer.cache, info.kind, info.hits, info.late, info.paid_tokens) == (False, "partial", 1, 1, 10)
    wait_until(lambda: cache.counts["stored"] == 4)
    assert sorted(request.json["input"] for request in server.requests[2:]) == [["t1"], ["t2"]]


def test_items_past_their_time_serve_where_the_vendor_fails(embed: Embed, server: EndpointServer) -> None:
    cache, clock = aging(stale_if_error="1h")
    embed(["t1", "t2"], cache=cache)
    clock.now += 3000
    server.answer = lambda _: Reply(json={"error": {"message": "down"}}, status=503)
    answer = embed(["t1", "t2"], cache=cache)
    assert (answer.cache, answer.cache_info.kind, answer.cache_info.late) == (True, "stale", 2)
    assert read(answer) == [vector("t1"), vector("t2")]
    with pytest.raises(rejoinder.InternalServerError, match="down"):
        embed(["t1", "t3"], cache=cache)
    clock.now += 700
    with pytest.raises(rejoinder.InternalServerError, match="down"):
        embed("t1", cache=cache)


def test_parts_that_came_and_items_past_their_time_make_one_answer(embed: Embed, server: EndpointServer) -> None:
    cache, clock = aging(stale_if_error="1h")
    embed(TEXTS[10:], cache=cache)
    clock.now += 3000

    def answer(asked: Asked) -> Reply:
        if "t0" in asked.json["input"]:
            return vectors(asked)
        return Reply(json={"error": {"message": "down"}}, status=503)

    server.answer = answer
    found = embed(TEXTS, cache=cache)
    info = found.cache_info
    assert (info.kind, info.hits, info.late, info.paid_tokens) == ("partial", 15, 15, 100)
    assert read(found) == [vector(text) for text in TEXTS]


def test_callers_own_mistake_is_not_covered_by_old_items(embed: Embed, server: EndpointServer) -> None:
    cache, clock = aging(stale_if_error="1h")
    embed("t1", cache=cache)
    clock.now += 3000
    with pytest.raises(rejoinder.InvalidRequest, match="must be"):
        embed("t1", cache=cache, num_retries=-1)


def test_old_item_is_not_renewed_twice_at_once(server: EndpointServer) -> None:
    cache, clock = aging(stale_while_revalidate=30)
    given: Any = {"api_base": server.url, "api_key": "sk-mock", "cache": cache}
    rejoinder.embedding("dashscope/m", "t1", **given)
    clock.now += 70
    opened = threading.Event()

    def answer(asked: Asked) -> Reply:
        opened.wait(5)
        return vectors(asked)

    server.answer = answer
    for _ in range(5):
        assert rejoinder.embedding("dashscope/m", "t1", **given).cache_info.kind == "stale"
        wait_until(lambda: server.calls == 2)
    opened.set()
    wait_until(lambda: cache.counts["stored"] == 2)
    assert server.calls == 2


def test_failing_renewal_is_counted_and_raises_nowhere(embed: Embed, server: EndpointServer) -> None:
    cache, clock = aging(stale_while_revalidate=30)
    embed("t1", cache=cache)
    clock.now += 70
    server.answer = lambda _: Reply(json={"error": {"message": "down"}}, status=503)
    assert embed("t1", cache=cache).cache_info.kind == "stale"
    wait_until(lambda: cache.counts["stale_errors"] == 1)


# What the policy says of each item


def test_item_that_serves_lives_longer_with_a_sliding_time(embed: Embed, server: EndpointServer) -> None:
    cache, clock = aging(sliding=True)
    embed("t1", cache=cache)
    for _ in range(4):
        clock.now += 40
        assert embed(["t1"], cache=cache).cache_info.kind == "exact"
    clock.now += 61
    assert not embed("t1", cache=cache).cache


def test_item_is_renewed_before_its_time_is_over(embed: Embed, server: EndpointServer) -> None:
    cache, clock = aging(early_refresh=20)
    embed(["t1", "t2"], cache=cache)
    clock.now += 45
    assert embed(["t1", "t2"], cache=cache).cache_info.kind == "exact"
    wait_until(lambda: cache.counts["stored"] == 4)
    clock.now += 30
    assert embed(["t1", "t2"], cache=cache).cache_info.kind == "exact"
    assert server.calls == 2


def test_callers_function_says_which_items_are_stored(embed: Embed, server: EndpointServer) -> None:
    with rejoinder.Cache.memory(store_if=lambda answer: answer.data[0].embedding != vector("t2")) as cache:
        embed(["t1", "t2"])
        assert cache.stats()["refused"] == 1
        assert embed(["t1", "t2"]).cache_info.paid_tokens == 10


def test_mode_around_the_call_holds(embed: Embed, server: EndpointServer, cache: Any) -> None:
    embed("t1")
    with rejoinder.in_mode("replay_only"):
        assert embed("t1").cache
        with pytest.raises(rejoinder.CacheMiss, match="1 of 2"):
            embed(["t1", "t2"])


def test_items_of_an_older_cache_are_moved(embed: Embed, server: EndpointServer) -> None:
    with rejoinder.Cache.memory() as old:
        embed(["t1", "t2"])
    with rejoinder.Cache.memory(old=old) as cache:
        assert embed(["t1", "t2"]).cache
        assert cache.counts["migrated"] == 2
    assert server.calls == 1
