"""What an exact hit costs: a prompt of 300 characters, an answer of 1,000."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from tests.fixtures.servers import redis_server
from tests.fixtures.upstream import Upstream

from .. import floors
from ..measure import Effort, Messages, apaired, new_prompts, one_core, paired
from ..report import Budget, Row
from ..subject import Subject, calls_expected, use_cache

PROMPTS = 50


Ask = Callable[[Messages], object]
Aask = Callable[[Messages], Awaitable[object]]


def memory(effort: Effort) -> Iterator[Row]:
    with Upstream() as upstream, asyncio.Runner() as running:
        use_cache(type="local")
        prompts = new_prompts(PROMPTS)
        floor = _floor(floors.MemoryPoint(), upstream, prompts)
        yield from _rows("memory", prompts, floor, _twin(floor), upstream, running, effort, Budget(at_most=2))


def disk(effort: Effort) -> Iterator[Row]:
    with Upstream() as upstream, asyncio.Runner() as running, tempfile.TemporaryDirectory() as folder:
        cache = use_cache(type="disk", disk_cache_dir=str(Path(folder, "cache")))
        prompts, point = new_prompts(PROMPTS), floors.DiskPoint(Path(folder))
        floor = _floor(point, upstream, prompts)
        yield from _rows("disk", prompts, floor, _twin(floor), upstream, running, effort, Budget(at_most=2))
        point.connection.close()
        cache.store.close()


def redis(effort: Effort) -> Iterator[Row]:
    """The floor is the GET and the decoding, without the key."""
    with one_core(), redis_server() as server, Upstream() as upstream, asyncio.Runner() as running:
        from openai.types.chat import ChatCompletion
        from redis import Redis
        from redis.asyncio import Redis as AsyncRedis

        client, aclient = Redis(port=server.port), AsyncRedis(port=server.port)
        validate = ChatCompletion.model_validate_json
        prompts = new_prompts(PROMPTS)
        client.set("floor", floors.whole_answer(upstream.url, prompts[0]))
        get: Callable[[str], Any] = client.get
        aget: Callable[[str], Awaitable[Any]] = aclient.get

        def floor(messages: Messages) -> object:
            return validate(get("floor"))

        async def afloor(messages: Messages) -> object:
            return validate(await aget("floor"))

        use_cache(type="redis", host="127.0.0.1", port=server.port)
        yield from _rows("Redis", prompts, floor, afloor, upstream, running, effort, Budget(at_most=1.3))
        running.run(aclient.aclose())
        client.close()


def _floor(point: floors.Point, upstream: Upstream, prompts: list[Messages]) -> Ask:
    for messages in prompts:
        point.set(floors.key(messages), floors.whole_answer(upstream.url, messages))
    return floors.hit(point)


def _twin(ask: Ask) -> Aask:
    async def aask(messages: Messages) -> object:
        return ask(messages)

    return aask


def _rows(
    name: str,
    prompts: list[Messages],
    floor: Ask,
    afloor: Aask,
    upstream: Upstream,
    running: asyncio.Runner,
    effort: Effort,
    budget: Budget,
) -> Iterator[Row]:
    subject = Subject(upstream.url)
    inputs = prompts * effort.count(20, 1)
    for messages in prompts:
        subject.ask(messages)
    with calls_expected(upstream, 0):
        times = paired(effort.rounds, subject.ask, floor, lambda: inputs)
        atimes = running.run(apaired(effort.rounds, subject.aask, afloor, lambda: inputs))
    yield Row(f"exact hit, {name}, sync", times.subject * 1e6, times.floor * 1e6, "µs", budget)
    yield Row(f"exact hit, {name}, async", atimes.subject * 1e6, atimes.floor * 1e6, "µs", budget)
