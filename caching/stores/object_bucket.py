"""The requests that the object store makes of a bucket, a container or a folder, through `obstore`."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ...core.errors import ConfigurationError, MissingPackage

_PAGE = 1000  # objects listed, and removed, in one round trip


class ObjectStoreError(OSError):
    """The object store did not do what it was asked. The message holds no credentials."""


class Conflict(ObjectStoreError):
    """A condition of a PUT did not hold."""


class Found(NamedTuple):
    data: bytes
    version: dict[str, str]


class Bucket:
    """What `url` names, or an object of `obstore.store`. Each request takes `budget` at most; none is repeated."""

    def __init__(self, url: str | Any, budget: float, config: Mapping[str, Any]) -> None:
        self._obstore = _import_obstore()
        if not isinstance(url, str) and config:
            raise ConfigurationError(f"A store of your own takes no {', '.join(config)}.")
        self._url, self._budget, self._config = url, budget, config
        self._objects = self._open()

    def __str__(self) -> str:
        """Where it is, without what may be secret: a signature stands in the query, a password before the host."""
        if not isinstance(self._url, str):
            return type(self._url).__name__
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def is_folder(self) -> bool:
        return isinstance(self._objects, self._obstore.store.LocalStore)

    def reopen(self, budget: float) -> None:
        """Drop the connections of a store that was opened by url."""
        self._budget = budget
        if isinstance(self._url, str) and not isinstance(self._objects, self._obstore.store.MemoryStore):
            self._objects = self._open()  # what is under way keeps the old one

    def fetch(self, path: str) -> Found | None:
        with self._request():
            try:
                result = self._obstore.get(self._objects, path)
                return Found(result.bytes().to_bytes(), _version(result.meta))
            except FileNotFoundError:
                return None

    async def afetch(self, path: str) -> Found | None:
        with self._request():
            try:
                result = await self._obstore.get_async(self._objects, path)
                return Found((await result.bytes_async()).to_bytes(), _version(result.meta))
            except FileNotFoundError:
                return None

    def put(self, path: str, data: bytes, mode: Any = "overwrite") -> None:
        with self._request():
            self._obstore.put(self._objects, path, data, mode=mode, use_multipart=False)

    async def aput(self, path: str, data: bytes, mode: Any = "overwrite") -> None:
        with self._request():
            await self._obstore.put_async(self._objects, path, data, mode=mode, use_multipart=False)

    def try_to_put(self, path: str, data: bytes, mode: Any) -> bool:
        try:
            self.put(path, data, mode)
        except Conflict:
            return False
        return True

    async def atry_to_put(self, path: str, data: bytes, mode: Any) -> bool:
        try:
            await self.aput(path, data, mode)
        except Conflict:
            return False
        return True

    def is_there(self, path: str) -> bool:
        with self._request():
            try:
                self._obstore.head(self._objects, path)
            except FileNotFoundError:
                return False
            return True

    async def ais_there(self, path: str) -> bool:
        with self._request():
            try:
                await self._obstore.head_async(self._objects, path)
            except FileNotFoundError:
                return False
            return True

    def piece(self, path: str, start: int, end: int) -> bytes | None:
        with self._request():
            try:
                data: bytes = self._obstore.get_range(self._objects, path, start=start, end=end).to_bytes()
            except FileNotFoundError:
                return None
            return data

    def remove(self, paths: list[str]) -> None:
        with self._request():
            try:
                self._obstore.delete(self._objects, paths)
            except FileNotFoundError:  # a folder stops at the first that somebody else has removed
                for path in paths if len(paths) > 1 else ():
                    self.remove([path])

    async def aremove(self, paths: list[str]) -> None:
        with self._request():
            try:
                await self._obstore.delete_async(self._objects, paths)
            except FileNotFoundError:
                for path in paths if len(paths) > 1 else ():
                    await self.aremove([path])

    def pages(self, folder: str) -> Any:
        with self._request():
            return self._obstore.list(self._objects, folder.rstrip("/"), chunk_size=_PAGE)

    def page(self, pages: Any) -> Any:
        with self._request():
            return next(pages, None)

    async def apage(self, pages: Any) -> Any:
        with self._request():
            return await anext(pages, None)

    @contextmanager
    def _request(self) -> Iterator[None]:
        """Around whatever makes requests: refuses in a forked child, and makes obstore's errors ours."""
        _Runtime.claim()
        errors = self._obstore.exceptions
        try:
            yield
        except (errors.AlreadyExistsError, errors.PreconditionError):
            raise Conflict("Somebody else has changed it.") from None
        except (errors.BaseError, FileNotFoundError, NotImplementedError) as error:
            # 409 is what S3 says to all but one of those who write under a condition at the same moment.
            if " 409 " in str(error):
                raise Conflict("Somebody else is changing it.") from None
            raise ObjectStoreError(_plain(error)) from None

    def _open(self) -> Any:
        if not isinstance(self._url, str):
            return self._url
        if urlsplit(self._url).scheme == "memory" and not self._config:
            return self._obstore.store.MemoryStore()
        options: dict[str, Any] = dict(self._config)
        if urlsplit(self._url).scheme == "file":
            options.setdefault("mkdir", True)
        else:
            options["client_options"] = {
                "timeout": timedelta(seconds=self._budget),
                "connect_timeout": timedelta(seconds=self._budget / 2),
                **({"allow_http": True} if str(options.get("endpoint", "")).startswith("http://") else {}),
                **(options.get("client_options") or {}),
            }
            options.setdefault("retry_config", {"max_retries": 0})
        try:
            return self._obstore.store.from_url(self._url, **options)
        except (self._obstore.exceptions.BaseError, TypeError, ValueError) as error:
            raise ConfigurationError(f"The object store cannot be set up: {_plain(error)}") from None


class _Runtime:
    """Which process's threads do obstore's work. They do not follow into a forked child, which would wait for ever."""

    pid: int | None = None
    _claiming = threading.Lock()

    @classmethod
    def claim(cls) -> None:
        if cls.pid is None:
            with cls._claiming:
                cls.pid = cls.pid or os.getpid()
        if cls.pid != os.getpid():
            raise ObjectStoreError(
                "obstore was used before this process was forked and cannot be used in it. Fork before the first call, "
                "or start processes by 'spawn'."
            )


def _version(meta: Mapping[str, Any]) -> dict[str, str]:
    return {field: meta[field] for field in ("e_tag", "version") if meta.get(field)}


def _import_obstore() -> Any:
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError:
        raise MissingPackage("The object store", "obstore", "rejoinder[object]") from None
    return obstore


def _plain(error: Exception) -> str:
    """The beginning of an error's message, and the service's word for it. Its whole answer may quote a token."""
    text = str(error)
    code = re.search(r"<Code>(\w+)</Code>", text)
    beginning = re.sub(r"\?\S*", "", re.split(r"[<{\n]", text, maxsplit=1)[0]).strip(" :")
    return f"{beginning[:300]} {code[1]}" if code else beginning[:300]
