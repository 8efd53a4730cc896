"""Fallbacks: the models that are asked in turn when one fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import rejoinder
from rejoinder import Cache
from tests.fixtures.calls import both, text_of
from tests.fixtures.upstream import Upstream

SECRET = "sk-of-the-first-provider"


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Upstream]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Upstream(text=name)) for name in ("first", "second", "third")]


@pytest.fixture
def three(servers: list[Upstream], monkeypatch: pytest.MonkeyPatch) -> list[Upstream]:
    for server in servers:
        server.reset()
    monkeypatch.setenv("GROQ_API_KEY", "gsk-of-groq")
    monkeypatch.setenv("MISTRAL_API_KEY", "key-of-mistral")
    return servers


def chain(three: list[Upstream], **more: Any) -> dict[str, Any]:
    first, second, third = three
    return {
        "model": "openai/gpt-4o",
        "api_key": SECRET,
        "api_base": first.url,
        "extra_headers": {"x-of-the-first": SECRET},
        "num_retries": 0,
        "fallbacks": [
            {"model": "groq/llama", "api_base": second.url},
            {"model": "mistral/small", "api_base": third.url},
        ],
        **more,
    }


@both
def test_they_are_asked_in_order_until_one_answers(ask: Callable[..., Any], three: list[Upstream]) -> None:
    first, second, _ = three
    assert text_of(ask(**chain(three))) == "first"
    first.configure(status=503)
    assert text_of(ask(**chain(three))) == "second"
    second.configure(status=429)
    assert text_of(ask(**chain(three))) == "third"
    assert [upstream.calls for upstream in three] == [3, 2, 1]


@both
def test_the_first_providers_credentials_reach_no_other(ask: Callable[..., Any], three: list[Upstream]) -> None:
    first, second, third = three
    first.configure(status=401)
    second.configure(status=500)
    ask(**chain(three))
    assert SECRET in str(first.requests[0].headers)
    for other in (second, third):
        [request] = other.requests
        assert SECRET not in str(request.headers) + request.body
    assert second.requests[0].headers["authorization"] == "Bearer gsk-of-groq"


@both
def test_when_all_fail_the_error_is_the_lasts_with_every_attempt(
    ask: Callable[..., Any], three: list[Upstream]
) -> None:
    for upstream, status in zip(three, (503, 429, 404), strict=True):
        upstream.configure(status=status)
    with pytest.raises(rejoinder.NotFoundError) as caught:
        ask(**chain(three))
    assert [attempt.status for attempt in caught.value.attempts] == [503, 429, 404]
    names = [attempt.deployment for attempt in caught.value.attempts]
    assert names == ["openai/gpt-4o", "groq/llama", "mistral/small"]
    assert SECRET not in str(caught.value) + repr(caught.value)


@both
def test_a_fallbacks_answer_is_stored_under_its_own_key(ask: Callable[..., Any], three: list[Upstream]) -> None:
    cache, (first, second, _) = Cache(), three
    first.configure(status=503)
    assert text_of(ask(**chain(three), cache=cache)) == "second"
    first.configure(status=200)
    again = ask(**chain(three), cache=cache)
    assert (text_of(again), again.cache) == ("first", False), "the first model's answer is still wanted"
    direct = ask(model="groq/llama", api_base=second.url, cache=cache)
    assert (text_of(direct), direct.cache) == ("second", True)


@both
def test_a_stored_answer_of_a_fallback_serves_while_the_first_fails(ask: Callable[..., Any], three: Any) -> None:
    cache = Cache()
    three[0].configure(status=503)
    ask(**chain(three), cache=cache)
    again = ask(**chain(three), cache=cache)
    assert (text_of(again), again.cache) == ("second", True)
    assert three[1].calls == 1


@both
def test_a_request_that_is_wrong_in_itself_is_not_passed_on(ask: Callable[..., Any], three: list[Upstream]) -> None:
    with pytest.raises(rejoinder.InvalidRequest):
        ask(**chain(three, messages=[]))
    assert [upstream.calls for upstream in three] == [0, 0, 0]


@both
def test_a_stream_falls_back_before_its_first_chunk_and_not_after(
    ask: Callable[..., Any], three: list[Upstream]
) -> None:
    from tests.fixtures.calls import streamed

    three[0].configure(status=500)
    assert text_of(streamed(**chain(three))) == "second"
    three[0].configure(status=200, drop_after=2, delay=0.005)
    with pytest.raises(rejoinder.APIConnectionError):
        streamed(**chain(three))
    assert three[1].calls == 1


@pytest.mark.parametrize("wrong", [5, [5], [{"no": "model"}], [["x"]]], ids=repr)
@both
def test_wrong_fallbacks_are_a_clear_error(ask: Callable[..., Any], wrong: Any) -> None:
    with pytest.raises(rejoinder.WrongType, match="fallbacks"):
        ask(fallbacks=wrong)
