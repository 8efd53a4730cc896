"""How vendors of the OpenAI protocol leave it where the answer still validates but its meaning would be lost.

A row of the table names its fix. Parsing every answer twice would double the cost of a call, so a fix says by which
bytes it is known that there is something to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]


DEPARTURES = (
    rb'reasoning(?:_details|_text)?"'  # thinking under another name than `reasoning_content`
    rb'|content"\s*:\s*\['  # text and thinking as a list of parts: Mistral
    # Counts under other names, beside their details, or null: DeepSeek, Venice, Mistral, Together, Copilot, Databricks
    rb'|(?:prompt_cache_hit|cache_read_input|cache_creation_input|num_cached|input)_tokens"'
    rb'|(?:prompt|completion|total)_tokens"\s*:\s*(?:null|\d+\s*,\s*"(?:cached|reasoning)_tokens")'
    rb'|(?:prompt|completion)_tokens_details"\s*:\s*\{[^{}]*\}\s*,\s*"(?:cached|reasoning)_tokens"'
    rb'|usage"\s*:\s*\{\s*"(?:cached|reasoning)_tokens"'
    rb'|service_tier"\s*:\s*"(?!(?:auto|default|flex|scale|priority|fast)")'
    rb'|finish_reason"\s*:\s*"(?!(?:stop|length|tool_calls|content_filter|function_call)")'
    rb'|function_call"\s*:\s*\{'  # Snowflake fills what it has not with ""
)
"""What names a departure, after its opening quote; seen in recorded answers (2026-11)."""

STRAY = rb'|x_groq"\s*:\s*\{[^{}]*"usage"|usage"\s*:\s*\{[^{}]*\}\s*\}\s*\]'


class Fix:
    """A function over parsed answers and chunks, and the bytes that show that one may need it.

    One pattern for all signs, which starts at a quote: over an answer of 4 kB it takes 7 µs, a search for each sign 32.
    """

    def __init__(self, signs: bytes, mend: Callable[[Json], Json]) -> None:
        self.is_needed = re.compile(b'"(?:' + signs + b")").search
        self._mend = mend

    def __call__(self, data: Json) -> Json:
        return self._mend(data)


def as_openai(data: Json) -> Json:
    """The answer or chunk in OpenAI's words: see `core.shape`."""
    from ..core import shape

    return shape.mend_chunk(data) if is_chunk(data) else shape.mend_completion(data)


def is_chunk(data: Json) -> bool:
    """Whether this is a piece of a stream. Perplexity's hold a `message` too, as its answers hold a `delta`."""
    choices = data.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if isinstance(first, dict) and ("delta" in first) != ("message" in first):
        return "delta" in first
    return data.get("object") != "chat.completion"


def with_stray_usage(data: Json) -> Json:
    """As `as_openai`, with the usage where it belongs.

    Groq puts it under `x_groq` in the last chunk (https://console.groq.com/docs/api-reference), Moonshot into the last
    choice (https://platform.moonshot.ai/docs/api/chat), unless `stream_options` asks for it.
    """
    if not data.get("usage"):
        groq, choices = data.get("x_groq"), data.get("choices")
        last = choices[-1] if isinstance(choices, list) and choices else None
        for holder in (groq, last):
            usage = holder.get("usage") if isinstance(holder, dict) else None
            if isinstance(usage, dict) and usage:
                data = {**data, "usage": usage}
    return as_openai(data)


COMMON = Fix(DEPARTURES, as_openai)
STRAY_USAGE = Fix(DEPARTURES + STRAY, with_stray_usage)
