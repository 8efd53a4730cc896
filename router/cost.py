"""What an answer costs, by a kept price list (the genai-prices package) and what the caller has registered.

Tokens read from the vendor's prompt cache, written to it (for five minutes, for an hour), spoken, thought and asked for
in a batch count at their own prices, where the list has one; else at that of the tokens that they are part of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .models import price_of, registered, unknown
from .usage import Tokens, field, tokens_of

TIERS = frozenset({"default", "flex", "priority", "fast"})
"""Service tiers with a price of their own. "batch" is said otherwise."""


def completion_cost(
    completion: Any = None,
    model: str | None = None,
    *,
    completion_response: Any = None,
    prompt: str = "",
    messages: Sequence[Any] | None = None,
    custom_llm_provider: str | None = None,
    batch: bool | None = None,
) -> float | None:
    """US dollars for the tokens of `completion`, at today's list price; None where no price is known.

    `model` is "provider/model"; without it, the model that the answer names is looked up, at its own vendor. `batch`:
    the answer came from a batch; None: if the vendor says so. An answer that names its own cost (OpenRouter and
    Perplexity do) costs that. For an answer out of the cache it is what the answer did cost; that was not paid again.

    In litellm's words: `completion_response` is another name for `completion`; with a text as `completion`, its tokens
    and those of `prompt` or `messages` are counted.
    """
    answer = completion if completion_response is None else completion_response
    if answer is None or isinstance(answer, str):
        return _cost_of_text(answer or "", model, prompt, messages, custom_llm_provider, bool(batch))
    usage = field(answer, "usage")
    if usage is None:
        return None
    name = model or field(answer, "model") or ""
    if not registered(name, custom_llm_provider):
        stated = _stated_cost(usage)
        if stated is not None:
            return stated
    price = price_of(name, custom_llm_provider, _context(answer, usage, batch))
    if price is None:
        return None
    searches = field(field(usage, "server_tool_use"), "web_search_requests") or 0
    return _priced(price, _billed(usage), {"web_searches": searches, **_listened(usage)})[2]


def cost_per_token(
    model: str,
    prompt_tokens: int = 0,
    completion_tokens: int = 0,
    *,
    cache_read_input_tokens: int | None = 0,
    cache_creation_input_tokens: int | None = 0,
    cache_creation_1h_input_tokens: int | None = 0,
    reasoning_tokens: int | None = 0,
    custom_llm_provider: str | None = None,
    service_tier: str | None = None,
    batch: bool = False,
) -> tuple[float, float]:
    """US dollars for the prompt and for the answer, at today's list price. Raises `UnknownModel` if there is none.

    `prompt_tokens` are all, with those that are read from the vendor's prompt cache and written to it; the latter with
    those that are kept for an hour. `completion_tokens` are all, with the reasoning.
    """
    context = {**({"processing": "batch"} if batch else {}), **({"service_tier": service_tier} if service_tier else {})}
    price = price_of(model, custom_llm_provider, context)
    if price is None:
        raise unknown(model, "prices", "input_cost_per_token")
    read, written = cache_read_input_tokens or 0, cache_creation_input_tokens or 0
    for_an_hour = cache_creation_1h_input_tokens or 0
    tokens = Tokens(
        input=max(prompt_tokens, read + max(written, for_an_hour)),
        output=completion_tokens,
        total=prompt_tokens + completion_tokens,
        cache_read=read,
        cache_write=max(written, for_an_hour),
        cache_write_1h=for_an_hour,
        reasoning=reasoning_tokens or 0,
    )
    return _priced(price, tokens)[:2]


def _cost_of_text(
    text: str,
    model: str | None,
    prompt: str,
    messages: Sequence[Any] | None,
    provider: str | None,
    batch: bool,
) -> float | None:
    from .tokens import token_counter

    if not model:
        raise TypeError("completion_cost() needs an answer, or model= and the texts.")
    price = price_of(model, provider, {"processing": "batch"} if batch else None)
    if price is None:
        return None
    asked = token_counter(model, messages=messages) if messages else token_counter(model, text=prompt)
    said = token_counter(model, text=text)
    return _priced(price, Tokens(asked, said, asked + said))[2]


def _billed(usage: Any) -> Tokens:
    """The tokens that are paid for: all, but with Cohere, whose own preamble is read for nothing.

    https://docs.cohere.com/reference/chat (`usage.billed_units`, 2026-11)
    """
    units = field(usage, "billed_units")
    input_, output = field(units, "input_tokens"), field(units, "output_tokens")
    if not isinstance(input_, (int, float)) or not isinstance(output, (int, float)):
        return tokens_of(usage)
    return Tokens(round(input_), round(output), round(input_ + output))


def _context(answer: Any, usage: Any, batch: bool | None) -> dict[str, str]:
    """What decides between several prices of one model, in genai-prices' words."""
    tier = field(answer, "service_tier") or field(usage, "service_tier")
    context = {"service_tier": tier} if tier in TIERS else {}
    if field(usage, "speed") == "fast":
        context["speed"] = "fast"
    if batch or (batch is None and field(usage, "service_tier") == "batch"):
        context["processing"] = "batch"
    return context


def _stated_cost(usage: Any) -> float | None:
    """Dollars that the vendor says it takes.

    OpenRouter: https://openrouter.ai/docs/use-cases/usage-accounting; with the caller's own key (`is_byok`) the model's
    vendor takes `upstream_inference_cost` beside it. Perplexity: https://docs.perplexity.ai/api-reference/sonar-post.
    Both as recorded (2026-11).
    """
    cost = field(usage, "cost")
    if isinstance(cost, Mapping) or hasattr(cost, "total_cost"):
        total = field(cost, "total_cost")
        return float(total) if isinstance(total, (int, float)) else None
    if not isinstance(cost, (int, float)) or isinstance(cost, bool) or field(usage, "is_byok") is None:
        return None
    if not field(usage, "is_byok"):
        return float(cost)
    upstream = field(field(usage, "cost_details"), "upstream_inference_cost")
    return float(cost) + float(upstream) if isinstance(upstream, (int, float)) else None


def _listened(usage: Any) -> dict[str, float]:
    """What a transcription counts that is paid by the time."""
    seconds = field(usage, "seconds")
    if not isinstance(seconds, (int, float)) or not seconds >= 0:
        return {}
    return {"audio_seconds": seconds, "input_audio_seconds": seconds}


def _priced(price: Any, tokens: Tokens, others: Mapping[str, float] | None = None) -> tuple[float, float, float]:
    """Dollars for the prompt, for the answer, and for all, which may have more to it: searches, a fee for each call."""
    from genai_prices import Usage

    counts = {
        "input_tokens": tokens.input,
        "output_tokens": tokens.output,
        "cache_read_tokens": tokens.cache_read or 0,
        "cache_write_tokens": tokens.cache_write or 0,
        "cache_write_1h_tokens": tokens.cache_write_1h,
        "output_reasoning_tokens": min(tokens.reasoning or 0, tokens.output),
        **(others or {}),
    }
    spoken = {"input_audio_tokens": tokens.audio_input, "output_audio_tokens": tokens.audio_output}
    try:
        cost = price.calc_price(Usage(**counts, **spoken))
    except ValueError:
        # Audio may be in the cache too, and no vendor says how much of it is: then it counts like text.
        cost = price.calc_price(Usage(**counts))
    return float(cost["input_price"]), float(cost["output_price"]), float(cost["total_price"])
