"""One row per vendor. A new OpenAI-compatible one is a row here, and nothing else."""

from __future__ import annotations

import functools
import os

from ..core.errors import UnknownProvider, suggestion
from .base import Codec, Provider

OPENAI_COMPATIBLE_SAMPLING = frozenset({"top_k", "min_p", "repetition_penalty"})

ROWS = (
    # https://platform.openai.com/docs/api-reference (2026-11)
    Provider(
        "openai", "https://api.openai.com/v1", key_env=("OPENAI_API_KEY",), base_env=("OPENAI_BASE_URL", "OPENAI_API_BASE")
    ),
    # https://docs.anthropic.com/en/api/messages (2026-11)
    Provider(
        "anthropic",
        "https://api.anthropic.com",
        codec="anthropic",
        key_env=("ANTHROPIC_API_KEY",),
        base_env=("ANTHROPIC_BASE_URL", "ANTHROPIC_API_BASE"),
    ),
    Provider("openai_compatible", "", key_env=("OPENAI_COMPATIBLE_API_KEY",), needs_key=False, open_ended=True),
    Provider("echo", "", codec="openai", needs_key=False, open_ended=True),
)
PROVIDERS: dict[str, Provider] = {row.name: row for row in ROWS}

BARE_NAMES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("gpt-", "o1", "o3", "o4", "chatgpt-", "ft:gpt-"), "openai"),
    (("claude-",), "anthropic"),
)
"""How well-known model names begin, and whose they are."""


@functools.lru_cache(maxsize=1024)
def resolve(model: str) -> tuple[Provider, str]:
    """The provider of "provider/model", or of a well-known bare name, and the vendor's name of the model."""
    name, slash, rest = model.partition("/")
    if slash and rest and name in PROVIDERS:
        return PROVIDERS[name], rest
    for prefixes, provider in BARE_NAMES:
        if model.startswith(prefixes):
            return PROVIDERS[provider], model
    raise UnknownProvider(_unknown(model, name, bool(slash)))


def _unknown(model: str, name: str, has_slash: bool) -> str:
    if has_slash:
        return f"No provider named {name!r} (in the model {model!r}).{suggestion(name, PROVIDERS)}"
    return f"The model {model!r} does not say which provider. Write 'provider/{model}', for example 'openai/{model}'."


@functools.cache
def codec(name: str) -> Codec:
    """The codec of that name, its module loaded on first use."""
    if name == "openai":
        from .openai import OpenAICodec

        return OpenAICodec()
    from .anthropic import AnthropicCodec

    return AnthropicCodec()


def api_base(provider: Provider, given: str | None) -> str:
    """The base URL that a call goes to, without a trailing slash."""
    if given:
        return given.rstrip("/")
    for name in provider.base_env:
        value = os.environ.get(name)
        if value:
            return value.rstrip("/")
    return provider.base_url
