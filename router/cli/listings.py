"""`rejoinder providers` and `rejoinder models`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ...providers.listing import rows
from ..models import FEATURES, get_model_info, model_list
from .screen import as_json

UNKNOWN = "?"


def print_providers() -> None:
    """A line for each provider: the variable of its key, its prompt cache, where it answers, what can be called."""
    lines = [("PROVIDER", "PROTOCOL", "KEY", "PROMPT CACHE", "BASE URL", "ENDPOINTS")]
    for row in rows():
        key = row.key_env[0] if row.key_env and row.needs_key else "(none needed)"
        address = row.base_url or f"set {row.base_env[0]}" if row.base_url or row.base_env else "-"
        endpoints = " ".join(row.endpoints)
        lines.append((row.name, row.protocol, key, row.prompt_cache or UNKNOWN, address, endpoints))
    _print_table(lines)


def print_models(provider: str | None) -> None:
    """A line for each model: how much it reads and writes, what it costs, what it can do."""
    lines = [("MODEL", "READS", "WRITES", "$/M IN", "$/M OUT", "SUPPORTS")]
    for name in model_list(provider):
        info = get_model_info(name) or {}
        can = [feature.removeprefix("supports_") for feature in FEATURES if info.get(feature)]
        lines.append(
            (
                name,
                _number(info.get("max_input_tokens")),
                _number(info.get("max_output_tokens")),
                _price(info.get("input_cost_per_token")),
                _price(info.get("output_cost_per_token")),
                " ".join(can) or UNKNOWN,
            )
        )
    _print_table(lines)
    if len(lines) == 1:
        print(f"No model of {provider!r} is in the price list. It may serve some all the same.")


def providers_json() -> None:
    """What is known of each provider."""
    print(as_json([{**row._asdict(), "refused": sorted(row.refused), "extra": sorted(row.extra)} for row in rows()]))


def models_json(provider: str | None) -> None:
    """What is known of each model, in the words of `get_model_info`."""
    print(as_json([{"model": name, **(get_model_info(name) or {})} for name in model_list(provider)]))


def _number(count: Any) -> str:
    return UNKNOWN if count is None else f"{count:,}"


def _price(dollars: Any) -> str:
    return UNKNOWN if dollars is None else f"{dollars * 1_000_000:.4g}"


def _print_table(lines: Iterable[Sequence[str]]) -> None:
    lines = list(lines)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
