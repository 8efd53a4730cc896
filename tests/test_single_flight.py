"""N identical calls at once make one upstream call, whoever makes them; and nobody pays for somebody else's trouble."""

from __future__ import annotations

import asyncio
import functools
import gc
import random
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import rejoinder
from rejoinder import Cache, Echo
from rejoinder.caching.leases import keeper
from tests.fixtures.calls import (
    aread,
    astreamed,
    ataken,
    auntil,
    awhole,
    both,
    crowd,
    streamed,
    text_of,
    until,
    whole,
    within,
)
from tests.fixtures.servers import RedisServer, redis_server
from tests.fixtures.upstream import Upstream
from tests.fixtures.worker import Worker

TEXT = "One answer for all who ask the same."


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture
def upstream(server: Upstream) -> Upstream:
    server.reset()
    server.configure(text=TEXT, chunks=6, latency=0.1)
    return server


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(params=["local", "disk", "redis"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cache]:
    if request.param == "local":
        cache = Cache()
    elif request.param == "disk":
        cache = Cache.disk(cache_path_root=tmp_path, budget=5)
    else:
        redis = request.getfixturevalue("redis")
        redis.command("FLUSHALL")
        cache = Cache.redis(redis_url=redis.url, budget=5)
    yield cache
    until(lambda: not len(cache.flights) and not keeper._held)
    cache.close()


def place(upstream: Upstream, **params: Any) -> dict[str, Any]:
    return {"model": "openai/gpt-4o-mini", "api_base": upstream.url, "api_key": "sk-mock", "num_retries": 0, **params}


def check(answers: list[Any], upstream: Upstream) -> None:
    assert [str(answer) for answer in answers if isinstance(answer, BaseException)] == []
    assert {text_of(answer) for answer in answers} == {TEXT}
    ids = {(answer[0] if isinstance(answer, list) else answer).id for answer in answers}
    assert len(ids) == 1
    assert upstream.calls == 1


# ── one process ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ask", [whole, streamed], ids=["whole", "stream"])
def test_a_hundred_threads_make_one_call(ask: Callable[..., Any], upstream: Upstream, cache: Cache) -> None:
    check(crowd([functools.partial(ask, **place(upstream), cache=cache)] * 100), upstream)


@pytest.mark.parametrize("ask", [ataken, aread], ids=["whole", "stream"])
async def test_two_hundred_tasks_of_one_loop_make_one_call(
    ask: Callable[..., Any], upstream: Upstream, cache: Cache
) -> None:
    answers = await within(20, asyncio.gather(*(ask(**place(upstream), cache=cache) for _ in range(200))))
    check(answers, upstream)


def test_tasks_of_several_loops_in_several_threads_make_one_call(upstream: Upstream, cache: Cache) -> None:
    async def several() -> list[Any]:
        return await asyncio.gather(*(ataken(**place(upstream), cache=cache) for _ in range(10)))

    groups = crowd([lambda: asyncio.run(several())] * 5)
    check([answer for group in groups for answer in group], upstream)


def test_threads_and_tasks_whole_and_streamed_make_one_call(upstream: Upstream, cache: Cache) -> None:
    upstream.configure(delay=0.01)
    asks = [whole, streamed, awhole, astreamed] * 6
    check(crowd([functools.partial(ask, **place(upstream), cache=cache) for ask in asks]), upstream)


def test_all_but_the_leader_are_marked_as_shared(upstream: Upstream) -> None:
    cache = Cache()
    answers = crowd([functools.partial(whole, **place(upstream), cache=cache)] * 10)
    assert sorted(answer.cache for answer in answers) == [False] + [True] * 9
    assert {answer.cache_info.kind for answer in answers if answer.cache} <= {"shared", "exact"}
    assert all(answer == answers[0] for answer in answers)
    assert len({id(answer) for answer in answers}) == 10, "each may change its own"


def test_different_keys_do_not_wait_for_each_other(upstream: Upstream, cache: Cache) -> None:
    upstream.configure(latency=0.3)
    contents = [[{"role": "user", "content": f"{number}"}] for number in range(10)]
    crowd([functools.partial(whole, **place(upstream), cache=cache, messages=messages) for messages in contents])
    assert upstream.calls == 10
    assert upstream.peak >= 8


@both
def test_independent_samples_opt_out(ask: Callable[..., Any], upstream: Upstream) -> None:
    with Cache():
        crowd([functools.partial(ask, **place(upstream), cache={"alone": True})] * 5)
    assert upstream.calls == 5


def test_a_cache_may_do_without(upstream: Upstream) -> None:
    cache = Cache(single_flight=False)
    crowd([functools.partial(whole, **place(upstream), cache=cache)] * 5)
    assert upstream.calls == 5


def test_a_store_without_leases_makes_one_call_in_one_process(upstream: Upstream, tmp_path: Path) -> None:
    from rejoinder.caching.stores.disk import DiskStore

    class NoLeases(DiskStore):
        leases = False

    upstream.configure(latency=0.01)
    for number in range(5):
        upstream.reset()
        upstream.configure(text=TEXT, latency=0.01)
        cache = Cache(store=NoLeases(tmp_path / str(number), budget=5))
        check(crowd([functools.partial(whole, **place(upstream), cache=cache)] * 30), upstream)
        cache.close()


# ── several processes ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["disk", "redis"])
def test_four_processes_make_one_call(kind: str, upstream: Upstream, tmp_path: Path, request: Any) -> None:
    """Two of them with threads and two with event loops, two whole and two streamed."""
    upstream.configure(delay=0.02)
    where: dict[str, Any] = {"type": "disk", "disk_cache_dir": tmp_path, "budget": 5}
    if kind == "redis":
        redis = request.getfixturevalue("redis")
        redis.command("FLUSHALL")
        where = {"type": "redis", "redis_url": redis.url, "budget": 5}
    forms = [(mode, stream) for mode in ("sync", "async") for stream in (False, True)]
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(where, place(upstream), threads=5, mode=mode, stream=stream))
            for mode, stream in forms
        ]
        for worker in workers:
            worker.wait_until_ready()
        for worker in workers:
            worker.go()
        results = [worker.result() for worker in workers]
    assert [result["errors"] for result in results] == [[]] * 4
    assert [set(result["texts"]) for result in results] == [{TEXT}] * 4
    assert [len(result["texts"]) for result in results] == [5] * 4
    assert upstream.calls == 1
    assert [result["flights"] for result in results] == [0] * 4


# ── trouble of the leader ─────────────────────────────────────────────────────────────────────────────────────────────


def test_on_equal_terms_the_error_is_shared(upstream: Upstream, cache: Cache) -> None:
    upstream.configure(status=400, latency=0.2)
    errors = crowd([functools.partial(whole, **place(upstream), cache=cache)] * 20)
    assert {type(error) for error in errors} == {rejoinder.BadRequestError}
    assert {error.status_code for error in errors} == {400}
    assert all(error.response.status_code == 400 and error.attempts for error in errors)
    assert len({id(error) for error in errors}) == 20
    assert upstream.calls < 20


@pytest.mark.parametrize("credential", ["api_key", "extra_headers"])
@both
def test_a_wrong_key_is_the_trouble_of_its_own_caller(
    ask: Callable[..., Any], credential: str, upstream: Upstream
) -> None:
    cache = Cache()
    upstream.configure(latency=0.15)
    upstream.script({"status": 401, "latency": 0.15})

    def given(key: str) -> dict[str, Any]:
        if credential == "api_key":
            return place(upstream, api_key=key)
        return place(upstream, extra_headers={"Authorization": f"Bearer {key}"})

    wrong = threading.Thread(target=lambda: errors.extend(crowd([lambda: ask(**given("sk-wrong"), cache=cache)])))
    errors: list[Any] = []
    wrong.start()
    until(lambda: len(cache.flights) == 1)
    answers = crowd([functools.partial(ask, **given("sk-right"), cache=cache)] * 5)
    wrong.join(5)
    assert isinstance(errors[0], rejoinder.AuthenticationError)
    assert {text_of(answer) for answer in answers} == {TEXT}
    assert upstream.calls == 2, "of those with the other key, one leads"


@both
def test_an_unknown_parameter_of_a_strict_leader_is_not_its_lenient_followers_trouble(
    ask: Callable[..., Any], upstream: Upstream, tmp_path: Path
) -> None:
    cache = Cache.disk(cache_path_root=tmp_path)
    strict = functools.partial(ask, **place(upstream), cache=cache, unheard_of=1)
    lenient = functools.partial(ask, **place(upstream), cache=cache, unheard_of=1, drop_params=True)
    for answer in crowd([strict, lenient] * 5)[1::2]:
        assert text_of(answer) == TEXT
    cache.close()


async def test_a_cancelled_leader_takes_nobody_along(upstream: Upstream, cache: Cache) -> None:
    leader = asyncio.create_task(ataken(**place(upstream), cache=cache))
    await auntil(lambda: len(cache.flights) == 1)
    tasks = [asyncio.create_task(ataken(**place(upstream), cache=cache)) for _ in range(10)]
    threads = asyncio.create_task(
        asyncio.to_thread(crowd, [functools.partial(whole, **place(upstream), cache=cache)] * 5)
    )
    await asyncio.sleep(0.03)
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader
    answers = await within(10, asyncio.gather(*tasks)) + await within(10, threads)
    assert {text_of(answer) for answer in answers} == {TEXT}
    assert upstream.calls <= 2


async def test_a_cancelled_follower_does_not_cancel_its_leader(upstream: Upstream, cache: Cache) -> None:
    leader = asyncio.create_task(ataken(**place(upstream), cache=cache))
    await auntil(lambda: len(cache.flights) == 1)
    followers = [asyncio.create_task(ataken(**place(upstream), cache=cache)) for _ in range(5)]
    await asyncio.sleep(0.02)
    for follower in followers[1:]:
        follower.cancel()
    assert text_of(await within(5, leader)) == text_of(await within(5, followers[0])) == TEXT
    assert all(
        isinstance(f, asyncio.CancelledError) for f in await asyncio.gather(*followers[1:], return_exceptions=True)
    )
    assert upstream.calls == 1


def test_a_leader_in_a_loop_that_ends_takes_nobody_along(upstream: Upstream, cache: Cache) -> None:
    async def lead() -> None:
        leader = asyncio.create_task(ataken(**place(upstream), cache=cache))
        await asyncio.sleep(0.05)
        assert leader  # asyncio.run cancels it

    def follow() -> Any:
        until(lambda: len(cache.flights) == 1)
        return whole(**place(upstream), cache=cache)

    _, answer = crowd([lambda: asyncio.run(lead()), follow], 10)
    assert text_of(answer) == TEXT


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the task that the test destroys
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_leader_in_a_loop_that_was_closed_or_forgotten_takes_nobody_along(upstream: Upstream, cache: Cache) -> None:
    loop = asyncio.new_event_loop()
    leader = loop.create_task(ataken(**place(upstream), cache=cache))
    loop.run_until_complete(asyncio.sleep(0.05))
    assert len(cache.flights) == 1
    answers = crowd([functools.partial(ask, **place(upstream), cache=cache) for ask in (whole, awhole)], 10)
    assert [text_of(answer) for answer in answers] == [TEXT, TEXT]
    leader.cancel()
    loop.run_until_complete(asyncio.gather(leader, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def test_an_interrupted_leader_interrupts_nobody_else(cache: Cache) -> None:
    is_asked = threading.Event()

    def answer(body: dict[str, Any]) -> Any:
        if not is_asked.is_set():
            is_asked.set()
            time.sleep(0.05)
            raise KeyboardInterrupt
        return TEXT

    echo = Echo(answer)

    def follow() -> Any:
        is_asked.wait(5)
        return whole(client=echo, cache=cache)

    first, *others = crowd([functools.partial(whole, client=echo, cache=cache)] + [follow] * 5)
    assert isinstance(first, KeyboardInterrupt)
    assert {text_of(other) for other in others} == {TEXT}
    assert echo.calls == 2


@both
def test_a_leader_out_of_time_does_not_end_followers_who_have_more(ask: Callable[..., Any], upstream: Upstream) -> None:
    cache = Cache()
    upstream.configure(latency=0.25)

    def follow() -> Any:
        until(lambda: len(cache.flights) == 1)
        return ask(**place(upstream), cache=cache)

    impatient, *patient = crowd([functools.partial(ask, **place(upstream), cache=cache, timeout=0.1), *[follow] * 3])
    assert isinstance(impatient, rejoinder.APITimeoutError)
    assert {text_of(answer) for answer in patient} == {TEXT}
    assert upstream.calls == 2


@both
def test_a_follower_keeps_its_own_deadline(ask: Callable[..., Any], upstream: Upstream, cache: Cache) -> None:
    upstream.configure(latency=0.8)

    def follow() -> Any:
        until(lambda: len(cache.flights) == 1)
        started = time.monotonic()
        with pytest.raises(rejoinder.APITimeoutError, match=r"deadline of 0\.2 s"):
            ask(**place(upstream), cache=cache, deadline=0.2)
        return time.monotonic() - started

    leader, waited = crowd([functools.partial(ask, **place(upstream), cache=cache), follow])
    assert text_of(leader) == TEXT
    assert 0.2 <= waited < 0.7


@both
def test_a_followers_timeout_bounds_its_wait(ask: Callable[..., Any], upstream: Upstream, cache: Cache) -> None:
    upstream.configure(latency=0.8)

    def follow() -> Any:
        until(lambda: len(cache.flights) == 1)
        started = time.monotonic()
        with pytest.raises(rejoinder.APITimeoutError, match=r"all attempts, 0\.2 s"):
            ask(**{**place(upstream), "num_retries": 1}, cache=cache, timeout=0.1)
        return time.monotonic() - started

    leader, waited = crowd([functools.partial(ask, **place(upstream), cache=cache), follow])
    assert text_of(leader) == TEXT
    assert 0.2 <= waited < 0.7
    assert upstream.calls == 1


@both
def test_a_follower_who_has_to_lead_has_only_the_rest_of_its_time(ask: Callable[..., Any], upstream: Upstream) -> None:
    cache = Cache()
    upstream.configure(latency=0.3)

    def follow() -> Any:
        until(lambda: len(cache.flights) == 1)
        started = time.monotonic()
        with pytest.raises(rejoinder.APITimeoutError):
            ask(**place(upstream), cache=cache, deadline=0.4)
        return time.monotonic() - started

    upstream.script({"status": 400, "latency": 0.3})
    _, waited = crowd([functools.partial(ask, **place(upstream), cache=cache), follow])
    assert waited < 0.55


async def test_a_sync_call_inside_the_loop_of_its_leader_does_not_wait_for_it(upstream: Upstream, cache: Cache) -> None:
    leader = asyncio.create_task(ataken(**place(upstream), cache=cache))
    await auntil(lambda: len(cache.flights) == 1)
    assert text_of(whole(**place(upstream), cache=cache)) == TEXT
    assert text_of(await leader) == TEXT
    assert upstream.calls <= 2


async def test_a_sync_stream_inside_the_loop_of_a_live_one_does_not_wait_for_it(
    upstream: Upstream, cache: Cache
) -> None:
    upstream.configure(delay=0.01, latency=0)
    leader = await ataken(stream=True, **place(upstream), cache=cache)
    await anext(leader)
    assert text_of(streamed(**place(upstream), cache=cache)) == TEXT
    assert text_of(whole(**place(upstream), cache=cache)) == TEXT
    rest = [chunk async for chunk in leader]
    assert TEXT.endswith(text_of(rest))


# ── nothing is left ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["local", "disk"])
def test_nothing_is_left_of_thousands_of_calls_some_cancelled(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache() if kind == "local" else Cache.disk(cache_path_root=tmp_path, budget=5)
    answers: list[Any] = [TEXT, {"status": 400}, {"content": TEXT, "break_after": 2}, {"refusal": "No."}]
    echo = Echo(lambda body: random.choice(answers), latency=0.001, chunk_latency=0.0005)
    rounds = 8 if kind == "local" else 3

    async def one(chance: random.Random) -> None:
        messages = [{"role": "user", "content": f"{chance.randrange(40)}"}]
        stream = chance.random() < 0.5
        given = {"messages": messages, "client": echo, "cache": cache, "num_retries": 0, "stream": stream}
        answer = await ataken(**given)
        if stream:
            async for _ in answer:
                if chance.random() < 0.1:
                    break

    async def many(seed: int) -> int:
        chance, loop = random.Random(seed), asyncio.get_running_loop()
        for _ in range(rounds):
            tasks = [asyncio.create_task(one(chance)) for _ in range(60)]
            for task in tasks[::3]:
                loop.call_later(chance.random() * 0.02, task.cancel)
            for result in await within(20, asyncio.gather(*tasks, return_exceptions=True)):
                assert result is None or isinstance(result, (rejoinder.APIError, asyncio.CancelledError)), repr(result)
        gc.collect()
        await auntil(lambda: len(asyncio.all_tasks()) == 1)
        return 1

    def threads(seed: int) -> int:
        chance = random.Random(seed)
        for _ in range(rounds * 8):
            messages = [{"role": "user", "content": f"{chance.randrange(40)}"}]
            try:
                for _ in whole(stream=True, messages=messages, client=echo, cache=cache, num_retries=0):
                    if chance.random() < 0.1:
                        break
            except rejoinder.APIError:
                continue
        return 1

    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        done = crowd([functools.partial(lambda seed: asyncio.run(many(seed)), seed) for seed in range(3)])
        done += crowd([functools.partial(threads, seed) for seed in range(6)])
        gc.collect()
    assert done == [1] * 9
    until(lambda: not len(cache.flights) and not keeper._held)
    said = [
        record.getMessage() for record in caplog.records if record.name != "rejoinder" or record.levelname == "ERROR"
    ]
    assert said == []
    cache.close()
