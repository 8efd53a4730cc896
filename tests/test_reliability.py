"""Each experiment on reliability at a small scale, and that the checker of mixed operations sees what is wrong.

What is done at full scale, and what came of it, is in docs/reliability.md.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rejoinder.caching.stores.memory import MemoryStore
from tests.conformance.store import in_fork
from tests.reliability.__main__ import in_own_process
from tests.reliability.cases import CASES
from tests.reliability.checker import Worker, judged
from tests.reliability.report import BROKEN, FAILED, HELD, SKIPPED, Row, as_markdown, as_text, row

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")


@pytest.mark.parametrize("name", CASES)
def test_no_promise_is_broken(name: str) -> None:
    rows = in_own_process(name, full=False)
    bad = [row for row in rows if row.is_bad]
    assert not bad, as_text(bad)
    if all(row.verdict == SKIPPED for row in rows):
        pytest.skip("; ".join(sorted({row.found for row in rows})))


# ── the checker ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Leasing(MemoryStore):
    """Memory with leases, so that all is tried."""

    leases = True

    def __init__(self) -> None:
        super().__init__(max_entries=None)
        self._taken: dict[str, tuple[str, float]] = {}
        self._leasing = threading.Lock()

    def lease(self, key: str, ttl: float) -> str | None:
        with self._leasing:
            now = time.time()
            if key in self._taken and self._taken[key][1] > now:
                return None
            self._taken[key] = os.urandom(8).hex(), now + ttl
            return self._taken[key][0]

    def renew(self, key: str, token: str, ttl: float) -> bool:
        with self._leasing:
            held = self._taken.get(key, ("", 0.0))
            if held[0] != token or held[1] <= time.time():
                return False
            self._taken[key] = token, time.time() + ttl
            return True

    def release(self, key: str, token: str) -> bool:
        with self._leasing:
            held = self._taken.get(key, ("", 0.0))
            if held[0] != token or held[1] <= time.time():
                return False
            del self._taken[key]
            return True


class Tearing(Leasing):
    def get(self, key: str) -> bytes | None:
        value = super().get(key)
        return value if value is None or random.random() > 0.02 else value[:-1]


class Confusing(Leasing):
    def get(self, key: str) -> bytes | None:
        return super().get(key if random.random() > 0.02 else key[:-1] + "1")


class Forgetful(Leasing):
    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        if random.random() > 0.05:
            super().set(key, value, ttl)


class Undying(Leasing):
    def get(self, key: str) -> bytes | None:
        time.sleep(0.001)  # or all is over before anything has ended
        return super().get(key)

    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        super().set(key, value, None)


class Stale(Leasing):
    """Like a replica that lags: every now and then, what was there before."""

    def __init__(self) -> None:
        super().__init__()
        self._old: dict[str, bytes] = {}

    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        self._old[key] = self.get(key) or value
        super().set(key, value, ttl)

    def get(self, key: str) -> bytes | None:
        return self._old.get(key) if hasattr(self, "_old") and random.random() < 0.05 else super().get(key)


class Generous(Leasing):
    def lease(self, key: str, ttl: float) -> str | None:
        return super().lease(key, ttl) or os.urandom(8).hex()


class Reluctant(Leasing):
    def delete(self, key: str) -> bool:
        return random.random() < 0.5 or super().delete(key)


class Failing(Leasing):
    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        if random.random() < 0.01:
            raise OSError("the medium is gone")
        super().set(key, value, ttl)


def found_in(store: MemoryStore, operations: int) -> tuple[list[str], list[str]]:
    """The faults and the errors of four workers."""

    def work(number: int) -> dict[str, Any]:
        note = Worker(number, 4, store, random.Random(number)).work(operations)
        return json.loads(json.dumps(note))  # type: ignore[no-any-return]  # as it comes from a process

    with ThreadPoolExecutor(4) as pool:
        notes = list(pool.map(work, range(4)))
    return judged(notes), [error for note in notes for error in note["errors"]]


def test_the_checker_is_content_with_a_store_that_keeps_its_word() -> None:
    assert found_in(Leasing(), 2000) == ([], [])


@pytest.mark.parametrize("make", [Tearing, Confusing, Forgetful, Undying, Stale, Generous, Reluctant])
def test_the_checker_sees_what_is_wrong(make: Callable[[], MemoryStore]) -> None:
    faults, errors = found_in(make(), 2000)
    assert faults
    assert not errors


def test_the_checker_counts_errors_and_does_not_take_them_for_faults() -> None:
    faults, errors = found_in(Failing(), 2000)
    assert errors
    assert not faults


# ── the table ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def shown(rows: Sequence[Row]) -> str:
    return as_text(rows) + as_markdown(rows)


def test_the_table_tells_what_was_broken() -> None:
    held = row("kills", "disk", "killed", "nothing lost", "nothing is lost", held=True)
    broken = row("kills", "redis", "killed", "one lost", "nothing is lost", held=False)
    assert (held.verdict, broken.verdict) == (HELD, BROKEN)
    assert [each.is_bad for each in (held, broken)] == [False, True]
    assert "BROKEN" in shown([held, broken])
    assert "BROKEN" not in shown([held])


def test_an_experiment_that_breaks_off_is_no_success() -> None:
    assert Row("kills", "-", "it broke off", "", "-", FAILED).is_bad


# ── what the experiments taught ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_lock_that_another_thread_holds_is_free_in_the_child_of_a_fork() -> None:
    from rejoinder.core.locks import new_lock

    lock, is_held, may_go = new_lock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            is_held.set()
            may_go.wait(0.05)

    holder = threading.Thread(target=hold)
    holder.start()
    is_held.wait(5)

    def child() -> None:
        assert lock.acquire(timeout=5)

    in_fork(child)
    holder.join(5)
    assert lock.acquire(timeout=5)
