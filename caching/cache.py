"""The cache: the facade over one store, and the owner of everything that an entry means.

Nothing in here may fail a call or make it slow. A store that raises is counted, logged once and passed by for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import logging
import os
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..core import settings, threads
from ..core.errors import CacheError, CacheKeyError, ConfigurationError, WrongType, suggestion
from ..core.flow import Flow, Io, arun, run
from ..core.types import Request
from . import blocks, explain, keys, leases, samples
from .breaker import Breaker
from .entry import BadEntry, Entry, pack, unpack
from .explain import Explanation
from .flights import Flights
from .keys import request_key
from .ledger import Ledger, checked_ledger
from .policy import (
    CachePolicy,
    Controls,
    check_mode,
    in_mode,
    is_fresh,
    is_text,
    mode_now,
    mode_of_process,
    seconds,
    shorter,
    slid,
    with_dict,
    with_policy,
)
from .renewals import Renewals
from .seal import Keys, sealer
from .stores import factory
from .stores.base import MARK, Store, Taking, TooLarge, is_mark

log = logging.getLogger("rejoinder")

ENDPOINTS = (
    *("completion", "text_completion", "responses", "embedding", "image_generation", "transcription", "translation"),
    *("speech", "moderation", "rerank", "count_tokens", "ocr"),
)
CALL_TYPES = (*ENDPOINTS, *(f"a{name}" for name in ENDPOINTS))
"""What `supported_call_types` may name: the functions of the front door, each with its async twin."""
CALL_TYPES_ELSEWHERE = ("anthropic_messages", "aanthropic_messages")
"""litellm's lists name these too. There are no such calls here, and so nothing to switch on or off."""
DEFAULTS = ("default_on", "default_off")
SETTLED = frozenset(
    {"early_refresh", "error_ttl", "mode", "namespace", "sliding", "stale_if_error", "stale_while_revalidate"}
    | {"store_if", "tags", "ttl", "type"}
)
"""Settings that calls would not notice if they were changed later."""
OWN, VALUE = "own:", "value:"
"""What sets keys of a caller's own function, and values kept with `Cache.set`, apart from default keys in a store."""
COUNTERS = (
    "hits",
    "misses",
    "stored",
    "renewed",
    "migrated",
    "shared",
    "stale",
    "stale_errors",
    "corrupt",
    "refused",
    "errors_kept",
    "errors_served",
    "read_errors",
    "write_errors",
    "lease_errors",
    "key_errors",
    "passed_by",
    "shadow_hits",
    "shadow_misses",
    "shadow_same",
)

epoch: contextvars.ContextVar[int | None] = contextvars.ContextVar("rejoinder_epoch", default=None)
"""The n-th round of an experiment; in the key unless the policy says `per_epoch=False`."""


class Cache:
    """Answers that have been given before.

    >>> import rejoinder
    >>> rejoinder.cache = rejoinder.Cache(type="redis", host="localhost", port=6379)  # doctest: +SKIP

    `type` is "local" (this process's memory), "disk" (one SQLite file), "redis", "sql", "s3" or "cosmos" (`TYPES` has
    all); or give `store=` an object of your own. Layers are `Cache([first, second])`, or `next_cache=`: a hit in the
    second fills the first, a miss fills both.

    `ttl` is in seconds or a text such as "3h" (None: for ever). For `stale_while_revalidate` after that an answer still
    serves at once while a new one is fetched; for `stale_if_error` it serves where the vendor fails.

    `early_refresh` seconds before its end an answer serves while a new one is fetched. With `sliding`, an answer that
    serves is kept for another `ttl`. For `error_ttl` a vendor's error is kept which the same request would only meet
    again: too long a prompt, no such model. `store_if` is asked of each answer whether it is kept (None: the usual
    judgement). By `tags` answers are removed together: `clear(tag="draft")`. What is missing is looked for in `old`,
    another cache, and copied from there.

    `namespace` is a hard partition. `mode` is "default_on" or "default_off" (only calls with `caching=True` or
    `cache=…` use it), or one of the modes of `policy.MODES`. `budget` is how long a failing store may delay a call, in
    seconds. `on_key_error` is "raise", or "skip" to answer a call uncached when a key function of the caller's own
    fails. With `keep_requests` an entry keeps its request's text too, for `explain`. `sign_with` (a key, or several,
    of which the first signs) or `encrypt_with` (the same, or such by namespace) make entries that others cannot forge.
    `ledger` counts what its calls cost and saved: a `Ledger`, True for a new one, or a file's name.
    """

    def __init__(
        self,
        type: str | Sequence[Cache | Store] = "local",
        host: str | None = None,
        port: int | str | None = None,
        password: str | None = None,
        *,
        username: str | None = None,
        db: int | None = None,
        ssl: bool | None = None,
        redis_url: str | None = None,
        disk_cache_dir: str | Path | None = None,
        max_entries: int | None = None,
        max_bytes: int | None = None,
        store: Store | None = None,
        next_cache: Cache | Store | None = None,
        ttl: str | float | None = None,
        namespace: str | None = None,
        cache_seed: object = None,
        mode: str = "default_on",
        supported_call_types: Sequence[str] | None = None,
        stale_while_revalidate: str | float | None = None,
        stale_if_error: str | float | None = None,
        early_refresh: str | float | None = None,
        sliding: bool | None = None,
        error_ttl: str | float | None = None,
        store_if: Callable[[Any], bool | None] | None = None,
        tags: Sequence[str] | None = None,
        old: Cache | None = None,
        keep_requests: bool = False,
        sign_with: Keys | None = None,
        encrypt_with: Keys | Mapping[str, Keys] | None = None,
        single_flight: bool = True,
        lease_ttl: float = 10.0,
        budget: float | None = None,
        on_key_error: str = "raise",
        ledger: Ledger | bool | str | Path | None = None,
        default_in_memory_ttl: float | None = None,
        default_in_redis_ttl: float | None = None,
        clock: Callable[[], float] = time.time,
        **store_options: Any,
    ) -> None:
        given = {
            "host": host,
            "port": port,
            "password": password,
            "username": username,
            "db": db,
            "ssl": ssl,
            "redis_url": redis_url,
            "disk_cache_dir": disk_cache_dir,
            "max_entries": max_entries,
            "max_bytes": max_bytes,
            **store_options,
        }
        self.budget = factory.budget_of(type if store is None else None) if budget is None else budget
        if store is None:
            store = _made(type, given, self.budget)
        self.store = store if next_cache is None else layered([store, next_cache], [seconds(ttl), None])
        self.type = self.store.name
        self.ttl = seconds(next((x for x in (ttl, default_in_redis_ttl, default_in_memory_ttl) if x is not None), None))
        self.namespace, self.cache_seed = _namespace(namespace), cache_seed
        self.default_on = mode != "default_off"
        self.mode = "on" if mode in DEFAULTS else check_mode(mode, besides=DEFAULTS)
        self.supported_call_types = _call_types(supported_call_types)
        self.single_flight, self.lease_ttl, self.clock = single_flight, lease_ttl, clock
        if on_key_error not in ("raise", "skip"):
            raise ConfigurationError(f"on_key_error={on_key_error!r}: write 'raise' or 'skip'.")
        self.on_key_error, self.keep_requests = on_key_error, keep_requests
        self.seal = sealer(sign_with, encrypt_with)
        self.ledger = checked_ledger(ledger, "Cache(ledger=…): ledger")
        self.flights, self.renewals = Flights(), Renewals()
        self.counts = dict.fromkeys(COUNTERS, 0)
        self._reading, self._writing = Breaker(), Breaker()
        self._last_error: str | None = None
        self.old = _checked_old(old, self.mode)
        policies = {
            "stale-while-revalidate": stale_while_revalidate,
            "stale-if-error": stale_if_error,
            "early-refresh": early_refresh,
            "sliding": sliding,
            "error-ttl": error_ttl,
            "store-if": store_if,
            "tags": tags,
        }
        self.default_controls = with_dict(in_mode(Controls(ttl=self.ttl), mode_of_process() or self.mode), policies)
        self.grace = self.default_controls.grace
        """Seconds that an answer is kept in the store beyond its TTL."""
        self.prefix = prefix_of(self.namespace)
        self._has_default_key = self.__class__.get_cache_key is Cache.get_cache_key
        _living.add(self)

    if not TYPE_CHECKING:  # for which any attribute could be assigned then

        def __setattr__(self, name: str, value: object) -> None:
            """An assignment that calls would not notice raises, instead of being without effect."""
            if name == "cache":
                raise ConfigurationError("A store of your own is given when a cache is made: Cache(store=…).")
            if name in SETTLED and "_has_default_key" in self.__dict__:
                raise ConfigurationError(
                    f"cache.{name} = {value!r}: this is settled when a cache is made. Make another: Cache({name}=…)."
                )
            if name == "get_cache_key" and not callable(value):
                raise WrongType(f"cache.get_cache_key = {value!r}: it must be a function of the call's arguments.")
            object.__setattr__(self, name, value)

    # ── keys ──────────────────────────────────────────────────────────────────────────────────────────────────────

    if TYPE_CHECKING:
        get_cache_key: Callable[..., str]  # for type checkers an attribute, as it may be assigned
    else:

        def get_cache_key(self, *args: Any, **kwargs: Any) -> str:
            """The default key of a call with these arguments. Assign your own to the instance, or override it.

            A replacement is called with the caller's arguments by name: `get_cache_key(model=…, messages=…, …)`.
            """
            if settings.shape is None:
                raise ConfigurationError("Keys of calls need the router: write from rejoinder import Cache.")
            request: Request = settings.shape(*args, **kwargs)
            return self.key_of(request, self.default_controls)

    def key_of(self, request: Request, controls: Controls, version: int = keys.KEY_VERSION) -> str:
        """The default key of a request: 64 hexadecimal digits."""
        round_ = epoch.get() if controls.per_epoch else None
        return request_key(request, self.cache_seed, round_, controls.scopes, controls.sample, version)

    def entry_key(
        self, request: Request, controls: Controls, model: str, messages: Any, params: Mapping[str, Any]
    ) -> str | None:
        """Where this call's answer is kept: the namespace, and the key. None: the call is not cached.

        `model`, `messages` and `params` are the caller's own arguments. Raises `CacheKeyError` and `NotJSON`.
        """
        prefix = self.prefix if controls.namespace is None else prefix_of(controls.namespace or "default")
        counting = samples.current.get() if controls.sample is None else None
        if self._has_default_key and "get_cache_key" not in self.__dict__:
            # `key_of`, without the call: this is part of every hit.
            round_ = epoch.get() if controls.per_epoch else None
            digest = request_key(request, self.cache_seed, round_, controls.scopes, controls.sample)
            if counting is not None:
                digest = self.key_of(request, controls._replace(sample=counting.next(prefix + digest)))
            return prefix + digest
        said = {} if messages is None else {"messages": messages}  # the endpoints beside chat have none
        key = self._own_key({"model": model, **said, **params})
        if key is None:
            return None
        # One key function may serve all endpoints, whose answers are not each other's.
        place = f"{prefix}{OWN}{request.endpoint}:{key}"
        return place if counting is None else f"{place}#{counting.next(place)}"

    def earlier_places(
        self, request: Request, controls: Controls, model: str, messages: Any, params: Mapping[str, Any]
    ) -> Iterator[tuple[Cache, str]]:
        """Where this call's answer may have been kept before: under keys of earlier versions, in the old cache, and in
        the one that is old for that."""
        if samples.current.get() is not None:
            return  # which occurrence this is, `entry_key` has counted already
        if self._has_default_key and "get_cache_key" not in self.__dict__:
            prefix = self.prefix if controls.namespace is None else prefix_of(controls.namespace or "default")
            for version in keys.EARLIER:
                yield self, prefix + self.key_of(request, controls, version)
        older, seen = self.old, {id(self)}
        while older is not None and id(older) not in seen:
            seen.add(id(older))
            with contextlib.suppress(CacheKeyError, keys.NotJSON):  # a call that it has no key for, it has not
                key = older.entry_key(request, controls, model, messages, params)
                if key is not None:
                    yield older, key
            older = older.old

    def _own_key(self, arguments: Mapping[str, Any]) -> str | None:
        try:
            key = self.get_cache_key(**arguments)
        except Exception as error:
            self._key_error(f"get_cache_key raised {type(error).__name__}: {error}", error)
            return None
        if not isinstance(key, str) or not key:
            self._key_error(f"get_cache_key returned {key!r}; it must return text that is not empty", None)
            return None
        return key

    def _key_error(self, message: str, cause: Exception | None) -> None:
        self.counts["key_errors"] += 1
        if self.on_key_error == "raise":
            raise CacheKeyError(message + ". With on_key_error='skip' such a call goes on uncached.") from cause
        self._note("key_errors", message)

    # ── what a call may do ────────────────────────────────────────────────────────────────────────────────────────

    def controls(self, given: Any) -> Controls:
        """What a call may do, from the mode around it and its own `cache=`: None, True, a `CachePolicy` or a dict."""
        base = self.default_controls
        mode = mode_now()
        if mode is not None:
            base = in_mode(base, mode)
        if given is None or given is self:
            return base
        if given is True:  # Inspect's word for a week
            return base if self.ttl is not None else with_policy(base, CachePolicy())
        if isinstance(given, CachePolicy):
            return with_policy(base, given)
        return with_dict(base, given)

    # ── reading and writing, as flows ─────────────────────────────────────────────────────────────────────────────

    def look(self, key: str, controls: Controls) -> Flow[Entry | None]:
        """The entry that may serve, or None. Counts and removes nothing: an old cache stays as it is."""
        data = yield from self.fetch(key)
        try:
            return None if data is None else self._fresh(self._unpacked(key, data), controls, again=True)
        except BadEntry:
            return None

    def read(self, key: str, controls: Controls, *, again: bool = False) -> Flow[Entry | None]:
        """The entry that may serve, or None. Counts what it finds, unless the call looks `again`; never raises."""
        data = yield from self.fetch(key)
        if data is None:
            return None
        try:
            return self._fresh(self._unpacked(key, data), controls, again=again)
        except BadEntry as error:
            yield from self.set_aside(key, f"{error}")
            return None

    def read_now(self, key: str, controls: Controls) -> Entry | None:
        """The same in this thread, without the cost of a flow: for callers and stores that may."""
        if self._reading.is_open and not self._reading.allows():
            self.counts["passed_by"] += 1
            return None
        try:
            data = self.store.get(key)
        except Exception as error:
            self._failed("read", error, self._reading)
            return None
        if self._reading.is_open:
            self._recovered()
        if data is None:
            return None
        try:
            entry = unpack(data, verify=not self.store.checked) if self.seal is None else self._unpacked(key, data)
            return entry if entry.ttl is None and controls.max_age is None else self._fresh(entry, controls)
        except BadEntry as error:
            run(self.set_aside(key, f"{error}"))
            return None

    def fetch(self, key: str) -> Flow[bytes | None]:
        """What the store has under `key`; None also where it fails."""
        store = self.store
        if self._reading.is_open and not self._reading.allows():
            self.counts["passed_by"] += 1
            return None
        try:
            data: bytes | None = store.get(key) if store.instant else (yield Io(store.get, store.aget, (key,)))
        except Exception as error:
            self._failed("read", error, self._reading)
            return None
        if self._reading.is_open:
            self._recovered()
        return data

    def _unpacked(self, key: str, data: bytes) -> Entry:
        if self.seal is not None:
            data = self.seal.open(key, data)
        return unpack(data, verify=not self.store.checked)

    def _fresh(self, entry: Entry, controls: Controls, *, again: bool = False) -> Entry | None:
        if entry.ttl is None and controls.max_age is None:
            return entry
        if is_fresh(entry.stored_at, entry.ttl, controls.max_age, self.clock()):
            return entry
        self.counts["stale"] += not again
        return None

    def read_stale(self, key: str, controls: Controls) -> Flow[Entry | None]:
        """An entry that is too old to serve, but not by more than the call's longest grace."""
        data = yield from self.fetch(key)
        entry = None
        if data is not None:
            try:
                entry = self._unpacked(key, data)
            except BadEntry:
                return None
        return entry if entry is not None and self.overdue(entry, controls) <= controls.grace else None

    def overdue(self, entry: Entry, controls: Controls) -> float:
        """Seconds since `entry` stopped being fresh."""
        limit = shorter(entry.ttl, controls.max_age)
        return 0.0 if limit is None else self.clock() - entry.stored_at - limit

    def write(self, key: str, entry: Entry, *, count: str = "stored") -> Flow[bool]:
        """Keep `entry`, under its tags. False if the store would not; never raises."""
        if (self._writing.is_open and not self._writing.allows()) or (
            self._reading.is_open and not self._reading.allows()
        ):
            self.counts["passed_by"] += 1
            return False
        store = self.store
        # Its TTL counts from when it was given, which may be long ago where it is written again.
        kept = None if entry.ttl is None else entry.ttl + self.grace - max(0.0, self.clock() - entry.stored_at)
        if kept is not None and kept <= 0:
            return False
        try:
            data = pack(entry, deflate=not store.in_process)
            if self.seal is not None:
                data = self.seal.close(key, data)
            if entry.tags:  # first, so that nothing is ever there that its tags do not find
                yield Io(store.tag, store.atag, (key, entry.tags, kept))
            if store.in_process:
                store.set(key, data, kept)
            else:
                yield Io(store.set, store.aset, (key, data, kept))
        except TooLarge as error:  # which is no reason to pass the store by
            self.counts["write_errors"] += 1
            self._note("write_errors", f"An answer was not kept: {error}")
            return False
        except Exception as error:
            self._failed("write", error, self._writing)
            return False
        if self._writing.is_open or self._reading.is_open:
            self._recovered()
        self.counts[count] += 1
        log.debug("Stored: %s.", key)
        return True

    def renewed(self, entry: Entry, controls: Controls) -> Entry | None:
        """`entry` as it is to be kept now that it serves, with a sliding TTL; None: it may stay as it is."""
        if not (controls.sliding and controls.may_store):
            return None
        ttl = slid(entry.stored_at, entry.ttl, controls.ttl, self.clock())
        return None if ttl is None else entry._replace(ttl=ttl)

    def set_aside(self, key: str, why: str) -> Flow[None]:
        """A value that is no entry is a miss, and is removed so that the next answer takes its place."""
        self.counts["corrupt"] += 1
        self._note("corrupt", f"The {self.type} store holds something under {key!r} that is no entry: {why}.")
        store = self.store
        try:
            yield Io(store.delete, store.adelete, (key,))
        except Exception as error:
            self._failed("write", error, self._writing)

    # ── leases, as flows ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def has_leases(self) -> bool:
        """Whether callers in other processes can be waited for, now."""
        return self.single_flight and self.store.leases and not (self._reading.is_open or self._writing.is_open)

    def take_lease(self, key: str) -> Flow[str | None]:
        """A token; "" if the store would not say; None while somebody else holds the lease."""
        store = self.store
        try:
            token: str | None = yield Io(store.lease, self._alease, (key, self.lease_ttl))
        except Exception as error:
            self._failed("lease", error, self._writing)
            return ""
        if token:
            leases.keeper.hold(store, key, token, self.lease_ttl)
        return token

    async def _alease(self, key: str, ttl: float) -> str | None:
        """The store's, for a caller that may be cancelled meanwhile: what it is given then is given back."""
        if type(self.store).alease is Store.alease:
            return await Taking(self._lease_in_turn, self.give_lease_soon, key, ttl).taken()
        taking = asyncio.ensure_future(self.store.alease(key, ttl))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(lambda done: self._return_taken(key, done))
            raise

    def _lease_in_turn(self, key: str, ttl: float) -> str | None:
        """The store's, on one of a few threads: did each wait out the budget in turn, the last would wait seconds."""
        if self._writing.is_open:
            raise TimeoutError("The store failed the calls before this one.")
        return self.store.lease(key, ttl)

    def _return_taken(self, key: str, done: asyncio.Future[str | None]) -> None:
        if not done.cancelled() and done.exception() is None:
            self.give_lease_soon(key, done.result() or "")

    def give_lease_soon(self, key: str, token: str) -> None:
        """Give a lease back without waiting: a cancelled task may not, nor may what a garbage collection runs."""
        if token:
            # No daemon: a process that ends after an interrupt should not let others wait for its lease to end. Where
            # no thread can be started any more, it ends by itself.
            threads.start(lambda: run(self.give_lease(key, token)), daemon=False)

    def give_lease(self, key: str, token: str) -> Flow[None]:
        """Give a lease back; never raises."""
        leases.keeper.drop(token)
        store = self.store
        try:
            yield Io(store.release, store.arelease, (key, token))
        except Exception as error:
            self._failed("lease", error, self._writing)

    # ── explaining ────────────────────────────────────────────────────────────────────────────────────────────────

    def explain(self, model: str, messages: Any = None, **params: Any) -> Explanation:
        """Why a call with these arguments would hit or miss: the nearest entry and what differs. Sends nothing."""
        request: Request = settings.shape(model, messages, **params)
        controls = self.controls(params.get("cache") if not isinstance(params.get("cache"), Cache) else None)
        with samples.uncounted():
            key = self.entry_key(request, controls, model, messages, params)
        if key is None:
            return Explanation(False, "", "the key function failed, so the call is not cached.")
        entry = run(self.read(key, controls))
        age = 0.0 if entry is None else max(0.0, self.clock() - entry.stored_at)
        if entry is not None and entry.is_error:
            if controls.error_ttl:
                return Explanation(True, key, f"an error was kept {age:.0f} s ago; it is raised, and nothing is sent.")
            return Explanation(False, key, f"an error was kept {age:.0f} s ago, and this call wants none (error_ttl).")
        if entry is not None:
            return Explanation(True, key, f"stored {age:.0f} s ago.")
        return self.explain_miss(request, key)

    def explain_miss(self, request: Request, key: str) -> Explanation:
        """What of the stored is nearest to a request whose key was not found."""
        prefix = key.partition(":")[0] + ":"
        return explain.miss(key, keys.component_digests(request), keys.texts(request), self._described(prefix))

    def _described(self, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The keys and notes of entries, at most `explain.MOST`."""
        store = self.store
        for record in itertools.islice(itertools.chain(store.scan(prefix), store.expired(prefix)), explain.MOST):
            (data,) = store.peek([record.key])
            if data is None or is_mark(record.key):
                continue
            try:
                yield record.key, self._unpacked(record.key, data).described()
            except ValueError:
                continue

    # ── trouble ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _failed(self, what: str, error: Exception, breaker: Breaker) -> None:
        self.counts[f"{what}_errors"] += 1
        self._last_error = f"{what}: {type(error).__name__}: {error}"
        if breaker.fail():
            log.warning(
                "The %s cache failed to %s and is passed by for a while; calls go on without it. %s: %s",
                self.type,
                {"lease": "coordinate"}.get(what, what),
                type(error).__name__,
                error,
            )

    def _recovered(self) -> None:
        self._writing.succeed()
        self._reading.succeed()
        log.warning("The %s cache works again.", self.type)

    def _note(self, what: str, message: str) -> None:
        """Log the first of its kind; the others are only counted."""
        if self.counts[what] == 1:
            log.warning("%s Further ones are only counted: cache.stats()[%r].", message, what)

    def stats(self) -> dict[str, Any]:
        """What happened so far, and how the store is: counters, and "closed" or "open" for the breakers."""
        return {
            **self.counts,
            "store": self.type,
            "reading": "open" if self._reading.is_open else "closed",
            "writing": "open" if self._writing.is_open else "closed",
            "last_error": self._last_error,
            **({"layers": self.store.state()} if hasattr(self.store, "state") else {}),
        }

    # ── for people ────────────────────────────────────────────────────────────────────────────────────────────────

    def clear(self, *, tag: str | None = None) -> int:
        """Remove every answer of this cache's namespace, or those that were given `tag`; how many there were."""
        if tag is not None:
            return self.store.clear_tag(self.prefix, tag)
        self.store.clear(self.prefix + MARK)  # which are no answers
        return self.store.clear(self.prefix)

    async def aclear(self, *, tag: str | None = None) -> int:
        """Remove every answer of this cache's namespace, or those that were given `tag`; how many there were."""
        if tag is not None:
            return await self.store.aclear_tag(self.prefix, tag)
        await self.store.aclear(self.prefix + MARK)  # which are no answers
        return await self.store.aclear(self.prefix)

    flush_cache = clear

    def delete(self, key: str) -> bool:
        """Remove what is kept for one key, as `get_cache_key` gives it or `set` was given it. True if it was there."""
        return sum(self.store.delete(place) for place in self._places(key)) > 0

    async def adelete(self, key: str) -> bool:
        """Remove what is kept for one key, as `get_cache_key` gives it or `set` was given it. True if it was there."""
        return sum([await self.store.adelete(place) for place in self._places(key)]) > 0

    def _places(self, key: str) -> list[str]:
        """Where something may be kept under `key`."""
        if key.startswith(self.prefix):  # as an answer's `cache_info` gives it
            return [key]
        kinds = ("", VALUE, *(f"{OWN}{endpoint}:" for endpoint in ("chat", *ENDPOINTS)))
        return [self.prefix + kind + key for kind in kinds]

    def ping(self) -> bool:
        """True if the store answers. Raises what it raises: unlike calls, who asks this wants to know."""
        self.store.get(self.prefix)
        return True

    async def aping(self) -> bool:
        """True if the store answers. Raises what it raises: unlike calls, who asks this wants to know."""
        await self.store.aget(self.prefix)
        return True

    def get(self, key: str, default: Any = None) -> Any:
        """A value of your own, kept with `set`. A stored None is a hit: it is not `default`."""
        entry = run(self.read(self.prefix + VALUE + key, self.default_controls))
        return default if entry is None else _loads(entry.body, default)

    def set(self, key: str, value: Any, ttl: str | float | None = None) -> bool:
        """Keep a JSON value of your own. False if the store would not."""
        return run(self.write(self.prefix + VALUE + key, self._value_entry(value, ttl)))

    async def aget(self, key: str, default: Any = None) -> Any:
        """A value of your own, kept with `aset`. A stored None is a hit: it is not `default`."""
        entry = await arun(self.read(self.prefix + VALUE + key, self.default_controls))
        return default if entry is None else _loads(entry.body, default)

    async def aset(self, key: str, value: Any, ttl: str | float | None = None) -> bool:
        """Keep a JSON value of your own. False if the store would not."""
        return await arun(self.write(self.prefix + VALUE + key, self._value_entry(value, ttl)))

    def _value_entry(self, value: Any, ttl: str | float | None) -> Entry:
        import json

        try:
            body = json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError) as error:
            raise CacheError(f"A value that is kept must be JSON: {error}.") from None
        return Entry(self.clock(), seconds(ttl) if ttl is not None else self.ttl, body)

    def close(self) -> None:
        """Release connections and files. The cache may be used again."""
        self.store.close()

    async def aclose(self) -> None:
        """Release connections and files. The cache may be used again."""
        await self.store.aclose()

    # ── as a context ──────────────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def memory(cls, cache_seed: object = None, **options: Any) -> Cache:
        """A cache in this process's memory: `with Cache.memory() as cache: …`."""
        return cls(type="local", cache_seed=cache_seed, **options)

    @classmethod
    def disk(cls, cache_seed: object = None, cache_path_root: str | Path | None = None, **options: Any) -> Cache:
        """A cache in one file below `cache_path_root`: `with Cache.disk(cache_seed=1) as cache: …`."""
        options.setdefault("disk_cache_dir", cache_path_root)
        return cls(type="disk", cache_seed=cache_seed, **options)

    @classmethod
    def redis(cls, redis_url: str | None = None, cache_seed: object = None, **options: Any) -> Cache:
        """A cache in Redis: `with Cache.redis(redis_url="redis://localhost:6379/0") as cache: …`."""
        return cls(type="redis", redis_url=redis_url, cache_seed=cache_seed, **options)

    @classmethod
    def cosmos_db(
        cls,
        connection_string: str | None = None,
        database_id: str | None = None,
        container_id: str | None = None,
        cache_seed: object = None,
        **options: Any,
    ) -> Cache:
        """A cache in Azure Cosmos DB, partitioned by seed: `with Cache.cosmos_db(…, cache_seed=1) as cache: …`."""
        named = {"connection_string": connection_string, "database_id": database_id, "container_id": container_id}
        options |= {name: value for name, value in named.items() if value is not None}
        seed = None if cache_seed is None else str(cache_seed)
        return cls(type="cosmos", cache_seed=cache_seed, partition=seed, **options)

    def __enter__(self) -> Cache:
        blocks.enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        blocks.leave(self)

    async def __aenter__(self) -> Cache:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __repr__(self) -> str:
        return f"<Cache {self.store!r} namespace={self.namespace!r} ttl={self.ttl!r}>"


_living: weakref.WeakSet[Cache] = weakref.WeakSet()


def _after_fork() -> None:
    for cache in list(_living):
        cache.flights.forget()
        cache.renewals.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _loads(data: bytes, default: Any) -> Any:
    import orjson

    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return default


def prefix_of(namespace: str) -> str:
    """What a namespace's keys begin with. Colons are escaped, so that no namespace is the beginning of another."""
    return quote(namespace, safe="") + ":"


def _namespace(namespace: str | None) -> str:
    if namespace is not None and not is_text(namespace):
        raise WrongType(f"namespace={namespace!r} must be text, not {type(namespace).__name__}.")
    return namespace or "default"


def _made(type: str | Sequence[Any], given: Mapping[str, Any], budget: float) -> Store:
    if isinstance(type, (list, tuple)):
        return layered(type)
    return factory.make_store(type, given, budget * 0.9)  # a tenth is for what surrounds the store's own waiting


def _checked_old(old: Any, mode: str) -> Cache | None:
    if old is not None and not isinstance(old, Cache):
        raise WrongType(f"old={old!r} must be a Cache, not {type(old).__name__}.")
    if old is None and mode == "read_old_write_new" and not keys.EARLIER:
        raise ConfigurationError("mode='read_old_write_new' needs old=, the cache that was used before.")
    return old


def _call_types(given: Sequence[str] | None) -> frozenset[str]:
    if given is None:
        return frozenset(CALL_TYPES)
    if isinstance(given, str):
        raise WrongType(f"supported_call_types={given!r} must be a list: [{given!r}].")
    for name in given:
        if name not in CALL_TYPES and name not in CALL_TYPES_ELSEWHERE:
            raise ConfigurationError(
                f"supported_call_types: there is no {name!r}; there are {', '.join(ENDPOINTS)}, and each with an 'a' "
                f"before it.{suggestion(str(name), CALL_TYPES)}"
            )
    return frozenset(given)


def layered(layers: Sequence[Any], ttls: Sequence[float | None] | None = None) -> Store:
    """Caches or stores as one store; each cache's own TTL bounds its layer, unless `ttls` says otherwise."""
    from .stores.layers import LayeredStore

    for layer in layers:
        if not isinstance(layer, (Cache, Store)):
            raise WrongType(f"A layer must be a Cache or a Store, not {layer!r}.")
    stores = [layer.store if isinstance(layer, Cache) else layer for layer in layers]
    if ttls is None:
        ttls = [layer.ttl if isinstance(layer, Cache) else None for layer in layers]
    return LayeredStore(stores, ttls)
