"""What a usage counts, under whichever names a vendor gives it, and the line that says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Tokens(NamedTuple):
    """The counts of one usage. None: the vendor does not say."""

    input: int
    """The whole prompt, with what was read from and written to the vendor's prompt cache."""
    output: int
    """All that was written, thinking included."""
    total: int
    """As the vendor says it."""
    cache_read: int | None = None
    cache_write: int | None = None
    """Of both lifetimes."""
    cache_write_1h: int = 0
    """Those of `cache_write` that are kept for an hour."""
    reasoning: int | None = None
    audio_input: int = 0
    audio_output: int = 0

    @property
    def uncached(self) -> int:
        """Input that was neither read from the cache nor written to it."""
        return max(0, self.input - (self.cache_read or 0) - (self.cache_write or 0))


def tokens_of(usage: Any) -> Tokens:
    """The counts of a usage of any endpoint: an object or a mapping, in the words of chat or of the Responses API."""
    given, written = _first(usage, "prompt_tokens", "input_tokens"), _first(usage, "completion_tokens", "output_tokens")
    asked = _part(usage, "prompt_tokens_details", "input_tokens_details")
    said = _part(usage, "completion_tokens_details", "output_tokens_details")
    total = _first(usage, "total_tokens")
    reasoning = _first(said, "reasoning_tokens")
    output, input_ = written or 0, given or 0
    hidden = (total or 0) - input_ - output
    if reasoning and hidden >= reasoning:
        # xAI's completion_tokens do not count the thinking, its total_tokens do (recorded, 2026-11).
        output += reasoning
    read = _first(asked, "cached_tokens")
    if read is None:
        read = _first(usage, "cache_read_input_tokens")
    write = _first(usage, "cache_creation_input_tokens")
    if write is None:
        write = _first(asked, "cache_write_tokens", "cache_creation_tokens")
    if (read or 0) + (write or 0) > input_:
        input_ += (read or 0) + (write or 0)  # so it cannot have counted them: Grok at Azure (recorded, 2026-11)
    return Tokens(
        input=input_,
        output=output,
        total=input_ + output if total is None else total,
        cache_read=read,
        cache_write=write,
        cache_write_1h=min(_first(_part(usage, "cache_creation"), "ephemeral_1h_input_tokens") or 0, write or 0),
        reasoning=reasoning,
        audio_input=_first(asked, "audio_tokens") or 0,
        audio_output=_first(said, "audio_tokens") or 0,
    )


def usage_line(usage: Any) -> str:
    """A usage in one line, in Inspect's form.

    >>> details = {"cached_tokens": 11_442, "cache_write_tokens": 1_711}
    >>> usage_line({"prompt_tokens": 13_175, "completion_tokens": 509, "prompt_tokens_details": details})
    '13,684 tokens [I: 22, CW: 1,711, CR: 11,442, O: 509]'

    I is input outside the vendor's prompt cache, CW and CR what was written to it and read from it (both shown if
    either is known), O output, R the part of it that was thinking (shown if known).
    """
    tokens = tokens_of(usage)
    counts: list[tuple[str, int | None]] = [("I", tokens.uncached)]
    if tokens.cache_read is not None or tokens.cache_write is not None:
        counts += [("CW", tokens.cache_write), ("CR", tokens.cache_read)]
    counts.append(("O", tokens.output))
    if tokens.reasoning is not None:
        counts.append(("R", tokens.reasoning))
    return f"{tokens.total:,} tokens [{', '.join(f'{name}: {count or 0:,}' for name, count in counts)}]"


def field(holder: Any, name: str) -> Any:
    """A field of an object or of a mapping; None if it is not there."""
    return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)


def _part(holder: Any, *names: str) -> Any:
    return next((part for name in names if (part := field(holder, name)) is not None), None)


def _first(holder: Any, *names: str) -> int | None:
    """The first of these fields that holds a count."""
    for name in names:
        value = field(holder, name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
            return int(value)
    return None
