"""Every recorded answer of an OpenAI-protocol vendor, read by our codec and, independently, by the plain reading here.

The recordings are not part of the project. They are looked for in REJOINDER_WIRE_DIR, else beside the repository.
"""

from __future__ import annotations

import functools
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rejoinder.core import answers
from rejoinder.core.api_errors import class_for
from rejoinder.core.shape import Misshapen
from rejoinder.core.types import Request
from rejoinder.providers.base import Codec, ProviderFault
from rejoinder.providers.table import PROVIDERS, codec

WIRE = Path(os.environ.get("REJOINDER_WIRE_DIR") or Path(__file__).resolve().parents[2] / "shared" / "wire")
PLACE = "REJOINDER_WIRE_DIR" if os.environ.get("REJOINDER_WIRE_DIR") else "../shared/wire"
MISSING = f"no recorded traffic: {PLACE} is not a folder"

ROW_OF = {"together": "together_ai", "alibaba": "dashscope"}
"""Rows that are not called as the recordings call the vendor. One without a row is called as openai_compatible."""


@functools.cache
def recordings() -> list[dict[str, Any]]:
    lines = (line for file in sorted(WIRE.glob("*.jsonl")) for line in file.read_text("utf-8").splitlines())
    return [record for line in lines if (record := json.loads(line))["wire"] == "openai_chat"]


def of_kind(kind: str) -> list[Any]:
    if not WIRE.is_dir():
        return [pytest.param(None, marks=pytest.mark.skip(reason=MISSING))]
    found = [record for record in recordings() if kind_of(record) == kind]
    return [pytest.param(record, id=record["id"]) for record in found]


def kind_of(record: dict[str, Any]) -> str:
    if record["response"]["status"] >= 400:
        return "error"
    if "error_in_200" in record["tags"]:
        return "fault"
    return "stream" if record["response"]["chunks"] else "whole"


def providers_of(record: dict[str, Any]) -> list[str]:
    """The row of the vendor, and the ones by which callers reach any server."""
    row = ROW_OF.get(record["provider"], record["provider"])
    return list(dict.fromkeys([row if row in PROVIDERS else "openai_compatible", "openai_compatible", "openai"]))


def request_of(record: dict[str, Any], provider: str) -> Request:
    return Request("chat", provider, record["model"], "http://localhost", [], {}, stream=bool(record["stream"]))


def body_of(record: dict[str, Any]) -> bytes:
    response = record["response"]
    return (response["body"] if response["chunks"] is None else "".join(response["chunks"])).encode()


# The plain reading. It knows nothing of our code; where a vendor says a thing twice it takes the first that says it.


def plain_whole(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "choices": [plain_message(choice["message"], choice["finish_reason"]) for choice in data["choices"]],
        "usage": plain_usage(data.get("usage")),
    }


def plain_message(message: dict[str, Any], finish: str) -> dict[str, Any]:
    calls = [
        (call["id"], (call["custom"]["name"], call["custom"]["input"]))
        if call.get("type") == "custom"
        else (call["id"], (call["function"]["name"], call["function"]["arguments"]))
        for call in message.get("tool_calls") or []
    ]
    return {
        "text": plain_text(message.get("content")),
        "thinking": plain_thinking(message),
        "calls": calls,
        "finish": finish or ("tool_calls" if calls else "stop"),
    }


def plain_text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part["type"] == "text")
    return content or ""


def plain_thinking(message: dict[str, Any]) -> str:
    if isinstance(message.get("content"), list):
        parts = [part["thinking"] for part in message["content"] if part["type"] == "thinking"]
        return "".join(piece["text"] for part in parts for piece in part)
    details = message.get("reasoning_details") or []
    said = "".join(item.get("text") or item.get("summary") or "" for item in details)
    return message.get("reasoning_content") or message.get("reasoning") or said


def plain_usage(usage: dict[str, Any] | None) -> tuple[int, int, int, int] | None:
    if not usage or usage.get("completion_tokens") is None:
        return None
    prompt, completion = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    cached = prompt.get("cached_tokens") or usage.get("cached_tokens") or usage.get("num_cached_tokens")
    thought = completion.get("reasoning_tokens") or usage.get("reasoning_tokens")
    return usage["prompt_tokens"], usage["completion_tokens"], cached or 0, thought or 0


def plain_stream(body: str) -> dict[str, Any]:
    lines = [line[5:].strip() for line in body.splitlines() if line.startswith("data:")]
    chunks = [json.loads(line) for line in lines if line.startswith("{")]
    folded: dict[int, dict[str, Any]] = {}
    usage = None
    for chunk in chunks:
        usage = plain_usage(chunk.get("usage") or (chunk.get("x_groq") or {}).get("usage")) or usage
        for choice in chunk["choices"]:
            held = folded.setdefault(choice["index"], {"text": "", "thinking": "", "calls": {}, "finish": None})
            delta = choice["delta"]
            held["text"] += plain_text(delta.get("content"))
            held["thinking"] += plain_thinking(delta)
            held["finish"] = choice.get("finish_reason") or held["finish"]
            for call in delta.get("tool_calls") or []:
                known = held["calls"].setdefault(call["index"], ["", "", ""])
                known[0] = known[0] or call.get("id") or ""
                known[1] += call["function"].get("name") or ""
                known[2] += call["function"].get("arguments") or ""
    for held in folded.values():
        calls = (held["calls"][index] for index in sorted(held["calls"]))
        held["calls"] = [(name, (function, text)) for name, function, text in calls]
    return {"choices": [folded[index] for index in sorted(folded)], "usage": usage}


# Our reading, from the typed objects that callers get.


def our_whole(answer: answers.Completion) -> dict[str, Any]:
    choices = []
    for choice in answer.choices:
        message = choice.message
        assert message.content is None or isinstance(message.content, str)
        calls: list[Any] = []
        for call in message.tool_calls or []:
            if call.type == "custom":
                calls.append((call.id, (call.custom.name, call.custom.input)))
            else:
                calls.append((call.id, (call.function.name, call.function.arguments)))
        thinking = getattr(message, "reasoning_content", None) or ""
        choices.append(
            {"text": message.content or "", "thinking": thinking, "calls": calls, "finish": choice.finish_reason}
        )
    return {"choices": choices, "usage": our_usage(answer.usage)}


def our_usage(usage: Any) -> tuple[int, int, int, int] | None:
    if usage is None:
        return None
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    cached = prompt.cached_tokens if prompt else 0
    thought = completion.reasoning_tokens if completion else 0
    return usage.prompt_tokens, usage.completion_tokens, cached or 0, thought or 0


def our_stream(chunks: list[answers.Chunk]) -> dict[str, Any]:
    choices: dict[int, dict[str, Any]] = {}
    usage = None
    for chunk in chunks:
        usage = our_usage(chunk.usage) or usage
        for choice in chunk.choices:
            held = choices.setdefault(choice.index, {"text": "", "thinking": "", "calls": {}, "finish": None})
            held["text"] += choice.delta.content or ""
            held["thinking"] += getattr(choice.delta, "reasoning_content", None) or ""
            held["finish"] = choice.finish_reason or held["finish"]
            for call in choice.delta.tool_calls or []:
                known = held["calls"].setdefault(call.index, ["", "", ""])
                known[0] = known[0] or call.id or ""
                known[1] += (call.function.name if call.function else None) or ""
                known[2] += (call.function.arguments if call.function else None) or ""
    for held in choices.values():
        calls = (held["calls"][index] for index in sorted(held["calls"]))
        held["calls"] = [(name, (function, text)) for name, function, text in calls]
    return {"choices": [choices[index] for index in sorted(choices)], "usage": usage}


def cut(body: bytes, size: int) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


def streamed(speaker: Codec, request: Request, body: bytes, size: int) -> list[bytes]:
    decoder = speaker.decoder(request)
    chunks = [chunk for piece in cut(body, size) for chunk in decoder.feed(piece)]
    return chunks + decoder.end()


@pytest.fixture(scope="module")
def speaker() -> Codec:
    found = codec("openai")
    assert found is not None
    return found


@pytest.mark.parametrize("record", of_kind("whole"))
def test_whole_answer_says_what_the_vendor_said(record: dict[str, Any], speaker: Codec) -> None:
    body = body_of(record)
    expected = plain_whole(json.loads(body))
    for provider in providers_of(record):
        decoded = speaker.decode(body, request_of(record, provider))
        assert our_whole(answers.completion(decoded)) == expected, provider


@pytest.mark.parametrize("record", of_kind("whole"))
def test_whole_answer_given_to_a_stream_becomes_its_one_chunk(record: dict[str, Any], speaker: Codec) -> None:
    body = body_of(record)
    if "custom" in body.decode():
        pytest.skip("streams have no custom tool calls in OpenAI's types")
    chunks = streamed(speaker, request_of(record, providers_of(record)[0]), body, 1000)
    assert our_stream([answers.chunk(chunk) for chunk in chunks]) == plain_whole(json.loads(body))


@pytest.mark.parametrize("size", [10_000, 7, 1])
@pytest.mark.parametrize("record", of_kind("stream"))
def test_stream_says_what_the_vendor_said_however_it_is_cut(record: dict[str, Any], size: int, speaker: Codec) -> None:
    body = body_of(record)
    expected = plain_stream(body.decode())
    for provider in providers_of(record):
        chunks = streamed(speaker, request_of(record, provider), body, size)
        assert our_stream([answers.chunk(chunk) for chunk in chunks]) == expected, provider


@pytest.mark.parametrize("record", of_kind("stream"))
def test_stream_with_carriage_returns_and_without_spaces_is_the_same(record: dict[str, Any], speaker: Codec) -> None:
    request = request_of(record, providers_of(record)[0])
    body = body_of(record)
    other = b"\xef\xbb\xbf: hello\r\n\r\n" + body.replace(b"data: ", b"data:").replace(b"\n", b"\r\n")
    assert streamed(speaker, request, other, 11) == streamed(speaker, request, body, 10_000)


@pytest.mark.parametrize("record", of_kind("stream"))
def test_stream_that_breaks_before_its_end_is_not_an_answer(record: dict[str, Any], speaker: Codec) -> None:
    body = body_of(record)
    ends = [
        place
        for word in ('"finish_reason":"', '"finish_reason": "', "[DONE]")
        if (place := body.decode().find(word)) > 0
    ]
    first_end = len(body.decode()[: min(ends)].encode())
    request = request_of(record, providers_of(record)[0])
    for length in range(0, first_end, max(1, first_end // 40)):
        with pytest.raises(ProviderFault) as caught:
            streamed(speaker, request, body[:length], 64)
        assert caught.value.failure.status == 502


@pytest.mark.parametrize("record", of_kind("fault"))
def test_error_inside_a_stream_is_raised_with_its_status(record: dict[str, Any], speaker: Codec) -> None:
    errors = [json.loads(line[5:])["error"] for line in body_of(record).decode().splitlines() if '"error":{' in line]
    expected = errors[0].get("status_code") or errors[0]["code"]
    for provider in providers_of(record):
        for size in (10_000, 7, 1):
            with pytest.raises(ProviderFault) as caught:
                streamed(speaker, request_of(record, provider), body_of(record), size)
            assert caught.value.failure.status == expected
            assert caught.value.failure.message == errors[0]["message"]


CONTEXT_WORDS = ("maximum context length", "exceeds the available context size", "prompt too long")
CONTEXT_WORDS += ("length of all messages is too long",)


@pytest.mark.parametrize("record", of_kind("error"))
def test_error_answer_is_read(record: dict[str, Any], speaker: Codec) -> None:
    status, body = record["response"]["status"], body_of(record)
    data = json.loads(body)
    error = data.get("error", data)
    message = error if isinstance(error, str) else error.get("message") or error["detail"]
    failure = speaker.failure(status, body)
    assert failure.message == message
    assert failure.kind == ("context_window" if any(words in message for words in CONTEXT_WORDS) else None)
    assert class_for(status).__name__ == {
        400: "BadRequestError",
        401: "AuthenticationError",
        403: "PermissionDeniedError",
        404: "NotFoundError",
        500: "InternalServerError",
    }.get(status, class_for(status).__name__)
    request = request_of(record, providers_of(record)[0])
    with pytest.raises(ProviderFault) as caught:
        speaker.decode(body, request)
    assert caught.value.failure.message == message
    with pytest.raises(ProviderFault) as caught:
        streamed(speaker, request, body, 7)
    assert caught.value.failure.message == message


ASKED = [record for record in recordings() if record["request"] and record["request"]["json"]] if WIRE.is_dir() else []
NEVER_OURS = frozenset({"model", "messages", "stream", "stream_options"})


@pytest.mark.skipif(not WIRE.is_dir(), reason=MISSING)
@pytest.mark.parametrize("record", [pytest.param(record, id=record["id"]) for record in ASKED])
def test_encoding_a_recorded_request_gives_its_body(record: dict[str, Any], speaker: Codec) -> None:
    asked = record["request"]["json"]
    row = PROVIDERS[providers_of(record)[0]]
    parameters = {name: value for name, value in asked.items() if name not in NEVER_OURS and value is not None}
    accepted = speaker.parameters(row)
    if not row.open_ended:
        assert set(parameters) <= accepted, f"{row.name} takes {set(parameters) - accepted}"
    request = Request(
        "chat",
        row.name,
        asked.get("model", ""),
        "",
        asked["messages"],
        parameters,
        stream=bool(asked.get("stream")),
        stream_options=asked.get("stream_options"),
    )
    expected = {"model": "", **{name: value for name, value in asked.items() if value is not None}}
    if not expected.get("stream"):
        expected.pop("stream", None)
    if not row.stream_usage or not expected.get("stream_options"):
        expected.pop("stream_options", None)
    call = speaker.encode(request, row)
    assert json.loads(call.body) == expected
    assert call.path == "/chat/completions"


# Fuzz: whatever the bytes, an answer, a ProviderFault or a Misshapen; never another traceback.

WRONG = (None, "", "x", 0, -1, 1.5, True, [], {}, [None], ["x"], [[]], {"x": 1}, [{}])


def mutations(data: Any, source: random.Random, count: int) -> Iterator[Any]:
    paths = list(all_paths(data, ()))
    for path in source.sample(paths, min(count, len(paths))):
        yield replaced(data, path, source.choice(WRONG))


def all_paths(data: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for name, value in items:
        yield from all_paths(value, (*path, name))


def replaced(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = data.copy()
    copy[path[0]] = replaced(data[path[0]], path[1:], value)
    return copy


def read_anyhow(speaker: Codec, record: dict[str, Any], provider: str, body: bytes, whole: bool) -> str:
    request = request_of(record, provider)
    assert speaker.failure(400, body).message
    fault = None
    try:
        if whole:
            answer = answers.completion(speaker.decode(body, request))
            assert isinstance(answer.choices[0].message.content, str | None)
        else:
            for chunk in streamed(speaker, request, body, 4096):
                assert all(isinstance(choice.delta.content, str | None) for choice in answers.chunk(chunk).choices)
        return "answer"
    except ProviderFault as error:
        fault = error
    except Misshapen:
        return "misshapen"
    assert fault.failure.message
    assert fault.failure.status is not None
    return "fault"


def damaged(body: bytes, source: random.Random) -> Iterator[bytes]:
    for _ in range(6):
        yield body[: source.randrange(len(body) + 1)]
    for _ in range(6):
        flipped = bytearray(body)
        for _ in range(source.randrange(1, 4)):
            flipped[source.randrange(len(flipped))] = source.randrange(256)
        yield bytes(flipped)


@pytest.mark.parametrize("kind", ["whole", "stream", "error", "fault"])
def test_damaged_answers_are_faults_or_answers(kind: str, speaker: Codec) -> None:
    if not WIRE.is_dir():
        pytest.skip(MISSING)
    seen: Counter[str] = Counter()
    for record in (record for record in recordings() if kind_of(record) == kind):
        source = random.Random(record["id"])
        for body in damaged(body_of(record), source):
            for provider in providers_of(record)[:2]:
                seen[read_anyhow(speaker, record, provider, body, not record["response"]["chunks"])] += 1
    assert seen["fault"]


def test_answers_with_wrong_types_anywhere_are_faults_or_answers(speaker: Codec) -> None:
    if not WIRE.is_dir():
        pytest.skip(MISSING)
    seen: Counter[str] = Counter()
    for record in (record for record in recordings() if kind_of(record) == "whole"):
        source = random.Random(record["id"])
        for data in mutations(json.loads(body_of(record)), source, 60):
            body = json.dumps(data).encode()
            for provider in providers_of(record)[:2]:
                seen[read_anyhow(speaker, record, provider, body, whole=True)] += 1
    assert seen["answer"] > seen["fault"] > 0


def test_chunks_with_wrong_types_anywhere_are_faults_or_answers(speaker: Codec) -> None:
    if not WIRE.is_dir():
        pytest.skip(MISSING)
    seen: Counter[str] = Counter()
    for record in (record for record in recordings() if kind_of(record) == "stream"):
        source = random.Random(record["id"])
        events = [line[5:].strip() for line in body_of(record).decode().splitlines() if line.startswith("data:")]
        for event in source.sample([event for event in events if event.startswith("{")], 1):
            for data in mutations(json.loads(event), source, 40):
                body = f"data: {json.dumps(data)}\n\ndata: [DONE]\n\n".encode()
                for provider in providers_of(record)[:2]:
                    seen[read_anyhow(speaker, record, provider, body, whole=False)] += 1
    assert seen["answer"] > 0
