"""Embeddings, cached item by item: a batch asks the vendor only for what nobody has asked before.

    items → a key for each different one → look up all → the missing ones: this caller's to ask, or another's under way
                                                             └→ requests that the vendor takes → an entry for each item
                                                                                              → put together in order

Whatever is put together is made from entries, fresh or stored, so that a batch and its repetition are equal. A vendor
counts tokens for a whole request only: each item keeps its share of them, by length, and the shares add up.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..caching.cache import Cache
from ..caching.entry import Entry
from ..caching.flights import Flight
from ..caching.keys import EARLIER, NotJSON
from ..caching.policy import Controls, is_soon_over
from ..core.errors import CacheMiss, RejoinderError
from ..core.flow import Flow, Io
from ..core.types import Options, Request
from ..providers import table
from ..providers.base import Failure, ProviderFault
from ..providers.deployment import deployment
from .books import Slip, slip_of, watched
from .engine import cache_for, may_fall_back
from .faults import invalid, late, twin_of
from .miss import _apause, _pause, is_to_be_stored, notes_of, repeats_of
from .portions import all_of, each_of, portions
from .renewal import in_task, in_thread
from .shape import options_of, snapshot
from .shares import shares_of, split, summed
from .vendor import ask_whole, fitted

Found = dict[str, Entry]
log = logging.getLogger("rejoinder")


def begin_embedding(request: Request, model: str, params: Mapping[str, Any], call_type: str) -> Flow[Any]:
    """The flow that gets the vectors of all items of `request`."""
    options = options_of(params)
    cache = cache_for(params, call_type)
    slip = slip_of(request, params, cache)
    request = snapshot(request)
    items = items_of(request.parameters["input"])
    if cache is None:
        return watched(slip, _uncached(request, options, items))
    controls = cache.controls(params.get("cache"))
    keys: list[str] = []
    earlier: dict[str, list[tuple[Cache, str]]] = {}
    for item in items:
        single, given = with_input(request, item), {**params, "input": item}
        try:
            key = cache.entry_key(single, controls, model, None, given)
        except NotJSON as error:
            raise invalid(str(error), request) from None
        if key is None:
            return watched(slip, _uncached(request, options, items))
        keys.append(key)
        if controls.may_read and (EARLIER or cache.old is not None):
            earlier[key] = list(cache.earlier_places(single, controls, model, None, given))
    return Batch(request, options, cache, controls, items, keys, earlier, slip).answer()


def items_of(given: Any) -> list[Any]:
    """What is to be embedded, one by one: texts, or lists of tokens. A lone text or list of tokens is one item."""
    if isinstance(given, (str, Mapping)) or all(isinstance(item, int) for item in given):
        return [given]
    return list(given)


def with_input(request: Request, given: Any) -> Request:
    return request._replace(parameters={**request.parameters, "input": given})


def _uncached(request: Request, options: Options, items: Sequence[Any]) -> Flow[Any]:
    started = time.monotonic()
    parts = portions(items, table.most_to_embed(request))
    if len(parts) == 1:
        return (yield from ask(request, options, len(items), started))
    asked = [ask(with_input(request, part), options, len(part), started) for part in parts]
    answers = yield from all_of(asked)
    whole = answers[0]
    whole.usage = type(whole.usage)(**summed(answer.usage.model_dump() for answer in answers))
    whole.data = [item for answer in answers for item in answer.data]
    for place, item in enumerate(whole.data):
        item.index = place
    return whole


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
        earlier: Mapping[str, Sequence[tuple[Cache, str]]] | None = None,
        slip: Slip | None = None,
    ) -> None:
        self.request, self.options, self.cache, self.controls = request, options, cache, controls
        self.keys, self.items, self.slip = keys, dict(zip(keys, items, strict=True)), slip
        self.earlier = earlier or {}
        """Where else an item may be, from before: under an earlier key, or in an older cache."""
        self.started = time.monotonic()
        self.deadline = None if options.patience is None else self.started + options.patience
        self.terms = (options.terms, options.drop_params, request.extra_headers)
        self.asked: set[str] = set()
        self.fresh: Found = {}
        """What this call was answered, also where a later request of it failed."""
        self.led: dict[str, Flight] = {}
        """The flights of items that this call is to ask for."""
        self.late: set[str] = set()
        """The items that are served past their time."""
        self.parts: dict[str, tuple[Entry, Any]] = {}
        """Stored entries, and the answers that they were read as."""
        self.paid_tokens = 0

    def answer(self) -> Flow[Any]:
        found: Found = {}
        if self.controls.may_read:
            found = yield from self.read(list(self.items))
            yield from self.keep_young(found)
            found.update((yield from self.read_earlier([key for key in self.earlier if key not in found])))
        self.cache.counts["hits"] += len(found)
        self.cache.counts["misses"] += len(self.items) - len(found)
        stored = frozenset(found)
        if self.controls.must_hit and (count := len(self.items) - len(found)):
            raise CacheMiss(
                f"replay_only: {count} of {len(self.items)} items of this call of "
                f"{self.request.full_model!r} are not stored. Nothing was sent. Record them first, in mode 'on'."
            )
        spare: Found = {}
        if self.controls.grace and self.controls.may_read and len(found) < len(self.items):
            spare = yield from self.read_late([key for key in self.items if key not in found])
            found.update((yield from self.renew_late(spare)))
        try:
            while missing := [key for key in self.items if key not in found]:
                found.update((yield from self.get(missing)))
        except RejoinderError as error:
            found.update(self.fresh)
            spare = {key: entry for key, entry in spare.items() if key not in found and self.serves_for_error(entry)}
            if not may_fall_back(error) or len(found) + len(spare) < len(self.items):
                raise
            found.update(spare)
            self.late.update(spare)
        return self.joined(found, stored | self.late)

    # Items of another time

    def read_earlier(self, keys: list[str]) -> Flow[Found]:
        """What is kept where it was kept before; it is copied to where it belongs."""
        found: Found = {}
        for key in keys:
            for other, other_key in self.earlier[key]:
                entry = yield from other.look(other_key, self.controls)
                if entry is not None and (yield from self.readable({key: entry})):
                    found[key] = entry.tagged(self.controls.tags)
                    break
        if self.controls.may_store:
            yield from self.write(found, "migrated")
        return found

    def keep_young(self, found: Found) -> Flow[None]:
        """Extend the time of hits because they serve, or fetch them anew before their time is over."""
        if not (self.controls.sliding or self.controls.early_refresh):
            return
        renewed = {key: now for key, entry in found.items() if (now := self.cache.renewed(entry, self.controls))}
        yield from self.write(renewed, "renewed")
        ages = {key: entry for key, entry in found.items() if key not in renewed and self.is_soon_over(entry)}
        yield from self.fetch_anew(ages, self.controls.early_refresh)

    def is_soon_over(self, entry: Entry) -> bool:
        window, now = self.controls.early_refresh, self.cache.clock()
        return is_soon_over(entry.stored_at, entry.ttl, self.controls.max_age, window, now)

    def read_late(self, keys: list[str]) -> Flow[Found]:
        """The entries of `keys` that are past their time, but within the call's grace."""
        reads = {key: self.cache.read_stale(key, self.controls) for key in keys}
        return (yield from self.readable((yield from each_of(reads))))

    def renew_late(self, spare: Found) -> Flow[Found]:
        """Those that serve at once; they are asked for anew."""
        grace = self.controls.stale_while_revalidate
        found = {key: entry for key, entry in spare.items() if self.cache.overdue(entry, self.controls) <= grace}
        self.late.update(found)
        yield from self.fetch_anew(found, grace)
        return found

    def fetch_anew(self, found: Found, window: float) -> Flow[None]:
        """Ask for these once more, in the background, unless somebody is at it already, or was just now."""
        cache = self.cache
        keys = [key for key in found if self.controls.may_store and key not in cache.flights]
        keys = cache.renewals.begin(keys, window, cache.clock())
        if not keys:
            return
        # What another process has fetched meanwhile will do: anything that is younger than these.
        age = self.cache.clock() - max(found[key].stored_at for key in keys)
        anew = self.controls._replace(max_age=max(0.0, age) * (1 - 1e-9))
        items = [self.items[key] for key in keys]
        batch = Batch(self.request, self.options, self.cache, anew, items, keys, slip=self.slip)
        yield Io(in_thread, in_task, (batch.renew(), lambda: cache.renewals.end(keys, cache.clock())))

    def renew(self) -> Flow[None]:
        """Ask for all items, whatever is stored."""
        try:
            yield from self.get(list(self.items))
        except Exception as error:  # a caller's own function may raise anything, and here is nobody to catch it
            self.cache.counts["stale_errors"] += 1
            log.info("Stale vectors of %s could not be renewed: %s", self.request.full_model, error)

    def serves_for_error(self, entry: Entry) -> bool:
        return self.cache.overdue(entry, self.controls) <= self.controls.stale_if_error

    # Getting what is missing

    def get(self, missing: list[str]) -> Flow[Found]:
        """Ask for what nobody is asking for, then wait for what others are. What they lost is still missing after it.

        In this order two batches that each wait for an item of the other cannot wait for ever.
        """
        if not self.cache.single_flight or self.controls.alone:
            return (yield from self.lead(missing))
        followed: dict[str, Flight] = {}
        try:
            for key in missing:
                flight, leads = self.cache.flights.join(key)
                (self.led if leads else followed)[key] = flight
            found = yield from self.lead(list(self.led))
        except BaseException as error:
            for flight in self.led.values():
                self.cache.flights.fail(flight, error, self.terms)
            self.led.clear()
            raise
        for key, flight in self.led.items():  # what was not asked for: another process has stored it
            self.cache.flights.land(flight, found[key])
        self.led.clear()
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
            if token:
                yield from self.cache.give_lease(_lease_of(keys), token)
        except BaseException:
            self.cache.give_lease_soon(_lease_of(keys), token)
            raise
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
        """Requests to the vendor for all of `keys`, none larger than it takes."""
        parts = portions(keys, table.most_to_embed(self.request), self.items)
        yield from all_of([self.ask_at_once(part) for part in parts])
        return {key: self.fresh[key] for key in keys}

    def ask_at_once(self, keys: list[str]) -> Flow[None]:
        """One request, and an entry for each item of its answer: stored and handed to who waits for it."""
        given = self.request.parameters["input"]
        is_one = len(self.keys) == 1 and items_of(given)[0] is given
        wanted = given if is_one else [self.items[key] for key in keys]
        answer = yield from ask(with_input(self.request, wanted), self.options, len(keys), self.started)
        is_first = not self.asked
        self.asked.update(keys)
        self.paid_tokens += answer.usage.total_tokens
        pieces = split(answer, [self.items[key] for key in keys])
        entries = {key: self.entry(key, body) for key, body in zip(keys, pieces, strict=True)}
        self.fresh.update(entries)
        if self.slip is not None or self.controls.is_shadow:
            yield from self.count_paid(entries, answer.usage, int(is_first))
        if self.controls.may_store:
            yield from self.write({key: entry for key, entry in entries.items() if self.is_to_be_stored(entry)})
        for key, entry in entries.items():
            if (flight := self.led.pop(key, None)) is not None:
                self.cache.flights.land(flight, entry)

    def write(self, entries: Found, count: str = "stored") -> Flow[None]:
        if entries:
            writes = {key: self.cache.write(key, entry, count=count) for key, entry in entries.items()}
            yield from each_of(writes)

    def is_to_be_stored(self, entry: Entry) -> bool:
        """As the caller's `store_if` says, which is shown the answer to this item alone."""
        from ..core.endpoint_answers import embeddings

        if self.controls.store_if is None or is_to_be_stored(embeddings(entry.body), self.controls.store_if):
            return True
        self.cache.counts["refused"] += 1
        return False

    def count_paid(self, entries: Found, usage: Any, calls: int) -> Flow[None]:
        """Count what a request came to, and which of it stored vectors could have served (see `Landing.repeats`)."""
        earlier: dict[str, Entry | None] = {}
        if self.controls.may_read or self.controls.may_store:
            reads = {key: self.cache.read(key, self.controls, again=True) for key in entries}
            earlier = yield from each_of(reads)
        repeats = {
            key: repeats_of(self.cache, self.controls, earlier.get(key), entry.body) for key, entry in entries.items()
        }
        if self.slip is None:
            return
        whole = usage.model_dump()
        self.slip.enter_part("none", whole, calls)
        shares = dict(zip(entries, shares_of(whole, [len(self.items[key]) or 1 for key in entries]), strict=True))
        for word in set(repeats.values()):
            again = summed(share for key, share in shares.items() if repeats[key] == word)
            self.slip.enter_repeats(word, again)

    def entry(self, key: str, body: bytes) -> Entry:
        notes = notes_of(with_input(self.request, self.items[key]), self.cache.keep_requests, self.controls.tags)
        return Entry(self.cache.clock(), self.controls.ttl, body, notes=notes)

    def read(self, keys: list[str], *, again: bool = False) -> Flow[Found]:
        """The stored entries of `keys`. `again`: they have been looked for before, and are not counted twice."""
        reads = {key: self.cache.read(key, self.controls, again=again) for key in keys}
        return (yield from self.readable((yield from each_of(reads))))

    def readable(self, entries: Mapping[str, Entry | None]) -> Flow[Found]:
        """Those that are there. One that holds no vector is set aside, and counts as missing."""
        from ..core.endpoint_answers import embeddings

        found: Found = {}
        for key, entry in entries.items():
            if entry is None:
                continue
            try:
                part = embeddings(entry.body)
                if len(part.data) != 1:
                    raise ValueError(f"it holds {len(part.data)} vectors")
            except ValueError as error:
                yield from self.cache.set_aside(key, str(error))
            else:
                found[key], self.parts[key] = entry, (entry, part)
        return found

    # Putting together

    def joined(self, found: Found, stored: frozenset[str]) -> Any:
        """The answer, out of the entries of its items."""
        from ..core.endpoint_answers import BatchInfo, embeddings

        parts: dict[str, Any] = {}
        for key, entry in found.items():
            read, part = self.parts.get(key, (None, None))
            parts[key] = part if read is entry else embeddings(entry.body)
        answer = parts[self.keys[0]]
        usage = summed(parts[key].usage.model_dump() for key in self.items)
        saved = summed(parts[key].usage.model_dump() for key in self.items if key not in self.asked)
        firsts = {key: part.data[0] for key, part in parts.items()}
        items = dict(firsts)
        answer.data = []
        for place, key in enumerate(self.keys):
            item = items.pop(key, None) or firsts[key].model_copy(deep=True)  # asked for twice: two vectors
            item.index = place
            answer.data.append(item)
        answer.usage = type(answer.usage)(**usage)
        hits, count = len(self.items) - len(self.asked), len(self.items)
        kind = "stale" if self.late else "exact" if len(stored) == count else "shared"
        kind = "none" if not hits else "partial" if self.asked else kind
        if self.slip is not None and hits:
            self.slip.enter_part("exact" if kind == "partial" else kind, saved, int(not self.asked))
        ages = [self.cache.clock() - found[key].stored_at for key in stored]
        answer.cache = not self.asked
        age, late = max(ages, default=0.0), len(self.late)
        store, paid = self.cache.type, self.paid_tokens
        info = BatchInfo(not self.asked, kind, self.keys[0], store, age, count, hits, paid, late)
        object.__setattr__(answer, "_cache_info", info)
        return answer


def _lease_of(keys: Sequence[str]) -> str:
    """Who asks for these very items holds this lease. Of processes whose batches only overlap, none waits."""
    return keys[0] + ":" + hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]
