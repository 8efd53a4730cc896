"""Whether two answers say the same: what shadow mode finds out before anything is served."""

from __future__ import annotations

from typing import Any

import orjson

NOT_CONTENT = frozenset(
    {
        *("id", "call_id", "item_id", "response_id", "created", "created_at", "completed_at", "model", "usage"),
        *("system_fingerprint", "service_tier", "logprobs", "signature", "encrypted_content", "cache"),
        *("reasoning", "reasoning_content", "thinking_blocks", "summary"),
    }
)
"""Fields, at any depth, that differ from answer to answer to the same effect: names, times, counts, thoughts."""


def says_the_same(stored: bytes, fresh: bytes) -> bool:
    """Whether the texts and tool calls of two answers are equal. Arguments of tools count as the JSON they are.

    >>> says_the_same(b'{"id": "1", "choices": [{"text": "Yes"}]}', b'{"id": "2", "choices": [{"text": "Yes"}]}')
    True
    """
    try:
        return bool(content_of(orjson.loads(stored)) == content_of(orjson.loads(fresh)))
    except orjson.JSONDecodeError:
        return stored == fresh


def content_of(value: Any) -> Any:
    """What a caller reads of an answer."""
    if isinstance(value, list):
        return [content_of(item) for item in value if not (isinstance(item, dict) and item.get("type") == "reasoning")]
    if not isinstance(value, dict):
        return value
    # What is None is the same as what is not there: vendors differ from one day to the next.
    return {
        name: _read(item) if name == "arguments" else content_of(item)
        for name, item in value.items()
        if name not in NOT_CONTENT and item is not None
    }


def _read(arguments: Any) -> Any:
    try:
        return orjson.loads(arguments) if isinstance(arguments, str) else arguments
    except orjson.JSONDecodeError:
        return arguments
