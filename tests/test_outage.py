"""A store in trouble: no call fails, the first is slowed by at most the budget, the later ones not at all."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from rejoinder import Cache, Echo
from rejoinder.caching.stores.base import Record, Store
from tests.fixtures.calls import ataken, both, both_streams, crowd, text_of, until, whole
from tests.fixtures.servers import (
    dying_server,
    redis_server,
    refusing_server,
    silent_server,
    stalling_server,
)
from tests.fixtures.worker import ROOT

TEXT = "The answer."
BUDGET = 0.1
SLOW = 5 * BUDGET  # machines that run tests are slow at times; a store that is waited for takes seconds
QUICK = BUDGET / 2  # a call past an open breaker takes a fraction of a millisecond


@pytest.fixture(autouse=True, scope="module")
def warm() -> None:
    whole(client=Echo([TEXT]))
    asyncio.run(ataken(client=Echo([TEXT])))


def messages(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Question {number}"}]


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "rejoinder"]


def at_port(server: Callable[..., AbstractContextManager[int]], *args: Any) -> Any:
    @contextmanager
    def trouble(tmp_path: Path) -> Iterator[Cache]:
        with server(*args) as port:
            cache = Cache(type="redis", host="127.0.0.1", port=port, budget=BUDGET)
            yield cache
            cache.close()

    return trouble


@contextmanager
def full_redis(tmp_path: Path) -> Iterator[Cache]:
    with redis_server("--maxmemory", "1", "--maxmemory-policy", "noeviction") as server:
        cache = Cache(type="redis", redis_url=server.url, budget=BUDGET)
        yield cache
        cache.close()


@contextmanager
def read_only_redis(tmp_path: Path) -> Iterator[Cache]:
    with redis_server() as primary, redis_server("--replicaof", "127.0.0.1", str(primary.port)) as replica:
        cache = Cache(type="redis", redis_url=replica.url, budget=BUDGET)
        yield cache
        cache.close()


@contextmanager
def paused_redis(tmp_path: Path) -> Iterator[Cache]:
    with redis_server() as server:
        cache = Cache(type="redis", redis_url=server.url, budget=BUDGET)
        assert cache.get("anything") is None  # connected
        os.kill(server.pid, signal.SIGSTOP)
        try:
            yield cache
        finally:
            os.kill(server.pid, signal.SIGCONT)
        cache.close()


@contextmanager
def locked_file(tmp_path: Path) -> Iterator[Cache]:
    Cache.disk(cache_path_root=tmp_path).set("other", 1)
    holder = sqlite3.connect(tmp_path / "cache.sqlite3", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    cache = Cache.disk(cache_path_root=tmp_path, budget=BUDGET)
    yield cache
    cache.close()
    holder.close()


@contextmanager
def no_folder(tmp_path: Path) -> Iterator[Cache]:
    (tmp_path / "file").write_text("no folder")
    yield Cache.disk(cache_path_root=tmp_path / "file" / "folder", budget=BUDGET)


@contextmanager
def foreign_file(tmp_path: Path) -> Iterator[Cache]:
    other = sqlite3.connect(tmp_path / "cache.sqlite3")
    other.execute("CREATE TABLE somebody_elses (x)")
    other.commit()
    other.close()
    yield Cache.disk(cache_path_root=tmp_path, budget=BUDGET)


@contextmanager
def raising_store(tmp_path: Path) -> Iterator[Cache]:
    class Raises(Store):
        name = "raising"
        leases = True

        def get(self, key: str) -> bytes | None:
            raise RuntimeError("get")

        def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
            raise MemoryError

        def delete(self, key: str) -> bool:
            raise RecursionError

        def scan(self, prefix: str = "") -> Iterator[Record]:
            raise ZeroDivisionError

    yield Cache(store=Raises())


TROUBLES = {
    "redis refuses": at_port(refusing_server),
    "redis is silent": at_port(silent_server),
    "redis stalls": at_port(stalling_server, b"$100\r\nabc"),
    "redis dies mid-reply": at_port(dying_server, b"$100\r\nabc"),
    "redis talks nonsense": at_port(stalling_server, b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "redis is full": full_redis,
    "redis is read-only": read_only_redis,
    "redis is paused": paused_redis,
    "the file is locked": locked_file,
    "there is no folder": no_folder,
    "the file is another program's": foreign_file,
    "the store raises": raising_store,
}


@pytest.fixture(params=TROUBLES.values(), ids=TROUBLES.keys())
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cache]:
    with request.param(tmp_path) as cache:
        yield cache


@both
def test_no_call_fails_and_only_the_first_is_slow(
    ask: Callable[..., Any], cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    echo, durations = Echo([TEXT]), []
    for number in range(20):
        started = time.monotonic()
        assert text_of(ask(client=echo, cache=cache, messages=messages(number))) == TEXT
        durations.append(time.monotonic() - started)
    assert echo.calls == 20
    assert durations[0] < SLOW
    assert sorted(durations[1:])[-3] < QUICK
    stats = cache.stats()
    assert stats["read_errors"] + stats["write_errors"] + stats["lease_errors"] >= 1
    assert stats["last_error"]
    assert 1 <= len(warnings_in(caplog)) <= 2, "one for reading and one for writing, not one a call"


@both_streams
def test_no_stream_fails(read: Callable[..., Any], cache: Cache) -> None:
    echo = Echo([TEXT], chunk_size=4)
    for number in range(3):
        assert text_of(read(client=echo, cache=cache, messages=messages(number))) == TEXT
    assert len(cache.flights) == 0


def test_a_crowd_is_slowed_once_and_not_in_turn(cache: Cache) -> None:
    echo = Echo([TEXT])
    started = time.monotonic()
    answers = crowd([lambda n=n: whole(client=echo, cache=cache, messages=messages(n)) for n in range(50)])  # type: ignore[misc]
    assert {text_of(answer) for answer in answers} == {TEXT}
    assert time.monotonic() - started < 2 * SLOW


async def test_the_event_loop_goes_on(cache: Cache) -> None:
    echo, gaps, is_over = Echo([TEXT]), [0.0], False

    async def tick() -> None:
        while not is_over:
            started = time.monotonic()
            await asyncio.sleep(0.001)
            gaps.append(time.monotonic() - started)

    ticker = asyncio.create_task(tick())
    started = time.monotonic()
    answers = await asyncio.gather(
        *(ataken(client=echo, cache=cache, messages=messages(n)) for n in range(50)), return_exceptions=True
    )
    took = time.monotonic() - started
    is_over = True
    await ticker
    assert {text_of(answer) for answer in answers} == {TEXT}
    assert took < SLOW
    assert max(gaps) < BUDGET


# ── recovery ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@both
def test_a_redis_killed_and_started_again_is_used_again(
    ask: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with redis_server() as server:
        cache, echo = Cache(type="redis", redis_url=server.url, budget=BUDGET), Echo([TEXT])
        cache._reading.first = cache._writing.first = cache._reading._pause = cache._writing._pause = 0.1
        ask(client=echo, cache=cache)
        assert ask(client=echo, cache=cache).cache
        server.kill()
        for number in range(5):
            assert text_of(ask(client=echo, cache=cache, messages=messages(number))) == TEXT
        assert cache.stats()["reading"] == "open"
        server.start()
        until(lambda: ask(client=echo, cache=cache).cache, 10)
        assert cache.stats()["reading"] == cache.stats()["writing"] == "closed"
        assert len(warnings_in(caplog)) <= 2
        cache.close()


def test_a_paused_redis_is_used_again_when_it_goes_on() -> None:
    with redis_server() as server:
        cache, echo = Cache(type="redis", redis_url=server.url, budget=BUDGET), Echo([TEXT])
        cache._reading._pause = cache._writing._pause = 0.1
        whole(client=echo, cache=cache)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            assert not whole(client=echo, cache=cache).cache
            started = time.monotonic()
            assert not whole(client=echo, cache=cache).cache
            assert time.monotonic() - started < QUICK
        finally:
            os.kill(server.pid, signal.SIGCONT)
        until(lambda: whole(client=echo, cache=cache).cache, 10)
        cache.close()


def test_a_redis_that_dies_while_the_vendor_is_asked_costs_no_answer() -> None:
    with redis_server() as server:
        cache = Cache(type="redis", redis_url=server.url, budget=BUDGET)

        def answer(body: Any) -> str:
            server.kill()
            return TEXT

        assert text_of(whole(client=Echo(answer), cache=cache)) == TEXT
        assert cache.stats()["write_errors"] == 1
        assert len(cache.flights) == 0
        cache.close()


# ── the disk ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@both
def test_a_damaged_file_is_a_miss_and_a_new_one_is_begun(ask: Callable[..., Any], tmp_path: Path) -> None:
    echo = Echo([TEXT])
    first = Cache.disk(cache_path_root=tmp_path)
    ask(client=echo, cache=first)
    first.close()
    path = tmp_path / "cache.sqlite3"
    path.write_bytes(b"\x00garbage" * 4096)
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    cache = Cache.disk(cache_path_root=tmp_path)
    assert text_of(ask(client=echo, cache=cache)) == TEXT
    assert ask(client=echo, cache=cache).cache
    cache.close()


@both
def test_a_folder_deleted_under_use_is_made_again(ask: Callable[..., Any], tmp_path: Path) -> None:
    import shutil

    echo, cache = Echo([TEXT]), Cache.disk(cache_path_root=tmp_path / "cache")
    ask(client=echo, cache=cache)
    shutil.rmtree(tmp_path / "cache")
    assert text_of(ask(client=echo, cache=cache, messages=messages(1))) == TEXT
    assert text_of(ask(client=echo, cache=cache, messages=messages(2))) == TEXT
    until(lambda: ask(client=echo, cache=cache, messages=messages(2)).cache)
    assert (tmp_path / "cache" / "cache.sqlite3").exists()
    cache.close()


def test_what_a_locked_file_has_is_still_read(tmp_path: Path) -> None:
    echo = Echo([TEXT])
    before = Cache.disk(cache_path_root=tmp_path)
    whole(client=echo, cache=before)
    before.close()
    with locked_file(tmp_path) as cache:
        started = time.monotonic()
        assert whole(client=echo, cache=cache).cache
        assert time.monotonic() - started < QUICK


CHILD = """
import json, os, resource, sys, time
from rejoinder import Cache, Echo
from tests.fixtures.calls import awhole, text_of, whole
folder, kind = sys.argv[1:]
cache, echo = Cache.disk(cache_path_root=folder, budget=0.1), Echo(["The answer. " * 2000])
whole(client=Echo(["x"])); awhole(client=Echo(["x"]))
if kind == "full":
    whole(client=echo, cache=cache)
    size = os.path.getsize(folder + "/cache.sqlite3-wal")
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
else:
    os.setgid(65534); os.setuid(65534)
durations, texts = [], set()
for number in range(10):
    started = time.monotonic()
    ask = (whole, awhole)[number % 2]
    texts.add(text_of(ask(client=echo, cache=cache, messages=[{"role": "user", "content": str(number)}]))[:11])
    durations.append(time.monotonic() - started)
hit = whole(client=echo, cache=cache).cache
print(json.dumps({"texts": sorted(texts), "durations": durations, "stats": cache.stats(), "hit": hit}))
"""


@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_a_disk_that_takes_nothing_fails_no_call(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    if kind == "read-only":
        if os.geteuid() != 0:
            pytest.skip("only root can become another user, who may not write here")
        cache = Cache.disk(cache_path_root=folder)
        whole(client=Echo([TEXT]), cache=cache)
        cache.close()
        for each in [*folder.iterdir(), folder]:
            each.chmod(0o555)
        for parent in folder.parents:
            if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 1:
                parent.chmod(0o711)
    path = os.pathsep.join([str(ROOT), str(ROOT / "src"), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), kind],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": path},
        cwd=ROOT,
    )
    if kind == "read-only" and "PermissionError" in done.stderr and not done.stdout:
        pytest.skip("another user cannot read this Python")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["texts"] == [TEXT]
    assert result["hit"], "what was stored before is still read"
    assert result["stats"]["write_errors"] + result["stats"]["lease_errors"] >= 1
    assert sorted(result["durations"])[-3] < QUICK
    assert done.stderr.count("passed by for a while") <= 2


def test_the_log_says_what_the_trouble_is_and_no_password(caplog: pytest.LogCaptureFixture) -> None:
    with refusing_server() as port, caplog.at_level(logging.DEBUG):
        cache = Cache(type="redis", redis_url=f"redis://:sesame-open@127.0.0.1:{port}/0", budget=BUDGET)
        whole(client=Echo([TEXT]), cache=cache)
        said = " ".join(warnings_in(caplog)) + repr(cache) + repr(cache.store) + str(cache.stats())
        assert "passed by" in said
        assert "sesame" not in said


def test_a_burst_of_failures_does_not_lengthen_the_pause() -> None:
    with refusing_server() as port:
        cache = Cache(type="redis", host="127.0.0.1", port=port, budget=BUDGET)
        echo = Echo([TEXT])
        crowd([lambda n=n: whole(client=echo, cache=cache, messages=messages(n)) for n in range(60)])  # type: ignore[misc]
        assert cache._reading._pause <= 2 * cache._reading.first
