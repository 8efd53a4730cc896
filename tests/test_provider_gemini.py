"""The Gemini codec says in contents what was asked in OpenAI's words, and reads the candidates back."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import rejoinder
from rejoinder.core import answers
from rejoinder.core.api_errors import InvalidRequest
from rejoinder.core.errors import MissingPackage
from rejoinder.core.types import Options, Request
from rejoinder.providers import deployment, table, vertex
from rejoinder.providers.base import Provider, ProviderFault
from rejoinder.providers.gemini import GeminiCodec, accepted_schema
from rejoinder.router.fold import fold

Json = dict[str, Any]

BASE = "https://generativelanguage.googleapis.com/v1beta"
PROVIDER = table.PROVIDERS["gemini"]
CODEC = GeminiCodec()
USER = {"role": "user", "content": "Hello"}
PIXEL = "iVBORw0KGgo="
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells it.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def request(*messages: Json, model: str = "gemini-2.5-flash", **fields: Any) -> Request:
    base = {"api_base": BASE, "parameters": {}, "messages": list(messages) or [USER]}
    return Request(**{"endpoint": "chat", "provider": "gemini", "model": model, **base, **fields})


def sent(*messages: Json, model: str = "gemini-2.5-flash", **parameters: Any) -> Json:
    return json.loads(CODEC.encode(request(*messages, model=model, parameters=parameters), PROVIDER).body)


def config(model: str = "gemini-2.5-flash", **parameters: Any) -> Json:
    return sent(model=model, **parameters)["generationConfig"]


def contents(*messages: Json, **rest: Any) -> list[Json]:
    return sent(*messages, **rest)["contents"]


def parts(*content: Any) -> list[Json]:
    (turn,) = contents({"role": "user", "content": list(content)})
    return turn["parts"]


def call(identity: str, arguments: Any = "{}", name: str = "weather", signature: str | None = None) -> Json:
    said = {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}
    return {**said, "extra_content": {"google": {"thought_signature": signature}}} if signature else said


def called(*calls: Json, **rest: Any) -> Json:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **rest}


def result(identity: str, content: Any = "sunny", **rest: Any) -> Json:
    return {"role": "tool", "tool_call_id": identity, "content": content, **rest}


def answer(*said: Json, reason: Any = "STOP", **fields: Any) -> Json:
    candidate = {"content": {"role": "model", "parts": list(said)}, "finishReason": reason, "index": 0}
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}
    base = {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-2.5-flash"}
    return {**base, "responseId": "an-id", **fields}


def decoded(*said: Json, **fields: Any) -> Json:
    return whole(answer(*said, **fields))


def whole(body: Json) -> Json:
    data = CODEC.decode(json.dumps(body).encode(), request())
    answers.completion(data)
    return json.loads(data)


def message(*said: Json, **fields: Any) -> Json:
    return decoded(*said, **fields)["choices"][0]["message"]


def streamed(*pieces: Json) -> list[bytes]:
    decoder = CODEC.decoder(request(stream=True))
    chunks = decoder.feed(b"".join(b"data: " + json.dumps(piece).encode() + b"\r\n\r\n" for piece in pieces))
    chunks += decoder.end()
    for chunk in chunks:
        answers.chunk(chunk)
    return chunks


def invalid(*messages: Json, model: str = "gemini-2.5-flash", **parameters: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        sent(*messages, model=model, **parameters)
    return str(caught.value)


# Where it goes


def test_the_model_and_the_way_of_answering_are_in_the_url() -> None:
    assert CODEC.encode(request(), PROVIDER).url == f"{BASE}/models/gemini-2.5-flash:generateContent"
    call = CODEC.encode(request(stream=True), PROVIDER)
    assert call.url == f"{BASE}/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
    tuned = CODEC.encode(request(model="tunedModels/mine"), PROVIDER)
    assert tuned.url == f"{BASE}/tunedModels/mine:generateContent"


def test_a_base_url_without_a_path_gets_the_version() -> None:
    bare = request(api_base="http://127.0.0.1:9")
    assert CODEC.encode(bare, PROVIDER).url == "http://127.0.0.1:9/v1beta/models/gemini-2.5-flash:generateContent"
    v1 = CODEC.encode(bare._replace(api_version="v1"), PROVIDER)
    assert v1.url == "http://127.0.0.1:9/v1/models/gemini-2.5-flash:generateContent"


def test_a_models_name_cannot_leave_its_place_in_the_url() -> None:
    url = CODEC.encode(request(model="a?b#c d"), PROVIDER).url
    assert url == f"{BASE}/models/a%3Fb%23c%20d:generateContent"


def test_the_key_is_in_a_header_and_not_in_the_url() -> None:
    url, headers = CODEC.template(PROVIDER, request(), "secret")
    assert headers["x-goog-api-key"] == "secret"
    assert "secret" not in url


def test_well_known_names_are_found() -> None:
    assert table.resolve("gemini-2.5-flash")[0].name == "gemini"
    assert table.resolve("google/gemini-2.5-flash") == (PROVIDER, "gemini-2.5-flash")
    assert table.resolve("vertex_ai/gemini-2.5-pro")[0].codec == "vertex_ai"


# Messages


def test_a_plain_question_is_sent_plainly() -> None:
    assert sent() == {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}


def test_system_messages_are_the_system_instruction_wherever_they_stand() -> None:
    body = sent({"role": "system", "content": "Be brief."}, USER, {"role": "developer", "content": "Be kind."})
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}, {"text": "Be kind."}]}
    assert body["contents"] == [{"role": "user", "parts": [{"text": "Hello"}]}]


def test_a_system_message_alone_is_what_the_user_says() -> None:
    body = sent({"role": "system", "content": "Sing."})
    assert body == {"contents": [{"role": "user", "parts": [{"text": "Sing."}]}]}


def test_neighbours_of_one_role_are_one_turn() -> None:
    turns = contents(USER, {"role": "user", "content": "there"}, {"role": "assistant", "content": "Yes?"}, USER)
    assert [(turn["role"], len(turn["parts"])) for turn in turns] == [("user", 2), ("model", 1), ("user", 1)]


def test_empty_texts_are_left_out_and_nothing_at_all_is_invalid() -> None:
    assert parts({"type": "text", "text": ""}, {"type": "text", "text": "a"}) == [{"text": "a"}]
    assert "say nothing" in invalid({"role": "user", "content": ""})


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("as it is", {"text": "as it is"}),
        (
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
            {"inlineData": {"mimeType": "image/png", "data": PIXEL}},
        ),
        (
            {"type": "image_url", "image_url": "data:,hi%20there"},
            {"inlineData": {"mimeType": "text/plain", "data": "aGkgdGhlcmU="}},
        ),
        (
            {"type": "image_url", "image_url": {"url": "https://example.com/a.webp?size=1"}},
            {"fileData": {"mimeType": "image/webp", "fileUri": "https://example.com/a.webp?size=1"}},
        ),
        (
            {"type": "image_url", "image_url": {"url": "gs://bucket/a"}},
            {"fileData": {"mimeType": "image/jpeg", "fileUri": "gs://bucket/a"}},
        ),
        (
            {"type": "image_url", "image_url": {"url": f"{BASE}/files/x1"}},
            {"fileData": {"fileUri": f"{BASE}/files/x1"}},
        ),
        (
            {"type": "video_url", "video_url": {"url": "https://youtu.be/x"}},
            {"fileData": {"mimeType": "video/mp4", "fileUri": "https://youtu.be/x"}},
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}},
            {"inlineData": {"mimeType": "audio/wav", "data": "QQ=="}},
        ),
        (
            {"type": "file", "file": {"filename": "a.csv", "file_data": "QQ=="}},
            {"inlineData": {"mimeType": "text/csv", "data": "QQ=="}},
        ),
        (
            {"type": "file", "file": {"file_id": "gs://bucket/a.pdf"}},
            {"fileData": {"mimeType": "application/pdf", "fileUri": "gs://bucket/a.pdf"}},
        ),
        (
            {"inlineData": {"mimeType": "x/y", "data": ""}, "videoMetadata": {"fps": 1}},
            {"inlineData": {"mimeType": "x/y", "data": ""}, "videoMetadata": {"fps": 1}},
        ),
    ],
)
def test_a_part_is_said_in_geminis_words(part: Any, expected: Json) -> None:
    assert parts(part) == [expected]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {}},
        {"type": "image_url", "image_url": {"url": "ftp://example.com/a"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64"}},
        {"type": "input_audio", "input_audio": {"format": "wav"}},
        {"type": "file", "file": {"file_id": "file-abc"}},
        {"type": "file", "file": {}},
        {"type": "text", "text": None},
        {"type": "hologram"},
        7,
    ],
)
def test_a_part_that_means_nothing_is_invalid(part: Any) -> None:
    assert invalid({"role": "user", "content": [part]})


# Tools, and what they found


def test_calls_and_results_are_said_with_the_name_that_the_id_stands_for() -> None:
    two = called(call("a", '{"city": "Rome"}'), call("b", "", name="time"))
    _, model, user = contents(USER, two, result("b", "noon"), result("a", '{"sky": "blue"}'))
    assert model["parts"] == [
        {"functionCall": {"id": "a", "name": "weather", "args": {"city": "Rome"}}},
        {"functionCall": {"id": "b", "name": "time", "args": {}}},
    ]
    assert user["parts"] == [
        {"functionResponse": {"id": "b", "name": "time", "response": {"output": "noon"}}},
        {"functionResponse": {"id": "a", "name": "weather", "response": {"sky": "blue"}}},
    ]


@pytest.mark.parametrize(
    ("content", "is_error", "response"),
    [
        ("{broken", False, {"output": "{broken"}),
        ("[1, 2]", False, {"output": "[1, 2]"}),
        ("", False, {"output": ""}),
        ("no such city", True, {"error": "no such city"}),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], False, {"output": "ab"}),
    ],
)
def test_a_result_is_an_object(content: Any, is_error: bool, response: Json) -> None:
    turns = contents(USER, called(call("a")), result("a", content, is_error=is_error))
    assert turns[-1]["parts"][0]["functionResponse"]["response"] == response


def test_an_image_that_a_tool_found_is_in_the_response_where_the_model_takes_that() -> None:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    said = (USER, called(call("a")), result("a", [{"type": "text", "text": "seen"}, image]))
    data = {"inlineData": {"mimeType": "image/png", "data": PIXEL}}
    old, new = (contents(*said, model=model)[-1]["parts"] for model in ("gemini-2.5-flash", "gemini-3.5-flash"))
    assert old[1] == data
    assert [part["functionResponse"].get("parts") for part in (old[0], new[0])] == [None, [data]]


def test_a_result_without_its_call_needs_a_name() -> None:
    assert "answers no call" in invalid(USER, result("x"))
    turns = contents(USER, result("x", name="weather"))
    assert turns[0]["parts"][1]["functionResponse"]["name"] == "weather"


@pytest.mark.parametrize("arguments", ["{", "[]", '"text"'])
def test_arguments_that_are_no_object_are_invalid(arguments: str) -> None:
    assert "'weather'" in invalid(USER, called(call("a", arguments)))


def test_signatures_are_sent_back_where_they_were() -> None:
    said = {"role": "assistant", "content": "So.", "extra_content": {"google": {"thought_signature": "t"}}}
    turns = contents(USER, said, USER, called(call("a", signature="s"), call("b")), result("a"), result("b"))
    assert turns[1]["parts"] == [{"text": "So.", "thoughtSignature": "t"}]
    assert [part.get("thoughtSignature") for part in turns[3]["parts"]] == ["s", None]


def test_another_vendors_calls_get_the_signature_that_stands_for_none() -> None:
    said = (USER, called(call("a"), call("b")), result("a"), result("b"))
    signatures = {
        model: [part.get("thoughtSignature") for part in contents(*said, model=model)[1]["parts"]]
        for model in ("gemini-2.5-pro", "gemma-3-27b-it", "gemini-3.8-flash", "gemini-flash-latest")
    }
    skip = ["skip_thought_signature_validator", None]
    none = [None, None]
    assert list(signatures.values()) == [none, none, skip, skip]


def test_thoughts_are_not_sent_back() -> None:
    said = {"role": "assistant", "content": "So.", "reasoning_content": "Hm."}
    assert contents(USER, said, USER)[1]["parts"] == [{"text": "So."}]


@pytest.mark.parametrize(
    "said",
    [
        [{"text": "So."}],
        [{"text": "So.", "thoughtSignature": "s"}],
        [{"functionCall": {"name": "f", "args": {"a": [1]}, "id": "x"}, "thoughtSignature": "s"}],
        [{"text": "I call."}, {"functionCall": {"name": "f", "args": {}, "id": "x"}}],
        [{"functionCall": {"name": "f", "args": {}, "id": "x"}}, {"text": "I called."}],
        [{"text": "a", "thoughtSignature": "s"}, {"text": "b", "thoughtSignature": "t"}],
        [{"thought": True, "text": "Hm.", "thoughtSignature": "s"}, {"text": "So."}],
        [{"executableCode": {"code": "1", "language": "PYTHON"}}, {"codeExecutionResult": {}}, {"text": "1"}],
        [{"toolCall": {"id": "x"}, "thoughtSignature": "s"}, {"toolResponse": {"id": "x"}}, {"text": "So."}],
        [{"text": "Look:"}, {"inlineData": {"mimeType": "image/png", "data": PIXEL}, "thoughtSignature": "s"}],
        [{"inlineData": {"mimeType": "image/png", "data": PIXEL}}, {"text": "Look above."}],
        [{"inlineData": {"mimeType": "audio/pcm", "data": "QQ=="}}],
    ],
)
def test_an_answer_goes_back_as_it_came(said: list[Json]) -> None:
    for body in (CODEC.decode(json.dumps(answer(*said)).encode(), request()), fold(streamed(answer(*said)))):
        back = json.loads(body)["choices"][0]["message"]
        assert contents(USER, back, USER)[1] == {"role": "model", "parts": said}


# Tools and how they are chosen


def test_functions_are_declared_with_their_schema() -> None:
    function = WEATHER["function"]
    assert sent(tools=[WEATHER])["tools"] == [
        {
            "functionDeclarations": [
                {"name": "weather", "description": "Tells it.", "parametersJsonSchema": function["parameters"]}  # type: ignore[index]
            ]
        }
    ]


def test_a_schema_in_the_vendors_own_form_is_sent_as_such() -> None:
    own = {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": own}}
    assert sent(tools=[tool])["tools"][0]["functionDeclarations"] == [{"name": "f", "parameters": own}]


def test_the_vendors_own_tools_are_sent_as_they_are() -> None:
    body = sent(tools=[WEATHER, {"googleSearch": {}}, {"codeExecution": {}}, {"url_context": {}}])
    assert body["tools"][1:] == [{"googleSearch": {}}, {"codeExecution": {}}, {"url_context": {}}]
    assert sent(web_search_options={})["tools"] == [{"googleSearch": {}}]
    assert "'web_search'" in invalid(tools=[{"type": "web_search"}])


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ({"type": "function", "function": {"name": "weather"}}, {"mode": "ANY", "allowedFunctionNames": ["weather"]}),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [WEATHER]}},
            {"mode": "VALIDATED", "allowedFunctionNames": ["weather"]},
        ),
    ],
)
def test_a_tool_choice_is_a_calling_mode(choice: Any, expected: Json) -> None:
    body = sent(tools=[WEATHER], tool_choice=choice)
    assert body["toolConfig"] == {"functionCallingConfig": expected}


def test_a_tool_choice_without_functions_is_left_out() -> None:
    assert "toolConfig" not in sent(tool_choice="auto")
    assert "toolConfig" not in sent(tools=[{"googleSearch": {}}], tool_choice="auto")


def test_what_gemini_cannot_do_with_tools_is_invalid() -> None:
    assert "parallel_tool_calls" in invalid(tools=[WEATHER], parallel_tool_calls=False)
    assert sent(tools=[WEATHER], parallel_tool_calls=True)["tools"]
    assert "tool_choice" in invalid(tools=[WEATHER], tool_choice="perhaps")


def test_schemas_keep_everything_but_what_is_refused() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "const": {"const": 1},
            "$schema": {"$ref": "#/$defs/A", "description": "gone"},
            "list": {"type": "array", "items": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/A"}]}, "minItems": 2},
        },
        "$defs": {"A": {"type": "string", "default": {"const": 2}}},
        "additionalProperties": False,
    }
    assert accepted_schema(schema) == {
        "type": "object",
        "properties": {
            "const": {"enum": [1]},
            "$schema": {"$ref": "#/$defs/A"},
            "list": {"type": "array", "items": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/A"}]}, "minItems": 2},
        },
        "$defs": {"A": {"type": "string", "default": {"const": 2}}},
        "additionalProperties": False,
    }


# Parameters


def test_parameters_are_in_the_generation_config_under_the_vendors_names() -> None:
    assert config(
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        max_tokens=7,
        stop="END",
        seed=1,
        n=2,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        logprobs=True,
        top_logprobs=4,
        modalities=["text", "image"],
        media_resolution="MEDIA_RESOLUTION_LOW",
    ) == {
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 3,
        "maxOutputTokens": 7,
        "stopSequences": ["END"],
        "seed": 1,
        "candidateCount": 2,
        "presencePenalty": 0.1,
        "frequencyPenalty": 0.2,
        "responseLogprobs": True,
        "logprobs": 4,
        "responseModalities": ["TEXT", "IMAGE"],
        "mediaResolution": "MEDIA_RESOLUTION_LOW",
    }


def test_parameters_of_the_whole_request_are_beside_it() -> None:
    safety = [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]
    body = sent(safety_settings=safety, cached_content="cachedContents/x", service_tier="default")
    del body["contents"]
    assert body == {"safetySettings": safety, "cachedContent": "cachedContents/x", "serviceTier": "standard"}
    assert "serviceTier" not in sent(service_tier="auto")


def test_an_answer_in_json_is_asked_for() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert config(response_format={"type": "json_object"}) == {"responseMimeType": "application/json"}
    form = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, "strict": True}}
    assert config(response_format=form) == {"responseMimeType": "application/json", "responseJsonSchema": schema}
    assert "generationConfig" not in sent(response_format={"type": "text"})
    assert "response_format" in invalid(response_format={"type": "json_schema", "json_schema": {"name": "it"}})
    assert "response_format" in invalid(response_format={"type": "grammar"})


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-pro", "none", {"thinkingBudget": 128}),
        ("gemini-2.5-flash", "minimal", {"thinkingBudget": 1_024, "includeThoughts": True}),
        ("gemini-2.5-pro", "high", {"thinkingBudget": 24_576, "includeThoughts": True}),
        ("gemini-3.6-flash", "none", {"thinkingLevel": "minimal"}),
        ("gemini-3.5-flash-lite", "minimal", {"thinkingLevel": "minimal", "includeThoughts": True}),
        ("gemini-3.8-flash", "minimal", {"thinkingLevel": "low", "includeThoughts": True}),
        ("gemini-3.1-pro-preview", "none", {"thinkingLevel": "low"}),
        ("gemini-3.8-flash", "medium", {"thinkingLevel": "medium", "includeThoughts": True}),
        ("gemini-flash-latest", "xhigh", {"thinkingLevel": "high", "includeThoughts": True}),
    ],
)
def test_an_effort_is_a_budget_or_a_level(model: str, effort: str, expected: Json) -> None:
    assert config(model, reasoning_effort=effort)["thinkingConfig"] == expected


def test_thinking_may_be_said_in_other_words() -> None:
    budget = {"type": "enabled", "budget_tokens": 2_000}
    assert config(thinking=budget)["thinkingConfig"] == {"thinkingBudget": 2_000, "includeThoughts": True}
    assert config(thinking={"type": "disabled"})["thinkingConfig"] == {"thinkingBudget": 0}
    assert config(thinking={"thinkingBudget": -1})["thinkingConfig"] == {"thinkingBudget": -1}
    assert config(thinking_config={"thinkingLevel": "low"})["thinkingConfig"] == {"thinkingLevel": "low"}
    assert "'huge'" in invalid(reasoning_effort="huge")


def test_the_extra_body_is_merged_into_objects() -> None:
    extra = {"generationConfig": {"topK": 1}, "labels": {"a": "b"}, "contents": []}
    asked = request(parameters={"temperature": 0}, extra_body=extra)
    body = json.loads(CODEC.encode(asked, PROVIDER).body)
    assert body == {"contents": [], "generationConfig": {"temperature": 0, "topK": 1}, "labels": {"a": "b"}}


# Answers


def test_thoughts_text_and_calls_have_their_places() -> None:
    said = message(
        {"text": "Hm.", "thought": True}, {"text": "Wait."}, {"functionCall": {"name": "f", "args": {"a": 1}}}
    )
    assert said == {
        "role": "assistant",
        "content": "Wait.",
        "reasoning_content": "Hm.",
        "tool_calls": [
            {"id": "call_an-id_0_0", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        ],
    }


def test_calls_without_an_id_get_the_same_one_each_time() -> None:
    two = {"functionCall": {"name": "f"}}, {"functionCall": {"name": "f"}}
    ids = [call["id"] for call in message(*two)["tool_calls"]]
    assert ids == ["call_an-id_0_0", "call_an-id_0_1"]
    assert ids == [
        call["id"] for call in json.loads(fold(streamed(answer(*two))))["choices"][0]["message"]["tool_calls"]
    ]


@pytest.mark.parametrize(
    ("native", "said", "reason"),
    [
        ("STOP", {"text": "a"}, "stop"),
        ("STOP", {"functionCall": {"name": "f"}}, "tool_calls"),
        ("MAX_TOKENS", {"functionCall": {"name": "f"}}, "length"),
        ("SAFETY", {"text": "a"}, "content_filter"),
        ("RECITATION", {"text": "a"}, "content_filter"),
        ("BLOCKLIST", {"text": "a"}, "content_filter"),
        ("PROHIBITED_CONTENT", {"text": "a"}, "content_filter"),
        ("SPII", {"text": "a"}, "content_filter"),
        ("MALFORMED_FUNCTION_CALL", {}, "malformed_function_call"),
        ("FUNCTION_CALL", {"functionCall": {"name": "f", "args": {}}}, "tool_calls"),
        ("FUNCTION_CALL", {"text": "a"}, "stop"),
        ("OTHER", {"text": "a"}, "other"),
    ],
)
def test_the_end_is_told_in_openais_word_and_the_vendors(native: str, said: Json, reason: str) -> None:
    (choice,) = decoded(said, reason=native)["choices"]
    assert (choice["finish_reason"], choice["native_finish_reason"]) == (reason, native)


def test_a_filtered_answer_may_have_no_content_at_all() -> None:
    body = {"candidates": [{"finishReason": "SAFETY", "safetyRatings": [{"blocked": True}]}], "usageMetadata": {}}
    (choice,) = whole(body)["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("content_filter", "")
    assert choice["safety_ratings"] == [{"blocked": True}]


def test_a_blocked_prompt_is_a_refusal_whole_and_streamed() -> None:
    body = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 9}}
    for found in (whole(body), json.loads(fold(streamed(body)))):
        (choice,) = found["choices"]
        assert choice["finish_reason"] == "content_filter"
        assert choice["message"]["refusal"] == "The prompt was blocked: PROHIBITED_CONTENT."
        assert found["usage"]["prompt_tokens"] == 9


def test_images_are_data_urls() -> None:
    (image,) = message({"inlineData": {"mimeType": "image/png", "data": PIXEL}})["images"]
    assert image == {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}


def test_several_candidates_are_several_choices() -> None:
    body = answer({"text": "a"})
    body["candidates"].append({"content": {"parts": [{"text": "b"}]}, "finishReason": "MAX_TOKENS", "index": 1})
    for found in (whole(body), json.loads(fold(streamed(body)))):
        assert [(choice["index"], choice["message"]["content"]) for choice in found["choices"]] == [(0, "a"), (1, "b")]
        assert [choice["finish_reason"] for choice in found["choices"]] == ["stop", "length"]


def test_a_stream_is_complete_only_when_each_candidate_is() -> None:
    body = answer({"text": "a"})
    body["candidates"].append({"content": {"parts": [{"text": "b"}]}, "index": 1})
    with pytest.raises(ProviderFault):
        streamed(body)


def test_probabilities_are_told_in_openais_form() -> None:
    body = answer({"text": "Hé"})
    body["candidates"][0]["logprobsResult"] = {
        "chosenCandidates": [{"token": "Hé", "logProbability": -0.5, "tokenId": 1}],
        "topCandidates": [{"candidates": [{"token": "Hé", "logProbability": -0.5}, {"token": "Ho"}]}],
    }
    first, second = ({"token": token, "bytes": list(token.encode())} for token in ("Hé", "Ho"))
    expected = {**first, "logprob": -0.5, "top_logprobs": [{**first, "logprob": -0.5}, {**second, "logprob": 0.0}]}
    for found in (whole(body), json.loads(fold(streamed(body)))):
        assert found["choices"][0]["logprobs"] == {"content": [expected]}


def test_arguments_that_come_in_pieces_are_put_together() -> None:
    def piece(**call: Any) -> Json:
        return {"candidates": [{"content": {"parts": [{"functionCall": call}]}}]}

    chunks = streamed(
        piece(name="book", id="x", willContinue=True),
        piece(
            partialArgs=[{"jsonPath": "$.to['a b'][0].city", "stringValue": "R", "willContinue": True}],
            willContinue=True,
        ),
        piece(partialArgs=[{"jsonPath": "$.to['a b'][0].city", "stringValue": "R"}], willContinue=True),
        piece(partialArgs=[{"jsonPath": "$.to['a b'][1]", "numberValue": 2.5}], willContinue=True),
        piece(
            partialArgs=[{"jsonPath": "$.none", "nullValue": "NULL_VALUE"}, {"jsonPath": "$.yes", "boolValue": True}]
        ),
        answer({"functionCall": {"name": "next"}}),
    )
    (choice,) = json.loads(fold(chunks))["choices"]
    said = [
        (call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in choice["message"]["tool_calls"]
    ]
    assert said == [("book", {"to": {"a b": [{"city": "RR"}, 2.5]}, "none": None, "yes": True}), ("next", {})]
    assert choice["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("path", ["$", "$.a[9999999]", "$[0]", ""])
def test_a_piece_of_an_argument_that_has_no_place_is_a_fault(path: str) -> None:
    part = {"functionCall": {"name": "f", "partialArgs": [{"jsonPath": path, "stringValue": "a"}]}}
    with pytest.raises(ProviderFault):
        streamed(answer(part))


def test_counts_include_the_cache_the_tools_and_the_thoughts() -> None:
    usage = {
        "promptTokenCount": 10,
        "cachedContentTokenCount": 4,
        "toolUsePromptTokenCount": 5,
        "candidatesTokenCount": 7,
        "thoughtsTokenCount": 3,
        "totalTokenCount": 25,
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 6}, {"modality": "TEXT", "tokenCount": 4}],
        "serviceTier": "flex",
    }
    found = decoded({"text": "a"}, usageMetadata=usage)
    counted = found["usage"]
    assert (counted["prompt_tokens"], counted["completion_tokens"], counted["total_tokens"]) == (15, 10, 25)
    assert counted["prompt_tokens_details"] == {"cached_tokens": 4, "audio_tokens": 6}
    assert counted["completion_tokens_details"]["reasoning_tokens"] == 3
    assert found["service_tier"] == "flex"


def test_what_comes_after_the_reason_for_the_end_still_counts() -> None:
    late = {"usageMetadata": {"promptTokenCount": 8, "totalTokenCount": 8}}
    found = json.loads(fold(streamed(answer({"text": "a"}), late)))
    assert (found["choices"][0]["message"]["content"], found["usage"]["prompt_tokens"]) == ("a", 8)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", "context_window"),
        (
            "Unable to submit request because the input token count is 1200000 but model only supports up to 1048576.",
            "context_window",
        ),
        ("The response was blocked: it violated Google's Responsible AI practices.", "content_policy"),
        ('Invalid JSON payload received. Unknown name "x".', None),
    ],
)
def test_an_error_tells_whether_the_prompt_is_to_blame(message: str, kind: str | None) -> None:
    body = {"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}
    assert CODEC.failure(400, json.dumps(body).encode()).kind == kind


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b"7", b"<html>", b'{"candidates": []}', b'{"candidates": [7]}']
)
def test_what_is_no_answer_is_a_fault(body: bytes) -> None:
    decoder = CODEC.decoder(request(stream=True))
    with pytest.raises(ProviderFault):
        CODEC.decode(body, request())
    with pytest.raises(ProviderFault):
        print(decoder.feed(body), decoder.end())


# The whole way


class Vendor(BaseHTTPRequestHandler):
    """Answers with what the test laid down, and keeps what it was asked."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, dict[str, str], Json]]
    replies: list[tuple[int, str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        given = json.loads(body) if body.startswith(b"{") else body.decode()
        self.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}, given))
        status, kind, reply = self.replies.pop(0)
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *unused: Any) -> None:
        """Quiet."""

    @classmethod
    def will_answer(cls, body: Json, status: int = 200) -> None:
        cls.replies.append((status, "application/json", json.dumps(body).encode()))

    @classmethod
    def will_stream(cls, *pieces: Json) -> None:
        events = "".join(f"data: {json.dumps(piece)}\r\n\r\n" for piece in pieces)
        cls.replies.append((200, "text/event-stream", events.encode()))


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[Vendor]]]:
    kind = type("Fresh", (Vendor,), {"asked": [], "replies": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    for name in (*vertex.PROJECTS, *vertex.LOCATIONS):
        monkeypatch.delenv(name, raising=False)
    yield f"http://127.0.0.1:{server.server_port}/v1beta", kind
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_call_goes_there_and_back(vendor: tuple[str, type[Vendor]], is_async: bool) -> None:
    base, upstream = vendor
    upstream.will_answer(answer({"text": "Hm.", "thought": True}, {"text": "Hi."}))
    asked: Json = {"api_base": base, "api_key": "key", "temperature": 0, "extra_headers": {"x-mine": "1"}}
    if is_async:
        found = await rejoinder.acompletion("gemini/gemini-2.5-flash", [USER], **asked)
    else:
        found = rejoinder.completion("gemini/gemini-2.5-flash", [USER], **asked)
    assert (found.choices[0].message.content, found.choices[0].finish_reason) == ("Hi.", "stop")
    assert found.choices[0].message.reasoning_content == "Hm."  # type: ignore[attr-defined]
    ((path, headers, body),) = upstream.asked
    assert path == "/v1beta/models/gemini-2.5-flash:generateContent"
    assert (headers["x-goog-api-key"], headers["x-mine"]) == ("key", "1")
    assert body == {
        "contents": [{"role": "user", "parts": [{"text": "Hello"}]}],
        "generationConfig": {"temperature": 0},
    }


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_stream_goes_there_and_back(vendor: tuple[str, type[Vendor]], is_async: bool) -> None:
    base, upstream = vendor
    begun = {"candidates": [{"content": {"parts": [{"text": "H"}]}}], "responseId": "an-id", "modelVersion": "m"}
    upstream.will_stream(begun, answer({"text": "i."}))
    asked: Json = {"api_base": base, "api_key": "key", "stream_options": {"include_usage": True}}
    if is_async:
        stream = await rejoinder.acompletion("gemini/gemini-3.8-flash", [USER], stream=True, **asked)
        chunks = [chunk async for chunk in stream]
    else:
        chunks = list(rejoinder.completion("gemini/gemini-3.8-flash", [USER], stream=True, **asked))
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == "Hi."
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 5
    assert upstream.asked[0][0] == "/v1beta/models/gemini-3.8-flash:streamGenerateContent?alt=sse"


def test_two_models_at_one_place_have_each_their_url(vendor: tuple[str, type[Vendor]]) -> None:
    base, upstream = vendor
    for model in ("gemini-2.5-pro", "gemini-2.5-flash"):
        upstream.will_answer(answer({"text": "a"}))
        rejoinder.completion(f"gemini/{model}", [USER], api_base=base, api_key="key")
    paths = [path for path, _, _ in upstream.asked]
    assert paths == [f"/v1beta/models/{model}:generateContent" for model in ("gemini-2.5-pro", "gemini-2.5-flash")]


def test_the_wait_that_the_body_asks_for_is_on_the_error(vendor: tuple[str, type[Vendor]]) -> None:
    base, upstream = vendor
    delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"}
    error = {"code": 429, "message": "Quota.", "status": "RESOURCE_EXHAUSTED", "details": [delay]}
    upstream.will_answer({"error": error}, 429)
    with pytest.raises(rejoinder.RateLimitError) as caught:
        rejoinder.completion("gemini/gemini-2.5-flash", [USER], api_base=base, api_key="key", num_retries=0)
    assert caught.value.retry_after == 34.4


def test_a_tool_call_is_answered_in_the_same_conversation(vendor: tuple[str, type[Vendor]]) -> None:
    base, upstream = vendor
    part = {"functionCall": {"name": "weather", "args": {"city": "Rome"}}, "thoughtSignature": "c2ln"}
    upstream.will_answer(answer(part))
    upstream.will_answer(answer({"text": "Sunny."}))
    asked: Json = {"api_base": base, "api_key": "key", "tools": [WEATHER]}
    first = rejoinder.completion("gemini/gemini-3.8-flash", [USER], **asked).choices[0].message
    assert first.tool_calls is not None
    found = result(first.tool_calls[0].id)
    rejoinder.completion("gemini/gemini-3.8-flash", [USER, first, found], **asked)  # type: ignore[list-item]
    _, model, user = upstream.asked[1][2]["contents"]
    identity = first.tool_calls[0].id
    assert model["parts"] == [{**part, "functionCall": {**part["functionCall"], "id": identity}}]  # type: ignore[dict-item]
    assert user["parts"][0]["functionResponse"]["id"] == identity


# Vertex AI


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*vertex.PROJECTS, *vertex.LOCATIONS, "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(vertex, "_held", None)
    return monkeypatch


def vertex_url(api_base: str = vertex.BASE, model: str = "gemini-2.5-flash", stream: bool = False, **asked: Any) -> Any:
    place = request(model=model, api_base=api_base, provider="vertex_ai", parameters=asked, stream=stream)
    return vertex.VertexCodec().encode(place, table.PROVIDERS["vertex_ai"]).url


def test_a_location_is_in_the_host_and_the_path(no_environment: pytest.MonkeyPatch) -> None:
    end = "publishers/google/models/gemini-2.5-flash:generateContent"
    assert vertex_url(vertex_project="p") == f"{vertex.BASE}/projects/p/locations/global/{end}"
    region = vertex_url(vertex_project="p", vertex_location="us-central1")
    assert region == f"https://us-central1-aiplatform.googleapis.com/v1beta1/projects/p/locations/us-central1/{end}"
    several = vertex_url(vertex_project="p", vertex_location="eu")
    assert several == f"https://aiplatform.eu.rep.googleapis.com/v1beta1/projects/p/locations/eu/{end}"
    no_environment.setenv("GOOGLE_CLOUD_PROJECT", "q")
    no_environment.setenv("GOOGLE_CLOUD_LOCATION", "us-east5")
    assert "us-east5-aiplatform.googleapis.com/v1beta1/projects/q/locations/us-east5" in vertex_url()


def test_a_model_may_be_another_publishers_or_an_endpoint(no_environment: pytest.MonkeyPatch) -> None:
    place = f"{vertex.BASE}/projects/p/locations/global"
    for model in ("publishers/other/models/m", "endpoints/123"):
        assert vertex_url(model=model, vertex_project="p") == f"{place}/{model}:generateContent"


def test_without_a_project_it_is_express_mode(no_environment: pytest.MonkeyPatch) -> None:
    url = vertex_url(stream=True)
    assert url == f"{vertex.BASE}/publishers/google/models/gemini-2.5-flash:streamGenerateContent?alt=sse"


def test_a_base_url_of_the_callers_is_continued_where_it_ends(no_environment: pytest.MonkeyPatch) -> None:
    base = "https://proxy.example.com/v1/projects/p/locations/l"
    assert vertex_url(base) == f"{base}/publishers/google/models/gemini-2.5-flash:generateContent"
    further = f"{base}/publishers/google"
    assert vertex_url(further) == f"{further}/models/gemini-2.5-flash:generateContent"


def test_the_project_and_the_location_are_not_sent_in_the_body(vendor: tuple[str, type[Vendor]]) -> None:
    base, upstream = vendor
    upstream.will_answer(answer({"text": "a"}))
    rejoinder.completion(
        "vertex_ai/gemini-2.5-flash", [USER], api_base=base, api_key="ya29.t", vertex_project="p", vertex_location="l"
    )  # type: ignore[call-overload]
    ((path, headers, body),) = upstream.asked
    assert path == "/v1beta/projects/p/locations/l/publishers/google/models/gemini-2.5-flash:generateContent"
    assert headers["authorization"] == "Bearer ya29.t"
    assert body.keys() == {"contents"}


def test_an_api_key_is_no_token() -> None:
    codec = vertex.VertexCodec()
    _, headers = codec.template(table.PROVIDERS["vertex_ai"], request(api_base=vertex.BASE), "AIzaSy")
    assert headers["x-goog-api-key"] == "AIzaSy"
    assert "authorization" not in headers


def test_without_google_auth_it_says_what_to_install(no_environment: pytest.MonkeyPatch) -> None:
    no_environment.setitem(__import__("sys").modules, "google.auth", None)
    with pytest.raises(MissingPackage, match="google-auth"):
        vertex.access_token()


def test_claude_is_not_served_in_this_protocol(no_environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequest, match="Anthropic"):
        vertex_url(model="claude-sonnet-4-5")


def test_default_credentials_are_fetched_once_and_refreshed_when_they_expire(
    vendor: tuple[str, type[Vendor]], no_environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("google.auth", reason="pip install google-auth")
    base, upstream = vendor
    (tmp_path / "subject").write_text("who I am")
    credentials = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{base}/token",
        "credential_source": {"file": str(tmp_path / "subject")},
    }
    (tmp_path / "credentials.json").write_text(json.dumps(credentials))
    no_environment.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "credentials.json"))
    no_environment.setenv("GOOGLE_CLOUD_PROJECT", "mine")
    for token, lifetime in (("first", 1), ("second", 3_600)):
        upstream.will_answer({"access_token": token, "expires_in": lifetime, "token_type": "Bearer"})
    provider: Provider = table.PROVIDERS["vertex_ai"]
    keys = [deployment.api_key(provider, Options(), request(api_base=base)) for _ in range(3)]
    assert keys == ["first", "second", "second"]
    assert [path for path, _, _ in upstream.asked] == ["/v1beta/token"] * 2
