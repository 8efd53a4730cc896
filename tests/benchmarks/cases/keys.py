"""What the key of a large prompt costs."""

from __future__ import annotations

from collections.abc import Iterator

from .. import floors
from ..measure import Effort, Messages, paired
from ..report import Budget, Row
from ..subject import use_cache

PARAGRAPH = "It was a bright cold day in April, and the clocks — all of them — were striking thirteen. "


def large_prompt(effort: Effort) -> Iterator[Row]:
    cache = use_cache(type="local")
    document = PARAGRAPH * (3_000_000 // len(PARAGRAPH.encode()))
    messages: Messages = [
        {"role": "system", "content": "Summarise the document."},
        {"role": "user", "content": document},
    ]
    inputs = [messages] * effort.count(20)

    def key(messages: Messages) -> str:
        return str(cache.get_cache_key(model="openai/gpt-4o-mini", messages=messages))

    times = paired(effort.rounds, key, floors.key, lambda: inputs)
    yield Row("key of a 3 MB prompt", times.subject * 1e6, times.floor * 1e6, "µs", Budget(at_most=1.2))
