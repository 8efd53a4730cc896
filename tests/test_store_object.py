"""The object store, against a folder, memory, and emulators of S3, Google Cloud Storage and Azure Blob Storage."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("obstore", reason="pip install 'rejoinder[object]'")

import obstore
from obstore.store import GCSStore, MemoryStore

import rejoinder
from rejoinder.caching.cache import Cache
from rejoinder.caching.stores.base import Store
from rejoinder.caching.stores.object import ObjectStore, pack
from rejoinder.caching.stores.object_names import folder_of, key_of, name_of
from rejoinder.core.errors import ConfigurationError
from tests.conformance.store import StoreConformance, closing, in_fork, in_threads
from tests.fixtures.emulators import AZURITE_ACCOUNT, AZURITE_KEY, azure_blob_server, overloaded_server, s3_server
from tests.fixtures.servers import refusing_server, silent_server

PATIENT = 10.0  # seconds: a busy machine is not what these tests are about

SECRET = "SeCrEt+VaLuE/0123456789"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture(scope="module")
def azure() -> Iterator[str]:
    with azure_blob_server() as address:
        yield address


def on_s3(address: str, **options: Any) -> ObjectStore:
    """A store with a folder of its own in the bucket of `s3_server`."""
    account = {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
    options = {"prefix": secrets.token_hex(4), "budget": PATIENT, **account, **options}
    return ObjectStore("s3://rejoinder", endpoint=address, **options)


class ObjectConformance(StoreConformance):
    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    def test_both_sides_of_a_fork_go_on(self, store: Store) -> None:
        """Here the child goes on without the store, and at once: obstore would let it wait for ever."""
        store.set("before", b"value")

        def child() -> None:
            signal.alarm(10)
            began = time.monotonic()
            for _ in range(2):
                with pytest.raises(OSError, match="forked"):
                    store.get("before")
                with pytest.raises(OSError, match="forked"):
                    asyncio.run(store.aget("before"))
            store.close()
            assert time.monotonic() - began < 1

        in_fork(child)
        assert store.get("before") == b"value"


class TestInMemory(ObjectConformance):
    @pytest.fixture
    def store(self) -> Iterator[Store]:
        yield from closing(ObjectStore("memory://"))


class TestInAFolder(ObjectConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        yield from closing(ObjectStore(f"file://{tmp_path}/cache"))


class TestOnS3(ObjectConformance):
    many = 43

    @pytest.fixture
    def store(self, s3: str) -> Iterator[Store]:
        yield from closing(on_s3(s3))


class TestOnAzureBlobStorage(ObjectConformance):
    many = 43

    @pytest.fixture
    def store(self, azure: str) -> Iterator[Store]:
        options = {"account_name": AZURITE_ACCOUNT, "account_key": AZURITE_KEY, "endpoint": azure}
        prefix = secrets.token_hex(4)
        yield from closing(ObjectStore("az://rejoinder", prefix=prefix, budget=PATIENT, **options))


class TestOnGoogleCloudStorage(ObjectConformance):
    """Over its XML API, which resembles S3's, on an emulator of S3. That knows none of Google's conditions."""

    many = 43

    @pytest.fixture
    def store(self, s3: str) -> Iterator[Store]:
        account = {
            "gcs_base_url": s3,
            "disable_oauth": True,
            "client_email": "",
            "private_key": "",
            "private_key_id": "",
        }
        client = GCSStore(
            "rejoinder",
            service_account_key=json.dumps(account),
            # The emulator reads the region and the service out of every Authorization.
            credential_provider=lambda: {"token": "a/20260101/us-east-1/s3/aws4_request", "expires_at": None},
            client_options={"allow_http": True, "timeout": "10s"},
            retry_config={"max_retries": 0},
        )
        yield from closing(ObjectStore(client, prefix=secrets.token_hex(4), leases=False))


async def test_more_than_a_page_is_listed_and_cleared(s3: str) -> None:
    store = on_s3(s3)
    count = 1003
    turns = asyncio.Semaphore(20)

    async def put(number: int) -> None:
        async with turns:
            await store.aset(f"default:{number}", b"value")

    await asyncio.gather(*[put(number) for number in range(count)])
    await store.aset("other:1", b"value")
    assert len({record.key for record in store.scan("default:")}) == count
    assert await store.aclear("default:") == count
    assert [record.key for record in store.scan()] == ["other:1"]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_second_call_is_a_hit(s3: str, kind: str) -> None:
    cache = Cache(store=on_s3(s3))
    call = {"model": "echo/any", "messages": [{"role": "user", "content": f"hello {kind}"}], "cache": cache}
    if kind == "sync":
        first, second = rejoinder.completion(**call), rejoinder.completion(**call)
    else:
        first, second = await rejoinder.acompletion(**call), await rejoinder.acompletion(**call)
    assert (first.cache, second.cache) == (False, True)
    assert second.choices[0].message.content == first.choices[0].message.content
    assert cache.stats()["write_errors"] == 0


@pytest.mark.parametrize("key", ["", ":", "a", "a:", "a:b", ":a", "a::b", "A_:é:\0", "x" * 500, "n" * 300 + ":k"])
def test_a_key_lies_in_the_folder_of_each_of_its_prefixes(key: str) -> None:
    name = name_of(key)
    assert len(name) <= 200
    assert not {".", "..", ""} & set(name.split("/"))
    for end in range(len(key) + 1):
        assert name.startswith(folder_of(key[:end]))
    if "_-" not in name:
        assert key_of(name) == key


def test_names_tell_keys_apart_and_files_from_folders() -> None:
    keys = ["", ":", "::", "a", "a:", "a::", "a:b", "a_", "a__", "_", "__", "A", "_3a", "a_3a", "_:", "__:"]
    names = [name_of(key) for key in keys]
    assert len(set(names)) == len(keys)
    folders = {name[: at + 1] for name in names for at, letter in enumerate(name) if letter == "/"}
    assert not folders & {f"{name}/" for name in names}


def test_a_long_key_is_scanned_by_the_name_it_was_given() -> None:
    store = ObjectStore("memory://")
    keys = {"team:" + "x" * 300, "team:" + "y" * 300, "team:short"}
    for key in keys:
        store.set(key, b"12345")
    assert {(record.key, record.size) for record in store.scan("team:")} == {(key, 5) for key in keys}
    assert store.clear("team:" + "x" * 250) == 1
    assert {record.key for record in store.scan()} == keys - {"team:" + "x" * 300}


def test_an_object_that_somebody_else_put_there_is_no_entry() -> None:
    objects = MemoryStore()
    store = ObjectStore(objects, prefix="p")
    store.set("k", b"value")
    obstore.put(objects, "p/e/k", b"not ours")
    assert store.get("k") == b""
    assert list(store.scan()) == []
    assert store.peek(["k", "none"]) == [b"", None]


def test_expired_entries_are_shown_apart_and_pruned() -> None:
    store = ObjectStore("memory://")
    store.set("dead", b"old", 0.001)
    store.set("live", b"new", 100)
    time.sleep(0.005)
    assert store.get("dead") is None
    assert [record.key for record in store.expired()] == ["dead"]
    assert store.peek(["dead", "live"]) == [b"old", b"new"]
    assert store.prune() == 1
    assert list(store.expired()) == []
    assert store.get("live") == b"new"


def test_leases_of_the_dead_are_pruned_and_others_are_not() -> None:
    objects = MemoryStore()
    store = ObjectStore(objects)
    assert store.lease("held", 10)
    obstore.put(objects, "rejoinder/l/dead", pack(b"token", -3600))
    assert store.prune() == 0
    assert [each["path"] for page in obstore.list(objects) for each in page] == ["rejoinder/l/held"]


def test_a_lease_that_is_about_to_end_is_made_longer_before_it_is_removed() -> None:
    class Slow(ObjectStore):
        def _remove(self, paths: list[str]) -> None:
            time.sleep(0.03)
            assert self.lease("k", 10) is None  # ours must still be there
            super()._remove(paths)

    store = Slow("memory://", budget=0.1)
    token = store.lease("k", 0.02)
    assert token is not None
    assert store.release("k", token) is True
    assert store.lease("k", 10) is not None


@pytest.mark.parametrize("place", ["s3", "memory"])
def test_of_many_who_find_a_lease_expired_one_takes_it_over(s3: str, place: str) -> None:
    store = on_s3(s3) if place == "s3" else ObjectStore("memory://")
    for turn in range(5):
        assert store.lease(f"k{turn}", 0.001)
    time.sleep(0.005)
    tokens: list[tuple[int, str | None]] = []
    in_threads(8, lambda number: tokens.extend((turn, store.lease(f"k{turn}", 10)) for turn in range(5)))
    assert sorted(turn for turn, token in tokens if token) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_service_that_is_overloaded_is_asked_once(kind: str) -> None:
    with overloaded_server() as (address, requests):
        store = on_s3(address)
        with pytest.raises(OSError, match="503") as error:
            await store.aget("k") if kind == "async" else store.get("k")
        assert len(requests) == 1
        assert "a token" not in str(error.value)


def test_a_folder_has_no_leases(tmp_path: Path) -> None:
    assert ObjectStore(f"file://{tmp_path}").leases is False
    assert ObjectStore("memory://").leases is True
    assert ObjectStore.leases is True


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_silent_service_costs_the_budget(kind: str) -> None:
    with silent_server() as port:
        store = on_s3(f"http://127.0.0.1:{port}", budget=0.1)
        began = time.monotonic()
        with pytest.raises(OSError, match="S3"):
            await store.aget("k") if kind == "async" else store.get("k")
        assert time.monotonic() - began < 1


def test_a_refusing_service_is_not_asked_again() -> None:
    with refusing_server() as port:
        store = on_s3(f"http://127.0.0.1:{port}", budget=5)
        began = time.monotonic()
        with pytest.raises(OSError, match="S3"):
            store.set("k", b"value")
        assert time.monotonic() - began < 1


def test_secrets_are_neither_in_repr_nor_in_errors() -> None:
    with refusing_server() as port:
        address = f"http://127.0.0.1:{port}"
        stores = [
            on_s3(address, secret_access_key=SECRET, session_token=SECRET),
            ObjectStore("az://c", account_name="a", sas_key=f"sv=1&sig={SECRET}", endpoint=f"{address}/a"),
            ObjectStore("az://c", account_name="a", account_key="U2VDckV0", endpoint=f"{address}/a"),
        ]
        for store in stores:
            with pytest.raises(OSError) as error:  # noqa: PT011 - the type is the same, the text is what is looked at
                store.get("k")
            for text in (repr(store), str(error.value), repr(error.value)):
                assert SECRET not in text
                assert "U2VDckV0" not in text


def test_what_a_service_says_is_shown_without_its_answer(s3: str) -> None:
    store = ObjectStore("s3://not-there", endpoint=s3, region="us-east-1", access_key_id="a", secret_access_key="b")
    with pytest.raises(OSError, match="NoSuchBucket") as error:
        store.set("k", b"value")
    assert "<" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("url", ["nothing", "s3:/bucket", f"foo://user:{SECRET}@host/x", "az://container-of-nobody"])
def test_a_wrong_url_is_a_configuration_error(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    with pytest.raises(ConfigurationError) as error:
        ObjectStore(url)
    assert SECRET not in str(error.value)


def test_an_unknown_option_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="regoin") as error:
        ObjectStore("s3://bucket", regoin=SECRET)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("type", ["object", "s3", "gcs", "azure-blob"])
def test_a_cache_is_made_by_type(type: str) -> None:
    cache = Cache(type=type, url="memory://")
    assert isinstance(cache.store, ObjectStore)
    assert cache.budget == 1.0  # a cloud needs more than what is near
    assert Cache(type=type, url="memory://", budget=0.3).budget == 0.3
    assert cache.set("k", [1])
    assert cache.get("k") == [1]


def test_litellms_names_are_understood(s3: str) -> None:
    cache = Cache(
        type="s3",
        s3_bucket_name="rejoinder",
        s3_region_name="us-east-1",
        s3_endpoint_url=s3,
        s3_aws_access_key_id="a",
        s3_aws_secret_access_key="b",
        s3_path="as-litellm",
    )
    assert cache.set("k", [1])
    assert cache.get("k") == [1]
    assert repr(cache.store) == "ObjectStore(s3://rejoinder, prefix='as-litellm')"


def test_litellms_names_for_azure_are_understood() -> None:
    account = {"azure_account_url": "https://me.blob.core.windows.net/", "azure_blob_container": "answers"}
    cache = Cache(type="azure-blob", account_key=AZURITE_KEY, **account)
    assert repr(cache.store).startswith("ObjectStore(https://me.blob.core.windows.net/answers")


def test_a_cache_without_a_place_says_what_is_missing() -> None:
    with pytest.raises(ConfigurationError, match="url="):
        Cache(type="s3")


def test_a_child_forked_before_the_first_use_may_use_it(tmp_path: Path) -> None:
    # In a process of its own: this one has used obstore.
    program = f"""
import os
from rejoinder.caching.stores.object import ObjectStore
store = ObjectStore("file://{tmp_path}")
child = os.fork()
if child == 0:
    store.set("k", b"of the child")
    os._exit(0)
os.waitpid(child, 0)
assert store.get("k") == b"of the child"
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def test_without_obstore_the_error_says_what_to_install() -> None:
    program = """
import sys
sys.modules["obstore"] = None
import rejoinder
try:
    rejoinder.Cache(type="s3", url="s3://bucket")
except rejoinder.MissingPackage as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, timeout=30, capture_output=True, text=True)
    assert "pip install 'rejoinder[object]'" in done.stdout
