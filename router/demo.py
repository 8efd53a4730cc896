"""`rejoinder demo`: one question, asked twice, against whatever is at hand."""

from __future__ import annotations

import json
import os
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, NamedTuple

from ..caching.cache import Cache
from ..core.errors import RejoinderError, UnknownProvider
from ..providers import table
from ..providers.echo import Echo
from .ambient import warm_up
from .api import completion
from .cost import completion_cost

if TYPE_CHECKING:
    from ..core.answers import Completion

QUESTION = "In one sentence: why do people cache the answers of language models?"
ECHO_ANSWER = "Because the same question, asked again, should cost neither the money nor the wait of the first time."
ECHO_LATENCY = 0.4

MODELS = {
    "openai": "gpt-4o-mini",
    "anthropic": "claude-haiku-4-5",
    "groq": "llama-3.1-8b-instant",
    "mistral": "mistral-small-latest",
    "deepseek": "deepseek-chat",
    "xai": "grok-3-mini",
    "openrouter": "openai/gpt-4o-mini",
    "together_ai": "meta-llama/Llama-3.3-70B-Instruct-Turbo",
}
"""Whose key is looked for, in this order, and a small model of theirs."""

LOCAL = ("ollama", "lm_studio")
"""Servers of one's own that are looked for at their usual addresses."""

PROBE_TIMEOUT = 0.3

NOBODY = f"""no provider's key is set and no local server answers, so the built-in echo
provider pretends: it thinks for {ECHO_LATENCY:g} s and always says the same. For a real one set OPENAI_API_KEY, say"""


class Chosen(NamedTuple):
    """What the demo asks."""

    model: str
    why: str
    arguments: Mapping[str, Any] = {}
    priced_as: str | None = None
    """Another model whose price is shown, where this one has none."""


def run(model: str | None = None) -> int:
    """Ask twice and print what happened; the exit status."""
    chosen = choose(model or os.environ.get("REJOINDER_DEMO_MODEL"))
    print(f"Asking {chosen.model}: {chosen.why}.")
    print("The cache is a fresh one on disk, removed afterwards, so that the first answer is a real one.\n")
    print(f"  {QUESTION}\n")
    try:
        warm_up(chosen.model)
        with tempfile.TemporaryDirectory(prefix="rejoinder-demo-") as folder:
            cache = Cache.disk(cache_path_root=folder)
            first, second = ask(chosen, cache), ask(chosen, cache)
            cache.close()
    except RejoinderError as error:
        print(f"{type(error).__name__}: {error}\n\n{advice(error, chosen.model)}")
        return 1
    print("\n".join(report(chosen, first, second)))
    return 0


class Answered(NamedTuple):
    answer: Completion
    took: float  # seconds


def ask(chosen: Chosen, cache: Cache) -> Answered:
    """Ask the question once, through `cache`."""
    started = time.perf_counter()
    answer = completion(
        chosen.model, [{"role": "user", "content": QUESTION}], cache=cache, caching=True, **chosen.arguments
    )
    return Answered(answer, time.perf_counter() - started)


def report(chosen: Chosen, first: Answered, second: Answered) -> list[str]:
    """What is printed of the two answers."""
    model = chosen.priced_as or chosen.model
    cost = completion_cost(first.answer, model)
    if cost is None and not chosen.priced_as:
        cost = completion_cost(first.answer)
    money = "no price is known" if cost is None else f"${cost:.6f}"
    note = f" (the price of {chosen.priced_as}; this one is free)" if chosen.priced_as and cost is not None else ""
    hit = second.answer.cache
    lines = [f"  {(first.answer.choices[0].message.content or '').strip()}", ""]
    lines.append(f"{'':10}{'from':<10}{'took':>12}   cost")
    lines.append(f"{'first':10}{_source(first.answer):<10}{_duration(first.took):>12}   {money}{note}")
    spent = f"nothing; saved {money}" if hit and cost is not None else "nothing" if hit else money
    lines.append(f"{'second':10}{_source(second.answer):<10}{_duration(second.took):>12}   {spent}")
    if hit:
        same = "the same" if first.answer == second.answer else "ANOTHER"
        factor = first.took / second.took
        lines += ["", f"The second is {same} answer (id {second.answer.id}), {factor:,.0f} times as fast."]
    else:
        lines += ["", "The second answer was fresh too: this one is of a kind that is not kept (a refusal, say)."]
    return lines


def _source(answer: Completion) -> str:
    return "cache" if answer.cache else "provider"


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.2f} s"
        if seconds >= 1
        else f"{seconds * 1e3:.3g} ms"
        if seconds >= 1e-3
        else f"{seconds * 1e6:.0f} µs"
    )


# ── whom to ask ───────────────────────────────────────────────────────────────────────────────────────────────────


def choose(model: str | None) -> Chosen:
    """The model that was asked for, else one whose key is set, else a local server's, else the echo."""
    if model is not None:
        return Chosen(model, "as you wished", _echo_arguments(model))
    for provider, name in MODELS.items():
        for variable in table.PROVIDERS[provider].key_env:
            if os.environ.get(variable):
                return Chosen(f"{provider}/{name}", f"{variable} is set")
    for provider in LOCAL:
        address = table.api_base(table.PROVIDERS[provider], None)
        found = first_local_model(address)
        if found:
            return Chosen(f"{provider}/{found}", f"a server answers at {address}", priced_as="openai/gpt-4o-mini")
    return Chosen("echo/demo", NOBODY, _echo_arguments("echo/demo"), priced_as="openai/gpt-4o-mini")


def _echo_arguments(model: str) -> dict[str, Any]:
    return {"client": Echo(ECHO_ANSWER, latency=ECHO_LATENCY)} if model.startswith("echo/") else {}


def first_local_model(address: str) -> str | None:
    """A chat model that the OpenAI-compatible server at `address` has, if one answers at once."""
    # Without a proxy: it is this machine that is asked.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{address}/models", timeout=PROBE_TIMEOUT) as reply:
            names = [row["id"] for row in json.load(reply)["data"]]
    except (OSError, HTTPException, ValueError, LookupError, TypeError):  # nobody there, or somebody else
        return None
    return next((name for name in names if isinstance(name, str) and "embed" not in name), None)


def advice(error: RejoinderError, model: str) -> str:
    """What to do about a demo that failed."""
    from ..core import api_errors

    if isinstance(error, UnknownProvider):
        return "Name a model as provider/model: rejoinder demo --model openai/gpt-4o-mini"
    keys = " or ".join(table.resolve(model)[0].key_env)
    for name, words in ADVICE.items():
        if isinstance(error, getattr(api_errors, name)):
            return words.format(keys=keys)
    return "To see the demo without a provider: rejoinder demo --model echo/demo"


ADVICE = {
    "MissingAPIKey": "Set {keys}, or ask no provider at all: rejoinder demo --model echo/demo",
    "AuthenticationError": "The key was not accepted. Look at {keys}, or unset it to see the demo without a provider.",
    "PermissionDeniedError": "The key may not do this. Look at {keys}, or unset it to see the demo without a provider.",
    "NotFoundError": "Your account may not have that model. Name another: make demo ARGS='--model openai/gpt-4o'",
    "RateLimitError": "The provider will not serve this account now (limits or credit). Unset {keys} to go without.",
}
"""By the error's class, the first that fits: a missing key is an `AuthenticationError` too."""
