"""The rows of the table, by the name under which `--only` finds them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..measure import Effort
from ..report import Row, Unmeasured
from . import calls, codecs, crowds, growth, hits, imports, keys, outages, streams

CASES: dict[str, Callable[[Effort], Iterable[Row | Unmeasured]]] = {
    "import": imports.importing,
    "memory": hits.memory,
    "disk": hits.disk,
    "redis": hits.redis,
    "key": keys.large_prompt,
    "miss": calls.misses,
    "stream": streams.streams,
    "replay": streams.replays,
    "codec": codecs.codecs,
    "concurrent": calls.concurrent,
    "stampede": crowds.stampedes,
    "outage": outages.outages,
    "growth": growth.growth,
}
