"""Why did this call hit, or miss? The nearest stored entry, and what differs from it.

Entries keep a digest of each part of their request, not its text. With `Cache(keep_requests=True)` they keep the
request too, and the explanation can show where two texts part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

DIGEST = re.compile("[0-9a-f]{16}")
"""What an entry keeps of a part instead of its text. Where two of them part says nothing."""

MOST = 10_000
"""Entries that are compared at most."""


class Difference(NamedTuple):
    """One part in which two requests differ."""

    part: str
    """For example "messages[2]" or "parameters.temperature"."""
    here: Any
    """This call's value: text where requests are kept, else a digest; None where it has none."""
    there: Any
    """The stored entry's."""

    def __str__(self) -> str:
        if self.there is None:
            return f"{self.part} is new here"
        if self.here is None:
            return f"{self.part} is missing here"
        if all(isinstance(value, str) and DIGEST.fullmatch(value) for value in (self.here, self.there)):
            return self.part
        if isinstance(self.here, str) and isinstance(self.there, str):
            return f"{self.part} {first_difference(self.here, self.there)}"
        return f"{self.part}: {self.here!r} here, {self.there!r} stored"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the cache makes of a call, without making it."""

    hit: bool
    key: str
    reason: str
    """One sentence."""
    nearest: str | None = None
    """The key of the stored entry that is most alike."""
    differences: tuple[Difference, ...] = field(default_factory=tuple)
    """In what it differs, most telling first."""

    def __str__(self) -> str:
        lines = [("HIT: " if self.hit else "MISS: ") + self.reason, f"  key      {self.key}"]
        if self.nearest is not None:
            lines.append(f"  nearest  {self.nearest}")
        lines += [f"  differs  {difference}" for difference in self.differences]
        return "\n".join(lines)


def first_difference(here: str, there: str, around: int = 20) -> str:
    """Where two texts part: "differs at character 40: '…is red' here, '…is blue' stored"."""
    place = next((i for i, (a, b) in enumerate(zip(here, there, strict=False)) if a != b), min(len(here), len(there)))

    def cut(text: str) -> str:
        start, end = max(0, place - around), place + around
        return ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")

    return f"differs at character {place}: {cut(here)!r} here, {cut(there)!r} stored"


def flat(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a request as one level: "messages[0]", "parameters.temperature" …"""
    result: dict[str, Any] = {}
    for name, value in parts.items():
        if isinstance(value, Mapping):
            result |= {f"{name}.{inner}": item for inner, item in value.items()}
        elif isinstance(value, list):
            result |= {f"{name}[{index}]": item for index, item in enumerate(value)}
        elif value is not None:
            result[name] = value
    return result


def compare(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """The names of the parts that differ, in the order in which a reader would look."""
    first, second = flat(here), flat(there)
    names = [*first, *(name for name in second if name not in first)]
    return [name for name in names if first.get(name) != second.get(name)]


def nearest(
    parts: Mapping[str, Any], entries: Iterator[tuple[str, Mapping[str, Any]]]
) -> tuple[str, Mapping[str, Any], list[str]] | None:
    """The entry (key, notes) whose request differs in the fewest parts, and which those are."""
    best: tuple[str, Mapping[str, Any], list[str]] | None = None
    for key, notes in entries:
        differing = compare(parts, notes.get("parts") or {})
        if best is None or len(differing) < len(best[2]):
            best = (key, notes, differing)
            if not differing:
                break
    return best


def differences(
    names: Sequence[str], parts: Mapping[str, Any], texts: Mapping[str, Any], notes: Mapping[str, Any]
) -> tuple[Difference, ...]:
    """Each differing part with both its values: as text where the entry keeps its request, else as digests."""
    here, there = flat(parts), flat(notes.get("parts") or {})
    kept = flat(notes["request"]) if notes.get("request") else None
    shown = flat(texts)
    result = []
    for name in names:
        if kept is not None and name in kept and name in shown:
            result.append(Difference(name, as_text(shown[name]), as_text(kept[name])))
        else:
            result.append(Difference(name, here.get(name), there.get(name)))
    return tuple(result)


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def miss(
    key: str, parts: dict[str, Any], texts: dict[str, Any], described: Iterator[tuple[str, dict[str, Any]]]
) -> Explanation:
    """Why nothing was found under `key`: the nearest of the entries that are `described`, and what differs."""
    best = nearest(parts, described)
    if best is None:
        return Explanation(False, key, "nothing is stored in this namespace.")
    other, notes, names = best
    if not names:
        return Explanation(False, key, _same_request(other, key), other)
    more = f" and {len(names) - 1} more." if len(names) > 1 else "."
    reason = f"no entry has this key; the nearest differs in {names[0]}{more}"
    return Explanation(False, key, reason, other, differences(names, parts, texts, notes))


def _same_request(other: str, key: str) -> str:
    if other == key:
        return "the same request is stored, but too old."
    return "the same request is stored under another key: of another seed, sample, epoch, scope or key function."
