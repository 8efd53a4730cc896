"""A miss: one caller asks the vendor for all who ask the same, and stores the answer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..caching.cache import Cache
from ..caching.entry import Entry, new
from ..caching.flights import Flight, Outcome, in_event_loop
from ..caching.keys import component_digests
from ..caching.policy import Controls, may_store_answer
from ..core.flow import Flow, Io, run
from ..core.types import Options, Request
from ..providers.deployment import deployment
from .faults import late, twin_of
from .fold import fold, unfold
from .live import LiveStream, Membership, Tape
from .shape import check, options_of
from .vendor import ask_stream, ask_whole, fitted

Params = Mapping[str, Any]


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

    stream: Tape | LiveStream
    info: Any


Found = Any
"""A `Completion` or a `Streamed`."""


class Place(NamedTuple):
    """Where a call's answer is kept, and what may be done there."""

    cache: Cache
    key: str
    controls: Controls


def serve(entry: Entry, kind: str, cache: Cache, key: str, request: Request, params: Params) -> Found:
    """A stored answer, in the form that the call asks for."""
    answers = typed()
    info = new(answers.CacheInfo, (True, kind, key, cache.type, cache.clock() - entry.stored_at))
    if not request.stream:
        return (
            answers.hit(entry.body, info) if request.endpoint == "chat" else answers.marked(request, entry.body, info)
        )
    chunks = list(entry.chunks) or unfold(entry.body)
    return Streamed(Tape(chunks, entry.timing if params.get("replay_timing") else ()), info)


def answer_miss(request: Request, params: Params, place: Place) -> Flow[Found]:
    """Nothing is stored: ask the vendor, or share the call of somebody who is asking the same."""
    options = options_of(params)
    cache, key, controls = place
    if not cache.single_flight or controls.alone:
        return (yield from lead(request, params, options, place, None))
    deadline = None if options.deadline is None else time.monotonic() + options.deadline
    while True:
        flight, leads = cache.flights.join(key)
        if leads:
            return (yield from lead(request, params, options, place, flight))
        outcome: Outcome = yield Io(flight.wait, flight.await_, (deadline,))
        found = yield from follow(outcome, request, params, options, place)
        if found is not None:
            return found


def follow(outcome: Outcome, request: Request, params: Params, options: Options, place: Place) -> Flow[Found | None]:
    """What a follower makes of its flight. None: look again who leads."""
    if outcome.kind == "landed":
        place.cache.counts["shared"] += 1
        return serve(outcome.value, "shared", place.cache, place.key, request, params)
    if outcome.kind == "live":
        return (yield from follow_live(outcome.value, request, params, place))
    if outcome.kind == "failed" and outcome.terms == options.terms:
        raise twin_of(outcome.value)
    if outcome.kind == "late":
        raise late(request, options)
    if outcome.kind == "alone":
        return (yield from lead(request, params, options, place, None))
    return None


def follow_live(stream: LiveStream, request: Request, params: Params, place: Place) -> Flow[Found | None]:
    """Read along with a stream under way: as a stream, or to its end for a whole answer."""
    from ..core.answers import CacheInfo, hit

    info = CacheInfo(True, "shared", place.key, place.cache.type, 0.0)
    if stream.loop is not None and (yield Io(_must_not_wait, _may_wait)):
        return (yield from lead(request, params, options_of(params), place, None))
    if request.stream:
        place.cache.counts["shared"] += stream.error is None
        return Streamed(stream, info) if stream.error is None else None
    member = Membership(stream)
    try:
        while not stream.done:
            yield Io(stream.pull, stream.apull, (len(stream.chunks),))
    finally:
        member.leave()
    if stream.error is not None:
        return None
    place.cache.counts["shared"] += 1
    return hit(fold(stream.chunks), info)


def _must_not_wait() -> bool:
    return in_event_loop()


async def _may_wait() -> bool:
    return False


def lead(request: Request, params: Params, options: Options, place: Place, flight: Flight | None) -> Flow[Found]:
    """Answer for all who ask the same. However this ends, the flight and the lease end with it."""
    cache, key, controls = place
    token = ""
    try:
        if flight is not None:
            waited = yield from wait_for_others(request, params, options, place)
            if isinstance(waited, Entry):
                cache.flights.land(flight, waited)
                cache.counts["shared"] += 1
                return serve(waited, "shared", cache, key, request, params)
            token = waited
        return (yield from ask(request, options, Landing(place, flight, token, options)))
    except BaseException as error:
        if flight is not None:
            cache.flights.fail(flight, error, options.terms)
        if token and isinstance(error, Exception):
            yield from cache.give_lease(key, token)
        elif token:
            yield from _give_lease_while_dying(cache, key, token)
        raise


def _give_lease_while_dying(cache: Cache, key: str, token: str) -> Flow[None]:
    """A cancelled task may not await: the lease is given back by a thread of its own."""
    threading.Thread(target=lambda: run(cache.give_lease(key, token)), daemon=True).start()
    return
    yield


def wait_for_others(request: Request, params: Params, options: Options, place: Place) -> Flow[Entry | str]:
    """The lease of this key ("" where there are none), or the answer that another process has stored meanwhile."""
    cache, key, controls = place
    pause, started = 0.002, time.monotonic()
    if not cache.has_leases:
        if controls.may_read:
            entry = yield from cache.read(key, controls)  # between our look-up and our lead, somebody may have landed
            return entry if entry is not None else ""
        return ""
    while True:
        token = yield from cache.take_lease(key)
        if token is not None:
            entry = (yield from cache.read(key, controls)) if controls.may_read else None
            if entry is not None and token:
                yield from cache.give_lease(key, token)
            return entry if entry is not None else token
        if not (yield Io(_pause, _apause, (pause,))) or not controls.may_read:
            return ""
        if options.deadline is not None and time.monotonic() - started > options.deadline:
            raise late(request, options)
        entry = yield from cache.read(key, controls)
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


def ask(request: Request, options: Options, landing: Landing | None) -> Flow[Found]:
    """Ask the vendor, with retries; land the answer."""
    from ..core.answers import NOT_CACHED, CacheInfo, reader

    completion = reader(request)
    if request.endpoint == "chat":
        check(request)
    place = deployment(request, options)
    request = fitted(request, options, place)
    if not request.stream:
        body, answer = yield from ask_whole(request, options, place, completion)
        if landing is not None:
            yield from landing.land(request, answer, body, None)
            object.__setattr__(
                answer, "_cache_info", CacheInfo(False, "none", landing.place.key, landing.place.cache.type, 0.0)
            )
        return answer
    if landing is not None and not request.stream_options and place.provider.stream_usage:
        request = request._replace(stream_options={"include_usage": True})
    stream = yield from ask_stream(request, options, place)
    if landing is not None:
        let_land(stream, request, landing, completion)
    return Streamed(stream, NOT_CACHED)


def let_land(stream: LiveStream, request: Request, landing: Landing, completion: Any) -> None:
    """A stream is stored when it is complete, by whoever reads its end; followers read along from now on."""

    def on_end(stream: LiveStream) -> Flow[None]:
        body = fold(stream.chunks)
        yield from landing.land(request, completion(body), body, stream)

    def on_loss(stream: LiveStream, error: BaseException | None) -> Flow[None]:
        yield from landing.close(None, error)

    stream.on_end, stream.on_loss = on_end, on_loss
    if landing.flight is not None:
        landing.place.cache.flights.goes_live(landing.flight, stream)


class Landing(NamedTuple):
    """What is to be done with a fresh answer: store it, tell the followers, give the lease back."""

    place: Place
    flight: Flight | None
    token: str
    options: Options

    def land(self, request: Request, answer: Any, body: bytes, stream: LiveStream | None) -> Flow[None]:
        cache, key, controls = self.place
        chunks = tuple(stream.chunks) if stream is not None else ()
        timing = tuple(stream.moments) if stream is not None else ()
        entry = Entry(cache.clock(), controls.ttl, body, chunks, timing, notes_of(request))
        if controls.may_store and is_worth_storing(answer):
            yield from cache.write(key, entry)
        elif controls.may_store:
            cache.counts["refused"] += 1
        yield from self.close(entry)

    def close(self, entry: Entry | None, error: BaseException | None = None) -> Flow[None]:
        cache, key, _ = self.place
        if self.flight is not None:
            if entry is not None:
                cache.flights.land(self.flight, entry)
            else:
                cache.flights.fail(self.flight, error or asyncio.CancelledError(), self.options.terms)
        if self.token:
            yield from cache.give_lease(key, self.token)


def is_worth_storing(answer: Any) -> bool:
    """Whether a complete answer may be kept: no refusal, no broken tool call. What is no chat always is."""
    if not hasattr(answer, "choices"):
        return True
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


def notes_of(request: Request) -> bytes:
    """What is kept beside an answer: which model, and a digest of each part of the request. No text, no key."""
    import orjson

    return orjson.dumps({"model": request.full_model, "parts": component_digests(request)})
