"""One retry layer: what is tried again, how long it waits, what the error says at the end."""

from __future__ import annotations

import datetime
import email.utils
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rejoinder
from rejoinder import Cache, Echo
from rejoinder.core.types import Options
from rejoinder.router.retry import LONGEST_RETRY_AFTER, Attempts, retry_after
from tests.fixtures.calls import both, text_of
from tests.fixtures.servers import refusing_server
from tests.fixtures.upstream import Upstream

TEXT = "At last."
AT_ONCE = {"headers": {"retry-after": "0"}}


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with Upstream(text=TEXT) as upstream:
        yield upstream


@pytest.fixture
def upstream(server: Upstream) -> Upstream:
    server.reset()
    return server


def place(upstream: Upstream, **params: Any) -> dict[str, Any]:
    return {"model": "openai/gpt-4o-mini", "api_base": upstream.url, "api_key": "sk-mock", **params}


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 507])
@both
def test_passing_troubles_are_tried_again(ask: Callable[..., Any], status: int, upstream: Upstream) -> None:
    upstream.script({"status": status, **AT_ONCE}, {"status": 503, **AT_ONCE}, {})
    assert text_of(ask(**place(upstream), num_retries=2)) == TEXT
    assert upstream.calls == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
@both
def test_lasting_troubles_are_not(ask: Callable[..., Any], status: int, upstream: Upstream) -> None:
    upstream.configure(status=status)
    with pytest.raises(rejoinder.APIStatusError) as caught:
        ask(**place(upstream), num_retries=3)
    assert upstream.calls == 1
    assert [attempt.status for attempt in caught.value.attempts] == [status]


@both
def test_a_dropped_connection_is_tried_again(ask: Callable[..., Any], upstream: Upstream) -> None:
    upstream.script({"drop_after": 0}, {"drop_after": 1}, {})
    assert text_of(ask(**place(upstream), num_retries=2)) == TEXT
    assert upstream.calls == 3


@pytest.mark.parametrize("name", ["num_retries", "max_retries"])
@both
def test_there_are_as_many_tries_as_was_said(ask: Callable[..., Any], name: str, upstream: Upstream) -> None:
    for retries in (0, 1, 3):
        upstream.reset()
        upstream.configure(status=503, **AT_ONCE)
        with pytest.raises(rejoinder.InternalServerError):
            ask(**place(upstream), **{name: retries})
        assert upstream.calls == retries + 1, "and the SDK makes none of its own"


@both
def test_the_error_carries_every_attempt(ask: Callable[..., Any], upstream: Upstream) -> None:
    upstream.script({"status": 503, **AT_ONCE}, {"drop_after": 0}, {"status": 429, "headers": {"retry-after": "7000"}})
    with pytest.raises(rejoinder.RateLimitError, match=r"attempt 3 of 3") as caught:
        ask(**place(upstream), num_retries=2)
    attempts = caught.value.attempts
    assert [attempt.status for attempt in attempts] == [503, None, 429]
    assert {attempt.deployment for attempt in attempts} == {"openai/gpt-4o-mini"}
    assert all(attempt.seconds >= 0 for attempt in attempts)
    assert caught.value.retry_after == 7000


@both
def test_what_the_vendor_asks_to_wait_is_waited(ask: Callable[..., Any], upstream: Upstream) -> None:
    upstream.script({"status": 429, "headers": {"retry-after-ms": "150"}}, {})
    started = time.monotonic()
    ask(**place(upstream), num_retries=1)
    assert 0.15 <= time.monotonic() - started < 1.5


@both
def test_a_vendor_that_asks_for_too_long_is_not_waited_for(ask: Callable[..., Any], upstream: Upstream) -> None:
    upstream.configure(status=429, headers={"retry-after": str(int(LONGEST_RETRY_AFTER) + 1)})
    started = time.monotonic()
    with pytest.raises(rejoinder.RateLimitError):
        ask(**place(upstream), num_retries=5)
    assert upstream.calls == 1
    assert time.monotonic() - started < 1


@both
def test_a_negative_wait_is_none(ask: Callable[..., Any], upstream: Upstream) -> None:
    for headers in ({"retry-after-ms": "-5000"}, {"retry-after": "-5"}):
        upstream.script({"status": 429, "headers": headers}, {})
        assert text_of(ask(**place(upstream), num_retries=1)) == TEXT


@both
def test_the_deadline_bounds_all_attempts(ask: Callable[..., Any], upstream: Upstream) -> None:
    upstream.configure(status=503, latency=0.05, headers={"retry-after-ms": "50"})
    started = time.monotonic()
    with pytest.raises((rejoinder.InternalServerError, rejoinder.APITimeoutError)):
        ask(**place(upstream), num_retries=1000, deadline=0.5)
    assert time.monotonic() - started < 0.9
    assert upstream.calls >= 2


@both
def test_the_deadline_bounds_an_attempt_that_hangs(ask: Callable[..., Any], upstream: Upstream) -> None:
    upstream.configure(hang=True)
    started = time.monotonic()
    with pytest.raises(rejoinder.APITimeoutError):
        ask(**place(upstream), num_retries=5, deadline=0.2)
    assert time.monotonic() - started < 0.6


@both
def test_a_timeout_is_for_each_attempt(ask: Callable[..., Any], upstream: Upstream) -> None:
    upstream.script({"hang": True}, {})
    assert text_of(ask(**place(upstream), num_retries=1, timeout=0.2)) == TEXT
    assert upstream.calls == 2


@both
def test_nobody_listening_is_tried_again_and_named(ask: Callable[..., Any]) -> None:
    with refusing_server() as port, pytest.raises(rejoinder.APIConnectionError, match=r"openai/gpt-4o") as caught:
        ask(model="openai/gpt-4o", api_base=f"http://127.0.0.1:{port}", api_key="sk-secret-key", num_retries=1)
    assert len(caught.value.attempts) == 2
    assert "sk-secret" not in repr(caught.value) + str(caught.value)


@both
def test_errors_are_not_stored(ask: Callable[..., Any], upstream: Upstream) -> None:
    cache = Cache()
    upstream.script({"status": 400}, {})
    with pytest.raises(rejoinder.BadRequestError):
        ask(**place(upstream), cache=cache)
    answer = ask(**place(upstream), cache=cache)
    assert (text_of(answer), answer.cache) == (TEXT, False)


def test_an_exception_that_is_no_vendors_is_not_tried_again() -> None:
    echo = Echo(ZeroDivisionError("mine"))
    with pytest.raises(ZeroDivisionError):
        rejoinder.completion("echo/m", [{"role": "user", "content": "x"}], client=echo, num_retries=5)
    assert echo.calls == 1


# ── the pure part ─────────────────────────────────────────────────────────────────────────────────────────────────────

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "12"}, 12.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "-250"}, 0.0),
        ({"retry-after": email.utils.formatdate(NOW + 30, usegmt=True)}, 30.0),
        ({"retry-after": email.utils.formatdate(NOW - 30, usegmt=True)}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Mon, 99 Foo 9999 99:99:99 GMT"}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after(headers, NOW) == expected


@given(st.text(max_size=40))
def test_any_retry_after_is_read_or_ignored(text: str) -> None:
    for name in ("retry-after", "retry-after-ms"):
        wait = retry_after({name: text}, NOW)
        assert wait is None or wait >= 0


def test_dates_at_the_end_of_time_are_read_or_ignored() -> None:
    for year in (1, 1900, datetime.MAXYEAR):
        wait = retry_after({"retry-after": f"Fri, 31 Dec {year:04} 23:59:59 GMT"}, NOW)
        assert wait is None or wait >= 0


def test_waits_are_jittered_and_grow_to_eight_seconds() -> None:
    import openai  # noqa: F401

    from rejoinder.core.api_errors import InternalServerError, local_error

    error = local_error(InternalServerError, "x")
    error.status_code = 500
    waits: list[list[float]] = []
    for _ in range(60):
        attempts = Attempts(Options(num_retries=9), 0.0)
        waits.append([attempts.pause_after(error, 0.0) or 0.0 for _ in range(9)])
    firsts, lasts = [each[0] for each in waits], [each[-1] for each in waits]
    assert len(set(firsts)) > 50
    assert max(firsts) <= 1
    assert max(lasts) <= 8
    assert sum(lasts) > sum(firsts)
