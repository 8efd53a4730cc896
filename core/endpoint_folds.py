"""Streams of the endpoints beside chat as one answer, and one answer as a stream. Pure functions on JSON."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

Json = dict[str, Any]

ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})
"""The events that carry the whole response, and end its stream."""
IMAGE_END = "image_generation.completed"
"""The event that carries one image, in its final form."""
TRANSCRIPT_END = "transcript.text.done"
SPEECH_END = "speech.audio.done"


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


OF_AN_IMAGE = ("b64_json", "url", "revised_prompt")
"""What belongs to one image, and not to the answer with all of them."""


def fold_images(chunks: Iterable[bytes]) -> bytes:
    """The images that these events bring, without the partial ones."""
    answer: Json = {"created": 0, "data": []}
    usage: Json = {}
    for data in chunks:
        event = orjson.loads(data)
        if event.pop("type", None) != IMAGE_END:
            continue
        answer["data"].append({name: event.pop(name) for name in OF_AN_IMAGE if name in event})
        answer["created"] = event.pop("created_at", None) or answer["created"]
        usage = _added(usage, event.pop("usage", None) or {})
        answer.update(event)
    if not answer["data"]:
        raise ValueError("a stream of events without an image")
    return orjson.dumps({**answer, "usage": usage} if usage else answer)


def unfold_images(body: bytes) -> list[bytes]:
    """The stream that these images might have been: each at once; the usage is the last one's."""
    answer = orjson.loads(body)
    images, usage, created = answer.pop("data"), answer.pop("usage", None), answer.pop("created", 0)
    base = {**answer, "type": IMAGE_END, "created_at": created}
    events = [{**base, **image} for image in images]
    if usage is not None and events:
        events[-1]["usage"] = usage
    return [orjson.dumps(event) for event in events]


def _added(one: Mapping[str, Any], other: Mapping[str, Any]) -> Json:
    """The sums of two usages, at every depth."""
    whole = dict(one)
    for name, value in other.items():
        if isinstance(value, Mapping):
            whole[name] = _added(whole.get(name) or {}, value)
        else:
            whole[name] = (whole.get(name) or 0) + value if isinstance(value, (int, float)) else value
    return whole


def fold_transcript(chunks: Iterable[bytes]) -> bytes:
    """What was said, as the last of these events has it; with the segments that came before it."""
    segments: list[Json] = []
    for data in chunks:
        event = orjson.loads(data)
        kind = event.get("type")
        if kind == "transcript.text.segment":
            segments.append(event)
        elif kind == TRANSCRIPT_END:
            del event["type"]
            return orjson.dumps({**event, "segments": segments} if segments else event)
    raise ValueError("a stream of events without its last")


def unfold_transcript(body: bytes) -> list[bytes]:
    """The stream that this transcription might have been: segments with their speakers, the text at once, the end."""
    whole = orjson.loads(body)
    segments = whole.get("segments") or ()
    if segments and all("speaker" in segment for segment in segments):
        del whole["segments"]
    else:
        segments = ()
    said = {"type": "transcript.text.delta", "delta": whole.get("text")}
    events = [
        *({**segment, "type": "transcript.text.segment"} for segment in segments),
        {**said, "logprobs": whole["logprobs"]} if "logprobs" in whole else said,
        {**whole, "type": TRANSCRIPT_END},
    ]
    return [orjson.dumps(event) for event in events]


def sound(data: bytes) -> bytes:
    """The sound that one event brings; the last one brings none."""
    return base64.b64decode(orjson.loads(data).get("audio") or "")


def sound_event(data: bytes) -> bytes:
    """A piece of sound as an event: the form in which streams of speech are kept, whatever they came in."""
    return orjson.dumps({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()})


def fold_speech(chunks: Iterable[bytes]) -> bytes:
    """The sound that these events bring."""
    return b"".join(map(sound, chunks))


def unfold_speech(body: bytes) -> list[bytes]:
    """The stream that this sound might have been."""
    return [sound_event(body), orjson.dumps({"type": SPEECH_END, "usage": None})]


FOLDS: dict[str, Callable[[Iterable[bytes]], bytes]] = {
    "image_generation": fold_images,
    "responses": fold_response,
    "speech": fold_speech,
    "text_completion": fold_text,
    "transcription": fold_transcript,
}
UNFOLDS: dict[str, Callable[[bytes], list[bytes]]] = {
    "image_generation": unfold_images,
    "responses": unfold_response,
    "speech": unfold_speech,
    "text_completion": unfold_text,
    "transcription": unfold_transcript,
}
