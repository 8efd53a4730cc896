"""The Cosmos store, against an emulator that others wrote. It lets nothing expire by itself, as the service does."""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

pytest.importorskip("azure.cosmos", reason="pip install 'rejoinder[cosmos]'")
pytest.importorskip("aiohttp", reason="pip install 'rejoinder[cosmos]'")

import rejoinder
from rejoinder.caching.cache import Cache
from rejoinder.caching.stores.base import Store, TooLarge
from rejoinder.caching.stores.cosmos import CosmosStore
from rejoinder.core.errors import ConfigurationError
from tests.conformance.store import Call, StoreConformance, closing, in_threads
from tests.fixtures.emulators import COSMOS_KEY, CosmosServer, cosmos_server, overloaded_server
from tests.fixtures.servers import refusing_server, silent_server

PATIENT = 10.0  # seconds: a busy machine is not what these tests are about

SECRET = base64.b64encode(b"a key that nobody may see").decode()


@pytest.fixture(scope="module")
def server() -> Iterator[CosmosServer]:
    with cosmos_server() as server:
        yield server


@pytest.fixture
def cosmos(server: CosmosServer) -> str:
    return server.address


def on_cosmos(address: str, **options: Any) -> CosmosStore:
    """A store with a container of its own in the account of `cosmos_server`."""
    # The emulator says that it is reached by https.
    given = {"container_id": secrets.token_hex(4), "budget": PATIENT, "enable_endpoint_discovery": False, **options}
    return CosmosStore(url=address, key=COSMOS_KEY, **given)


class TestOnCosmosDB(StoreConformance):
    many = 203

    @pytest.fixture
    def store(self, cosmos: str) -> Iterator[Store]:
        yield from closing(on_cosmos(cosmos))

    async def test_a_large_value_comes_back_whole(self, call: Call) -> None:
        """Of the size that still fits: an item has 2 MB."""
        value = os.urandom(1_490_000)
        await call("set", "large", value)
        assert await call("get", "large") == value


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_value_that_does_not_fit_says_so(cosmos: str, kind: str) -> None:
    store = on_cosmos(cosmos)
    with pytest.raises(TooLarge, match="1,600,000 bytes"):
        await store.aset("k", bytes(1_600_000)) if kind == "async" else store.set("k", bytes(1_600_000))
    assert store.get("k") is None


def test_a_value_that_does_not_fit_is_counted_and_the_next_one_is_kept(cosmos: str) -> None:
    cache = Cache(store=on_cosmos(cosmos))
    assert cache.set("large", base64.b64encode(os.urandom(3_000_000)).decode()) is False
    assert cache.stats()["write_errors"] == 1
    assert cache.stats()["writing"] == "closed"
    assert cache.set("small", "value") is True
    assert cache.get("small") == "value"


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_second_call_is_a_hit(cosmos: str, kind: str) -> None:
    cache = Cache(store=on_cosmos(cosmos))
    call = {"model": "echo/any", "messages": [{"role": "user", "content": f"hello {kind}"}], "cache": cache}
    if kind == "sync":
        first, second = rejoinder.completion(**call), rejoinder.completion(**call)
    else:
        first, second = await rejoinder.acompletion(**call), await rejoinder.acompletion(**call)
    assert (first.cache, second.cache) == (False, True)
    assert second.choices[0].message.content == first.choices[0].message.content
    assert cache.stats()["write_errors"] == 0
    await cache.aclose()


def test_autogens_constructor_makes_a_cache_partitioned_by_seed(cosmos: str) -> None:
    text = f"AccountEndpoint={cosmos}/;AccountKey={COSMOS_KEY};"
    options = {"budget": PATIENT, "enable_endpoint_discovery": False}
    caches = [
        Cache.cosmos_db(connection_string=text, database_id="db", container_id="c", cache_seed=seed, **options)
        for seed in (41, 42, None)
    ]
    for number, cache in enumerate(caches):
        with cache:
            assert cache.set("k", number)
    assert [cache.get("k") for cache in caches] == [0, 1, 2]
    assert [record.key for record in caches[0].store.scan()] == ["default:value:k"]
    container = caches[0].store._container()  # type: ignore[attr-defined]
    items = container.query_items("SELECT c.partitionKey FROM c", enable_cross_partition_query=True)
    assert sorted(item["partitionKey"] for item in items) == ["/default:", "41/default:", "42/default:"]
    assert caches[0].clear() == 1
    assert [cache.get("k") for cache in caches] == [None, 1, 2]


def test_the_service_gets_a_ttl_that_is_never_shorter(cosmos: str) -> None:
    store = on_cosmos(cosmos)
    store.set("short", b"", 0.5)
    store.set("long", b"", 10**12)
    store.set("eternal", b"")
    assert store._container().read()["defaultTtl"] == -1
    items = store._container().query_items("SELECT c.key, c.ttl FROM c", enable_cross_partition_query=True)
    assert {item["key"]: item["ttl"] for item in items} == {"short": 2, "long": 2**31 - 1, "eternal": -1}


def test_expired_entries_are_shown_apart_and_pruned(cosmos: str) -> None:
    store = on_cosmos(cosmos)
    store.set("a:dead", b"old", 0.001)
    store.set("a:live", b"new", 100)
    time.sleep(0.005)
    assert [record.key for record in store.expired("a:")] == ["a:dead"]
    assert store.peek(["a:dead", "a:live", "a:none"]) == [b"old", b"new", None]
    assert store.prune() == 1
    assert list(store.expired()) == []
    assert store.get("a:live") == b"new"


def test_an_item_that_was_changed_by_hand_is_no_entry(cosmos: str) -> None:
    store = on_cosmos(cosmos)
    store.set("k", b"value")
    container = store._container()
    (item,) = container.query_items("SELECT * FROM c", enable_cross_partition_query=True)
    container.upsert_item({**item, "data": "not base64!"})
    assert store.get("k") == b""


def test_without_create_a_missing_container_is_an_error(cosmos: str) -> None:
    store = on_cosmos(cosmos, create=False)
    with pytest.raises(OSError, match="NotFound"):
        store.set("k", b"value")


def test_of_many_who_find_a_lease_expired_one_takes_it_over(cosmos: str) -> None:
    store = on_cosmos(cosmos)
    for turn in range(5):
        assert store.lease(f"k{turn}", 0.001)
    time.sleep(0.005)
    tokens: list[tuple[int, str | None]] = []
    in_threads(8, lambda number: tokens.extend((turn, store.lease(f"k{turn}", 10)) for turn in range(5)))
    assert sorted(turn for turn, token in tokens if token) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_service_that_is_overloaded_is_asked_once(kind: str, status: int) -> None:
    with overloaded_server(status) as (address, requests):
        store = on_cosmos(address, create=False)
        with pytest.raises(OSError, match="Error"):
            await store.aget("k") if kind == "async" else store.get("k")
        # The first that is asked for is the container, whose partition key the SDK wants to know.
        assert [request for request in requests if request != "/"] == [f"/dbs/rejoinder/colls/{store.container_id}/"]
        await store.aclose()


async def test_with_a_sync_client_alone_async_calls_run_it_in_threads(cosmos: str) -> None:
    store = on_cosmos(cosmos)
    store._acredential = None  # as with credential= and no acredential=, which the emulator cannot check
    await store.aset("k", b"value")
    assert await store.aget("k") == b"value"
    assert await store.aclear() == 1
    assert not store._lanes


def test_a_container_that_was_deleted_is_created_anew(cosmos: str) -> None:
    store = on_cosmos(cosmos)
    store.set("k", b"value")
    other = on_cosmos(cosmos)
    database = other._open().client_connection
    database.DeleteContainer(f"dbs/rejoinder/colls/{store.container_id}")
    assert store.get("k") is None
    with pytest.raises(OSError, match="NotFound"):
        store.set("k", b"value")
    store.set("k", b"value")
    assert store.get("k") == b"value"


def test_several_may_create_the_container_at_once(server: CosmosServer) -> None:
    container = secrets.token_hex(4)
    stores = [on_cosmos(server.address, container_id=container) for _ in range(8)]
    in_threads(8, lambda number: stores[number].set(f"{number}", b"value"))
    assert len(list(stores[0].scan())) == 8


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("gone", [silent_server, refusing_server])
async def test_a_service_that_is_gone_costs_the_budget(gone: Any, kind: str) -> None:
    with gone() as port:
        store = on_cosmos(f"http://127.0.0.1:{port}", budget=0.2)
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(OSError, match=r"Cosmos|Error"):
                await store.aget("k") if kind == "async" else store.get("k")
            assert time.monotonic() - began < 1.5  # with the first import of the SDK's halves
        await store.aclose()


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_service_that_freezes_costs_the_budget(server: CosmosServer, kind: str) -> None:
    store = on_cosmos(server.address, budget=0.4)

    async def get() -> bytes | None:
        return await store.aget("k") if kind == "async" else store.get("k")

    for _ in range(20):
        with suppress(OSError):  # what takes too long to open is open the next time
            assert await get() is None
            break
    with server.frozen():
        began = time.monotonic()
        with pytest.raises(OSError, match=r"Cosmos|Error"):
            await get()
        took = time.monotonic() - began
    assert took < 0.8
    assert await get() is None
    await store.aclose()


def test_the_key_is_neither_in_repr_nor_in_errors() -> None:
    with refusing_server() as port:
        text = f"AccountEndpoint=http://127.0.0.1:{port}/;AccountKey={SECRET};"
        store = CosmosStore(text, budget=0.5)
        with pytest.raises(OSError) as error:  # noqa: PT011 - the type is the same, the text is what is looked at
            store.get("k")
        for shown in (repr(store), str(error.value), repr(error.value)):
            assert SECRET not in shown


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"connection_string": f"AccountKey={SECRET}"},
        {"connection_string": SECRET},
        {"url": "https://x", "key": f"?{SECRET}"},
        {"url": "https://x"},
        {"url": "https://x", "key": SECRET, "credential": object()},
    ],
    ids=["nothing", "no endpoint", "no fields", "not base64", "no key", "two keys"],
)
def test_what_cannot_work_is_a_configuration_error(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as error:
        CosmosStore(**options)
    assert SECRET not in str(error.value)


def test_a_loop_that_ends_closes_its_connections(cosmos: str) -> None:
    program = f"""
import asyncio
from rejoinder.caching.stores.cosmos import CosmosStore
store = CosmosStore(url={cosmos!r}, key={COSMOS_KEY!r}, budget=10, enable_endpoint_discovery=False)
asyncio.run(store.aset("k", b"value"))
assert asyncio.run(store.aget("k")) == b"value"
assert not store._lanes
"""
    done = subprocess.run([sys.executable, "-X", "dev", "-c", program], timeout=30, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Unclosed" not in done.stderr


def test_without_the_sdk_the_error_says_what_to_install() -> None:
    program = """
import sys
sys.modules["azure.cosmos"] = None
import rejoinder
try:
    rejoinder.Cache(type="cosmos", connection_string="AccountEndpoint=https://x;AccountKey=eA==")
except rejoinder.MissingPackage as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, timeout=30, capture_output=True, text=True)
    assert "pip install 'rejoinder[cosmos]'" in done.stdout
