"""The Ollama codec says in the server's own protocol what was asked in OpenAI's words, and reads the answer back."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rejoinder
from rejoinder.core import answers, endpoint_answers
from rejoinder.core.api_errors import InternalServerError, InvalidRequest, NotFoundError
from rejoinder.core.shape import Misshapen
from rejoinder.core.types import Request
from rejoinder.providers.base import ProviderFault
from rejoinder.providers.ollama import OllamaCodec, OllamaEmbed
from rejoinder.providers.table import PROVIDERS, api_base
from rejoinder.router.fold import fold
from tests.fixtures.calls import both, both_streams
from tests.fixtures.upstream import Upstream

Json = dict[str, Any]

ROW = PROVIDERS["ollama_chat"]
CODEC = OllamaCodec()
USER = {"role": "user", "content": "Hello"}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


def request(*messages: Json, **fields: Any) -> Request:
    base = {"api_base": ROW.base_url, "parameters": {}, "messages": list(messages) or [USER]}
    return Request(**{"endpoint": "chat", "provider": "ollama_chat", "model": "qwen3:4b", **base, **fields})


def sent(*messages: Json, stream: bool = False, **parameters: Any) -> Json:
    return json.loads(CODEC.encode(request(*messages, parameters=parameters, stream=stream), ROW).body)


def turns(*messages: Json) -> list[Json]:
    return sent(*messages)["messages"]


def call(identity: str, name: str, arguments: Any = "{}") -> Json:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


# Requests.


def test_not_streaming_is_said() -> None:
    assert sent() == {"model": "qwen3:4b", "messages": [USER], "stream": False}
    assert sent(stream=True)["stream"] is True


def test_sampling_goes_into_options_and_the_caller_s_options_count_more() -> None:
    body = sent(max_tokens=9, temperature=0, top_k=4, seed=1, stop="END", num_ctx=8192, options={"num_ctx": 1, "x": 2})
    assert body["options"] == {
        "num_predict": 9,
        "temperature": 0,
        "top_k": 4,
        "seed": 1,
        "stop": ["END"],
        "num_ctx": 1,
        "x": 2,
    }
    assert body.keys() == {"model", "messages", "stream", "options"}


def test_each_parameter_it_takes_is_said() -> None:
    values = {"options": {"a": 1}, "tools": [WEATHER], "response_format": {"type": "json_object"}}
    for name in sorted(CODEC.parameters(ROW) - {"tool_choice"}):
        assert len(sent(**{name: values.get(name, 1)})) == 4, name


@pytest.mark.parametrize(
    ("asked", "think"),
    [
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "minimal"}, "low"),
        ({"reasoning_effort": "high"}, "high"),
        ({"reasoning_effort": "high", "think": True}, True),
        ({"think": False}, False),
    ],
)
def test_an_effort_is_how_much_it_thinks(asked: Json, think: Any) -> None:
    assert sent(**asked)["think"] == think


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"type": "json_object"}, "json"),
        ({"type": "json_object", "schema": SCHEMA}, SCHEMA),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}, SCHEMA),
        ({"type": "text"}, None),
    ],
)
def test_formats(form: Json, said: Any) -> None:
    assert sent(response_format=form).get("format") == said


def test_with_no_choice_no_tools_are_sent() -> None:
    assert sent(tools=[WEATHER], tool_choice="auto")["tools"] == [WEATHER]
    assert "tools" not in sent(tools=[WEATHER], tool_choice="none")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_call_cannot_be_forced(choice: Any) -> None:
    with pytest.raises(InvalidRequest, match="cannot be made to call"):
        sent(tools=[WEATHER], tool_choice=choice)


def test_images_are_base64_beside_the_text() -> None:
    content = [
        {"type": "text", "text": "What"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}},
        {"type": "text", "text": "is it?"},
        {"type": "image_url", "image_url": "/9j/4AA"},
    ]
    assert turns({"role": "user", "content": content}) == [
        {"role": "user", "content": "What\nis it?", "images": ["iVBO", "/9j/4AA"]}
    ]


@pytest.mark.parametrize("url", ["https://example.com/cat.png", "data:image/png,plain", ""])
def test_images_elsewhere_are_a_clear_error(url: str) -> None:
    with pytest.raises(InvalidRequest, match="fetches no images"):
        turns({"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]})


def test_results_are_matched_by_name_and_arguments_are_objects() -> None:
    asked = {"role": "assistant", "content": None, "reasoning_content": "Hm.", "tool_calls": []}
    asked["tool_calls"] = [call("c1", "weather", '{"city":"Rome"}'), call("c2", "time", "")]
    results = [{"role": "tool", "tool_call_id": identity, "content": identity} for identity in ("c2", "c1")]
    assert turns(USER, asked, *results)[1:] == [
        {
            "role": "assistant",
            "content": "",
            "thinking": "Hm.",
            "tool_calls": [
                {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}},
                {"type": "function", "function": {"name": "time", "arguments": {}}},
            ],
        },
        {"role": "tool", "content": "c2", "tool_name": "time"},
        {"role": "tool", "content": "c1", "tool_name": "weather"},
    ]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "tool", "tool_call_id": "nobody", "content": "x"},
        {"role": "function", "name": "f", "content": "x"},
        {"role": "user", "content": [{"type": "file", "file": {}}]},
        {"role": "assistant", "content": None, "tool_calls": [call("c", "f", "{broken")]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "custom"}]},
    ],
)
def test_messages_that_the_vendor_has_not_are_clear_errors(message: Json) -> None:
    with pytest.raises(InvalidRequest):
        turns(message)


# Answers.

DONE = {
    "model": "qwen3:4b",
    "created_at": "2026-08-17T15:59:52.972562123Z",
    "message": {"role": "assistant", "content": ""},
    "done": True,
    "done_reason": "stop",
    "total_duration": 4,
    "load_duration": 1,
    "prompt_eval_count": 5,
    "eval_count": 2,
}


def decoded(**changes: Any) -> answers.Completion:
    return answers.completion(CODEC.decode(json.dumps({**DONE, **changes}).encode(), request()))


def test_an_answer_says_when_how_long_and_how_much() -> None:
    answer = decoded(message={"role": "assistant", "content": "Hi", "thinking": "Hm."})
    assert (answer.created, answer.total_duration, answer.load_duration) == (1786982392, 4, 1)
    assert answer.usage.model_dump(exclude_none=True) == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    message = answer.choices[0].message
    assert (message.content, message.reasoning_content) == ("Hi", "Hm.")


def test_calls_without_ids_get_some_and_end_the_answer() -> None:
    said = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}] * 2}
    choice = decoded(message=said).choices[0]
    assert (choice.finish_reason, choice.native_finish_reason, choice.message.content) == ("tool_calls", "stop", None)
    assert [call.id for call in choice.message.tool_calls] == ["call_0", "call_1"]
    assert choice.message.tool_calls[0].function.arguments == '{"a":1}'


def test_logprobs_are_openai_s() -> None:
    tokens = [{"token": "Hi", "logprob": -0.5, "top_logprobs": [{"token": "Ho", "logprob": -1.5}]}]
    logprobs = decoded(logprobs=tokens).choices[0].logprobs
    assert (logprobs.content[0].token, logprobs.content[0].top_logprobs[0].logprob) == ("Hi", -1.5)


@pytest.mark.parametrize(("theirs", "ours"), [("stop", "stop"), ("length", "length"), ("load", "stop"), (None, "stop")])
def test_finish_reasons(theirs: str | None, ours: str) -> None:
    assert decoded(done_reason=theirs).choices[0].finish_reason == ours


# Streams.


def line(content: str = "", **message: Any) -> bytes:
    return json.dumps({**DONE, "message": {"content": content, **message}, "done": False}).encode() + b"\n"


def last() -> bytes:
    return json.dumps(DONE).encode() + b"\n"


def chunks(*lines: bytes) -> list[bytes]:
    decoder = CODEC.decoder(request(stream=True))
    return [chunk for data in lines for chunk in decoder.feed(data)] + decoder.end()


def test_calls_in_several_pieces_are_counted_on() -> None:
    pieces = [line(tool_calls=[{"function": {"name": name, "arguments": {}}}]) for name in ("f", "g")]
    said = chunks(*pieces, last())
    deltas = [choice["delta"] for chunk in said for choice in json.loads(chunk)["choices"]]
    assert [call["index"] for delta in deltas for call in delta.get("tool_calls", ())] == [0, 1]
    message = answers.completion(fold(said)).choices[0].message
    assert [(call.id, call.function.name) for call in message.tool_calls] == [("call_0", "f"), ("call_1", "g")]


def test_the_role_is_said_once_and_the_usage_last() -> None:
    said = [json.loads(chunk) for chunk in chunks(line("He"), line("y"), last())]
    assert [piece["choices"][0]["delta"] for piece in said[:-1]] == [
        {"content": "He", "role": "assistant"},
        {"content": "y"},
        {},
    ]
    assert said[-2]["choices"][0]["finish_reason"] == "stop"
    assert (said[-1]["choices"], said[-1]["usage"]["total_tokens"], said[-1]["total_duration"]) == ([], 7, 4)


def test_a_last_line_without_its_break_is_whole() -> None:
    assert len(chunks(line("Hi"), last().rstrip())) == 3


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("model 'nobody' not found", 404),
        ("model runner has unexpectedly stopped, this may be due to resource limitations or an internal error", 500),
        ("something else", 500),
    ],
)
def test_an_error_in_a_stream_stands_for_a_status(said: str, status: int) -> None:
    error = json.dumps({"error": said}).encode()
    for lines in ((line("Hi"), error + b"\n"), (line("Hi"), error), (error,)):
        with pytest.raises(ProviderFault) as caught:
            chunks(*lines)
        assert (caught.value.failure.message, caught.value.failure.status) == (said, status)


@pytest.mark.parametrize("lines", [[], [line("Hi")], [line("Hi"), last()[:40]], [b"\n\n"]])
def test_a_stream_without_an_end_is_a_fault(lines: list[bytes]) -> None:
    with pytest.raises(ProviderFault) as caught:
        chunks(*lines)
    assert (caught.value.failure.code, caught.value.failure.status) == ("incomplete_stream", 502)


@pytest.mark.parametrize(
    "bad", [b"[]\n", b"7\n", b"<html><title>No</title></html>", b'{"message":7}\n', line(thinking=[1]), line() + b"{\n"]
)
def test_lines_that_are_none_are_faults(bad: bytes) -> None:
    with pytest.raises(ProviderFault):
        chunks(bad)


NAMES = [
    "arguments",
    "content",
    "created_at",
    "done",
    "done_reason",
    "embeddings",
    "error",
    "eval_count",
    "function",
    "id",
    "logprobs",
    "message",
    "model",
    "name",
    "prompt_eval_count",
    "role",
    "thinking",
    "token",
    "tool_calls",
    "top_logprobs",
    "total_duration",
]
READS = (
    lambda body: answers.completion(CODEC.decode(body, request())),
    lambda body: [answers.chunk(chunk) for chunk in chunks(line("Hi"), body + b"\n", last())],
    lambda body: endpoint_answers.embeddings(OllamaEmbed().decode(body, request())),
)

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(ANYTHING)
def test_no_body_raises_anything_but_a_fault(value: Any) -> None:
    body = json.dumps(value).encode()
    for read in READS:
        with contextlib.suppress(ProviderFault, Misshapen):
            read(body)
    assert CODEC.failure(500, body).message


# Vectors.


def test_vectors() -> None:
    asked = request(endpoint="embedding", parameters={"input": ["a", "b"], "dimensions": 2, "num_ctx": 7})
    body = json.loads(OllamaEmbed().encode(asked, ROW).body)
    assert body == {"model": "qwen3:4b", "input": ["a", "b"], "dimensions": 2, "options": {"num_ctx": 7}}


def test_vectors_as_text_are_not_to_be_had() -> None:
    with pytest.raises(InvalidRequest, match="numbers only"):
        OllamaEmbed().encode(request(parameters={"input": "a", "encoding_format": "base64"}), ROW)


@pytest.mark.parametrize("body", [b'{"error":"no"}', b"[]", b"7", b"x", b'{"embeddings":7}', b'{"embeddings":[7]}'])
def test_what_is_no_vector_is_a_fault(body: bytes) -> None:
    with pytest.raises(ProviderFault):
        OllamaEmbed().decode(body, request())


# The whole way.


@pytest.fixture(scope="module")
def running() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture
def upstream(running: Upstream) -> Upstream:
    running.reset()
    return running


def at(upstream: Upstream) -> Json:
    return {"model": "ollama_chat/qwen3:4b", "api_base": upstream.root, "num_retries": 0}


@both
def test_a_call_needs_no_key_and_its_answer_reaches_the_caller(
    ask: Any, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OLLAMA_API_KEY", raising=False)
    upstream.configure(body={**DONE, "message": {"role": "assistant", "content": "Hello"}})
    answer = ask(**at(upstream), num_ctx=8192)
    assert (answer.choices[0].message.content, answer.total_duration) == ("Hello", 4)
    seen = upstream.requests[-1]
    assert seen.path == "/api/chat"
    assert "authorization" not in seen.headers
    assert seen.json["options"] == {"num_ctx": 8192}


@both_streams
def test_a_stream_reaches_the_caller(read: Any, upstream: Upstream) -> None:
    upstream.configure(body=b"".join([line("Hel"), line("lo"), last()]).decode())
    said = read(**at(upstream), api_key="cloud-key")
    assert "".join(chunk.choices[0].delta.content or "" for chunk in said if chunk.choices) == "Hello"
    assert upstream.requests[-1].headers["authorization"] == "Bearer cloud-key"


@both
def test_errors_have_their_class(ask: Any, upstream: Upstream) -> None:
    for status, kind in ((404, NotFoundError), (500, InternalServerError)):
        upstream.configure(status=status, body={"error": "model 'x' not found, try pulling it first"})
        with pytest.raises(kind, match="try pulling it first"):
            ask(**at(upstream))


def test_vectors_reach_the_caller(upstream: Upstream) -> None:
    upstream.configure(body={"model": "e", "embeddings": [[0.5], [0.25]], "prompt_eval_count": 4})
    vectors = rejoinder.embedding(input=["a", "b"], **at(upstream))
    assert [item.embedding for item in vectors.data] == [[0.5], [0.25]]
    assert upstream.requests[-1].path == "/api/embed"


def test_the_variables_and_urls_of_the_other_row_serve_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OLLAMA_API_BASE", raising=False)
    monkeypatch.setenv("OLLAMA_HOST", "gpu-box")
    assert api_base(ROW, None) == "http://gpu-box:11434"
    for base in ("http://gpu-box:11434", "http://gpu-box:11434/v1", "http://gpu-box:11434/api"):
        assert CODEC.template(ROW, request(api_base=base), None)[0] == "http://gpu-box:11434/api/chat"
