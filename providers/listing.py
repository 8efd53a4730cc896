"""The table of providers, to be read: `rejoinder.providers()`."""

from __future__ import annotations

from typing import NamedTuple

from . import table
from .base import Provider


class ProviderInfo(NamedTuple):
    """What one provider supports."""

    name: str
    """What stands before the slash of a model: "groq"."""
    other_names: tuple[str, ...]
    """Names under which users of other libraries know it; they work as well."""
    protocol: str
    base_url: str
    """Where it answers; empty if the caller must say."""
    key_env: tuple[str, ...]
    """Environment variables that may hold the key; the first that is set counts."""
    base_env: tuple[str, ...]
    """Environment variables that may hold another base URL."""
    needs_key: bool
    endpoints: tuple[str, ...]
    """What can be called: "chat", "embedding" … An OpenAI-compatible vendor may still lack some."""
    takes_any_parameter: bool
    """True if parameters that are not known here are passed on; else they are refused, with a clear error."""
    refused: frozenset[str]
    """Parameters of its protocol that it does not take."""
    extra: frozenset[str]
    """Parameters of its own."""
    prompt_cache: str
    """"automatic", "marks" (`cache_prompt` and `cache_control` count), or "" where nothing is known."""
    docs: str
    """The page that the row rests on."""


def rows() -> list[ProviderInfo]:
    """Every provider that is known, by name."""
    return [_info(table.PROVIDERS[name]) for name in sorted(table.PROVIDERS)]


def _info(row: Provider) -> ProviderInfo:
    served = (endpoint for protocol, endpoint in table.CODECS if protocol == row.codec)
    return ProviderInfo(
        name=row.name,
        other_names=tuple(sorted(other for other, name in table.OTHER_NAMES.items() if name == row.name)),
        protocol=row.codec,
        base_url=row.base_url,
        key_env=row.key_env,
        base_env=row.base_env,
        needs_key=row.needs_key,
        endpoints=tuple(endpoint for endpoint in served if table.serves(row, endpoint)),
        takes_any_parameter=row.open_ended,
        refused=row.refused,
        extra=row.extra,
        prompt_cache=row.prompt_cache if row.prompt_cache in ("", "automatic") else "marks",
        docs=row.docs,
    )
