"""What an answer costs, from a kept price list (the genai-prices package)."""

from __future__ import annotations

from typing import Any


def completion_cost(completion: Any, model: str | None = None) -> float | None:
    """US dollars for the tokens of `completion`, at today's list price; None where no price is known.

    `model` is "provider/model"; without it, the model that the answer names is looked up.
    """
    if completion.usage is None:
        return None
    from genai_prices import Usage, calc_price

    provider, _, name = (model or "").rpartition("/")
    usage = completion.usage
    details = usage.prompt_tokens_details
    read = getattr(details, "cached_tokens", None) or 0
    written = getattr(usage, "cache_creation_input_tokens", None) or getattr(details, "cache_write_tokens", None) or 0
    try:
        price = calc_price(
            Usage(
                input_tokens=usage.prompt_tokens,
                output_tokens=usage.completion_tokens,
                cache_read_tokens=read,
                cache_write_tokens=written,
            ),
            model_ref=name or completion.model,
            provider_id=provider or None,
        )
    except LookupError:
        return None
    return float(price.total_price)
