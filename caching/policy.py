"""What may be read, what may be stored, and for how long. Pure decisions."""

from __future__ import annotations

import contextvars
import inspect
import os
import re
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeGuard

from ..core import settings
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
    "read_old_write_new": (True, True),
    "shadow": (False, True),
}
"""What each mode allows: to read, to store. A miss under replay_only raises `CacheMiss`; what is missing under
read_old_write_new is looked for in the cache's `old` one, and copied from there; shadow counts what could serve."""

mode_around: contextvars.ContextVar[str | None] = contextvars.ContextVar("rejoinder_mode", default=None)
"""The mode of the innermost `with rejoinder.in_mode(…)` around this point."""

mode_blocks: dict[object, tuple[str, weakref.WeakSet[threading.Thread]]] = {}
"""The open ones of the process, each with the threads that ran when it was opened (see `blocks.innermost`)."""


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
            f"Not a time: {expiry!r}. Write seconds (60), or a number and one of s m h D W M Y ('3h', '1W')."
            + _meant(expiry)
        )
    return float(int(match[1]) * UNITS[match[2]])


def _meant(expiry: Any) -> str:
    """What a text that is no time was likely meant to be."""
    match = re.fullmatch(r"\s*(\d+)\s*([A-Za-z]?)\s*", expiry) if isinstance(expiry, str) else None
    if match is None:
        return ""
    if not match[2]:
        return f" Did you mean {int(match[1])}?"
    unit = next((unit for unit in (match[2], match[2].upper(), match[2].lower()) if unit in UNITS), None)
    return f" Did you mean '{match[1]}{unit}'?" if unit else ""


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
        if not isinstance(self.per_epoch, bool):
            raise WrongType(f"per_epoch={self.per_epoch!r} must be True or False.")
        if self.scopes is not None and not isinstance(self.scopes, Mapping):
            raise WrongType(f"scopes={self.scopes!r} must be a dict of words, such as {{'team': 'red'}}.")

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
    is_shadow: bool = False
    """Nothing is served or shared; what could have been is counted."""
    sample: int | None = None
    """Which of several independent answers to the same request."""
    alone: bool = False
    """Do not share a call under way: an independent sample is wanted."""
    stale_while_revalidate: float = 0.0
    """Seconds after its end that an answer serves while a new one is fetched."""
    stale_if_error: float = 0.0
    """Seconds after its end that an answer serves where the vendor fails."""
    early_refresh: float = 0.0
    """Seconds before its end in which an answer serves, and a new one is fetched."""
    sliding: bool = False
    """An answer that serves is kept for another `ttl` from then on."""
    error_ttl: float = 0.0
    """Seconds that a vendor's error is kept which the same request would only meet again; 0: not at all."""
    store_if: Callable[[Any], bool | None] | None = None
    """Says of an answer whether it is kept; None: as without it."""
    tags: tuple[str, ...] = ()
    """Words by which answers can be removed together."""

    @property
    def grace(self) -> float:
        """Seconds after its end that an answer is of any use."""
        return max(self.stale_while_revalidate, self.stale_if_error)


def check_mode(mode: str, where: str = "mode", besides: tuple[str, ...] = ()) -> str:
    """`mode`, or a clear error, which names those that there are `besides` the usual ones."""
    known = [*besides, *MODES]
    if not isinstance(mode, str):
        raise WrongType(f"{where}={mode!r} must be text: one of {', '.join(known)}.")
    if mode not in MODES:
        raise ConfigurationError(
            f"{where}={mode!r} is no cache mode; there are {', '.join(known)}.{suggestion(mode, known)}"
        )
    return mode


def mode_of_process() -> str | None:
    """The mode that `REJOINDER_CACHE_MODE` sets for the whole process, if any."""
    mode = os.environ.get("REJOINDER_CACHE_MODE")
    return check_mode(mode, "REJOINDER_CACHE_MODE") if mode else None


def in_mode(base: Controls, mode: str) -> Controls:
    """`base`, reading and storing what `mode` allows."""
    may_read, may_store = MODES[mode]
    is_shadow = mode == "shadow"
    return base._replace(
        may_read=may_read, may_store=may_store, must_hit=mode == "replay_only", is_shadow=is_shadow, alone=is_shadow
    )


def mode_now() -> str | None:
    """The mode that is set around this call: by a `with` block, else for the process. Threads count as for caches."""
    around = mode_around.get()
    if around is None and mode_blocks:
        me = threading.current_thread()
        blocks = reversed(list(mode_blocks.values()))
        around = next((mode for mode, before in blocks if me not in before), None)
    return around or settings.cache_mode


def with_policy(base: Controls, policy: CachePolicy) -> Controls:
    """`base` narrowed by a call's `CachePolicy`."""
    age = seconds(policy.expiry)
    return base._replace(ttl=age, max_age=age, per_epoch=policy.per_epoch, scopes=policy.scopes or None)


def with_dict(base: Controls, given: Mapping[str, Any]) -> Controls:
    """`base` narrowed by a call's `cache={…}`. Raises `ConfigurationError` for a word that is not known."""
    changes: dict[str, Any] = {}
    for name, value in given.items():
        if name not in CALL_CONTROLS:
            raise ConfigurationError(
                f"cache={{{name!r}: …}} is not known; there are {', '.join(CALL_CONTROLS)}."
                + suggestion(str(name), CALL_CONTROLS)
            )
        word = CALL_CONTROLS[name]
        if value is not None:
            said = word.read(name, value)
            if word.field is not None:
                changes.setdefault(word.field, said)
    if "mode" in given:
        base = in_mode(base, check_mode(str(given["mode"]), "cache mode"))
    return base._replace(
        may_read=base.may_read and not given.get("no-cache"),
        may_store=base.may_store and not given.get("no-store"),
        **changes,
    )


def _for_ever_or(name: str, value: Any) -> float | None:
    return seconds(value)


def _span(name: str, value: Any) -> float:
    return seconds(value) or 0.0


def is_text(value: object) -> TypeGuard[str]:
    """Whether it is text that can be stored. Half a surrogate pair cannot: it is refused before a call is paid."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _text(name: str, value: Any) -> str:
    if not is_text(value):
        raise WrongType(f"cache={{{name!r}: {value!r}}} must be text, not {type(value).__name__}.")
    return value


def _flag(name: str, value: Any) -> bool:
    if isinstance(value, str):  # of which "false" would be true as well
        raise WrongType(f"cache={{{name!r}: {value!r}}} must be True or False.")
    return bool(value)


def _as_it_is(name: str, value: Any) -> Any:
    return value


def _function(name: str, value: Any) -> Callable[[Any], bool | None]:
    if not callable(value):
        raise WrongType(f"{name}={value!r} must be a function of the answer, not {type(value).__name__}.")
    if any(map(inspect.iscoroutinefunction, (value, type(value).__call__))):
        raise WrongType(f"{name}={value!r} must say at once: a plain function, not an async one.")
    return value  # type: ignore[no-any-return]


def _tags(name: str, value: Any) -> tuple[str, ...]:
    tags = (value,) if isinstance(value, str) else value
    if not isinstance(tags, (list, tuple, set, frozenset)) or not all(tag and is_text(tag) for tag in tags):
        raise WrongType(f"{name}={value!r} must be words: a list of texts that are not empty.")
    return tuple(sorted(tags))


class Word(NamedTuple):
    """One that a call may say to its cache."""

    meaning: str
    read: Callable[[str, Any], Any] = _as_it_is
    """What makes the value of what was given; raises for what makes no sense."""
    field: str | None = None
    """That of `Controls` which it sets; None: `with_dict`, or the router, looks at it."""


CALL_CONTROLS = {
    "ttl": Word("seconds that the answer is kept", _for_ever_or, "ttl"),
    "s-maxage": Word("seconds that a stored answer may be old", _for_ever_or, "max_age"),
    "max-age": Word("the same", _for_ever_or, "max_age"),
    "s-max-age": Word("the same", _for_ever_or, "max_age"),
    "no-cache": Word("do not read", _flag),
    "no-store": Word("do not store", _flag),
    "namespace": Word("another namespace", _text, "namespace"),
    "use-cache": Word("needed in mode default_off", _flag),
    "mode": Word("one of " + ", ".join(MODES)),
    "alone": Word("do not share a call under way", _flag, "alone"),
    "stale-while-revalidate": Word(
        "seconds after its end that an answer serves while a new one is fetched", _span, "stale_while_revalidate"
    ),
    "stale-if-error": Word(
        "seconds after its end that an answer serves where the vendor fails", _span, "stale_if_error"
    ),
    "early-refresh": Word(
        "seconds before its end in which an answer serves, and a new one is fetched", _span, "early_refresh"
    ),
    "sliding": Word("keep an answer that serves for another ttl", _flag, "sliding"),
    "error-ttl": Word("seconds that an error is kept which the same request would meet again", _span, "error_ttl"),
    "store-if": Word("a function of the answer: True, False, or None for the usual judgement", _function, "store_if"),
    "tags": Word("words by which answers can be removed together", _tags, "tags"),
    "sample": Word("which of several independent answers", field="sample"),
}
"""The keys of `cache={…}` on a call."""


def is_fresh(stored_at: float, ttl: float | None, max_age: float | None, now: float) -> bool:
    """Whether an answer stored then may serve now. A clock that was set back makes an answer new, not unusable."""
    age = max(0.0, now - stored_at)
    return (ttl is None or age < ttl) and (max_age is None or age <= max_age)


def shorter(one: float | None, other: float | None) -> float | None:
    """The shorter of two times in seconds, of which None is for ever."""
    return one if other is None else other if one is None else min(one, other)


def is_soon_over(stored_at: float, ttl: float | None, max_age: float | None, window: float, now: float) -> bool:
    """Whether an answer stored then has less than `window` seconds to serve, and no more than half of its time.

    Else a window as long as that time would have each answer fetched anew as soon as it is there.
    """
    limit = shorter(ttl, max_age)
    return limit is not None and limit - max(0.0, now - stored_at) < min(window, limit / 2)


def slid(stored_at: float, ttl: float | None, wanted: float | None, now: float) -> float | None:
    """The TTL that an answer is to have which serves now, or None where it is near enough to what it has.

    Counted from `stored_at`, which stays: an answer does not become younger by being used. One write for each tenth of
    the time it is kept is the most.
    """
    if ttl is None or wanted is None:
        return None
    age = max(0.0, now - stored_at)
    return age + wanted if ttl - age < wanted * 0.9 else None


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
