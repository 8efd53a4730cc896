"""Many items: in portions that a vendor takes in one request, and several at the same time."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.flow import Flow, Io, arun, run
from ..providers.base import Most

AT_ONCE = 64
"""How many items are read or written at the same time, by a task."""
ASKED_AT_ONCE = 4
"""How many requests one call has under way at the same time, by a task, where a vendor takes only so much in one."""


def portions(names: Sequence[Any], most: Most, items: Mapping[Any, Any] | None = None) -> list[list[Any]]:
    """`names` in their order, cut so that no part is more than a vendor takes in one request.

    `items` has what each name stands for; without it the names are the items. An item that alone is too large is a part
    of its own, and the vendor's to refuse.

    >>> portions(["a", "b", "c"], Most(items=2))
    [['a', 'b'], ['c']]
    """
    parts: list[list[Any]] = [[]]
    tokens = 0
    for name in names:
        weight = 0 if most.tokens == sys.maxsize else most_tokens_of(name if items is None else items[name])
        if parts[-1] and (len(parts[-1]) == most.items or tokens + weight > most.tokens):
            parts.append([])
            tokens = 0
        parts[-1].append(name)
        tokens += weight
    return parts


def most_tokens_of(item: Any) -> int:
    """How many tokens `item` may be. A text is not counted but estimated, on the safe side: one for two bytes.

    English has one for about four, code for about three; no vendor's tokenizer has to be loaded for this.
    """
    if not isinstance(item, str):
        return len(item) if isinstance(item, Sequence) else 1
    return (len(item) if item.isascii() else len(item.encode("utf-8", "replace"))) // 2 + 1


def all_of(asked: Sequence[Flow[Any]]) -> Flow[list[Any]]:
    """What these flows give: one after the other in a thread, a few at the same time in a task.

    After a failure none is begun, and those under way are let end, because they are paid for; then it is raised.
    """
    if len(asked) == 1:
        return [(yield from asked[0])]
    return (yield Io(_all, _aall, (asked,)))  # type: ignore[no-any-return]


def each_of(flows: Mapping[str, Flow[Any]]) -> Flow[dict[str, Any]]:
    """What these flows give, by the same names: one after the other in a thread, many at the same time in a task."""
    return (yield Io(_each, _aeach, (flows,)))  # type: ignore[no-any-return]


def _all(flows: Sequence[Flow[Any]]) -> list[Any]:
    return [run(flow) for flow in flows]


async def _aall(flows: Sequence[Flow[Any]]) -> list[Any]:
    bound = asyncio.Semaphore(ASKED_AT_ONCE)
    failures: list[Exception] = []

    async def do(flow: Flow[Any]) -> Any:
        async with bound:
            if failures:
                return None
            try:
                return await arun(flow)
            except Exception as error:
                failures.append(error)

    done = await asyncio.gather(*map(do, flows))
    if failures:
        raise failures[0]
    return done


def _each(flows: Mapping[str, Flow[Any]]) -> dict[str, Any]:
    return {key: run(flow) for key, flow in flows.items()}


async def _aeach(flows: Mapping[str, Flow[Any]]) -> dict[str, Any]:
    bound = asyncio.Semaphore(AT_ONCE)

    async def do(flow: Flow[Any]) -> Any:
        async with bound:
            return await arun(flow)

    done = await asyncio.gather(*map(do, flows.values()))
    return dict(zip(flows, done, strict=True))
