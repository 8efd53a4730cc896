"""Bedrock, and Claude there and on Vertex AI: what is sent, how it is signed, and what comes back over a socket.

Signatures are checked by a computation of the tests' own, and by asking botocore's client to make the same call.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import importlib.util
import json
import struct
import sys
import threading
from binascii import crc32
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import rejoinder
from rejoinder.core import answers
from rejoinder.core.api_errors import InvalidRequest
from rejoinder.core.errors import MissingPackage
from rejoinder.core.types import Request
from rejoinder.providers import bedrock_auth, table, vertex
from rejoinder.providers.base import ProviderFault, Reply
from rejoinder.providers.bedrock import BedrockCodec
from rejoinder.providers.bedrock_invoke import BedrockInvokeCodec
from rejoinder.providers.vertex_anthropic import VertexAnthropicCodec
from rejoinder.router.fold import fold
from rejoinder.router.shape import shape

Json = dict[str, Any]

BASE = "https://bedrock-runtime.us-east-1.amazonaws.com"
CODEC, INVOKE, VERTEX = BedrockCodec(), BedrockInvokeCodec(), VertexAnthropicCodec()
CLAUDE, NOVA = "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "us.amazon.nova-2-lite-v1:0"
NEWEST, OLD = "us.anthropic.claude-opus-4-8", "us.anthropic.claude-3-7-sonnet-20250219-v1:0"
ARN = "arn:aws:bedrock:eu-west-3:123456789012:application-inference-profile/abc123"
KEYS = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
TOKEN = "a-session-token-which-is-secret"
USER = {"role": "user", "content": "Hello"}
MARK = {"type": "ephemeral"}
POINT = {"cachePoint": {"type": "default"}}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "it", "schema": {"type": "object", "properties": {"n": {"type": "integer"}}}},
}


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the machine's credentials nor its regions."""
    names = {bedrock_auth.KEY, bedrock_auth.SECRET, bedrock_auth.TOKEN, *bedrock_auth.REGIONS, "AWS_PROFILE"}
    for row in ("bedrock", "bedrock_invoke"):
        names |= {*table.PROVIDERS[row].key_env, *table.PROVIDERS[row].base_env}
    for name in (*names, *vertex.PROJECTS, *vertex.LOCATIONS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


def request(*messages: Json, model: str = CLAUDE, provider: str = "bedrock", **fields: Any) -> Request:
    base = {"api_base": BASE, "parameters": {}, "messages": list(messages) or [USER]}
    return Request(**{"endpoint": "chat", "provider": provider, "model": model, **base, **fields})


def sent(*messages: Json, model: str = CLAUDE, **parameters: Any) -> Json:
    call = CODEC.encode(request(*messages, model=model, parameters=parameters), table.PROVIDERS["bedrock"])
    return json.loads(call.body)


def invoked(*messages: Json, model: str = CLAUDE, **parameters: Any) -> Json:
    asked = request(*messages, model=model, parameters=parameters, provider="bedrock_invoke")
    return json.loads(INVOKE.encode(asked, table.PROVIDERS["bedrock_invoke"]).body)


def blocks(*parts: Any, **rest: Any) -> list[Json]:
    (turn,) = sent({"role": "user", "content": list(parts)}, **rest)["messages"]
    return turn["content"]


def invalid(*messages: Json, model: str = CLAUDE, **parameters: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        sent(*messages, model=model, **parameters)
    return str(caught.value)


def answer(*content: Json, reason: str = "end_turn", **fields: Any) -> Json:
    usage = {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}
    message = {"role": "assistant", "content": list(content)}
    return {"output": {"message": message}, "stopReason": reason, "usage": usage, **fields}


def decoded(*content: Json, **fields: Any) -> Json:
    data = CODEC.decode(json.dumps(answer(*content, **fields)).encode(), request())
    answers.completion(data)
    return json.loads(data)


def frame(data: Json, kind: str = "event", name: str = "") -> bytes:
    headers = b""
    for key, text in ((":message-type", kind), (f":{kind}-type", name)):
        headers += bytes([len(key)]) + key.encode() + b"\x07" + struct.pack(">H", len(text)) + text.encode()
    payload = json.dumps(data).encode()
    prelude = struct.pack(">II", len(headers) + len(payload) + 16, len(headers))
    message = prelude + struct.pack(">I", crc32(prelude)) + headers + payload
    return message + struct.pack(">I", crc32(message))


def delta(index: int, value: Json) -> bytes:
    return frame({"contentBlockIndex": index, "delta": value}, name="contentBlockDelta")


STOP = frame({"stopReason": "end_turn"}, name="messageStop")
METADATA = frame({"usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}}, name="metadata")
STREAM = frame({"role": "assistant"}, name="messageStart") + delta(0, {"text": "H"}) + delta(0, {"text": "i."}) + STOP


def streamed(data: bytes, codec: Any = CODEC, model: str = CLAUDE) -> Json:
    decoder = codec.decoder(request(model=model, stream=True))
    chunks = [*decoder.feed(data), *decoder.end()]
    for chunk in chunks:
        answers.chunk(chunk)
    return json.loads(fold(chunks))


# What is said


def test_the_model_is_in_the_path() -> None:
    paths = [CODEC.encode(request(model=model), table.PROVIDERS["bedrock"]).path for model in (NOVA, ARN)]
    assert paths == [
        "/model/us.amazon.nova-2-lite-v1:0/converse",
        "/model/arn:aws:bedrock:eu-west-3:123456789012:application-inference-profile%2Fabc123/converse",
    ]
    stream = CODEC.encode(request(model=NOVA, stream=True), table.PROVIDERS["bedrock"])
    assert stream.url == f"{BASE}/model/us.amazon.nova-2-lite-v1:0/converse-stream"


def test_system_messages_are_taken_together() -> None:
    said = sent({"role": "system", "content": "Be brief."}, USER, {"role": "developer", "content": "And kind."})
    assert said["system"] == [{"text": "Be brief."}, {"text": "And kind."}]
    assert said["messages"] == [{"role": "user", "content": [{"text": "Hello"}]}]


def test_system_messages_alone_are_what_the_user_says() -> None:
    said = sent({"role": "system", "content": "Hello"})
    assert said == {"messages": [{"role": "user", "content": [{"text": "Hello"}]}]}


def test_results_of_parallel_calls_are_one_turn() -> None:
    calls = [{"id": f"c{n}", "type": "function", "function": {"name": "f", "arguments": ""}} for n in (1, 2)]
    results = [{"role": "tool", "tool_call_id": f"c{n}", "content": text} for n, text in ((1, "one"), (2, ""))]
    results[1]["is_error"] = True
    turns = sent(USER, {"role": "assistant", "content": None, "tool_calls": calls}, *results)["messages"]
    assert turns[1]["content"] == [{"toolUse": {"toolUseId": f"c{n}", "name": "f", "input": {}}} for n in (1, 2)]
    assert turns[2] == {
        "role": "user",
        "content": [
            {"toolResult": {"toolUseId": "c1", "content": [{"text": "one"}]}},
            {"toolResult": {"toolUseId": "c2", "content": [], "status": "error"}},
        ],
    }


def test_images_files_audio_and_video_become_blocks() -> None:
    said = blocks(
        {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,aGk="}},
        {"type": "image_url", "image_url": "s3://bucket/cat.webp"},
        {"type": "file", "file": {"filename": "my_notes.v2.md", "file_data": "aGk="}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,aGk="}},
        {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
        {"type": "video_url", "video_url": {"url": "s3://bucket/a.mov"}},
    )
    assert said == [
        {"image": {"format": "jpeg", "source": {"bytes": "aGk="}}},
        {"image": {"format": "webp", "source": {"s3Location": {"uri": "s3://bucket/cat.webp"}}}},
        {"document": {"format": "md", "name": "my notes v2", "source": {"bytes": "aGk="}}},
        {"document": {"format": "pdf", "name": "Document 1", "source": {"bytes": "aGk="}}},
        {"audio": {"format": "wav", "source": {"bytes": "aGk="}}},
        {"video": {"format": "mov", "source": {"s3Location": {"uri": "s3://bucket/a.mov"}}}},
    ]


def test_documents_have_names_that_differ() -> None:
    file = {"type": "file", "file": {"filename": "a.pdf", "file_data": "aGk="}}
    none = {"type": "file", "file": {"file_data": "aGk="}}
    names = [block["document"]["name"] for block in blocks(file, none, file, none, file)]
    assert names == ["a", "Document 1", "a 2", "Document 2", "a 3"]


def test_marks_become_cache_points_behind_what_is_marked() -> None:
    said = sent(
        {"role": "system", "content": [{"type": "text", "text": "S", "cache_control": MARK}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a", "cache_control": {**MARK, "ttl": "1h"}},
                {"type": "text", "text": "b"},
            ],
        },
        {"role": "user", "content": "c", "cache_control": MARK},
        tools=[{**WEATHER, "cache_control": MARK}],
    )
    assert said["system"] == [{"text": "S"}, POINT]
    hour = {"cachePoint": {"type": "default", "ttl": "1h"}}
    assert said["messages"][0]["content"] == [{"text": "a"}, hour, {"text": "b"}, {"text": "c"}, POINT]
    assert said["toolConfig"]["tools"][1] == POINT


def test_a_wish_for_the_prompt_cache_sets_points() -> None:
    said = sent(
        {"role": "system", "content": "S"}, USER, {"role": "assistant", "content": "a"}, USER, cache_prompt="auto"
    )
    assert said["system"][-1] == POINT
    assert [turn["content"][-1] == POINT for turn in said["messages"]] == [False, True, True]


def test_the_vendors_own_blocks_pass() -> None:
    block = {"guardContent": {"text": {"text": "x", "qualifiers": ["query"]}}}
    assert blocks(block) == [block]


def test_parameters_go_where_the_vendor_has_them() -> None:
    said = sent(
        max_tokens=9,
        temperature=0,
        top_p=0.5,
        stop="x",
        top_k=3,
        service_tier="flex",
        guardrailConfig={"guardrailIdentifier": "g"},
        performanceConfig={"latency": "optimized"},
        additionalModelRequestFields={"own": 1},
    )
    assert said["inferenceConfig"] == {"maxTokens": 9, "temperature": 0, "topP": 0.5, "stopSequences": ["x"]}
    assert said["additionalModelRequestFields"] == {"top_k": 3, "own": 1}
    assert said["serviceTier"] == {"type": "flex"}
    assert said["guardrailConfig"] == {"guardrailIdentifier": "g"}
    assert said["performanceConfig"] == {"latency": "optimized"}
    assert sent(model=NOVA, top_k=3)["additionalModelRequestFields"] == {"inferenceConfig": {"topK": 3}}


@pytest.mark.parametrize(
    ("model", "effort", "fields"),
    [
        (CLAUDE, "low", {"thinking": {"type": "enabled", "budget_tokens": 2048}}),
        (CLAUDE, "none", {"thinking": {"type": "disabled"}}),
        (NEWEST, "high", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}),
        (NOVA, "minimal", {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}}),
        ("openai.gpt-oss-120b-1:0", "high", {"reasoning_effort": "high"}),
        ("qwen.qwen3-32b-v1:0", "high", {"reasoning_config": "high"}),
    ],
)
def test_reasoning_is_asked_for_in_each_models_words(model: str, effort: str, fields: Json) -> None:
    assert sent(model=model, reasoning_effort=effort)["additionalModelRequestFields"] == fields


def test_a_schema_is_output_config_where_the_model_has_it() -> None:
    form = sent(response_format=SCHEMA)["outputConfig"]["textFormat"]
    assert form["type"] == "json_schema"
    said = form["structure"]["jsonSchema"]
    assert said["name"] == "it"
    assert json.loads(said["schema"]) == {**SCHEMA["json_schema"]["schema"], "additionalProperties": False}


@pytest.mark.parametrize("model", [NOVA, OLD])
def test_a_schema_is_an_instruction_for_other_models(model: str) -> None:
    said = sent(model=model, response_format=SCHEMA)
    assert "outputConfig" not in said
    assert '"integer"' in said["system"][0]["text"]


def test_tools_and_choices() -> None:
    tool = {"toolSpec": {"name": "weather", "inputSchema": {"json": WEATHER["function"]["parameters"]}}}
    named = {"type": "function", "function": {"name": "weather"}}
    for choice, said in (("auto", {"auto": {}}), ("required", {"any": {}}), (named, {"tool": {"name": "weather"}})):
        assert sent(tools=[WEATHER], tool_choice=choice)["toolConfig"] == {"tools": [tool], "toolChoice": said}
    assert "toolConfig" not in sent(tools=[WEATHER], tool_choice="none")
    alone = sent(tools=[WEATHER], tool_choice="required", parallel_tool_calls=False)
    assert alone["toolConfig"] == {"tools": [tool]}
    assert alone["additionalModelRequestFields"]["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    strict = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
    assert sent(tools=[strict])["toolConfig"]["tools"][0]["toolSpec"]["strict"] is True
    assert "strict" not in sent(tools=[strict], model=NOVA)["toolConfig"]["tools"][0]["toolSpec"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([{"type": "image_url", "image_url": {"url": "https://e.test/a.png"}}], "data URL"),
        ([{"type": "image_url", "image_url": {"url": "data:image/tiff;base64,aGk="}}], "png"),
        ([{"type": "file", "file": {"file_id": "file-1"}}], "file_data"),
        ([{"type": "file", "file": {"filename": "a.zip", "file_data": "aGk="}}], "application/zip"),
        ([{"type": "strange"}], "'strange'"),
        (" ", "empty"),
    ],
)
def test_what_cannot_be_said_is_refused_before_it_is_sent(content: Any, said: str) -> None:
    assert said in invalid({"role": "user", "content": content})


def test_choices_that_cannot_be_said_are_refused() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    turns = (USER, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c", "content": "x"})
    assert "none" in invalid(*turns, tools=[WEATHER], tool_choice="none")
    assert "parallel_tool_calls" in invalid(tools=[WEATHER], parallel_tool_calls=False, model=NOVA)
    assert "sometimes" in invalid(tools=[WEATHER], tool_choice="sometimes")


def test_reasoning_goes_back_with_its_signature_and_not_without() -> None:
    said = [
        {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "sig"}}},
        {"reasoningContent": {"redactedContent": "c2VjcmV0"}},
        {"text": "So."},
        {"toolUse": {"toolUseId": "c", "name": "weather", "input": {"city": "Rome"}}},
    ]
    message = decoded(*said, reason="tool_use")["choices"][0]["message"]
    assert message["reasoning_content"] == "Hm."
    assert "converse_blocks" not in message
    result = {"role": "tool", "tool_call_id": "c", "content": "Sunny."}
    assert sent(USER, message, result)["messages"][1]["content"] == said
    unsigned = decoded({"reasoningContent": {"reasoningText": {"text": "Hm."}}}, {"text": "So."})["choices"][0][
        "message"
    ]
    assert sent(USER, unsigned, USER)["messages"][1]["content"] == [{"text": "So."}]


def test_what_openais_shape_would_lose_goes_back_whole() -> None:
    said = [
        {"toolUse": {"toolUseId": "t", "name": "nova_grounding", "input": {}, "type": "server_tool_use"}},
        {"toolResult": {"toolUseId": "t", "content": [{"text": "x"}]}},
        {"citationsContent": {"content": [{"text": "It is so."}], "citations": [{"title": "T"}]}},
    ]
    message = decoded(*said)["choices"][0]["message"]
    assert (message["content"], message["citations"]) == ("It is so.", [{"title": "T"}])
    assert "tool_calls" not in message
    assert sent(USER, message, USER)["messages"][1]["content"] == said


# What comes back


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("malformed_tool_use", "malformed_tool_use"),
    ],
)
def test_why_it_ended(reason: str, finish: str) -> None:
    choice = decoded({"text": "x"}, reason=reason)["choices"][0]
    assert (choice["finish_reason"], choice["native_finish_reason"]) == (finish, reason)


def test_usage_counts_what_was_cached_and_for_how_long() -> None:
    usage = {
        "inputTokens": 3,
        "outputTokens": 2,
        "totalTokens": 1955,
        "cacheReadInputTokens": 950,
        "cacheWriteInputTokens": 1000,
        "cacheDetails": [{"ttl": "1h", "inputTokens": 700}, {"ttl": "5m", "inputTokens": 300}],
    }
    answered = decoded({"text": "x"}, usage=usage, trace={"guardrail": {}}, serviceTier={"type": "flex"})
    counts = answered["usage"]
    assert (counts["prompt_tokens"], counts["total_tokens"]) == (1953, 1955)
    assert counts["prompt_tokens_details"] == {"cached_tokens": 950, "cache_write_tokens": 1000}
    assert counts["cache_creation"] == {"ephemeral_1h_input_tokens": 700, "ephemeral_5m_input_tokens": 300}
    assert (answered["trace"], answered["service_tier"]) == ({"guardrail": {}}, "flex")


def test_a_stream_has_reasoning_with_its_signature() -> None:
    reasoning = [
        delta(0, {"reasoningContent": value}) for value in ({"text": "H"}, {"text": "m."}, {"signature": "sig"})
    ]
    redacted = delta(1, {"reasoningContent": {"redactedContent": "c2VjcmV0"}})
    closed = frame({"contentBlockIndex": 0}, name="contentBlockStop")
    message = streamed(b"".join(reasoning) + closed + redacted + delta(2, {"text": "So."}) + STOP + METADATA)[
        "choices"
    ][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("Hm.", "So.")
    assert message["thinking_blocks"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
        {"type": "redacted_thinking", "data": "c2VjcmV0"},
    ]


def test_text_with_citations_is_streamed() -> None:
    cited = delta(0, {"text": "It is so."}) + delta(0, {"citation": {"title": "T"}})
    message = streamed(cited + STOP)["choices"][0]["message"]
    assert (message["content"], message["citations"]) == ("It is so.", [{"title": "T"}])
    block = {"citationsContent": {"content": [{"text": "It is so."}], "citations": [{"title": "T"}]}}
    assert message["converse_blocks"] == [block]


@pytest.mark.parametrize(
    ("name", "data", "status"),
    [
        ("throttlingException", {"message": "Too many tokens, please wait."}, 429),
        ("modelStreamErrorException", {"message": "Oh.", "originalStatusCode": 503}, 503),
        ("modelStreamErrorException", {"message": "Oh."}, 424),
        ("validationException", {"message": "Input is too long for requested model."}, 400),
        ("internalServerException", {"message": "Oh."}, 500),
        ("serviceUnavailableException", {"message": "Oh."}, 503),
        ("somethingNew", {"message": "Oh."}, 500),
    ],
)
@pytest.mark.parametrize("codec", [CODEC, INVOKE])
def test_an_exception_in_a_stream_is_a_fault(codec: Any, name: str, data: Json, status: int) -> None:
    with pytest.raises(ProviderFault) as caught:
        streamed(frame(data, "exception", name), codec)
    failure = caught.value.failure
    assert (failure.message, failure.code, failure.status) == (data["message"], name, status)
    assert failure.kind == ("context_window" if "too long" in data["message"] else None)


def test_an_error_message_of_the_stream_is_a_fault() -> None:
    with pytest.raises(ProviderFault) as caught:
        streamed(frame({}, "error", "x"))
    assert caught.value.failure.status == 500


def test_noise_instead_of_a_stream_is_a_fault() -> None:
    for noise in (b"\x00" * 40, b"<html>", b"data: {}\n\n", b'{"message": "no"}', b"{", b""):
        with pytest.raises(ProviderFault):
            streamed(noise)


def test_the_name_of_an_error_is_in_the_headers() -> None:
    headers = {"X-Amzn-ErrorType": "ThrottlingException:http://internal.amazon.com/"}
    failure = CODEC.failed(Reply(429, headers, b'{"message": "Slow down."}'))
    assert (failure.message, failure.code) == ("Slow down.", "ThrottlingException")


# Where it goes


def base_of(model: str = f"bedrock/{CLAUDE}", **params: Any) -> str:
    return shape(model, [USER], **params).api_base


def test_the_region_is_the_callers_the_arns_or_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    assert base_of(aws_region_name="cn-north-1") == "https://bedrock-runtime.cn-north-1.amazonaws.com.cn"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-2")
    assert base_of() == "https://bedrock-runtime.us-east-2.amazonaws.com"
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    assert base_of() == "https://bedrock-runtime.us-west-2.amazonaws.com"
    assert base_of(f"bedrock/{ARN}") == "https://bedrock-runtime.eu-west-3.amazonaws.com"
    assert base_of(aws_region_name="eu-north-1") == "https://bedrock-runtime.eu-north-1.amazonaws.com"
    assert base_of(api_base="https://vpce-1.example") == "https://vpce-1.example"


def test_the_region_may_be_that_of_a_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("botocore")
    (tmp_path / "config").write_text("[profile work]\nregion = ap-south-1\n", encoding="utf-8")
    assert base_of(aws_profile_name="work") == "https://bedrock-runtime.ap-south-1.amazonaws.com"
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert base_of() == "https://bedrock-runtime.ap-south-1.amazonaws.com"


def test_without_a_region_the_error_says_what_to_pass() -> None:
    with pytest.raises(InvalidRequest, match="aws_region_name"):
        rejoinder.completion(f"bedrock/{CLAUDE}", [USER], api_key="key")


def test_credentials_are_no_part_of_the_request() -> None:
    asked = shape(f"bedrock/{CLAUDE}", [USER], aws_region_name="us-east-1", aws_session_token=TOKEN, **KEYS)
    assert asked == shape(f"bedrock/{CLAUDE}", [USER], aws_region_name="us-east-1")


# How it is signed


class Asked(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes


class Amazon(BaseHTTPRequestHandler):
    """Answers with what the test laid down, and keeps what it was asked, byte for byte."""

    protocol_version = "HTTP/1.1"
    asked: list[Asked]
    replies: list[tuple[int, dict[str, str], bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.asked.append(Asked(self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        status, headers, reply = self.replies.pop(0)
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(reply))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *unused: Any) -> None:
        """Quiet."""

    @classmethod
    def will_answer(cls, body: Json, status: int = 200, **headers: str) -> None:
        cls.replies.append((status, {"content-type": "application/json", **headers}, json.dumps(body).encode()))

    @classmethod
    def will_stream(cls, data: bytes) -> None:
        cls.replies.append((200, {"content-type": "application/vnd.amazon.eventstream"}, data))


@pytest.fixture
def amazon() -> Iterator[tuple[str, type[Amazon]]]:
    kind = type("Fresh", (Amazon,), {"asked": [], "replies": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", kind
    server.shutdown()
    server.server_close()


def signature_of(asked: Asked, region: str = "us-east-1") -> str:
    """The Authorization header that these bytes must have, computed from the signing process as AWS describes it."""
    given = asked.headers["authorization"]
    names = given.split("SignedHeaders=")[1].split(",")[0].split(";")
    moment = asked.headers["x-amz-date"]
    path = "".join(char if char.isalnum() or char in "/-._~" else f"%{ord(char):02X}" for char in asked.path)
    lines = [f"{name}:{asked.headers[name]}" for name in names]
    whole = ["POST", path, "", *lines, "", ";".join(names), hashlib.sha256(asked.body).hexdigest()]
    scope = f"{moment[:8]}/{region}/bedrock/aws4_request"
    digest = hashlib.sha256("\n".join(whole).encode()).hexdigest()
    key = f"AWS4{KEYS['aws_secret_access_key']}".encode()
    for part in (moment[:8], region, "bedrock", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    proof = hmac.new(key, f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}".encode(), hashlib.sha256).hexdigest()
    who = f"Credential={KEYS['aws_access_key_id']}/{scope}"
    return f"AWS4-HMAC-SHA256 {who}, SignedHeaders={';'.join(names)}, Signature={proof}"


needs_botocore = pytest.mark.skipif(
    importlib.util.find_spec("botocore") is None, reason="botocore is not installed: pip install 'rejoinder[bedrock]'"
)


@needs_botocore
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("model", [CLAUDE, ARN])
@pytest.mark.parametrize("row", ["bedrock", "bedrock_invoke"])
async def test_what_arrives_is_signed(amazon: tuple[str, type[Amazon]], row: str, model: str, is_async: bool) -> None:
    base, upstream = amazon
    upstream.will_answer(answer({"text": "Hi."}) if row == "bedrock" else ANTHROPIC)
    asked: Json = {"api_base": base, "aws_region_name": "us-east-1", "aws_session_token": TOKEN, **KEYS}
    asked |= {"extra_headers": {"X-Amzn-Bedrock-Trace": "ENABLED"}, "max_tokens": 5}
    if is_async:
        said = await rejoinder.acompletion(f"{row}/{model}", [USER], **asked)
    else:
        said = rejoinder.completion(f"{row}/{model}", [USER], **asked)
    assert said.choices[0].message.content == "Hi."
    (arrived,) = upstream.asked
    assert arrived.headers["x-amz-security-token"] == TOKEN
    assert arrived.headers["x-amzn-bedrock-trace"] == "ENABLED"
    assert "x-amz-security-token" in arrived.headers["authorization"]
    assert arrived.headers["authorization"] == signature_of(arrived)
    assert arrived.path.count("/") == 3


@needs_botocore
@pytest.mark.parametrize("model", [CLAUDE, NOVA, ARN])
def test_botocores_client_sends_and_signs_the_same(
    amazon: tuple[str, type[Amazon]], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import botocore.auth
    import botocore.session

    moment = datetime.datetime(2026, 11, 22, 12, 0, 0, tzinfo=datetime.UTC)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *unused: moment.replace(tzinfo=None))
    base, upstream = amazon
    for _ in range(2):
        upstream.will_answer(answer({"text": "Hi."}))
    client = botocore.session.Session().create_client(
        "bedrock-runtime", region_name="us-east-1", endpoint_url=base, aws_session_token=TOKEN, **KEYS
    )
    client.converse(modelId=model, messages=[{"role": "user", "content": [{"text": "Hello"}]}])
    rejoinder.completion(
        f"bedrock/{model}", [USER], api_base=base, aws_region_name="us-east-1", aws_session_token=TOKEN, **KEYS
    )
    theirs, ours = upstream.asked
    assert ours.path == theirs.path.replace("%3A", ":"), "botocore encodes colons too"
    assert json.loads(ours.body) == json.loads(theirs.body)
    assert theirs.headers["authorization"] == signature_of(theirs), "the computation of the tests is right"
    sign = bedrock_auth.AwsSigner({**KEYS, "aws_session_token": TOKEN, "aws_region_name": "us-east-1"})
    names = theirs.headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    ours_too = {name: theirs.headers[name] for name in names if name.startswith("content-")}
    again = sign(f"{base}{theirs.path}", ours_too, theirs.body)
    assert again["Authorization"] == theirs.headers["authorization"]


@needs_botocore
def test_credentials_are_found_as_botocore_finds_them(
    amazon: tuple[str, type[Amazon]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    base, upstream = amazon
    profile = "\n".join(f"{name} = {value}" for name, value in KEYS.items())
    (tmp_path / "credentials").write_text(f"[work]\n{profile}\n", encoding="utf-8")

    def key_used(**asked: Any) -> str:
        upstream.will_answer(answer({"text": "Hi."}))
        rejoinder.completion(f"bedrock/{CLAUDE}", [USER], api_base=base, aws_region_name="us-east-1", **asked)
        return upstream.asked[-1].headers["authorization"].split("/")[0].split("=")[-1]

    assert key_used(aws_profile_name="work") == "AKIDEXAMPLE"
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert key_used() == "AKIDEXAMPLE"
    monkeypatch.setenv(bedrock_auth.KEY, "AKIDFROMENV")
    monkeypatch.setenv(bedrock_auth.SECRET, "secret")
    assert key_used() == "AKIDFROMENV"
    assert key_used(aws_profile_name="work") == "AKIDEXAMPLE"
    assert key_used(aws_access_key_id="AKIDGIVEN", aws_secret_access_key="x") == "AKIDGIVEN"
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-api-key")
    assert key_used() == "Bearer bedrock-api-key"
    assert key_used(api_key="mine") == "Bearer mine"
    assert key_used(aws_profile_name="work") == "AKIDEXAMPLE"


@needs_botocore
def test_without_credentials_the_error_says_what_to_set() -> None:
    with pytest.raises(rejoinder.MissingAPIKey, match="AWS_ACCESS_KEY_ID"):
        rejoinder.completion(f"bedrock/{CLAUDE}", [USER], aws_region_name="us-east-1", num_retries=0)
    with pytest.raises(InvalidRequest, match="belong together"):
        rejoinder.completion(f"bedrock/{CLAUDE}", [USER], aws_region_name="us-east-1", aws_access_key_id="AKID")


@needs_botocore
def test_credentials_are_in_no_error(amazon: tuple[str, type[Amazon]]) -> None:
    base, upstream = amazon
    said = f"No.\n\nThe Canonical String for this request should have been\n'x-amz-security-token:{TOKEN}'"
    upstream.will_answer({"message": said}, 403, **{"x-amzn-errortype": "InvalidSignatureException"})
    with pytest.raises(rejoinder.AuthenticationError) as caught:
        rejoinder.completion(
            f"bedrock/{CLAUDE}", [USER], api_base=base, aws_region_name="us-east-1", aws_session_token=TOKEN, **KEYS
        )
    shown = f"{caught.value!r} {caught.value.body} {caught.value.response.text}"
    assert TOKEN not in shown
    assert KEYS["aws_secret_access_key"] not in shown


def test_without_botocore_a_signed_call_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore.auth", None)
    with pytest.raises(MissingPackage, match=r"rejoinder\[bedrock\]"):
        bedrock_auth.AwsSigner(KEYS)


def test_a_call_with_a_key_needs_no_botocore(amazon: tuple[str, type[Amazon]], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("botocore", "botocore.auth", "botocore.session", "botocore.awsrequest"):
        monkeypatch.setitem(sys.modules, name, None)
    base, upstream = amazon
    upstream.will_answer(answer({"text": "Hi."}))
    said = rejoinder.completion(f"bedrock/{CLAUDE}", [USER], api_base=base, api_key="bedrock-api-key")
    assert said.choices[0].message.content == "Hi."
    assert upstream.asked[0].headers["authorization"] == "Bearer bedrock-api-key"
    assert "x-amz-date" not in upstream.asked[0].headers


# There and back

ANTHROPIC = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [{"type": "text", "text": "Hi."}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 2},
}


def chunk(event: Json) -> bytes:
    return frame({"bytes": base64.b64encode(json.dumps(event).encode()).decode()}, name="chunk")


CLAUDE_EVENTS = (
    {"type": "message_start", "message": {**ANTHROPIC, "content": []}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi."}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
)
NOVA_EVENTS = (
    {"messageStart": {"role": "assistant"}},
    {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "Hi."}}},
    {"messageStop": {"stopReason": "end_turn"}},
    {"metadata": {"usage": {"inputTokens": 3, "outputTokens": 2}}},
)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("model", "data", "end"),
    [
        (f"bedrock/{CLAUDE}", STREAM + METADATA, "converse-stream"),
        (f"bedrock_invoke/{CLAUDE}", b"".join(map(chunk, CLAUDE_EVENTS)), "invoke-with-response-stream"),
        (f"bedrock_invoke/{NOVA}", b"".join(map(chunk, NOVA_EVENTS)), "invoke-with-response-stream"),
    ],
)
async def test_a_stream_goes_there_and_back(
    amazon: tuple[str, type[Amazon]], model: str, data: bytes, end: str, is_async: bool
) -> None:
    base, upstream = amazon
    upstream.will_stream(data)
    asked: Json = {"api_base": base, "api_key": "key", "stream_options": {"include_usage": True}}
    if is_async:
        chunks = [piece async for piece in await rejoinder.acompletion(model, [USER], stream=True, **asked)]
    else:
        chunks = list(rejoinder.completion(model, [USER], stream=True, **asked))
    assert "".join(choice.delta.content or "" for piece in chunks for choice in piece.choices) == "Hi."
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 5
    assert upstream.asked[0].path.endswith(f"/{end}")
    assert b'"stream"' not in upstream.asked[0].body


@pytest.mark.parametrize(
    ("status", "name", "message", "kind"),
    [
        (429, "ThrottlingException", "Too many requests.", rejoinder.RateLimitError),
        (403, "AccessDeniedException", "You don't have access.", rejoinder.PermissionDeniedError),
        (404, "ResourceNotFoundException", "No such model.", rejoinder.NotFoundError),
        (400, "ValidationException", "Malformed input request.", rejoinder.BadRequestError),
        (400, "ValidationException", "Input is too long for requested model.", rejoinder.ContextWindowExceeded),
        (400, "ValidationException", "Output blocked by content filtering policy", rejoinder.ContentPolicyViolation),
        (503, "ServiceUnavailableException", "Busy.", rejoinder.InternalServerError),
    ],
)
def test_errors_have_their_class(
    amazon: tuple[str, type[Amazon]], status: int, name: str, message: str, kind: type[Exception]
) -> None:
    base, upstream = amazon
    upstream.will_answer({"message": message}, status, **{"x-amzn-errortype": f"{name}:http://x/"})
    with pytest.raises(kind) as caught:
        rejoinder.completion(f"bedrock/{CLAUDE}", [USER], api_base=base, api_key="key", num_retries=0)
    assert type(caught.value) is kind
    assert caught.value.code == name  # type: ignore[attr-defined]


def test_an_exception_at_the_start_of_a_stream_is_tried_again(amazon: tuple[str, type[Amazon]]) -> None:
    base, upstream = amazon
    upstream.will_stream(frame({"message": "Wait."}, "exception", "serviceUnavailableException"))
    upstream.will_stream(STREAM + METADATA)
    stream = rejoinder.completion(f"bedrock/{CLAUDE}", [USER], api_base=base, api_key="k", stream=True, num_retries=1)
    assert "".join(piece.choices[0].delta.content or "" for piece in stream if piece.choices) == "Hi."
    assert len(upstream.asked) == 2


# By InvokeModel


def test_claude_is_asked_in_its_own_protocol() -> None:
    said = invoked({"role": "system", "content": "S"}, USER, betas="x-1", top_k=3, max_tokens=9)
    assert said == {
        "anthropic_version": "bedrock-2023-05-31",
        "anthropic_beta": ["x-1"],
        "system": "S",
        "messages": [USER],
        "max_tokens": 9,
        "top_k": 3,
    }


def test_nova_is_asked_in_its_own_protocol() -> None:
    said = invoked(model=NOVA, max_tokens=9)
    assert said["schemaVersion"] == "messages-v1"
    assert said["inferenceConfig"] == {"maxTokens": 9}


def test_marks_are_counted_and_wishes_set_on_blocks_only() -> None:
    said = invoked({"role": "system", "content": "S"}, USER, cache_prompt="auto")
    assert "cache_control" not in said
    assert said["system"][0]["cache_control"] == MARK
    part = {"type": "text", "text": "x", "cache_control": MARK}
    with pytest.raises(InvalidRequest, match="5 marks"):
        invoked({"role": "user", "content": [part] * 5})


def test_a_chunk_that_holds_nothing_is_a_fault() -> None:
    for data in ({}, {"bytes": "%"}, {"bytes": 3}, {"bytes": "e30="}, {"bytes": "bm8="}):
        for model in (CLAUDE, NOVA):
            with pytest.raises(ProviderFault):
                streamed(frame(data, name="chunk"), INVOKE, model)


# Claude on Vertex AI


def vertex_call(model: str = "claude-sonnet-4-5@20250929", **fields: Any) -> Any:
    base = {"api_base": "https://aiplatform.googleapis.com/v1", "parameters": {"vertex_project": "p"}}
    asked = request(model=model, provider="vertex_anthropic", **{**base, **fields})
    return VERTEX.encode(asked, table.PROVIDERS["vertex_anthropic"])


def test_claude_of_vertex_ai_is_a_row_of_its_own() -> None:
    row, model = table.resolve("vertex_ai/claude-sonnet-4-5@20250929")
    assert (row.name, model) == ("vertex_anthropic", "claude-sonnet-4-5@20250929")
    assert table.resolve("vertex_ai/gemini-2.5-pro")[0].name == "vertex_ai"


def test_it_is_at_its_publisher() -> None:
    place = "https://aiplatform.googleapis.com/v1/projects/p/locations/global/publishers/anthropic/models"
    assert vertex_call().url == f"{place}/claude-sonnet-4-5@20250929:rawPredict"
    region = vertex_call(parameters={"vertex_project": "p", "vertex_location": "us-east5"}, stream=True)
    assert region.url.startswith("https://us-east5-aiplatform.googleapis.com/v1/projects/p/locations/us-east5/")
    assert region.url.endswith(":streamRawPredict")
    further = vertex_call(api_base="https://proxy.test/v1/projects/q/locations/l/publishers/anthropic")
    assert further.url == (
        "https://proxy.test/v1/projects/q/locations/l/publishers/anthropic/models/claude-sonnet-4-5@20250929:rawPredict"
    )


def test_its_version_is_in_the_body_and_its_model_is_not() -> None:
    call = vertex_call(parameters={"vertex_project": "p", "max_tokens": 9, "betas": ["a", "b"]}, stream=True)
    assert json.loads(call.body) == {
        "anthropic_version": "vertex-2023-10-16",
        "messages": [USER],
        "max_tokens": 9,
        "stream": True,
    }
    assert call.headers == {"anthropic-beta": "a,b"}


@pytest.mark.parametrize("is_async", [False, True])
async def test_claude_on_vertex_goes_there_and_back(amazon: tuple[str, type[Amazon]], is_async: bool) -> None:
    base, upstream = amazon
    upstream.will_answer(ANTHROPIC)
    events = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in CLAUDE_EVENTS)
    upstream.will_stream(events.encode())
    asked: Json = {"api_base": f"{base}/v1", "api_key": "ya29.token", "vertex_project": "p"}
    model = "vertex_ai/claude-sonnet-4-5@20250929"
    if is_async:
        whole = await rejoinder.acompletion(model, [USER], **asked)
        chunks = [piece async for piece in await rejoinder.acompletion(model, [USER], stream=True, **asked)]
    else:
        whole = rejoinder.completion(model, [USER], **asked)
        chunks = list(rejoinder.completion(model, [USER], stream=True, **asked))
    assert whole.choices[0].message.content == "Hi."
    assert "".join(choice.delta.content or "" for piece in chunks for choice in piece.choices) == "Hi."
    assert upstream.asked[0].headers["authorization"] == "Bearer ya29.token"


def test_redacted_reasoning_may_come_in_pieces() -> None:
    pieces = [delta(0, {"reasoningContent": {"redactedContent": piece}}) for piece in ("QQ==", "Qg==")]
    message = streamed(b"".join((*pieces, delta(1, {"text": "Hi."}), STOP)))["choices"][0]["message"]
    assert message["thinking_blocks"] == [{"type": "redacted_thinking", "data": "QUI="}]
