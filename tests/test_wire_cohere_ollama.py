"""Recorded traffic of Cohere, Ollama and Azure, read by our codecs and, independently, by the plain readings here.

The recordings are not part of the project. They are looked for in REJOINDER_WIRE_DIR, else beside the repository.
"""

from __future__ import annotations

import functools
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rejoinder.core import answers, endpoint_answers
from rejoinder.core.api_errors import class_for
from rejoinder.core.shape import Misshapen
from rejoinder.core.types import Request
from rejoinder.providers.base import Codec, ProviderFault
from rejoinder.providers.table import PROVIDERS, codec
from rejoinder.router.fold import fold

WIRE = Path(os.environ.get("REJOINDER_WIRE_DIR") or Path(__file__).resolve().parents[2] / "shared" / "wire")
PLACE = "REJOINDER_WIRE_DIR" if os.environ.get("REJOINDER_WIRE_DIR") else "../shared/wire"
MISSING = f"no recorded traffic: {PLACE} is not a folder"

Json = dict[str, Any]
KINDS = {
    ("cohere", "cohere_v2_chat"): ("cohere", "chat"),
    ("cohere", "cohere_embed"): ("cohere", "embedding"),
    ("cohere", "rerank"): ("cohere", "rerank"),
    ("ollama", "ollama_chat"): ("ollama_chat", "chat"),
    ("ollama", "ollama_embed"): ("ollama_chat", "embedding"),
    ("azure", "openai_chat"): ("azure", "chat"),
    ("azure", "openai_embeddings"): ("azure", "embedding"),
}
"""Row and endpoint of what was recorded, by vendor and wire."""


@functools.cache
def recordings() -> list[Json]:
    lines = (line for file in sorted(WIRE.glob("*.jsonl")) for line in file.read_text("utf-8").splitlines())
    return [item for line in lines if ((item := json.loads(line))["provider"], item["wire"]) in KINDS]


def chosen(is_chosen: Callable[[Json], bool]) -> list[Any]:
    if not WIRE.is_dir():
        return [pytest.param(None, marks=pytest.mark.skip(reason=MISSING))]
    return [pytest.param(item, id=item["id"]) for item in recordings() if is_chosen(item)]


def is_chat(item: Json) -> bool:
    return KINDS[item["provider"], item["wire"]][1] == "chat"


def is_good(item: Json) -> bool:
    return item["response"]["status"] == 200


def is_stream(item: Json) -> bool:
    return item["response"]["chunks"] is not None


def path_of(item: Json) -> str:
    return item["request"]["path"] if item["request"] else ""


def speaker_of(item: Json) -> Codec:
    row, endpoint = KINDS[item["provider"], item["wire"]]
    found = codec(PROVIDERS[row].codec, endpoint)
    assert found is not None
    return found


def request_for(item: Json, messages: Any = (), parameters: Any = None, **fields: Any) -> Request:
    row, endpoint = KINDS[item["provider"], item["wire"]]
    base = PROVIDERS[row].base_url or "https://resource.openai.azure.com"
    return Request(endpoint, row, item["model"] or "some-model", base, messages, parameters or {}, **fields)


def body_of(item: Json) -> bytes:
    response = item["response"]
    return (response["body"] if response["chunks"] is None else "".join(response["chunks"])).encode()


def events_of(item: Json) -> list[Json]:
    """The recorded events, parsed: lines of JSON, or of `data: ` and JSON."""
    lines = (line.removeprefix("data: ") for chunk in item["response"]["chunks"] for line in chunk.splitlines())
    return [json.loads(line) for line in lines if line.startswith("{")]


# The plain readings: of each protocol what an answer says, as (text, thinking, calls, finish, counts, rest).


def plain(item: Json) -> Json:
    read = {"cohere": plain_cohere, "ollama": plain_ollama, "azure": plain_openai}[item["provider"]]
    return read(item)


def plain_cohere(item: Json) -> Json:
    if not is_stream(item):
        answer = json.loads(item["response"]["body"])
        message = answer["message"]
        parts = message.get("content") or []
        return {
            "text": "".join(part["text"] for part in parts if part["type"] == "text"),
            "thinking": "".join(part["thinking"] for part in parts if part["type"] == "thinking"),
            "calls": cohere_calls(message.get("tool_calls") or []),
            "plan": message.get("tool_plan") or "",
            "citations": message.get("citations") or [],
            **cohere_end(answer),
        }
    text, thinking, plan, calls, citations, end = "", "", "", {}, [], {}
    for event in events_of(item):
        said = event.get("delta", {}).get("message", {})
        if event["type"] in ("content-start", "content-delta"):
            text += said["content"].get("text", "")
            thinking += said["content"].get("thinking", "")
        elif event["type"] == "tool-plan-delta":
            plan += said["tool_plan"]
        elif event["type"] == "tool-call-start":
            calls[event["index"]] = said["tool_calls"]
        elif event["type"] == "tool-call-delta":
            calls[event["index"]]["function"]["arguments"] += said["tool_calls"]["function"]["arguments"]
        elif event["type"] == "citation-start":
            citations.append(said["citations"])
        elif event["type"] == "message-end":
            end = event["delta"]
    said = {"text": text, "thinking": thinking, "plan": plan, "citations": citations}
    return {**said, "calls": cohere_calls(list(calls.values())), **cohere_end(end)}


def cohere_calls(calls: list[Json]) -> list[Any]:
    return [(call["id"], call["function"]["name"], json.loads(call["function"]["arguments"] or "{}")) for call in calls]


def cohere_end(answer: Json) -> Json:
    words = {"COMPLETE": "stop", "MAX_TOKENS": "length", "TOOL_CALL": "tool_calls", "STOP_SEQUENCE": "stop"}
    usage = answer["usage"]
    counts = usage["tokens"]
    return {
        "finish": words[answer["finish_reason"]],
        "counts": (
            counts["input_tokens"],
            counts["output_tokens"],
            usage.get("cached_tokens", 0),
            counts.get("reasoning_tokens", 0),
        ),
        "kept": usage["billed_units"],
    }


def plain_ollama(item: Json) -> Json:
    events = events_of(item) if is_stream(item) else [json.loads(item["response"]["body"])]
    messages, last = [event["message"] for event in events], events[-1]
    calls = [call for message in messages for call in message.get("tool_calls") or []]
    return {
        "text": "".join(message.get("content", "") for message in messages),
        "thinking": "".join(message.get("thinking", "") for message in messages),
        "calls": [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls],
        "plan": "",
        "citations": [],
        "finish": "tool_calls" if calls else last["done_reason"],
        "counts": (last["prompt_eval_count"], last["eval_count"], 0, 0),
        "kept": {name: value for name, value in last.items() if name.endswith("_duration")},
    }


def plain_openai(item: Json) -> Json:
    if is_stream(item):
        pieces = events_of(item)
        choices = [choice for piece in pieces for choice in piece["choices"]]
        said = [choice["delta"] for choice in choices]
    else:
        pieces = [json.loads(item["response"]["body"])]
        choices = pieces[0]["choices"]
        said = [choices[0]["message"]]
    calls: dict[int, list[str]] = {}
    for piece in said:
        for place, call in enumerate(piece.get("tool_calls") or []):
            held = calls.setdefault(call.get("index", place), ["", "", ""])
            held[0] += call.get("id") or ""
            held[1] += call["function"].get("name") or ""
            held[2] += call["function"].get("arguments") or ""
    usage = next((piece["usage"] for piece in reversed(pieces) if piece.get("usage")), None)
    filters: Json = {}
    for choice in choices:
        filters.update(choice.get("content_filter_results") or {})
    return {
        "text": "".join(piece.get("content") or "" for piece in said),
        "thinking": "",
        "calls": [(identity, name, json.loads(arguments)) for identity, name, arguments in calls.values()],
        "plan": "",
        "citations": [],
        "finish": next(choice["finish_reason"] for choice in choices if choice.get("finish_reason")),
        "counts": usage
        and (
            usage["prompt_tokens"],
            usage["completion_tokens"],
            (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
            (usage.get("completion_tokens_details") or {}).get("reasoning_tokens", 0),
        ),
        "kept": filters,
    }


# What callers read in our answers.


def said_by(answer: answers.Completion, item: Json) -> Json:
    (choice,) = answer.choices
    message = choice.message
    kept = {
        "cohere": lambda: answer.usage and answer.usage.billed_units,
        "ollama": lambda: {name: value for name, value in answer.items() if name.endswith("_duration")},
        "azure": lambda: choice.get("content_filter_results") or {},
    }
    return {
        "text": message.content or "",
        "thinking": message.get("reasoning_content") or "",
        "calls": [
            (call.id, call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or []
        ],
        "plan": message.get("tool_plan") or "",
        "citations": message.get("citations") or [],
        "finish": choice.finish_reason,
        "counts": counted(answer.usage),
        "kept": kept[item["provider"]](),
    }


def counted(usage: Any) -> Any:
    if usage is None:
        return None
    read, written = usage.prompt_tokens_details, usage.completion_tokens_details
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    return (
        usage.prompt_tokens,
        usage.completion_tokens,
        getattr(read, "cached_tokens", None) or 0,
        getattr(written, "reasoning_tokens", None) or 0,
    )


def streamed(item: Json, body: bytes, size: int) -> list[bytes]:
    decoder = speaker_of(item).decoder(request_for(item, stream=True))
    chunks = [
        chunk for start in range(0, len(body), size) for chunk in decoder.feed(body[start : start + size])
    ] + decoder.end()
    for chunk in chunks:
        answers.chunk(chunk)
    return chunks


@pytest.mark.parametrize("item", chosen(lambda item: is_chat(item) and is_good(item) and not is_stream(item)))
def test_whole_answer_says_what_the_vendor_said(item: Json) -> None:
    answer = answers.completion(speaker_of(item).decode(body_of(item), request_for(item)))
    assert said_by(answer, item) == plain(item)


@pytest.mark.parametrize("item", chosen(lambda item: is_chat(item) and is_good(item) and is_stream(item)))
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_stream_says_what_the_vendor_said_however_it_is_cut(item: Json, size: int) -> None:
    answer = answers.completion(fold(streamed(item, body_of(item), size)))
    assert said_by(answer, item) == plain(item)


@pytest.mark.parametrize("item", chosen(lambda item: is_chat(item) and is_good(item) and not is_stream(item)))
def test_whole_answer_to_a_request_for_a_stream_is_its_one_chunk(item: Json) -> None:
    answer = answers.completion(fold(streamed(item, body_of(item), 100)))
    assert said_by(answer, item) == plain(item)


@pytest.mark.parametrize("item", chosen(lambda item: is_chat(item) and is_stream(item) and item["provider"] != "azure"))
def test_stream_that_breaks_before_its_end_is_no_answer(item: Json) -> None:
    chunks = item["response"]["chunks"]
    end = next(place for place, chunk in enumerate(chunks) if '"done":true' in chunk or "message-end" in chunk)
    whole = "".join(chunks[:end]).encode()
    for body in (whole, whole + chunks[end][:60].encode(), whole[: len(whole) // 2]):
        with pytest.raises(ProviderFault) as caught:
            streamed(item, body, 50)
        assert (caught.value.failure.code, caught.value.failure.status) == ("incomplete_stream", 502)


@pytest.mark.parametrize("item", chosen(lambda item: not is_good(item)))
def test_error_answer_is_read(item: Json) -> None:
    body, status = body_of(item), item["response"]["status"]
    data = json.loads(body)
    failure = speaker_of(item).failure(status, body)
    error = data["error"] if isinstance(data.get("error"), dict) else data
    assert failure.message == error["message"]
    assert failure.kind == ("context_window" if "size limit exceeded" in error["message"] else None)
    assert class_for(status).__name__ in ("BadRequestError", "NotFoundError", "AuthenticationError")


@pytest.mark.parametrize("item", chosen(lambda item: is_chat(item) and not is_good(item)))
def test_error_inside_a_200_is_a_fault(item: Json) -> None:
    body = body_of(item)
    for read in (
        lambda: speaker_of(item).decode(body, request_for(item)),
        lambda: streamed(item, body, 9),
    ):
        with pytest.raises(ProviderFault) as caught:
            read()
        assert 400 <= (caught.value.failure.status or 0) < 600


@pytest.mark.parametrize(
    "item", chosen(lambda item: item["wire"] in ("cohere_embed", "ollama_embed", "openai_embeddings") and is_good(item))
)
def test_vectors_are_the_recorded_ones(item: Json) -> None:
    asked, theirs = item["request"]["json"], json.loads(item["response"]["body"])
    answer = endpoint_answers.embeddings(speaker_of(item).decode(body_of(item), request_for(item, parameters=asked)))
    vectors = theirs.get("embeddings") or [vector["embedding"] for vector in theirs["data"]]
    vectors = vectors["float"] if isinstance(vectors, dict) else vectors
    assert [vector.embedding for vector in answer.data] == vectors
    assert [vector.index for vector in answer.data] == list(range(len(vectors)))
    billed = theirs.get("meta", {}).get("billed_units", {}).get("input_tokens")
    tokens = billed or theirs.get("prompt_eval_count") or theirs["usage"]["total_tokens"]
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (tokens, tokens)


@pytest.mark.parametrize("item", chosen(lambda item: item["wire"] == "rerank"))
def test_ranking_is_the_recorded_one(item: Json) -> None:
    asked, theirs = item["request"]["json"], json.loads(item["response"]["body"])
    request = request_for(item, parameters={**asked, "return_documents": True})
    answer = endpoint_answers.READERS["rerank"](speaker_of(item).decode(body_of(item), request))
    found = [(result["index"], result["relevance_score"]) for result in answer["results"]]
    assert found == [(result["index"], result["relevance_score"]) for result in theirs["results"]]
    assert [result["document"]["text"] for result in answer["results"]] == [
        asked["documents"][index] for index, _ in found
    ]
    assert answer.meta == theirs["meta"]


# Requests.


@pytest.mark.parametrize("item", chosen(lambda item: item["request"] is not None and "/v1/embed" not in path_of(item)))
def test_encoding_a_recorded_request_gives_its_body(item: Json) -> None:
    recorded = item["request"]["json"]
    words = {"cohere_v2_chat": from_cohere, "ollama_chat": from_ollama}.get(item["wire"], from_openai)
    row, endpoint = KINDS[item["provider"], item["wire"]]
    if endpoint == "embedding":
        words = from_embedding
    elif endpoint == "rerank":
        words = lambda item, asked: request_for(item, parameters=asked)  # noqa: E731
    asked = {name: value for name, value in recorded.items() if name != "model"}
    request = words(item, asked)
    call = speaker_of(item).encode(request, PROVIDERS[row])
    ours = tidy(json.loads(call.body))
    theirs = tidy(recorded)
    theirs.setdefault("model", ours["model"])  # Azure has it in the URL
    if endpoint == "embedding":
        ours = {name: value for name, value in ours.items() if name in theirs}
    assert ours == theirs
    if item["provider"] != "azure":
        assert call.path == path_of(item)


def tidy(value: Any) -> Any:
    """Without what says nothing: null, "", empty lists and dicts, `stream: false`; texts alone in a list as texts."""
    if isinstance(value, dict):
        kept = {name: tidy(item) for name, item in value.items() if (name, item) != ("stream", False)}
        return {name: item for name, item in kept.items() if item not in (None, "", [], {}, [{"type": "text"}])}
    return [tidy(item) for item in value] if isinstance(value, list) else value


def from_cohere(item: Json, asked: Json) -> Request:
    messages, stream = asked.pop("messages"), asked.pop("stream", False)
    if "tool_choice" in asked:
        asked["tool_choice"] = asked["tool_choice"].lower()
    return request_for(item, messages, asked, stream=stream)


def from_ollama(item: Json, asked: Json) -> Request:
    messages = []
    for message in asked.pop("messages"):
        said = {name: value for name, value in message.items() if name not in ("thinking", "tool_name", "tool_calls")}
        if "thinking" in message:
            said["reasoning_content"] = message["thinking"]
        if "tool_calls" in message:
            said["tool_calls"] = [
                {**call, "id": f"call_{place}", "function": as_text(call["function"])}
                for place, call in enumerate(message["tool_calls"])
            ]
        if "tool_name" in message:
            said["tool_call_id"] = "call_0"
        messages.append(said)
    if "format" in asked:
        schema = asked.pop("format")
        asked["response_format"] = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
    options, stream = asked.pop("options"), asked.pop("stream")
    options = {("max_tokens" if name == "num_predict" else name): value for name, value in options.items()}
    return request_for(item, messages, {**asked, **options}, stream=stream)


def as_text(function: Json) -> Json:
    return {**function, "arguments": json.dumps(function["arguments"])}


def from_openai(item: Json, asked: Json) -> Request:
    messages, stream, options = asked.pop("messages"), asked.pop("stream", False), asked.pop("stream_options", None)
    return request_for(item, messages, asked, stream=stream, stream_options=options)


def from_embedding(item: Json, asked: Json) -> Request:
    names = {"texts": "input", "output_dimension": "dimensions"}
    return request_for(item, (), {names.get(name, name): value for name, value in asked.items() if value is not None})


# Damage.


def damaged(body: bytes, source: random.Random) -> Iterator[bytes]:
    for _ in range(12):
        data = bytearray(body)
        for _ in range(source.randint(1, 3)):
            start, length = source.randrange(len(data) or 1), source.choice((1, 2, 30, 400))
            data[start : start + length] = source.choice(
                (b"", source.randbytes(3), b'"', b"}", b"null", b"\n\n", b"[]", bytes(data[start : start + length]) * 2)
            )
        yield bytes(data)


def with_other_types(value: Any, source: random.Random) -> Any:
    """`value` with one thing in it replaced by a thing of another type."""
    if isinstance(value, dict) and value and source.random() < 0.9:
        name = source.choice(sorted(value))
        return {**value, name: with_other_types(value[name], source)}
    if isinstance(value, list) and value and source.random() < 0.9:
        place = source.randrange(len(value))
        return [*value[:place], with_other_types(value[place], source), *value[place + 1 :]]
    return source.choice((None, 7, -1.5, "x", [], {}, [None], {"a": 1}, True, "9" * 30, 1e308, [[1]]))


def answers_or_faults(read: Callable[[], object]) -> str:
    """Any other exception fails the test."""
    try:
        read()
    except ProviderFault as fault:
        return "fault" if 400 <= (fault.failure.status or 0) < 600 else "fault without a status"
    except Misshapen:
        return "misshapen"
    return "answer"


@pytest.mark.parametrize("item", chosen(is_good))
def test_damaged_answers_are_answers_or_faults(item: Json) -> None:
    source, speaker, body = random.Random(item["id"]), speaker_of(item), body_of(item)
    body = body if len(body) < 30_000 else body[:15_000] + body[-15_000:]
    reader = answers.completion if is_chat(item) else endpoint_answers.READERS[KINDS[item["provider"], item["wire"]][1]]
    seen = set()
    for data in damaged(body, source):
        if is_chat(item):
            seen.add(answers_or_faults(lambda data=data: streamed(item, data, 97)))
        seen.add(answers_or_faults(lambda data=data: reader(speaker.decode(data, request_for(item)))))
        assert speaker.failure(500, data).message
    assert seen - {"answer"}
    assert "fault without a status" not in seen


@pytest.mark.parametrize("item", chosen(lambda item: is_good(item) and not is_stream(item) and is_chat(item)))
def test_whole_answers_with_wrong_types_are_answers_or_faults(item: Json) -> None:
    source, speaker, answer = random.Random(item["id"]), speaker_of(item), json.loads(item["response"]["body"])
    for _ in range(60):
        data = json.dumps(with_other_types(answer, source)).encode()
        answers_or_faults(lambda data=data: answers.completion(speaker.decode(data, request_for(item))))
        answers_or_faults(lambda data=data: streamed(item, data, 1000))


@pytest.mark.parametrize("item", chosen(lambda item: is_good(item) and is_stream(item)))
def test_events_with_wrong_types_are_answers_or_faults(item: Json) -> None:
    source, events = random.Random(item["id"]), events_of(item)
    form = b"%s\n" if item["provider"] == "ollama" else b"data: %s\n\n"
    for _ in range(40):
        changed = list(events)
        place = source.randrange(len(changed))
        changed[place] = with_other_types(changed[place], source)
        body = b"".join(form % json.dumps(event).encode() for event in changed)
        answers_or_faults(lambda body=body: streamed(item, body, 5000))
