"""Each kind of token costs what the price list says, worked out here by hand from its own entries."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from genai_prices import data_snapshot

import rejoinder
from rejoinder.router import models

Json = dict[str, Any]

SONNET = "anthropic/claude-sonnet-4-5"


@pytest.fixture(autouse=True)
def _forget_what_is_registered() -> Iterator[None]:
    kept = models._registered
    yield
    models._registered = kept


def price(provider: str, model: str, key: str, **context: str) -> float:
    """Dollars a token in the list, without surcharges for long prompts."""
    _, found = data_snapshot.get_snapshot().find_provider_model(model, None, provider, None)
    value = getattr(found.get_prices(datetime.now(UTC), context), key)
    return float(getattr(value, "base", value)) / 1e6


def answer(model: str, prompt: int, written: int, *, asked: Any = None, said: Any = None, **own: Any) -> Any:
    """An answer with this usage."""
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": own.pop("total", prompt + written),
        "prompt_tokens_details": asked,
        "completion_tokens_details": said,
        **own.pop("usage", {}),
    }
    message = {"role": "assistant", "content": "x"}
    return rejoinder.Completion.model_validate(
        {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": usage,
            **own,
        }
    )


# What an answer costs


@pytest.mark.parametrize("form", [lambda it: it, lambda it: it.model_dump()])
def test_plain_tokens(form: Any) -> None:
    cost = rejoinder.completion_cost(form(answer("gpt-4o-2024-08-06", 1_000, 100)))
    assert cost == pytest.approx(
        1_000 * price("openai", "gpt-4o", "input_mtok") + 100 * price("openai", "gpt-4o", "output_mtok")
    )


def test_tokens_of_the_prompt_cache_have_their_own_prices() -> None:
    lifetimes = {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 50}
    own = {"cache_creation_input_tokens": 80, "cache_read_input_tokens": 400, "cache_creation": lifetimes}
    details = {"cached_tokens": 400, "cache_write_tokens": 80}
    cost = rejoinder.completion_cost(answer("claude-sonnet-4-5", 500, 10, asked=details, usage=own), model=SONNET)
    expected = {"input_mtok": 20, "cache_read_mtok": 400, "cache_write_mtok": 30, "cache_write_1h_mtok": 50}
    assert cost == pytest.approx(
        sum(
            count * price("anthropic", "claude-sonnet-4-5", key)
            for key, count in {**expected, "output_mtok": 10}.items()
        )
    )
    assert price("anthropic", "claude-sonnet-4-5", "cache_write_1h_mtok") != price(
        "anthropic", "claude-sonnet-4-5", "cache_write_mtok"
    )


def test_thinking_that_completion_tokens_leave_out_is_paid() -> None:
    # As xAI answers: its total counts the 300 reasoning tokens, its completion_tokens do not.
    given = answer("grok-4", 100, 20, said={"reasoning_tokens": 300}, total=420)
    written = 320 * price("x-ai", "grok-4", "output_mtok")
    assert rejoinder.completion_cost(given, model="xai/grok-4") == pytest.approx(
        100 * price("x-ai", "grok-4", "input_mtok") + written
    )


def test_thinking_that_completion_tokens_count_is_paid_once() -> None:
    given = answer("gpt-5", 100, 320, said={"reasoning_tokens": 300})
    assert rejoinder.completion_cost(given) == rejoinder.completion_cost(answer("gpt-5", 100, 320))


@pytest.mark.parametrize(
    ("given", "params"),
    [
        (answer("gpt-4o", 1_000, 100), {"batch": True}),
        (answer("claude-sonnet-4-5", 1_000, 100, usage={"service_tier": "batch"}), {}),
    ],
)
def test_batch_tokens_have_their_own_prices(given: Any, params: Json) -> None:
    place = "openai" if given.model == "gpt-4o" else "anthropic"
    cost = sum(
        count * price(place, given.model, key, processing="batch")
        for key, count in {"input_mtok": 1_000, "output_mtok": 100}.items()
    )
    assert rejoinder.completion_cost(given, **params) == pytest.approx(cost)
    assert rejoinder.completion_cost(given, batch=False) == pytest.approx(2 * cost)


def test_a_service_tier_has_its_own_prices() -> None:
    given = answer("gpt-4o", 1_000, 0, service_tier="priority")
    expected = 1_000 * price("openai", "gpt-4o", "input_mtok", service_tier="priority")
    assert rejoinder.completion_cost(given) == pytest.approx(expected)
    assert expected > 1_000 * price("openai", "gpt-4o", "input_mtok")


def test_audio_has_its_own_prices() -> None:
    given = answer("gpt-audio", 100, 50, asked={"audio_tokens": 60}, said={"audio_tokens": 40})
    counts = {"input_mtok": 40, "input_audio_mtok": 60, "output_mtok": 10, "output_audio_mtok": 40}
    expected = sum(count * price("openai", "gpt-audio", key) for key, count in counts.items())
    assert rejoinder.completion_cost(given, model="openai/gpt-audio") == pytest.approx(expected)


def test_searches_of_the_vendor_are_paid() -> None:
    given = answer("claude-sonnet-4-5", 10, 10, usage={"server_tool_use": {"web_search_requests": 3}})
    plain = rejoinder.completion_cost(answer("claude-sonnet-4-5", 10, 10))
    assert plain is not None
    assert rejoinder.completion_cost(given) == pytest.approx(
        plain + 3 * price("anthropic", "claude-sonnet-4-5", "web_searches_kcount") * 1_000
    )


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        ({"cost": 0.0125, "is_byok": False}, 0.0125),
        ({"cost": 0.01, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.2}}, 0.21),
        ({"cost": {"total_cost": 0.00619, "request_cost": 0.006}}, 0.00619),
    ],
)
def test_a_cost_that_the_vendor_states_counts(usage: Json, cost: float) -> None:
    assert rejoinder.completion_cost(answer("any/model", 10, 10, usage=usage)) == pytest.approx(cost)


def test_a_number_that_may_be_something_else_is_no_cost() -> None:
    assert rejoinder.completion_cost(answer("any/model", 10, 10, usage={"cost": 7})) is None


@pytest.mark.parametrize(
    "model", ["vllm/gpt-4o", "openai_compatible/gpt-4o", "ollama/llama3", "openai/no-such-model", "what"]
)
def test_where_no_price_is_known_there_is_no_cost(model: str) -> None:
    assert rejoinder.completion_cost(answer("gpt-4o", 10, 10), model=model) is None


def test_without_a_usage_there_is_no_cost() -> None:
    given = answer("gpt-4o", 1, 1)
    given.usage = None
    assert rejoinder.completion_cost(given) is None


@pytest.mark.parametrize(
    "details",
    [
        {"asked": {"cached_tokens": 5_000}},
        {"asked": {"cached_tokens": 60, "audio_tokens": 60}},
        {"said": {"reasoning_tokens": 900}},
        {"said": {"audio_tokens": 900}},
        {"asked": {"audio_tokens": 900, "cached_tokens": 90}},
        {"usage": {"cache_creation_input_tokens": 3, "cache_creation": {"ephemeral_1h_input_tokens": 99}}},
    ],
)
@pytest.mark.parametrize("model", ["gpt-4o", "openai/gpt-audio", "gemini/gemini-2.5-flash", SONNET])
def test_counts_that_contradict_each_other_have_a_cost_all_the_same(model: str, details: Json) -> None:
    cost = rejoinder.completion_cost(answer("gpt-4o", 100, 50, **details), model=model)
    assert cost is not None
    assert 0 < cost < 1


def test_an_embedding_costs_its_input() -> None:
    given = {"model": "text-embedding-3-small", "usage": {"prompt_tokens": 1_000, "total_tokens": 1_000}}
    expected = 1_000 * price("openai", "text-embedding-3-small", "input_mtok")
    assert rejoinder.completion_cost(given) == pytest.approx(expected)


def test_a_transcription_costs_its_time() -> None:
    given = {"text": "Hello.", "usage": {"type": "duration", "seconds": 90}}
    assert rejoinder.completion_cost(given, model="openai/whisper-1") == pytest.approx(1.5 * 0.006)


def test_a_cached_answer_costs_what_it_did_cost() -> None:
    echo, cache = rejoinder.Echo(["Once."]), rejoinder.Cache()
    rejoinder.register_model({"echo/x": {"input_cost_per_token": 0.5, "output_cost_per_token": 1}})
    question = [{"role": "user", "content": "Hi"}]
    first, second = (rejoinder.completion("echo/x", question, client=echo, cache=cache) for _ in range(2))
    assert second.cache
    assert rejoinder.completion_cost(first, model="echo/x") == rejoinder.completion_cost(second, model="echo/x") != 0


# In litellm's words


def test_litellm_s_names_work() -> None:
    given = answer("gpt-4o", 1_000, 100)
    assert rejoinder.completion_cost(completion_response=given) == rejoinder.completion_cost(given)
    assert rejoinder.completion_cost(given, model="gpt-4o", custom_llm_provider="openai") == rejoinder.completion_cost(
        given
    )


def test_texts_are_counted() -> None:
    cost = rejoinder.completion_cost(model=SONNET, prompt="one two three", completion="four")
    counts = [rejoinder.token_counter(SONNET, text=text) for text in ("one two three", "four")]
    assert cost == pytest.approx(sum(rejoinder.cost_per_token(SONNET, *counts)))
    assert rejoinder.completion_cost("four", model="vllm/x") is None
    with pytest.raises(TypeError, match="model="):
        rejoinder.completion_cost("four")


# Tokens alone


def test_prompt_and_answer_are_priced_apart() -> None:
    rates = price("openai", "gpt-4o", "input_mtok"), price("openai", "gpt-4o", "output_mtok")
    assert rejoinder.cost_per_token("gpt-4o", 1_000, 10) == pytest.approx((1_000 * rates[0], 10 * rates[1]))
    cached = rejoinder.cost_per_token("gpt-4o", 1_000, 10, cache_read_input_tokens=1_000)
    assert cached[0] == pytest.approx(1_000 * price("openai", "gpt-4o", "cache_read_mtok"))
    batch = rejoinder.cost_per_token("gpt-4o", 1_000, 10, batch=True)
    assert batch == pytest.approx((500 * rates[0], 5 * rates[1]))


def test_written_for_an_hour_costs_more_than_for_five_minutes() -> None:
    short = rejoinder.cost_per_token(SONNET, 1_000, cache_creation_input_tokens=1_000)[0]
    long = rejoinder.cost_per_token(SONNET, 1_000, cache_creation_1h_input_tokens=1_000)[0]
    plain = rejoinder.cost_per_token(SONNET, 1_000)[0]
    assert (short / plain, long / plain) == pytest.approx((1.25, 2.0))


def test_long_prompts_cost_more_where_the_list_says_so() -> None:
    short, long = (rejoinder.cost_per_token("gemini/gemini-2.5-pro", tokens)[0] for tokens in (200_000, 200_001))
    assert long > 1.5 * short


def test_tokens_of_an_unknown_model_are_an_error() -> None:
    with pytest.raises(rejoinder.UnknownModel, match=r"'vllm/mine'.*register_model"):
        rejoinder.cost_per_token("vllm/mine", 1, 1)


# Prices of one's own


def test_registered_prices_count_before_the_list_s() -> None:
    rejoinder.register_model({"openai/gpt-4o": {"output_cost_per_token": 1.0}})
    prompt, written = rejoinder.cost_per_token("gpt-4o", 10, 2)
    assert written == 2.0
    assert prompt == pytest.approx(10 * price("openai", "gpt-4o", "input_mtok"))


def test_registered_prices_of_each_kind_of_token() -> None:
    rejoinder.register_model(
        {
            "vllm/mine": {
                "input_cost_per_token": 1,
                "output_cost_per_token": 10,
                "cache_read_input_token_cost": 100,
                "cache_creation_input_token_cost": 1_000,
                "cache_creation_input_token_cost_above_1hr": 10_000,
                "output_cost_per_reasoning_token": 100_000,
                "input_cost_per_token_batches": 0.5,
            }
        }
    )
    own = {"cache_creation_input_tokens": 5, "cache_creation": {"ephemeral_1h_input_tokens": 2}}
    given = answer("mine", 10, 7, asked={"cached_tokens": 1}, said={"reasoning_tokens": 3}, usage=own)
    assert rejoinder.completion_cost(given, model="vllm/mine") == 4 + 40 + 100 + 3_000 + 20_000 + 300_000
    assert rejoinder.completion_cost(given, model="vllm/mine", batch=True) == 2 + 40 + 100 + 3_000 + 20_000 + 300_000


def test_a_registered_price_counts_before_a_stated_cost() -> None:
    rejoinder.register_model({"openrouter/a/b": {"input_cost_per_token": 1, "output_cost_per_token": 1}})
    given = answer("a/b", 3, 4, usage={"cost": 0.1, "is_byok": False})
    assert rejoinder.completion_cost(given, model="openrouter/a/b") == 7
