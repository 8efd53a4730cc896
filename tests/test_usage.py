"""Counts are found under each vendor's names, and are said in Inspect's form."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types import CompletionUsage

import rejoinder
from rejoinder.router.usage import tokens_of, usage_line


def usage(prompt: int, completion: int, total: int, asked: Any = None, said: Any = None, **own: Any) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": total,
        "prompt_tokens_details": asked,
        "completion_tokens_details": said,
        **own,
    }


GOLDEN = [
    (
        usage(13_175, 509, 13_684, {"cached_tokens": 11_442, "cache_write_tokens": 1_711}),
        "13,684 tokens [I: 22, CW: 1,711, CR: 11,442, O: 509]",
    ),
    (usage(10, 5, 15), "15 tokens [I: 10, O: 5]"),
    (usage(10, 5, 15, {"cached_tokens": 0}), "15 tokens [I: 10, CW: 0, CR: 0, O: 5]"),
    (usage(10, 50, 60, None, {"reasoning_tokens": 40}), "60 tokens [I: 10, O: 50, R: 40]"),
    (
        usage(13, 50, 60, {"cached_tokens": 3}, {"reasoning_tokens": 0}),
        "60 tokens [I: 10, CW: 0, CR: 3, O: 50, R: 0]",
    ),
]


@pytest.mark.parametrize(("given", "line"), GOLDEN)
@pytest.mark.parametrize("kind", [dict, CompletionUsage.model_validate, rejoinder.Usage.model_validate])
def test_line_is_inspect_s(given: dict[str, Any], line: str, kind: Any) -> None:
    assert usage_line(kind(given)) == line


def test_line_of_anthropic_s_own_counts() -> None:
    own = {"cache_creation_input_tokens": 1_711, "cache_read_input_tokens": 11_442}
    assert usage_line(usage(13_175, 509, 13_684, **own)) == GOLDEN[0][1]


def test_line_of_an_embedding_has_no_output() -> None:
    assert usage_line({"prompt_tokens": 1_000, "total_tokens": 1_000}) == "1,000 tokens [I: 1,000, O: 0]"


def test_thinking_that_only_the_total_counts_is_output() -> None:
    # As xAI answers: 32 + 9 + 110 = 151.
    tokens = tokens_of(usage(32, 9, 151, None, {"reasoning_tokens": 110}))
    assert (tokens.output, tokens.reasoning) == (119, 110)


def test_thinking_that_is_counted_already_is_not_counted_twice() -> None:
    assert tokens_of(usage(32, 119, 151, None, {"reasoning_tokens": 110})).output == 119


def test_both_lifetimes_of_written_tokens_are_told_apart() -> None:
    lifetimes = {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 300}
    tokens = tokens_of(usage(500, 1, 501, cache_creation_input_tokens=400, cache_creation=lifetimes))
    assert (tokens.cache_write, tokens.cache_write_1h, tokens.uncached) == (400, 300, 100)


def test_counts_of_the_responses_api() -> None:
    tokens = tokens_of(
        {
            "input_tokens": 90,
            "output_tokens": 20,
            "total_tokens": 110,
            "input_tokens_details": {"cached_tokens": 64},
            "output_tokens_details": {"reasoning_tokens": 15},
        }
    )
    assert tokens == (90, 20, 110, 64, None, 0, 15, 0, 0)


def test_a_prompt_smaller_than_what_was_cached_of_it_does_not_count_that() -> None:
    # As Grok answers at Azure.
    given = usage(377, 69, 446, {"cached_tokens": 515}, {"reasoning_tokens": 0})
    assert usage_line(given) == "446 tokens [I: 377, CW: 0, CR: 515, O: 69, R: 0]"
    assert tokens_of(given).input == 892


def test_counts_that_are_none_are_zero() -> None:
    nothing = {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}
    assert usage_line(nothing) == "0 tokens [I: 0, O: 0]"
