"""The data path of one call, from top to bottom.

    shape → which cache → key → look up → hit
                                       └→ miss → single-flight → vendor, with retries → store
                                                                       └→ fallbacks
Flows only: every piece of I/O is yielded, and done by the driver of `completion` or of `acompletion`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from ..caching import keys
from ..caching.blocks import innermost
from ..caching.cache import Cache
from ..caching.entry import BadEntry, Entry
from ..caching.keys import NotJSON
from ..caching.policy import CachePolicy, Controls, is_soon_over, mode_around, mode_blocks, with_dict
from ..caching.runs import is_counted
from ..core import settings
from ..core.errors import CacheMiss, RejoinderError, WrongType
from ..core.flow import Flow, run
from ..core.types import Attempt, Request
from .books import slip_of, watched
from .faults import invalid
from .kept_errors import is_kept
from .miss import Found, Place, answer_miss, ask, not_served, serve, served
from .renewal import revalidate
from .shape import options_of, shape_request, snapshot

Params = Mapping[str, Any]
log = logging.getLogger("rejoinder")


def begin(model: str, messages: Any, params: Params, call_type: str) -> Found | Flow[Found]:
    """One call: the answer, where it can be had without waiting for anything; else the flow that gets it."""
    if "fallbacks" in params:
        return complete_with_fallbacks(model, messages, params, call_type)
    return begin_with(shape_request(model, messages, params), model, messages, params, call_type)


def begin_with(request: Request, model: str, messages: Any, params: Params, call_type: str) -> Found | Flow[Found]:
    """The same for a request of any endpoint. A key function is called with `model`, `messages` and `params`."""
    cache = cache_for(params, call_type)
    slip = slip_of(request, params, cache) if is_counted(cache) else None
    if cache is None:
        return watched(slip, ask(request, options_of(params), None, wants_usage=slip is not None))
    given = params.get("cache")
    is_plain = given is None and not mode_blocks and mode_around.get() is None and settings.cache_mode is None
    controls = cache.default_controls if is_plain else cache.controls(given)
    try:
        key = cache.entry_key(request, controls, model, messages, params)
    except NotJSON as error:
        raise invalid(str(error), request) from None
    if key is None:
        return watched(slip, ask(request, options_of(params), None, wants_usage=slip is not None))
    looked = controls.may_read and (cache.store.instant or call_type[0] != "a")  # the names of async calls begin so
    if looked:
        entry = cache.read_now(key, controls)
        if entry is not None:
            try:
                found = serve(entry, "exact", cache, key, request, params)
            except BadEntry as error:
                run(not_served(entry, error, request, Place(cache, key, controls)))
            else:
                cache.counts["hits"] += 1
                if log.isEnabledFor(logging.DEBUG):  # asked here, as most never want to know
                    log.debug("Hit: %s is answered by %s.", request.full_model, key)
                if slip is not None:
                    slip.counted(found)
                if controls.sliding or controls.early_refresh:
                    return keep_young(found, entry, snapshot(request), params, Place(cache, key, controls))
                return found
    earlier: tuple[Any, ...] = ()
    if controls.may_read and (keys.EARLIER or cache.old is not None):
        earlier = tuple(cache.earlier_places(request, controls, model, messages, params))
    return watched(slip, look_up(request, params, Place(cache, key, controls, earlier), looked))


def look_up(request: Request, params: Params, place: Place, looked: bool) -> Flow[Found]:
    """The stored answer, or else the vendor's. `looked`: the store has been asked already."""
    request = snapshot(request)
    cache, key, controls, earlier = place
    if controls.may_read and not looked:
        entry = yield from cache.read(key, controls)
        found = None if entry is None else (yield from served(entry, "exact", request, params, place))
        if entry is not None and found is not None:
            cache.counts["hits"] += 1
            log.debug("Hit: %s is answered by %s.", request.full_model, key)
            return (yield from keep_young(found, entry, request, params, place))
    if earlier:
        found = yield from look_up_earlier(request, params, place)
        if found is not None:
            cache.counts["hits"] += 1
            return found
    cache.counts["misses"] += 1
    log.debug("Miss: %s would be answered by %s.", request.full_model, key)
    if controls.must_hit:
        raise CacheMiss(
            f"replay_only: nothing is stored for this call of {request.full_model!r}, and nothing was sent. "
            f"Record it first, in mode 'on'.\n{cache.explain_miss(request, key)}"
        )
    if controls.grace and controls.may_read:
        return (yield from look_up_stale(request, params, place))
    return (yield from answer_miss(request, params, place))


def look_up_earlier(request: Request, params: Params, place: Place) -> Flow[Found | None]:
    """An answer from before, under an earlier version's key or in the older cache. It is copied to where it belongs."""
    cache, key, controls, earlier = place
    for other, other_key in earlier:
        entry = yield from other.look(other_key, controls)
        found = None if entry is None else (yield from served(entry, "exact", request, params, place))
        if entry is not None and found is not None:
            if controls.may_store:
                yield from cache.write(key, entry.tagged(controls.tags), count="migrated")
            return found
    return None


def keep_young(found: Found, entry: Entry, request: Request, params: Params, place: Place) -> Flow[Found]:
    """A hit whose time is extended because it serves, or which is fetched anew before its time is over."""
    cache, key, controls, _ = place
    renewed = cache.renewed(entry, controls)
    if renewed is not None:
        yield from cache.write(key, renewed, count="renewed")
        return found
    window = controls.early_refresh
    if window and is_soon_over(entry.stored_at, entry.ttl, controls.max_age, window, cache.clock()):
        yield from revalidate(entry, request, params, place, window)
    return found


def look_up_stale(request: Request, params: Params, place: Place) -> Flow[Found]:
    """An answer past its time: at once while a new one is fetched, or instead of the vendor's error."""
    cache, key, controls, _ = place
    entry = yield from cache.read_stale(key, controls)
    if entry is None or is_kept(entry):
        return (yield from answer_miss(request, params, place))
    place = place._replace(controls=controls._replace(error_ttl=0.0))  # an error must not take this answer's place
    if cache.overdue(entry, controls) <= controls.stale_while_revalidate:
        yield from revalidate(entry, request, params, place, controls.stale_while_revalidate)
        return serve(entry, "stale", cache, key, request, params)
    try:
        return (yield from answer_miss(request, params, place))
    except RejoinderError as error:
        if cache.overdue(entry, controls) > controls.stale_if_error or not may_fall_back(error):
            raise
        return serve(entry, "stale", cache, key, request, params)


def complete_with_fallbacks(
    model: str, messages: Any, params: Params, call_type: str, start: Callable[..., Any] = begin
) -> Flow[Found]:
    """One call, begun by `start`, and the models that are asked in turn when it fails."""
    attempts: tuple[Attempt, ...] = ()
    last: Exception | None = None
    deadline = params.get("deadline")
    ends = time.monotonic() + deadline if isinstance(deadline, (int, float)) else None
    for name, own in _candidates(model, params, params["fallbacks"] or ()):
        if ends is not None and attempts:  # the deadline is for all of them together
            own = {**own, "deadline": max(0.001, ends - time.monotonic())}
        try:
            found = start(name, messages, own, call_type)
            return (yield from found) if isinstance(found, Generator) else found
        except RejoinderError as error:
            if not may_fall_back(error):
                raise
            attempts += getattr(error, "attempts", ())
            last = error
    assert last is not None
    last.attempts = attempts  # type: ignore[attr-defined]
    raise last


def cache_for(params: Params, call_type: str) -> Cache | None:
    """Which cache a call uses: its own, else the innermost `with` block's, else the process's. None: no cache."""
    given, caching = params.get("cache"), params.get("caching")
    if caching is False or given is False:
        return None
    if caching is not None and caching is not True:
        raise WrongType(f"caching={caching!r} must be True, False or None.")
    cache: Cache | None
    if given is None:
        cache = innermost() or settings.cache
    elif isinstance(given, Cache):
        cache = given
    elif given is True or isinstance(given, (CachePolicy, Mapping)):
        cache = innermost() or settings.cache
    else:
        raise WrongType(
            f"cache={given!r} must be a Cache, a CachePolicy, True, False or a dict, not {type(given).__name__}."
        )
    if cache is None:
        if isinstance(given, Mapping):
            with_dict(Controls(), given)  # a wrong word is told at once, not only where there is a cache
        return default_cache() if caching or given is True or isinstance(given, CachePolicy) else None
    if not cache.default_on and not caching and not _asks_for_cache(given):
        return None
    return cache if call_type in cache.supported_call_types else None


def _asks_for_cache(given: Any) -> bool:
    return given is not None and (not isinstance(given, Mapping) or given.get("use-cache", True))


_default: Cache | None = None
_making_default = threading.Lock()


def default_cache() -> Cache:
    """The cache on disk, in the user's cache folder, for calls with `caching=True` where none is set."""
    global _default
    with _making_default:
        if _default is None:
            _default = Cache(type="disk")
        return _default


OF_ONE_PLACE = frozenset(
    {
        "api_base",
        "api_key",
        "api_version",
        "azure_ad_token",
        "azure_ad_token_provider",
        "base_url",
        "client",
        "extra_headers",
    }
)
"""Arguments that belong to the first model's provider, and are not shown to another."""


def _candidates(model: str, params: Params, fallbacks: Any) -> list[tuple[str, Params]]:
    """The models to try in turn, each with its own arguments."""
    if isinstance(fallbacks, (str, Mapping)):
        fallbacks = [fallbacks]
    if not isinstance(fallbacks, Sequence):
        raise WrongType(f"fallbacks={fallbacks!r} must be a list of models, not {type(fallbacks).__name__}.")
    first = {name: value for name, value in params.items() if name != "fallbacks"}
    shared = {name: value for name, value in first.items() if name not in OF_ONE_PLACE}
    result: list[tuple[str, Params]] = [(model, first)]
    for fallback in fallbacks:
        if isinstance(fallback, str):
            same = fallback.partition("/")[0] == model.partition("/")[0] and "/" in fallback
            result.append((fallback, first if same else shared))
        elif isinstance(fallback, Mapping) and "model" in fallback:
            own = {name: value for name, value in fallback.items() if name != "model"}
            result.append((fallback["model"], {**shared, **own}))
        else:
            raise WrongType(f"fallbacks: {fallback!r} must be a model's name, or a dict with 'model'.")
    return result


def may_fall_back(error: RejoinderError) -> bool:
    """Whether another model, or a stale answer, may stand in: the vendor failed, and not the caller."""
    from ..core.api_errors import APIError, InvalidRequest

    return isinstance(error, APIError) and not isinstance(error, InvalidRequest)
