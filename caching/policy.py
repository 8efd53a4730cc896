"""What may be read, what may be stored, and for how long. Pure decisions."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..core.errors import ConfigurationError, WrongType, suggestion

GOOD_ENDS = frozenset({"stop", "length", "tool_calls", "function_call"})
"""Finish reasons of answers that are what the vendor meant to say."""

UNITS = {"s": 1, "m": 60, "h": 3600, "D": 86_400, "W": 7 * 86_400, "M": 30 * 86_400, "Y": 365 * 86_400}
"""Inspect's words for a time. Upper and lower case differ: m is a minute, M is 30 days."""

MODES = {
    "on": (True, True),
    "off": (False, False),
    "read_only": (True, False),
    "write_only": (False, True),
    "refresh": (False, True),
    "replay_only": (True, False),
}
"""What each mode allows: to read, to store. A miss under replay_only raises `CacheMiss`."""


def seconds(expiry: str | float | None) -> float | None:
    """ "3h", "4D", "2W", "3M", "1Y" or a number as seconds; None is for ever.

    Raises `ConfigurationError` for anything else, at once and not when it is first used.
    """
    if expiry is None:
        return None
    if isinstance(expiry, (int, float)) and not isinstance(expiry, bool) and expiry >= 0:
        return float(expiry)
    match = re.fullmatch(r"(\d+)([smhDWMY])", expiry) if isinstance(expiry, str) else None
    if match is None:
        raise ConfigurationError(
            f"Not a time: {expiry!r}. Write a number and one of s m h D W M Y, for example '3h' or '1W'."
        )
    return float(int(match[1]) * UNITS[match[2]])


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How one call uses the cache; Inspect's class of that name.

    `expiry` is how long an answer may serve ("1W" by default, None for ever). With `per_epoch`, answers given in
    different epochs are kept apart. `scopes` are further words that must be equal for an answer to be found.
    """

    expiry: str | float | None = "1W"
    per_epoch: bool = True
    scopes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        seconds(self.expiry)

    @classmethod
    def from_string(cls, text: str) -> CachePolicy | None:
        """The policy that expires after `text`, or None if that is no time."""
        try:
            return cls(expiry=text)
        except ConfigurationError:
            return None


class Controls(NamedTuple):
    """What one call may do with its cache, decided once."""

    may_read: bool = True
    may_store: bool = True
    must_hit: bool = False
    """A miss raises."""
    ttl: float | None = None
    """Seconds that the answer is kept; None: for ever."""
    max_age: float | None = None
    """Seconds that a stored answer may be old; None: any age."""
    namespace: str | None = None
    """Another namespace than the cache's own."""
    per_epoch: bool = True
    scopes: Mapping[str, str] | None = None
    sample: int | None = None
    """Which of several independent answers to the same request."""
    alone: bool = False
    """Do not share a call under way: an independent sample is wanted."""
    stale_while_revalidate: float = 0.0
    """Seconds after its end that an answer serves while a new one is fetched."""
    stale_if_error: float = 0.0
    """Seconds after its end that an answer serves where the vendor fails."""

    @property
    def grace(self) -> float:
        """Seconds after its end that an answer is of any use."""
        return max(self.stale_while_revalidate, self.stale_if_error)


CALL_CONTROLS = {
    "ttl": "seconds that the answer is kept",
    "s-maxage": "seconds that a stored answer may be old",
    "max-age": "the same",
    "no-cache": "do not read",
    "no-store": "do not store",
    "namespace": "another namespace",
    "use-cache": "needed in mode default_off",
    "mode": "one of " + ", ".join(MODES),
    "alone": "do not share a call under way",
    "stale-while-revalidate": "seconds after its end that an answer serves while a new one is fetched",
    "stale-if-error": "seconds after its end that an answer serves where the vendor fails",
    "sample": "which of several independent answers",
}
"""The keys of `cache={…}` on a call."""


def check_mode(mode: str, where: str = "mode") -> str:
    """`mode`, or a clear error."""
    if mode not in MODES:
        raise ConfigurationError(
            f"{where}={mode!r} is no cache mode; there are {', '.join(MODES)}.{suggestion(mode, MODES)}"
        )
    return mode


def mode_of_process() -> str | None:
    """The mode that `REJOINDER_CACHE_MODE` sets for the whole process, if any."""
    mode = os.environ.get("REJOINDER_CACHE_MODE")
    return check_mode(mode, "REJOINDER_CACHE_MODE") if mode else None


def controls_for_mode(mode: str, ttl: float | None) -> Controls:
    """What a mode allows when the call itself says nothing."""
    may_read, may_store = MODES[mode]
    return Controls(may_read=may_read, may_store=may_store, must_hit=mode == "replay_only", ttl=ttl)


def with_policy(base: Controls, policy: CachePolicy) -> Controls:
    """`base` narrowed by a call's `CachePolicy`."""
    age = seconds(policy.expiry)
    return base._replace(ttl=age, max_age=age, per_epoch=policy.per_epoch, scopes=policy.scopes or None)


def with_dict(base: Controls, given: Mapping[str, Any]) -> Controls:
    """`base` narrowed by a call's `cache={…}`. Raises `ConfigurationError` for a word that is not known."""
    for name in given:
        if name not in CALL_CONTROLS:
            raise ConfigurationError(
                f"cache={{{name!r}: …}} is not known; there are {', '.join(CALL_CONTROLS)}."
                + suggestion(str(name), CALL_CONTROLS)
            )
    if "mode" in given:
        base = controls_for_mode(check_mode(str(given["mode"]), "cache mode"), base.ttl)
    max_age = given.get("s-maxage", given.get("max-age"))
    namespace = given.get("namespace")
    if namespace is not None and not isinstance(namespace, str):
        raise WrongType(f"cache={{'namespace': {namespace!r}}} must be text, not {type(namespace).__name__}.")
    return base._replace(
        may_read=base.may_read and not given.get("no-cache"),
        may_store=base.may_store and not given.get("no-store"),
        ttl=seconds(given["ttl"]) if given.get("ttl") is not None else base.ttl,
        max_age=seconds(max_age) if max_age is not None else base.max_age,
        namespace=namespace,
        alone=bool(given.get("alone", base.alone)),
        sample=given.get("sample", base.sample),
        stale_while_revalidate=seconds(given.get("stale-while-revalidate", base.stale_while_revalidate)) or 0.0,
        stale_if_error=seconds(given.get("stale-if-error", base.stale_if_error)) or 0.0,
    )


def is_fresh(stored_at: float, ttl: float | None, max_age: float | None, now: float) -> bool:
    """Whether an answer stored then may serve now. A clock that was set back makes an answer new, not unusable."""
    age = max(0.0, now - stored_at)
    return (ttl is None or age < ttl) and (max_age is None or age <= max_age)


def may_store_answer(finish_reasons: list[str | None], has_refusal: bool, tool_arguments: list[str]) -> bool:
    """Whether an answer is worth keeping: not a refusal, not one that went wrong, no tool call with broken JSON."""
    if has_refusal or not finish_reasons or not GOOD_ENDS.issuperset(finish_reasons):
        return False
    return all(_is_json_object(arguments) for arguments in tool_arguments)


def _is_json_object(text: str) -> bool:
    import orjson

    try:
        return not text or isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False
