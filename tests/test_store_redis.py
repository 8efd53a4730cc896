"""The Redis store, against a real server and against servers that fail in every way."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import socket
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from typing import Any

import pytest
import redis

from rejoinder.caching.stores import redis_commands as commands
from rejoinder.caching.stores.redis import RedisStore
from rejoinder.core.errors import ConfigurationError, MissingPackage
from tests.conformance.store import StoreConformance, closing
from tests.fixtures.servers import (
    RedisServer,
    dying_server,
    fickle_proxy,
    free_port,
    redis_server,
    refusing_server,
    silent_server,
    stalling_server,
)

OUTAGE = (redis.RedisError, OSError)  # TimeoutError is an OSError

# A reply that says 100 bytes follow, and then too few.
HALF_A_REPLY = b"$100\r\nhalf of it"


@pytest.fixture(scope="module")
def shared_server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def server(shared_server: RedisServer) -> RedisServer:
    shared_server.command("FLUSHALL")
    return shared_server


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisStore]:
    yield from closing(RedisStore(url=server.url))  # type: ignore[misc]


class TestRedisStore(StoreConformance):
    """Against a server, through clients of the store's own."""

    has_its_own_clock = True


class TestRedisStoreOfTheCaller(StoreConformance):
    """Against a server, through one sync client of the caller's."""

    has_its_own_clock = True

    @pytest.fixture
    def store(self, server: RedisServer) -> Iterator[RedisStore]:
        with redis.Redis(port=server.port) as client:
            yield from closing(RedisStore(client=client))  # type: ignore[misc]


def run_both(store: RedisStore, method: str, *args: Any) -> Iterator[Callable[[], Any]]:
    yield lambda: getattr(store, method)(*args)
    yield lambda: asyncio.run(getattr(store, "a" + method)(*args))


def seconds_to_fail(call: Callable[[], Any]) -> float:
    started = time.monotonic()
    with pytest.raises(OUTAGE):
        call()
    return time.monotonic() - started


# What is stored


@pytest.mark.parametrize(
    "value",
    [b"", b"\r\n", b"+OK\r\n", b"-ERR no\r\n", b"$-1\r\n", b"nil", b"\x00\xff" * 3, bytes(range(256)) * 4096],
    ids=["empty", "line", "ok", "error", "nil", "word", "binary", "1 MB"],
)
def test_values_come_back_exactly(store: RedisStore, value: bytes) -> None:
    store.set("key", value)
    assert store.get("key") == value
    assert asyncio.run(store.aget("key")) == value


def test_what_sync_stores_async_finds_and_removes(store: RedisStore) -> None:
    async def use() -> None:
        assert await store.aget("key") == b"value"
        assert await store.adelete("key") is True
        assert await store.adelete("key") is False
        await store.aset("other", b"v", ttl=100)

    store.set("key", b"value")
    asyncio.run(use())
    assert store.get("key") is None
    (record,) = store.scan()
    assert record.key == "other"
    assert record.expires_at == pytest.approx(time.time() + 100, abs=2)


def test_a_ttl_below_a_millisecond_still_expires(store: RedisStore) -> None:
    store.set("key", b"value", ttl=0.0000001)
    time.sleep(0.01)
    assert store.get("key") is None


def test_setting_again_without_a_ttl_lifts_the_old_one(store: RedisStore) -> None:
    store.set("key", b"old", ttl=5)
    store.set("key", b"new")
    assert [(record.size, record.expires_at) for record in store.scan()] == [(3, None)]


@pytest.fixture
def counting_server(server: RedisServer) -> Iterator[RedisServer]:
    """The server, while it counts how often a key is used instead of when: each use adds one."""
    server.command("CONFIG", "SET", "lfu-log-factor", "0")
    server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lfu")
    yield server
    server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")


def test_a_server_that_counts_uses_does_not_know_when(counting_server: RedisServer, store: RedisStore) -> None:
    store.set("key", b"value", ttl=10)
    (record,) = store.scan()
    assert (record.key, record.size, record.stored_at) == ("key", 5, 0.0)


def test_to_look_is_not_to_use(counting_server: RedisServer, store: RedisStore) -> None:
    store.set("key", b"value")
    uses = counting_server.command("OBJECT", "FREQ", "rejoinder:e:key")
    assert len(list(store.scan())) == 1
    assert counting_server.command("OBJECT", "FREQ", "rejoinder:e:key") == uses
    store.get("key")  # through the connection that has looked
    assert counting_server.command("OBJECT", "FREQ", "rejoinder:e:key") != uses


@pytest.mark.parametrize("method", ["clear", "aclear"])
def test_clear_takes_glob_characters_literally(store: RedisStore, method: str) -> None:
    keys = ["a*b:1", "axb:1", "[ab]:1", "a:1", "q?:1", "qq:1", "back\\slash:1", "backslash:1", "é^-:1"]
    for key in keys:
        store.set(key, b"v")
    for prefix in ["a*b", "[ab]", "q?", "back\\slash", "é^-"]:
        result = getattr(store, method)(prefix)
        assert (asyncio.run(result) if method == "aclear" else result) == 1, prefix
    assert {record.key for record in store.scan()} == {"axb:1", "a:1", "qq:1", "backslash:1"}


@pytest.mark.parametrize("method", ["clear", "aclear"])
def test_clear_removes_thousands_of_entries_and_nothing_else(
    store: RedisStore, server: RedisServer, method: str
) -> None:
    client = redis.Redis(port=server.port)
    with client.pipeline() as pipeline:
        for number in range(3000):
            pipeline.set(f"rejoinder:e:n:{number}", b"v")
            pipeline.set(f"foreign:{number}", b"v")
        pipeline.execute()
    assert sum(1 for _ in store.scan("n:")) == 3000
    result = getattr(store, method)()
    assert (asyncio.run(result) if method == "aclear" else result) == 3000
    assert client.dbsize() == 3000
    client.close()


def test_two_prefixes_do_not_see_each_other(server: RedisServer, store: RedisStore) -> None:
    other = RedisStore(url=server.url, prefix="rejoinder:other:")
    store.set("key", b"mine")
    other.set("key", b"other")
    assert (store.get("key"), other.get("key")) == (b"mine", b"other")
    assert other.clear() == 1
    assert store.get("key") == b"mine"
    other.close()


def test_scan_passes_over_keys_that_are_not_ours(store: RedisStore, server: RedisServer) -> None:
    server.command("RPUSH", "rejoinder:e:list", "x")
    store.set("key", b"value")
    assert [record.key for record in store.scan()] == ["key"]


# Leases


def test_a_lease_has_one_holder_until_it_is_given_back(store: RedisStore) -> None:
    token = store.lease("key", 10)
    assert token is not None
    assert store.lease("key", 10) is None
    assert asyncio.run(store.alease("key", 10)) is None
    assert store.renew("key", token, 20) is True
    assert asyncio.run(store.arenew("key", "not the token", 20)) is False
    assert store.release("key", "not the token") is False
    assert asyncio.run(store.arelease("key", token)) is True
    assert asyncio.run(store.alease("key", 10)) is not None


def test_a_lease_runs_out_and_renewing_prolongs_it(store: RedisStore, server: RedisServer) -> None:
    token = store.lease("key", 0.02)
    assert token is not None
    assert store.renew("key", token, 30)
    time.sleep(0.03)
    assert store.lease("key", 1) is None
    assert b":29" in server.command("PTTL", "rejoinder:l:key")
    assert store.renew("key", token, 0.001)
    time.sleep(0.01)
    assert store.renew("key", token, 10) is False
    assert store.lease("key", 1) is not None


def test_leases_are_no_entries(store: RedisStore) -> None:
    token = store.lease("key", 10)
    assert token is not None
    assert list(store.scan()) == []
    assert store.clear() == 0
    assert store.release("key", token)


def test_scripts_survive_a_server_that_has_forgotten_them(store: RedisStore, server: RedisServer) -> None:
    for _ in range(2):
        token = store.lease("key", 10)
        assert token is not None
        assert store.renew("key", token, 10)
        assert store.release("key", token)
        server.command("SCRIPT", "FLUSH")


# Tags


def rest_of(server: RedisServer, name: str) -> int:
    """The milliseconds that a key has left; -1 for ever, -2 if it is not there."""
    return int(server.command("PTTL", name)[1:])


def test_a_tag_is_one_set_that_no_scan_lists(store: RedisStore, server: RedisServer) -> None:
    for number in range(3):
        store.tag(f"n:{number}", ["red"])
        store.set(f"n:{number}", b"value")
    assert server.command("DBSIZE") == b":4\r\n"
    assert server.command("ZCARD", "rejoinder:t:n:red") == b":3\r\n"
    assert {record.key for record in store.scan()} == {"n:0", "n:1", "n:2"}
    assert sorted(store.tagged("n:", "red")) == ["n:0", "n:1", "n:2"]


def test_a_tag_lives_as_long_as_what_lives_longest(store: RedisStore, server: RedisServer) -> None:
    store.tag("n:a", ["red"], 100)
    assert 100_000 < rest_of(server, "rejoinder:t:n:red") < 200_000
    store.tag("n:b", ["red"], 1000)
    assert rest_of(server, "rejoinder:t:n:red") > 1_000_000
    store.tag("n:c", ["red"], 10)
    assert rest_of(server, "rejoinder:t:n:red") > 1_000_000
    store.tag("n:d", ["red"])
    assert rest_of(server, "rejoinder:t:n:red") == -1
    store.tag("n:e", ["red"], 10)
    assert rest_of(server, "rejoinder:t:n:red") == -1


def test_what_has_ended_leaves_its_tag_with_the_next_write(store: RedisStore, server: RedisServer) -> None:
    now = time.time() * 1000
    for number in range(100):
        server.command("ZADD", "rejoinder:t:n:red", str(int(now) - number), f"{number}")
    store.tag("n:a", ["red"], 100)
    assert list(store.tagged("n:", "red")) == ["n:a"]
    assert rest_of(server, "rejoinder:t:n:red") < 200_000


@pytest.mark.parametrize("method", ["clear_tag", "aclear_tag"])
def test_a_large_tag_is_cleared_in_steps_that_hold_up_nobody(
    store: RedisStore, server: RedisServer, method: str
) -> None:
    with redis.Redis(port=server.port) as client, client.pipeline(transaction=False) as pipeline:
        for number in range(5000):
            pipeline.set(f"rejoinder:e:n:{number}", b"v")
        pipeline.zadd("rejoinder:t:n:red", {str(number): 4e15 + number for number in range(5000)})
        pipeline.execute()
    store.set("n:other", b"v")
    server.command("CONFIG", "RESETSTAT")
    result = getattr(store, method)("n:", "red")
    assert (asyncio.run(result) if method == "aclear_tag" else result) == 5000
    assert server.command("DBSIZE") == b":1\r\n"
    said = server.command("INFO", "commandstats")
    for slow in (b"cmdstat_keys", b"cmdstat_smembers", b"cmdstat_zrange:", b"cmdstat_del:", b"cmdstat_flush"):
        assert slow not in said
    assert 10 <= int(said.partition(b"cmdstat_unlink:calls=")[2].partition(b",")[0]) <= 20


def test_what_is_tagged_anew_while_its_tag_is_cleared_keeps_it(store: RedisStore) -> None:
    store.tag("n:a", ["red"], 100)
    _, found = store._ask(commands.members, "rejoinder:t:n:red", 0)
    time.sleep(0.002)
    store.tag("n:a", ["red"], 100)
    store._ask(commands.untag, "rejoinder:t:n:red", found)
    assert list(store.tagged("n:", "red")) == ["n:a"]


def test_clearing_some_keys_of_a_namespace_leaves_its_tags(store: RedisStore) -> None:
    for key in ("n:red", "n:blue"):
        store.tag(key, ["red"])
        store.set(key, b"value")
    assert store.clear("n:blu") == 1
    assert store.clear("n:re") == 1
    store.set("n:red", b"value")
    assert store.clear_tag("n:", "red") == 1


def test_what_has_lost_its_tag_is_still_cleared_with_its_namespace(store: RedisStore, server: RedisServer) -> None:
    store.tag("n:a", ["red"])
    store.set("n:a", b"value")
    server.command("DEL", "rejoinder:t:n:red")  # as a server does that has no room
    assert store.clear_tag("n:", "red") == 0
    assert store.clear("n:") == 1


# Writes at once


def reads(server: RedisServer) -> int:
    """How often the server has read from a socket so far."""
    said = server.command("INFO", "stats")
    return int(said.partition(b"total_reads_processed:")[2].partition(b"\r")[0])


async def test_a_thousand_writes_at_once_take_few_round_trips(store: RedisStore, server: RedisServer) -> None:
    await store.aset("first", b"value")
    before = reads(server)
    await asyncio.gather(*(store.aset(str(number), b"%d" % number * 100, 100) for number in range(1000)))
    assert reads(server) - before < 200
    assert store.peek([str(number) for number in range(1000)]) == [b"%d" % number * 100 for number in range(1000)]
    await store.aclose()


async def test_a_single_write_waits_for_no_others(store: RedisStore) -> None:
    await store.aset("key", b"value")
    writes = store._lanes[asyncio.get_running_loop()].writes
    call = asyncio.ensure_future(store.aset("key", b"other"))
    await asyncio.sleep(0)
    assert writes._waiting == []
    await call
    assert not writes._under_way
    await store.aclose()


async def test_each_writer_gets_its_own_error(server: RedisServer) -> None:
    server.command("ACL", "SETUSER", "half", "on", ">s3cret", "~rejoinder:e:yes*", "+@all")
    store = RedisStore(url=f"redis://half:s3cret@127.0.0.1:{server.port}")
    keys = [f"{'yes' if number % 3 else 'no'}-{number}" for number in range(30)]
    outcomes = await asyncio.gather(*(store.aset(key, b"value") for key in keys), return_exceptions=True)
    for key, outcome in zip(keys, outcomes, strict=True):
        assert isinstance(outcome, redis.exceptions.NoPermissionError) == key.startswith("no"), key
    assert await store.aget("yes-1") == b"value"
    await store.aclose()


async def test_a_key_that_cannot_be_written_is_no_trouble_of_the_others(store: RedisStore) -> None:
    keys = ["a", "b", "\ud800", "c"]
    outcomes = await asyncio.gather(*(store.aset(key, b"value") for key in keys), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), type(None), UnicodeEncodeError, type(None)]
    await store.aclose()


def test_a_thousand_writes_to_a_silent_server_fail_together() -> None:
    async def use(port: int) -> float:
        store = RedisStore(host="127.0.0.1", port=port, budget=0.1)
        started = time.monotonic()
        outcomes = await asyncio.gather(*(store.aset(str(n), b"v") for n in range(1000)), return_exceptions=True)
        assert all(isinstance(outcome, TimeoutError) for outcome in outcomes)
        assert len({id(outcome) for outcome in outcomes}) == 1000
        await store.aclose()
        return time.monotonic() - started

    with silent_server() as port:
        assert asyncio.run(use(port)) < 0.6


async def test_a_cancelled_writer_takes_no_other_write_along(store: RedisStore) -> None:
    chance = random.Random(7)
    for turn in range(50):
        calls = [asyncio.ensure_future(store.aset(f"{turn}-{n}", b"%d" % n)) for n in range(10)]
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)
        cancelled = set(chance.sample(range(10), 4))
        for number in cancelled:
            calls[number].cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        for number in set(range(10)) - cancelled:
            assert await store.aget(f"{turn}-{number}") == b"%d" % number
    lane = store._lanes[asyncio.get_running_loop()]
    assert not lane.writes._under_way
    assert lane.places._value == store.max_connections
    await store.aclose()


def test_writes_that_a_loop_leaves_behind_make_no_noise(server: RedisServer, capfd: pytest.CaptureFixture[str]) -> None:
    async def use() -> None:
        store = RedisStore(url=server.url)
        calls = [asyncio.ensure_future(store.aset(str(n), b"v")) for n in range(100)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not all(call.done() for call in calls)

    asyncio.run(use())
    gc.collect()
    assert capfd.readouterr().err == ""
    assert connections_to(server.port) == 0


# Ways to say where


def test_ways_to_say_where_the_server_is(server: RedisServer) -> None:
    RedisStore(host="127.0.0.1", port=server.port, db=3).set("key", b"in three")
    for store in [
        RedisStore(url=f"redis://127.0.0.1:{server.port}/3"),
        RedisStore(url=f"redis://127.0.0.1:{server.port}?db=3"),
        RedisStore(url=f"redis://127.0.0.1:{server.port}", db=3),
        RedisStore(url=f"unix://{server.unix_socket}?db=3"),
        RedisStore(unix_socket_path=server.unix_socket, db=3),
    ]:
        assert store.get("key") == b"in three"
        assert asyncio.run(store.aget("key")) == b"in three"
        store.close()


def test_passwords_and_users_work_and_are_never_shown() -> None:
    with redis_server("--requirepass", "s3cret") as server:
        admin = RedisStore(port=server.port, host="127.0.0.1", password="s3cret")
        admin.set("key", b"value")
        admin._client.acl_setuser("app", enabled=True, passwords=["+p@ss:w#rd"], keys=["app:*"], commands=["+@all"])
        app = RedisStore(url=f"redis://app:p%40ss%3Aw%23rd@127.0.0.1:{server.port}/0", prefix="app:")
        for call in run_both(app, "set", "key", b"value"):
            call()
        assert "s3cret" not in repr(admin)
        assert "p@ss" not in repr(app)
        wrong = RedisStore(port=server.port, host="127.0.0.1", username="app", password="wr0ng")
        foreign = RedisStore(port=server.port, host="127.0.0.1", username="app", password="p@ss:w#rd")
        for store in wrong, foreign:
            for call in run_both(store, "get", "key"):
                with pytest.raises(redis.RedisError) as caught:
                    call()
                assert "wr0ng" not in str(caught.value)
                assert "p@ss" not in str(caught.value)
        for store in admin, app, wrong, foreign:
            store.close()


@pytest.mark.parametrize("url", ["redis://:hush#hush@host:1/0", "http://:hush@host", "redis://:hush@host:hush/0"])
def test_an_unreadable_url_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisStore(url=url)
    assert "hush" not in "".join(traceback.format_exception(caught.value))


def test_clients_that_decode_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="decode_responses"):
        RedisStore(client=redis.Redis(decode_responses=True))
    with pytest.raises(ConfigurationError, match="decode_responses"):
        RedisStore(decode_responses=True)


def test_a_client_of_the_caller_serves_both_ways_and_stays_open(server: RedisServer) -> None:
    client = redis.Redis(port=server.port)
    store = RedisStore(client=client)
    connection = client.client_id()

    async def use() -> None:
        await store.aset("n:1", b"value")
        assert await store.aget("n:1") == b"value"
        token = await store.alease("key", 10)
        assert token is not None
        assert await store.arelease("key", token)
        assert await store.aclear("n") == 1
        await store.aclose()

    asyncio.run(use())
    assert client.client_id() == connection
    client.close()


def test_an_async_client_of_the_caller_stays_open(server: RedisServer) -> None:
    async def use() -> None:
        aclient = redis.asyncio.Redis(port=server.port)
        store = RedisStore(port=server.port, aclient=aclient)
        connection = await aclient.client_id()
        await store.aset("key", b"value")
        await store.aclose()
        assert await aclient.client_id() == connection
        await aclient.aclose()

    asyncio.run(use())


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingPackage, match="The Redis store needs 'redis': pip install 'redis'"):
        RedisStore()


# Outages

SICK: dict[str, Callable[[], AbstractContextManager[int]]] = {
    "refuses": refusing_server,
    "never answers": silent_server,
    "stalls in mid-reply": lambda: stalling_server(HALF_A_REPLY),
    "dies in mid-reply": lambda: dying_server(HALF_A_REPLY),
    "talks nonsense": lambda: stalling_server(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
}


@pytest.mark.parametrize("method", ["get", "lease"])
@pytest.mark.parametrize("password", [None, "secret"])
@pytest.mark.parametrize("sick", SICK.values(), ids=SICK)
def test_every_outage_raises_within_the_budget(
    sick: Callable[[], AbstractContextManager[int]], password: str | None, method: str
) -> None:
    with sick() as port:
        store = RedisStore(host="127.0.0.1", port=port, password=password, budget=0.1)
        for call in run_both(store, method, "key", *([10] if method == "lease" else [])):
            assert seconds_to_fail(call) < 0.4
        store.close()


def test_a_thousand_calls_to_a_silent_server_fail_together() -> None:
    async def use(port: int) -> float:
        store = RedisStore(host="127.0.0.1", port=port, budget=0.1)
        started = time.monotonic()
        answers = await asyncio.gather(*(store.aget(str(n)) for n in range(1000)), return_exceptions=True)
        assert all(isinstance(answer, TimeoutError) for answer in answers)
        await store.aclose()
        return time.monotonic() - started

    with silent_server() as port:
        # In turns of 32 it would take more than three seconds.
        assert asyncio.run(use(port)) < 0.6


def test_a_frozen_server_costs_the_budget_and_is_used_again_once_thawed(server: RedisServer) -> None:
    store = RedisStore(url=server.url, budget=0.1)
    store.set("key", b"value")
    os.kill(server.pid, signal.SIGSTOP)
    try:
        for call in run_both(store, "get", "key"):
            assert 0.05 < seconds_to_fail(call) < 0.5
    finally:
        os.kill(server.pid, signal.SIGCONT)
    for call in run_both(store, "get", "key"):
        assert call() == b"value"
    store.close()


async def test_the_first_call_after_a_restart_works() -> None:
    with redis_server() as server:
        store = RedisStore(url=server.url)
        store.set("key", b"value")
        assert await store.aget("key") == b"value"
        server.kill()
        with pytest.raises(OUTAGE):
            store.get("key")
        with pytest.raises(OUTAGE):
            await store.aget("key")
        server.start()
        assert store.get("key") is None
        assert await store.aget("key") is None
        server.kill()
        server.start()  # nobody noticed
        assert store.get("key") is None
        assert await store.aget("key") is None
        await store.aclose()


async def test_connections_closed_by_an_idle_timeout_are_no_failure(store: RedisStore, server: RedisServer) -> None:
    store.set("key", b"value")
    assert await store.aget("key") == b"value"
    server.command("CLIENT", "KILL", "TYPE", "normal")
    assert store.get("key") == b"value"
    assert await store.aget("key") == b"value"
    await store.aclose()


async def test_a_connection_that_closes_on_being_used_is_replaced_once(server: RedisServer) -> None:
    # The race that redis-py's look at a pooled connection cannot see: open when looked at, closed when used.
    with fickle_proxy(server.port) as port:
        store = RedisStore(host="127.0.0.1", port=port)
        store.set("key", b"value")
        assert store.get("key") == b"value"
        await store.aset("key", b"other")
        assert await store.aget("key") == b"other"
        await store.aclose()


async def test_a_lease_whose_answer_was_lost_is_still_ours(server: RedisServer) -> None:
    with fickle_proxy(server.port) as port:
        store = RedisStore(host="127.0.0.1", port=port)
        assert store.get("key") is None
        assert store.lease("sync", 10) is not None
        assert await store.aget("key") is None
        assert await store.alease("async", 10) is not None
        await store.aclose()


@pytest.mark.parametrize("connection", ["cold", "warm"])
def test_a_busy_loop_is_not_taken_for_a_silent_server(server: RedisServer, connection: str) -> None:
    async def use() -> None:
        store = RedisStore(url=server.url, budget=0.01)
        if connection == "warm":
            await store.aget("key")
        call = asyncio.ensure_future(store.aget("key"))
        while not call.done():
            await asyncio.sleep(0)
            time.sleep(0.015)  # each turn of the loop takes more than the budget
        assert await call == b"value"
        await store.aclose()

    RedisStore(url=server.url).set("key", b"value")
    asyncio.run(use())


@pytest.mark.parametrize("how", ["read-only", "full"])
def test_a_server_that_cannot_write_still_answers(how: str) -> None:
    with redis_server() as server:
        store = RedisStore(url=server.url)
        store.set("key", b"value")
        if how == "read-only":
            server.command("CONFIG", "SET", "replica-serve-stale-data", "yes")
            server.command("REPLICAOF", "127.0.0.1", str(free_port()))
        else:
            server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
            server.command("CONFIG", "SET", "maxmemory", "1")
        for call in run_both(store, "set", "key", b"other"):
            with pytest.raises(redis.RedisError):
                call()
        for call in run_both(store, "get", "key"):
            assert call() == b"value"
        with pytest.raises(redis.RedisError):
            store.lease("key", 10)
        store.close()


# Concurrency


def test_a_thousand_agets_at_once_succeed_with_few_connections(store: RedisStore, server: RedisServer) -> None:
    async def use() -> None:
        for number in range(100):
            await store.aset(str(number), b"v%d" % number)
        answers = await asyncio.gather(*(store.aget(str(n % 100)) for n in range(1000)))
        assert answers == [b"v%d" % (n % 100) for n in range(1000)]
        assert server.command("INFO", "clients").count(b"connected_clients:") == 1
        assert len(store._lanes[asyncio.get_running_loop()].client.connection_pool._available_connections) <= 32
        await store.aclose()

    asyncio.run(use())


def test_a_cancelled_call_never_leaves_its_answer_to_another(store: RedisStore) -> None:
    async def use() -> None:
        for number in range(50):
            await store.aset(str(number), b"%d" % number * 1000)
        chance = random.Random(7)
        for _ in range(200):
            calls = [asyncio.ensure_future(store.aget(str(n))) for n in range(5)]
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            for call in calls[: chance.randrange(1, 6)]:
                call.cancel()
            for number, answer in enumerate(await asyncio.gather(*calls, return_exceptions=True)):
                assert isinstance(answer, asyncio.CancelledError) or answer == b"%d" % number * 1000
        for number in range(50):
            assert await store.aget(str(number)) == b"%d" % number * 1000
        lane = store._lanes[asyncio.get_running_loop()]
        assert not lane.client.connection_pool._in_use_connections
        assert lane.places._value == store.max_connections
        await store.aclose()

    asyncio.run(use())


def test_many_threads_share_a_store(store: RedisStore) -> None:
    def use(number: int) -> bool:
        for turn in range(50):
            store.set(f"{number}", b"%d-%d" % (number, turn))
            if store.get(f"{number}") != b"%d-%d" % (number, turn):
                return False
        return True

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(use, range(16)))


def test_event_loops_in_threads_and_in_a_row_each_get_their_own_connections(store: RedisStore) -> None:
    async def use(number: int) -> bytes | None:
        await store.aset(str(number), b"%d" % number)
        await asyncio.gather(*(store.aget(str(number)) for _ in range(5)))
        return await store.aget(str(number))

    for number in range(5):
        assert asyncio.run(use(number)) == b"%d" % number
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda n: asyncio.run(use(n)), range(40))) == [b"%d" % n for n in range(40)]
    assert len(store._lanes) == 0


@pytest.mark.parametrize("ending", ["asyncio.run", "loop.close"])
def test_loops_that_end_leave_no_connection_and_no_noise(
    server: RedisServer, ending: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async def use() -> None:
        await asyncio.gather(*(store.aget(str(n)) for n in range(10)))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        store = RedisStore(url=server.url)
        for _ in range(3):
            if ending == "asyncio.run":
                asyncio.run(use())
            else:
                loop = asyncio.new_event_loop()
                loop.run_until_complete(use())
                loop.close()
        store.close()
        gc.collect()
    assert [str(warning.message) for warning in caught] == []
    assert capfd.readouterr().err == ""
    assert len(store._lanes) == 0
    assert connections_to(server.port) == 0


def test_a_store_forgotten_inside_a_loop_closes_its_connections(server: RedisServer) -> None:
    async def use() -> None:
        store = RedisStore(url=server.url)
        await store.aget("key")
        del store
        gc.collect()
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert connections_to(server.port) == 0

    asyncio.run(use())


def test_a_closed_store_opens_again(store: RedisStore, server: RedisServer) -> None:
    async def use() -> None:
        for _ in range(3):
            await store.aset("key", b"value")
            assert await store.aget("key") == b"value"
            await store.aclose()
            await store.aclose()

    store.close()
    asyncio.run(use())
    for _ in range(3):
        assert store.get("key") == b"value"
        store.close()
        store.close()
    assert connections_to(server.port) == 0


def test_closing_lets_a_call_under_way_finish(server: RedisServer) -> None:
    store = RedisStore(url=server.url, budget=5)
    store.set("key", b"value")
    with ThreadPoolExecutor(1) as threads:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            call = threads.submit(store.get, "key")
            while not store._client.connection_pool._in_use_connections:
                time.sleep(0.001)
            time.sleep(0.02)
            store.close()
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert call.result() == b"value"
    gc.collect()
    assert connections_to(server.port) == 0


def test_closing_from_another_thread_lets_a_running_loop_close_its_own(store: RedisStore, server: RedisServer) -> None:
    async def use() -> None:
        await store.aset("key", b"value")
        await asyncio.to_thread(store.close)
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert connections_to(server.port) == 0
        assert await store.aget("key") == b"value"

    asyncio.run(use())


FORKING = """
import asyncio, os, sys
from rejoinder.caching.stores.redis import RedisStore

store = RedisStore(url=sys.argv[1])

async def work(name):
    for turn in range(100):
        await store.aset(name, f"{name}-{turn}".encode())
        assert await store.aget(name) == f"{name}-{turn}".encode()
    return await store._aask(lambda client: client.client_id())  # a server's name for a connection

def sync_work(name):
    for turn in range(100):
        store.set(name, f"{name}-{turn}".encode())
        assert store.get(name) == f"{name}-{turn}".encode()
    return store._client.client_id()

def in_child(work):
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)  # after the traceback
    return child

def with_a_loop_of_its_own():
    assert sync_work("child") not in ids
    asyncio.events._set_running_loop(None)
    assert asyncio.new_event_loop().run_until_complete(work("child")) not in ids

def with_the_loop_it_was_born_with():
    assert loop.run_until_complete(work("child")) not in ids

async def fork_inside_a_loop():
    ids.update([await work("parent"), sync_work("parent")])
    child = in_child(with_a_loop_of_its_own)
    assert await work("parent") in ids and sync_work("parent") in ids
    assert os.waitpid(child, 0)[1] == 0, "the child failed"
    assert await work("parent") in ids and sync_work("parent") in ids

ids = set()
asyncio.run(fork_inside_a_loop())
loop = asyncio.new_event_loop()
ids.add(loop.run_until_complete(work("parent")))
assert os.waitpid(in_child(with_the_loop_it_was_born_with), 0)[1] == 0, "the child failed"
assert loop.run_until_complete(work("parent")) in ids
"""


def test_a_forked_child_talks_through_sockets_of_its_own(server: RedisServer) -> None:
    run = subprocess.run([sys.executable, "-c", FORKING, server.url], capture_output=True, text=True, timeout=30)
    assert (run.returncode, run.stderr) == (0, "")


def connections_to(port: int) -> int:
    """The sockets of this process that are connected to `port`."""
    wanted, count = ("127.0.0.1", port), 0
    for name in os.listdir("/proc/self/fd"):
        try:
            duplicate = os.dup(int(name))
        except OSError:
            continue
        try:
            with socket.socket(fileno=duplicate) as it:
                count += it.getpeername() == wanted
        except OSError:  # no socket, or not connected
            with suppress(OSError):
                os.close(duplicate)
    return count
