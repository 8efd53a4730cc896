"""Asking the vendor: what it takes, how often it is tried."""

from __future__ import annotations

import asyncio
import difflib
import time
from typing import Any

from ..core import settings
from ..core.flow import Flow, Io
from ..core.types import Attempt, Options, Request
from ..providers.base import Call
from ..providers.deployment import Deployment
from ..providers.prompt_cache import fitted_wish
from .faults import invalid, status_error, translated
from .live import LiveStream, Membership
from .retry import Attempts
from .shape import OURS, without

IDLE = {"n": 1, "frequency_penalty": 0, "presence_penalty": 0, "logprobs": False, "logit_bias": {}, "store": False}
"""What OpenAI's parameters are where nothing is said. Saying it asks for nothing that a provider may lack."""


def fitted(request: Request, options: Options, place: Deployment) -> Request:
    """The request with only what this provider takes. Raises `InvalidRequest` unless dropping was asked for."""
    request = fitted_wish(request, place.provider)
    if place.provider.open_ended:
        for name in request.parameters.keys() - place.provider.extra:
            if close := difflib.get_close_matches(name, OURS, n=1, cutoff=0.85):
                raise invalid(f"There is no argument {name!r}. Did you mean {close[0]!r}?", request)
        return request
    known = place.codec.parameters_for(request, place.provider)
    unknown = request.parameters.keys() - known
    if not unknown:
        return request
    idle = {name for name in unknown & IDLE.keys() if request.parameters[name] == IDLE[name]}
    if idle:
        return fitted(without(request, idle), options, place)
    if options.drop_params:
        return without(request, unknown)
    from ..core.errors import suggestion

    names = ", ".join(repr(name) for name in sorted(unknown))
    hint = suggestion(min(unknown), known | OURS) if len(unknown) == 1 else ""
    raise invalid(
        f"{place.provider.name!r} has no parameter {names}.{hint} "
        "Vendor parameters go into extra_body={…}; drop_params=True leaves out what a provider does not know.",
        request,
    )


def encoded(request: Request, place: Deployment) -> Call:
    """What to send. What the protocol cannot say is an error that names the provider and the model."""
    try:
        return place.codec.encode(request, place.provider)
    except Exception as error:
        raise translated(error, request, place) from None


def ask_whole(
    request: Request, options: Options, place: Deployment, completion: Any, started: float
) -> Flow[tuple[bytes, Any]]:
    """A whole answer: its OpenAI-shaped JSON, and the same typed."""
    call = encoded(request, place)
    tries = Tries(request, options, place, started)
    while True:
        try:
            reply = yield Io(place.wire.send, place.wire.asend, (call, request, tries.options))
            if reply.status >= 300:
                raise status_error(reply.status, reply.headers, reply.body, request, place)
            body = place.codec.decode_reply(reply, request)
            return body, completion(body)
        except Exception as error:
            pause = tries.pause_after(translated(error, request, place))
        yield Io(time.sleep, asyncio.sleep, (pause,))


def ask_stream(request: Request, options: Options, place: Deployment, started: float) -> Flow[Membership]:
    """The first place at a stream whose first chunk is there: an error at its beginning is tried again like others."""
    call = encoded(request, place)
    tries = Tries(request, options, place, started)
    while True:
        try:
            reply = yield Io(place.wire.open, place.wire.aopen, (call, request, tries.options))
            if reply.status >= 300:
                body = yield Io(reply.read, reply.aread)
                raise status_error(reply.status, reply.headers, body, request, place)
            source = yield Io(_batches, _abatches, (reply,))
            stream = LiveStream(
                reply, place.codec.decoder(request), source, lambda error: translated(error, request, place)
            )
            member = Membership(stream)
            try:
                yield Io(stream.pull, stream.apull, (0,))
            except BaseException:
                member.leave()
                raise
            if stream.error is not None:
                raise stream.error
            return member
        except Exception as error:
            pause = tries.pause_after(translated(error, request, place))
        yield Io(time.sleep, asyncio.sleep, (pause,))


def _batches(reply: Any) -> Any:
    return reply.batches()


async def _abatches(reply: Any) -> Any:
    return reply.abatches()


class Tries:
    """The attempts of one call at one deployment, and what became of each."""

    def __init__(self, request: Request, options: Options, place: Deployment, started: float) -> None:
        self.started = self._since = started
        self.place, self.request, self._whole = place, request, options
        self.attempts = Attempts(options, self.started)
        self.made: tuple[Attempt, ...] = ()

    @property
    def options(self) -> Options:
        """The options of the next attempt: what is left of the deadline bounds its timeout."""
        self._since = time.monotonic()
        options = self._whole
        if options.deadline is None:
            return options
        left = max(0.001, options.deadline - (self._since - self.started))
        timeout = options.timeout if isinstance(options.timeout, (int, float)) else settings.request_timeout
        return options._replace(timeout=min(timeout, left))

    def pause_after(self, error: Exception) -> float:
        """Seconds until the next attempt; raises `error`, with the attempts on it, if there is none."""
        now = time.monotonic()
        status = getattr(error, "status_code", None)
        self.made += (Attempt(self.place.name, status, type(error).__name__, now - self._since),)
        pause = self.attempts.pause_after(error, now)
        if pause is not None:
            return pause
        error.attempts = self.made  # type: ignore[attr-defined]
        if len(self.made) > 1 and hasattr(error, "message"):
            error.message = f"{error.message.rstrip('.')} (attempt {len(self.made)} of {self._whole.num_retries + 1})."
            error.args = (error.message, *error.args[1:])
        raise error
