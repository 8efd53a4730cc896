"""One answer out of the chunks of a stream, for callers who have kept them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from .fold import fold

if TYPE_CHECKING:
    from ..core.answers import Completion


def stream_chunk_builder(chunks: Iterable[Any], messages: Sequence[Any] | None = None) -> Completion | None:
    """The answer that these chunks make; None if there are none.

    Chunks are those of a `Stream`, of the openai package, or dicts, in their order; one that breaks off makes an answer
    that does. Without a usage in them (ask for one with `stream_options={"include_usage": True}`), and with the
    `messages` that were asked, tokens are counted here, and the usage has `is_estimate` True.
    """
    from ..core import answers

    data = [_json(chunk) for chunk in chunks]
    if not data:
        return None
    answer = answers.completion(fold(data))
    if answer.usage is None and messages is not None:
        answer.usage = answers.Usage.model_validate(_counted(answer, messages))
    return answer


def _json(chunk: Any) -> bytes:
    if isinstance(chunk, bytes):
        return chunk
    return orjson.dumps(chunk if isinstance(chunk, dict) else chunk.model_dump(mode="json", exclude_unset=True))


def _counted(answer: Completion, messages: Sequence[Any]) -> dict[str, Any]:
    from .tokens import length_of, token_counter

    asked = token_counter(answer.model, messages=messages)
    length, empty = length_of(answer.model), {"role": "assistant", "content": ""}
    said = sum(length(choice.message) - length(empty) for choice in answer.choices)
    return {
        "prompt_tokens": asked,
        "completion_tokens": said,
        "total_tokens": asked + said,
        "is_estimate": True,
    }
