"""The Cohere codec says in the vendor's protocol what was asked in OpenAI's words, and reads the answer back."""

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
from rejoinder.core.api_errors import BadRequestError, ContextWindowExceeded, InternalServerError, InvalidRequest
from rejoinder.core.shape import Misshapen
from rejoinder.core.types import Request
from rejoinder.providers.base import ProviderFault
from rejoinder.providers.cohere import CohereCodec
from rejoinder.providers.cohere_endpoints import CohereEmbed, CohereRerank
from rejoinder.providers.table import PROVIDERS, resolve
from rejoinder.router.fold import fold
from tests.fixtures.calls import both, both_streams
from tests.fixtures.upstream import Upstream

Json = dict[str, Any]

ROW = PROVIDERS["cohere"]
CODEC = CohereCodec()
USER = {"role": "user", "content": "Hello"}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
TIME = {"type": "function", "function": {"name": "time", "description": "Tells it.", "strict": True}}


def request(*messages: Json, **fields: Any) -> Request:
    base = {"api_base": ROW.base_url, "parameters": {}, "messages": list(messages) or [USER]}
    return Request(**{"endpoint": "chat", "provider": "cohere", "model": "command-a", **base, **fields})


def sent(*messages: Json, **parameters: Any) -> Json:
    return json.loads(CODEC.encode(request(*messages, parameters=parameters), ROW).body)


def turn(message: Json) -> Json:
    (said,) = sent(message)["messages"]
    return said


def call(identity: str, name: str, arguments: Any = "{}") -> Json:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


# Requests.


def test_parameters_are_said_in_the_vendor_s_words() -> None:
    body = sent(max_completion_tokens=5, top_p=0.5, top_k=3, stop="END", temperature=0, seed=1, safety_mode="STRICT")
    assert body == {
        "model": "command-a",
        "messages": [USER],
        "max_tokens": 5,
        "p": 0.5,
        "k": 3,
        "stop_sequences": ["END"],
        "temperature": 0,
        "seed": 1,
        "safety_mode": "STRICT",
    }


def test_each_parameter_it_takes_is_said() -> None:
    for name in sorted(CODEC.parameters(ROW)):
        values = {
            "tools": [WEATHER],
            "tool_choice": "none",
            "response_format": {"type": "json_object"},
            "reasoning_effort": "low",
        }
        assert len(sent(**{name: values.get(name, 1)})) == 3, name


@pytest.mark.parametrize(
    ("effort", "thinking"),
    [
        ("none", {"type": "disabled"}),
        ("low", {"type": "enabled", "token_budget": 2048}),
        ("high", {"type": "enabled"}),
    ],
)
def test_an_effort_is_a_budget_for_thinking(effort: str, thinking: Json) -> None:
    assert sent(reasoning_effort=effort)["thinking"] == thinking


def test_the_caller_s_thinking_counts_more_than_an_effort() -> None:
    body = sent(reasoning_effort="low", thinking={"type": "disabled"})
    assert body["thinking"] == {"type": "disabled"}


SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"type": "text"}, {"type": "text"}),
        ({"type": "json_object"}, {"type": "json_object"}),
        ({"type": "json_object", "schema": SCHEMA}, {"type": "json_object", "json_schema": SCHEMA}),
        ({"type": "json_object", "json_schema": SCHEMA}, {"type": "json_object", "json_schema": SCHEMA}),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}},
            {"type": "json_object", "json_schema": SCHEMA},
        ),
    ],
)
def test_a_schema_goes_with_the_only_form_there_is(form: Json, said: Json) -> None:
    assert sent(response_format=form)["response_format"] == said


@pytest.mark.parametrize(("choice", "said"), [("auto", None), ("required", "REQUIRED"), ("none", "NONE")])
def test_tool_choices(choice: str, said: str | None) -> None:
    assert sent(tools=[WEATHER], tool_choice=choice).get("tool_choice") == said


def test_one_certain_function_is_the_only_tool_and_required() -> None:
    body = sent(tools=[WEATHER, TIME], tool_choice={"type": "function", "function": {"name": "weather"}})
    assert body["tools"] == [WEATHER]
    assert body["tool_choice"] == "REQUIRED"


def test_strict_functions_make_all_strict_and_parameters_are_never_missing() -> None:
    body = sent(tools=[TIME])
    assert body["strict_tools"] is True
    function = {"name": "time", "description": "Tells it.", "parameters": {"type": "object", "properties": {}}}
    assert body["tools"] == [{"type": "function", "function": function}]


@pytest.mark.parametrize(
    "parameters",
    [
        {"tool_choice": "weather"},
        {"tool_choice": {"type": "function", "function": {"name": "other"}}, "tools": [WEATHER]},
        {"tools": [{"type": "custom", "custom": {"name": "x"}}]},
        {"response_format": {"type": "grammar"}},
        {"response_format": {"type": "json_schema"}},
        {"reasoning_effort": "enormous"},
    ],
)
def test_what_the_vendor_cannot_be_told_is_a_clear_error(parameters: Json) -> None:
    with pytest.raises(InvalidRequest):
        sent(**parameters)


def test_images_and_documents_are_sent_and_marks_are_not() -> None:
    text = {"type": "text", "text": "See"}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}}
    mark = {"cache_control": {"type": "ephemeral"}}
    assert turn({"role": "user", "content": [{**text, **mark}, image]})["content"] == [text, image]
    document = {"type": "document", "document": {"id": "d", "data": {"text": "sunny"}}}
    said = turn({"role": "tool", "tool_call_id": "c", "content": [document]})
    assert said == {"role": "tool", "tool_call_id": "c", "content": [document]}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]},
        {"role": "tool", "content": "no id"},
        {"role": "function", "name": "f", "content": "x"},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "x", "type": "custom"}]},
    ],
)
def test_messages_that_the_vendor_has_not_are_clear_errors(message: Json) -> None:
    with pytest.raises(InvalidRequest):
        turn(message)


def test_developers_are_the_system() -> None:
    assert turn({"role": "developer", "content": "Be brief."}) == {"role": "system", "content": "Be brief."}


def test_an_earlier_answer_goes_back_with_its_plan_its_thinking_and_its_citations() -> None:
    theirs = {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Sunny."}],
        "tool_plan": "I will look.",
        "tool_calls": [call("c", "weather")],
        "citations": [{"start": 0, "end": 5, "text": "Sunny", "sources": []}],
    }
    body = json.dumps({"id": "i", "message": theirs, "finish_reason": "TOOL_CALL"}).encode()
    answer = answers.completion(CODEC.decode(body, request()))
    said = turn(answer.choices[0].message.model_dump(mode="json", exclude_none=True))
    assert said == theirs


def test_thinking_of_other_vendors_stays_here() -> None:
    signed = {"type": "thinking", "thinking": "Hm.", "signature": "abc"}
    said = turn({"role": "assistant", "content": "Yes.", "thinking_blocks": [signed], "reasoning_content": "Hm."})
    assert said == {"role": "assistant", "content": "Yes."}


def test_arguments_are_text_and_never_empty() -> None:
    calls = [call("a", "f", ""), call("b", "f", {"x": 1})]
    said = turn({"role": "assistant", "content": None, "tool_calls": calls})["tool_calls"]
    assert [item["function"]["arguments"] for item in said] == ["{}", '{"x":1}']


def test_extra_body_has_the_last_word() -> None:
    asked = request(parameters={"temperature": 1}, extra_body={"temperature": 0})
    assert json.loads(CODEC.encode(asked, ROW).body)["temperature"] == 0


# Answers.


def decoded(**answer: Any) -> answers.Completion:
    theirs = {"id": "i", "finish_reason": "COMPLETE", "message": {"role": "assistant", "content": []}, **answer}
    return answers.completion(CODEC.decode(json.dumps(theirs).encode(), request()))


def test_usage_counts_what_the_model_read_and_keeps_what_is_billed() -> None:
    usage = decoded(
        usage={
            "billed_units": {"input_tokens": 10, "output_tokens": 4},
            "tokens": {"input_tokens": 500.0, "output_tokens": 6, "reasoning_tokens": 2, "image_tokens": 7},
            "cached_tokens": 448,
        }
    ).usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (500, 6, 506)
    assert usage.prompt_tokens_details.model_dump(exclude_none=True) == {"cached_tokens": 448, "image_tokens": 7}
    assert usage.completion_tokens_details.reasoning_tokens == 2
    assert usage.billed_units == {"input_tokens": 10, "output_tokens": 4}


def test_what_is_billed_is_what_it_costs() -> None:
    tokens, billed = {"input_tokens": 1500, "output_tokens": 60}, {"input_tokens": 40, "output_tokens": 50}
    answer = decoded(usage={"billed_units": billed, "tokens": tokens, "cached_tokens": 1400})
    price = sum(rejoinder.cost_per_token("cohere/command-a", 40, 50))
    assert price > 0
    assert rejoinder.completion_cost(answer, "cohere/command-a") == pytest.approx(price)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("COMPLETE", "stop"), ("STOP_SEQUENCE", "stop"), ("MAX_TOKENS", "length"), ("TOOL_CALL", "tool_calls")],
)
def test_finish_reasons(theirs: str, ours: str) -> None:
    choice = decoded(finish_reason=theirs).choices[0]
    assert (choice.finish_reason, choice.native_finish_reason) == (ours, theirs)


@pytest.mark.parametrize(("reason", "status"), [("ERROR", 500), ("TIMEOUT", 504)])
def test_an_answer_that_broke_off_is_a_fault(reason: str, status: int) -> None:
    ending = b'event: message-end\ndata: {"type":"message-end","delta":{"finish_reason":"%s","error":"bang"}}\n\n'
    faults = []
    for read in (lambda: decoded(finish_reason=reason, error="bang"), lambda: chunks(ending % reason.encode())):
        with pytest.raises(ProviderFault) as caught:
            read()
        faults.append(caught.value.failure)
    assert {(fault.message, fault.status) for fault in faults} == {("bang", status)}


def test_logprobs_of_a_piece_are_the_sum_of_its_tokens() -> None:
    logprobs = decoded(logprobs=[{"text": "Hi!", "token_ids": [1, 2], "logprobs": [-0.5, -0.25]}]).choices[0].logprobs
    assert logprobs is not None
    (token,) = logprobs.content
    assert (token.token, token.logprob, token.token_logprobs) == ("Hi!", -0.75, [-0.5, -0.25])


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("too many tokens: size limit exceeded by 11326 tokens.", "context_window"),
        ("too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 4292.", "context_window"),
        ("too many tokens: max tokens must be less than or equal to 4096, the maximum output for this model.", None),
        ("invalid request: message must be at least 1 token long", None),
    ],
)
def test_kinds_of_failure(said: str, kind: str | None) -> None:
    failure = CODEC.failure(400, json.dumps({"id": "x", "message": said}).encode())
    assert (failure.message, failure.kind) == (said, kind)


# Streams.

START = b'event: message-start\ndata: {"type":"message-start","id":"s","delta":{"message":{"role":"assistant"}}}\n\n'


def event(kind: str, index: int | None, **message: Any) -> bytes:
    data = {"type": kind, "index": index, "delta": {"message": message}}
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def end(reason: str = "COMPLETE") -> bytes:
    data = {"type": "message-end", "delta": {"finish_reason": reason, "usage": {"tokens": {"input_tokens": 3}}}}
    return f"data: {json.dumps(data)}\n\ndata: [DONE]\n\n".encode()


def chunks(*events: bytes) -> list[bytes]:
    decoder = CODEC.decoder(request(stream=True))
    return [chunk for data in (START, *events) for chunk in decoder.feed(data)] + decoder.end()


def folded(*events: bytes) -> answers.Completion:
    return answers.completion(fold(chunks(*events)))


def test_a_streamed_call_without_arguments_has_an_empty_object() -> None:
    start = event("tool-call-start", 0, tool_calls=call("c", "now", ""))
    answer = folded(start, event("tool-call-end", 0), end("TOOL_CALL"))
    assert answer.choices[0].message.tool_calls[0].function.arguments == "{}"
    assert answer.choices[0].message.content is None


def test_a_plan_is_streamed_in_pieces_and_is_whole_in_the_end() -> None:
    events = [event("tool-plan-delta", None, tool_plan=piece) for piece in ("I ", "will ", "look.")]
    said = [json.loads(chunk)["choices"] for chunk in chunks(*events, end())]
    assert [choices[0]["delta"]["tool_plan"] for choices in said[1:4]] == ["I ", "will ", "look."]
    assert folded(*events, end()).choices[0].message.tool_plan == "I will look."


def test_thinking_is_streamed_and_its_block_follows_when_it_is_whole() -> None:
    events = [
        event("content-start", 0, content={"type": "thinking", "thinking": "Let "}),
        event("content-delta", 0, content={"thinking": "me."}),
        event("content-end", 0),
        event("content-start", 1, content={"type": "text", "text": "4"}),
        event("content-end", 1),
    ]
    message = folded(*events, end()).choices[0].message
    assert (message.reasoning_content, message.content) == ("Let me.", "4")
    assert message.thinking_blocks == [{"type": "thinking", "thinking": "Let me."}]


def test_events_that_are_new_do_no_harm() -> None:
    answer = folded(event("mood-start", 0, mood="good"), event("content-delta", 0, content={"text": "Hi"}), end())
    assert answer.choices[0].message.content == "Hi"


def test_an_answer_that_says_nothing_has_empty_content() -> None:
    assert folded(end()).choices[0].message.content == ""


@pytest.mark.parametrize(
    "body",
    [
        b'data: {"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"early"}}}}\n\n',
        START + b'data: {"type":"content-delta","index":0,"delta":{"message":{"content":{"text":7}}}}\n\n',
        START + b'data: {"type":"tool-call-delta","index":3,"delta":{"message":{"tool_calls":{"function":'
        b'{"arguments":"x"}}}}}\n\n',
        START + b"data: [1]\n\n",
        START + b'data: {"message":"internal server error"}\n\n',
        b"<html><title>Bad gateway</title></html>",
        b"",
    ],
)
def test_a_stream_that_is_none_is_a_fault(body: bytes) -> None:
    decoder = CODEC.decoder(request(stream=True))
    with pytest.raises(ProviderFault):
        [*decoder.feed(body), *decoder.end()]


NAMES = [
    "arguments",
    "billed_units",
    "cached_tokens",
    "citations",
    "content",
    "delta",
    "embeddings",
    "finish_reason",
    "float",
    "function",
    "id",
    "index",
    "input_tokens",
    "logprobs",
    "message",
    "meta",
    "name",
    "results",
    "text",
    "thinking",
    "tokens",
    "tool_calls",
    "tool_plan",
    "type",
    "usage",
]
KINDS = ["content-start", "content-delta", "tool-call-start", "tool-call-delta", "citation-start", "message-end"]
READS = (
    lambda body: answers.completion(CODEC.decode(body, request())),
    lambda body: [answers.chunk(chunk) for chunk in chunks(b"data: " + body + b"\n\n", end())],
    *(
        lambda body, kind=kind: chunks(b"event: " + kind.encode() + b"\ndata: " + body + b"\n\n", end())
        for kind in KINDS
    ),
    lambda body: endpoint_answers.embeddings(CohereEmbed().decode(body, request())),
    lambda body: endpoint_answers.READERS["rerank"](CohereRerank().decode(body, request())),
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


# Vectors and rankings.


def test_vectors_are_asked_for_in_the_vendor_s_words() -> None:
    asked = request(endpoint="embedding", parameters={"input": "a", "dimensions": 256, "encoding_format": "base64"})
    assert json.loads(CohereEmbed().encode(asked, ROW).body) == {
        "model": "command-a",
        "input_type": "search_document",
        "texts": ["a"],
        "output_dimension": 256,
        "embedding_types": ["base64"],
    }


def test_tokens_cannot_be_embedded() -> None:
    with pytest.raises(InvalidRequest, match="texts, not tokens"):
        CohereEmbed().encode(request(endpoint="embedding", parameters={"input": [1, 2]}), ROW)


def test_other_types_of_vectors_stand_beside_the_numbers() -> None:
    body = (
        b'{"id":"x","embeddings":{"int8":[[1],[2]],"float":[[0.5],[0.25]]},"meta":{"billed_units":{"input_tokens":2}}}'
    )
    data = json.loads(CohereEmbed().decode(body, request(endpoint="embedding")))["data"]
    assert [(item["embedding"], item["int8"]) for item in data] == [([0.5], [1]), ([0.25], [2])]


def test_documents_are_ranked_as_texts() -> None:
    documents = ["a", {"text": "b"}, {"title": "c", "year": 1}]
    asked = request(endpoint="rerank", parameters={"query": "q", "documents": documents, "return_documents": True})
    body = json.loads(CohereRerank().encode(asked, ROW).body)
    assert body == {"model": "command-a", "query": "q", "documents": ["a", "b", '{"title":"c","year":1}']}


@pytest.mark.parametrize(
    "body", [b'{"message":"no"}', b"[]", b"7", b"x", b'{"embeddings":7}', b'{"embeddings":{}}', b'{"results":[{}]}']
)
def test_what_is_no_vector_and_no_ranking_is_a_fault(body: bytes) -> None:
    for codec in (CohereEmbed(), CohereRerank()):
        with pytest.raises(ProviderFault):
            codec.decode(body, request(endpoint="embedding"))


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
    return {"model": "cohere/command-a", "api_base": upstream.root, "api_key": "sk-mock", "num_retries": 0}


@both
def test_a_call_reaches_the_vendor_and_its_answer_the_caller(ask: Any, upstream: Upstream) -> None:
    message = {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]}
    upstream.configure(body={"id": "x", "message": message, "finish_reason": "COMPLETE"})
    answer = ask(**at(upstream), temperature=0)
    assert (answer.choices[0].message.content, answer.model) == ("Hello", "command-a")
    seen = upstream.requests[-1]
    assert (seen.path, seen.headers["authorization"]) == ("/v2/chat", "Bearer sk-mock")
    assert seen.json["temperature"] == 0


@both_streams
def test_a_stream_reaches_the_caller(read: Any, upstream: Upstream) -> None:
    pieces = [event("content-delta", 0, content={"text": text}) for text in ("Hel", "lo")]
    upstream.configure(body=b"".join([START, *pieces, end()]).decode())
    said = read(**at(upstream))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in said if chunk.choices) == "Hello"
    assert said[-2].choices[0].finish_reason == "stop"
    assert upstream.requests[-1].json["stream"] is True


@both
def test_errors_have_their_class(ask: Any, upstream: Upstream) -> None:
    too_long = {"error_type": "TOO_MANY_TOKENS", "message": "too many tokens: size limit exceeded by 9 tokens."}
    steps = [(400, too_long, ContextWindowExceeded), (400, {"message": "bad"}, BadRequestError)]
    for status, body, kind in [*steps, (500, {"message": "oh"}, InternalServerError)]:
        upstream.configure(status=status, body=body)
        with pytest.raises(kind, match=body["message"].rstrip(".")) as caught:
            ask(**at(upstream))
        assert type(caught.value) is kind


@both
def test_a_parameter_that_the_vendor_has_not_is_refused_before_anything_is_sent(ask: Any, upstream: Upstream) -> None:
    with pytest.raises(InvalidRequest, match="logit_bias"):
        ask(**at(upstream), logit_bias={"1": 1})
    assert upstream.calls == 0


def test_vectors_and_rankings_reach_the_caller(upstream: Upstream) -> None:
    upstream.configure(body={"id": "x", "embeddings": {"float": [[1.0], [2.0]]}, "meta": {}})
    vectors = rejoinder.embedding(input=["a", "b"], **at(upstream))
    assert [item.embedding for item in vectors.data] == [[1.0], [2.0]]
    upstream.configure(body={"id": "x", "results": [{"index": 1, "relevance_score": 0.5}], "meta": {}})
    ranking = rejoinder.rerank(query="q", documents=["a", "b"], return_documents=True, **at(upstream))
    assert ranking.results[0].document == {"text": "b"}
    assert [seen.path for seen in upstream.requests] == ["/v2/embed", "/v2/rerank"]


@pytest.mark.parametrize("tail", ["", "/", "/v2", "/v2/chat"])
def test_base_urls_may_be_given_with_the_version_or_whole(tail: str) -> None:
    asked = request(api_base=f"https://proxy.example{tail}".rstrip("/"))
    assert CODEC.template(ROW, asked, "k")[0] == "https://proxy.example/v2/chat"


def test_it_has_litellm_s_name_too() -> None:
    assert resolve("cohere_chat/command-a") == (ROW, "command-a")
