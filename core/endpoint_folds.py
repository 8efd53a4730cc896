"""Streams of the endpoints beside chat as one answer, and one answer as a stream. Pure functions on JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

Json = dict[str, Any]

ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})
"""The events that carry the whole response, and end its stream."""


def fold_text(chunks: Iterable[bytes]) -> bytes:
    """The whole answer that these pieces of a text completion make."""
    answer: Json = {"id": "", "object": "text_completion", "created": 0, "model": ""}
    choices: dict[int, Json] = {}
    for data in chunks:
        chunk = orjson.loads(data)
        for choice in chunk.pop("choices", None) or ():
            _fold_choice(choices.setdefault(choice.get("index") or 0, {}), choice)
        answer.update({name: value for name, value in chunk.items() if value is not None})
    answer["choices"] = [
        {"text": "", "logprobs": None, "finish_reason": "stop", **choices[index], "index": index}
        for index in sorted(choices)
    ]
    return orjson.dumps(answer)


def _fold_choice(into: Json, choice: Json) -> None:
    for name, value in choice.items():
        if name == "text":
            into["text"] = into.get("text", "") + (value or "")
        elif name == "logprobs" and isinstance(value, dict):
            old = into.get("logprobs") or {}
            into["logprobs"] = {
                **old,
                **{part: [*(old.get(part) or []), *(items or [])] for part, items in value.items()},
            }
        elif value is not None:
            into[name] = value


def unfold_text(body: bytes) -> list[bytes]:
    """The stream that this text completion might have been: each choice in one piece, then the usage."""
    answer = orjson.loads(body)
    usage, choices = answer.pop("usage", None), answer.pop("choices", ())
    chunks = [{**answer, "choices": [choice]} for choice in choices]
    if usage is not None:
        chunks.append({**answer, "choices": [], "usage": usage})
    return [orjson.dumps(chunk) for chunk in chunks]


def fold_response(chunks: Iterable[bytes]) -> bytes:
    """The whole response that these events make: the one that the last of them carries."""
    for data in reversed(list(chunks)):
        event = orjson.loads(data)
        if event.get("type") in ENDS:
            return orjson.dumps(event["response"])
    raise ValueError("a stream of events without its last")


def unfold_response(body: bytes) -> list[bytes]:
    """The stream that this response might have been: each item added, said and done."""
    whole = orjson.loads(body)
    begun = {**whole, "output": [], "status": "in_progress", "usage": None, "completed_at": None}
    events: list[Json] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for place, item in enumerate(whole.get("output") or ()):
        events += _unfold_item(item, place)
    end = f"response.{whole.get('status') or 'completed'}"
    events.append({"type": end if end in ENDS else "response.completed", "response": whole})
    return [orjson.dumps({**event, "sequence_number": number}) for number, event in enumerate(events)]


def _unfold_item(item: Json, place: int) -> list[Json]:
    where = {"output_index": place, "item_id": item.get("id") or ""}
    begun = {**item, "status": "in_progress"} if "status" in item else dict(item)
    said: list[Json] = []
    if item.get("type") == "function_call":
        begun["arguments"], arguments = "", item.get("arguments") or ""
        said = [
            {"type": "response.function_call_arguments.delta", **where, "delta": arguments},
            {
                "type": "response.function_call_arguments.done",
                **where,
                "arguments": arguments,
                "name": item.get("name"),
            },
        ]
    elif item.get("type") == "message":
        begun["content"] = []
        for index, part in enumerate(item.get("content") or ()):
            said += _unfold_part(part, {**where, "content_index": index})
    return [
        {"type": "response.output_item.added", "output_index": place, "item": begun},
        *said,
        {"type": "response.output_item.done", "output_index": place, "item": item},
    ]


PARTS = {"output_text": ("text", "response.output_text"), "refusal": ("refusal", "response.refusal")}
"""Where a part of a message has its text, and how the events that bring it begin."""


def _unfold_part(part: Json, where: Json) -> list[Json]:
    if part.get("type") not in PARTS:
        empty, said = part, []
    else:
        name, event = PARTS[part["type"]]
        logprobs = {"logprobs": part.get("logprobs") or []} if name == "text" else {}
        empty = {**part, name: ""}
        said = [
            {"type": f"{event}.delta", **where, "delta": part.get(name), **logprobs},
            {"type": f"{event}.done", **where, name: part.get(name), **logprobs},
        ]
    return [
        {"type": "response.content_part.added", **where, "part": empty},
        *said,
        {"type": "response.content_part.done", **where, "part": part},
    ]
