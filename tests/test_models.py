"""What is known of models and providers is said, and what is not known is not made up."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rejoinder
from rejoinder.providers import table
from rejoinder.router import models
from rejoinder.router.cli import main

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _forget_what_is_registered() -> Iterator[None]:
    kept = models._registered
    yield
    models._registered = kept


# Models


def test_info_is_in_litellm_s_words() -> None:
    info = rejoinder.get_model_info("anthropic/claude-sonnet-4-5")
    assert info is not None
    known = {"key", "litellm_provider", "max_input_tokens", "max_output_tokens", "max_tokens", "input_cost_per_token"}
    assert known <= info.keys()
    assert (info["key"], info["max_input_tokens"], info["max_tokens"]) == (
        "anthropic/claude-sonnet-4-5",
        200_000,
        64_000,
    )
    assert info["input_cost_per_token"] == pytest.approx(3e-6)
    assert info["cache_read_input_token_cost"] == pytest.approx(3e-7)
    assert info["input_cost_per_token_batches"] == pytest.approx(1.5e-6)


def test_a_bare_name_is_its_vendor_s() -> None:
    assert rejoinder.get_model_info("gpt-4o") == rejoinder.get_model_info("openai/gpt-4o")
    assert rejoinder.get_model_info("gpt-4o", custom_llm_provider="openai") == rejoinder.get_model_info("gpt-4o")


@pytest.mark.parametrize("model", ["vllm/mine", "openai/no-such-model", "nobody", "nobody/knows", ""])
def test_of_an_unknown_model_nothing_is_said(model: str) -> None:
    assert rejoinder.get_model_info(model) is None
    assert rejoinder.supports_function_calling(model) is None
    with pytest.raises(rejoinder.UnknownModel, match="register_model"):
        rejoinder.get_max_tokens(model)


def test_a_server_of_one_s_own_has_no_price_but_the_model_s_features() -> None:
    info = rejoinder.get_model_info("vllm/openai/gpt-oss-120b")
    assert info is not None
    assert info["input_cost_per_token"] is None
    assert info["supports_function_calling"] is True


@pytest.mark.parametrize(
    ("model", "most"),
    [("gpt-4o", 16_384), ("o3", 100_000), ("gpt-5-mini", 128_000), ("claude-3-5-haiku-20241022", 8_192)],
)
def test_most_tokens_of_an_answer(model: str, most: int) -> None:
    assert rejoinder.get_max_tokens(model) == most


FEATURES = ("function_calling", "parallel_function_calling", "vision", "response_schema", "reasoning", "prompt_caching")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-4o", (True, True, True, True, False, True)),
        ("gpt-4-0613", (True, True, False, False, False, None)),
        ("openai/o3-mini", (True, False, False, True, True, True)),
        ("claude-3-5-sonnet-20241022", (True, True, True, False, False, True)),
        ("claude-opus-4-20250514", (True, True, True, False, True, True)),
        ("openrouter/anthropic/claude-sonnet-4.5", (True, True, True, True, True, True)),
        ("gemini/gemini-2.5-pro", (True, True, True, True, True, True)),
        ("xai/grok-4", (True, True, None, True, None, True)),
        ("vllm/mine", (None,) * 6),
    ],
)
def test_features(model: str, expected: tuple[bool | None, ...]) -> None:
    assert tuple(getattr(rejoinder, f"supports_{feature}")(model) for feature in FEATURES) == expected


def test_a_parameter_that_a_provider_refuses_is_a_feature_it_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = table.Provider("groq", "https://x.example", refused=frozenset({"tools"}))
    monkeypatch.setitem(table.PROVIDERS, "groq", refusing)
    assert rejoinder.supports_function_calling("groq/openai/gpt-oss-120b") is False


# Registered by the caller


def test_what_is_registered_counts_first_and_is_forgotten_again() -> None:
    rejoinder.register_model({"vllm/mine": {"max_input_tokens": 4_096, "supports_vision": True}})
    assert rejoinder.supports_vision("hosted_vllm/mine") is True
    assert rejoinder.supports_reasoning("vllm/mine") is None
    rejoinder.register_model({"vllm/mine": {"max_output_tokens": 100}})
    assert rejoinder.get_max_tokens("vllm/mine") == 100
    info = rejoinder.get_model_info("vllm/mine")
    assert info is not None
    assert info["max_input_tokens"] == 4_096
    assert "vllm/mine" in rejoinder.model_list("vllm")
    rejoinder.register_model({"vllm/mine": None})
    assert rejoinder.get_model_info("vllm/mine") is None


def test_litellm_s_provider_field_places_a_model() -> None:
    rejoinder.register_model({"mine": {"litellm_provider": "vllm", "max_tokens": 7}})
    assert rejoinder.get_max_tokens("vllm/mine") == 7


def test_a_known_model_can_be_corrected() -> None:
    rejoinder.register_model({"gpt-4o": {"supports_vision": False, "max_output_tokens": 5}})
    assert rejoinder.supports_vision("openai/gpt-4o") is False
    assert rejoinder.get_max_tokens("gpt-4o") == 5
    assert rejoinder.supports_function_calling("gpt-4o") is True


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"input_cost_per_tokens": 1}, "Did you mean 'input_cost_per_token'?"),
        ({"input_cost_per_token": "1"}, "input_cost_per_token='1' is no number"),
        ({"input_cost_per_token": -1}, "is no number"),
        ({"supports_vision": "yes"}, "is no True or False"),
    ],
)
def test_a_wrong_field_is_an_error_and_changes_nothing(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(rejoinder.ConfigurationError, match=said.replace("?", r"\?")):
        rejoinder.register_model({"vllm/one": {"max_tokens": 1}, "vllm/two": fields})
    assert rejoinder.get_model_info("vllm/one") is None


# Lists


def test_models_of_one_provider_and_of_all() -> None:
    of_one, of_all = rejoinder.model_list("anthropic"), rejoinder.model_list()
    assert "anthropic/claude-sonnet-4-5" in of_one
    assert set(of_one) < set(of_all)
    assert of_all == sorted(of_all)
    assert {name.partition("/")[0] for name in of_one} == {"anthropic"}
    assert rejoinder.model_list("vllm") == []


def test_models_of_nobody_are_an_error() -> None:
    with pytest.raises(rejoinder.UnknownProvider, match="Did you mean 'anthropic'"):
        rejoinder.model_list("antropic")


def test_each_price_list_that_a_provider_is_priced_by_exists() -> None:
    from genai_prices import data_snapshot

    assert set(models.PRICED_AS.values()) <= {row.id for row in data_snapshot.get_snapshot().providers}


@pytest.mark.parametrize(
    "name", ["openai_compatible", "vllm", "ollama", "lm_studio", "llamacpp", "litellm_proxy", "github"]
)
def test_who_has_no_price_list_is_not_priced_by_another_s(name: str) -> None:
    assert name not in models.PRICED_AS


# The environment


@pytest.mark.parametrize(
    ("model", "variables", "params", "missing"),
    [
        ("anthropic/claude-x", {}, {}, ["ANTHROPIC_API_KEY"]),
        ("anthropic/claude-x", {"ANTHROPIC_AUTH_TOKEN": "t"}, {}, []),
        ("anthropic/claude-x", {}, {"api_key": "k"}, []),
        ("vllm/x", {}, {}, []),
        ("databricks/x", {}, {}, ["DATABRICKS_API_KEY", "DATABRICKS_API_BASE"]),
        ("databricks/x", {"DATABRICKS_TOKEN": "t"}, {"api_base": "https://x"}, []),
    ],
)
def test_environment(
    monkeypatch: pytest.MonkeyPatch, model: str, variables: dict[str, str], params: Any, missing: list[str]
) -> None:
    for row in table.ROWS:
        for name in (*row.key_env, *row.base_env):
            monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    expected = {"keys_in_environment": not missing, "missing_keys": missing}
    assert rejoinder.validate_environment(model, **params) == expected


# Providers


def test_providers_can_be_called_and_imported_from() -> None:
    import rejoinder.providers.table as imported

    assert rejoinder.providers.table is imported
    rows = {row.name: row for row in rejoinder.providers()}
    assert rows.keys() == table.PROVIDERS.keys()
    assert rows["anthropic"].prompt_cache == "marks"
    assert rows["anthropic"].endpoints == ("chat", "count_tokens")
    assert "rerank" not in rows["openai"].endpoints
    assert {"chat", "embedding"} <= set(rows["openai"].endpoints)
    assert rows["vllm"].other_names == ("hosted_vllm",)
    assert all(row.endpoints for row in rows.values())


def test_providers_are_there_before_anything_else_is_loaded() -> None:
    program = "import rejoinder; print(len(rejoinder.providers()))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.returncode, run.stdout.strip()) == (0, str(len(table.ROWS))), run.stderr


def test_listing_loads_no_sdk() -> None:
    program = """
import sys, rejoinder
rejoinder.providers(), rejoinder.get_model_info("gpt-4o"), rejoinder.cost_per_token("gpt-4o")
rejoinder.token_counter("claude-x", text="Hi"), rejoinder.usage_line({"prompt_tokens": 1})
print(sorted({"openai", "anthropic", "redis"} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.returncode, run.stdout.strip()) == (0, "[]"), run.stderr


def test_command_lists_providers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["providers"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("PROVIDER")
    assert [line.split()[0] for line in lines] == sorted(table.PROVIDERS)


def test_command_lists_models_of_a_provider(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "anthropic"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(rejoinder.model_list("anthropic")) + 1
    (line,) = [line for line in lines if line.startswith("anthropic/claude-sonnet-4-5 ")]
    assert "200,000" in line
    assert "function_calling" in line


def test_command_says_that_there_is_no_such_provider(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "antropic"]) == 1
    assert "Did you mean 'anthropic'?" in capsys.readouterr().err


def test_page_of_providers_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("providers_page", ROOT / "scripts/providers_page.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    written = (ROOT / "docs/providers.md").read_text(encoding="utf-8")
    assert written == script.page(), "run: python scripts/providers_page.py"
