"""The one retry layer: what to do after a failed attempt. The SDKs' own retries are off."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Mapping

from ..core.types import Options

PASSING = frozenset({408, 409, 429})
"""Statuses below 500 that another attempt may mend."""

EMPTY = frozenset({"billing_hard_limit_reached", "billing_not_active", "insufficient_quota"})
"""OpenAI's codes for an account without money, which it answers 429 like too many calls. No pause mends that."""

LONGEST_RETRY_AFTER = 60.0
"""A vendor that asks for more seconds than this is not waited for."""


def is_passing(error: Exception) -> bool:
    """Whether another attempt may succeed: no answer, or a status that says so."""
    from ..core.api_errors import APIConnectionError, APIStatusError

    if isinstance(error, APIStatusError):
        return (error.status_code in PASSING and error.code not in EMPTY) or error.status_code >= 500
    return isinstance(error, APIConnectionError)


class Attempts:
    """The attempts of one call at one deployment: counts them and says how long to wait before the next.

    The waiting and stopping rules are tenacity's: full jitter between attempts, doubling from half a second to eight.
    """

    def __init__(self, options: Options, started: float) -> None:
        self.options, self.started, self.number = options, started, 0

    def pause_after(self, error: Exception, now: float) -> float | None:
        """Seconds to wait before the next attempt; None: there is none."""
        self.number += 1
        if self.number > self.options.num_retries or not is_passing(error):
            return None
        asked = getattr(error, "retry_after", None)
        if asked is not None and asked > LONGEST_RETRY_AFTER:
            return None
        pause = asked + random.uniform(0, 0.25) if asked is not None else self._backoff()
        if self.options.deadline is not None and now + pause - self.started >= self.options.deadline:
            return None
        return pause

    def _backoff(self) -> float:
        import tenacity

        state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
        state.attempt_number = self.number
        return tenacity.wait_random_exponential(multiplier=0.5, max=8)(state)


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that an answer's headers ask to wait: `retry-after-ms`, or `retry-after` as seconds or as a date."""
    milliseconds = headers.get("retry-after-ms")
    if milliseconds is not None and _number(milliseconds) is not None:
        return max(0.0, float(milliseconds) / 1000)
    value = headers.get("retry-after")
    if value is None:
        return None
    number = _number(value)
    if number is not None:
        return max(0.0, number)
    try:
        moment = email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0.0, moment - (time.time() if now is None else now))


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if number == number and abs(number) != float("inf") else None
