"""A miss: one caller asks the vendor for all who ask the same, and stores the answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..caching import leases
from ..caching.cache import Cache
from ..caching.entry import BadEntry, Entry, new
from ..caching.flights import Flight, Outcome, in_event_loop
from ..caching.keys import component_digests, texts
from ..caching.policy import Controls, may_store_answer, shorter
from ..caching.runs import is_counted
from ..caching.shadow import says_the_same
from ..core.flow import Flow, Io
from ..core.types import Options, Request
from ..providers.deployment import deployment
from .faults import late, twin_of
from .folds import folded, unfolded
from .kept_errors import body_of, is_kept, is_lasting, restored
from .live import LiveStream, Membership, OutOfReach, Tape
from .shape import check, options_of
from .stream import form_of, piece_maker
from .vendor import ask_stream, ask_whole, fitted

Params = Mapping[str, Any]
log = logging.getLogger("rejoinder")


_answers: Any = None


def typed() -> Any:
    """The module of typed answers. Kept: an import statement, even of what is loaded, costs a tenth of a hit."""
    global _answers
    if _answers is None:
        from ..core import answers

        _answers = answers
    return _answers


class Streamed(NamedTuple):
    """What a flow gives to the front door where a stream was asked for; else it gives the `Completion` itself."""

    member: Membership
    info: Any


Found = Any
"""A `Completion` or a `Streamed`."""


class Place(NamedTuple):
    """Where a call's answer is kept, and what may be done there."""

    cache: Cache
    key: str
    controls: Controls
    earlier: tuple[tuple[Cache, str], ...] = ()
    """Where else it may be, from before: under an earlier key, or in an older cache."""


def serve(entry: Entry, kind: str, cache: Cache, key: str, request: Request, params: Params) -> Found:
    """A stored answer, in the form that the call asks for. Raises `BadEntry` if it is none, checksum or not."""
    answers = _answers or typed()
    info = new(answers.CacheInfo, (True, kind, key, cache.type, cache.clock() - entry.stored_at, ""))
    try:
        if request.endpoint == "chat":  # for which an error that was kept is no answer
            if not request.stream:
                return answers.hit(entry.body, info)
        elif is_kept(entry):
            raise ValueError("it is an error")
        elif not request.stream:
            return answers.marked(request, entry.body, info)
        chunks = list(entry.chunks) or unfolded(request, entry.body)
        # All of them now, while one that does not read can still be a miss.
        pieces = list(map(piece_maker(form_of(request.endpoint, request.stream_options)), chunks))
        if not pieces:
            raise ValueError("there is nothing to replay")
    except Exception as error:
        raise BadEntry(f"it does not read as an answer ({type(error).__name__}: {error})") from None
    timing = entry.timing if params.get("replay_timing") else ()
    return Streamed(Membership(Tape(chunks, timing, pieces)), info)


def served(entry: Entry, kind: str, request: Request, params: Params, place: Place) -> Flow[Found | None]:
    """A stored answer; None if it is none: it is set aside, and the call is a miss. Raises an error that was kept."""
    try:
        return serve(entry, kind, place.cache, place.key, request, params)
    except BadEntry as error:
        yield from not_served(entry, error, request, place)
        return None


def not_served(entry: Entry, why: BadEntry, request: Request, place: Place) -> Flow[None]:
    """What a stored answer that does not read means for a call: an error that was kept, or a miss."""
    cache, key, controls, _ = place
    if not is_kept(entry):
        yield from cache.set_aside(key, str(why))
    elif controls.error_ttl:
        try:
            error = restored(entry, request, cache.clock() - entry.stored_at)
        except BadEntry as bad:
            yield from cache.set_aside(key, str(bad))
            return
        cache.counts["errors_served"] += 1
        raise error


def answer_miss(request: Request, params: Params, place: Place) -> Flow[Found]:
    """Nothing is stored: ask the vendor, or share the call of somebody who is asking the same."""
    options = options_of(params)
    cache, key, controls, _ = place
    started = time.monotonic()
    if not cache.single_flight or controls.alone:
        return (yield from lead(request, params, options, Landing(place, started=started)))
    terms = (options.terms, options.drop_params, request.extra_headers)  # headers may hold credentials
    patience = options.patience
    deadline = None if patience is None else started + patience
    while True:
        flight, leads = cache.flights.join(key)
        if leads:
            return (yield from lead(request, params, options, Landing(place, flight, terms=terms, started=started)))
        outcome: Outcome = yield Io(flight.wait, flight.await_, (deadline,))
        if outcome.kind == "failed" and outcome.terms == terms:
            raise twin_of(outcome.value)
        found = yield from follow(outcome, request, params, options, place)
        if found is not None:
            return found
        # Else a flight that went live and was lost is found again, without ever waiting, until its reader has left it:
        # for ever, if that reader is a task of this loop.
        cache.flights.leave(flight)
        if flight.is_hopeless():
            cache.give_lease_soon(key, flight.token)


def follow(outcome: Outcome, request: Request, params: Params, options: Options, place: Place) -> Flow[Found | None]:
    """What a follower makes of its flight. None: look again who leads."""
    if outcome.kind == "landed":
        place.cache.counts["shared"] += 1
        return (yield from served(outcome.value, "shared", request, params, place))
    if outcome.kind == "live":
        return (yield from follow_live(outcome.value, request, params, place))
    if outcome.kind == "late":
        raise late(request, options)
    if outcome.kind == "alone":
        return (yield from lead(request, params, options, Landing(place, started=time.monotonic())))
    return None


def follow_live(stream: LiveStream, request: Request, params: Params, place: Place) -> Flow[Found | None]:
    """Read along with a stream under way: as a stream, or to its end for a whole answer."""
    from ..core.answers import CacheInfo, marked

    info = CacheInfo(True, "shared", place.key, place.cache.type, 0.0)
    if stream.loop is not None and (yield Io(_must_not_wait, _may_wait)):
        return (yield from lead(request, params, options_of(params), Landing(place, started=time.monotonic())))
    member = Membership(stream)
    if not member or not stream.is_moving:
        return None
    if request.stream:
        place.cache.counts["shared"] += 1
        return Streamed(member, info)
    try:
        while not stream.done:
            yield Io(stream.pull, stream.apull, (len(stream.chunks),))
    except OutOfReach:
        return None
    finally:
        member.leave()
    if stream.error is not None:
        return None
    try:
        answer = marked(request, folded(request, stream.chunks), info)
    except Exception:
        return None  # chunks that make no answer; the vendor may be clearer when it is asked for a whole one
    place.cache.counts["shared"] += 1
    return answer


def _must_not_wait() -> bool:
    return in_event_loop()


async def _may_wait() -> bool:
    return False


def lead(request: Request, params: Params, options: Options, landing: Landing) -> Flow[Found]:
    """Answer for all who ask the same. However this ends, the flight and the lease end with it."""
    cache, key = landing.place[:2]
    try:
        if landing.flight is not None:
            waited = yield from wait_for_others(request, options, landing)
            if isinstance(waited, Entry):
                found = yield from served(waited, "shared", request, params, landing.place)
                if found is not None:
                    cache.flights.land(landing.flight, waited)
                    cache.counts["shared"] += 1
                    return found
                waited = ""
            landing.flight.token = waited
            landing = landing._replace(token=waited)
        return (yield from ask(request, options, landing))
    except Exception as error:
        landing._replace(token="").lose(error)
        try:
            yield from keep_error(error, request, landing.place)
            if landing.token:
                yield from cache.give_lease(key, landing.token)
        except BaseException:  # cancelled in the middle of that
            cache.give_lease_soon(key, landing.token)
            raise
        raise
    except BaseException as error:
        landing.lose(error)
        raise


def keep_error(error: Exception, request: Request, place: Place) -> Flow[None]:
    """Keep what the same request would only meet again, if the caller wants that. No answer goes for it."""
    cache, key, controls, _ = place
    if controls.error_ttl and controls.may_store and is_lasting(error):
        # There may be one that this call did not want to read, or found too old.
        earlier = yield from cache.read_stale(key, controls._replace(max_age=None))
        if earlier is not None and not is_kept(earlier):
            return
        notes = notes_of(request, cache.keep_requests, controls.tags)
        entry = Entry(cache.clock(), controls.error_ttl, body_of(error), notes=notes)
        yield from cache.write(key, entry, count="errors_kept")


def wait_for_others(request: Request, options: Options, landing: Landing) -> Flow[Entry | str]:
    """The lease of this key ("" where there are none), or the answer that another process has stored meanwhile."""
    cache, key, controls, _ = landing.place
    pause, patience = 0.002, options.patience
    if not cache.has_leases:
        if controls.may_read:
            entry = yield from cache.read(
                key, controls, again=True
            )  # between our look-up and our lead, somebody may have landed
            return entry if entry is not None else ""
        return ""
    while True:
        token = yield from cache.take_lease(key)
        if token is not None:
            try:
                entry = (yield from cache.read(key, controls, again=True)) if controls.may_read else None
            except BaseException:
                cache.give_lease_soon(key, token)
                raise
            if entry is not None:
                cache.give_lease_soon(key, token)
            return entry if entry is not None else token
        if not (yield Io(_pause, _apause, (pause,))) or not controls.may_read:
            return ""
        if patience is not None and time.monotonic() - landing.started > patience:
            raise late(request, options)
        entry = yield from cache.read(key, controls, again=True)
        if entry is not None:
            return entry
        pause = min(pause * 1.5, 0.05)


def _pause(seconds: float) -> bool:
    """Wait for another process. Not on an event loop's thread: the leader may be a task of that loop."""
    if in_event_loop():
        return False
    time.sleep(seconds)
    return True


async def _apause(seconds: float) -> bool:
    await asyncio.sleep(seconds)
    return True


def ask(request: Request, options: Options, landing: Landing | None, *, wants_usage: bool = False) -> Flow[Found]:
    """Ask the vendor, with retries; land the answer. `wants_usage`: a stream that is not kept is asked for it too."""
    from ..core.answers import NOT_CACHED, CacheInfo, reader

    started = time.monotonic() if landing is None else landing.started
    completion = reader(request)
    if request.endpoint == "chat":
        check(request)
    place = deployment(request, options)
    request = fitted(request, options, place)
    if not request.stream:
        body, answer = yield from ask_whole(request, options, place, completion, started)
        if landing is not None:
            repeats = yield from landing.land(request, answer, body, None)
            info = CacheInfo(False, "none", landing.place.key, landing.place.cache.type, 0.0, repeats)
            object.__setattr__(answer, "_cache_info", info)
        return answer
    # Others will read it who want the usage, or somebody keeps a ledger.
    if (landing is not None or wants_usage) and place.provider.stream_usage:
        request = request._replace(stream_options={**(request.stream_options or {}), "include_usage": True})
    member = yield from ask_stream(request, options, place, started)
    if landing is not None:
        yield from let_land(member.stream, request, landing, completion)
    return Streamed(member, NOT_CACHED)


def let_land(stream: Any, request: Request, landing: Landing, completion: Any) -> Flow[None]:
    """A stream is stored when it is complete, by whoever reads its end; followers read along from now on."""

    def on_end(stream: LiveStream) -> Flow[None]:
        try:
            body = folded(request, stream.chunks)
            answer = completion(body)
        except Exception as error:  # its readers have every chunk; that these make no answer is not their trouble
            landing.place.cache.counts["refused"] += 1
            log.warning("A stream of %s is not stored: its chunks make no answer: %s", request.full_model, error)
            landing.lose(error)
        else:
            stream.repeats = yield from landing.land(request, answer, body, stream)

    if stream.done:  # a vendor that does not stream sent all at once
        yield from on_end(stream)
        return
    stream.on_end, stream.on_loss = on_end, landing.lose
    if landing.token:
        patience = landing.place.cache.lease_ttl
        leases.keeper.only_while(landing.token, lambda: stream.is_read(patience))
    if landing.flight is not None:
        landing.place.cache.flights.goes_live(landing.flight, stream)


class Landing(NamedTuple):
    """What is to be done with a fresh answer: store it, tell the followers, give the lease back."""

    place: Place
    flight: Flight | None = None
    token: str = ""
    """That of the lease, if there is one."""
    terms: Any = None
    started: float = 0.0
    """When the call began (time.monotonic)."""

    def land(self, request: Request, answer: Any, body: bytes, stream: LiveStream | None) -> Flow[str]:
        """What `CacheInfo.repeats` says of the answer."""
        from ..core.answers import reader

        cache, key, controls, _ = self.place
        repeats = yield from self.repeats(body)
        chunks = tuple(stream.chunks) if stream is not None else ()
        timing = tuple(stream.moments) if stream is not None else ()
        ttl = shorter(controls.ttl, getattr(answer, "lifetime", None))
        notes = notes_of(request, cache.keep_requests, controls.tags)
        entry = Entry(cache.clock(), ttl, body, chunks, timing, notes)
        # Shown to `store_if` as a copy: what a caller gets is the vendor's answer, whatever that function does with it.
        shown = answer if controls.store_if is None else reader(request)(body)
        if controls.may_store and is_to_be_stored(shown, controls.store_if):
            yield from cache.write(key, entry)
        elif controls.may_store:
            cache.counts["refused"] += 1
        if self.flight is not None:
            cache.flights.land(self.flight, entry)
        if self.token:
            yield from cache.give_lease(key, self.token)
        return repeats

    def repeats(self, body: bytes) -> Flow[str]:
        """Whether a stored answer could have served instead. Looked up only if somebody wants to know.

        Now, and not before the vendor was asked: so an answer counts that came meanwhile, which would have been shared,
        and in shadow mode nothing is sent any later.
        """
        cache, key, controls, _ = self.place
        if not controls.is_shadow:
            was_free = bool(self.token) and controls.may_read  # looked up under the lease: nobody else has stored since
            if was_free or not is_counted(cache) or not (controls.may_read or controls.may_store):
                return ""
        earlier = yield from cache.read(key, controls, again=True)
        return repeats_of(cache, controls, earlier, body)

    def lose(self, error: BaseException | None) -> None:
        """There is no answer; None: because nobody wanted to read it."""
        cache, key = self.place[:2]
        if self.flight is not None:
            cache.flights.fail(self.flight, error or asyncio.CancelledError(), self.terms)
        cache.give_lease_soon(key, self.token)


def is_to_be_stored(answer: Any, store_if: Callable[[Any], bool | None] | None) -> bool:
    """Whether a complete answer is kept: as the caller's function says, or else if it is worth it."""
    said = None
    if store_if is not None:
        try:
            said = store_if(answer)
            if hasattr(said, "__await__"):  # which would be true, whatever it comes to
                getattr(said, "close", str)()
                raise TypeError("it gave something to await, and must say at once")
        except Exception as error:
            log.warning("An answer is not stored: store_if raised %s: %s", type(error).__name__, error)
            return False
    return is_worth_storing(answer) if said is None else bool(said)


def repeats_of(cache: Cache, controls: Controls, earlier: Entry | None, body: bytes) -> str:
    """What `CacheInfo.repeats` says of a paid answer, of which `earlier` was stored before. Counts for shadow mode."""
    if earlier is not None and is_kept(earlier):
        earlier = None
    if not controls.is_shadow:
        return "" if earlier is None else "duplicate"
    cache.counts["shadow_misses" if earlier is None else "shadow_hits"] += 1
    if earlier is None:
        return ""
    is_same = says_the_same(earlier.body, body)
    cache.counts["shadow_same"] += is_same
    return "same" if is_same else "different"


def is_worth_storing(answer: Any) -> bool:
    """Whether a complete answer may be kept: no refusal, no broken tool call. What is no chat knows it itself."""
    if not hasattr(answer, "choices"):
        return bool(getattr(answer, "may_be_kept", True))
    finish_reasons, arguments, has_refusal = [], [], False
    for choice in answer.choices:
        finish_reasons.append(choice.finish_reason)
        message = getattr(choice, "message", None)
        has_refusal = has_refusal or bool(getattr(message, "refusal", None))
        for call in getattr(message, "tool_calls", None) or ():
            function = getattr(call, "function", None)
            if function is not None and isinstance(function.arguments, str):
                arguments.append(function.arguments)
    return may_store_answer(finish_reasons, has_refusal, arguments)


def notes_of(request: Request, keep_request: bool, tags: Sequence[str] = ()) -> bytes:
    """What is kept beside an answer: model, tags, and a digest of each part of the request; its text only if asked."""
    import orjson

    notes = {"model": request.full_model, "parts": component_digests(request)}
    if tags:
        notes["tags"] = tags
    if keep_request:
        notes["request"] = texts(request)
    return orjson.dumps(notes)
