"""The Redis store where there is more than one server, behind TLS, and as a user who may do little."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from rejoinder import Cache, Echo
from rejoinder.caching.stores.redis import RedisStore
from rejoinder.core.errors import ConfigurationError, WrongType
from tests.conformance.store import StoreConformance, closing, in_threads
from tests.fixtures.calls import awhole, both, whole
from tests.fixtures.redis_places import (
    Certificates,
    certificates,
    knows_all,
    redis_cluster,
    redis_sentinels,
    tls_redis_server,
    wait_until,
)
from tests.fixtures.servers import RedisServer, free_port, redis_server, refusing_server, silent_server

TEXT = "The answer."
WAYS = (whole, awhole)
SLOW = 0.5  # seconds; five times the budget


def question(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Question {number}"}]


def is_hit(ask: Callable[..., Any], cache: Cache, number: int) -> bool:
    return bool(ask(messages=question(number), cache=cache, client=Echo([TEXT])).cache)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "rejoinder"]


# A cluster


@pytest.fixture(scope="module")
def shared_nodes() -> Iterator[list[RedisServer]]:
    with redis_cluster() as nodes:
        yield nodes


@pytest.fixture
def nodes(shared_nodes: list[RedisServer]) -> list[RedisServer]:
    for node in shared_nodes:
        node.command("FLUSHALL")
    return shared_nodes


@pytest.fixture
def store(nodes: list[RedisServer]) -> Iterator[RedisStore]:
    yield from closing(RedisStore(cluster=True, host="127.0.0.1", port=nodes[0].port))  # type: ignore[misc]


class TestRedisClusterStore(StoreConformance):
    """Against three primaries, of which the store is told one."""

    has_its_own_clock = True


def test_the_entries_of_a_cluster_are_spread_over_its_nodes(store: RedisStore, nodes: list[RedisServer]) -> None:
    for number in range(60):
        store.set(f"n:{number}", b"value")
    counts = [int(node.command("DBSIZE")[1:]) for node in nodes]
    assert sum(counts) == 60
    assert all(counts)


def test_ways_to_say_where_a_cluster_is(store: RedisStore, nodes: list[RedisServer]) -> None:
    store.set("key", b"value")
    first, second = nodes[0].port, nodes[1].port
    for other in [
        RedisStore(startup_nodes=[{"host": "127.0.0.1", "port": str(second)}]),
        RedisStore(startup_nodes=[("127.0.0.1", free_port()), ("127.0.0.1", second)]),
        RedisStore(url=f"redis+cluster://127.0.0.1:{first}"),
        RedisStore(url=f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{second}/0"),
        RedisStore(url=f"redis://127.0.0.1:{first}", cluster=True),
    ]:
        assert other.get("key") == b"value"
        assert asyncio.run(other.aget("key")) == b"value"
        other.close()


def test_a_cache_takes_a_clusters_nodes_by_either_name(
    nodes: list[RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_HOST", "nowhere.example")
    place = [{"host": "127.0.0.1", "port": nodes[0].port}]
    for number, option in enumerate(("startup_nodes", "redis_startup_nodes")):
        cache = Cache(type="redis", **{option: place})
        assert [is_hit(whole, cache, number) for _ in range(2)] == [False, True]
        cache.close()


def primary_of(store: RedisStore, nodes: list[RedisServer], key: str) -> tuple[RedisServer, RedisServer, int]:
    """The node that has `key`, one that has not, and the key's slot."""
    slot = redis.crc.key_slot(f"rejoinder:e:{key}".encode())
    index = slot * len(nodes) // 16384
    return nodes[index], nodes[(index + 1) % len(nodes)], slot


def name_of(node: RedisServer) -> str:
    return node.command("CLUSTER", "MYID").split(b"\r\n")[1].decode()


def move(nodes: list[RedisServer], source: RedisServer, target: RedisServer, slot: int) -> Callable[[], None]:
    """Begin to move a slot and all its keys. What is returned ends it."""
    target.command("CLUSTER", "SETSLOT", str(slot), "IMPORTING", name_of(source))
    source.command("CLUSTER", "SETSLOT", str(slot), "MIGRATING", name_of(target))
    with redis.Redis(port=source.port) as client:
        keys = client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100)
        if keys:
            client.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 1000, "KEYS", *keys)

    def end() -> None:
        for node in (target, source, *nodes):
            node.command("CLUSTER", "SETSLOT", str(slot), "NODE", name_of(target))

    return end


async def test_a_slot_that_moves_is_followed(store: RedisStore, nodes: list[RedisServer]) -> None:
    store.set("n:moving", b"value")
    assert await store.aget("n:moving") == b"value"
    source, target, slot = primary_of(store, nodes, "n:moving")
    for here, there in ((source, target), (target, source)):  # and back, for the other tests
        end = move(nodes, here, there, slot)
        assert store.get("n:moving") == b"value"  # by ASK
        assert await store.aget("n:moving") == b"value"
        await asyncio.gather(*(store.aset("n:moving", b"value") for _ in range(5)))
        assert store.peek(["n:moving"]) == [b"value"]
        token = store.lease("n:moving", 10)
        assert token is not None
        assert await store.arelease("n:moving", token)
        end()
        await asyncio.gather(*(store.aset("n:moving", b"value") for _ in range(5)))
        assert store.get("n:moving") == b"value"  # by MOVED
        assert [record.key for record in store.scan("n:")] == ["n:moving"]
    assert store.clear("n:") == 1


@both
def test_a_killed_node_fails_no_call_and_is_used_again(ask: Callable[..., Any], nodes: list[RedisServer]) -> None:
    cache = Cache(type="redis", startup_nodes=[{"host": "127.0.0.1", "port": node.port} for node in nodes])
    numbers = range(12)
    for number in numbers:
        is_hit(ask, cache, number)
    assert all(is_hit(ask, cache, number) for number in numbers)
    nodes[0].kill()
    try:
        started = time.monotonic()
        for number in numbers:
            is_hit(ask, cache, number)
        assert time.monotonic() - started < SLOW * len(numbers)
        assert cache.stats()["read_errors"] > 0
    finally:
        nodes[0].start()
    wait_until(lambda: all(knows_all(node, 3) for node in nodes), "joining again")

    def all_again() -> bool:
        return all(is_hit(ask, cache, number) for number in numbers)

    wait_until(all_again, "being used again", 15)
    cache.close()


@pytest.mark.parametrize("sick", [refusing_server, silent_server])
def test_a_cluster_of_which_no_node_answers_costs_the_budget(sick: Any) -> None:
    with sick() as port, sick() as other:
        store = RedisStore(startup_nodes=[("127.0.0.1", port), ("127.0.0.1", other)], budget=0.1)
        for call in (lambda: store.get("key"), lambda: asyncio.run(store.aget("key"))):
            started = time.monotonic()
            with pytest.raises((redis.RedisError, OSError)):
                call()
            assert time.monotonic() - started < 0.4
        store.close()


async def test_a_seed_that_hangs_stands_in_the_way_once(nodes: list[RedisServer]) -> None:
    with silent_server() as port:
        places = [("127.0.0.1", port), ("127.0.0.1", nodes[0].port)]
        for get in (lambda store: asyncio.to_thread(store.get, "key"), lambda store: store.aget("key")):
            store = RedisStore(startup_nodes=places, budget=0.1)
            with pytest.raises((redis.RedisError, OSError)):
                await get(store)
            assert await get(store) is None
            await store.aclose()


def test_a_server_that_is_no_cluster_says_so() -> None:
    with redis_server() as server:
        store = RedisStore(cluster=True, host="127.0.0.1", port=server.port)
        with pytest.raises(redis.ConnectionError, match="cluster support disabled"):
            store.get("key")
        store.close()


# Sentinels


def test_the_master_that_sentinels_name_is_followed_when_another_takes_over() -> None:
    with redis_sentinels() as watched:
        cache = Cache(
            type="redis",
            sentinel_nodes=watched.nodes,
            service_name="mymaster",
            password="s3cret",
            sentinel_password="guard",
        )
        assert "s3cret" not in repr(cache.store)
        assert [[is_hit(ask, cache, number) for _ in range(2)] for number, ask in enumerate(WAYS)] == [
            [False, True]
        ] * 2
        wait_until(lambda: watched.replica.ask("s3cret", "DBSIZE") == b":2\r\n", "replicating")
        old = watched.master.port
        watched.master.kill()
        for ask in WAYS:
            is_hit(ask, cache, 0)  # does not fail
        wait_until(lambda: watched.master_port() != old, "taking over")
        # The replica had the answers, so they are hits again without having been asked for anew.
        wait_until(lambda: all(is_hit(ask, cache, 0) for ask in WAYS), "hitting again", 10)
        store = RedisStore(
            sentinel_nodes=[("127.0.0.1", free_port()), *watched.nodes],  # the first is nobody
            service_name="mymaster",
            password="s3cret",
            sentinel_password="guard",
        )
        store.set("key", b"value")
        assert asyncio.run(store.aget("key")) == b"value"
        store.close()
        other = RedisStore(
            sentinel_nodes=watched.nodes, service_name="another", password="s3cret", sentinel_password="guard"
        )
        with pytest.raises(redis.ConnectionError, match="knows no 'another'"):
            other.get("key")
        other.close()
        cache.close()


# TLS


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls_port(files: Certificates) -> Iterator[int]:
    with tls_redis_server(files) as port:
        yield port


def tls_options(files: Certificates) -> dict[str, Any]:
    return {"ssl_ca_certs": files.ca, "ssl_certfile": files.client[0], "ssl_keyfile": files.client[1]}


@both
@pytest.mark.parametrize("way", ["fields", "url"])
def test_calls_hit_over_tls_with_a_client_certificate(
    tls_port: int, files: Certificates, way: str, ask: Callable[..., Any]
) -> None:
    place: dict[str, Any] = {"redis_url": f"rediss://127.0.0.1:{tls_port}"}
    if way == "fields":
        place = {"host": "127.0.0.1", "port": tls_port, "ssl": True}
    cache = Cache(type="redis", namespace=f"{way}-{ask.__name__}", budget=1.0, **place, **tls_options(files))
    assert [is_hit(ask, cache, 0) for _ in range(2)] == [False, True]
    cache.close()


@both
def test_a_wrong_authority_is_one_clear_warning_and_the_calls_go_on(
    tls_port: int, files: Certificates, ask: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    options = {**tls_options(files), "ssl_ca_certs": files.other_ca}
    cache = Cache(type="redis", host="127.0.0.1", port=tls_port, ssl=True, budget=1.0, **options)
    with caplog.at_level(logging.WARNING, "rejoinder"):
        for number in range(3):
            assert not is_hit(ask, cache, number)
    said = warnings_in(caplog)
    assert len([text for text in said if "failed to read" in text]) == 1
    assert "certificate verify failed" in said[0]
    assert len(said) <= 2  # one for reading, one for writing
    cache.close()


def test_every_new_connection_over_tls_works_at_once(tls_port: int, files: Certificates) -> None:
    # Whether its session tickets have come by then is a matter of chance.
    for _ in range(20):
        store = RedisStore(url=f"rediss://127.0.0.1:{tls_port}", budget=1.0, **tls_options(files))
        assert store.get("never set") is None
        store.close()


def test_a_loops_first_calls_do_not_use_up_the_budget_with_handshakes(tls_port: int, files: Certificates) -> None:
    async def use(store: RedisStore) -> None:
        assert await asyncio.gather(*(store.aget(f"never set {number}") for number in range(50))) == [None] * 50
        lane = store._lanes[asyncio.get_running_loop()]
        assert lane.places._value == store.max_connections  # in the end, all of them

    for _ in range(3):
        store = RedisStore(url=f"rediss://127.0.0.1:{tls_port}", **tls_options(files))
        asyncio.run(use(store))
        store.close()


def test_certificates_are_read_once_and_not_by_each_connection(
    tls_port: int, files: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    make = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda *args, **more: made.append(1) or make(*args, **more))
    store = RedisStore(host="127.0.0.1", port=tls_port, ssl=True, budget=1.0, **tls_options(files))
    assert len(made) == 1

    async def use() -> None:
        await asyncio.gather(*(store.aget(str(number)) for number in range(20)))

    asyncio.run(use())
    in_threads(3, lambda number: store.set(str(number), b"value"))
    assert len(made) == 1
    store.close()


def test_certificates_that_do_not_fit_are_refused_at_once(files: Certificates) -> None:
    with pytest.raises(ConfigurationError, match="certificates for Redis cannot be used"):
        RedisStore(ssl=True, ssl_certfile=files.client[0], ssl_keyfile=files.server[1])


def test_a_client_without_a_certificate_is_refused(tls_port: int, files: Certificates) -> None:
    store = RedisStore(host="127.0.0.1", port=tls_port, ssl=True, ssl_ca_certs=files.ca, budget=1.0)
    with pytest.raises(redis.ConnectionError):
        store.set("key", b"value")
    store.close()


# A user who may do little

MINIMAL_ACL = (
    "on >s3cret ~rejoinder:* -@all +get +set +unlink +scan +zscan +eval +pexpire +del +time +pttl +zadd +persist "
    "+zremrangebyscore +zscore +zrem +strlen +object|idletime"
)


@pytest.fixture(params=[MINIMAL_ACL, "on >s3cret ~rejoinder:* +@all -@dangerous"], ids=["minimal", "not dangerous"])
def confined(request: pytest.FixtureRequest) -> Iterator[RedisStore]:
    with redis_server() as server:
        server.command("SET", "foreign", "x")
        assert server.command("ACL", "SETUSER", "app", *request.param.split()) == b"+OK\r\n"
        store = RedisStore(url=f"redis://app:s3cret@127.0.0.1:{server.port}")
        yield store
        store.close()


async def test_a_confined_user_may_do_all_that_the_store_does(confined: RedisStore) -> None:
    store = confined
    store.tag("n:a", ["red"], 100)
    store.set("n:a", b"value", 100)
    store.tag("n:b", ["blue"])
    await asyncio.gather(*(store.aset(f"n:{letter}", b"value", 100) for letter in "bcd"))
    store.tag("n:b", ["blue"], 100)
    store.tag("n:b", ["blue"])  # lifts the TTL
    assert store.get("n:a") == await store.aget("n:b") == b"value"
    assert store.peek(["n:a", "n:x"]) == [b"value", None]
    records = {record.key: record for record in store.scan("n:")}
    assert set(records) == {"n:a", "n:b", "n:c", "n:d"}
    assert time.time() - 5 < records["n:a"].stored_at < time.time() + 5
    token = store.lease("n:a", 10)
    assert token is not None
    assert store.renew("n:a", token, 20)
    assert await store.arelease("n:a", token)
    assert list(store.tagged("n:", "red")) == ["n:a"]
    assert store.clear_tag("n:", "red") == 1
    assert await store.aclear_tag("n:", "blue") == 1
    assert store.delete("n:c") is True
    assert await store.aclear("n:") == 1
    with pytest.raises(redis.exceptions.NoPermissionError):
        store._client.get("foreign")


async def test_a_confined_user_of_a_cluster_needs_two_commands_more(nodes: list[RedisServer]) -> None:
    for node in nodes:
        said = node.command("ACL", "SETUSER", "app", "reset", *MINIMAL_ACL.split(), "+cluster|slots", "+asking")
        assert said == b"+OK\r\n"
    store = RedisStore(url=f"redis+cluster://app:s3cret@127.0.0.1:{nodes[0].port}")
    store.tag("n:1", ["red"])
    await asyncio.gather(*(store.aset(f"n:{number}", b"value") for number in range(30)))
    source, target, slot = primary_of(store, nodes, "n:1")
    for here, there in ((source, target), (target, source)):
        end = move(nodes, here, there, slot)
        assert store.get("n:1") == b"value"
        end()
    assert len(list(store.scan())) == 30
    assert await store.aclear_tag("n:", "red") == 1
    assert store.clear() == 29
    await store.aclose()


def test_the_documentation_has_the_minimal_acl() -> None:
    page = (Path(__file__).parents[1] / "docs/stores-redis.md").read_text()
    assert MINIMAL_ACL.removeprefix("on >s3cret ~rejoinder:* ") in " ".join(page.split())


# Options that contradict each other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"redis_url": "redis://a", "host": "b"}, "redis_url and host each say where"),
        ({"host": "a", "startup_nodes": [("b", 1)]}, "host and startup_nodes each say where"),
        ({"redis_url": "redis://a", "port": 1}, "port goes with host"),
        ({"sentinel_nodes": [("a", 1)]}, "service_name"),
        ({"service_name": "mymaster"}, "sentinel_nodes"),
        ({"sentinel_password": "p"}, "are for sentinel_nodes"),
        ({"sentinel_nodes": [("a", 1)], "service_name": "m", "cluster": True}, "not by sentinel_nodes"),
        ({"sentinel_nodes": [], "service_name": "m"}, "sentinel_nodes is empty"),
        ({"startup_nodes": []}, "startup_nodes is empty"),
        ({"startup_nodes": [("a", 1)], "db": 3}, "database 0 only"),
        ({"cluster": True, "unix_socket_path": "/s"}, "not by unix_socket_path"),
        ({"redis_url": "unix:///s", "cluster": True}, "cannot be read|not through a Unix socket"),
        ({"redis_url": "redis+cluster://:hush#@a:1"}, "cannot be read"),
        ({"ssl_ca_certs": __file__}, "add ssl=True"),
        ({"redis_url": "redis://a", "ssl": True}, "write rediss://"),
        ({"ssl": True, "ssl_ca_certs": "/no/such.pem"}, "'/no/such.pem': there is no such file"),
        ({"ssl": True, "ssl_keyfile": __file__}, "goes with ssl_certfile"),
        ({"ssl": True, "unix_socket_path": "/s"}, "no TLS"),
        ({"socket_keep_alive": True}, "Did you mean 'socket_keepalive'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        Cache(type="redis", **options)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("given", [["localhost:7000"], [{"host": "a"}], 7000, [("a", "b")]])
def test_nodes_that_are_none_are_refused(given: Any) -> None:
    with pytest.raises(WrongType, match="startup_nodes="):
        RedisStore(startup_nodes=given)


def test_a_cluster_client_of_the_caller_is_refused(nodes: list[RedisServer]) -> None:
    client = redis.RedisCluster(host="127.0.0.1", port=nodes[0].port)
    with pytest.raises(ConfigurationError, match="startup_nodes"):
        RedisStore(client=client)
    client.close()


def test_the_environments_host_does_not_contradict_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_HOST", "nowhere.example")
    with redis_server() as server:
        assert os.path.exists(server.unix_socket)
        cache = Cache(type="redis", unix_socket_path=server.unix_socket)
        assert [is_hit(whole, cache, 0) for _ in range(2)] == [False, True]
        cache.close()
