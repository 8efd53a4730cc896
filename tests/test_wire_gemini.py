"""Recorded traffic with Gemini, read by the codec and by a simpler reading, must say the same.

The recordings are not part of the repository. REJOINDER_WIRE_DIR names their folder; without it, ../shared/wire beside
the repository is tried. What is expected is read from the raw JSON here, never by the codec.
"""

from __future__ import annotations

import copy
import json
import os
import random
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rejoinder.core import answers
from rejoinder.core.types import Request
from rejoinder.providers.base import Provider, ProviderFault
from rejoinder.providers.gemini import GeminiCodec
from tests.fixtures.damage import change, damage

FOLDER = Path(os.environ.get("REJOINDER_WIRE_DIR") or Path(__file__).resolve().parents[2] / "shared" / "wire")
FILES = [path for path in (FOLDER / "gemini.jsonl", FOLDER / "vertex.jsonl") if path.exists()]
if not FILES:
    pytest.skip(f"no recordings in {FOLDER}; set REJOINDER_WIRE_DIR", allow_module_level=True)

Json = dict[str, Any]


def recordings() -> Iterator[Json]:
    for path in FILES:
        with path.open(encoding="utf-8") as lines:
            yield from (item for line in lines if (item := json.loads(line))["wire"] == "gemini_generate")


def named(items: Iterable[Json]) -> list[Any]:
    return [pytest.param(item, id=item["id"]) for item in items]


ALL = list(recordings())
ANSWERED = [item for item in ALL if item["response"]["status"] == 200]
FAILED = [item for item in ALL if item["response"]["status"] != 200]
WHOLE = [item for item in ANSWERED if not item["stream"]]
STREAMED = [item for item in ANSWERED if item["stream"]]
ASKED = [item for item in ALL if item["request"] and item["request"]["json"]]

BASE = "https://generativelanguage.googleapis.com/v1beta"
PROVIDER = Provider("gemini", BASE, codec="gemini")
CODEC = GeminiCodec()
FINISHED = {"STOP": "stop", 1: "stop", "MAX_TOKENS": "length"}


def request_for(model: str | None, messages: list[Any] | None = None, **fields: Any) -> Request:
    fields.setdefault("parameters", {})
    return Request("chat", "gemini", model or "gemini", BASE, messages=messages or [], **fields)


def body_of(item: Json) -> bytes:
    response = item["response"]
    return (response["body"] or "".join(response["chunks"] or ())).encode()


def pieces_of(item: Json) -> list[Json]:
    """What the vendor said: the pieces of a stream, or the one of a whole answer."""
    text = body_of(item).decode()
    if not item["stream"]:
        return [json.loads(text)]
    return [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:")]


def assert_says(answer: Json, pieces: list[Json]) -> None:
    """`answer`, in OpenAI's shape, says what these pieces of one say."""
    if any("promptFeedback" in piece for piece in pieces):
        assert_blocked(answer, pieces[-1])
        return
    candidates = [candidate for piece in pieces for candidate in piece["candidates"]]
    parts = [part for candidate in candidates for part in (candidate.get("content") or {}).get("parts", [])]
    (choice,) = answer["choices"]
    said = choice["message"]
    assert said["role"] == "assistant"
    assert (said["content"] or "") == text_in(parts, thought=False)
    assert said.get("reasoning_content", "") == text_in(parts, thought=True)
    assert_calls(said.get("tool_calls", []), [part for part in parts if "functionCall" in part])
    reason = candidates[-1]["finishReason"]
    calls = bool(said.get("tool_calls"))
    assert choice["finish_reason"] == ("tool_calls" if calls and FINISHED[reason] == "stop" else FINISHED[reason])
    assert choice["native_finish_reason"] == ("STOP" if reason == 1 else reason)
    assert (answer["id"], answer["model"]) == (pieces[-1]["responseId"], pieces[-1]["modelVersion"])
    assert_counts(answer.get("usage"), pieces)
    kept = [part for part in parts if part.keys() & {"executableCode", "codeExecutionResult", "toolCall"}]
    assert [part for part in said.get("content_parts", []) if part in kept] == kept
    for candidate in candidates:
        if candidate.get("groundingMetadata"):
            assert choice["grounding_metadata"] == candidate["groundingMetadata"]


def assert_blocked(answer: Json, piece: Json) -> None:
    (choice,) = answer["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("content_filter", None)
    assert choice["native_finish_reason"] == piece["promptFeedback"]["blockReason"]
    assert choice["message"]["refusal"] == piece["promptFeedback"]["blockReasonMessage"]
    assert "usage" not in answer


def text_in(parts: list[Json], *, thought: bool) -> str:
    return "".join(part.get("text", "") for part in parts if bool(part.get("thought")) == thought)


def assert_calls(calls: list[Json], parts: list[Json]) -> None:
    begun: list[tuple[str, Json]] = []
    signatures = []
    for part in parts:
        call = part["functionCall"]
        if "name" in call:
            begun.append((call["name"], dict(call.get("args") or {})))
            signatures.append(part.get("thoughtSignature"))
        for piece in call.get("partialArgs", []):
            name = piece["jsonPath"].removeprefix("$.")
            begun[-1][1][name] = begun[-1][1].get(name, "") + piece["stringValue"]
    assert [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls] == begun
    assert [call.get("extra_content", {}).get("google", {}).get("thought_signature") for call in calls] == signatures
    ids = [part["functionCall"]["id"] for part in parts if "id" in part["functionCall"]]
    assert len({call["id"] for call in calls}) == len(calls)
    assert all(len(call["id"]) <= 40 for call in calls)
    if ids:
        assert [call["id"] for call in calls] == ids


def assert_counts(ours: Json | None, pieces: list[Json]) -> None:
    theirs: Json = {}
    for piece in pieces:
        theirs |= piece.get("usageMetadata", {})
    assert ours is not None
    thoughts = theirs.get("thoughtsTokenCount", 0)
    assert ours["prompt_tokens"] == theirs["promptTokenCount"] + theirs.get("toolUsePromptTokenCount", 0)
    assert ours["completion_tokens"] == theirs.get("candidatesTokenCount", 0) + thoughts
    assert ours["total_tokens"] == theirs["totalTokenCount"]
    assert ours["prompt_tokens_details"]["cached_tokens"] == theirs.get("cachedContentTokenCount", 0)
    assert ours["completion_tokens_details"]["reasoning_tokens"] == thoughts


@pytest.mark.parametrize("item", named(WHOLE))
def test_a_whole_answer_says_what_was_recorded(item: Json) -> None:
    decoded = CODEC.decode(body_of(item), request_for(item["model"]))
    assert_says(json.loads(decoded), pieces_of(item))
    answers.Completion.model_validate_json(decoded)


@pytest.mark.parametrize("item", named(STREAMED))
@pytest.mark.parametrize("size", [1, 7, 1 << 30])
def test_a_stream_says_what_was_recorded_wherever_it_is_cut(item: Json, size: int) -> None:
    chunks = decoded_in_pieces(body_of(item), size, item["model"])
    assert_says(folded(chunks), pieces_of(item))
    for chunk in chunks:
        answers.Chunk.model_validate_json(chunk)


@pytest.mark.parametrize("item", named(STREAMED))
def test_a_stream_as_a_json_array_says_the_same(item: Json) -> None:
    body = json.dumps(pieces_of(item), indent=2).encode()
    as_events = decoded_in_pieces(body_of(item), 4096, item["model"])
    assert timeless(decoded_in_pieces(body, 11, item["model"])) == timeless(as_events)


@pytest.mark.parametrize("item", named(WHOLE))
def test_a_whole_answer_and_its_stream_are_equal(item: Json) -> None:
    body = body_of(item)
    whole = json.loads(CODEC.decode(body, request_for(item["model"])))
    for form in (body, b"data: " + json.dumps(json.loads(body)).encode() + b"\r\n\r\n"):
        streamed = folded(decoded_in_pieces(form, 99, item["model"]))
        for name in ("created", "object"):
            streamed.pop(name, None)
            whole.pop(name, None)
        assert streamed == whole


@pytest.mark.parametrize("item", named(STREAMED))
def test_a_stream_without_its_end_is_a_fault(item: Json) -> None:
    body = body_of(item)
    cut = body[: body.rindex(b"finishReason")]
    for form in (cut, b"[" + cut.removeprefix(b"data: ")):
        with pytest.raises(ProviderFault) as caught:
            decoded_in_pieces(form, 50, None)
        assert (caught.value.failure.code, caught.value.failure.status) == ("incomplete_stream", 502)


@pytest.mark.parametrize("item", named(FAILED))
def test_a_failure_says_what_the_vendor_says(item: Json) -> None:
    body, status = body_of(item), item["response"]["status"]
    error = json.loads(body)["error"]
    for form in (body, b"[" + body + b"]"):
        failure = CODEC.failure(status, form)
        wrong_key = any(detail.get("reason") == "API_KEY_INVALID" for detail in error.get("details", []))
        kind = "authentication" if wrong_key or "unregistered callers" in error["message"] else None
        assert (failure.message, failure.code, failure.kind) == (error["message"], error["status"], kind)
        delays = [detail["retryDelay"] for detail in error.get("details", []) if "retryDelay" in detail]
        assert failure.retry_after == (float(delays[0].removesuffix("s")) if delays else None)


@pytest.mark.parametrize("item", named(FAILED))
def test_an_error_inside_a_200_stands_for_the_recorded_status(item: Json) -> None:
    body = json.dumps(json.loads(body_of(item))).encode()
    begun = b'data: {"candidates": [{"content": {"parts": [{"text": "Well"}]}}]}\n\n'
    reads: tuple[Callable[[], object], ...] = (
        lambda: CODEC.decode(body, request_for(None)),
        lambda: CODEC.decode(b"[" + body + b"]", request_for(None)),
        lambda: decoded_in_pieces(begun + b"data: " + body + b"\n\n", 9, None),
        lambda: decoded_in_pieces(begun + b"event: error\ndata: " + body + b"\n\n", 9, None),
        lambda: decoded_in_pieces(body, 9, None),
        lambda: decoded_in_pieces(b"[" + body + b"]", 9, None),
    )
    for read in reads:
        fault = fault_in(read)
        assert fault is not None
        assert fault.failure.status == item["response"]["status"]


@pytest.mark.parametrize("item", named(ASKED))
def test_the_request_is_the_one_that_was_recorded(item: Json) -> None:
    call = CODEC.encode(as_openai(item), PROVIDER)
    assert plain_form(json.loads(call.body)) == plain_form(tidied(item["request"]["json"]))
    asked = item["request"]["path"].partition("?")[0]
    if "/publishers/" not in asked:  # Vertex AI's
        assert call.url == f"{BASE}{asked.removeprefix('/v1beta')}" + ("?alt=sse" if item["stream"] else "")


@pytest.mark.parametrize("item", named(ANSWERED))
def test_damaged_answers_are_faults_and_nothing_else(item: Json) -> None:
    chance = random.Random(item["id"])
    body = body_of(item)
    faults = 0
    for _ in range(40):
        damaged = damage(body, chance) if chance.random() < 0.4 else changed(item, chance)
        size = chance.choice((3, 100, 10_000)) if len(damaged) < 50_000 else 10_000
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


def timeless(chunks: list[bytes]) -> list[Json]:
    return [{**json.loads(chunk), "created": 0} for chunk in chunks]


def folded(chunks: list[bytes]) -> Json:
    """One answer out of chunks; calls come whole here."""
    message: Json = {}
    answer: Json = {}
    ending: Json = {}
    for data in chunks:
        chunk = json.loads(data)
        for choice in chunk.pop("choices"):
            ending.update({name: value for name, value in choice.items() if name not in ("delta", "index")})
            for name, value in choice["delta"].items():
                if name == "tool_calls":
                    calls = message.setdefault(name, [])
                    assert [call.pop("index") for call in value] == list(range(len(calls), len(calls) + len(value)))
                message[name] = message[name] + value if name in message and name != "role" else value
        answer.update(chunk)
    message.setdefault("content", None)
    return {**answer, "choices": [{"index": 0, "message": message, **ending}]}


# A recorded request in OpenAI's words

CONFIG = {
    "maxOutputTokens": "max_tokens",
    "temperature": "temperature",
    "topP": "top_p",
    "topK": "top_k",
    "stopSequences": "stop",
    "candidateCount": "n",
    "seed": "seed",
    "thinkingConfig": "thinking_config",
    "responseModalities": "modalities",
}
AS_THEY_ARE = {"args", "response", "parameters", "parametersJsonSchema", "responseSchema", "responseJsonSchema"}


def camel(name: str) -> str:
    return re.sub("_([a-z])", lambda found: found[1].upper(), name)


def tidied(value: Any, inside: str = "") -> Any:
    """JSON in one spelling: protobuf's names in camel case, nulls and what is false by default left out."""
    if isinstance(value, list):
        return [tidied(item) for item in value]
    if not isinstance(value, dict):
        return value
    named = {camel(name): item for name, item in value.items()}
    return {
        name: item if name in AS_THEY_ARE else tidied(item)
        for name, item in named.items()
        if item is not None and (name, item) != ("thought", False)
    }


def as_openai(item: Json) -> Request:
    recorded = tidied(item["request"]["json"])
    recorded.pop("model", None)
    messages: list[Json] = []
    system = recorded.pop("systemInstruction", None)
    for part in parts_in(system):
        messages.append({"role": "system", "content": part["text"]})
    ids = Ids()
    for content in recorded.pop("contents"):
        messages += as_messages(content.get("role", "user"), parts_in(content), ids)
    parameters: Json = {}
    config = recorded.pop("generationConfig", {})
    form = {name: config.pop(name) for name in list(config) if name.startswith("response") and name not in CONFIG}
    if form:
        parameters["response_format"] = as_format(form)
    parameters.update({CONFIG[name]: value for name, value in config.items()})
    tools = [tool for given in recorded.pop("tools", []) for tool in as_tools(given)]
    if tools:
        parameters["tools"] = tools
    chosen = recorded.pop("toolConfig", {})
    calling = chosen.pop("functionCallingConfig", None)
    if calling:
        names = calling.get("allowedFunctionNames")
        named_function = {"type": "function", "function": {"name": names[0]}} if names else None
        parameters["tool_choice"] = named_function or {"ANY": "required"}.get(calling["mode"], calling["mode"].lower())
    if chosen:
        parameters["tool_config"] = chosen
    for theirs, ours in (("safetySettings", "safety_settings"), ("cachedContent", "cached_content")):
        if theirs in recorded:
            parameters[ours] = recorded.pop(theirs)
    return request_for(
        item["model"], messages, parameters=parameters, extra_body=recorded or None, stream=item["stream"]
    )


class Ids:
    """Ids for calls that were recorded without: results follow their calls in order."""

    def __init__(self) -> None:
        self.made = 0
        self.open: list[tuple[str, str]] = []

    def call(self, call: Json) -> str:
        self.made += 1
        identity = call.get("id") or f"made-{self.made}"
        self.open.append((call["name"], identity))
        return identity

    def result(self, response: Json) -> str:
        found = next(pair for pair in self.open if pair[0] == response["name"])
        self.open.remove(found)
        return response.get("id") or found[1]


def parts_in(content: Json | None) -> list[Json]:
    parts = (content or {}).get("parts", [])
    return [parts] if isinstance(parts, dict) else parts


def as_messages(role: str, parts: list[Json], ids: Ids) -> Iterator[Json]:
    if role == "model":
        yield as_answer(parts, ids)
        return
    for part in parts:
        if "functionResponse" in part:
            response = part["functionResponse"]
            text = {"type": "text", "text": json.dumps(response["response"])}
            content = [text, *(as_part(inner) for inner in response.get("parts", []))]
            yield {"role": "tool", "tool_call_id": ids.result(response), "content": content}
    rest = [as_part(part) for part in parts if "functionResponse" not in part]
    if rest:
        yield {"role": role, "content": rest}


def as_answer(parts: list[Json], ids: Ids) -> Json:
    calls = [part for part in parts if "functionCall" in part]
    message: Json = {"role": "assistant", "content": text_in(parts, thought=False)}
    thoughts = [part for part in parts if part.get("thought")]
    if thoughts:
        message["reasoning_content"] = text_in(parts, thought=True)
    if any("thoughtSignature" in part for part in thoughts) or any("toolCall" in part for part in parts):
        message["content_parts"] = parts
    for part in parts:
        if "text" in part and "thoughtSignature" in part:
            message["extra_content"] = {"google": {"thought_signature": part["thoughtSignature"]}}
    for part in calls:
        call = part["functionCall"]
        said: Json = {"id": ids.call(call), "type": "function"}
        said["function"] = {"name": call["name"], "arguments": json.dumps(call.get("args", {}))}
        if "thoughtSignature" in part:
            said["extra_content"] = {"google": {"thought_signature": part["thoughtSignature"]}}
        message.setdefault("tool_calls", []).append(said)
    return message


def as_part(part: Json) -> Json:
    if "text" in part:
        return {"type": "text", "text": part["text"]}
    if "fileData" in part:
        file = part["fileData"]
        return {"type": "file", "file": {"file_data": file["fileUri"], "format": file["mimeType"]}}
    media_type, data = part["inlineData"]["mimeType"], part["inlineData"]["data"]
    url = f"data:{media_type};base64,{data}"
    if media_type.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    if media_type.startswith("audio/"):
        return {"type": "input_audio", "input_audio": {"data": data, "format": "mp3"}}
    if media_type.startswith("video/"):
        return {"type": "video_url", "video_url": {"url": url}}
    return {"type": "file", "file": {"filename": "it", "file_data": url}}


def as_format(form: Json) -> Json:
    schema = form.get("responseJsonSchema") or form.get("responseSchema")
    if schema is None:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}


def as_tools(given: Json) -> Iterator[Json]:
    for declared in given.pop("functionDeclarations", []):
        function = {name: value for name, value in declared.items() if not name.startswith("parameters")}
        schema = declared.get("parametersJsonSchema") or declared.get("parameters")
        if schema:
            function["parameters"] = schema
        yield {"type": "function", "function": function}
    if given:
        yield given


def plain_form(body: Json) -> Json:
    """One form for what means the same to the vendor."""
    plain = copy.deepcopy(body)
    plain.pop("model", None)
    plain["contents"] = plain_turns(plain["contents"])
    system = "".join(part["text"] for part in parts_in(plain.pop("systemInstruction", None)))
    plain["system"] = system
    plain["tools"] = sorted((plain_tool(tool) for tool in plain.get("tools", [])), key=json.dumps)
    config = plain.get("generationConfig", {})
    for name in ("responseSchema", "responseJsonSchema"):
        if name in config:
            config["schema"] = plain_schema(config.pop(name))
    return {name: value for name, value in plain.items() if value}


def plain_turns(contents: list[Json]) -> list[Json]:
    turns: list[Json] = []
    for content in contents:
        role = content.get("role", "user")
        parts = [plain_part(part) for part in parts_in(content) if is_said(part)]
        if turns and turns[-1]["role"] == role:
            turns[-1]["parts"] += parts
        elif parts:
            turns.append({"role": role, "parts": parts})
    return turns


def is_said(part: Json) -> bool:
    """Thoughts are not sent back, unless they are signed."""
    return "thoughtSignature" in part or not (part.get("thought") or part.get("text") == "")


def plain_part(part: Json) -> Json:
    """Ids that were made up here, and the signature that stands for none, were not recorded."""
    part = {name: value for name, value in part.items() if value != "skip_thought_signature_validator"}
    for name in ("functionCall", "functionResponse"):
        if name in part:
            part[name] = {
                field: value for field, value in part[name].items() if not (field == "id" and value.startswith("made-"))
            }
    if "functionCall" in part:
        part["functionCall"].setdefault("args", {})
    return part


def plain_tool(tool: Json) -> Json:
    if "functionDeclarations" not in tool:
        return tool
    declared = []
    for function in tool["functionDeclarations"]:
        schema = function.pop("parametersJsonSchema", None) or function.pop("parameters", None)
        declared.append({**function, "schema": plain_schema(schema)})
    return {"functionDeclarations": declared}


def plain_schema(schema: Any) -> Any:
    """Types are in capitals in the vendor's own form; `$schema` says nothing."""
    if isinstance(schema, list):
        return [plain_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: value.lower() if name == "type" and isinstance(value, str) else plain_schema(value)
        for name, value in schema.items()
        if name != "$schema"
    }


def changed(item: Json, chance: random.Random) -> bytes:
    """The answer with one value of another type."""
    pieces = pieces_of(item)
    place = chance.randrange(len(pieces))
    pieces[place] = change(pieces[place], chance)
    if not item["stream"]:
        return json.dumps(pieces[0]).encode()
    return "".join(f"data: {json.dumps(piece)}\n\n" for piece in pieces).encode()
