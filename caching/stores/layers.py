"""Several stores as one: quick and small before slow and large."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from ...core.errors import CacheError, ConfigurationError
from ..breaker import Breaker
from ..policy import shorter
from .base import Record, Store, TooLarge

log = logging.getLogger("rejoinder")


class LayeredStore(Store):
    """Looks in each store in turn. What a later one has is put into those before it; what is set goes into all.

    `ttls` bounds how long each layer keeps a value, in seconds (None: as long as it is told). A layer that fails is
    counted and passed by for a while; the others go on. Only when every layer fails does an operation raise. What is
    too large for a layer is not kept in it, which is no failure. Leases and scans are those of the last layer, the one
    that processes share.
    """

    name: ClassVar[str] = "layers"

    def __init__(self, stores: Sequence[Store], ttls: Sequence[float | None] | None = None) -> None:
        if len(stores) < 2:
            raise ConfigurationError(f"Layers need two stores or more, not {len(stores)}.")
        self.stores = tuple(stores)
        self.ttls = tuple(ttls) if ttls is not None else (None,) * len(self.stores)
        if len(self.ttls) != len(self.stores):
            raise ConfigurationError(f"{len(self.stores)} layers, but {len(self.ttls)} ttls.")
        self.leases = self.last.leases  # type: ignore[misc]  # of this object, by its last layer
        self.breakers = tuple(Breaker() for _ in self.stores)
        self.errors = [0] * len(self.stores)

    def __repr__(self) -> str:
        return f"LayeredStore({', '.join(map(repr, self.stores))})"

    @property
    def last(self) -> Store:
        """The layer that processes share."""
        return self.stores[-1]

    def state(self) -> list[dict[str, Any]]:
        """Each layer's store, errors, and whether it is passed by."""
        return [
            {"store": store.name, "errors": errors, "breaker": "open" if breaker.is_open else "closed"}
            for store, errors, breaker in zip(self.stores, self.errors, self.breakers, strict=True)
        ]

    # ── one layer at a time ───────────────────────────────────────────────────────────────────────────────────────

    def _open_layers(self) -> list[int]:
        return [index for index, breaker in enumerate(self.breakers) if breaker.allows()]

    def _failed(self, index: int, error: Exception) -> None:
        self.errors[index] += 1
        if self.breakers[index].fail():
            store = self.stores[index].name
            log.warning("Layer %d (%s) failed and is passed by: %s: %s", index + 1, store, type(error).__name__, error)

    def _kept(self, index: int, ttl: float | None) -> float | None:
        return shorter(ttl, self.ttls[index])

    def _promote(self, before: int, key: str, value: bytes) -> None:
        tags = self._tags_of(before, key)
        for index in range(before):
            if self.breakers[index].allows():
                if tags:
                    self._do(index, "tag", key, tags, self.ttls[index])
                self._do(index, "set", key, value, self.ttls[index])

    async def _apromote(self, before: int, key: str, value: bytes) -> None:
        tags = self._tags_of(before, key)
        for index in range(before):
            if self.breakers[index].allows():
                if tags:
                    await self._ado(index, "tag", key, tags, self.ttls[index])
                await self._ado(index, "set", key, value, self.ttls[index])

    def _tags_of(self, index: int, key: str) -> Sequence[str]:
        """What goes along with a value into the layers before, which may have it longer.

        Asked of instant stores only: those are the ones that evict, and another would have to be waited for.
        """
        if not self.stores[index].instant:
            return ()
        done, tags = self._do(index, "tags_of", key)
        return tags if done else ()

    def _do(self, index: int, method: str, *args: Any) -> tuple[bool, Any]:
        """Whether a layer did something, and what it answered."""
        try:
            answer = getattr(self.stores[index], method)(*args)
        except TooLarge as error:  # which says nothing of the layer
            return False, error
        except Exception as error:
            self._failed(index, error)
            return False, error
        self.breakers[index].succeed()
        return True, answer

    async def _ado(self, index: int, method: str, *args: Any) -> tuple[bool, Any]:
        store = self.stores[index]
        if store.in_process or (store.instant and method == "get"):
            return self._do(index, method, *args)
        try:
            answer = await getattr(store, "a" + method)(*args)
        except TooLarge as error:
            return False, error
        except Exception as error:
            self._failed(index, error)
            return False, error
        self.breakers[index].succeed()
        return True, answer

    # ── the protocol ──────────────────────────────────────────────────────────────────────────────────────────────

    def get(self, key: str) -> bytes | None:
        outcomes = []
        for index in self._open_layers():
            done, value = self._do(index, "get", key)
            if done and value is not None:
                self._promote(index, key, value)
                return value  # type: ignore[no-any-return]
            outcomes.append((done, value))
        return self._settled(outcomes, None)  # type: ignore[no-any-return]

    async def aget(self, key: str) -> bytes | None:
        outcomes = []
        for index in self._open_layers():
            done, value = await self._ado(index, "get", key)
            if done and value is not None:
                await self._apromote(index, key, value)
                return value  # type: ignore[no-any-return]
            outcomes.append((done, value))
        return self._settled(outcomes, None)  # type: ignore[no-any-return]

    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        outcomes = [self._do(index, "set", key, value, self._kept(index, ttl)) for index in self._open_layers()]
        self._settled(outcomes, None)

    async def aset(self, key: str, value: bytes, ttl: float | None = None) -> None:
        outcomes = [await self._ado(index, "set", key, value, self._kept(index, ttl)) for index in self._open_layers()]
        self._settled(outcomes, None)

    def delete(self, key: str) -> bool:
        outcomes = [self._do(index, "delete", key) for index in self._open_layers()]
        return bool(self._settled(outcomes, any(answer for done, answer in outcomes if done)))

    async def adelete(self, key: str) -> bool:
        outcomes = [await self._ado(index, "delete", key) for index in self._open_layers()]
        return bool(self._settled(outcomes, any(answer for done, answer in outcomes if done)))

    def clear(self, prefix: str = "") -> int:
        counts = [store.clear(prefix) for store in self.stores]
        return counts[-1]

    async def aclear(self, prefix: str = "") -> int:
        counts = [await store.aclear(prefix) for store in self.stores]
        return counts[-1]

    def tag(self, key: str, tags: Sequence[str], ttl: float | None = None) -> None:
        outcomes = [self._do(index, "tag", key, tags, self._kept(index, ttl)) for index in self._open_layers()]
        self._settled(outcomes, None)

    async def atag(self, key: str, tags: Sequence[str], ttl: float | None = None) -> None:
        outcomes = [await self._ado(index, "tag", key, tags, self._kept(index, ttl)) for index in self._open_layers()]
        self._settled(outcomes, None)

    def tagged(self, prefix: str, tag: str) -> Iterator[str]:
        return iter({key for store in self.stores for key in store.tagged(prefix, tag)})

    def clear_tag(self, prefix: str, tag: str) -> int:
        # A layer that got a value by promotion may not know its tags.
        keys = list(self.tagged(prefix, tag))
        found = [[store.delete(key) for store in self.stores] for key in keys]
        for store in self.stores:
            store.clear_tag(prefix, tag)
        return sum(map(any, found))

    def scan(self, prefix: str = "") -> Iterator[Record]:
        return self.last.scan(prefix)

    def expired(self, prefix: str = "") -> Iterator[Record]:
        return self.last.expired(prefix)

    def peek(self, keys: Sequence[str]) -> list[bytes | None]:
        return self.last.peek(keys)

    def prune(self) -> int:
        return [store.prune() for store in self.stores][-1]

    def close(self) -> None:
        for store in self.stores:
            store.close()

    async def aclose(self) -> None:
        for store in self.stores:
            await store.aclose()

    def _settled(self, outcomes: list[tuple[bool, Any]], answer: Any) -> Any:
        """`answer`, unless every layer has failed or is passed by: then the last one's error."""
        if any(done for done, _ in outcomes):
            return answer
        raise outcomes[-1][1] if outcomes else CacheError("Every layer has failed and is passed by for a while.")

    # ── leases ────────────────────────────────────────────────────────────────────────────────────────────────────

    def lease(self, key: str, ttl: float) -> str | None:
        return self.last.lease(key, ttl)

    def renew(self, key: str, token: str, ttl: float) -> bool:
        return self.last.renew(key, token, ttl)

    def release(self, key: str, token: str) -> bool:
        return self.last.release(key, token)

    async def alease(self, key: str, ttl: float) -> str | None:
        return await self.last.alease(key, ttl)

    async def arenew(self, key: str, token: str, ttl: float) -> bool:
        return await self.last.arenew(key, token, ttl)

    async def arelease(self, key: str, token: str) -> bool:
        return await self.last.arelease(key, token)
