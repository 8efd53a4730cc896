"""What vendors and the servers between say beside their protocols is read as it was meant, or is an error of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import rejoinder
from rejoinder.providers.call_places import CallPlaces
from rejoinder.providers.failures import failure_kind
from tests.fixtures.scripted import Scripted, events

Json = dict[str, Any]

USER = {"role": "user", "content": "Hello"}
CLAUDE = "anthropic/claude-sonnet-4-5"
GEMINI = "gemini/gemini-2.5-flash"
COHERE = "cohere/command-a-03-2025"
BEDROCK = "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0"
OLLAMA = "ollama_chat/llama3.2"
ANY = "openai_compatible/any"
EVERY = (CLAUDE, GEMINI, COHERE, BEDROCK, OLLAMA, ANY)
STREAM = {"content-type": "text/event-stream"}


@pytest.fixture(scope="module")
def vendor() -> Iterator[Scripted]:
    with Scripted() as running:
        yield running


def ask(vendor: Scripted, model: str = ANY, messages: Any = None, **more: Any) -> Any:
    more = {"num_retries": 0, **more}
    return rejoinder.completion(
        model, messages or [USER], api_base=vendor.url, api_key="sk-mock", caching=False, **more
    )


def streamed(vendor: Scripted, *said: Any, model: str = ANY, **more: Any) -> Any:
    vendor.says(events(*said, **more), pieces=7, **STREAM)
    return rejoinder.stream_chunk_builder(list(ask(vendor, model, stream=True))).choices[0]


# Errors


DEAD = [
    (GEMINI, 403, {"error": {"code": 403, "message": "Your API key was reported as leaked.", "status": "X"}}),
    (GEMINI, 403, {"error": {"code": 403, "message": "Method doesn't allow unregistered callers", "status": "X"}}),
    (GEMINI, 400, {"error": {"code": 400, "message": "Expired.", "details": [{"reason": "API_KEY_INVALID"}]}}),
    (CLAUDE, 403, {"type": "error", "error": {"type": "permission_error", "message": "OAuth token has been revoked."}}),
    (BEDROCK, 403, {"__type": "ExpiredTokenException", "message": "The security token … is expired"}),
    (BEDROCK, 403, {"message": "The security token included in the request is invalid."}),
    (BEDROCK, 403, {"Message": "Authentication failed: Please make sure your API Key is valid."}),
]


@pytest.mark.parametrize(("model", "status", "body"), DEAD)
def test_a_key_that_is_no_longer_good_is_an_authentication_error(
    vendor: Scripted, model: str, status: int, body: Json
) -> None:
    vendor.says(body, status=status)
    with pytest.raises(rejoinder.AuthenticationError) as caught:
        ask(vendor, model)
    assert caught.value.status_code == status


LACKING = [
    (GEMINI, {"error": {"code": 403, "message": "No.", "details": [{"reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT"}]}}),
    (CLAUDE, {"type": "error", "error": {"type": "permission_error", "message": "Not this model."}}),
    (BEDROCK, {"__type": "AccessDeniedException", "message": "You don't have access to the model."}),
]


@pytest.mark.parametrize(("model", "body"), LACKING)
def test_a_right_that_lacks_is_a_permission_error(vendor: Scripted, model: str, body: Json) -> None:
    vendor.says(body, status=403)
    with pytest.raises(rejoinder.PermissionDeniedError):
        ask(vendor, model)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", EVERY)
def test_a_web_page_instead_of_an_answer_is_said_to_be_one(vendor: Scripted, model: str, stream: bool) -> None:
    vendor.says(b"\n<html><head><title>Sign in</title></head></html>", **{"content-type": "text/html"})
    with pytest.raises(rejoinder.InternalServerError, match="a web page instead of an answer: Sign in"):
        ask(vendor, model, stream=stream)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", EVERY)
def test_no_bytes_at_all_are_an_error(vendor: Scripted, model: str, stream: bool) -> None:
    vendor.says(b"")
    with pytest.raises(rejoinder.InternalServerError) as caught:
        ask(vendor, model, stream=stream)
    assert caught.value.status_code == 502


def test_cohere_s_list_of_what_must_not_be_said_is_a_content_policy(vendor: Scripted) -> None:
    vendor.says({"message": "blocked output"}, status=498)
    with pytest.raises(rejoinder.ContentPolicyViolation):
        ask(vendor, COHERE)


def test_an_account_without_money_is_not_asked_again(vendor: Scripted) -> None:
    error = {"message": "You exceeded your current quota.", "type": "insufficient_quota", "code": "insufficient_quota"}
    vendor.says({"error": error}, status=429)
    before = len(vendor.asked)
    with pytest.raises(rejoinder.RateLimitError):
        ask(vendor, "openai/gpt-4o", num_retries=3)
    assert len(vendor.asked) == before + 1


# Anthropic and its imitations


@pytest.mark.parametrize(("content", "said"), [(None, ""), ("Hi", "Hi"), ([], "")])
def test_claude_s_content_may_be_a_text_or_nothing(vendor: Scripted, content: Any, said: str) -> None:
    vendor.says({"type": "message", "content": content, "stop_reason": "end_turn"})
    assert ask(vendor, CLAUDE).choices[0].message.content == said


def test_a_call_s_input_that_is_a_text_is_not_quoted_again(vendor: Scripted) -> None:
    block = {"type": "tool_use", "id": "t", "name": "f", "input": '{"a":1}'}
    vendor.says({"type": "message", "content": [block], "stop_reason": "tool_use"})
    assert ask(vendor, CLAUDE).choices[0].message.tool_calls[0].function.arguments == '{"a":1}'


def test_tokens_written_to_claude_s_cache_count_where_only_their_lifetimes_are_told(vendor: Scripted) -> None:
    lifetimes = {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4}
    usage = {"input_tokens": 1, "output_tokens": 1, "cache_creation": lifetimes}
    vendor.says({"type": "message", "content": [], "stop_reason": "end_turn", "usage": usage})
    counted = ask(vendor, CLAUDE).usage
    assert (counted.prompt_tokens, counted.prompt_tokens_details.cache_write_tokens) == (8, 7)
    assert rejoinder.usage_line(counted) == "9 tokens [I: 1, CW: 7, CR: 0, O: 1]"


# OpenAI's protocol and its imitations


def piece(*calls: Json, **delta: Any) -> Json:
    said = {"tool_calls": list(calls), **delta} if calls else delta
    return {"id": "c", "choices": [{"index": 0, "delta": said, "finish_reason": None}]}


def call(name: str | None = None, arguments: str = "", **rest: Any) -> Json:
    function = {"name": name, "arguments": arguments} if name else {"arguments": arguments}
    return {"type": "function", "function": function, **rest}


CALLED = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
BADLY_NUMBERED = {
    "no index, pieces with ids": [
        piece(call("f", '{"a"', id="x")),
        piece(call(None, ":1}", id="x")),
        piece(call("g", '{"b":2}', id="y")),
    ],
    "no index, pieces without ids": [
        piece(call("f", '{"a":1}', id="x")),
        piece(call("g", '{"b"', id="y")),
        piece(call(None, ":2}")),
    ],
    "one index for all, whole": [
        piece(call("f", '{"a":1}', id="x", index=0)),
        piece(call("g", '{"b":2}', id="y", index=0)),
    ],
    "one index for all, in pieces": [
        piece(call("f", "", id="x", index=0)),
        piece(call(None, '{"a":1}', id="", index=0)),
        piece(call("g", "", id="y", index=0)),
        piece(call(None, '{"b":2}', id="", index=0)),
    ],
    "one index and no ids": [piece(call("f", '{"a":1}', id="", index=0), call("g", '{"b":2}', id="", index=0))],
    "a new id with each piece": [
        piece(call("f", "", id="x", index=0)),
        piece(call("f", '{"a"', id="x2", index=0)),
        piece(call(None, ":1}", id="x3", index=0)),
        piece(call("g", '{"b":2}', id="y", index=1)),
    ],
    "the whole call in one piece, once more its id": [
        piece(call("f", '{"a"', id="x", index=0)),
        piece(call("f", ":1}", id="x", index=0)),
        piece(call("g", '{"b":2}', id="y", index=1)),
    ],
}


@pytest.mark.parametrize("said", BADLY_NUMBERED.values(), ids=BADLY_NUMBERED)
def test_calls_that_a_server_numbers_badly_come_apart_by_their_index(vendor: Scripted, said: list[Json]) -> None:
    vendor.says(events(*said, CALLED, done=True), pieces=11, **STREAM)
    collected: dict[int, list[str]] = {}
    ids: dict[int, set[str]] = {}
    for chunk in ask(vendor, stream=True):
        for part in chunk.choices[0].delta.tool_calls or ():
            held = collected.setdefault(part.index, ["", ""])
            held[0] = part.function.name or held[0]
            held[1] += part.function.arguments or ""
            ids.setdefault(part.index, set()).update({part.id} - {None, ""})
    assert collected == {0: ["f", '{"a":1}'], 1: ["g", '{"b":2}']}
    assert all(len(named) <= 1 for named in ids.values())


def test_calls_that_are_numbered_well_are_not_touched() -> None:
    said = [piece(call("f", "", id="x", index=0)), piece(call(None, "{}", index=0)), piece(call("g", id="y", index=1))]
    places = CallPlaces()
    for chunk in (json.dumps(item).encode() for item in said):
        assert places.settle(chunk) is chunk


BY_PYTHON = [
    (b'"a\\ud83d"', "a\ufffd"),
    (b'"a\nb"', "a\nb"),
    (b'"a\xff"', "a\ufffd"),
]


@pytest.mark.parametrize(
    ("written", "read", "stream"),
    # A line break ends an event's line.
    [(*case, stream) for case in BY_PYTHON for stream in (False, True) if not (stream and b"\n" in case[0])],
)
def test_json_that_only_python_writes_is_read(vendor: Scripted, written: bytes, read: str, stream: bool) -> None:
    start = b'{"id":"c","created":1,"model":"m","choices":[{"index":0,"finish_reason":"stop",'
    if stream:
        vendor.says(b"data: " + start + b'"delta":{"content":' + written + b"}}]}\n\n", **STREAM)
        chunks = list(ask(vendor, stream=True))
        answer = rejoinder.stream_chunk_builder(chunks)
    else:
        vendor.says(start + b'"message":{"role":"assistant","content":' + written + b"}}]}")
        answer = ask(vendor)
    assert answer.choices[0].message.content == read


def test_a_probability_of_nothing_is_read_as_openai_would_say_it(vendor: Scripted) -> None:
    tokens = b'"logprobs":{"content":[{"token":"a","logprob":-Infinity}]}'
    vendor.says(b'\xef\xbb\xbf{"choices":[{"message":{"content":"a"},"finish_reason":"stop",' + tokens + b"}]}")
    assert ask(vendor).choices[0].logprobs.content[0].logprob == -9999.0


def test_sound_and_its_transcript_are_put_together(vendor: Scripted) -> None:
    pieces = [
        {"id": "s"},
        {"transcript": "Hi"},
        {"data": "QQ=="},
        {"data": "Qg==", "transcript": "!"},
        {"expires_at": 5},
    ]
    last = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    message = streamed(vendor, *(piece(audio=sound) for sound in pieces), last).message
    assert message.audio.model_dump() == {"id": "s", "data": "QUI=", "expires_at": 5, "transcript": "Hi!"}


def test_pieces_of_openrouter_s_reasoning_become_the_items_of_a_whole_answer(vendor: Scripted) -> None:
    item = {"type": "reasoning.text", "index": 0, "format": "anthropic-claude-v1"}
    hidden = {"type": "reasoning.encrypted", "index": 1, "data": "xyz"}
    pieces = [{**item, "text": "H"}, {**item, "text": "m"}, {**item, "signature": "S"}, hidden]
    last = {"id": "c", "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}
    message = streamed(vendor, *(piece(reasoning_details=[detail]) for detail in pieces), last).message
    assert message.reasoning_details == [{**item, "text": "Hm", "signature": "S"}, hidden]
    assert message.reasoning_content == "Hm"


def sent_back(vendor: Scripted, model: str, answer: Json, *more: Json) -> list[Json]:
    """What a vendor gets of an answer that it, or another, gave before."""
    whole = {"choices": [{"index": 0, "message": answer, "finish_reason": "stop"}]}
    vendor.says(whole)
    said = ask(vendor, model).choices[0].message
    ask(vendor, model, [USER, said, *more])
    return vendor.asked[-1]["messages"][1:]  # type: ignore[no-any-return]


def test_what_mistral_thought_goes_back_as_it_came(vendor: Scripted) -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    content = [thinking, {"type": "text", "text": "Hi."}]
    answer = {"role": "assistant", "content": content}
    assert sent_back(vendor, "mistral/magistral-medium-latest", answer) == [answer]
    assert sent_back(vendor, "mistral/mistral-large-latest", answer) == [{"role": "assistant", "content": "Hi."}]


@pytest.mark.parametrize("model", ["groq/openai/gpt-oss-120b", "cerebras/gpt-oss-120b"])
def test_groq_and_cerebras_get_their_reasoning_back_under_their_name_alone(vendor: Scripted, model: str) -> None:
    answer = {"role": "assistant", "content": "Hi.", "reasoning": "Hm.", "annotations": []}
    assert sent_back(vendor, model, answer) == [{"role": "assistant", "content": "Hi.", "reasoning": "Hm."}]


def test_deepseek_gets_its_reasoning_back(vendor: Scripted) -> None:
    answer = {"role": "assistant", "content": "Hi.", "reasoning_content": "Hm."}
    (said,) = sent_back(vendor, "deepseek/deepseek-chat", answer)
    assert said["reasoning_content"] == "Hm."


def test_openrouter_gets_its_reasoning_back(vendor: Scripted) -> None:
    details = [{"type": "reasoning.text", "text": "Hm.", "signature": "S", "index": 0}]
    answer = {"role": "assistant", "content": "Hi.", "reasoning": "Hm.", "reasoning_details": details}
    (said,) = sent_back(vendor, "openrouter/anthropic/claude-sonnet-4.5", answer)
    assert said["reasoning_details"] == details


SAID_OF = [
    (
        "context_window",
        "The prompt (total length 9000) is too long to fit into the model (context length 4096).",
    ),  # vLLM
    ("context_window", "Invalid request: Your request exceeded model token limit: 8192"),  # Moonshot
    ("context_window", "Prompt exceeds max length"),  # Zhipu
    ("context_window", "Range of input length should be [1, 30720]"),  # DashScope
    ("context_window", "Too many input tokens. Max input tokens: 8192, request input token count: 9000"),  # Bedrock
    ("context_window", "Invalid 'messages[0].content': string too long. Expected a maximum length of 10485760."),
    (None, "Invalid 'tools[0].function.name': string too long. Expected a string with maximum length 64."),
    (None, "max_tokens: 100000 > 8192, which is the maximum allowed number of output tokens"),
    ("content_policy", "invalid params, input new_sensitive (1026)"),  # MiniMax
    ("content_policy", "系统检测到输入或生成内容可能包含不安全或敏感内容"),  # Zhipu
]


@pytest.mark.parametrize(("kind", "message"), SAID_OF)
def test_an_error_s_words_tell_what_it_is_about(kind: str | None, message: str) -> None:
    assert failure_kind(message, "", 400) == kind
