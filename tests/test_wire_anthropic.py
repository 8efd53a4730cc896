"""Recorded traffic with Anthropic, read by the codec and by others, must say the same.

The recordings are not part of the repository. REJOINDER_WIRE_DIR names their folder; without it, ../shared/wire beside
the repository is tried. What is expected comes from the raw JSON and from the vendor's own SDK, never from the codec.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest

from rejoinder.core import answers
from rejoinder.core.types import Request
from rejoinder.providers.anthropic import AnthropicCodec
from rejoinder.providers.base import Provider, ProviderFault
from tests.fixtures.damage import change, damage

FOLDER = Path(os.environ.get("REJOINDER_WIRE_DIR") or Path(__file__).resolve().parents[2] / "shared" / "wire")
FILES = [path for path in (FOLDER / "anthropic.jsonl", FOLDER / "vertex.jsonl") if path.exists()]
if not FILES:
    pytest.skip(f"no recordings in {FOLDER}; set REJOINDER_WIRE_DIR", allow_module_level=True)

Json = dict[str, Any]


def recordings() -> Iterator[Json]:
    for path in FILES:
        with path.open(encoding="utf-8") as lines:
            yield from (item for line in lines if (item := json.loads(line))["wire"] == "anthropic_messages")


def named(items: Iterable[Json]) -> list[Any]:
    return [pytest.param(item, id=item["id"]) for item in items]


ALL = list(recordings())
ANSWERED = [item for item in ALL if item["response"]["status"] == 200]
FAILED = [item for item in ALL if item["response"]["status"] != 200]
WHOLE = [item for item in ANSWERED if not item["stream"]]
STREAMED = [item for item in ANSWERED if item["stream"]]
ASKED = [item for item in ALL if item["request"] and item["request"]["json"]]

PROVIDER = Provider("anthropic", "https://api.anthropic.com", codec="anthropic")
CODEC = AnthropicCodec()
FINISHED = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def request_for(model: str | None, messages: list[Any] | None = None, **fields: Any) -> Request:
    fields.setdefault("parameters", {})
    return Request(
        "chat", "anthropic", model or "claude", "https://api.anthropic.com", messages=messages or [], **fields
    )


def body_of(item: Json) -> bytes:
    response = item["response"]
    return (response["body"] or "".join(response["chunks"] or ())).encode()


def message_by_sdk(body: bytes) -> Json:
    """What the vendor's SDK makes of a stream."""
    events = httpx2.Response(200, content=body, headers={"content-type": "text/event-stream"})
    http = httpx2.Client(transport=httpx2.MockTransport(lambda request: events))
    client = anthropic.Anthropic(api_key="none", http_client=http, max_retries=0)
    with client.beta.messages.stream(model="any", max_tokens=1, messages=[{"role": "user", "content": "?"}]) as stream:
        return stream.get_final_message().to_dict(mode="json")


def assert_says(answer: Json, message: Json) -> None:
    """`answer`, in OpenAI's shape, says what Anthropic's `message` says."""
    blocks, choice = message["content"], answer["choices"][0]
    said = choice["message"]
    assert said["role"] == "assistant"
    assert (said["content"] or "") == "".join(block["text"] for block in blocks if block["type"] == "text")
    calls = [block for block in blocks if block["type"] == "tool_use"]
    assert [(call["id"], call["function"]["name"]) for call in said.get("tool_calls") or ()] == [
        (block["id"], block["name"]) for block in calls
    ]
    for call, block in zip(said.get("tool_calls") or (), calls, strict=True):
        assert json.loads(call["function"]["arguments"]) == block["input"]
    thought = [block for block in blocks if block["type"] in ("thinking", "redacted_thinking")]
    assert (said.get("reasoning_content") or "") == "".join(block.get("thinking", "") for block in thought)
    assert said.get("thinking_blocks", []) == thought
    assert choice["finish_reason"] == FINISHED[message["stop_reason"]]
    assert choice["native_finish_reason"] == message["stop_reason"]
    assert (answer["id"], answer["model"]) == (message["id"], message["model"])
    assert_counts(answer["usage"], message["usage"])


def assert_counts(ours: Json, theirs: Json) -> None:
    cached, written = theirs.get("cache_read_input_tokens") or 0, theirs.get("cache_creation_input_tokens") or 0
    assert ours["prompt_tokens"] == theirs["input_tokens"] + cached + written
    assert ours["completion_tokens"] == theirs["output_tokens"]
    assert ours["total_tokens"] == ours["prompt_tokens"] + theirs["output_tokens"]
    assert ours["prompt_tokens_details"] == {"cached_tokens": cached, "cache_write_tokens": written}
    details = theirs.get("output_tokens_details")
    assert (ours.get("completion_tokens_details") or {}).get("reasoning_tokens") == (details or {}).get(
        "thinking_tokens"
    )
    for name in ("cache_creation", "server_tool_use", "service_tier"):
        assert ours.get(name) == theirs.get(name)


@pytest.mark.parametrize("item", named(WHOLE))
def test_a_whole_answer_says_what_was_recorded(item: Json) -> None:
    body = body_of(item)
    decoded = CODEC.decode(body, request_for(item["model"]))
    assert_says(json.loads(decoded), json.loads(body))
    answers.Completion.model_validate_json(decoded)


@pytest.mark.parametrize("item", named(STREAMED))
def test_a_stream_says_what_the_sdk_reads_in_it(item: Json) -> None:
    body = body_of(item)
    chunks = decoded_in_pieces(body, len(body), item["model"])
    assert_says(folded(chunks), message_by_sdk(body))
    for chunk in chunks:
        answers.Chunk.model_validate_json(chunk)


@pytest.mark.parametrize("item", named(STREAMED))
@pytest.mark.parametrize("size", [1, 7])
def test_it_does_not_matter_where_bytes_are_cut(item: Json, size: int) -> None:
    body = body_of(item)
    assert timeless(decoded_in_pieces(body, size, None)) == timeless(decoded_in_pieces(body, len(body), None))


@pytest.mark.parametrize("item", named(STREAMED))
def test_a_stream_and_the_same_answer_whole_are_equal(item: Json) -> None:
    body = body_of(item)
    message = message_by_sdk(body)
    whole = json.loads(CODEC.decode(json.dumps(message).encode(), request_for(None)))
    streamed = folded(decoded_in_pieces(body, 4096, None))
    for answer in (whole, streamed):
        answer.pop("created")
        answer.pop("object")
        for choice in answer["choices"]:
            for call in choice["message"].get("tool_calls") or ():
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    ours, theirs = (answer["choices"][0]["message"].pop("content_blocks", None) for answer in (streamed, whole))
    assert without_nulls(ours) == without_nulls(theirs)
    assert streamed == whole


@pytest.mark.parametrize("item", named(STREAMED))
def test_a_stream_that_is_cut_is_a_fault(item: Json) -> None:
    body = body_of(item)
    cut = body[: body.index(b"message_delta") - 20]
    with pytest.raises(ProviderFault) as caught:
        decoded_in_pieces(cut, 50, None)
    assert (caught.value.failure.code, caught.value.failure.status) == ("incomplete_stream", 502)


@pytest.mark.parametrize("item", named(FAILED))
def test_a_failure_says_what_the_vendor_says(item: Json) -> None:
    body, status = body_of(item), item["response"]["status"]
    failure = CODEC.failure(status, body)
    error = json.loads(body)["error"]
    assert (failure.message, failure.code) == (error["message"], error["type"])
    assert failure.kind == ("context_window" if error["message"].startswith("prompt is too long") else None)


@pytest.mark.parametrize("item", named(FAILED))
def test_an_error_inside_a_200_stands_for_the_recorded_status(item: Json) -> None:
    body = body_of(item)
    event = b"event: error\ndata: " + body + b"\n\n"
    faults = []
    for read in (
        lambda: CODEC.decode(body, request_for(None)),
        lambda: decoded_in_pieces(event, 9, None),
        lambda: decoded_in_pieces(body, 9, None),
    ):
        with pytest.raises(ProviderFault) as caught:
            read()
        faults.append(caught.value.failure)
    assert [fault.status for fault in faults] == [item["response"]["status"]] * 3


@pytest.mark.parametrize("item", named(ASKED))
def test_the_request_is_the_one_that_was_recorded(item: Json) -> None:
    recorded = item["request"]["json"]
    call = CODEC.encode(as_openai(recorded), PROVIDER)
    sent = json.loads(call.body)
    if "model" not in recorded:  # Vertex has it in the path
        del sent["model"]
    assert plain_form(sent) == plain_form(recorded)
    assert call.path == "/v1/messages"


@pytest.mark.parametrize("item", named(WHOLE))
def test_a_whole_answer_to_a_request_for_a_stream_is_streamed(item: Json) -> None:
    body = body_of(item)
    answer = folded(decoded_in_pieces(body, 99, item["model"]))
    assert_says(answer, json.loads(body))


@pytest.mark.parametrize("item", named(ANSWERED))
def test_damaged_answers_are_faults_and_nothing_else(item: Json) -> None:
    chance = random.Random(item["id"])
    body = body_of(item)
    faults = 0
    for _ in range(25):
        damaged = damage(body, chance) if chance.random() < 0.4 else changed(body, chance)
        size = chance.choice((3, 100, 10_000))
        for read in (
            lambda data=damaged: [CODEC.decode(data, request_for(None))],
            lambda data=damaged, size=size: decoded_in_pieces(data, size, None),
        ):
            fault = fault_in(lambda read=read: [json.loads(chunk) for chunk in read()])
            assert fault is None or 400 <= (fault.failure.status or 0) < 600
            faults += fault is not None
        assert CODEC.failure(500, damaged).message
    assert faults


def fault_in(read: Callable[[], object]) -> ProviderFault | None:
    try:
        read()
    except ProviderFault as fault:
        return fault
    return None


def decoded_in_pieces(body: bytes, size: int, model: str | None) -> list[bytes]:
    decoder = CODEC.decoder(request_for(model, stream=True))
    chunks = []
    for start in range(0, len(body), size):
        chunks += decoder.feed(body[start : start + size])
    return chunks + decoder.end()


def folded(chunks: list[bytes]) -> Json:
    """One answer out of chunks."""
    message: Json = {"role": None, "content": None}
    answer: Json = {}
    ending: Json = {}
    for data in chunks:
        chunk = json.loads(data)
        for choice in chunk.pop("choices"):
            ending.update({name: value for name, value in choice.items() if name not in ("delta", "index")})
            add(message, choice["delta"])
        answer.update(chunk)
    return {**answer, "choices": [{"index": 0, "message": message, **ending}]}


def add(message: Json, delta: Json) -> None:
    for name, value in delta.items():
        if name == "tool_calls":
            calls = message.setdefault("tool_calls", [])
            for piece in value:
                index = piece.pop("index")
                assert index in (len(calls) - 1, len(calls)), "tool calls are counted from 0"
                if index == len(calls):
                    assert piece["id"]
                    assert piece["function"]["name"]
                    calls.append(piece)
                else:
                    calls[index]["function"]["arguments"] += piece["function"]["arguments"]
        elif isinstance(value, (str, list)) and name != "role":
            message[name] = (message.get(name) or type(value)()) + value
        elif value is not None:
            message[name] = value


def timeless(chunks: list[bytes]) -> list[Json]:
    return [{**json.loads(chunk), "created": 0} for chunk in chunks]


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def as_openai(recorded: Json) -> Request:
    """The recorded request in OpenAI's words."""
    asked = dict(recorded)
    messages: list[Json] = []
    for system in as_blocks(asked.pop("system", [])):
        messages.append({"role": "system", "content": [system]})
    for message in asked.pop("messages"):
        messages += as_messages(message["role"], as_blocks(message["content"]))
    if "tools" in asked:
        asked["tools"] = [as_function(tool) for tool in asked["tools"]]
    if "stop_sequences" in asked:
        asked["stop"] = asked.pop("stop_sequences")
    if "tool_choice" in asked:
        choice = asked["tool_choice"]
        asked["parallel_tool_calls"] = not choice.get("disable_parallel_tool_use", False)
        named_tool = {"type": "function", "function": {"name": choice.get("name")}}
        words = {"auto": "auto", "any": "required", "none": "none", "tool": named_tool}
        asked["tool_choice"] = words[choice["type"]]
    output = asked.get("output_config", {})
    if "format" in output:
        schema = output["format"]["schema"]
        asked["response_format"] = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
        asked["output_config"] = {name: value for name, value in output.items() if name != "format"}
    extra = {"anthropic_version": asked.pop("anthropic_version")} if "anthropic_version" in asked else None
    stream, model = asked.pop("stream", False), asked.pop("model", None)
    return request_for(model, messages, parameters=asked, extra_body=extra, stream=stream)


def as_blocks(content: Any) -> list[Json]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def as_messages(role: str, blocks: list[Json]) -> Iterator[Json]:
    if role == "assistant":
        yield as_assistant(blocks)
        return
    for block in blocks:
        if block["type"] == "tool_result":
            result = {"role": "tool", "tool_call_id": block["tool_use_id"], "content": block["content"]}
            yield {**result, "is_error": block["is_error"]} if "is_error" in block else result
    parts = [as_part(block) for block in blocks if block["type"] != "tool_result"]
    if parts:
        yield {"role": role, "content": parts}


def as_assistant(blocks: list[Json]) -> Json:
    kinds = {block["type"] for block in blocks}
    if kinds - {"thinking", "redacted_thinking", "text", "tool_use"}:
        return {
            "role": "assistant",
            "content": "".join(block.get("text", "") for block in blocks),
            "content_blocks": blocks,
        }
    message: Json = {"role": "assistant", "content": [block for block in blocks if block["type"] == "text"]}
    thought = [block for block in blocks if block["type"] in ("thinking", "redacted_thinking")]
    calls = [block for block in blocks if block["type"] == "tool_use"]
    if thought:
        message["thinking_blocks"] = thought
        message["reasoning_content"] = "".join(block.get("thinking", "") for block in thought)
    if calls:
        message["tool_calls"] = [
            {
                "id": block["id"],
                "type": "function",
                "function": {"name": block["name"], "arguments": json.dumps(block["input"])},
            }
            for block in calls
        ]
    return message


def as_part(block: Json) -> Json:
    source = block.get("source", {})
    if block["type"] == "image" and source["type"] == "base64":
        part = {"type": "image_url", "image_url": {"url": f"data:{source['media_type']};base64,{source['data']}"}}
    elif block["type"] == "image" and source["type"] == "file":
        part = {"type": "file", "file": {"file_id": source["file_id"], "format": "image/png"}}
    elif block["type"] == "document" and source["type"] == "url" and not {"title", "citations"} & block.keys():
        part = {"type": "file", "file": {"file_data": source["url"]}}
    else:
        return block
    return {**part, "cache_control": block["cache_control"]} if "cache_control" in block else part


def as_function(tool: Json) -> Json:
    if "input_schema" not in tool or tool.get("type", "custom") != "custom":
        return tool
    function = {name: value for name, value in tool.items() if name not in ("type", "input_schema")}
    return {"type": "function", "function": {**function, "parameters": tool["input_schema"]}}


def plain_form(body: Json) -> Json:
    """One form for what means the same to the vendor."""
    plain = {name: value for name, value in body.items() if value not in (None, [], False)}
    system = as_blocks(body.get("system", []))
    if all(set(block) == {"type", "text"} for block in system):
        plain["system"] = "\n\n".join(block["text"] for block in system)
    turns: list[Json] = []
    for message in body["messages"]:
        blocks = [plain_block(block) for block in as_blocks(message["content"])]
        if turns and turns[-1]["role"] == message["role"]:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": message["role"], "content": blocks})
    plain["messages"] = turns
    if body.get("tools"):
        plain["tools"] = [plain_tool(tool) for tool in body["tools"]]
    if "tool_choice" in plain:
        plain["tool_choice"] = {name: value for name, value in plain["tool_choice"].items() if value is not False}
    return plain


def plain_block(block: Json) -> Json:
    content = block.get("content")
    if block["type"] == "tool_result" and isinstance(content, str):
        return {**block, "content": as_blocks(content)}
    return block


def plain_tool(tool: Json) -> Json:
    schema = tool.get("input_schema")
    if isinstance(schema, dict):  # without a type the vendor answers 400: "input_schema.type: Field required"
        tool = {**tool, "input_schema": {"type": "object", **schema}}
    return {name: value for name, value in tool.items() if (name, value) not in (("type", "custom"), ("strict", False))}


PART = {"type": "text"}


def changed(body: bytes, chance: random.Random) -> bytes:
    """`body` as JSON, or as events with JSON, of which one value has another type."""
    text = body.decode()
    if not text.startswith("event:"):
        return json.dumps(change(json.loads(text), chance, PART)).encode()
    lines = text.split("\n")
    data = [place for place, line in enumerate(lines) if line.startswith("data:")]
    place = chance.choice(data)
    lines[place] = "data: " + json.dumps(change(json.loads(lines[place][5:]), chance, PART))
    return "\n".join(lines).encode()
