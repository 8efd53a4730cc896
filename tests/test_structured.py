"""Answers as objects of a pydantic class."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest

import rejoinder

MESSAGES = [{"role": "user", "content": "Where is the Eiffel tower?"}]


class Place(pydantic.BaseModel):
    city: str
    country: str


@pytest.mark.parametrize("is_async", [False, True])
async def test_answer_is_parsed_fresh_and_cached(is_async: bool) -> None:
    echo, cache = rejoinder.Echo('{"city": "Paris", "country": "France"}'), rejoinder.Cache.memory()
    for _ in range(2):
        call: dict[str, Any] = {"client": echo, "cache": cache, "response_format": Place}
        if is_async:
            answer = await rejoinder.acompletion("echo/m", MESSAGES, **call)
        else:
            answer = rejoinder.completion("echo/m", MESSAGES, **call)
        assert answer.parsed == Place(city="Paris", country="France")
    assert answer.cache
    assert echo.requests[0]["response_format"]["json_schema"]["name"] == "Place"


def test_answer_without_a_class_is_not_parsed() -> None:
    assert rejoinder.completion("echo/m", MESSAGES, client=rejoinder.Echo("{}")).parsed is None


def test_refusal_is_not_parsed() -> None:
    echo = rejoinder.Echo([{"content": None, "refusal": "No."}])
    assert rejoinder.completion("echo/m", MESSAGES, client=echo, response_format=Place).parsed is None


def test_text_that_does_not_fit_says_why() -> None:
    answer = rejoinder.completion("echo/m", MESSAGES, client=rejoinder.Echo('{"city": "Paris"}'), response_format=Place)
    with pytest.raises(pydantic.ValidationError, match="country"):
        _ = answer.parsed
