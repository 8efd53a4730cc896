"""What a stream of 500 chunks costs, live and out of memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from tests.fixtures.upstream import Upstream

from .. import floors
from ..measure import Effort, Messages, apaired, new_prompt, new_prompts, paired
from ..report import Budget, Row
from ..subject import SDK, Subject, WrongMeasurement, calls_expected, use_cache

CHUNKS = 500


def streams(effort: Effort) -> Iterator[Row]:
    """Live streams that are recorded in memory, against the SDK's, which are not."""
    use_cache(type="local")
    count = effort.count(5)
    budget, remark = Budget(at_most=0.3), "floor: the openai SDK"
    with Upstream(chunks=CHUNKS) as upstream, asyncio.Runner() as running:
        subject, sdk = Subject(upstream.url), SDK(upstream.url)
        for stream in (subject.stream, sdk.stream):
            _check(stream(new_prompt()))
        with calls_expected(upstream, 4 * count * (effort.rounds + 1)):
            times = paired(effort.rounds, subject.stream, sdk.stream, lambda: new_prompts(count))
            atimes = running.run(apaired(effort.rounds, subject.astream, sdk.astream, lambda: new_prompts(count)))
    each = 1e6 / CHUNKS
    yield Row("stream of 500, per chunk, sync", times.subject * each, times.floor * each, "µs", budget, remark)
    yield Row("stream of 500, per chunk, async", atimes.subject * each, atimes.floor * each, "µs", budget, remark)


def replays(effort: Effort) -> Iterator[Row]:
    """A recorded stream, asked for again, against decoding its chunks once into the openai package's type."""
    use_cache(type="local")
    with Upstream(chunks=CHUNKS) as upstream, asyncio.Runner() as running:
        subject, messages = Subject(upstream.url), new_prompt()
        decode = _decoder(floors.stream_payloads(upstream.url, messages))
        _check(subject.stream(messages))
        inputs = [messages] * effort.count(10)

        async def adecode(messages: Messages) -> object:
            return decode(messages)

        with calls_expected(upstream, 0):
            _check(subject.stream(messages))
            times = paired(effort.rounds, subject.stream, decode, lambda: inputs)
            atimes = running.run(apaired(effort.rounds, subject.astream, adecode, lambda: inputs))
    budget = Budget(at_most=1.5)
    yield Row("replay of 500 chunks, sync", times.subject * 1e6, times.floor * 1e6, "µs", budget)
    yield Row("replay of 500 chunks, async", atimes.subject * 1e6, atimes.floor * 1e6, "µs", budget)


def _decoder(payloads: list[bytes]) -> Callable[[Messages], object]:
    from openai.types.chat import ChatCompletionChunk

    validate = ChatCompletionChunk.model_validate_json

    def decode(messages: Messages) -> None:
        for payload in payloads:
            validate(payload)

    return decode


def _check(seen: int) -> None:
    if seen < CHUNKS:
        raise WrongMeasurement(f"{seen} chunks where {CHUNKS} were sent")
