"""Why a call hit or missed."""

from __future__ import annotations

from typing import Any

import pytest

import rejoinder


def message(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


CALL: dict[str, Any] = {"model": "echo/m", "messages": [message("What colour is the sky?")], "temperature": 0.5}


@pytest.fixture
def cache() -> rejoinder.Cache:
    cache = rejoinder.Cache.memory(keep_requests=True)
    rejoinder.completion(**CALL, cache=cache)
    rejoinder.completion("echo/other", [message("Something else"), message("entirely")], cache=cache)
    return cache


def test_stored_call_is_explained_as_a_hit(cache: rejoinder.Cache) -> None:
    explanation = cache.explain(**CALL)
    assert explanation.hit
    assert str(explanation).startswith("HIT: stored 0 s ago.")


def test_miss_names_the_one_parameter_that_differs(cache: rejoinder.Cache) -> None:
    explanation = cache.explain(**{**CALL, "temperature": 0.7})
    assert not explanation.hit
    assert [str(difference) for difference in explanation.differences] == [
        "parameters.temperature differs at character 2: '0.7' here, '0.5' stored"
    ]


def test_miss_shows_where_a_text_parts(cache: rejoinder.Cache) -> None:
    explanation = cache.explain(**{**CALL, "messages": [message("What colour is the sea?")]})
    (difference,) = explanation.differences
    assert difference.part == "messages[0]"
    assert "the sea" in str(difference)
    assert "the sky" in str(difference)


def test_added_and_missing_parameters_are_told_apart(cache: rejoinder.Cache) -> None:
    call = {name: value for name, value in CALL.items() if name != "temperature"}
    found = {str(difference) for difference in cache.explain(**call, max_tokens=5).differences}
    assert found == {"parameters.max_tokens is new here", "parameters.temperature is missing here"}


def test_without_kept_requests_the_part_is_named_but_no_text_is_stored() -> None:
    cache = rejoinder.Cache.memory()
    rejoinder.completion(**CALL, cache=cache)
    (difference,) = cache.explain(**{**CALL, "messages": [message("What colour is the sea?")]}).differences
    assert difference.part == "messages[0]"
    (record,) = cache.store.scan()
    stored = cache.store.get(record.key)
    assert stored is not None
    assert stored.count(b"What colour") == 1  # the answer, which the echo provider repeats; not the request


def test_empty_cache_says_so() -> None:
    assert "nothing is stored" in rejoinder.Cache.memory().explain(**CALL).reason


def test_same_request_in_another_epoch_is_named_as_such(cache: rejoinder.Cache) -> None:
    with rejoinder.epoch(3):
        assert "another seed, sample, epoch" in cache.explain(**CALL).reason


def test_explaining_sends_nothing() -> None:
    echo, cache = rejoinder.Echo(), rejoinder.Cache.memory()
    cache.explain(**CALL, client=echo)
    assert echo.calls == 0
