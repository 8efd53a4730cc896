"""What it costs to read a vendor's answer into OpenAI's JSON, whole and streamed, against only parsing its bytes.

The answers are written here, in the shape of each vendor's documentation. Whole and streamed say the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from rejoinder.core.types import Request
from rejoinder.providers import table

from ..measure import Effort, Messages, paired
from ..report import Budget, Row
from ..subject import WrongMeasurement

Json = dict[str, Any]

WORDS = [f"word{number} " for number in range(200)]
TEXT = "".join(WORDS)
PROMPT, ANSWERED = 80, len(WORDS)


class Answer(NamedTuple):
    """What a vendor sends: one object, or many, and how a stream frames each of them."""

    whole: Json
    streamed: list[Json]
    frame: Callable[[Json], bytes]


def data_event(item: Json) -> bytes:
    return b"data: " + orjson.dumps(item) + b"\n\n"


def typed_event(item: Json) -> bytes:
    return b"event: " + str(item["type"]).encode() + b"\n" + data_event(item)


def line(item: Json) -> bytes:
    return orjson.dumps(item) + b"\n"


def openai_answer() -> Answer:
    base = {"id": "chatcmpl-9", "created": 1_760_000_000, "model": "gpt-4o-mini", "system_fingerprint": "fp_1"}
    usage = {"prompt_tokens": PROMPT, "completion_tokens": ANSWERED, "total_tokens": PROMPT + ANSWERED}
    message: Json = {"role": "assistant", "content": TEXT, "refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}

    def chunk(delta: Json, reason: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**base, "object": "chat.completion.chunk", "choices": [choice]}

    beginning = chunk({"role": "assistant", "content": ""})
    streamed = [beginning, *(chunk({"content": word}) for word in WORDS), chunk({}, "stop")]
    whole = {**base, "object": "chat.completion", "choices": [choice], "usage": usage}
    return Answer(whole, streamed, data_event)


def anthropic_answer() -> Answer:
    usage = {"input_tokens": PROMPT, "cache_read_input_tokens": 0, "output_tokens": ANSWERED}
    base = {"id": "msg_9", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "stop_sequence": None}
    begun = {**base, "content": [], "stop_reason": None, "usage": usage}
    deltas = [{"type": "text_delta", "text": word} for word in WORDS]
    streamed: list[Json] = [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
    ]
    content = [{"type": "text", "text": TEXT}]
    return Answer({**base, "content": content, "stop_reason": "end_turn", "usage": usage}, streamed, typed_event)


def gemini_answer() -> Answer:
    usage = {"promptTokenCount": PROMPT, "candidatesTokenCount": ANSWERED, "totalTokenCount": PROMPT + ANSWERED}

    def answer(text: str, **ending: str) -> Json:
        candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0, **ending}
        base = {"modelVersion": "gemini-2.5-flash", "responseId": "r9", "usageMetadata": usage}
        return {"candidates": [candidate], **base}

    *words, last = WORDS
    streamed = [*(answer(word) for word in words), answer(last, finishReason="STOP")]
    return Answer(answer(TEXT, finishReason="STOP"), streamed, data_event)


def cohere_answer() -> Answer:
    tokens = {"input_tokens": PROMPT, "output_tokens": ANSWERED}
    usage = {"billed_units": tokens, "tokens": tokens}

    def delta(word: str) -> Json:
        return {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": word}}}}

    begun: Json = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    block = {"type": "text", "text": ""}
    streamed: list[Json] = [
        {"type": "message-start", "id": "c9", "delta": {"message": begun}},
        {"type": "content-start", "index": 0, "delta": {"message": {"content": block}}},
        *(delta(word) for word in WORDS),
        {"type": "content-end", "index": 0},
        {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": usage}},
    ]
    message = {"role": "assistant", "content": [{"type": "text", "text": TEXT}]}
    return Answer({"id": "c9", "finish_reason": "COMPLETE", "message": message, "usage": usage}, streamed, typed_event)


def ollama_answer() -> Answer:
    counted = {"total_duration": 5_000, "prompt_eval_count": PROMPT, "eval_count": ANSWERED, "eval_duration": 4_000}

    def answer(text: str, **ending: Any) -> Json:
        base = {"model": "llama3.2", "created_at": "2025-10-09T08:53:20.123456Z", "done": False}
        return {**base, "message": {"role": "assistant", "content": text}, **ending}

    ending = {"done": True, "done_reason": "stop", **counted}
    return Answer(answer(TEXT, **ending), [*(answer(word) for word in WORDS), answer("", **ending)], line)


ANSWERS: Mapping[str, Callable[[], Answer]] = {
    "openai": openai_answer,
    "anthropic": anthropic_answer,
    "gemini": gemini_answer,
    "cohere": cohere_answer,
    "ollama": ollama_answer,
}
"""By the protocol that is spoken."""


def codecs(effort: Effort) -> Iterator[Row]:
    """No budget: what a vendor's words cost to translate differs with the vendor."""
    for protocol, written in ANSWERS.items():
        yield from _rows(protocol, written(), effort)


def _rows(protocol: str, answer: Answer, effort: Effort) -> Iterator[Row]:
    codec = table.codec(protocol)
    assert codec is not None
    messages: Messages = [{"role": "user", "content": "Hi"}]
    request = Request("chat", protocol, "a-model", api_base="", parameters={}, messages=messages)
    body = orjson.dumps(answer.whole)
    payloads = [orjson.dumps(item) for item in answer.streamed]
    # Fed event by event, as they come from a vendor that takes its time.
    events = [answer.frame(item) for item in answer.streamed]
    if protocol == "openai":
        events.append(b"data: [DONE]\n\n")

    def read(_: int) -> bytes:
        return codec.decode(body, request)

    def read_stream(_: int) -> list[bytes]:
        decoder = codec.decoder(request)
        chunks = [chunk for event in events for chunk in decoder.feed(event)]
        return chunks + decoder.end()

    def parse_stream(_: int) -> list[Any]:
        return [orjson.loads(payload) for payload in payloads]

    _check(protocol, read(0), read_stream(0))
    whole = paired(effort.rounds, read, lambda _: orjson.loads(body), lambda: range(effort.count(200)))
    stream = paired(effort.rounds, read_stream, parse_stream, lambda: range(effort.count(20)))
    each, remark = 1e6 / len(payloads), "floor: orjson.loads"
    yield Row(f"decode {protocol}, whole", whole.subject * 1e6, whole.floor * 1e6, "µs", Budget(), remark)
    yield Row(f"decode {protocol}, per chunk", stream.subject * each, stream.floor * each, "µs", Budget(), remark)


def _check(protocol: str, whole: bytes, chunks: list[bytes]) -> None:
    said = orjson.loads(whole)["choices"][0]["message"]["content"]
    choices = [choice for chunk in chunks for choice in orjson.loads(chunk)["choices"]]
    streamed = "".join(choice["delta"].get("content") or "" for choice in choices)
    if (said, streamed) != (TEXT, TEXT) or choices[-1]["finish_reason"] != "stop":
        raise WrongMeasurement(f"the codec for {protocol} did not read what was written")
