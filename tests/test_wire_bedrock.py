"""Recorded traffic with Bedrock, and with Claude there and on Vertex AI, read by the codecs and by others.

The recordings are not part of the repository. REJOINDER_WIRE_DIR names their folder; without it, ../shared/wire beside
the repository is tried. What is expected comes from the raw JSON, and from botocore's own parser of event streams.
"""

from __future__ import annotations

import base64
import json
import os
import random
import struct
from binascii import crc32
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from rejoinder.core import answers, shape
from rejoinder.core.types import Request
from rejoinder.providers import table
from rejoinder.providers.base import Codec, ProviderFault, Reply
from rejoinder.router.fold import fold
from tests.fixtures.damage import change, damage

botocore = pytest.importorskip("botocore.eventstream", reason="botocore's parser is the reference here")

FOLDER = Path(os.environ.get("REJOINDER_WIRE_DIR") or Path(__file__).resolve().parents[2] / "shared" / "wire")
FILES = [path for path in (FOLDER / "bedrock.jsonl", FOLDER / "vertex.jsonl") if path.exists()]
if not FILES:
    pytest.skip(f"no recordings in {FOLDER}; set REJOINDER_WIRE_DIR", allow_module_level=True)

Json = dict[str, Any]
ROWS = {
    "bedrock_converse": "bedrock",
    "bedrock_invoke": "bedrock_invoke",
    "anthropic_messages": "vertex_anthropic",
}
FINISHED = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
}


def recordings() -> Iterator[Json]:
    for path in FILES:
        with path.open(encoding="utf-8") as lines:
            yield from (item for line in lines if (item := json.loads(line))["wire"] in ROWS)


def is_spoken(item: Json) -> bool:
    """Not so: prompts, which are no conversations; `test_bedrock_models.py` has them."""
    return "mistral." not in item["model"] or item["wire"] != "bedrock_invoke"


def named(items: Iterable[Json]) -> list[Any]:
    return [pytest.param(item, id=item["id"]) for item in items]


ALL = list(recordings())
ANSWERED = [item for item in ALL if item["response"]["status"] == 200 and is_spoken(item)]
FAILED = [item for item in ALL if item["response"]["status"] != 200]
WHOLE = [item for item in ANSWERED if not item["stream"]]
STREAMED = [item for item in ANSWERED if item["stream"]]
ASKED = [
    item
    for item in ALL
    if item["request"] and item["request"]["json"] and is_spoken(item) and "meta." not in item["model"]
]


def codec(item: Json) -> Codec:
    found = table.codec(table.PROVIDERS[ROWS[item["wire"]]].codec)
    assert found is not None
    return found


def request_for(item: Json, **fields: Any) -> Request:
    base = {"parameters": {}, "messages": [], "api_base": "https://example.test/v1", "stream": item["stream"]}
    provider, model = ROWS[item["wire"]], item["model"]
    return Request(**{"endpoint": "chat", "provider": provider, "model": model, **base, **fields})


def body_of(item: Json) -> bytes:
    response = item["response"]
    if response["chunks"]:
        return b"".join(base64.b64decode(chunk) for chunk in response["chunks"])
    return (response["body"] or "").encode()


# A plain reading of what was recorded


class Reading:
    """What an answer says: its blocks as simple values, its reason, its counts."""

    def __init__(self) -> None:
        self.text = self.reasoning = ""
        self.signed: list[str] = []
        self.calls: list[list[Any]] = []
        self.citations: list[Any] = []
        self.reason = ""
        self.counts = (0, 0, 0, 0)


def of_message(blocks: list[Json]) -> Reading:
    said = Reading()
    for block in blocks:
        if "text" in block:
            said.text += block["text"]
        elif "reasoningContent" in block:
            held = block["reasoningContent"]
            said.reasoning += held.get("reasoningText", {}).get("text", "")
            proof = held.get("redactedContent") or held.get("reasoningText", {}).get("signature")
            said.signed += [proof] if proof else []
        elif "toolUse" in block and block["toolUse"].get("type") != "server_tool_use":
            use = block["toolUse"]
            said.calls.append([use["toolUseId"], use["name"], use["input"]])
        elif "citationsContent" in block:
            said.citations += block["citationsContent"]["citations"]
    return said


def counts_of(usage: Json) -> tuple[int, int, int, int]:
    read = usage.get("cacheReadInputTokens", usage.get("cacheReadInputTokenCount", 0))
    written = usage.get("cacheWriteInputTokens", usage.get("cacheWriteInputTokenCount", 0))
    return usage["inputTokens"] + read + written, usage["outputTokens"], read, written


def whole_reading(body: Json) -> Reading:
    if "type" in body:
        return of_anthropic(body)
    said = of_message(body["output"]["message"]["content"])
    said.reason, said.counts = body["stopReason"], counts_of(body["usage"])
    return said


def of_anthropic(message: Json) -> Reading:
    said = Reading()
    for block in message["content"]:
        if block["type"] == "text":
            said.text += block["text"]
        elif block["type"] == "tool_use":
            said.calls.append([block["id"], block["name"], block["input"]])
    usage = message["usage"]
    read, written = usage.get("cache_read_input_tokens", 0), usage.get("cache_creation_input_tokens", 0)
    said.counts = (usage["input_tokens"] + read + written, usage["output_tokens"], read, written)
    said.reason = message["stop_reason"]
    return said


def events_of(body: bytes) -> list[tuple[str, Json]]:
    """A stream's events by botocore's parser, those inside chunks taken out."""
    buffer = botocore.EventStreamBuffer()
    buffer.add_data(body)
    events = []
    for message in buffer:
        kind, data = message.headers[":event-type"], json.loads(message.payload)
        if kind == "chunk":
            data = json.loads(base64.b64decode(data["bytes"]))
            kind = data["type"] if "type" in data else next(name for name in data if name[0] != "a")
            data = data if "type" in data else data[kind]
        events.append((kind, data))
    return events


def streamed_reading(body: bytes) -> Reading:
    events = events_of(body)
    if any(kind == "message_start" for kind, _ in events):
        return anthropic_stream(events)
    blocks: dict[int, Json] = {}
    reason, usage = "", {}
    for kind, data in events:
        block = blocks.setdefault(data.get("contentBlockIndex", -1), {})
        if kind == "contentBlockStart" and "toolUse" in data["start"]:
            block["toolUse"] = {**data["start"]["toolUse"], "input": ""}
        elif kind == "contentBlockDelta":
            delta = data["delta"]
            if "text" in delta:
                block["text"] = block.get("text", "") + delta["text"]
            elif "toolUse" in delta:
                block["toolUse"]["input"] += delta["toolUse"]["input"]
            elif "citation" in delta:
                block.setdefault("citationsContent", {"citations": []})["citations"].append(delta["citation"])
            elif "reasoningContent" in delta:
                held = block.setdefault("reasoningContent", {}).setdefault("reasoningText", {"text": ""})
                held["text"] += delta["reasoningContent"].get("text", "")
        elif kind == "messageStop":
            reason = data["stopReason"]
        elif kind == "metadata":
            usage = data["usage"]
    for block in blocks.values():
        if "toolUse" in block:
            block["toolUse"]["input"] = json.loads(block["toolUse"]["input"] or "{}")
    said = of_message([block for _, block in sorted(blocks.items())])
    said.reason, said.counts = reason, counts_of(usage)
    return said


def anthropic_stream(events: list[tuple[str, Json]]) -> Reading:
    message: Json = {}
    for kind, data in events:
        if kind == "message_start":
            message = data["message"]
        elif kind == "content_block_start":
            message["content"].append(data["content_block"])
        elif kind == "content_block_delta":
            message["content"][data["index"]]["text"] += data["delta"]["text"]
        elif kind == "message_delta":
            message.update(data["delta"])
            message["usage"].update(data["usage"])
    return of_anthropic(message)


def assert_says(answer: Json, said: Reading) -> None:
    choice = answer["choices"][0]
    message = choice["message"]
    assert message["role"] == "assistant"
    assert (message["content"] or "") == said.text
    assert message.get("reasoning_content", "") == said.reasoning
    proofs = [block.get("signature") or block.get("data") for block in message.get("thinking_blocks", ())]
    assert [proof for proof in proofs if proof] == said.signed
    calls = message.get("tool_calls") or []
    assert [
        [call["id"], call["function"]["name"], json.loads(call["function"]["arguments"])] for call in calls
    ] == said.calls
    assert message.get("citations", []) == said.citations
    assert (choice["finish_reason"], choice["native_finish_reason"]) == (FINISHED[said.reason], said.reason)
    usage = answer["usage"]
    details = usage["prompt_tokens_details"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == said.counts[:2]
    assert (details["cached_tokens"], details["cache_write_tokens"]) == said.counts[2:]
    assert usage["total_tokens"] == sum(said.counts[:2])


@pytest.mark.parametrize("item", named(WHOLE))
def test_a_whole_answer_says_what_was_recorded(item: Json) -> None:
    body = body_of(item)
    decoded = codec(item).decode(body, request_for(item))
    assert_says(json.loads(decoded), whole_reading(json.loads(body)))
    answers.Completion.model_validate_json(decoded)


@pytest.mark.parametrize("item", named(WHOLE))
def test_a_whole_answer_to_a_request_for_a_stream_is_streamed(item: Json) -> None:
    body = body_of(item)
    if item["wire"] == "bedrock_converse" or "nova" in item["model"]:
        whole = json.loads(codec(item).decode(body, request_for(item)))
        folded = json.loads(fold(decoded_in_pieces(item, body, 99)))
        folded["choices"][0]["message"].pop("converse_blocks", None)
        whole["choices"][0]["message"].pop("converse_blocks", None)
        assert {**folded, "created": 0} == {**whole, "created": 0}
    else:
        assert_says(json.loads(fold(decoded_in_pieces(item, body, 99))), whole_reading(json.loads(body)))


@pytest.mark.parametrize("item", named(STREAMED))
def test_a_stream_says_what_botocore_reads_in_it(item: Json) -> None:
    body = body_of(item)
    chunks = decoded_in_pieces(item, body, len(body))
    assert_says(json.loads(fold(chunks)), streamed_reading(body))
    for chunk in chunks:
        answers.Chunk.model_validate_json(chunk)


@pytest.mark.parametrize("item", named(STREAMED))
@pytest.mark.parametrize("size", [1, 7])
def test_it_does_not_matter_where_bytes_are_cut(item: Json, size: int) -> None:
    body = body_of(item)
    assert timeless(decoded_in_pieces(item, body, size)) == timeless(decoded_in_pieces(item, body, len(body)))


@pytest.mark.parametrize("item", named(STREAMED))
def test_a_stream_that_is_cut_is_a_fault(item: Json) -> None:
    body = body_of(item)
    for part in (0.3, 0.6):
        with pytest.raises(ProviderFault) as caught:
            decoded_in_pieces(item, body[: int(len(body) * part)], 50)
        assert (caught.value.failure.code, caught.value.failure.status) == ("incomplete_stream", 502)


@pytest.mark.parametrize("item", named(FAILED))
def test_a_failure_says_what_the_vendor_says(item: Json) -> None:
    response = item["response"]
    failure = codec(item).failed(Reply(response["status"], response["headers"], body_of(item)))
    message = json.loads(response["body"])["message"]
    assert failure.message == message
    name = response["headers"].get("x-amzn-errortype", "").partition(":")[0]
    assert (failure.code or "") == name
    too_long = "too long" in message or "maximum context length" in message or "exceeds" in message
    is_unknown = "security token" in message
    assert failure.kind == ("context_window" if too_long else "authentication" if is_unknown else None)


@pytest.mark.parametrize("item", named(ASKED))
def test_the_request_is_the_one_that_was_recorded(item: Json) -> None:
    recorded = item["request"]["json"]
    asked = converse_asked if item["wire"] == "bedrock_converse" or "schemaVersion" in recorded else anthropic_asked
    request = request_for(item, **asked(recorded))
    call = codec(item).encode(request, table.PROVIDERS[request.provider])
    assert plain_form(json.loads(call.body)) == plain_form(recorded)
    end = call.path.rsplit("/", 1)[1].rsplit(":", 1)[-1]
    assert item["request"]["path"].endswith(end)
    if "/model/" in call.path and "arn" not in item["model"]:
        assert call.path == f"/model/{quote(item['model'], safe=':')}/{end}"
        assert item["request"]["path"].replace("%3A", ":") == call.path.replace("%3A", ":")


@pytest.mark.parametrize("item", named(ANSWERED))
def test_damaged_answers_are_faults_and_nothing_else(item: Json) -> None:
    chance = random.Random(item["id"])
    body = body_of(item)
    faults = 0
    for _ in range(20):
        damaged = damage(body, chance) if chance.random() < 0.3 else changed(body, chance)
        size = chance.choice((3, 100, 10_000))
        for read in (
            lambda data=damaged: answers.completion(codec(item).decode(data, request_for(item))),
            lambda data=damaged, size=size: [answers.chunk(chunk) for chunk in decoded_in_pieces(item, data, size)],
        ):
            faults += is_fault(read)
        assert codec(item).failure(500, damaged).message
    assert faults


def is_fault(read: Callable[[], object]) -> bool:
    try:
        read()
    except (ProviderFault, shape.Misshapen) as fault:
        status = fault.failure.status if isinstance(fault, ProviderFault) else 502
        return 400 <= (status or 0) < 600
    return False


def decoded_in_pieces(item: Json, body: bytes, size: int) -> list[bytes]:
    decoder = codec(item).decoder(request_for(item, stream=True))
    chunks = []
    for start in range(0, len(body), size):
        chunks += decoder.feed(body[start : start + size])
    return chunks + decoder.end()


def timeless(chunks: list[bytes]) -> list[Json]:
    return [{**json.loads(chunk), "created": 0} for chunk in chunks]


# The recorded requests in OpenAI's words


def converse_asked(recorded: Json) -> Json:
    asked = {name: value for name, value in recorded.items() if name not in ("messages", "system", "schemaVersion")}
    messages = [{"role": "system", "content": marked(recorded["system"])}] if recorded.get("system") else []
    for message in recorded["messages"]:
        messages += converse_messages(message)
    config = asked.pop("inferenceConfig", {})
    names = {"maxTokens": "max_tokens", "max_new_tokens": "max_tokens", "temperature": "temperature"}
    names |= {"topP": "top_p", "stopSequences": "stop"}
    asked.update({names[name]: value for name, value in config.items()})
    tools = asked.pop("toolConfig", {})
    if tools:
        asked["tools"] = [as_function(tool) for tool in tools["tools"]]
        choice = tools.get("toolChoice", {})
        asked.update({"tool_choice": as_choice(choice)} if choice else {})
    if "textFormat" in asked.get("outputConfig", {}):
        form = asked.pop("outputConfig")["textFormat"]["structure"]["jsonSchema"]
        form = {**form, "schema": json.loads(form["schema"])}
        asked["response_format"] = {"type": "json_schema", "json_schema": form}
    if "serviceTier" in asked:
        asked["service_tier"] = asked.pop("serviceTier")["type"]
    return {"messages": messages, "parameters": asked}


def as_function(tool: Json) -> Json:
    if "toolSpec" not in tool:
        return tool
    spec = dict(tool["toolSpec"])
    return {"type": "function", "function": {**spec, "parameters": spec.pop("inputSchema")["json"]}}


def as_choice(choice: Json) -> Any:
    if "tool" in choice:
        return {"type": "function", "function": {"name": choice["tool"]["name"]}}
    return "required" if "any" in choice else "auto"


def converse_messages(message: Json) -> Iterator[Json]:
    if message["role"] == "assistant":
        yield converse_answer(message["content"])
        return
    rest = []
    for block in message["content"]:
        if "toolResult" in block:
            result = block["toolResult"]
            said: Json = {"role": "tool", "tool_call_id": result["toolUseId"], "content": marked(result["content"])}
            yield {**said, "is_error": result["status"] == "error"} if "status" in result else said
        else:
            rest.append(block)
    if rest:
        yield {"role": message["role"], "content": marked(rest)}


def converse_answer(blocks: list[Json]) -> Json:
    message: Json = {"role": "assistant", "content": "".join(block.get("text", "") for block in blocks) or None}
    calls, thought = [], []
    for block in blocks:
        if "toolUse" in block:
            use = block["toolUse"]
            function = {"name": use["name"], "arguments": json.dumps(use["input"])}
            calls.append({"id": use["toolUseId"], "type": "function", "function": function})
        elif "reasoningContent" in block:
            held = block["reasoningContent"]
            text = held.get("reasoningText")
            redacted = {"type": "redacted_thinking", "data": held.get("redactedContent")}
            thought.append(
                {"type": "thinking", "thinking": text["text"], "signature": text["signature"]} if text else redacted
            )
    return {**message, **({"tool_calls": calls} if calls else {}), **({"thinking_blocks": thought} if thought else {})}


def marked(blocks: list[Json]) -> list[Json]:
    """Blocks as parts; a cache point as a mark on the one before it."""
    parts: list[Json] = []
    for block in blocks:
        if "cachePoint" in block:
            parts[-1] = {**parts[-1], "cache_control": {"type": "ephemeral"}}
        else:
            parts.append(as_part(block))
    return parts


def as_part(block: Json) -> Json:
    kind = next(iter(block))
    if kind == "text":
        return {"type": "text", "text": block["text"]}
    if kind not in ("image", "document", "video"):
        return block
    held = block[kind]
    form, source = held["format"], held["source"]
    media = {"txt": "text/plain", "pdf": "application/pdf"}.get(form, f"{kind}/{form}")
    where = source["s3Location"]["uri"] if "s3Location" in source else f"data:{media};base64,{source['bytes']}"
    if kind == "document":
        return {"type": "file", "file": {"filename": f"{held['name']}.{form}", "file_data": where}}
    return {"type": f"{kind}_url", f"{kind}_url": {"url": where}}


def anthropic_asked(recorded: Json) -> Json:
    asked = {name: value for name, value in recorded.items() if name not in ("messages", "system", "anthropic_version")}
    messages: list[Json] = [{"role": "system", "content": recorded["system"]}] if recorded.get("system") else []
    for message in recorded["messages"]:
        for block in message["content"]:
            if block["type"] == "tool_result":
                messages.append({"role": "tool", "tool_call_id": block["tool_use_id"], "content": block["content"]})
            elif block["type"] == "tool_use":
                function = {"name": block["name"], "arguments": json.dumps(block["input"])}
                call = {"id": block["id"], "type": "function", "function": function}
                messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
            else:
                messages.append({"role": message["role"], "content": [block]})
    asked["tools"] = [
        {
            "type": "function",
            "function": {
                "name": tool["name"],
                "description": tool["description"],
                "parameters": tool["input_schema"],
            },
        }
        for tool in asked.get("tools", ())
    ]
    return {"messages": messages, "parameters": {name: value for name, value in asked.items() if value}}


def plain_form(value: Any) -> Any:
    """One form for what means the same to the vendor."""
    if isinstance(value, list):
        return [plain_form(item) for item in value]
    if not isinstance(value, dict):
        return value
    plain = {name: plain_form(item) for name, item in value.items() if item not in (None, [], {})}
    if "document" in plain:  # the recorder put an underscore into a name
        plain["document"]["name"] = plain["document"]["name"].replace("_", " ")
    if isinstance(plain.get("schema"), str):
        plain["schema"] = {"additionalProperties": False, **json.loads(plain["schema"])}
        plain["schema"].pop("title", None)
    if "inferenceConfig" in plain and "max_new_tokens" in plain["inferenceConfig"]:
        plain["inferenceConfig"]["maxTokens"] = plain["inferenceConfig"].pop("max_new_tokens")
    if isinstance(plain.get("system"), list) and "type" in plain["system"][0]:
        plain["system"] = "\n\n".join(block["text"] for block in plain["system"])
    if isinstance(plain.get("content"), str) and "role" in plain:
        plain["content"] = [{"type": "text", "text": plain["content"]}]
    if "disable_parallel_tool_use" in plain and not plain["disable_parallel_tool_use"]:
        del plain["disable_parallel_tool_use"]
    if plain.get("tool_choice") == {"type": "auto"}:
        del plain["tool_choice"]
    return plain


# Damage


def changed(body: bytes, chance: random.Random) -> bytes:
    """`body` as JSON, or as messages with JSON, of which one value has another type. Checksums are right."""
    if body.startswith(b"{"):
        return json.dumps(change(json.loads(body), chance)).encode()
    messages = []
    while body:
        (total,) = struct.unpack(">I", body[:4])
        messages.append(body[:total])
        body = body[total:]
    place = chance.randrange(len(messages))
    messages[place] = repacked(messages[place], chance)
    return b"".join(messages)


def repacked(message: bytes, chance: random.Random) -> bytes:
    (length,) = struct.unpack(">I", message[4:8])
    headers, data = message[12 : 12 + length], json.loads(message[12 + length : -4])
    if "bytes" in data and chance.random() < 0.9:
        event = change(json.loads(base64.b64decode(data["bytes"])), chance)
        payload = json.dumps({"bytes": base64.b64encode(json.dumps(event).encode()).decode()}).encode()
    else:
        payload = json.dumps(change(data, chance)).encode()
    prelude = struct.pack(">II", len(headers) + len(payload) + 16, len(headers))
    packed = prelude + struct.pack(">I", crc32(prelude)) + headers + payload
    return packed + struct.pack(">I", crc32(packed))
