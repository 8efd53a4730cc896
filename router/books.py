"""What goes into ledgers of a call: under which words it is counted, and what it came to.

A slip is opened when a call begins, if anybody counts it, and entered when its answer is there, or a stream has ended.
What a call came to is worked out later, by the ledger's thread: prices take longer than a hit, and loading their list
as long as a short answer. Nothing in here raises: what makes trouble is a call of unknown price.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import orjson

from ..caching.cache import Cache
from ..caching.ledger import AGREED, DUPLICATE, PAID, WOULD_SAVE, Amount, Ledger, Where
from ..caching.runs import around_here, as_tags, is_counted, ledgers_of
from ..core.flow import Flow
from ..core.shape import Misshapen, parsed
from ..core.types import Request
from . import models
from .cost import completion_cost
from .live import LiveStream, Tape
from .miss import Streamed
from .usage import field, tokens_of

Params = Mapping[str, Any]
Bill = Amount | Callable[[], Amount]
log = logging.getLogger("rejoinder")

REPEATS = {"": (), "duplicate": (DUPLICATE,), "different": (DUPLICATE, WOULD_SAVE)}
REPEATS["same"] = (DUPLICATE, WOULD_SAVE, AGREED)
"""What a paid answer is counted under besides, by what its `cache_info.repeats` says."""


class Slip(NamedTuple):
    """Where a call under way is going to be counted."""

    ledgers: tuple[Ledger, ...]
    where: Where

    def watch(self, flow: Flow[Any]) -> Flow[Any]:
        """The same flow; what it finds is counted."""
        return self.counted((yield from flow))

    def counted(self, found: Any) -> Any:
        """`found` itself, counted, now or when it ends."""
        if type(found) is not Streamed:
            info = found.cache_info
            self.enter(info.kind, bill(self.where.model, found), getattr(info, "repeats", ""))
            return found
        stream, kind = found.member.stream, found.info.kind
        if isinstance(stream, Tape):
            self.enter(kind, bill(self.where.model, last_word(stream.chunks)))
        else:
            stream.when_over(lambda over: self._count_stream(over, kind))
        return found

    def _count_stream(self, stream: LiveStream, kind: str) -> None:
        """A stream that broke or was left is paid for all the same; who read along saved nothing that they have."""
        if kind == "none" or stream.error is None:
            self.enter(kind, bill(self.where.model, last_word(stream.chunks)), stream.repeats)

    def enter(self, kind: str, amount: Bill, repeats: str = "") -> None:
        """Count an amount: kind "none" was paid, all others were saved."""
        for each in (PAID, *REPEATS[repeats]) if kind == "none" else (kind,):
            for ledger in self.ledgers:
                ledger.add(self.where, each, amount)

    def enter_part(self, kind: str, usage: Mapping[str, Any], calls: int) -> None:
        """Count part of an answer; `calls` is 0 if the call itself is counted with another part."""
        self.enter(kind, bill(self.where.model, {"usage": usage}, calls))

    def enter_repeats(self, repeats: str, usage: Mapping[str, Any]) -> None:
        """Count part of a paid answer that could have been saved."""
        for each in REPEATS[repeats]:
            for ledger in self.ledgers:
                ledger.add(self.where, each, bill(self.where.model, {"usage": usage}))


def slip_of(request: Request, params: Params, cache: Cache | None) -> Slip | None:
    """The slip of a call that begins; None if nobody counts it."""
    if not is_counted(cache) or getattr(params.get("client"), "is_mock", False):
        return None
    runs = around_here()
    ledgers = ledgers_of(cache, runs)
    if not ledgers:
        return None
    tags = [*tags_in(params.get("metadata")), *tags_in(params.get("cache")), *(tag for run in runs for tag in run.tags)]
    if cache is not None:
        tags += cache.default_controls.tags
    return Slip(ledgers, Where(request.full_model, as_tags(tags), runs[-1].name if runs else ""))


def watched(slip: Slip | None, flow: Flow[Any]) -> Flow[Any]:
    """The flow of a call; counted, if somebody counts it."""
    return flow if slip is None else slip.watch(flow)


def tags_in(given: Any) -> tuple[str, ...]:
    """The tags of a call's `metadata` or `cache` argument."""
    if given is None or isinstance(given, Cache):
        return ()
    tags = given.get("tags") if isinstance(given, Mapping) else None
    return as_tags(tags) if isinstance(tags, (str, Sequence, set, frozenset)) else ()


def last_word(chunks: Sequence[bytes]) -> Any:
    """What of a stream's chunks says what it came to: the last with a usage, as a mapping."""
    for chunk in reversed(chunks):
        if b'"usage"' in chunk:
            with contextlib.suppress(Misshapen):  # a vendor's own words; whoever reads the stream is told
                said = parsed(chunk)
                answer = said.get("response") or said
                if field(answer, "usage"):
                    return answer
    return {}


def bill(model: str, answer: Any, calls: int = 1) -> Bill:
    """What an answer of `model` came to, worked out when it is called. It holds a copy of what it needs."""
    usage, named, tier = (field(answer, name) for name in ("usage", "model", "service_tier"))
    if usage is None:
        return Amount(calls=calls, unpriced=1)
    try:
        data = as_bytes(usage)
    except (TypeError, ValueError) as error:
        return _without_a_price(model, error)
    return partial(spent, model, named, tier, data, calls)


def as_bytes(usage: Any) -> bytes:
    if hasattr(usage, "__pydantic_serializer__"):
        return bytes(usage.__pydantic_serializer__.to_json(usage))
    return orjson.dumps(usage)


_known: dict[tuple[Any, ...], Amount] = {}
_known_by: tuple[Any, float] = (None, 0.0)
KEPT, FOR = 4096, 60.0
"""How many amounts are kept, and for how many seconds: prices may change with the hour."""


def spent(model: str, named: str | None, tier: Any, usage: bytes, calls: int) -> Amount:
    """What `usage` comes to. Hits have the usage that their miss had: it is priced once."""
    global _known_by
    now = time.monotonic()
    if _known_by[0] is not models._registered or now - _known_by[1] > FOR or len(_known) > KEPT:
        _known.clear()
        _known_by = models._registered, now
    key = (model, named, tier, usage, calls)
    amount = _known.get(key)
    if amount is None:
        try:
            amount = _priced(model, {"model": named, "service_tier": tier, "usage": orjson.loads(usage)}, calls)
        except Exception as error:  # a vendor's usage may have any form, and a price list any gap
            amount = _without_a_price(model, error)
        _known[key] = amount
    return amount


def _priced(model: str, answer: Mapping[str, Any], calls: int) -> Amount:
    tokens = tokens_of(answer["usage"])
    dollars = completion_cost(answer, model)
    if dollars is None and answer["model"]:
        # A deployment has a name of its own, at Azure for one; the answer says what is behind it.
        dollars = completion_cost(answer, f"{model.partition('/')[0]}/{answer['model']}")
    return Amount(
        calls=calls,
        prompt_tokens=tokens.input,
        completion_tokens=tokens.output,
        cache_read_tokens=tokens.cache_read or 0,
        cache_write_tokens=tokens.cache_write or 0,
        reasoning_tokens=tokens.reasoning or 0,
        dollars=dollars or 0.0,
        unpriced=int(dollars is None),
    )


def _without_a_price(model: str, error: Exception) -> Amount:
    log.warning("The price of a call of %s cannot be told: %s: %s", model, type(error).__name__, error)
    return Amount(calls=1, unpriced=1)
