"""Making a conversation fit into a model's context window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.errors import ConfigurationError
from .models import context_window, unknown
from .tokens import PER_ANSWER, length_of
from .usage import field

SYSTEM = frozenset({"system", "developer"})
RESULTS = frozenset({"tool", "function"})


def trim_messages(
    messages: Sequence[Any], model: str | None = None, max_tokens: int | None = None, trim_ratio: float = 0.75
) -> list[Any]:
    """The newest of `messages` that fit, after all system messages.

    They fit into `max_tokens`; without it, into `trim_ratio` of the model's context window. Whole messages are left
    out, the oldest first; a tool's result is never without its call, nor a call without its results. The system
    messages and the newest message (with the call that it answers) stay even if they do not fit. A conversation that
    fits comes back as it is. Raises `UnknownModel` if neither `max_tokens` nor the model's window is known.
    """
    if max_tokens is None:
        max_tokens = _room(model or "", trim_ratio)
    length = length_of(model or "")
    kept = [index for index, message in enumerate(messages) if field(message, "role") in SYSTEM]
    left = max_tokens - PER_ANSWER - sum(length(messages[index]) for index in kept)
    for place, group in enumerate(reversed(_groups(messages))):
        left -= sum(length(messages[index]) for index in group)
        if left < 0 and place:
            break
        kept += group
    return [messages[index] for index in sorted(kept)]


def _room(model: str, trim_ratio: float) -> int:
    if not 0 < trim_ratio <= 1:
        raise ConfigurationError(f"trim_ratio={trim_ratio!r} must be more than 0, and 1 at most.")
    window = context_window(model)
    if window is None:
        raise unknown(model, "limits", "max_input_tokens")
    return int(window * trim_ratio)


def _groups(messages: Sequence[Any]) -> list[list[int]]:
    """Places of messages that only make sense together: a call of tools and its results. Without system messages."""
    groups: list[list[int]] = []
    for index, message in enumerate(messages):
        role = field(message, "role")
        if role in SYSTEM:
            continue
        if role in RESULTS and groups:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups
