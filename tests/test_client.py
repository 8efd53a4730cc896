"""`Client`: AutoGen's configurations, seeds and usage summaries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rejoinder
from rejoinder.router.client import model_of

MESSAGES = [{"role": "user", "content": "Hello"}]


def made(echo: rejoinder.Echo, root: Path, **more: Any) -> rejoinder.Client:
    return rejoinder.Client(config_list=[{"model": "echo/m", "client": echo}], cache_path_root=root, **more)


def test_default_seed_is_41_and_lives_below_the_root(tmp_path: Path) -> None:
    echo = rejoinder.Echo()
    client = made(echo, tmp_path)
    client.create(MESSAGES)
    assert client.create(MESSAGES).cache
    assert made(echo, tmp_path, cache_seed=41).create(MESSAGES).cache
    assert echo.calls == 1
    assert any(tmp_path.iterdir())


def test_each_seed_has_its_own_answers(tmp_path: Path) -> None:
    echo = rejoinder.Echo(["one", "two"])
    first, second = made(echo, tmp_path, cache_seed=1), made(echo, tmp_path, cache_seed=2)
    assert [first.create(MESSAGES).choices[0].message.content, second.create(MESSAGES).choices[0].message.content] == [
        "one",
        "two",
    ]


def test_seed_none_switches_caching_off_but_not_for_a_cache_object(tmp_path: Path) -> None:
    echo, cache = rejoinder.Echo(), rejoinder.Cache.memory()
    client = made(echo, tmp_path, cache_seed=None)
    client.create(MESSAGES)
    assert not client.create(MESSAGES).cache
    client.create(MESSAGES, cache=cache)
    assert client.create(MESSAGES, cache=cache).cache


def test_seed_of_the_call_counts_before_the_clients(tmp_path: Path) -> None:
    echo = rejoinder.Echo()
    client = made(echo, tmp_path, cache_seed=1)
    client.create(MESSAGES)
    assert not client.create(MESSAGES, cache_seed=2).cache


def test_block_counts_before_seeds(tmp_path: Path) -> None:
    echo = rejoinder.Echo()
    client = made(echo, tmp_path)
    client.create(MESSAGES)
    with rejoinder.Cache.memory():
        assert not client.create(MESSAGES).cache
        assert client.create(MESSAGES).cache


def test_usage_is_summed_with_and_without_cached_answers(tmp_path: Path) -> None:
    echo = rejoinder.Echo()
    client = made(echo, tmp_path)
    client.create(MESSAGES)
    client.create(MESSAGES)
    assert client.total_usage_summary is not None
    assert client.actual_usage_summary is not None
    assert client.total_usage_summary["m"]["total_tokens"] == 2 * client.actual_usage_summary["m"]["total_tokens"] > 0
    again = made(echo, tmp_path)
    again.create(MESSAGES)
    assert again.actual_usage_summary is None
    assert "every answer came from the cache" in again.usage_summary("actual")


def test_cache_of_a_configuration_or_client_counts_before_seeds(tmp_path: Path) -> None:
    cache, other = rejoinder.Cache.memory(), rejoinder.Cache.memory()
    client = made(rejoinder.Echo(), tmp_path, cache=cache)
    assert [client.create(MESSAGES).cache for _ in range(2)] == [False, True]
    assert cache.stats()["hits"] == 1
    assert not client.create(MESSAGES, cache=other).cache
    with other:
        assert client.create(MESSAGES).cache
    with pytest.raises(rejoinder.WrongType, match="must be a Cache"):
        rejoinder.Client(config_list=[{"model": "echo/m", "cache": {"ttl": 3}}])
    with pytest.raises(rejoinder.WrongType, match="must be a Cache"):
        client.create(MESSAGES, cache={"ttl": 3})  # type: ignore[arg-type]
    assert not client.create(MESSAGES, cache=False).cache


def test_price_of_a_configuration_is_what_summaries_count() -> None:
    client = rejoinder.Client(config_list=[{"model": "echo/m", "price": [1.0, 2.0]}], cache_seed=None)
    usage = client.create(MESSAGES).usage
    assert client.total_usage_summary is not None
    assert client.total_usage_summary["total_cost"] == (usage.prompt_tokens + 2 * usage.completion_tokens) / 1000 > 0
    with pytest.raises(rejoinder.WrongType, match="dollars for 1,000 tokens"):
        rejoinder.Client(model="echo/m", price="cheap")


def test_context_fills_templates_where_that_is_allowed() -> None:
    client = rejoinder.Client(model="echo/m", cache_seed=None)

    def said(content: Any, **more: Any) -> str:
        answer = client.create([{"role": "user", "content": content}], context={"name": "Ada"}, **more)
        (text,) = client.extract_text_or_completion_object(answer)
        return str(text)

    assert said("Hi {name}", allow_format_str_template=True) == "Hi Ada"
    assert said("Hi {name}") == "Hi {name}"
    assert said(lambda context: f"Hello {context['name']}") == "Hello Ada"


def test_wrong_mode_of_a_summary_is_told_with_those_that_there_are() -> None:
    with pytest.raises(rejoinder.ConfigurationError, match="Did you mean 'both'"):
        rejoinder.Client(model="echo/m").print_usage_summary("bth")


def test_client_shows_models_and_no_key() -> None:
    client = rejoinder.Client(config_list=[{"model": "echo/m", "api_key": "sk-secret"}])
    assert repr(client) == "<Client echo/m cache_seed=41>"


async def test_next_configuration_answers_where_the_first_fails(tmp_path: Path) -> None:
    broken, works = rejoinder.Echo([{"status": 401}]), rejoinder.Echo(["fine"])
    client = rejoinder.Client(
        config_list=[{"model": "echo/a", "client": broken}, {"model": "echo/b", "client": works}], cache_seed=None
    )
    assert client.create(MESSAGES).choices[0].message.content == "fine"
    assert (await client.acreate(MESSAGES)).choices[0].message.content == "fine"


def test_filter_moves_on_to_the_next_configuration() -> None:
    configs = [
        {"model": "echo/a", "client": rejoinder.Echo(["no"])},
        {"model": "echo/b", "client": rejoinder.Echo(["yes"])},
    ]
    client = rejoinder.Client(config_list=configs, cache_seed=None)
    answer = client.create(MESSAGES, filter_func=lambda context, response: response.choices[0].message.content == "yes")
    assert answer.model == "b"


def test_last_error_is_raised_if_nobody_answers() -> None:
    client = rejoinder.Client(
        config_list=[{"model": "echo/a", "client": rejoinder.Echo([{"status": 401}])}], cache_seed=None
    )
    with pytest.raises(rejoinder.AuthenticationError):
        client.create(MESSAGES)


@pytest.mark.parametrize(
    ("config", "model"),
    [
        ({"model": "gpt-4o"}, "gpt-4o"),
        ({"model": "my-model", "base_url": "http://localhost"}, "openai/my-model"),
        ({"model": "claude-x", "api_type": "anthropic"}, "anthropic/claude-x"),
        ({"model": "gemini-2.5-pro", "api_type": "google"}, "gemini/gemini-2.5-pro"),
        ({"model": "groq/llama"}, "groq/llama"),
    ],
)
def test_model_of_a_configuration(config: dict[str, Any], model: str) -> None:
    assert model_of(config) == model
