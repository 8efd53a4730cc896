"""What a conversation is stripped of, or brought into, for vendors that refuse what they do not know in it.

An answer holds more than OpenAI's shape has, under whichever vendor's names, so that nothing is lost; and callers send
it back as it is, perhaps to another vendor. Most ignore what they do not know. Those that refuse it have a function of
this module in their row; it gets each message and the model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .given import plain

Message = Mapping[str, Any]

OTHERS = frozenset(
    {
        *("annotations", "citations", "content_blocks", "content_parts", "converse_blocks", "extra_content", "images"),
        *("provider_specific_fields", "reasoning", "reasoning_content", "reasoning_details", "reasoning_text"),
        *("thinking", "thinking_blocks", "tool_plan"),
    }
)
"""Fields of answers that OpenAI does not take in a request; and `vendor_…`, from `core.shape`."""

CALL = frozenset({"custom", "function", "id", "index", "type"})
THINKS = re.compile("magistral")
"""Mistral's models that take their thinking back."""


def without_others(message: Message, model: str) -> Message:
    """Only what OpenAI knows."""
    kept = {name: value for name, value in message.items() if name not in OTHERS and not name.startswith("vendor_")}
    if kept.get("tool_calls"):
        calls = [plain(call) for call in kept["tool_calls"]]
        kept["tool_calls"] = [{name: value for name, value in call.items() if name in CALL} for call in calls]
    return kept


def with_reasoning(message: Message, model: str) -> Message:
    """The same, with the thinking that Groq and Cerebras gave as `reasoning`, and refuse as `reasoning_content`.

    https://github.com/QwenLM/qwen-code/issues/11045 (2026-11)
    """
    said, thought = without_others(message, model), message.get("reasoning")
    return {**said, "reasoning": thought} if thought else said


def for_mistral(message: Message, model: str) -> Message:
    """The same, with the thinking as a part of the content.

    https://docs.mistral.ai/capabilities/reasoning and https://github.com/BerriAI/litellm/issues/30835 (2026-11)
    """
    said = dict(without_others(message, model))
    thought, content = message.get("reasoning_content"), message.get("content")
    if thought and THINKS.search(model) and isinstance(content, (str, type(None))):
        thinking = {"type": "thinking", "thinking": [{"type": "text", "text": thought}]}
        said["content"] = [thinking, *([{"type": "text", "text": content}] if content else ())]
    return said
