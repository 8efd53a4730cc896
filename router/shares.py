"""Each item's own part of an answer to many, with its share of the tokens that were counted for all of them."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any

import orjson


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


def summed(usages: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One usage out of many; what is no number is left out."""
    whole: dict[str, Any] = {}
    for usage in usages:
        for name, count in usage.items():
            if isinstance(count, (int, float)) and not isinstance(count, bool):
                whole[name] = whole.get(name, 0) + count
    return whole
