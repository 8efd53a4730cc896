"""Many calls at once: many conversations with one model, or one conversation with many models."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any

from ..core.errors import WrongType
from .api import acompletion, completion
from .stream import AsyncStream

MAX_WORKERS = 100


def batch_completion(
    model: str, messages: Sequence[Any], *, max_workers: int | None = None, **params: Any
) -> list[Any]:
    """`completion` for each of many message lists, in threads; the answers are in the order of the lists.

    A call that fails has its exception in its place, and stops no other. At most `max_workers` (100) run at once. The
    other arguments are those of `completion`, and the same for all.
    """
    _check_lists(messages)
    if not messages:
        return []

    def ask(one: Any) -> Any:
        try:
            return completion(model, one, **params)
        except Exception as error:
            return error

    # A thread does not inherit the context: epochs, and caches of `with` blocks.
    jobs = [partial(contextvars.copy_context().run, ask, one) for one in messages]
    return _in_threads(jobs, min(_bound(max_workers), len(messages)), "rejoinder-batch")


async def abatch_completion(
    model: str, messages: Sequence[Any], *, max_workers: int | None = None, **params: Any
) -> list[Any]:
    """`batch_completion` for a running event loop: tasks, of which at most `max_workers` run at once."""
    _check_lists(messages)
    bound = asyncio.Semaphore(_bound(max_workers))

    async def ask(one: Any) -> Any:
        async with bound:
            try:
                return await acompletion(model, one, **params)
            except Exception as error:
                return error

    return list(await asyncio.gather(*map(ask, messages)))


def batch_completion_models(
    *, models: str | Sequence[str], messages: Sequence[Any], stream: bool | None = None, **params: Any
) -> Any:
    """Ask several models the same, and take the first answer that comes. The other calls are broken off.

    If all fail, the error of the first model is raised. The calls run in an event loop of their own, on a thread of its
    own, because only tasks can be broken off: a `client=` must be an async one, and there are no streams
    (`abatch_completion_models` has them).
    """
    if stream:
        raise _invalid(
            "batch_completion_models has no streams. Use abatch_completion_models, or leave stream=True out."
        )
    client = params.get("client")
    if client is not None and hasattr(client, "post") and not asyncio.iscoroutinefunction(client.post):
        raise WrongType(f"client={type(client).__name__}: batch_completion_models needs the async form of it.")
    race = abatch_completion_models(models=models, messages=messages, **params)
    (winner,) = _in_threads([partial(contextvars.copy_context().run, asyncio.run, race)], 1, "rejoinder-race")
    return winner


async def abatch_completion_models(
    *, models: str | Sequence[str], messages: Sequence[Any], stream: bool | None = None, **params: Any
) -> Any:
    """Ask several models the same, and take the first answer that comes, or with `stream=True` the first to begin.

    The other calls are cancelled, and their connections closed. If all fail, the error of the first model is raised.
    """
    names = [models] if isinstance(models, str) else list(models)
    if not names:
        raise _invalid("models is empty. Give at least one: ['openai/gpt-4o', 'anthropic/claude-sonnet-4-5'].")
    given: Mapping[str, Any] = params if stream is None else {**params, "stream": stream}
    return await _first([acompletion(name, messages, **given) for name in names])


def _in_threads(jobs: Sequence[Callable[[], Any]], workers: int, name: str) -> list[Any]:
    """What the jobs give, in their order. Raises what one raises.

    An interrupt is passed on at once. At the end of an executor it would wait for the calls under way, for minutes
    where a vendor hangs; these threads end by themselves, or with the process.
    """
    waiting = deque(enumerate(jobs))
    ended: SimpleQueue[tuple[int, Any, BaseException | None]] = SimpleQueue()

    def work() -> None:
        while True:
            try:
                number, job = waiting.popleft()
            except IndexError:
                return
            try:
                ended.put((number, job(), None))
            except BaseException as error:
                ended.put((number, None, error))

    for number in range(workers):
        threading.Thread(target=work, name=f"{name}-{number}", daemon=True).start()
    results: list[Any] = [None] * len(jobs)
    try:
        for _ in jobs:
            number, result, error = ended.get()
            results[number] = result
            if error is not None:
                raise error
    finally:
        waiting.clear()  # what has not begun need not begin after an interrupt
    return results


async def _first(calls: Sequence[Coroutine[Any, Any, Any]]) -> Any:
    tasks = [asyncio.ensure_future(call) for call in calls]
    winner: asyncio.Future[Any] | None = None
    try:
        running = set(tasks)
        while running and winner is None:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            winner = next((task for task in tasks if task in done and task.exception() is None), None)
    finally:
        await _break_off([task for task in tasks if task is not winner])
    return await (winner or tasks[0])


async def _break_off(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel the calls that still run, see them end, and close the streams of those that came second."""
    for task in tasks:
        task.cancel()
    for late in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(late, AsyncStream):
            await late.aclose()


def _bound(max_workers: int | None) -> int:
    if max_workers is None:
        return MAX_WORKERS
    if isinstance(max_workers, bool) or not isinstance(max_workers, int) or max_workers < 1:
        raise _invalid(f"max_workers={max_workers!r} must be a whole number, 1 or more.")
    return max_workers


def _check_lists(messages: Any) -> None:
    if isinstance(messages, (str, Mapping)) or not isinstance(messages, Sequence):
        raise _invalid(f"messages must be a list of message lists, not {type(messages).__name__}.")
    if messages and isinstance(messages[0], Mapping):
        raise _invalid("messages is one conversation; a batch is a list of them: [[{'role': 'user', …}], …].")


def _invalid(message: str) -> Exception:
    from ..core.api_errors import invalid

    return invalid(message)
