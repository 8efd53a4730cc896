"""Embeddings, cached item by item: what the vendor is asked, what comes back, and in which order."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

import rejoinder
from tests.fixtures.endpoint_server import Asked, EndpointServer, Reply

Embed = Callable[..., Any]


def vector(item: Any) -> list[float]:
    """A vector that tells what it is of."""
    return [float(len(str(item))), float(sum(map(ord, str(item))) % 1000)]


def vectors(asked: Asked) -> Reply:
    """What a vendor answers: 10 tokens for each item, the vectors in no order."""
    given = asked.json["input"]
    items = [given] if isinstance(given, str) or all(isinstance(item, int) for item in given) else given
    data: list[dict[str, Any]] = [
        {"object": "embedding", "index": index, "embedding": vector(item)} for index, item in enumerate(items)
    ]
    if asked.json.get("encoding_format") == "base64":
        for item in data:
            item["embedding"] = base64.b64encode(struct.pack("<2f", *item["embedding"])).decode()
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
    def call(input: Any, **params: Any) -> Any:
        given = {"model": "openai/m", "input": input, "api_base": server.url, "api_key": "sk-mock", **params}
        if request.param == "sync":
            return rejoinder.embedding(**given)
        return asyncio.run(rejoinder.aembedding(**given))

    return call


def read(answer: Any) -> list[Any]:
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return [item.embedding for item in answer.data]


def test_answer_is_openais_type_and_reads_as_a_mapping(embed: Embed) -> None:
    answer = embed("a")
    assert isinstance(answer, openai.types.CreateEmbeddingResponse)
    assert answer["data"][0]["embedding"] == vector("a")
    assert (answer.cache, answer["cache"], answer.cache_info.hit) == (False, False, False)


def test_mixed_batch_asks_only_for_what_is_missing(embed: Embed, server: EndpointServer, cache: Any) -> None:
    embed(["a", "bb"])
    answer = embed(["ccc", "a", "dddd", "bb"])
    assert [request.json["input"] for request in server.requests] == [["a", "bb"], ["ccc", "dddd"]]
    assert read(answer) == [vector(item) for item in ("ccc", "a", "dddd", "bb")]
    assert answer.cache is False
    info = answer.cache_info
    assert (info.kind, info.items, info.hits, info.paid_tokens) == ("partial", 4, 2, 20)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens == 40


def test_duplicates_are_asked_once_and_given_as_often_as_asked(
    embed: Embed, server: EndpointServer, cache: Any
) -> None:
    answer = embed(["a", "bb", "a", "a"])
    assert server.requests[0].json["input"] == ["a", "bb"]
    assert read(answer) == [vector(item) for item in ("a", "bb", "a", "a")]
    answer.data[0].embedding[0] = -1.0
    assert answer.data[2].embedding == vector("a")


def test_later_batch_in_another_order_comes_from_the_cache(embed: Embed, server: EndpointServer, cache: Any) -> None:
    embed(["a", "bb", "ccc"])
    answer = embed(["ccc", "a"])
    assert (server.calls, answer.cache, answer.cache_info.kind) == (1, True, "exact")
    assert read(answer) == [vector("ccc"), vector("a")]


def test_lone_text_and_a_list_of_it_are_one_item(embed: Embed, server: EndpointServer, cache: Any) -> None:
    fresh = embed("a")
    again = embed(["a"])
    assert server.requests[0].json["input"] == "a"
    assert (server.calls, again.cache) == (1, True)
    assert fresh == again


def test_repeated_batch_is_equal_to_the_first(embed: Embed, server: EndpointServer, cache: Any) -> None:
    first = embed(["a", "some longer text", "a", "bb"])
    second = embed(["a", "some longer text", "a", "bb"])
    assert second.cache
    assert first == second
    assert first.usage.total_tokens == 30


def test_shares_of_the_usage_add_up(embed: Embed, cache: Any) -> None:
    embed(["a", "bb", "a text of many more words"])
    alone = [embed(item).usage.total_tokens for item in ("a", "bb", "a text of many more words")]
    assert sum(alone) == 30
    assert alone[0] <= alone[1] <= alone[2]


@pytest.mark.parametrize("tokens", [[1, 2, 3], [[1, 2, 3], [4]]])
def test_tokens_are_items(embed: Embed, server: EndpointServer, cache: Any, tokens: Any) -> None:
    answer = embed(tokens)
    assert server.requests[0].json["input"] == tokens
    assert embed([[1, 2, 3]]).cache
    assert embed([1, 2, 3]).cache
    assert read(answer)[0] == vector([1, 2, 3])
    assert not embed("[1, 2, 3]").cache


def test_parameters_are_in_the_key(embed: Embed, server: EndpointServer, cache: Any) -> None:
    embed("a")
    for more in ({"dimensions": 2}, {"encoding_format": "base64"}, {"user": "me"}, {"extra_body": {"kind": "query"}}):
        assert not embed("a", **more).cache
        assert embed("a", **more).cache
    assert not embed("a", model="openai/other").cache
    assert server.calls == 6


def test_base64_stays_text(embed: Embed, cache: Any) -> None:
    for answer in (embed(["a", "bb"], encoding_format="base64"), embed("bb", encoding_format="base64")):
        packed = base64.b64decode(answer.data[-1].embedding)
        assert list(struct.unpack("<2f", packed)) == vector("bb")


def test_answer_may_be_changed_without_touching_the_cache(embed: Embed, cache: Any) -> None:
    embed("a").data[0].embedding.clear()
    embed("a").data[0].embedding.clear()
    assert read(embed("a")) == [vector("a")]


def test_call_without_cache_asks_for_all(embed: Embed, server: EndpointServer) -> None:
    answer = embed(["a", "a"])
    assert server.requests[0].json["input"] == ["a", "a"]
    assert read(answer) == [vector("a")] * 2
    with rejoinder.Cache.memory() as cache:
        embed("a", caching=False)
        embed("a", cache={"no-store": True})
        assert cache.stats()["stored"] == 0
    assert server.calls == 3


def test_cache_may_leave_embeddings_out(embed: Embed, server: EndpointServer) -> None:
    with rejoinder.Cache.memory(supported_call_types=["completion"]):
        assert not embed("a").cache
        assert not embed("a").cache
    assert server.calls == 2


def test_replay_only_says_how_many_are_missing(embed: Embed, server: EndpointServer, cache: Any) -> None:
    embed("a")
    with pytest.raises(rejoinder.CacheMiss, match="1 of 2 items"):
        embed(["a", "bb"], cache={"mode": "replay_only"})
    assert server.calls == 1


def test_own_key_function_is_asked_for_each_item(embed: Embed, server: EndpointServer, cache: Any) -> None:
    seen = []

    def key(*args: Any, **kwargs: Any) -> str:
        seen.append(kwargs["input"])
        return str(kwargs["input"]).lower()

    cache.get_cache_key = key
    embed(["A", "bb"])
    assert embed(["a", "BB"]).cache
    assert seen == ["A", "bb", "a", "BB"]
    assert server.calls == 1


def test_layers_and_disk_hold_items(embed: Embed, server: EndpointServer, tmp_path: Path) -> None:
    with rejoinder.Cache.disk(cache_path_root=tmp_path):
        embed(["a", "bb"])
        assert embed(["bb", "a"]).cache
    with rejoinder.Cache.disk(cache_path_root=tmp_path):
        assert embed("bb").cache
    assert server.calls == 1


@pytest.mark.parametrize("given", ["", [], None, 7, b"bytes"])
def test_input_that_is_none_is_refused_before_anything_is_sent(
    embed: Embed, server: EndpointServer, given: Any
) -> None:
    with pytest.raises(rejoinder.InvalidRequest, match="input"):
        embed(given)
    assert server.calls == 0


def test_unknown_parameter_is_refused_or_dropped(embed: Embed, server: EndpointServer) -> None:
    with pytest.raises(rejoinder.InvalidRequest, match=r"dimension.*Did you mean 'dimensions'"):
        embed("a", dimension=2)
    embed("a", dimension=2, drop_params=True)
    assert server.requests[0].json == {"model": "m", "input": "a"}


def test_provider_without_embeddings_says_so(embed: Embed, server: EndpointServer) -> None:
    for model in ("anthropic/claude-sonnet-4-5", "groq/any", "deepseek/any"):
        with pytest.raises(rejoinder.InvalidRequest, match="has no endpoint 'embedding'"):
            embed("a", model=model)
    assert server.calls == 0


# Trouble


def test_too_few_vectors_are_an_error_and_are_not_stored(embed: Embed, server: EndpointServer, cache: Any) -> None:
    server.answer = lambda asked: Reply(
        json={"data": [{"index": 0, "embedding": [1.0]}], "usage": {"prompt_tokens": 1, "total_tokens": 1}}
    )
    with pytest.raises(rejoinder.InternalServerError, match="2 vectors were asked for, and 1 came"):
        embed(["a", "bb"], num_retries=0)
    server.answer = vectors
    assert not embed(["a", "bb"]).cache


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"data": null}', b'{"error": {"message": "no", "code": 500}}'])
def test_answer_that_is_none_is_a_library_error(embed: Embed, server: EndpointServer, body: bytes) -> None:
    server.answer = lambda asked: Reply(body=body)
    with pytest.raises(rejoinder.APIError):
        embed(["a", "bb"], num_retries=0)


def test_passing_errors_are_tried_again(embed: Embed, server: EndpointServer) -> None:
    def flaky(asked: Asked) -> Reply:
        if server.calls == 1:
            return Reply(json={"error": {"message": "busy"}}, status=429, headers={"retry-after-ms": "1"})
        return vectors(asked)

    server.answer = flaky
    assert read(embed("a")) == [vector("a")]
    assert server.calls == 2


def test_fallback_answers_when_the_first_model_fails(embed: Embed, server: EndpointServer, cache: Any) -> None:
    server.answer = lambda asked: (
        vectors(asked) if asked.json["model"] == "m2" else Reply(json={"error": {"message": "down"}}, status=500)
    )
    answer = embed(["a", "bb"], num_retries=0, fallbacks=["openai/m2"])
    assert read(answer) == [vector("a"), vector("bb")]
    assert embed("a", model="openai/m2").cache


def test_vectors_without_index_object_or_usage_are_read(embed: Embed, server: EndpointServer, cache: Any) -> None:
    server.answer = lambda asked: Reply(json={"data": [{"embedding": vector(item)} for item in asked.json["input"]]})
    answer = embed(["a", "bb"])
    assert read(answer) == [vector("a"), vector("bb")]
    assert answer.usage.total_tokens == 0


# Single-flight


def gate(server: EndpointServer, count: int) -> threading.Event:
    """The server answers nobody until `count` callers were given the time to ask."""
    opened = threading.Event()

    def answer(asked: Asked) -> Reply:
        opened.wait(5)
        return vectors(asked)

    server.answer = answer
    return opened


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(4000):
        if condition():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it did not come about")


def test_identical_batches_of_threads_are_asked_once(server: EndpointServer, cache: Any) -> None:
    opened = gate(server, 8)
    answers: list[Any] = []
    given: Any = {"model": "openai/m", "input": ["a", "bb"], "api_base": server.url, "api_key": "sk-mock"}
    threads = [
        threading.Thread(target=lambda: answers.append(rejoinder.embedding(**given, cache=cache))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: cache.stats()["misses"] == 16)
    opened.set()
    for thread in threads:
        thread.join(5)
    assert server.calls == 1
    assert [read(answer) for answer in answers] == [[vector("a"), vector("bb")]] * 8
    assert sorted(answer.cache for answer in answers) == [False] + [True] * 7
    assert {answer.cache_info.kind for answer in answers if answer.cache} <= {"shared", "exact"}


async def test_overlapping_batches_of_tasks_ask_for_each_item_once(server: EndpointServer, cache: Any) -> None:
    opened = gate(server, 2)
    given: Any = {"model": "openai/m", "api_base": server.url, "api_key": "sk-mock"}
    batches = [["a", "bb"], ["bb", "ccc"], ["ccc", "a"]]
    tasks = [asyncio.create_task(rejoinder.aembedding(input=batch, **given)) for batch in batches]
    await asyncio.to_thread(wait_until, lambda: server.calls == 2)
    opened.set()
    answers = await asyncio.gather(*tasks)
    assert [read(answer) for answer in answers] == [[vector(item) for item in batch] for batch in batches]
    asked = [item for request in server.requests for item in request.json["input"]]
    assert sorted(asked) == ["a", "bb", "ccc"]
    assert sum(answer.cache_info.paid_tokens for answer in answers) == 30


async def test_cancelled_leader_does_not_take_its_followers_along(server: EndpointServer, cache: Any) -> None:
    opened = gate(server, 2)
    given: Any = {"model": "openai/m", "api_base": server.url, "api_key": "sk-mock"}
    leader = asyncio.create_task(rejoinder.aembedding(input=["a", "bb"], **given))
    await asyncio.to_thread(wait_until, lambda: server.calls == 1)
    follower = asyncio.create_task(rejoinder.aembedding(input=["bb"], **given))
    await asyncio.to_thread(wait_until, lambda: cache.stats()["misses"] == 3)
    leader.cancel()
    opened.set()
    assert read(await follower) == [vector("bb")]
    assert leader.cancelled()


async def test_followers_share_the_leaders_error(server: EndpointServer, cache: Any) -> None:
    opened = threading.Event()

    def answer(asked: Asked) -> Reply:
        opened.wait(5)
        return Reply(json={"error": {"message": "no such model"}}, status=404)

    server.answer = answer
    given: Any = {"model": "openai/m", "input": ["a"], "api_base": server.url, "api_key": "sk-mock"}
    tasks = [asyncio.create_task(rejoinder.aembedding(**given)) for _ in range(5)]
    await asyncio.to_thread(wait_until, lambda: cache.stats()["misses"] == 5)
    opened.set()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in errors] == [rejoinder.NotFoundError] * 5
    assert server.calls == 1


def test_identical_batches_of_processes_are_asked_once(server: EndpointServer, tmp_path: Path) -> None:
    opened = gate(server, 3)
    script = (
        "import rejoinder, json, sys\n"
        "with rejoinder.Cache.disk(cache_path_root=sys.argv[2]):\n"
        "    print('ready', flush=True); sys.stdin.readline()\n"
        "    answer = rejoinder.embedding('openai/m', ['a', 'bb'], api_base=sys.argv[1], api_key='sk-mock')\n"
        "    print(json.dumps([item.embedding for item in answer.data]))\n"
    )
    command = [sys.executable, "-c", script, server.url, str(tmp_path)]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    wait_until(lambda: server.calls >= 1)
    threading.Event().wait(0.05)  # for the others to find the lease taken
    opened.set()
    told = [json.loads(process.communicate(timeout=30)[0]) for process in processes]
    assert told == [[vector("a"), vector("bb")]] * 3
    assert server.calls == 1


# What the cache must not give


def test_entry_that_holds_no_vector_is_a_miss(embed: Embed, server: EndpointServer, cache: Any) -> None:
    from rejoinder.caching.entry import Entry
    from rejoinder.core.flow import run

    key = embed("a").cache_info.key
    for body in (b'{"data": []}', b'{"choices": []}', b"[]", b"\xff"):
        run(cache.write(key, Entry(cache.clock(), None, body)))
        answer = embed(["a", "bb"])
        assert read(answer) == [vector("a"), vector("bb")]
        assert answer.cache is False
    assert embed("a").cache
    assert cache.stats()["corrupt"] == 4


async def test_list_that_is_changed_during_the_call_does_not_matter(server: EndpointServer, cache: Any) -> None:
    opened = gate(server, 1)
    items = ["a", "bb"]
    given: Any = {"model": "openai/m", "api_base": server.url, "api_key": "sk-mock"}
    task = asyncio.create_task(rejoinder.aembedding(input=items, **given))
    await asyncio.to_thread(wait_until, lambda: server.calls == 1)
    items[:] = ["something else"]
    opened.set()
    assert read(await task) == [vector("a"), vector("bb")]
    again = await rejoinder.aembedding(input=["a", "bb"], **given)
    assert again.cache
