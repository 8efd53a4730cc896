"""In Azure Cosmos DB (its API for NoSQL): shared by processes and hosts, with leases.

An entry is an item whose value is base64. Its id is a hash of the key, since ids may not hold every character; the key
stands beside it. What is asked for by one namespace lies in one logical partition, as with AutoGen's caches.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
import os
import secrets
import time
from asyncio import AbstractEventLoop
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, ClassVar
from urllib.parse import quote
from weakref import WeakKeyDictionary

from ...core.errors import ConfigurationError, MissingPackage
from ...core.flow import Flow, Io, arun, run
from .base import Record, Store, TooLarge, longest_lease
from .cosmos_clients import Client, Lane, finish, keep

BUDGET = 1.0
"""Seconds. A first request resolves a name, connects, agrees on TLS and asks for the account and the container."""

LARGEST = 2_000_000
"""Characters of an item, a little less than the 2 MB of the service. A value takes four thirds of its bytes."""

_BATCH = 200  # items found, and removed, in one go
_CREW = 8  # requests at once while removing

PARTITION_PATH = "/partitionKey"  # as AutoGen's containers have it, so that one may be used that is there

# What is not listed here is found by queries; an index of the values would cost more than the values.
_INDEX = {
    "indexingMode": "consistent",
    "includedPaths": [{"path": "/*"}],
    "excludedPaths": [{"path": "/data/?"}, {"path": '/"_etag"/?'}],
}


class CosmosError(OSError):
    """Cosmos DB did not do what it was asked. The message holds no key."""


class CosmosStore(Store):
    """A container of Azure Cosmos DB, through `azure-cosmos`.

    `connection_string` is the one that the portal shows; or give `url` and `key`, or `url` and `credential` (of
    `azure.identity`) with `acredential` (of `azure.identity.aio`) for async calls. Database and container are created
    at the first use unless they are there, or `create` is False. Further keywords go to `CosmosClient`.

    `partition`, a seed for instance, sets entries of one container apart: a store sees only those of its own.

    `budget` bounds an operation. Nothing is retried, also not where the service says that it is asked too often. The
    first use opens the client in a thread; if that takes too long the call fails, and the next one finds it open.

    A value of more than 1.5 MB raises `TooLarge`. Times go by the clocks of the processes, as the service knows only
    whole seconds: hosts should agree to within a second. What has expired is removed by the service.
    """

    name: ClassVar[str] = "cosmos"
    leases: ClassVar[bool] = True

    def __init__(
        self,
        connection_string: str | None = None,
        database_id: str = "rejoinder",
        container_id: str = "cache",
        *,
        url: str | None = None,
        key: str | None = None,
        credential: Any = None,
        acredential: Any = None,
        partition: str | None = None,
        create: bool = True,
        budget: float = BUDGET,
        **client_options: Any,
    ) -> None:
        self._cosmos = _import_cosmos()
        if connection_string is not None:
            url, key = _read(connection_string)
        if url is None or (key is None) == (credential is None):
            raise ConfigurationError("The Cosmos store takes a connection_string, or a url with a key or a credential.")
        self.url, self.database_id, self.container_id, self.budget = url, database_id, container_id, budget
        self._credential = credential if key is None else _checked(key)
        self._acredential = acredential if key is None else self._credential
        self._partition = quote(partition or "", safe="") + "/"
        self._create, self._options = create, client_options
        self._client = Client()
        self._lanes: WeakKeyDictionary[AbstractEventLoop, Lane] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"CosmosStore({self.url}, {self.database_id!r}, {self.container_id!r})"

    # ── sync and async ────────────────────────────────────────────────────────────────────────────────────────────

    def get(self, key: str) -> bytes | None:
        return run(self._getting(key))

    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        run(self._setting(key, value, ttl))

    def delete(self, key: str) -> bool:
        return run(self._deleting(_id(key), self._partition_of(key)))

    def clear(self, prefix: str = "") -> int:
        return run(self._clearing(*self._query("c.id, c.partitionKey", prefix)))

    def prune(self) -> int:
        """Remove what has expired, for a container that does not let items expire by itself."""
        return run(self._clearing(*self._query("c.id, c.partitionKey", "", _EXPIRED)))

    def lease(self, key: str, ttl: float) -> str | None:
        return run(self._leasing(key, secrets.token_hex(16), ttl))

    def renew(self, key: str, token: str, ttl: float) -> bool:
        return run(self._renewing(key, token, ttl))

    def release(self, key: str, token: str) -> bool:
        return run(self._releasing(key, token))

    async def aget(self, key: str) -> bytes | None:
        return await arun(self._getting(key))

    async def aset(self, key: str, value: bytes, ttl: float | None = None) -> None:
        await arun(self._setting(key, value, ttl))

    async def adelete(self, key: str) -> bool:
        return await arun(self._deleting(_id(key), self._partition_of(key)))

    async def aclear(self, prefix: str = "") -> int:
        return await arun(self._clearing(*self._query("c.id, c.partitionKey", prefix)))

    async def alease(self, key: str, ttl: float) -> str | None:
        token = secrets.token_hex(16)
        with self.leaving_nothing_taken(key, token):
            return await arun(self._leasing(key, token, ttl))

    async def arenew(self, key: str, token: str, ttl: float) -> bool:
        return await arun(self._renewing(key, token, ttl))

    async def arelease(self, key: str, token: str) -> bool:
        return await arun(self._releasing(key, token))

    # ── entries ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _getting(self, key: str) -> Flow[bytes | None]:
        item = yield from self._reading(_id(key), self._partition_of(key))
        return _value(item) if item is not None and _is_live(item) else None

    def _setting(self, key: str, value: bytes, ttl: float | None) -> Flow[None]:
        data = base64.b64encode(value).decode()
        if len(data) + len(json.dumps(key)) > LARGEST:
            raise TooLarge(f"{len(value):,} bytes do not fit into an item of Cosmos DB, which holds 2 MB with base64.")
        item = self._item(_id(key), key, ttl) | {"kind": "entry", "data": data, "size": len(value)}
        try:
            yield self._asking("upsert_item", item)
        except _Missing:  # not the item: the container was deleted, and is looked for anew the next time
            self.close()
            raise

    def _reading(self, id: str, partition: str) -> Flow[dict[str, Any] | None]:
        try:
            item: dict[str, Any] = yield self._asking("read_item", id, partition)
        except _Missing:
            return None
        return item

    def _deleting(self, id: str, partition: str) -> Flow[bool]:
        try:
            yield self._asking("delete_item", id, partition)
        except _Missing:
            return False
        return True

    def _clearing(self, query: str, options: dict[str, Any]) -> Flow[int]:
        removed = 0
        query = query.replace("SELECT", f"SELECT TOP {_BATCH}", 1)
        while items := (yield Io(self._find, self._afind, (query, options))):
            gone = yield Io(self._remove, self._aremove, (items,))
            removed += sum(gone)
        return removed

    def peek(self, keys: Sequence[str]) -> list[bytes | None]:
        items = [run(self._reading(_id(key), self._partition_of(key))) for key in keys]
        return [None if item is None else _value(item) for item in items]

    def scan(self, prefix: str = "") -> Iterator[Record]:
        return self._records(prefix, _LIVE)

    def expired(self, prefix: str = "") -> Iterator[Record]:
        return self._records(prefix, _EXPIRED)

    def _records(self, prefix: str, condition: str) -> Iterator[Record]:
        query, options = self._query("c.key, c.size, c.stored_at, c.expires_at", prefix, condition)
        pages = self._pages(query, options)
        while (page := self._next(pages)) is not None:
            for item in page:
                yield Record(item["key"], item["size"], item["stored_at"], item["expires_at"])

    def _query(self, fields: str, prefix: str, condition: str = "true") -> tuple[str, dict[str, Any]]:
        """Asks for `fields` of entries whose key starts with `prefix`; of one partition if the prefix tells which."""
        where = ["c.kind = 'entry'", "STARTSWITH(c.key, @prefix)", "STARTSWITH(c.partitionKey, @partition)", condition]
        values = {"@prefix": prefix, "@partition": self._partition, "@now": time.time()}
        options: dict[str, Any] = {"parameters": [{"name": name, "value": value} for name, value in values.items()]}
        if ":" in prefix:
            options["partition_key"] = self._partition_of(prefix)
        return f"SELECT {fields} FROM c WHERE {' AND '.join(where)}", options

    def _partition_of(self, key: str) -> str:
        head, colon, _ = key.partition(":")
        # A partition key may have 2 kB at most.
        return self._partition + (head if len(head) <= 200 else hashlib.sha256(_encode(head)).hexdigest()) + colon

    def _item(self, id: str, key: str, ttl: float | None) -> dict[str, Any]:
        now = time.time()
        return {
            "id": id,
            "partitionKey": self._partition_of(key),
            "key": key,
            "stored_at": now,
            "expires_at": None if ttl is None else now + ttl,
            # What the service goes by, in whole seconds; never before what readers go by.
            "ttl": -1 if ttl is None else min(max(1, math.ceil(ttl) + 1), 2**31 - 1),
        }

    # ── leases ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _leasing(self, key: str, token: str, ttl: float) -> Flow[str | None]:
        id, lease = _lease_id(key), self._lease(key, token, ttl)
        with suppress(_Conflict):
            yield self._asking("create_item", lease)
            return token
        item = yield from self._reading(id, lease["partitionKey"])
        if item is not None and _is_live(item) and item["expires_at"] <= time.time() + longest_lease(ttl):
            return None
        with suppress(_Conflict, _Missing):
            if item is None:  # given back between our two requests
                yield self._asking("create_item", lease)
            else:
                # Of several who see that it has expired, the first to replace it changes its etag.
                yield self._asking("replace_item", id, lease, **self._unless_changed(item))
            return token
        return None

    def _renewing(self, key: str, token: str, ttl: float) -> Flow[bool]:
        lease = self._lease(key, token, ttl)
        return (yield from self._changing(lease, token, "replace_item", lease))

    def _releasing(self, key: str, token: str) -> Flow[bool]:
        lease = self._lease(key, token, 0)
        return (yield from self._changing(lease, token, "delete_item", lease["partitionKey"]))

    def _changing(self, lease: Mapping[str, Any], token: str, method: str, argument: Any) -> Flow[bool]:
        """Do `method` to a lease if it is held by `token`, and by nobody else until then."""
        item = yield from self._reading(lease["id"], lease["partitionKey"])
        if item is None or item.get("token") != token or not _is_live(item):
            return False
        with suppress(_Conflict, _Missing):
            yield self._asking(method, lease["id"], argument, **self._unless_changed(item))
            return True
        return False

    def _lease(self, key: str, token: str, ttl: float) -> dict[str, Any]:
        return self._item(_lease_id(key), key, ttl) | {"kind": "lease", "token": token}

    def _unless_changed(self, item: Mapping[str, Any]) -> dict[str, Any]:
        from azure.core import MatchConditions

        return {"etag": item["_etag"], "match_condition": MatchConditions.IfNotModified}

    # ── requests, each in both forms ──────────────────────────────────────────────────────────────────────────────

    def _asking(self, method: str, *args: Any, **options: Any) -> Io:
        return Io(self._ask, self._aask, (method, args, options))

    def _ask(self, method: str, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        container = self._container()
        with self._request():
            return getattr(container, method)(*args, timeout=self.budget, **options)

    async def _aask(self, method: str, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        if self._acredential is None:
            return await asyncio.to_thread(self._ask, method, args, options)
        with self._request():
            async with asyncio.timeout(self.budget):
                container = await self._acontainer()
                return await getattr(container, method)(*args, **options)

    def _pages(self, query: str, options: Mapping[str, Any]) -> Any:
        every = {} if "partition_key" in options else {"enable_cross_partition_query": True}
        return self._container().query_items(query, max_item_count=_BATCH, **every, **options).by_page()

    def _next(self, pages: Any) -> list[dict[str, Any]] | None:
        with self._request():
            page = next(pages, None)
            return None if page is None else list(page)

    def _find(self, query: str, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        pages = self._pages(query, options)
        with self._request():
            return [item for page in pages for item in page]

    async def _afind(self, query: str, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        if self._acredential is None:
            return await asyncio.to_thread(self._find, query, options)
        with self._request():
            container = await self._acontainer()
            return [item async for item in container.query_items(query, max_item_count=_BATCH, **options)]

    def _remove(self, items: Sequence[Mapping[str, Any]]) -> list[bool]:
        def remove(item: Mapping[str, Any]) -> bool:
            return run(self._deleting(item["id"], item["partitionKey"]))

        with ThreadPoolExecutor(_CREW, "rejoinder-cosmos") as crew:
            return list(crew.map(remove, items))

    async def _aremove(self, items: Sequence[Mapping[str, Any]]) -> list[bool]:
        turns = asyncio.Semaphore(_CREW)

        async def remove(item: Mapping[str, Any]) -> bool:
            async with turns:
                return await arun(self._deleting(item["id"], item["partitionKey"]))

        return await asyncio.gather(*map(remove, items))

    @contextmanager
    def _request(self) -> Iterator[None]:
        """Around whatever makes requests: the SDK's errors become ours."""
        from azure.core.exceptions import AzureError

        errors = self._cosmos.exceptions
        try:
            yield
        except errors.CosmosResourceNotFoundError as error:
            raise _Missing(_plain(error)) from None
        except (errors.CosmosResourceExistsError, errors.CosmosAccessConditionFailedError) as error:
            raise _Conflict(_plain(error)) from None
        except TimeoutError:
            raise CosmosError(f"Cosmos DB did not answer within {self.budget} s.") from None
        except AzureError as error:
            raise CosmosError(_plain(error)) from None

    # ── clients ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _container(self) -> Any:
        client = self._client
        if client.pid != os.getpid():
            # Forked: its connections are the parent's. Kept, for their end would be the parent's as well.
            _inherited.append(client)
            client = self._client = Client()
        with self._request():
            return client.container(self._open, self.budget)

    def _open(self) -> Any:
        client = self._cosmos.CosmosClient(self.url, self._credential, **self._settings())
        database = client.get_database_client(self.database_id)
        if self._create:
            # It looks and then creates; somebody may create between the two.
            with suppress(self._cosmos.exceptions.CosmosResourceExistsError):
                client.create_database_if_not_exists(self.database_id)
            with suppress(self._cosmos.exceptions.CosmosResourceExistsError):
                database.create_container_if_not_exists(self.container_id, **self._layout())
        return database.get_container_client(self.container_id)

    async def _acontainer(self) -> Any:
        loop = asyncio.get_running_loop()
        lane = self._lanes.get(loop)
        if lane is None or lane.pid != os.getpid() or lane.has_failed:
            if lane is not None and lane.pid != os.getpid():
                _inherited.append(lane)
            from azure.cosmos.aio import CosmosClient

            client = CosmosClient(self.url, self._acredential, **self._settings())
            keeper = keep(client, self._lanes)
            await anext(keeper)  # does not suspend
            lane = self._lanes[loop] = Lane(keeper, loop.create_task(self._aopen(client)))
        # Shielded: it is everybody's, and a caller that gives up may find it done the next time.
        return await asyncio.shield(lane.opening)

    async def _aopen(self, client: Any) -> Any:
        await client.__aenter__()
        database = client.get_database_client(self.database_id)
        if self._create:
            with suppress(self._cosmos.exceptions.CosmosResourceExistsError):
                await client.create_database_if_not_exists(self.database_id)
            with suppress(self._cosmos.exceptions.CosmosResourceExistsError):
                await database.create_container_if_not_exists(self.container_id, **self._layout())
        return database.get_container_client(self.container_id)

    def _settings(self) -> dict[str, Any]:
        from azure.cosmos.documents import ConnectionPolicy

        policy = ConnectionPolicy()
        # The keyword retry_total=0 is taken for "not given" where the service is asked too often.
        policy.RetryOptions = type(policy.RetryOptions)(max_retry_attempt_count=0, max_wait_time_in_seconds=0)
        retries = dict.fromkeys(("retry_total", "retry_connect", "retry_read", "retry_status"), 0)
        # One after the other, where a pooled connection was closed meanwhile.
        timeouts = {"connection_timeout": self.budget / 4, "read_timeout": self.budget * 3 / 4}
        return {"connection_policy": policy, **retries, **timeouts, **self._options}

    def _layout(self) -> dict[str, Any]:
        path = self._cosmos.PartitionKey(PARTITION_PATH)
        # -1: items expire by their own ttl, and without one never.
        return {"partition_key": path, "default_ttl": -1, "indexing_policy": _INDEX}

    def close(self) -> None:
        """Drop the connections of threads now; a running event loop closes its own at its next turn."""
        self._client = Client()
        for reference in self._lanes.keyrefs():
            loop = reference()
            lane = self._lanes.pop(loop, None) if loop is not None else None
            if loop is not None and lane is not None and lane.pid == os.getpid():
                with suppress(RuntimeError):  # closed already, and its clients with it
                    loop.call_soon_threadsafe(finish, lane)

    async def aclose(self) -> None:
        """Close this event loop's connections and those of threads; another running loop closes its own soon."""
        lane = self._lanes.pop(asyncio.get_running_loop(), None)
        if lane is not None and lane.pid == os.getpid():
            await lane.aclose()
        self.close()


class _Missing(CosmosError):
    """There is no such item, or no such container."""


class _Conflict(CosmosError):
    """The item is there already, or has been changed."""


_inherited: list[Client | Lane] = []

_EXPIRED = "(IS_NUMBER(c.expires_at) AND c.expires_at <= @now)"
_LIVE = "(NOT IS_NUMBER(c.expires_at) OR c.expires_at > @now)"


def _is_live(item: Mapping[str, Any]) -> bool:
    end = item.get("expires_at")
    return end is None or end > time.time()


def _value(item: Mapping[str, Any]) -> bytes:
    try:
        return base64.b64decode(item["data"], validate=True)
    except (KeyError, TypeError, ValueError):
        return b""  # which is no entry: the cache counts it and sets it aside


def _id(key: str) -> str:
    return "e" + hashlib.sha256(_encode(key)).hexdigest()


def _lease_id(key: str) -> str:
    return "l" + hashlib.sha256(_encode(key)).hexdigest()


def _encode(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


def _read(connection_string: str) -> tuple[str, str]:
    """The url and the key of `AccountEndpoint=…;AccountKey=…;`. Its text appears in no error."""
    fields = dict(part.split("=", 1) for part in connection_string.split(";") if "=" in part)
    names = {name.strip().lower(): value.strip() for name, value in fields.items()}
    if not names.get("accountendpoint") or not names.get("accountkey"):
        raise ConfigurationError(
            "The connection_string of the Cosmos store cannot be read. It looks like "
            "AccountEndpoint=https://….documents.azure.com:443/;AccountKey=…;"
        )
    return names["accountendpoint"], names["accountkey"]


def _checked(key: str) -> str:
    try:
        base64.b64decode(key, validate=True)
    except ValueError:
        raise ConfigurationError("The key of the Cosmos store is not base64. Copy it whole.") from None
    return key


def _plain(error: BaseException) -> str:
    """The beginning of an error's message. What follows may be the service's whole answer."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"


def _import_cosmos() -> Any:
    try:
        import aiohttp  # noqa: F401 - what the SDK's async half sends with
        import azure.cosmos
        import azure.cosmos.exceptions
    except ImportError as error:
        package = "aiohttp" if error.name == "aiohttp" else "azure-cosmos"
        raise MissingPackage("The Cosmos store", package, "rejoinder[cosmos]") from None
    return azure.cosmos
