"""The Anthropic codec says in Messages what was asked in OpenAI's words, and reads the answer back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rejoinder.core import answers
from rejoinder.core.api_errors import InvalidRequest
from rejoinder.core.types import Request
from rejoinder.providers.anthropic import AnthropicCodec, accepted_schema
from rejoinder.providers.base import Provider, ProviderFault

Json = dict[str, Any]

PROVIDER = Provider("anthropic", "https://api.anthropic.com", codec="anthropic")
CODEC = AnthropicCodec()
MARK = {"type": "ephemeral"}
USER = {"role": "user", "content": "Hello"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells it.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def request(*messages: Json, model: str = "claude-sonnet-4-5", **fields: Any) -> Request:
    base = {"api_base": "https://api.anthropic.com", "parameters": {}, "messages": list(messages) or [USER]}
    return Request(**{"endpoint": "chat", "provider": "anthropic", "model": model, **base, **fields})


def sent(*messages: Json, model: str = "claude-sonnet-4-5", **parameters: Any) -> Json:
    return json.loads(CODEC.encode(request(*messages, model=model, parameters=parameters), PROVIDER).body)


def turns(*messages: Json, **rest: Any) -> list[Json]:
    return sent(*messages, **rest)["messages"]


def parts(*content: Any, role: str = "user") -> Any:
    (turn,) = turns({"role": role, "content": list(content)})
    return turn["content"]


def call(identity: str, arguments: Any = "{}", name: str = "weather") -> Json:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(identity: str, content: Any = "sunny", **rest: Any) -> Json:
    return {"role": "tool", "tool_call_id": identity, "content": content, **rest}


# Messages


def test_a_plain_question_is_sent_plainly() -> None:
    assert sent() == {
        "model": "claude-sonnet-4-5",
        "max_tokens": 16_000,
        "messages": [{"role": "user", "content": "Hello"}],
    }


def test_system_messages_at_the_start_are_one_text() -> None:
    body = sent({"role": "system", "content": "Be brief."}, {"role": "developer", "content": "Be kind."}, USER)
    assert body["system"] == "Be brief.\n\nBe kind."
    assert body["messages"] == [{"role": "user", "content": "Hello"}]


def test_cache_marks_make_system_a_list_of_blocks() -> None:
    part = {"type": "text", "text": "Long.", "cache_control": MARK}
    body = sent({"role": "system", "content": "Short."}, {"role": "system", "content": [part]}, USER)
    assert body["system"] == [{"type": "text", "text": "Short."}, part]


def test_a_mark_on_a_message_is_put_on_its_last_block() -> None:
    body = sent({"role": "system", "content": "Long.", "cache_control": MARK}, {**USER, "cache_control": MARK})
    assert body["system"] == [{"type": "text", "text": "Long.", "cache_control": MARK}]
    assert body["messages"][0]["content"] == [{"type": "text", "text": "Hello", "cache_control": MARK}]


LATER_SYSTEM = (USER, {"role": "system", "content": "Now in French."})


def test_a_later_system_message_joins_the_system_text_on_models_that_do_not_take_it() -> None:
    body = sent({"role": "system", "content": "Be brief."}, *LATER_SYSTEM, model="claude-sonnet-4-6")
    assert body["system"] == "Be brief.\n\nNow in French."
    assert body["messages"] == [{"role": "user", "content": "Hello"}]


def test_a_later_system_message_stays_on_models_that_take_it() -> None:
    body = sent(*LATER_SYSTEM, {"role": "assistant", "content": "Bonjour"}, USER, model="claude-opus-4-8")
    assert [turn["role"] for turn in body["messages"]] == ["user", "system", "assistant", "user"]
    assert "system" not in body


def test_a_later_system_message_where_the_vendor_would_refuse_it_joins_the_system_text() -> None:
    body = sent(*LATER_SYSTEM, {"role": "user", "content": "Go on"}, model="claude-opus-4-8")
    assert body["system"] == "Now in French."
    assert [block["text"] for block in body["messages"][0]["content"]] == ["Hello", "Go on"]


def test_a_later_system_message_after_the_assistant_s_turn_joins_the_system_text() -> None:
    body = sent(USER, {"role": "assistant", "content": "Hi"}, LATER_SYSTEM[1], model="claude-opus-4-8")
    assert body["system"] == "Now in French."
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant"]


def test_a_system_text_alone_is_what_the_user_says() -> None:
    body = sent({"role": "system", "content": "Tell a joke."})
    assert body["messages"] == [{"role": "user", "content": "Tell a joke."}]
    assert "system" not in body


def test_messages_that_say_nothing_are_a_clear_error() -> None:
    with pytest.raises(InvalidRequest, match="say nothing"):
        sent({"role": "user", "content": ""})


def test_neighbours_of_one_role_become_one_turn() -> None:
    (turn,) = turns(USER, {"role": "user", "content": "Again"})
    assert turn["content"] == [{"type": "text", "text": "Hello"}, {"type": "text", "text": "Again"}]


def test_empty_texts_and_messages_are_left_out() -> None:
    said = turns(
        USER, {"role": "assistant", "content": ""}, {"role": "user", "content": [{"type": "text", "text": " \n"}]}
    )
    assert said == [{"role": "user", "content": "Hello"}]


def test_a_prefill_loses_the_white_space_at_its_end() -> None:
    assert turns(USER, {"role": "assistant", "content": "The answer is \n"})[-1] == {
        "role": "assistant",
        "content": "The answer is",
    }


@pytest.mark.parametrize(
    ("url", "block"),
    [
        (
            "data:image/png;base64,QUJD",
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
        ),
        (
            "data:image/jpg;base64,QUJD",
            {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "QUJD"}},
        ),
        ("https://x.test/a.png", {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}}),
        (
            "data:application/pdf;base64,QUJD",
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "QUJD"}},
        ),
        (
            "data:image/svg+xml,%3Csvg/%3E",
            {"type": "image", "source": {"type": "base64", "media_type": "image/svg+xml", "data": "PHN2Zy8+"}},
        ),
    ],
)
def test_images(url: str, block: Json) -> None:
    assert parts({"type": "image_url", "image_url": {"url": url}}) == [block]
    assert parts({"type": "image_url", "image_url": url, "cache_control": MARK}) == [{**block, "cache_control": MARK}]


PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}


@pytest.mark.parametrize(
    ("file", "block"),
    [
        (
            {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a.pdf"},
            {"type": "document", "source": PDF, "title": "a.pdf"},
        ),
        ({"file_data": "JVBERi0="}, {"type": "document", "source": PDF}),
        ({"file_id": "file_1"}, {"type": "document", "source": {"type": "file", "file_id": "file_1"}}),
        (
            {"file_id": "file_1", "format": "image/png"},
            {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
        ),
        (
            {"file_id": "https://x.test/a.pdf"},
            {"type": "document", "source": {"type": "url", "url": "https://x.test/a.pdf"}},
        ),
        (
            {"file_data": "aMOp", "filename": "a.txt"},
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "hé"},
                "title": "a.txt",
            },
        ),
    ],
)
def test_files(file: Json, block: Json) -> None:
    assert parts({"type": "file", "file": file}) == [block]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, "input_audio"),
        ({"type": "image_url", "image_url": {"url": "gs://bucket/a.png"}}, "gs://bucket"),
        ({"type": "image_url", "image_url": {"url": "data:image/png"}}, "comma"),
        ({"type": "image_url"}, "no URL"),
        ({"type": "file", "file": {}}, "file_data"),
        ({"type": "file", "file": {"file_data": "data:video/mp4;base64,QUJD"}}, "video/mp4"),
        ({"type": "text", "text": 5}, "must be a string"),
        (5, "must be a dict"),
    ],
)
def test_parts_that_cannot_be_said_are_clear_errors(part: Any, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        sent({"role": "user", "content": [part]})


def test_blocks_of_the_vendor_pass_as_they_are() -> None:
    native = [
        {"type": "document", "source": {"type": "url", "url": "https://x.test"}, "citations": {"enabled": True}},
        {"type": "search_result", "source": "https://x.test", "title": "X", "content": [{"type": "text", "text": "x"}]},
        {"type": "container_upload", "file_id": "file_1"},
    ]
    assert parts(*native) == native


def test_tool_calls_and_their_results() -> None:
    asked = {"role": "assistant", "content": None, "tool_calls": [call("a", '{"city": "Rome"}'), call("b", "")]}
    said = turns(USER, asked, result("a"), result("b", [{"type": "text", "text": "rain"}], is_error=True), USER)
    assert said[1]["content"] == [
        {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Rome"}},
        {"type": "tool_use", "id": "b", "name": "weather", "input": {}},
    ]
    assert said[2] == {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "a", "content": "sunny"},
            {
                "type": "tool_result",
                "tool_use_id": "b",
                "content": [{"type": "text", "text": "rain"}],
                "is_error": True,
            },
            {"type": "text", "text": "Hello"},
        ],
    }


def test_tool_results_come_before_what_the_user_said_between() -> None:
    asked = {"role": "assistant", "tool_calls": [call("a"), call("b")]}
    kinds = [block["type"] for block in turns(USER, asked, result("a"), USER, result("b"))[-1]["content"]]
    assert kinds == ["tool_result", "tool_result", "text"]


def test_marks_on_calls_and_results_are_kept() -> None:
    said = turns(
        USER,
        {"role": "assistant", "tool_calls": [{**call("a"), "cache_control": MARK}]},
        result("a", cache_control=MARK),
    )
    assert [turn["content"][-1]["cache_control"] for turn in said[1:]] == [MARK, MARK]


def test_an_image_in_a_tool_result() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}
    said = turns(USER, {"role": "assistant", "tool_calls": [call("a")]}, result("a", [image]))
    assert said[-1]["content"][0]["content"] == [
        {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}}
    ]


def test_call_ids_of_other_vendors_are_made_acceptable_alike() -> None:
    said = turns(
        USER, {"role": "assistant", "tool_calls": [call("functions.weather:0")]}, result("functions.weather:0")
    )
    assert said[1]["content"][0]["id"] == said[2]["content"][0]["tool_use_id"] == "functions_weather_0"


@pytest.mark.parametrize("arguments", ['{"city": ', "[1]", "word"])
def test_arguments_that_are_no_object_are_clear_errors(arguments: str) -> None:
    with pytest.raises(InvalidRequest, match="'weather'"):
        sent(USER, {"role": "assistant", "tool_calls": [call("a", arguments)]})


def test_the_old_form_of_calls_is_a_clear_error() -> None:
    with pytest.raises(InvalidRequest, match="tool_calls"):
        sent(USER, {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": "{}"}})


def test_a_result_without_a_call_is_a_clear_error() -> None:
    with pytest.raises(InvalidRequest, match="tool_call_id"):
        sent(USER, {"role": "tool", "content": "sunny"})


THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "s1"}
HIDDEN = {"type": "redacted_thinking", "data": "d1"}


def test_thinking_goes_back_first_and_with_its_signature() -> None:
    asked = {"role": "assistant", "content": "So.", "tool_calls": [call("a")], "reasoning_content": "Hm."}
    said = turns(USER, {**asked, "thinking_blocks": [THOUGHT, HIDDEN]}, result("a"))
    assert said[1]["content"][:2] == [THOUGHT, HIDDEN]
    assert [block["type"] for block in said[1]["content"][2:]] == ["text", "tool_use"]


def test_thinking_without_a_signature_is_left_out() -> None:
    unsigned = {"type": "thinking", "thinking": "Hm.", "signature": None}
    message = {"role": "assistant", "content": "So.", "reasoning_content": "Hm.", "thinking_blocks": [unsigned]}
    assert turns(USER, message, USER)[1]["content"] == "So."


def test_content_blocks_of_an_answer_stand_for_the_whole_message() -> None:
    blocks = [
        THOUGHT,
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "text", "text": "x"},
    ]
    message = {"role": "assistant", "content": "x", "thinking_blocks": [THOUGHT], "content_blocks": blocks}
    assert turns(USER, message, USER)[1]["content"] == blocks


def test_native_calls_in_the_content_are_not_said_twice() -> None:
    native = {"type": "tool_use", "id": "a", "name": "weather", "input": {}}
    message = {
        "role": "assistant",
        "content": [THOUGHT, native],
        "tool_calls": [call("a")],
        "thinking_blocks": [THOUGHT],
    }
    assert turns(USER, message, result("a"))[1]["content"] == [THOUGHT, native]


# Parameters


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 6, "max_tokens": 5}, {"max_tokens": 6}),
        ({"stop": "END"}, {"stop_sequences": ["END"]}),
        ({"stop": ["A", "B"]}, {"stop_sequences": ["A", "B"]}),
        ({"user": "u1"}, {"metadata": {"user_id": "u1"}}),
        ({"service_tier": "default"}, {"service_tier": "standard_only"}),
        ({"service_tier": "auto"}, {"service_tier": "auto"}),
        ({"temperature": 0.5, "top_p": 0.9, "top_k": 3}, {"temperature": 0.5, "top_p": 0.9, "top_k": 3}),
        ({"thinking": {"type": "adaptive"}}, {"thinking": {"type": "adaptive"}}),
        ({"cache_control": MARK, "container": "c1"}, {"cache_control": MARK, "container": "c1"}),
        ({"response_format": {"type": "text"}}, {}),
    ],
)
def test_parameters(given: Json, said: Json) -> None:
    assert sent(**given) == {**sent(), **said}


@pytest.mark.parametrize(
    ("model", "most"),
    [
        ("claude-3-opus-20240229", 4_096),
        ("claude-3-haiku-20240307", 4_096),
        ("claude-3-5-sonnet-20241022", 8_192),
        ("claude-3-7-sonnet@20250219", 16_000),
        ("claude-opus-5-5", 16_000),
    ],
)
def test_max_tokens_has_a_default_that_the_model_can_write(model: str, most: int) -> None:
    assert sent(model=model)["max_tokens"] == most


def test_a_thinking_budget_is_added_to_the_default_of_max_tokens() -> None:
    assert sent(thinking={"type": "enabled", "budget_tokens": 2_000})["max_tokens"] == 18_000


@pytest.mark.parametrize(
    "model", ["claude-opus-4-6", "claude-opus-4-8", "claude-sonnet-5", "claude-haiku-5-5", "claude-fable-5"]
)
def test_an_effort_is_adaptive_thinking_on_today_s_models(model: str) -> None:
    body = sent(model=model, reasoning_effort="minimal")
    assert (body["thinking"], body["output_config"]) == ({"type": "adaptive"}, {"effort": "low"})


@pytest.mark.parametrize(
    "model",
    [
        "claude-3-7-sonnet-20250219",
        "claude-sonnet-4-20250514",
        "claude-opus-4-1",
        "claude-opus-4-5-20251101",
        "claude-haiku-4-5",
    ],
)
def test_an_effort_is_a_budget_on_models_before_4_6(model: str) -> None:
    body = sent(model=model, reasoning_effort="medium")
    assert (body["thinking"], body["max_tokens"]) == ({"type": "enabled", "budget_tokens": 8_192}, 24_192)
    assert "output_config" not in body


@pytest.mark.parametrize(("most", "budget"), [(20_000, 10_000), (2_000, 1_024), (1_025, 1_024)])
def test_a_budget_leaves_something_of_max_tokens(most: int, budget: int) -> None:
    body = sent(reasoning_effort="high", max_tokens=most)
    assert (body["thinking"]["budget_tokens"], body["max_tokens"]) == (budget, most)


def test_a_budget_that_does_not_fit_is_a_clear_error() -> None:
    with pytest.raises(InvalidRequest, match="max_tokens=1000"):
        sent(reasoning_effort="low", max_tokens=1_000)


def test_no_effort_at_all_turns_thinking_off() -> None:
    body = sent(reasoning_effort="none", model="claude-opus-4-8")
    assert body["thinking"] == {"type": "disabled"}
    assert "output_config" not in body


def test_the_caller_s_own_thinking_wins_over_an_effort() -> None:
    body = sent(reasoning_effort="high", thinking={"type": "disabled"}, model="claude-opus-4-8")
    assert (body["thinking"], body["output_config"]) == ({"type": "disabled"}, {"effort": "high"})


def test_functions_become_tools() -> None:
    bare = {"type": "function", "function": {"name": "now", "strict": False}}
    schema = WEATHER["function"]["parameters"]
    assert sent(tools=[{**WEATHER, "cache_control": MARK}, bare])["tools"] == [
        {"name": "weather", "description": "Tells it.", "input_schema": schema, "cache_control": MARK},
        {"name": "now", "input_schema": {"type": "object", "properties": {}}},
    ]


@pytest.mark.parametrize(("model", "strict"), [("claude-sonnet-4-5", True), ("claude-sonnet-4-0", None)])
def test_strict_is_said_where_the_model_knows_it(model: str, strict: bool | None) -> None:
    tool = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
    assert sent(model=model, tools=[tool])["tools"][0].get("strict") is strict


def test_tools_of_the_vendor_pass_as_they_are() -> None:
    native = [
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 2},
        {"name": "own", "input_schema": {"type": "object"}},
    ]
    assert sent(tools=native)["tools"] == native


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tool_choice": "auto"}, {"type": "auto"}),
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": {"type": "function", "function": {"name": "weather"}}}, {"type": "tool", "name": "weather"}),
        ({"tool_choice": {"type": "tool", "name": "weather"}}, {"type": "tool", "name": "weather"}),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            {"parallel_tool_calls": False, "tool_choice": "required"},
            {"type": "any", "disable_parallel_tool_use": True},
        ),
        ({"parallel_tool_calls": False, "tool_choice": "none"}, {"type": "none"}),
        ({"parallel_tool_calls": True}, None),
    ],
)
def test_tool_choice(given: Json, said: Json | None) -> None:
    assert sent(tools=[WEATHER], **given).get("tool_choice") == said


def test_parallel_tool_calls_without_tools_says_nothing() -> None:
    assert sent(parallel_tool_calls=False) == sent()


@pytest.mark.parametrize("choice", ["perhaps", {"type": "allowed_tools"}, 5])
def test_an_unknown_tool_choice_is_a_clear_error(choice: Any) -> None:
    with pytest.raises(InvalidRequest, match="tool_choice"):
        sent(tools=[WEATHER], tool_choice=choice)


SCHEMA = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 0}}, "required": ["age"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}


def test_a_schema_is_an_output_format() -> None:
    assert sent(response_format=FORMAT)["output_config"]["format"] == {
        "type": "json_schema",
        "schema": {
            "type": "object",
            "properties": {"age": {"type": "integer", "description": "{minimum: 0}"}},
            "required": ["age"],
            "additionalProperties": False,
        },
    }


def test_a_schema_is_an_instruction_for_models_without_output_formats() -> None:
    body = sent(
        {"role": "system", "content": "Be brief."}, USER, model="claude-sonnet-4-20250514", response_format=FORMAT
    )
    assert body["system"].startswith("Be brief.\n\nAnswer with JSON")
    assert body["system"].endswith(json.dumps(SCHEMA, separators=(",", ":")))
    assert "output_config" not in body


def test_any_json_object_is_an_instruction() -> None:
    marked = {"type": "text", "text": "Be brief.", "cache_control": MARK}
    body = sent({"role": "system", "content": [marked]}, USER, response_format={"type": "json_object"})
    assert body["system"][0] == marked
    assert "JSON object" in body["system"][1]["text"]


@pytest.mark.parametrize("form", [{"type": "json_schema"}, {"type": "yaml"}, "json"])
def test_an_unknown_format_is_a_clear_error(form: Any) -> None:
    with pytest.raises(InvalidRequest, match="response_format"):
        sent(response_format=form)


def test_a_schema_is_changed_only_where_it_must_be() -> None:
    schema = {
        "$defs": {"minimum": {"type": "object", "properties": {"minLength": {"type": "string", "minLength": 2}}}},
        "oneOf": [
            {"$ref": "#/$defs/minimum"},
            {"type": "array", "minItems": 1, "maxItems": 3, "items": {"type": "object"}},
        ],
        "enum": [{"minimum": 1}],
    }
    assert accepted_schema(schema) == {
        "$defs": {
            "minimum": {
                "type": "object",
                "properties": {"minLength": {"type": "string", "description": "{minLength: 2}"}},
                "additionalProperties": False,
            }
        },
        "anyOf": [
            {"$ref": "#/$defs/minimum"},
            {
                "type": "array",
                "minItems": 1,
                "items": {"type": "object", "additionalProperties": False},
                "description": "{maxItems: 3}",
            },
        ],
        "enum": [{"minimum": 1}],
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"type": ["object", "null"]}, {"type": ["object", "null"], "additionalProperties": False}),
        ({"type": "object", "additionalProperties": True}, {"type": "object", "additionalProperties": False}),
        ({"type": "string", "format": "email"}, {"type": "string", "format": "email"}),
        (
            {"type": "string", "format": "color", "description": "A colour."},
            {"type": "string", "description": 'A colour.\n\n{format: "color"}'},
        ),
        (True, True),
    ],
)
def test_schemas(given: Any, said: Any) -> None:
    assert accepted_schema(given) == said


def test_a_strict_function_s_schema_is_made_acceptable_too() -> None:
    function = {"name": "count", "strict": True, "parameters": {"type": "object", "properties": {"n": {"minimum": 0}}}}
    (tool,) = sent(tools=[{"type": "function", "function": function}])["tools"]
    assert tool["input_schema"]["additionalProperties"] is False
    assert tool["input_schema"]["properties"] == {"n": {"description": "{minimum: 0}"}}


def test_extra_body_has_the_last_word() -> None:
    asked = request(stream=True, parameters={"max_tokens": 5}, extra_body={"max_tokens": 7, "new": 1})
    body = json.loads(CODEC.encode(asked, PROVIDER).body)
    assert (body["max_tokens"], body["new"], body["stream"]) == (7, 1, True)


def test_what_the_caller_gave_is_not_changed() -> None:
    messages = [USER, {"role": "assistant", "content": "Hi ", "content_blocks": [{"type": "text", "text": "Hi "}]}]
    asked = request(
        *messages, parameters={"response_format": FORMAT, "tools": [WEATHER], "tool_choice": {"type": "auto"}}
    )
    before = json.dumps([asked.messages, asked.parameters])
    CODEC.encode(asked._replace(parameters={**asked.parameters, "parallel_tool_calls": False}), PROVIDER)
    assert json.dumps([asked.messages, asked.parameters]) == before


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_sampling_is_sent_with_the_api_version_that_takes_it(name: str) -> None:
    assert CODEC.encode(request(parameters={name: 1}), PROVIDER).headers == {"anthropic-version": "2023-06-01"}
    assert CODEC.encode(request(extra_body={name: 1}), PROVIDER).headers == {"anthropic-version": "2023-06-01"}
    assert CODEC.encode(request(), PROVIDER).headers == {}


def test_betas_are_a_header() -> None:
    encoded = CODEC.encode(request(parameters={"betas": ["a", "b"]}), PROVIDER)
    assert encoded.headers == {"anthropic-beta": "a,b"}
    assert "betas" not in json.loads(encoded.body)


def test_what_the_vendor_does_not_take_is_not_among_the_parameters() -> None:
    taken = CODEC.parameters(PROVIDER)
    assert {"max_tokens", "tools", "top_k", "thinking", "response_format"} <= taken
    assert not {"n", "seed", "logprobs", "presence_penalty", "frequency_penalty", "logit_bias", "metadata"} & taken


# Whole answers


def message(*content: Json, **rest: Any) -> Json:
    usage = {"input_tokens": 10, "output_tokens": 5}
    base = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "stop_sequence": None}
    return {**base, "content": list(content), "stop_reason": "end_turn", "usage": usage, **rest}


def text(value: str, **rest: Any) -> Json:
    return {"type": "text", "text": value, **rest}


def use(identity: str, **given: Any) -> Json:
    return {"type": "tool_use", "id": identity, "name": "weather", "input": given}


def decoded(answer: Json) -> Json:
    body = CODEC.decode(json.dumps(answer).encode(), request())
    answers.Completion.model_validate_json(body)
    return json.loads(body)


def said_in(answer: Json) -> Json:
    return decoded(answer)["choices"][0]["message"]


def test_texts_are_joined() -> None:
    assert said_in(message(text("Hello "), text("world"))) == {"role": "assistant", "content": "Hello world"}


def test_calls_keep_their_order_and_have_arguments_as_text() -> None:
    said = said_in(message(text("Looking."), use("a", city="Rome"), use("b")))
    assert said["tool_calls"] == [call("a", '{"city":"Rome"}'), call("b", "{}")]
    assert "content_blocks" not in said


def test_an_answer_without_text_has_none_if_it_calls_and_an_empty_one_else() -> None:
    assert said_in(message(use("a")))["content"] is None
    assert said_in(message())["content"] == ""


def test_thinking_is_text_and_blocks() -> None:
    said = said_in(message(THOUGHT, HIDDEN, text("So.")))
    assert (said["reasoning_content"], said["thinking_blocks"]) == ("Hm.", [THOUGHT, HIDDEN])
    assert "content_blocks" not in said


@pytest.mark.parametrize(
    "blocks",
    [
        [text("x", citations=[{"type": "char_location", "cited_text": "y"}])],
        [{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}, text("x")],
        [text("x"), THOUGHT, text("y")],
        [use("a"), text("x")],
        [{**use("a"), "caller": {"type": "code_execution_20260120", "tool_id": "t"}}],
        [{"type": "not_yet_known"}],
    ],
)
def test_what_openai_s_shape_would_lose_is_kept_beside_it_and_goes_back(blocks: list[Json]) -> None:
    said = said_in(message(*blocks))
    assert said["content_blocks"] == blocks
    assert turns(USER, said, USER)[1]["content"] == blocks


def test_a_direct_call_is_nothing_special() -> None:
    assert "content_blocks" not in said_in(message({**use("a"), "caller": {"type": "direct"}}))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("not_yet_known", "stop"),
        (None, "stop"),
    ],
)
def test_finish_reasons(theirs: str | None, ours: str) -> None:
    (choice,) = decoded(message(text("x"), stop_reason=theirs))["choices"]
    assert (choice["finish_reason"], choice["native_finish_reason"]) == (ours, theirs)


def test_what_stopped_it_is_kept() -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "No."}
    (choice,) = decoded(message(stop_reason="refusal", stop_details=details, stop_sequence="END"))["choices"]
    assert (choice["stop_details"], choice["stop_sequence"]) == (details, "END")


def test_usage_counts_what_went_through_the_vendor_s_cache() -> None:
    split = {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 70}
    answer = decoded(
        message(
            text("x"),
            usage={
                "input_tokens": 10,
                "cache_creation_input_tokens": 100,
                "cache_read_input_tokens": 1_000,
                "cache_creation": split,
                "output_tokens": 5,
                "output_tokens_details": {"thinking_tokens": 3},
                "service_tier": "standard",
                "server_tool_use": {"web_search_requests": 1},
            },
        )
    )
    assert answer["usage"] == {
        "prompt_tokens": 1_110,
        "completion_tokens": 5,
        "total_tokens": 1_115,
        "prompt_tokens_details": {"cached_tokens": 1_000, "cache_write_tokens": 100},
        "completion_tokens_details": {"reasoning_tokens": 3},
        "cache_creation_input_tokens": 100,
        "cache_read_input_tokens": 1_000,
        "cache_creation": split,
        "server_tool_use": {"web_search_requests": 1},
        "service_tier": "standard",
    }
    assert answer["service_tier"] == "default"


def test_a_tier_that_openai_does_not_know_leaves_the_answer_typed() -> None:
    answer = decoded(message(usage={"input_tokens": 1, "output_tokens": 1, "service_tier": "batch"}))
    assert "service_tier" not in answer


def test_an_error_inside_a_200_is_a_fault() -> None:
    body = json.dumps({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}).encode()
    with pytest.raises(ProviderFault) as caught:
        CODEC.decode(body, request())
    assert caught.value.failure[:2] == ("Overloaded", "overloaded_error")
    assert caught.value.failure.status == 529


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"null", b"{}", b'{"content": 5}', b'{"content": [{"type": "text"}]}']
)
def test_an_answer_that_is_none_is_a_fault(body: bytes) -> None:
    with pytest.raises(ProviderFault) as caught:
        CODEC.decode(body, request())
    assert caught.value.failure.status == 502


# Streams


def events(*items: Json) -> bytes:
    return b"".join(b"event: %s\ndata: %s\n\n" % (item["type"].encode(), json.dumps(item).encode()) for item in items)


START = {"type": "message_start", "message": message(usage={"input_tokens": 10, "output_tokens": 1}, stop_reason=None)}
STOP = {"type": "message_stop"}


def block(index: int, start: Json, *deltas: Json) -> list[Json]:
    pieces = [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    first = {"type": "content_block_start", "index": index, "content_block": start}
    return [first, *pieces, {"type": "content_block_stop", "index": index}]


def ending(reason: str = "end_turn", **usage: Any) -> Json:
    delta = {"stop_reason": reason, "stop_sequence": None}
    return {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 5, **usage}}


def texts(index: int, *values: str) -> list[Json]:
    return block(index, text(""), *({"type": "text_delta", "text": value} for value in values))


def streamed(*items: Json) -> list[Json]:
    decoder = CODEC.decoder(request(stream=True))
    chunks = decoder.feed(events(*items)) + decoder.end()
    for chunk in chunks:
        answers.Chunk.model_validate_json(chunk)
    return [json.loads(chunk) for chunk in chunks]


def deltas(*items: Json) -> list[Json]:
    return [choice["delta"] for chunk in streamed(*items) for choice in chunk["choices"]]


def test_a_stream_of_text() -> None:
    chunks = streamed(START, {"type": "ping"}, *texts(0, "Hel", "lo"), ending(), STOP)
    assert [choice["delta"] for chunk in chunks for choice in chunk["choices"]] == [
        {"role": "assistant", "content": None},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]
    assert [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]] == [None, None, None, "stop"]
    assert {(chunk["id"], chunk["model"], chunk["object"]) for chunk in chunks} == {
        ("msg_1", "claude-x", "chat.completion.chunk")
    }


def test_the_last_chunk_has_the_usage_and_no_choice() -> None:
    last = streamed(START, *texts(0, "x"), ending(cache_read_input_tokens=7, input_tokens=None), STOP)[-1]
    assert last["choices"] == []
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (17, 5)


def pieces(*values: str) -> list[Json]:
    return [{"type": "input_json_delta", "partial_json": value} for value in values]


def test_calls_are_counted_from_0_whatever_their_blocks() -> None:
    said = deltas(
        START,
        *texts(0, "x"),
        *block(1, use("a"), *pieces("", '{"city"', ':"Rome"}')),
        *block(2, use("b"), *pieces("")),
        ending("tool_use"),
        STOP,
    )
    calls = [piece for delta in said for piece in delta.get("tool_calls", ())]
    assert calls == [
        {"index": 0, **call("a", "")},
        {"index": 0, "function": {"arguments": '{"city"'}},
        {"index": 0, "function": {"arguments": ':"Rome"}'}},
        {"index": 1, **call("b", "")},
        {"index": 1, "function": {"arguments": "{}"}},
    ]


def test_arguments_that_come_with_the_start_of_a_block_are_said() -> None:
    said = deltas(START, *block(0, use("a", city="Rome")), ending("tool_use"), STOP)
    assert said[2]["tool_calls"][0]["function"]["arguments"] == '{"city":"Rome"}'


def test_thinking_is_streamed_and_its_block_follows_when_it_is_whole() -> None:
    said = deltas(
        START,
        *block(
            0,
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "thinking_delta", "thinking": "H"},
            {"type": "thinking_delta", "thinking": "m."},
            {"type": "signature_delta", "signature": "s1"},
        ),
        *block(1, HIDDEN),
        *texts(2, "So."),
        ending(),
        STOP,
    )
    assert said[1:5] == [
        {"reasoning_content": "H"},
        {"reasoning_content": "m."},
        {"thinking_blocks": [THOUGHT]},
        {"thinking_blocks": [HIDDEN]},
    ]
    assert said[-1] == {}


def test_citations_and_the_vendor_s_tools_come_with_the_end() -> None:
    citation = {"type": "char_location", "cited_text": "y"}
    said = deltas(
        START,
        *block(0, {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}, *pieces('{"query":"q"}')),
        *block(1, text(""), {"type": "text_delta", "text": "x"}, {"type": "citations_delta", "citation": citation}),
        ending(),
        STOP,
    )
    assert said[1:] == [
        {"content": "x"},
        {
            "content_blocks": [
                {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
                text("x", citations=[citation]),
            ]
        },
    ]


def test_events_and_deltas_that_are_new_do_no_harm() -> None:
    new = block(0, {"type": "compaction"}, {"type": "compaction_delta", "content": "All."})
    said = deltas(START, {"type": "new_event", "x": 1}, *new, *texts(1, "x"), ending(), STOP)
    assert said[-1] == {"content_blocks": [{"type": "compaction", "content": "All."}, text("x")]}


def test_an_answer_that_says_nothing_ends_with_empty_content() -> None:
    assert deltas(START, ending("refusal"), STOP)[-1] == {"content": ""}


def test_a_stream_that_lacks_only_its_last_event_is_whole() -> None:
    assert streamed(START, *texts(0, "x"), ending())[-1]["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize(
    "cut", [b"", events(START), events(START, *texts(0, "x")), events(START) + b'event: x\ndata: {"ty']
)
def test_a_stream_without_an_end_is_a_fault(cut: bytes) -> None:
    decoder = CODEC.decoder(request(stream=True))
    decoder.feed(cut)
    with pytest.raises(ProviderFault, match="ended before") as caught:
        decoder.end()
    assert (caught.value.failure.code, caught.value.failure.status) == ("incomplete_stream", 502)


STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
    "not_yet_known": 500,
}


@pytest.mark.parametrize(("kind", "status"), STATUSES.items())
def test_an_error_in_a_stream_stands_for_a_status(kind: str, status: int) -> None:
    decoder = CODEC.decoder(request(stream=True))
    decoder.feed(events(START))
    with pytest.raises(ProviderFault, match="Sorry") as caught:
        decoder.feed(events({"type": "error", "error": {"type": kind, "message": "Sorry"}}))
    assert (caught.value.failure.code, caught.value.failure.status) == (kind, status)


def test_an_event_before_the_start_is_a_fault() -> None:
    with pytest.raises(ProviderFault):
        CODEC.decoder(request(stream=True)).feed(events(*texts(0, "x")))


# Failures


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("prompt is too long: 200001 tokens > 200000 maximum", "context_window"),
        ("input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000", "context_window"),
        ("Output blocked by content filtering policy", "content_policy"),
        ("max_tokens: 100000 > 64000, which is the maximum allowed number of output tokens", None),
        ("messages.0.content.0.image.source.base64: image exceeds 5 MB maximum", None),
        ("tools.0.name: String should match pattern", None),
    ],
)
def test_kinds_of_failure(said: str, kind: str | None) -> None:
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": said}, "request_id": "r"}
    failure = CODEC.failure(400, json.dumps(error).encode())
    assert failure[:3] == (said, "invalid_request_error", kind)


# Whatever comes

NAMES = ["type", "text", "content", "index", "delta", "id", "name", "input", "usage", "message", "error"]
KINDS = ["content_block_start", "content_block_delta", "content_block_stop", "message_delta"]
WORDS = st.text(max_size=5) | st.sampled_from(["text", "tool_use", "thinking", "text_delta", "input_json_delta"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


def fault_in(read: Callable[[], object]) -> ProviderFault | None:
    try:
        read()
    except ProviderFault as fault:
        return fault
    return None


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_body_raises_anything_but_a_fault(body: bytes) -> None:
    assert CODEC.failure(500, body).message
    fault = fault_in(lambda: CODEC.decode(body, request()))
    assert fault is None or fault.failure.status


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(KINDS), JSON), max_size=6))
def test_no_stream_raises_anything_but_a_fault(items: list[tuple[str, Any]]) -> None:
    decoder = CODEC.decoder(request(stream=True))

    def read() -> None:
        decoder.feed(events(START, *block(0, use("a"))))
        for kind, value in items:
            fields = value if isinstance(value, dict) else {"delta": value, "content_block": value}
            decoder.feed(events({"index": 0, **fields, "type": kind}))
        decoder.end()

    fault = fault_in(read)
    assert fault is None or fault.failure.status


# The SDK's URL and headers


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "ANTHROPIC_CUSTOM_HEADERS"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def sdk_request(**options: Any) -> httpx2.Request:
    """What the vendor's SDK sends by itself."""
    import anthropic

    seen = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json=message())

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    anthropic.Anthropic(http_client=http, max_retries=0, **options).messages.create(
        model="claude-sonnet-4-5", max_tokens=1, messages=[{"role": "user", "content": "?"}]
    )
    return seen[0]


PER_CALL = {
    "content-length",
    "x-stainless-retry-count",
    "x-stainless-read-timeout",
    "x-stainless-async",
    "x-stainless-timeout",
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_template_is_what_the_sdk_sends(no_credentials: pytest.MonkeyPatch) -> None:
    theirs = sdk_request(api_key="k1", base_url="https://proxy.test/anthropic")
    url, headers = CODEC.template(PROVIDER, request(api_base="https://proxy.test/anthropic"), "k1")
    assert url == str(theirs.url)
    assert headers == {name: value for name, value in theirs.headers.items() if name not in PER_CALL}
    assert "k1" in headers["authorization"]


def test_an_auth_token_is_used_where_there_is_no_key(no_credentials: pytest.MonkeyPatch) -> None:
    no_credentials.setenv("ANTHROPIC_AUTH_TOKEN", "t1")
    assert CODEC.template(PROVIDER, request(), None)[1]["authorization"] == "Bearer t1"
    assert "t1" not in str(CODEC.template(PROVIDER, request(), "k1"))


def test_without_a_credential_none_is_sent(no_credentials: pytest.MonkeyPatch) -> None:
    headers = CODEC.template(PROVIDER, request(), None)[1]
    assert not {"authorization", "x-api-key"} & headers.keys()
    assert headers["anthropic-version"]
