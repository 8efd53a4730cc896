"""What a call costs that goes upstream: alone, and 500 at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator

from tests.fixtures.upstream import Upstream

from ..measure import Effort, Messages, apaired, interleaved, new_prompts, paired
from ..report import Budget, Row
from ..subject import SDK, Subject, calls_expected, use_cache
from ..upstream import raise_file_limit

AT_ONCE = 500


def misses(effort: Effort) -> Iterator[Row]:
    """A miss is looked up, sent, decoded and stored in memory; the SDK only sends and decodes."""
    use_cache(type="local")
    count = effort.count(100)
    budget, remark = Budget(at_most=0.6), "floor: the openai SDK"
    with Upstream() as upstream, asyncio.Runner() as running:
        subject, sdk = Subject(upstream.url), SDK(upstream.url)
        with calls_expected(upstream, 4 * count * (effort.rounds + 1)):
            times = paired(effort.rounds, subject.ask, sdk.ask, lambda: new_prompts(count))
            atimes = running.run(apaired(effort.rounds, subject.aask, sdk.aask, lambda: new_prompts(count)))
    yield Row("miss, whole call, sync", times.subject * 1e6, times.floor * 1e6, "µs", budget, remark)
    yield Row("miss, whole call, async", atimes.subject * 1e6, atimes.floor * 1e6, "µs", budget, remark)


def concurrent(effort: Effort) -> Iterator[Row]:
    use_cache(type="local")
    raise_file_limit()
    at_once = effort.count(AT_ONCE) if effort.scale < 0.2 else AT_ONCE
    with Upstream(latency=0.05) as upstream, asyncio.Runner() as running:
        subject, sdk = Subject(upstream.url), SDK(upstream.url)
        rounds = effort.rounds // 2  # the SDK takes seconds for one
        with calls_expected(upstream, 2 * at_once * (rounds + 1)):
            figures = interleaved(
                rounds,
                {
                    "subject": lambda: running.run(_crowd(subject.aask, at_once)),
                    "floor": lambda: running.run(_crowd(sdk.aask, at_once)),
                },
            )
    rates = {name: max(rate for rate, _ in figures[name]) for name in figures}
    cpu = {name: min(seconds for _, seconds in figures[name]) * 1e3 for name in figures}
    name, remark = f"{at_once} at once, upstream of 50 ms", "floor: the async openai SDK"
    yield Row(name, rates["subject"], rates["floor"], "calls/s", Budget(at_least=5), remark)
    yield Row("the same, CPU per 1,000 calls", cpu["subject"], cpu["floor"], "ms", Budget(at_most=0.4), remark)


async def _crowd(ask: Callable[[Messages], Awaitable[object]], at_once: int) -> tuple[float, float]:
    """Calls a second, and seconds of CPU per 1,000 calls in this process."""
    prompts = new_prompts(at_once)
    cpu, start = time.process_time(), time.perf_counter()
    await asyncio.gather(*(ask(messages) for messages in prompts))
    elapsed, used = time.perf_counter() - start, time.process_time() - cpu
    return at_once / elapsed, used / at_once * 1000
