"""Policies of a cache where things go wrong: vendors that hang, interrupts, odd functions, entries that lie."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import rejoinder
from rejoinder import Cache, Echo
from rejoinder.caching import entry as entries
from rejoinder.caching.stores.base import Record, Store
from rejoinder.caching.stores.memory import MemoryStore
from rejoinder.core.errors import WrongType
from tests.fixtures.calls import both, text_of

NO_MODEL = {"status": 404, "body": {"error": {"message": "no such model"}}}
CALL: dict[str, Any] = {"model": "echo/m", "messages": [{"role": "user", "content": "Hi"}], "num_retries": 0}


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def made(clock: Clock, **options: Any) -> Cache:
    return Cache(store=MemoryStore(clock=clock), clock=clock, **options)


def wait_until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not what() and time.monotonic() < deadline:
        time.sleep(0.002)
    assert what()


class Gate:
    """Answers of a vendor that hangs until it is opened."""

    def __init__(self) -> None:
        self.open, self.asked = threading.Event(), 0

    def __call__(self, body: dict[str, Any]) -> str:
        self.asked += 1
        if self.asked > 1:
            self.open.wait(10)
        return f"answer {self.asked}"


# ── renewal ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("options", [{}, {"single_flight": False}, {"alone": True}])
def test_of_many_at_the_end_of_a_ttl_one_renews(clock: Clock, options: dict[str, Any]) -> None:
    gate = Gate()
    call = {"cache": {"alone": True}} if options.pop("alone", False) else {}
    cache = made(clock, ttl=60, early_refresh=20, **options)
    ask = {**CALL, "client": Echo(gate), **call}
    with cache:
        rejoinder.completion(**ask)
    clock.now += 50
    before = threading.active_count()
    with cache, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: rejoinder.completion(**ask), range(100)))
        most = threading.active_count() - before - 8
    assert {text_of(answer) for answer in answers} == {"answer 1"}
    assert most <= 1
    gate.open.set()
    wait_until(lambda: cache.counts["stored"] == 2)
    assert gate.asked == 2


def test_a_vendor_that_fails_is_not_asked_by_every_hit(clock: Clock) -> None:
    echo, cache = Echo(["first", {"status": 500}]), made(clock, ttl=60, stale_while_revalidate=3600)
    rejoinder.completion(**CALL, client=echo, cache=cache)
    clock.now += 61
    for _ in range(20):
        assert rejoinder.completion(**CALL, client=echo, cache=cache).cache_info.kind == "stale"
        time.sleep(0.005)
    wait_until(lambda: cache.counts["stale_errors"] > 0)
    assert echo.calls == 2


def test_renewals_of_a_vendor_that_hangs_do_not_pile_up(clock: Clock) -> None:
    gate, cache = threading.Event(), made(clock, ttl=60, early_refresh=20)
    answers: list[str] = []

    def answer(body: dict[str, Any]) -> str:
        answers.append("")
        if len(answers) > 200:
            gate.wait(10)
        return "answer"

    echo = Echo(answer)
    for turn in range(2):
        for number in range(200):
            messages = [{"role": "user", "content": f"{number}"}]
            found = rejoinder.completion("echo/m", messages, client=echo, cache=cache)
            assert found.cache is bool(turn)
        clock.now += 50
    under_way = len(answers) - 200
    gate.set()
    assert 0 < under_way <= 32
    wait_until(lambda: not cache.flights)


def test_a_window_as_long_as_the_ttl_does_not_renew_what_is_new(clock: Clock) -> None:
    echo, cache = Echo(), made(clock, ttl=60, early_refresh=90)
    for _ in range(10):
        rejoinder.completion(**CALL, client=echo, cache=cache)
        clock.now += 1
        time.sleep(0.002)
    assert echo.calls == 1


def test_a_renewal_that_goes_wrong_in_an_unknown_way_is_quiet(clock: Clock, capsys: Any) -> None:
    cache, keys_given = made(clock, ttl=60, early_refresh=20), []

    def key() -> str:
        keys_given.append(1)
        if len(keys_given) > 1:
            raise KeyError("the vault is closed")
        return "sk-a-key"

    echo = Echo()
    rejoinder.completion(**CALL, client=echo, cache=cache, api_key=key)
    clock.now += 50
    echo.answers = lambda body: 1 / 0  # type: ignore[assignment,return-value]
    assert rejoinder.completion(**CALL, client=echo, cache=cache, api_key=key).cache
    wait_until(lambda: cache.counts["stale_errors"] == 1)
    assert capsys.readouterr().err == ""


ENDING = """
import atexit, sys, time
import rejoinder
class Clock:
    now = 1000.0
    def __call__(self): return self.now
clock = Clock()
from rejoinder.caching.stores.memory import MemoryStore
cache = rejoinder.Cache(store=MemoryStore(clock=clock), clock=clock, ttl=60, early_refresh=20)
asked = []
def answer(body):
    asked.append(1)
    if len(asked) > 1: time.sleep(30)
    return "text"
echo = rejoinder.Echo(answer)
call = lambda: rejoinder.completion("echo/m", [{"role": "user", "content": "Hi"}], client=echo, cache=cache)
call(); clock.now += 50
"""


@pytest.mark.parametrize(
    "end", ["atexit.register(lambda: print(call().cache))", "print(call().cache); time.sleep(0.05)"]
)
def test_a_renewal_does_not_keep_a_program_from_ending(end: str) -> None:
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", ENDING + end], capture_output=True, text=True, timeout=25, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
    assert time.monotonic() - started < 15


def test_a_renewal_of_a_loop_that_is_closed_is_in_nobodys_way(clock: Clock) -> None:
    echo, cache = Echo(), made(clock, ttl=60, early_refresh=20)

    async def ask() -> Any:
        answer = await rejoinder.acompletion(**CALL, client=echo, cache=cache)
        await asyncio.sleep(0.01)
        return answer

    asyncio.run(ask())
    clock.now += 50
    echo.latency = 20
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(ask()).cache
    echo.latency = 0
    assert asyncio.run(ask()).cache
    assert (echo.calls, cache.counts["stored"]) == (2, 2)
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_a_renewal_is_counted_by_the_run_around_its_call(clock: Clock) -> None:
    cache = made(clock, ttl=60, early_refresh=20)
    rejoinder.completion(**CALL, client=Echo(), cache=cache)
    clock.now += 50
    held, done = threading.Event(), threading.Event()

    def other() -> None:
        with rejoinder.run("other") as run:
            held.set()
            done.wait(5)
            runs.append(run)

    runs: list[Any] = []
    thread = threading.Thread(target=other)
    thread.start()
    held.wait(5)
    with rejoinder.run("mine") as mine:
        rejoinder.completion(**CALL, client=Echo(latency=0.02), cache=cache)
        wait_until(lambda: cache.counts["stored"] == 2)
        wait_until(lambda: mine.summary().paid.calls == 1)
    done.set()
    thread.join()
    assert runs[0].summary().calls == 0


@pytest.mark.parametrize("mode", ["read_only", "replay_only"])
@pytest.mark.parametrize("after", [50, 70])
def test_a_mode_that_stores_nothing_renews_nothing(clock: Clock, mode: str, after: int) -> None:
    echo, cache = Echo(), made(clock, ttl=60, early_refresh=20, stale_while_revalidate=60)
    rejoinder.completion(**CALL, client=echo, cache=cache)
    clock.now += after
    with rejoinder.in_mode(mode):
        try:
            assert rejoinder.completion(**CALL, client=echo, cache=cache).cache
        except rejoinder.CacheMiss:
            assert (mode, after) == ("replay_only", 70)
    time.sleep(0.02)
    assert echo.calls == 1


# ── kept errors ───────────────────────────────────────────────────────────────────────────────────────────────────────


NO_ERRORS = [b"1", b"{}", b"", b'{"class":"NotFoundError","status":"x","message":1,"body":1,"request_id":1}']


@pytest.mark.parametrize("told", NO_ERRORS)
@both
def test_a_kept_error_that_does_not_read_is_a_miss(told: bytes, ask: Callable[..., Any], clock: Clock) -> None:
    echo, cache = Echo(), made(clock, error_ttl=60)
    key = ask(**CALL, client=echo, cache=cache).cache_info.key
    cache.store.set(key, entries.pack(entries.Entry(clock(), 60.0, b'{"kept_error":' + told + b"}")))
    answer = ask(**CALL, client=echo, cache=cache)
    assert (answer.cache, text_of(answer), cache.counts["corrupt"]) == (False, "Hi", 1)


@pytest.mark.parametrize("how", [{"mode": "refresh"}, {"s-maxage": 0}, {"no-cache": True}])
def test_a_kept_error_takes_no_good_answers_place(how: dict[str, Any], clock: Clock) -> None:
    echo, cache = Echo(["good", NO_MODEL]), made(clock, error_ttl=60)
    with cache:
        rejoinder.completion(**CALL, client=echo)
        clock.now += 1
        with pytest.raises(rejoinder.NotFoundError):
            rejoinder.completion(**CALL, client=echo, cache=how)
        assert text_of(rejoinder.completion(**CALL, client=echo)) == "good"


@both
def test_a_kept_error_leads_to_the_fallback(ask: Callable[..., Any], clock: Clock) -> None:
    bad, good, cache = Echo(NO_MODEL), Echo("fallback"), made(clock, error_ttl=60)
    for _ in range(3):
        answer = ask(**CALL, client=bad, cache=cache, fallbacks=[{"model": "echo/n", "client": good}])
        assert text_of(answer) == "fallback"
    assert (bad.calls, good.calls) == (1, 1)


def test_a_stream_meets_a_kept_error(clock: Clock) -> None:
    echo, cache = Echo(NO_MODEL), made(clock, error_ttl=60)
    for stream in (True, False, True):
        with pytest.raises(rejoinder.NotFoundError):
            rejoinder.completion(**CALL, client=echo, cache=cache, stream=stream)
    assert echo.calls == 1


def test_no_secret_is_in_a_kept_error(clock: Clock) -> None:
    headers = {"Authorization": "Bearer a-secret-of-mine", "X-Team-Token": "another-secret"}
    said = "there is no model for Bearer a-secret-of-mine with another-secret"
    cache, echo = made(clock, error_ttl=60), Echo({"status": 404, "body": {"error": {"message": said}}})
    with pytest.raises(rejoinder.NotFoundError) as caught:
        rejoinder.completion(**CALL, client=echo, cache=cache, extra_headers=headers)
    (record,) = cache.store.scan()
    for text in (str(caught.value), str(caught.value.body), str(cache.store.get(record.key))):
        assert "there is no model for" in text
        assert "secret" not in text


def test_explain_says_that_an_error_is_kept(clock: Clock) -> None:
    cache = made(clock, error_ttl=60)
    with pytest.raises(rejoinder.NotFoundError):
        rejoinder.completion(**CALL, client=Echo(NO_MODEL), cache=cache)
    told = cache.explain("echo/m", CALL["messages"])
    assert "error" in str(told)


@pytest.mark.parametrize("given", [{"tags": ["half a \ud800"]}, {"namespace": "half a \ud800"}])
def test_words_that_cannot_be_stored_are_refused_before_anything_is_paid(given: dict[str, Any]) -> None:
    echo = Echo()
    with Cache.memory(), pytest.raises(WrongType):
        rejoinder.completion(**CALL, client=echo, cache=given)
    with pytest.raises(WrongType):
        Cache.memory(**given)
    assert echo.calls == 0


# ── store_if ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def maybe(answer: Any) -> bool:
    return False


class Judge:
    async def __call__(self, answer: Any) -> bool:
        return False


@pytest.mark.parametrize("given", [maybe, Judge()])
def test_an_async_store_if_is_refused(given: Any) -> None:
    with pytest.raises(WrongType, match="store"):
        Cache.memory(store_if=given)


def test_an_async_store_if_in_disguise_stores_nothing(recwarn: Any, caplog: Any) -> None:
    cache = Cache.memory(store_if=lambda answer: maybe(answer))  # type: ignore[arg-type,return-value]
    rejoinder.completion(**CALL, client=Echo(), cache=cache)
    assert (cache.counts["stored"], cache.counts["refused"]) == (0, 1)
    assert not [warning for warning in recwarn if "never awaited" in str(warning.message)]
    assert "store_if" in caplog.text


@both
def test_store_if_cannot_change_the_answer(ask: Callable[..., Any]) -> None:
    def store_if(answer: Any) -> bool:
        answer.choices[0].message.content = "changed"
        answer.choices.append(None)
        return True

    cache = Cache.memory(store_if=store_if)
    for _ in range(2):
        assert text_of(ask(**CALL, client=Echo(), cache=cache)) == "Hi"


# ── an old cache ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_the_oldest_of_several_old_caches_has_is_found() -> None:
    oldest = Cache.memory(cache_seed=1)
    middle = Cache.memory(cache_seed=2, old=oldest)
    newest = Cache.memory(cache_seed=3, old=middle)
    echo = Echo()
    rejoinder.completion(**CALL, client=echo, cache=oldest)
    assert rejoinder.completion(**CALL, client=echo, cache=newest).cache
    assert echo.calls == 1


def test_old_caches_in_a_circle_end_somewhere() -> None:
    first = Cache.memory(cache_seed=1)
    second = Cache.memory(cache_seed=2, old=first)
    first.old = second
    assert not rejoinder.completion(**CALL, client=Echo(), cache=first).cache
    assert rejoinder.completion(**CALL, client=Echo(), cache=second).cache


def test_nothing_is_removed_from_an_old_cache(tmp_path: Path) -> None:
    sealed = Cache.disk(cache_path_root=tmp_path, sign_with="a secret of many letters")
    key = rejoinder.completion(**CALL, client=Echo(), cache=sealed).cache_info.key
    new = Cache.memory(old=Cache.disk(cache_path_root=tmp_path))  # and the key was forgotten
    assert not rejoinder.completion(**CALL, client=Echo(), cache=new).cache
    assert sealed.store.get(key) is not None


def test_what_is_copied_from_an_old_cache_has_the_new_ones_tags() -> None:
    old = Cache.memory(tags=["a"])
    rejoinder.completion(**CALL, client=Echo(), cache=old)
    new = Cache.memory(tags=["b"], old=old)
    rejoinder.completion(**CALL, client=Echo(), cache=new)
    assert new.clear(tag="b") == 1


def test_an_old_cache_without_a_key_for_a_call_does_not_fail_it() -> None:
    class Odd:
        pass

    new = Cache.memory(old=Cache.memory())
    new.get_cache_key = lambda **given: "one"
    with pytest.raises(rejoinder.InvalidRequest):  # which is what is said without a cache
        rejoinder.completion(**CALL, client=Echo(), extra_body={"x": Odd()}, cache=new)


# ── modes around ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_mode_holds_in_threads_started_inside() -> None:
    echo, cache = Echo(), Cache.memory()
    with rejoinder.in_mode("replay_only"), ThreadPoolExecutor(1) as pool, pytest.raises(rejoinder.CacheMiss):
        pool.submit(lambda: rejoinder.completion(**CALL, client=echo, cache=cache)).result()
    assert echo.calls == 0


async def test_a_mode_may_be_left_in_another_context() -> None:
    async def held() -> AsyncIterator[None]:
        with rejoinder.in_mode("replay_only"), rejoinder.epoch(3), rejoinder.samples():
            yield

    fixture = held()
    await asyncio.create_task(anext(fixture))  # type: ignore[arg-type]
    with pytest.raises(StopAsyncIteration):
        await asyncio.create_task(anext(fixture))  # type: ignore[arg-type]


# ── leases ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Slow(MemoryStore):
    """One with leases, in which each operation takes a few turns of the loop."""

    leases = True  # type: ignore[misc]
    instant = False  # type: ignore[misc]
    in_process = False  # type: ignore[misc]

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, str] = {}

    def lease(self, key: str, ttl: float) -> str | None:
        if key in self.held:
            return None
        self.held[key] = f"{len(self.held)}-{time.monotonic()}"
        return self.held[key]

    def renew(self, key: str, token: str, ttl: float) -> bool:
        return self.held.get(key) == token

    def release(self, key: str, token: str) -> bool:
        return self.held.pop(key, None) is not None

    async def aget(self, key: str) -> bytes | None:
        await asyncio.sleep(0)
        return self.get(key)

    async def aset(self, key: str, value: bytes, ttl: float | None = None) -> None:
        await asyncio.sleep(0)
        self.set(key, value, ttl)

    async def alease(self, key: str, ttl: float) -> str | None:
        await asyncio.sleep(0)
        token = self.lease(key, ttl)
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.release_soon(key, token or "")
            raise
        return token

    async def arelease(self, key: str, token: str) -> bool:
        await asyncio.sleep(0)
        return self.release(key, token)


async def asked(kind: str, answer: Any, cache: Cache) -> None:
    client = Echo(answer)
    if kind == "embedding":
        await rejoinder.aembedding(model="echo/m", input=["a", "b"], client=client, cache=cache, num_retries=0)
        return
    found = await rejoinder.acompletion(**CALL, client=client, cache=cache, stream=kind == "stream")
    if kind == "stream":
        async for _ in found:
            pass


@pytest.mark.parametrize("answer", [None, NO_MODEL])
@pytest.mark.parametrize("kind", ["whole", "stream", "embedding"])
def test_wherever_a_call_is_cancelled_its_lease_is_given_back(answer: Any, kind: str) -> None:
    from rejoinder.caching import leases

    async def go(turns: int) -> bool:
        store = Slow()
        cache = Cache(store=store, error_ttl=60)

        task = asyncio.create_task(asked(kind, answer, cache))
        for _ in range(turns):
            await asyncio.sleep(0)
        was_done = task.done()
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()
        deadline = time.monotonic() + 3
        while (store.held or cache.flights) and time.monotonic() < deadline:
            await asyncio.sleep(0.002)
        assert not store.held, f"after {turns} turns"
        assert not len(cache.flights)
        assert not [held for held, _ in leases.keeper._held.values() if held.store is store]
        return was_done

    turns = 0
    while not asyncio.run(go(turns)):
        turns += 1
    assert turns > 5


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_of_two_that_store_the_same_the_second_keeps_the_tags_too(kind: str, tmp_path: Path) -> None:
    cache = Cache.memory() if kind == "memory" else Cache.disk(cache_path_root=tmp_path)
    store = cache.store
    store.tag("default:k", ["t"])
    store.tag("default:k", ["t"])
    store.set("default:k", b"1")
    assert cache.clear(tag="t") == 1
    store.set("default:k", b"2")
    assert cache.clear(tag="t") == 1


# ── stores of others ──────────────────────────────────────────────────────────────────────────────────────────────────


class Plain(Store):
    """Four methods, and no call of the class above it."""

    name = "plain"

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        return self.data.get(key)

    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        self.data[key] = value

    def delete(self, key: str) -> bool:
        return self.data.pop(key, None) is not None

    def scan(self, prefix: str = "") -> Iterator[Record]:
        return iter([Record(key, len(value), 0.0, None) for key, value in self.data.items() if key.startswith(prefix)])


class Tagless(Plain):
    def tag(self, key: str, tags: Any, ttl: float | None = None) -> None:
        raise RuntimeError("no tags here")


@both
def test_a_store_of_four_methods_does_all_of_this(ask: Callable[..., Any]) -> None:
    cache = Cache(store=Plain(), ttl=60, tags=["a", "a", "b"], sliding=True, early_refresh=5, error_ttl=5)
    assert not ask(**CALL, client=Echo(), cache=cache).cache
    assert ask(**CALL, client=Echo(), cache=cache).cache
    assert (cache.clear(tag="b"), cache.clear(tag="a"), cache.clear()) == (1, 0, 0)
    layers = Cache([Cache.memory(), Plain()], tags=["a"])
    assert not ask(**CALL, client=Echo(), cache=layers).cache
    assert ask(**CALL, client=Echo(), cache=layers).cache
    assert layers.clear(tag="a") == 1
    assert not ask(**CALL, client=Echo(), cache=layers).cache


@both
def test_a_store_that_takes_no_tags_fails_no_call(ask: Callable[..., Any]) -> None:
    cache = Cache(store=Tagless(), tags=["a"])
    assert not ask(**CALL, client=Echo(), cache=cache).cache
    assert cache.counts["write_errors"] == 1


@pytest.mark.parametrize("kind", ["memory", "disk", "plain", "sql"])
def test_a_tag_of_thousands_is_cleared(kind: str, tmp_path: Path) -> None:
    if kind == "sql":
        pytest.importorskip("sqlalchemy")
    options: dict[str, Any] = {
        "memory": {"type": "local"},
        "disk": {"type": "disk", "disk_cache_dir": tmp_path},
        "plain": {"store": Plain()},
        "sql": {"type": "sql", "url": f"sqlite:///{tmp_path}/x.db"},
    }[kind]
    cache, many = Cache(**options), 600 if kind == "sql" else 2000
    for number in range(many):
        cache.store.tag(f"default:{number}", ["t", "t"])
        cache.store.set(f"default:{number}", b"x")
    assert cache.clear(tag="t") == many
