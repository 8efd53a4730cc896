"""In an object store: S3, Google Cloud Storage, Azure Blob Storage or a folder, shared by whoever may read the bucket.

Entries are objects below `<prefix>/e/`, leases below `<prefix>/l/`. Each begins with a small head that holds its times:
object stores have no time to live for a single key, and some drop what is attached to an object.
"""

from __future__ import annotations

import asyncio
import secrets
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, NamedTuple

from ...core.errors import ConfigurationError
from ...core.flow import Flow, Io, arun, run
from .base import Record, Store, longest_lease
from .object_bucket import Bucket, Found
from .object_bucket import ObjectStoreError as ObjectStoreError
from .object_names import covers, decode, encode, folder_of, is_hashed, key_of, name_of

BUDGET = 1.0
"""Seconds. A first request to a cloud resolves a name, connects, agrees on TLS and may fetch credentials."""

_READERS = 16  # heads read at once while scanning
_LINGER = 6  # budgets that a lease is given when it is about to be removed
_FORGOTTEN = 60.0  # seconds after which an expired lease is nobody's, for `prune`

MAGIC = b"RJO1"
_HEAD = struct.Struct(">4sddI")  # the magic, stored at, expires at (infinity: never), bytes of the key that follow


class ObjectStore(Store):
    """A bucket, container or folder through `obstore`.

    `url` is `s3://bucket/path`, `gs://bucket/path`, `az://container/path`, `file:///folder` or `memory://`. Further
    keywords go to obstore's store of that kind (`region`, `endpoint`, `account_name`, `credential_provider`,
    `client_options`, …), which also reads the usual environment variables. Or give an object of `obstore.store`, used
    as it is, with its own timeouts and retries.

    `budget` bounds each request; nothing is retried. Reading and writing are one request, removing two. `scan` reads
    the head of every entry, `clear` mostly does not.

    `leases` says whether the service obeys conditions of a PUT (`If-None-Match`, `If-Match`). S3, Google's and Azure
    do; of S3's imitations not all. A folder has none, whatever is said here. Times go by the clocks of the processes:
    hosts should agree to within a second.

    obstore does not survive a fork once it was used. A child forked after that is told so at once, by an
    `ObjectStoreError`, and goes on without this store; one forked before the first use may use it.
    """

    name: ClassVar[str] = "object"
    leases: ClassVar[bool] = True

    def __init__(
        self,
        url: str | Any,
        *,
        prefix: str = "rejoinder",
        budget: float = BUDGET,
        leases: bool = True,
        **config: Any,
    ) -> None:
        self._bucket = Bucket(url, budget, config)
        self.budget, self.prefix = budget, prefix.strip("/")
        self.leases = leases and not self._bucket.is_folder  # type: ignore[misc]  # of this object, by what is behind it
        start = f"{self.prefix}/" if self.prefix else ""
        self._entries, self._leases = f"{start}e/", f"{start}l/"

    def __repr__(self) -> str:
        return f"ObjectStore({self._bucket}, prefix={self.prefix!r})"

    # ── sync and async ────────────────────────────────────────────────────────────────────────────────────────────

    def get(self, key: str) -> bytes | None:
        return run(self._getting(key))

    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        self._bucket.put(*self._entry(key, value, ttl))

    def delete(self, key: str) -> bool:
        return run(self._deleting(key))

    def clear(self, prefix: str = "") -> int:
        return run(self._clearing(prefix))

    def close(self) -> None:
        """Drop the connections of a store that was opened by url."""
        self._bucket.reopen(self.budget)

    def lease(self, key: str, ttl: float) -> str | None:
        return run(self._leasing(key, secrets.token_hex(16), ttl))

    def renew(self, key: str, token: str, ttl: float) -> bool:
        return run(self._renewing(key, token, ttl))

    def release(self, key: str, token: str) -> bool:
        return run(self._releasing(key, token))

    async def aget(self, key: str) -> bytes | None:
        return await arun(self._getting(key))

    async def aset(self, key: str, value: bytes, ttl: float | None = None) -> None:
        await self._bucket.aput(*self._entry(key, value, ttl))

    async def adelete(self, key: str) -> bool:
        return await arun(self._deleting(key))

    async def aclear(self, prefix: str = "") -> int:
        return await arun(self._clearing(prefix))

    async def alease(self, key: str, ttl: float) -> str | None:
        token = secrets.token_hex(16)
        with self.leaving_nothing_taken(key, token):
            return await arun(self._leasing(key, token, ttl))

    async def arenew(self, key: str, token: str, ttl: float) -> bool:
        return await arun(self._renewing(key, token, ttl))

    async def arelease(self, key: str, token: str) -> bool:
        return await arun(self._releasing(key, token))

    # ── entries ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _entry(self, key: str, value: bytes, ttl: float | None) -> tuple[str, bytes]:
        name = name_of(key)
        return self._entries + name, pack(value, ttl, encode(key) if is_hashed(name) else b"")

    def _getting(self, key: str) -> Flow[bytes | None]:
        found = yield Io(self._bucket.fetch, self._bucket.afetch, (self._entries + name_of(key),))
        if found is None:
            return None
        head = _Head.read(found.data)
        if head is None:
            return b""  # which is no entry: the cache counts it and sets it aside
        return head.value(found.data) if head.is_live else None

    def _deleting(self, key: str) -> Flow[bool]:
        path = self._entries + name_of(key)
        # S3 answers alike whether there was something to remove or not.
        if not (yield Io(self._bucket.is_there, self._bucket.ais_there, (path,))):
            return False
        yield Io(self._bucket.remove, self._bucket.aremove, ([path],))
        return True

    def _clearing(self, prefix: str) -> Flow[int]:
        removed, pages = 0, self._bucket.pages(self._entries + folder_of(prefix))
        while page := (yield Io(self._bucket.page, self._bucket.apage, (pages,))):
            paths = [each["path"] for each in page]
            if not covers(prefix):
                keys = yield Io(self._keys, self._akeys, (paths,))
                paths = [path for path, key in zip(paths, keys, strict=True) if key and key.startswith(prefix)]
            if paths:
                yield Io(self._bucket.remove, self._bucket.aremove, (paths,))
            removed += len(paths)
        return removed

    def peek(self, keys: Sequence[str]) -> list[bytes | None]:
        def look(key: str) -> bytes | None:
            found = self._bucket.fetch(self._entries + name_of(key))
            head = found and _Head.read(found.data)
            return None if found is None else head.value(found.data) if head else b""

        return self._each(look, keys)

    def scan(self, prefix: str = "") -> Iterator[Record]:
        return (record for record in self._records(prefix) if _is_live(record.expires_at))

    def expired(self, prefix: str = "") -> Iterator[Record]:
        return (record for record in self._records(prefix) if not _is_live(record.expires_at))

    def prune(self) -> int:
        """Remove expired entries, and leases whose holder is long gone.

        Somebody may write an entry anew between our look and its removal. That one is lost, and costs a request.
        """
        self._prune(self._leases, time.time() - _FORGOTTEN)
        return self._prune(self._entries, time.time())

    def _prune(self, folder: str, now: float) -> int:
        removed, pages = 0, self._bucket.pages(folder)
        while page := self._bucket.page(pages):
            paths = [each["path"] for each in page]
            heads = self._each(self._head, paths)
            dead = [path for path, head in zip(paths, heads, strict=True) if head and head.expires_at <= now]
            if dead:
                self._bucket.remove(dead)
            removed += len(dead)
        return removed

    def _records(self, prefix: str) -> Iterator[Record]:
        pages = self._bucket.pages(self._entries + folder_of(prefix))
        while page := self._bucket.page(pages):
            keys = dict(zip([each["path"] for each in page], self._keys([each["path"] for each in page]), strict=True))
            wanted = [each for each in page if (keys[each["path"]] or "").startswith(prefix)]
            heads = self._each(self._head, [each["path"] for each in wanted])
            for each, head in zip(wanted, heads, strict=True):
                key = keys[each["path"]]
                if head is not None and key is not None:
                    yield Record(key, each["size"] - head.length, head.stored_at, head.end)

    def _keys(self, paths: list[str]) -> list[str | None]:
        if any(map(is_hashed, paths)):
            return self._each(self._key, paths)
        return [self._key(path) for path in paths]

    async def _akeys(self, paths: list[str]) -> list[str | None]:
        return await asyncio.to_thread(self._keys, paths)

    def _key(self, path: str) -> str | None:
        """The key of an entry; None if it has gone meanwhile, or is none of ours."""
        name = path.removeprefix(self._entries)
        if not is_hashed(name):
            return key_of(name)
        head = self._head(path)
        data = head and self._bucket.piece(path, _HEAD.size, head.length)
        return decode(data) if data else None

    def _head(self, path: str) -> _Head | None:
        return _Head.read(self._bucket.piece(path, 0, _HEAD.size) or b"")

    def _each(self, work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        if len(items) < 2:
            return [work(item) for item in items]
        with ThreadPoolExecutor(min(_READERS, len(items)), "rejoinder-object") as crew:
            return list(crew.map(work, items))

    # ── leases ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _leasing(self, key: str, token: str, ttl: float) -> Flow[str | None]:
        path = self._lease_path(key)
        if (yield self._put_if(path, token, ttl, "create")):
            return token
        found = yield Io(self._bucket.fetch, self._bucket.afetch, (path,))
        if found is None:  # given back between our two requests
            return token if (yield self._put_if(path, token, ttl, "create")) else None
        head = _Head.read(found.data)
        latest = time.time() + longest_lease(ttl) + _LINGER * self.budget
        if head is not None and head.is_live and head.expires_at <= latest:
            return None
        # Of several who see that it has expired, the first to replace it changes its version.
        return token if (yield self._put_if(path, token, ttl, found.version)) else None

    def _renewing(self, key: str, token: str, ttl: float) -> Flow[bool]:
        path = self._lease_path(key)
        found = yield Io(self._bucket.fetch, self._bucket.afetch, (path,))
        if not _is_held(found, token):
            return False
        return bool((yield self._put_if(path, token, ttl, found.version)))

    def _releasing(self, key: str, token: str) -> Flow[bool]:
        # A DELETE knows no conditions:
        #   we: read our lease, about to expire
        #   they:                                take it over
        #   we:                                                delete theirs
        # So what is left of ours must outlast our request; if it may not, it is made longer first.
        path = self._lease_path(key)
        found = yield Io(self._bucket.fetch, self._bucket.afetch, (path,))
        head = _is_held(found, token)
        if not head:
            return False
        linger = _LINGER * self.budget
        if head.expires_at - time.time() < linger / 2 and not (yield self._put_if(path, token, linger, found.version)):
            return False
        yield Io(self._bucket.remove, self._bucket.aremove, ([path],))
        return True

    def _lease_path(self, key: str) -> str:
        if not self.leases:
            raise NotImplementedError("This object store has no leases.")
        return self._leases + name_of(key)

    def _put_if(self, path: str, token: str, ttl: float, mode: Any) -> Io:
        return Io(self._bucket.try_to_put, self._bucket.atry_to_put, (path, pack(token.encode(), ttl), mode))


class _Head(NamedTuple):
    stored_at: float
    expires_at: float
    length: int
    """Bytes before the value: the head, and a key that is too long for a name."""

    @classmethod
    def read(cls, data: bytes) -> _Head | None:
        """The head that `data` begins with; None if it is not one of ours."""
        if not data.startswith(MAGIC) or len(data) < _HEAD.size:
            return None
        _, stored_at, expires_at, key_length = _HEAD.unpack_from(data)
        return cls(stored_at, expires_at, _HEAD.size + key_length)

    @property
    def is_live(self) -> bool:
        return self.expires_at > time.time()

    @property
    def end(self) -> float | None:
        return None if self.expires_at == float("inf") else self.expires_at

    def value(self, data: bytes) -> bytes:
        return data[self.length :]


def pack(value: bytes, ttl: float | None, key: bytes = b"") -> bytes:
    """What is put into an object: the head, the key where the object's name does not tell it, and the value."""
    now = time.time()
    return _HEAD.pack(MAGIC, now, float("inf") if ttl is None else now + ttl, len(key)) + key + value


def _is_held(found: Found | None, token: str) -> _Head | None:
    head = _Head.read(found.data) if found is not None else None
    is_ours = head is not None and head.is_live and found is not None and head.value(found.data) == token.encode()
    return head if is_ours else None


def _is_live(expires_at: float | None) -> bool:
    return expires_at is None or expires_at > time.time()


# ── opening ───────────────────────────────────────────────────────────────────────────────────────────────────────────

LITELLM = {
    "s3_region_name": "region",
    "s3_endpoint_url": "endpoint",
    "s3_aws_access_key_id": "access_key_id",
    "s3_aws_secret_access_key": "secret_access_key",
    "s3_aws_session_token": "session_token",
    "gcs_path_service_account": "service_account",
    "s3_path": "prefix",
    "gcs_path": "prefix",
}
"""Options of litellm's caches, and what they are called here."""

PLACES = {"s3_bucket_name": "s3://{}", "gcs_bucket_name": "gs://{}", "azure_account_url": "{}/{}"}
"""Options of litellm's caches that say where, and the url that they make."""


def open_store(options: Mapping[str, Any], budget: float) -> ObjectStore:
    """The store for the options of `Cache(type="object")`, which may be named as litellm names them."""
    given = {LITELLM.get(name, name): value for name, value in options.items()}
    for name, url in PLACES.items():
        if name in given:
            given["url"] = url.format(given.pop(name).rstrip("/"), given.pop("azure_blob_container", ""))
    if "url" not in given:
        raise ConfigurationError("An object store needs url=, such as s3://bucket, gs://bucket or az://container.")
    return ObjectStore(given.pop("url"), budget=budget, **given)
