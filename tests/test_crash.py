"""A leading process that dies, stops or dawdles: callers in other processes get their answer in the lease's time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rejoinder
from rejoinder import Cache
from tests.fixtures.calls import both, crowd, text_of, until, whole
from tests.fixtures.servers import RedisServer, redis_server
from tests.fixtures.upstream import Upstream
from tests.fixtures.worker import Worker

TEXT = "The answer."
LEASE = 0.6


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    rejoinder.warm_up("openai/gpt-4o")
    with Upstream(text=TEXT) as upstream:
        yield upstream


@pytest.fixture
def upstream(server: Upstream) -> Upstream:
    server.reset()
    return server


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(params=["disk", "redis"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    if request.param == "disk":
        return {"type": "disk", "disk_cache_dir": tmp_path, "budget": 5, "lease_ttl": LEASE}
    redis = request.getfixturevalue("redis")
    redis.command("FLUSHALL")
    return {"type": "redis", "redis_url": redis.url, "budget": 5, "lease_ttl": LEASE}


def place(upstream: Upstream) -> dict[str, Any]:
    return {"model": "openai/gpt-4o-mini", "api_base": upstream.url, "api_key": "sk-mock", "num_retries": 0}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@both
def test_a_killed_leader_is_replaced_within_the_lease(
    ask: Callable[..., Any], stream: bool, where: dict[str, Any], upstream: Upstream
) -> None:
    upstream.script({"delay": 0.5, "chunks": 11} if stream else {"hang": True})
    with Worker(where, place(upstream), stream=stream) as leader:
        leader.wait_until_ready().go()
        until(lambda: upstream.calls == 1)
        time.sleep(0.05)
        leader.kill()
        cache = Cache(**where)
        started = time.monotonic()
        [answer] = crowd([lambda: ask(**place(upstream), cache=cache)], 10)
        assert text_of(answer) == TEXT
        assert time.monotonic() - started < LEASE + 0.5
    assert upstream.calls == 2
    assert cache.stats()["stored"] == 1
    cache.close()


def test_a_slow_leader_keeps_its_lease(where: dict[str, Any], upstream: Upstream) -> None:
    upstream.script({"latency": LEASE * 2.5})
    with Worker(where, place(upstream)) as leader:
        leader.wait_until_ready().go()
        until(lambda: upstream.calls == 1)
        cache = Cache(**where)
        answer = whole(**place(upstream), cache=cache)
        assert answer.cache
        assert leader.result()["texts"] == [TEXT]
    assert upstream.calls == 1
    cache.close()


def test_a_leader_with_an_error_gives_way_at_once(where: dict[str, Any], upstream: Upstream) -> None:
    upstream.script({"status": 400, "latency": 0.3})
    with Worker(where, place(upstream)) as leader:
        leader.wait_until_ready().go()
        until(lambda: upstream.calls == 1)
        cache = Cache(**where)
        started = time.monotonic()
        assert text_of(whole(**place(upstream), cache=cache)) == TEXT
        assert time.monotonic() - started < 0.3 + LEASE / 2, "it did not wait for the lease to run out"
        assert len(leader.result()["errors"]) == 1
    cache.close()


def test_a_stopped_leader_is_replaced_and_does_no_harm_when_it_goes_on(
    where: dict[str, Any], upstream: Upstream
) -> None:
    upstream.script({"latency": 0.3})
    with Worker(where, place(upstream)) as leader:
        leader.wait_until_ready().go()
        until(lambda: upstream.calls == 1)
        os.kill(leader.process.pid, signal.SIGSTOP)
        try:
            cache = Cache(**where)
            started = time.monotonic()
            [first] = crowd([lambda: whole(**place(upstream), cache=cache)], 10)
            assert time.monotonic() - started < LEASE + 0.5
        finally:
            os.kill(leader.process.pid, signal.SIGCONT)
        assert leader.result()["texts"] == [TEXT]
    assert text_of(first) == TEXT
    assert whole(**place(upstream), cache=cache).cache
    cache.close()


@both
def test_a_follower_of_another_process_keeps_its_deadline(
    ask: Callable[..., Any], where: dict[str, Any], upstream: Upstream
) -> None:
    upstream.script({"latency": 1.5})
    with Worker(where, place(upstream)) as leader:
        leader.wait_until_ready().go()
        until(lambda: upstream.calls == 1)
        cache = Cache(**where)
        started = time.monotonic()
        with pytest.raises(rejoinder.APITimeoutError, match=r"deadline of 0\.2 s"):
            ask(**place(upstream), cache=cache, deadline=0.2)
        assert time.monotonic() - started < 0.6
    cache.close()


def test_a_stream_that_its_leader_does_not_read_on_blocks_other_processes_for_a_lease_at_most(
    where: dict[str, Any], upstream: Upstream
) -> None:
    mine = Cache(**where)
    unread = whole(stream=True, **place(upstream), cache=mine)
    next(unread)
    with Worker(where, place(upstream)) as other:
        other.wait_until_ready().go()
        time.sleep(0.05)
        started = time.monotonic()
        assert other.result()["texts"] == [TEXT]
        assert time.monotonic() - started < 2 * LEASE + 1
    assert text_of(list(unread))
    mine.close()
