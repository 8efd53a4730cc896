"""What is known of models: prices and windows from a kept list, features by family, and what the caller registers.

Prices and context windows are those of the genai-prices package, which comes with its data: nothing is fetched. It says
nothing of features or of how much a model writes; that is in `families.py`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ..core.errors import ConfigurationError, UnknownModel, UnknownProvider, WrongType, suggestion
from ..providers import table
from .families import LETTERS, Family, family_of

PRICED_AS = {
    "anthropic": "anthropic",
    "avian": "avian",
    "azure": "azure",
    "azure_ai": "azure",
    "baseten": "baseten",
    "bedrock": "aws",
    "bedrock_invoke": "aws",
    "cerebras": "cerebras",
    "cloudflare": "cloudflare",
    "cohere": "cohere",
    "cohere_v1": "cohere",
    "databricks": "databricks",
    "deepseek": "deepseek",
    "fireworks_ai": "fireworks",
    "gemini": "google",
    "groq": "groq",
    "minimax": "minimax",
    "mistral": "mistral",
    "moonshot": "moonshotai",
    "novita": "novita",
    "openai": "openai",
    "openrouter": "openrouter",
    "perplexity": "perplexity",
    "together_ai": "together",
    "vertex_ai": "google",
    "vertex_anthropic": "google",
    "voyage": "voyageai",
    "xai": "x-ai",
    "zai": "zai",
}
"""Our providers under genai-prices' names. One that is not here has no price: a server of the caller's own is free, and
what others charge for the same model says nothing of what this one does."""

PRICE_KEYS = {
    "input_cost_per_token": "input_mtok",
    "output_cost_per_token": "output_mtok",
    "cache_read_input_token_cost": "cache_read_mtok",
    "cache_creation_input_token_cost": "cache_write_mtok",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h_mtok",
    "output_cost_per_reasoning_token": "output_reasoning_mtok",
    "input_cost_per_audio_token": "input_audio_mtok",
    "output_cost_per_audio_token": "output_audio_mtok",
}
"""Prices in litellm's words (dollars a token), and in genai-prices' (dollars a million)."""

BATCH_KEYS = {"input_cost_per_token_batches": "input_mtok", "output_cost_per_token_batches": "output_mtok"}
LIMITS = ("max_tokens", "max_input_tokens", "max_output_tokens")
FEATURES = (
    "supports_function_calling",
    "supports_parallel_function_calling",
    "supports_prompt_caching",
    "supports_reasoning",
    "supports_response_schema",
    "supports_vision",
)
MAY_BE_REGISTERED = frozenset({*PRICE_KEYS, *BATCH_KEYS, *LIMITS, *FEATURES, "litellm_provider", "mode"})


_registered: dict[str, dict[str, Any]] = {}


class Listed(NamedTuple):
    """A model of the price list."""

    provider: Any
    model: Any


def listed(model: str, provider: str | None = None) -> Listed | None:
    """The price list's entry of "provider/model", or of a name alone; None if it has none."""
    from genai_prices import data_snapshot

    place, name = _place_and_name(model, provider)
    if place is not None and place not in PRICED_AS:
        return None
    try:
        found = data_snapshot.get_snapshot().find_provider_model(name, None, place and PRICED_AS[place], None)
    except LookupError:
        return None
    return Listed(*found)


def _place_and_name(model: str, provider: str | None = None) -> tuple[str | None, str]:
    """Our name of the provider, if the text says which, and the vendor's of the model."""
    if provider:
        provider = table.OTHER_NAMES.get(provider, provider)
        return provider, model.removeprefix(f"{provider}/")
    try:
        row, name = table.resolve(model)
    except UnknownProvider:
        return None, model
    return row.name, name


def registered(model: str, provider: str | None = None) -> dict[str, Any]:
    """What the caller has registered for this model."""
    if not _registered:
        return {}
    place, name = _place_and_name(model, provider)
    for known in (f"{place}/{name}", model, name):
        if known in _registered:
            return _registered[known]
    return {}


def price_of(model: str, provider: str | None = None, context: Mapping[str, str] | None = None) -> Any:
    """What a model costs, as a genai-prices `ModelPrice`; None where no price is known.

    `context` chooses among prices: {"processing": "batch"}, {"service_tier": "flex"}.
    """
    found = listed(model, provider)
    prices = {}
    if found is not None:
        prices = dict(vars(found.model.get_prices(datetime.now(UTC), context or None)))
    prices.update(_own_prices(registered(model, provider), "processing" in (context or {})))
    if not any(price is not None for price in prices.values()):
        return None
    from genai_prices.types import ModelPrice

    return ModelPrice(**prices)


def _own_prices(own: Mapping[str, Any], batch: bool) -> dict[str, Any]:
    from decimal import Decimal

    keys = [*PRICE_KEYS.items(), *(BATCH_KEYS.items() if batch else ())]
    return {theirs: Decimal(str(own[ours])) * 1_000_000 for ours, theirs in keys if own.get(ours) is not None}


def get_model_info(model: str, custom_llm_provider: str | None = None) -> dict[str, Any] | None:
    """What is known of a model, in litellm's words; None where nothing is.

    Costs are dollars a token, at today's list price, without surcharges for long prompts. A field is None where it is
    not known. `max_tokens` is what an answer may have, as `max_output_tokens`.
    """
    place, name = _place_and_name(model, custom_llm_provider)
    found, family, own = listed(model, custom_llm_provider), family_of(name), registered(model, custom_llm_provider)
    if found is None and family is None and not own:
        return None
    info: dict[str, Any] = {
        "key": f"{place}/{name}" if place else name,
        "litellm_provider": place,
        "mode": None,
        "max_input_tokens": (found.model.context_window if found else None) or (family.window if family else None),
        "max_output_tokens": family.output if family else None,
        **_costs(model, custom_llm_provider),
        **_features(found, family),
    }
    info.update(own)
    if info.get("max_tokens") is None:
        info["max_tokens"] = info["max_output_tokens"]
    return info


def _costs(model: str, provider: str | None) -> dict[str, float | None]:
    standard = price_of(model, provider)
    batch = price_of(model, provider, {"processing": "batch"})
    costs = {ours: _dollars(standard, theirs) for ours, theirs in PRICE_KEYS.items()}
    for ours, theirs in BATCH_KEYS.items():
        cost = _dollars(batch, theirs)
        costs[ours] = cost if cost != _dollars(standard, theirs) else None
    return costs


def _dollars(price: Any, key: str) -> float | None:
    """A price for a million as one for a token."""
    value = vars(price).get(key) if price is not None else None
    if value is None:
        return None
    return float(getattr(value, "base", value) / 1_000_000)


def _features(found: Listed | None, family: Family | None) -> dict[str, bool | None]:
    known: dict[str, bool | None] = dict.fromkeys(FEATURES)
    if family is not None:
        otherwise = None if "?" in family.features else False
        known.update({feature: letter in family.features or otherwise for letter, feature in LETTERS.items()})
    if found is not None and any("cache_read" in key for key in vars(found.model.get_prices(datetime.now(UTC)))):
        known["supports_prompt_caching"] = True  # reading from it has a price of its own
    return known


def get_max_tokens(model: str) -> int:
    """How many tokens an answer of this model may have. Raises `UnknownModel`."""
    most = (get_model_info(model) or {}).get("max_tokens")
    if most is None:
        raise unknown(model, "limits", "max_output_tokens")
    return int(most)


def context_window(model: str) -> int | None:
    """How many tokens a prompt may have; None if that is not known."""
    info = get_model_info(model) or {}
    most = info.get("max_input_tokens")
    return None if most is None else int(most)


def unknown(model: str, what: str, example: str) -> UnknownModel:
    """An `UnknownModel` that says how to make it known."""
    return UnknownModel(
        f"No {what} are known for the model {model!r}. Check its name, or say them: "
        f"rejoinder.register_model({{{model!r}: {{{example!r}: …}}}})."
    )


def supports_function_calling(model: str, custom_llm_provider: str | None = None) -> bool | None:
    """Whether it calls functions; None if that is not known."""
    return _supports("supports_function_calling", model, custom_llm_provider, "tools")


def supports_parallel_function_calling(model: str, custom_llm_provider: str | None = None) -> bool | None:
    """Whether it calls several functions in one answer; None if that is not known."""
    return _supports("supports_parallel_function_calling", model, custom_llm_provider, "parallel_tool_calls")


def supports_vision(model: str, custom_llm_provider: str | None = None) -> bool | None:
    """Whether it looks at images; None if that is not known."""
    return _supports("supports_vision", model, custom_llm_provider)


def supports_response_schema(model: str, custom_llm_provider: str | None = None) -> bool | None:
    """Whether it keeps to a JSON schema given as `response_format`; None if that is not known."""
    return _supports("supports_response_schema", model, custom_llm_provider, "response_format")


def supports_reasoning(model: str, custom_llm_provider: str | None = None) -> bool | None:
    """Whether it thinks before it answers, or can be asked to; None if that is not known."""
    return _supports("supports_reasoning", model, custom_llm_provider)


def supports_prompt_caching(model: str, custom_llm_provider: str | None = None) -> bool | None:
    """Whether tokens that its vendor has seen lately cost less; None if that is not known."""
    return _supports("supports_prompt_caching", model, custom_llm_provider)


def _supports(feature: str, model: str, provider: str | None, parameter: str = "") -> bool | None:
    place, _ = _place_and_name(model, provider)
    row = table.PROVIDERS.get(place or "")
    if row is not None and parameter in row.refused:
        return False
    known: bool | None = (get_model_info(model, provider) or {}).get(feature)
    return known


def register_model(models: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Say what you know of models: it counts before what is known here, field by field.

    >>> register_model({"vllm/my-model": {"input_cost_per_token": 1e-7, "max_input_tokens": 32_768}})
    >>> register_model({"vllm/my-model": None})  # forget it

    Names and fields are litellm's, those of `get_model_info`. For all calls of this process. Raises
    `ConfigurationError` for a field that nothing here reads.
    """
    global _registered
    new = copy.deepcopy(_registered)  # a reader in another thread sees all of this call, or nothing
    for model, fields in models.items():
        place, name = _place_and_name(model, (fields or {}).get("litellm_provider"))
        key = f"{place}/{name}" if place else name
        if fields is None:
            new.pop(key, None)
        else:
            _check(model, fields)
            new[key] = {**new.get(key, {}), **fields}
    _registered = new


def _check(model: str, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if name not in MAY_BE_REGISTERED:
            raise ConfigurationError(
                f"register_model: {model!r}: no field {name!r}.{suggestion(name, MAY_BE_REGISTERED)}"
            )
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if name in FEATURES:
            fits = isinstance(value, bool)
        elif name in ("litellm_provider", "mode"):
            fits = isinstance(value, str)
        else:
            fits = is_number and value >= 0
        if value is not None and not fits:
            raise WrongType(f"register_model: {model!r}: {name}={value!r} is no {_kind(name)}.")


def _kind(name: str) -> str:
    return "True or False" if name in FEATURES else "text" if name in ("litellm_provider", "mode") else "number"


def model_list(provider: str | None = None) -> list[str]:
    """Names of models that the price list knows, or the caller has registered, as "provider/model", sorted.

    Of one provider, or of all. A provider may serve more than these, and may have stopped serving some.
    """
    from genai_prices import data_snapshot

    if provider is not None and table.OTHER_NAMES.get(provider, provider) not in table.PROVIDERS:
        raise UnknownProvider(f"No provider named {provider!r}.{suggestion(provider, table.PROVIDERS)}")
    asked = table.PROVIDERS if provider is None else (table.OTHER_NAMES.get(provider, provider),)
    by_name = {row.id: row for row in data_snapshot.get_snapshot().providers}
    names = {
        f"{ours}/{model.id}"
        for ours in asked
        if ours in PRICED_AS and PRICED_AS[ours] in by_name
        for model in by_name[PRICED_AS[ours]].models
    }
    names.update(name for name in _registered if provider is None or name.partition("/")[0] in asked)
    return sorted(names)


def validate_environment(
    model: str | None = None, api_key: str | None = None, api_base: str | None = None
) -> dict[str, Any]:
    """Whether a call of this model would find what it needs in the environment, and which variables are missing.

    `{"keys_in_environment": bool, "missing_keys": [name, …]}`. Of variables that can stand for each other the first is
    named. Raises `UnknownProvider`. Nothing is asked of the vendor: a key that is there may be wrong.
    """
    if model is None:
        return {"keys_in_environment": False, "missing_keys": []}
    row, _ = table.resolve(model)
    missing: list[str] = []
    if row.needs_key and not api_key and not _any_set(row.key_env):
        missing += row.key_env[:1]
    has_place = bool(row.base_url or api_base or getattr(row, "place", None))
    if not has_place and row.base_env and not _any_set(row.base_env):
        missing.append(row.base_env[0])
    return {"keys_in_environment": not missing, "missing_keys": missing}


def _any_set(names: tuple[str, ...]) -> bool:
    return any(os.environ.get(name) for name in names)
