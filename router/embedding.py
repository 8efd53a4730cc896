"""Embeddings, cached item by item: a batch asks the vendor only for what nobody has asked before.

    items → a key for each different one → look up all → the missing ones: this caller's to ask, or another's under way
                                                             └→ one request → an entry for each → put together in order

Whatever is put together is made from entries, fresh or stored, so that a batch and its repetition are equal. A vendor
counts tokens for a whole request only: each item keeps its share of them, by length, and the shares add up.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import orjson

from ..caching.cache import Cache
from ..caching.entry import Entry
from ..caching.flights import Flight
from ..caching.keys import NotJSON
from ..caching.policy import Controls
from ..core.errors import CacheMiss
from ..core.flow import Flow, Io, arun, run
from ..core.types import Options, Request
from ..providers.base import Failure, ProviderFault
from ..providers.deployment import deployment
from .engine import cache_for
from .faults import invalid, late, twin_of
from .miss import _apause, _pause, notes_of
from .shape import options_of, snapshot
from .vendor import ask_whole, fitted

AT_ONCE = 64
"""How many items are read or written at the same time, by a task."""

Found = dict[str, Entry]


def begin_embedding(request: Request, model: str, params: Mapping[str, Any], call_type: str) -> Flow[Any]:
    """The flow that gets the vectors of all items of `request`."""
    options = options_of(params)
    cache = cache_for(params, call_type)
    request = snapshot(request)
    items = items_of(request.parameters["input"])
    if cache is None:
        return _uncached(request, options, len(items))
    controls = cache.default_controls if params.get("cache") is None else cache.controls(params["cache"])
    keys: list[str] = []
    for item in items:
        try:
            key = cache.entry_key(with_input(request, item), controls, model, None, {**params, "input": item})
        except NotJSON as error:
            raise invalid(str(error), request) from None
        if key is None:
            return _uncached(request, options, len(items))
        keys.append(key)
    return Batch(request, options, cache, controls, items, keys).answer()


def items_of(given: Any) -> list[Any]:
    """What is to be embedded, one by one: texts, or lists of tokens. A lone text or list of tokens is one item."""
    if isinstance(given, (str, Mapping)) or all(isinstance(item, int) for item in given):
        return [given]
    return list(given)


def with_input(request: Request, given: Any) -> Request:
    return request._replace(parameters={**request.parameters, "input": given})


def _uncached(request: Request, options: Options, count: int) -> Flow[Any]:
    return (yield from ask(request, options, count, time.monotonic()))


def ask(request: Request, options: Options, count: int, started: float) -> Flow[Any]:
    """Ask the vendor for `count` vectors; they come in order. Another number of them is the vendor's fault."""
    from ..core.endpoint_answers import embeddings

    def checked(body: bytes) -> Any:
        answer = embeddings(body)
        answer.data.sort(key=lambda item: item.index)
        if [item.index for item in answer.data] != list(range(count)):
            message = f"{count} vectors were asked for, and {len(answer.data)} came, or not each once."
            raise ProviderFault(Failure(message, "wrong_vectors", status=502), body[:1000])
        return answer

    place = deployment(request, options)
    request = fitted(request, options, place)
    _, answer = yield from ask_whole(request, options, place, checked, started)
    return answer


class Batch:
    """One cached call."""

    def __init__(
        self,
        request: Request,
        options: Options,
        cache: Cache,
        controls: Controls,
        items: Sequence[Any],
        keys: Sequence[str],
    ) -> None:
        self.request, self.options, self.cache, self.controls = request, options, cache, controls
        self.keys, self.items = keys, dict(zip(keys, items, strict=True))
        self.started = time.monotonic()
        self.deadline = None if options.deadline is None else self.started + options.deadline
        self.terms = (options.terms, options.drop_params, request.extra_headers)
        self.asked: set[str] = set()
        self.parts: dict[str, Any] = {}
        """The answers that stored entries were read as."""
        self.paid_tokens = 0

    def answer(self) -> Flow[Any]:
        found: Found = {}
        if self.controls.may_read:
            found = yield from self.read(list(self.items))
        self.cache.counts["hits"] += len(found)
        self.cache.counts["misses"] += len(self.items) - len(found)
        stored = frozenset(found)
        while missing := [key for key in self.items if key not in found]:
            if self.controls.must_hit:
                raise CacheMiss(
                    f"replay_only: {len(missing)} of {len(self.items)} items of this call of "
                    f"{self.request.full_model!r} are not stored. Nothing was sent. Record them first, in mode 'on'."
                )
            found.update((yield from self.get(missing)))
        return self.joined(found, stored)

    # Getting what is missing

    def get(self, missing: list[str]) -> Flow[Found]:
        """Ask for what nobody is asking for, then wait for what others are. What they lost is still missing after it.

        In this order two batches that each wait for an item of the other cannot wait for ever.
        """
        if not self.cache.single_flight or self.controls.alone:
            return (yield from self.lead(missing))
        led: dict[str, Flight] = {}
        followed: dict[str, Flight] = {}
        try:
            for key in missing:
                flight, leads = self.cache.flights.join(key)
                (led if leads else followed)[key] = flight
            found = yield from self.lead(list(led))
        except BaseException as error:
            for flight in led.values():
                self.cache.flights.fail(flight, error, self.terms)
            raise
        for key, flight in led.items():
            self.cache.flights.land(flight, found[key])
        found.update((yield from self.follow(followed)))
        return found

    def follow(self, flights: Mapping[str, Flight]) -> Flow[Found]:
        found: Found = {}
        alone = []
        for key, flight in flights.items():
            outcome = yield Io(flight.wait, flight.await_, (self.deadline,))
            if outcome.kind == "landed":
                found[key] = outcome.value
                self.cache.counts["shared"] += 1
            elif outcome.kind == "failed" and outcome.terms == self.terms:
                raise twin_of(outcome.value)
            elif outcome.kind == "late":
                raise late(self.request, self.options)
            elif outcome.kind == "alone":
                alone.append(key)
        found.update((yield from self.lead(alone)))
        return found

    def lead(self, keys: list[str]) -> Flow[Found]:
        """Entries for all of `keys`: from the vendor, or stored by others since they were looked up."""
        if not keys:
            return {}
        found, token = yield from self.wait_for_others(keys)
        rest = [key for key in keys if key not in found]
        try:
            if rest:
                found.update((yield from self.ask(rest)))
        except BaseException:
            self.cache.give_lease_soon(_lease_of(keys), token)
            raise
        if token:
            yield from self.cache.give_lease(_lease_of(keys), token)
        return found

    def wait_for_others(self, keys: list[str]) -> Flow[tuple[Found, str]]:
        """What other processes that ask for the same items have stored, and the lease for asking for the rest."""
        found: Found = {}
        pause = 0.002
        while True:
            token: str | None = ""
            if self.cache.has_leases and not self.controls.alone:
                token = yield from self.cache.take_lease(_lease_of(keys))
            if self.controls.may_read:
                try:
                    rest = [key for key in keys if key not in found]
                    found.update((yield from self.read(rest, again=True)))
                except BaseException:
                    self.cache.give_lease_soon(_lease_of(keys), token or "")
                    raise
            if token is not None or len(found) == len(keys):
                self.cache.counts["shared"] += len(found)
                return found, token or ""
            if not (yield Io(_pause, _apause, (pause,))) or not self.controls.may_read:
                return found, ""
            if self.deadline is not None and time.monotonic() > self.deadline:
                raise late(self.request, self.options)
            pause = min(pause * 1.5, 0.05)

    def ask(self, keys: list[str]) -> Flow[Found]:
        """One request to the vendor, and an entry for each item of its answer."""
        given = self.request.parameters["input"]
        is_one = len(self.keys) == 1 and items_of(given)[0] is given
        wanted = given if is_one else [self.items[key] for key in keys]
        answer = yield from ask(with_input(self.request, wanted), self.options, len(keys), self.started)
        self.asked.update(keys)
        self.paid_tokens += answer.usage.total_tokens
        pieces = split(answer, [self.items[key] for key in keys])
        entries = {key: self.entry(key, body) for key, body in zip(keys, pieces, strict=True)}
        if self.controls.may_store:
            yield Io(_write_all, _awrite_all, (self.cache, entries))
        return entries

    def entry(self, key: str, body: bytes) -> Entry:
        notes = notes_of(with_input(self.request, self.items[key]), self.cache.keep_requests)
        return Entry(self.cache.clock(), self.controls.ttl, body, notes=notes)

    def read(self, keys: list[str], *, again: bool = False) -> Flow[Found]:
        """The stored entries of `keys`. One that holds no vector is set aside, and counts as missing.

        `again`: they have been looked for before, and are not counted twice.
        """
        from ..core.endpoint_answers import embeddings

        found: Found = yield Io(_read_all, _aread_all, (self.cache, keys, self.controls, again))
        for key, entry in list(found.items()):
            try:
                part = embeddings(entry.body)
                if len(part.data) != 1:
                    raise ValueError(f"it holds {len(part.data)} vectors")
            except ValueError as error:
                del found[key]
                yield from self.cache.set_aside(key, str(error))
            else:
                self.parts[key] = part
        return found

    # Putting together

    def joined(self, found: Found, stored: frozenset[str]) -> Any:
        """The answer, out of the entries of its items."""
        from ..core.endpoint_answers import BatchInfo, embeddings

        parts = {key: self.parts.get(key) or embeddings(entry.body) for key, entry in found.items()}
        answer = parts[self.keys[0]]
        usage: dict[str, Any] = {}
        for key in self.items:
            for name, value in parts[key].usage.model_dump().items():
                usage[name] = usage.get(name, 0) + value
        firsts = {key: part.data[0] for key, part in parts.items()}
        items = dict(firsts)
        answer.data = []
        for place, key in enumerate(self.keys):
            item = items.pop(key, None) or firsts[key].model_copy(deep=True)  # asked for twice: two vectors
            item.index = place
            answer.data.append(item)
        answer.usage = type(answer.usage)(**usage)
        hits, count = len(self.items) - len(self.asked), len(self.items)
        kind = "none" if not hits else "partial" if self.asked else "exact" if len(stored) == count else "shared"
        ages = [self.cache.clock() - found[key].stored_at for key in stored]
        answer.cache = not self.asked
        info = BatchInfo(
            not self.asked, kind, self.keys[0], self.cache.type, max(ages, default=0.0), count, hits, self.paid_tokens
        )
        object.__setattr__(answer, "_cache_info", info)
        return answer


def split(answer: Any, items: Sequence[Any]) -> Generator[bytes, None, None]:
    """The answer to each item alone, as JSON."""
    rest = answer.model_dump(exclude={"data", "usage", "cache"})
    shares = list(shares_of(answer.usage.model_dump(), [len(item) or 1 for item in items]))
    for item, usage in zip(answer.data, shares, strict=True):
        yield orjson.dumps({**rest, "data": [{**item.model_dump(), "index": 0}], "usage": usage})


def shares_of(usage: Mapping[str, Any], weights: Sequence[int]) -> Generator[dict[str, Any], None, None]:
    """Each one's share of the vendor's counts. Whole numbers stay whole and add up; what is no number is left out.

    >>> list(shares_of({"total_tokens": 10}, [1, 1, 1]))
    [{'total_tokens': 3}, {'total_tokens': 3}, {'total_tokens': 4}]
    """
    whole, before = sum(weights), 0
    for weight in weights:
        after = before + weight
        yield {
            name: count * after // whole - count * before // whole if isinstance(count, int) else count * weight / whole
            for name, count in usage.items()
            if isinstance(count, (int, float)) and not isinstance(count, bool)
        }
        before = after


def _lease_of(keys: Sequence[str]) -> str:
    """Who asks for these very items holds this lease. Of processes whose batches only overlap, none waits."""
    return keys[0] + ":" + hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]


# Many items at once


def _read_all(cache: Cache, keys: Sequence[str], controls: Controls, again: bool) -> Found:
    read = ((key, run(cache.read(key, controls, again=again))) for key in keys)
    return {key: entry for key, entry in read if entry is not None}


async def _aread_all(cache: Cache, keys: Sequence[str], controls: Controls, again: bool) -> Found:
    bound = asyncio.Semaphore(AT_ONCE)

    async def read(key: str) -> Entry | None:
        async with bound:
            return await arun(cache.read(key, controls, again=again))

    entries = await asyncio.gather(*map(read, keys))
    return {key: entry for key, entry in zip(keys, entries, strict=True) if entry is not None}


def _write_all(cache: Cache, entries: Found) -> None:
    for key, entry in entries.items():
        run(cache.write(key, entry))


async def _awrite_all(cache: Cache, entries: Found) -> None:
    bound = asyncio.Semaphore(AT_ONCE)

    async def write(key: str, entry: Entry) -> None:
        async with bound:
            await arun(cache.write(key, entry))

    await asyncio.gather(*(write(key, entry) for key, entry in entries.items()))
