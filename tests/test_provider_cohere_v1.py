"""Cohere's chat, version 1: what is sent, what is read, recorded answers, damage."""

from __future__ import annotations

import asyncio
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

import rejoinder
from rejoinder.core import answers
from rejoinder.core.shape import Misshapen
from rejoinder.core.types import Request
from rejoinder.providers.base import ProviderFault
from rejoinder.providers.cohere_v1 import CohereV1Codec
from rejoinder.providers.table import PROVIDERS, resolve
from rejoinder.router.fold import fold
from tests.fixtures.endpoint_server import EndpointServer, Reply

Json = dict[str, Any]
FOLDER = Path(os.environ.get("REJOINDER_WIRE_DIR") or Path(__file__).resolve().parents[2] / "shared" / "wire")
CODEC, ROW = CohereV1Codec(), PROVIDERS["cohere_v1"]
USER = {"role": "user", "content": "Hi"}
TOOL = {
    "type": "function",
    "function": {
        "name": "f",
        "description": "F.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer", "description": "A."}, "b": {"type": ["null", "string"]}, "c": {}},
            "required": ["a"],
        },
    },
}
CALL = {"id": "x", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
WHOLE = {
    "response_id": "r1",
    "generation_id": "g1",
    "text": "I am.",
    "chat_history": [{"role": "USER", "message": "Hi"}],
    "finish_reason": "COMPLETE",
    "citations": [{"start": 0, "end": 1, "text": "I", "document_ids": ["d"]}],
    "documents": [{"id": "d"}],
    "meta": {
        "tokens": {"input_tokens": 7, "output_tokens": 3},
        "billed_units": {"input_tokens": 2, "output_tokens": 3},
    },
}
EVENTS: list[Json] = [
    {"is_finished": False, "event_type": "stream-start", "generation_id": "g1"},
    {"is_finished": False, "event_type": "text-generation", "text": "I"},
    {"is_finished": False, "event_type": "text-generation", "text": " am."},
    {"is_finished": False, "event_type": "citation-generation", "citations": WHOLE["citations"]},
    {"is_finished": True, "event_type": "stream-end", "finish_reason": "COMPLETE", "response": WHOLE},
]
CALLED = {**WHOLE, "text": "", "citations": [], "tool_calls": [{"name": "f", "parameters": {"a": 1}}] * 2}
CALLS: list[Json] = [
    EVENTS[0],
    {"event_type": "tool-calls-chunk", "tool_call_delta": {"index": 0, "name": "f"}},
    {"event_type": "tool-calls-generation", "tool_calls": CALLED["tool_calls"]},
    {"event_type": "stream-end", "finish_reason": "COMPLETE", "response": CALLED},
]


def request(*messages: Json, **fields: Any) -> Request:
    base = {"api_base": "https://api.cohere.com", "parameters": {}, "messages": list(messages) or [USER], **fields}
    return Request("chat", "cohere_v1", "command-r", **base)


def sent(*messages: Json, **parameters: Any) -> Json:
    body: Json = json.loads(CODEC.encode(request(*messages, parameters=parameters), ROW).body)
    assert body.pop("model") == "command-r"
    return body


def lines(events: list[Json], *, is_sse: bool = False) -> bytes:
    said = (f"event: one\ndata: {json.dumps(event)}\n\n" for event in events)
    return ("".join(said) if is_sse else "".join(f"{json.dumps(event)}\n" for event in events)).encode()


def read(data: bytes, size: int = 10_000) -> list[bytes]:
    decoder = CODEC.decoder(request(stream=True))
    chunks = []
    for start in range(0, len(data), size):
        chunks += decoder.feed(data[start : start + size])
    return chunks + decoder.end()


def test_both_names_are_the_row() -> None:
    assert resolve("cohere_v1/command-r") == resolve("cohere_chat_v1/command-r") == (ROW, "command-r")


def test_the_last_message_is_the_question_and_the_rest_its_history() -> None:
    talk = [
        {"role": "system", "content": "S"},
        {"role": "developer", "content": "T"},
        USER,
        {"role": "assistant", "content": "Hello."},
        {"role": "system", "content": "Later."},
        {"role": "user", "content": [{"type": "text", "text": "Who?"}]},
    ]
    assert sent(*talk, temperature=0, max_tokens=9, top_p=0.5, stop="x", seed=1) == {
        "message": "Who?",
        "preamble": "S\nT",
        "chat_history": [
            {"role": "USER", "message": "Hi"},
            {"role": "CHATBOT", "message": "Hello."},
            {"role": "SYSTEM", "message": "Later."},
        ],
        "temperature": 0,
        "max_tokens": 9,
        "p": 0.5,
        "stop_sequences": ["x"],
        "seed": 1,
    }


def test_tools_and_their_results_are_sent_with_their_calls() -> None:
    results = [
        {"role": "tool", "tool_call_id": "x", "content": '{"n": 1}'},
        {"role": "tool", "tool_call_id": "x", "content": "[2]"},
    ]
    said = sent(USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}, *results, tools=[TOOL])
    call = {"name": "f", "parameters": {"a": 1}}
    assert said["message"] == ""
    assert said["chat_history"][1] == {"role": "CHATBOT", "message": "", "tool_calls": [call]}
    assert said["tool_results"] == [
        {"call": call, "outputs": [{"n": 1}]},
        {"call": call, "outputs": [{"output": "[2]"}]},
    ]
    assert said["tools"] == [
        {
            "name": "f",
            "description": "F.",
            "parameter_definitions": {
                "a": {"description": "A.", "type": "int", "required": True},
                "b": {"type": "str", "required": False},
                "c": {"type": "str", "required": False},
            },
        }
    ]
    assert "tools" not in sent(USER, tools=[TOOL], tool_choice="none")


@pytest.mark.parametrize(
    ("messages", "parameters", "said"),
    [
        ([{"role": "assistant", "content": "x"}], {}, "the last message"),
        ([{"role": "system", "content": "x"}], {}, "the last message"),
        ([{"role": "tool", "tool_call_id": "y", "content": "x"}], {}, "No earlier message calls 'y'"),
        ([{"role": "function", "content": "x"}], {}, "'function'"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}], {}, "'image_url'"),
        ([USER], {"tools": [TOOL], "tool_choice": "required"}, "tool_choice='required'"),
        ([USER], {"tools": [{"type": "web_search"}]}, "functions as tools"),
        ([USER], {"response_format": {"type": "json_schema"}}, "no schema"),
        ([USER], {"response_format": 3}, "response_format"),
    ],
)
def test_what_it_cannot_say_is_an_error(messages: Any, parameters: Json, said: str) -> None:
    with pytest.raises(rejoinder.InvalidRequest, match=said):
        sent(*messages, **parameters)


def test_a_schema_goes_with_the_format() -> None:
    schema = {"type": "object"}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    assert sent(response_format=form)["response_format"] == {"type": "json_object", "schema": schema}
    assert "response_format" not in sent(response_format={"type": "text"})


def test_a_whole_answer_is_read() -> None:
    answer = answers.completion(CODEC.decode(json.dumps(WHOLE).encode(), request()))
    assert (answer.id, answer.choices[0].message.content, answer.choices[0].finish_reason) == ("r1", "I am.", "stop")
    assert answer.choices[0].message.citations == WHOLE["citations"]  # type: ignore[attr-defined]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 3)
    assert answer.documents == [{"id": "d"}]  # type: ignore[attr-defined]
    called = answers.completion(CODEC.decode(json.dumps(CALLED).encode(), request())).choices[0]
    assert (called.message.content, called.finish_reason) == (None, "tool_calls")
    assert [call.id for call in called.message.tool_calls or ()] == ["call_0", "call_1"]


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("is_sse", [False, True])
def test_a_stream_is_read_however_it_is_cut(size: int, is_sse: bool) -> None:
    answer = answers.completion(fold(read(lines(EVENTS, is_sse=is_sse), size)))
    assert (answer.id, answer.choices[0].message.content, answer.choices[0].finish_reason) == ("g1", "I am.", "stop")
    assert answer.usage is not None
    assert answer.usage.total_tokens == 10
    called = answers.completion(fold(read(lines(CALLS, is_sse=is_sse), size))).choices[0]
    assert called.finish_reason == "tool_calls"
    made = [call.function for call in called.message.tool_calls or ()]  # type: ignore[union-attr]
    assert [(function.name, function.arguments) for function in made] == [("f", '{"a":1}')] * 2


def test_a_stream_without_its_last_line_break_or_its_events_is_read() -> None:
    assert len(read(lines(EVENTS).rstrip())) == len(read(lines(EVENTS)))
    answer = answers.completion(fold(read(json.dumps(WHOLE, indent=1).encode(), 7)))
    assert answer.choices[0].message.content == "I am."


def test_broken_streams_and_answers_are_faults() -> None:
    data = lines(EVENTS)
    for short in (b"", data[:20], data[: len(data) // 2], lines(EVENTS[:-1])):
        with pytest.raises(ProviderFault) as caught:
            read(short)
        assert caught.value.failure.status == 502
    for body in (b"{}", b'{"message": "no"}', b"[]", b"<html>", b'{"text": "x", "finish_reason": "ERROR"}'):
        with pytest.raises(ProviderFault):
            CODEC.decode(body, request())
        with pytest.raises(ProviderFault):
            read(body)
    with pytest.raises(ProviderFault, match="too many"):
        read(lines([EVENTS[0], {"message": "too many requests"}]))


def test_damaged_answers_are_faults_and_nothing_else() -> None:
    from tests.fixtures.damage import change

    chance, faults = random.Random(5), 0
    for _ in range(300):
        body = json.dumps(change(chance.choice((WHOLE, CALLED)), chance)).encode()
        events = [change(event, chance) for event in chance.choice((EVENTS, CALLS))]
        data = lines(events) if chance.random() < 0.9 else chance.randbytes(40)
        for attempt in (
            lambda body=body: answers.completion(CODEC.decode(body, request())),
            lambda data=data: [answers.chunk(each) for each in read(data, 50)],
        ):
            try:
                attempt()
            except (ProviderFault, Misshapen):
                faults += 1
    assert faults


# Recorded traffic


def recorded() -> list[Any]:
    file = FOLDER / "cohere.jsonl"
    if not file.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no recordings in {FOLDER}"))]
    items = map(json.loads, file.read_text("utf-8").splitlines())
    return [pytest.param(item, id=item["id"]) for item in items if item["wire"] == "cohere_v1_chat"]


def messages_of(asked: Json) -> list[Json]:
    turns = [(turn["role"].lower(), turn["message"]) for turn in asked["chat_history"]]
    roles = {"chatbot": "assistant"}
    messages = [{"role": roles.get(role, role), "content": text} for role, text in turns]
    return [*messages, {"role": "user", "content": asked["message"]}]


def in_one_form(asked: Json) -> Json:
    """A system's text is the preamble here, and roles have capitals; what is empty says nothing."""
    history = [{"role": turn["role"].upper(), "message": turn["message"]} for turn in asked.get("chat_history") or ()]
    preamble = asked.get("preamble") or next((turn["message"] for turn in history if turn["role"] == "SYSTEM"), "")
    rest = {name: value for name, value in asked.items() if name not in ("chat_history", "preamble") and value}
    return {**rest, "preamble": preamble, "chat_history": [turn for turn in history if turn["role"] != "SYSTEM"]}


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("item", recorded())
def test_recorded_chats_are_sent_and_read(item: Json, mode: str) -> None:
    asked, response = item["request"]["json"], item["response"]
    reply = Reply(body=response["body"].encode(), status=response["status"])
    with EndpointServer(lambda _: reply) as server:
        base = server.url.removesuffix("/v1")
        given: Any = {"model": f"cohere_v1/{item['model']}", "messages": messages_of(asked), "num_retries": 0}
        given.update(api_base=base, api_key="sk-mock")
        told = json.loads(response["body"])

        def ask() -> Any:
            return rejoinder.completion(**given) if mode == "sync" else asyncio.run(rejoinder.acompletion(**given))

        if response["status"] == 200:
            answer = ask()
            assert answer.choices[0].message.content == told["text"]
            assert answer.usage.prompt_tokens == told["meta"]["tokens"]["input_tokens"]
            if "cached_tokens" in told["meta"]:
                assert answer.usage.prompt_tokens_details.cached_tokens == told["meta"]["cached_tokens"]
        else:
            with pytest.raises(rejoinder.NotFoundError, match=r"was removed on"):
                ask()
        assert in_one_form(server.requests[0].json) == in_one_form(asked)
        assert server.requests[0].path == item["request"]["path"]
