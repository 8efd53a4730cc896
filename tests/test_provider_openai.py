"""The OpenAI codec, the mending of what is nearly an answer, the reading of errors, and the table's rows."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from rejoinder.core import answers, shape
from rejoinder.core.errors import UnknownProvider
from rejoinder.core.types import Request
from rejoinder.providers import table
from rejoinder.providers.base import Codec, Provider, ProviderFault
from rejoinder.providers.failures import read_failure
from rejoinder.providers.fixes import Fix
from rejoinder.providers.openai import PARAMETERS, OpenAICodec
from rejoinder.providers.openai_endpoints import PARAMETERS as ENDPOINT_PARAMETERS

WHOLE: dict[str, Any] = {
    "id": "c1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}
CHUNK: dict[str, Any] = {
    "id": "c1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": None}],
}


def asked(provider: str = "openai", **fields: Any) -> Request:
    return Request("chat", provider, "m", "", [{"role": "user", "content": "hi"}], {}, **fields)


def whole(**changes: Any) -> answers.Completion:
    return answers.completion(json.dumps({**WHOLE, **changes}).encode())


def message(**fields: Any) -> answers.Message:
    return whole(choices=[{"message": fields}]).choices[0].message


def delta(**fields: Any) -> answers.Delta:
    return answers.chunk(json.dumps({"choices": [{"delta": fields}]}).encode()).choices[0].delta


def events(*data: Any) -> bytes:
    return b"".join(b"data: %b\n\n" % (part if isinstance(part, bytes) else json.dumps(part).encode()) for part in data)


@pytest.fixture
def speaker() -> Codec:
    found = table.codec("openai")
    assert found is not None
    return found


def read_stream(speaker: Codec, body: bytes, provider: str = "openai") -> list[answers.Chunk]:
    decoder = speaker.decoder(asked(provider))
    return [answers.chunk(data) for data in decoder.feed(body) + decoder.end()]


# What is nearly an answer.


def test_right_answer_comes_out_of_mending_as_it_went_in() -> None:
    assert shape.mend_completion(WHOLE) == WHOLE
    assert shape.mend_chunk(CHUNK) == CHUNK


def test_mending_leaves_its_argument_alone() -> None:
    data = {"choices": [{"message": {"content": [{"type": "text", "text": "hi"}]}}], "usage": {"prompt_tokens": None}}
    before = json.dumps(data)
    shape.mend_completion(data)
    assert json.dumps(data) == before


def test_answer_with_nothing_but_a_message_is_an_answer() -> None:
    answer = answers.completion(b'{"choices": [{"message": {"content": "hi"}}]}')
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("hi", "stop")
    assert (answer.id, answer.created, answer.model, answer.object) == ("", 0, "", "chat.completion")


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'"text"', b'{"choices": []}', b'{"choices": null}'])
def test_what_is_no_answer_is_refused_with_a_clear_error(body: bytes, speaker: Codec) -> None:
    with pytest.raises((shape.Misshapen, ProviderFault)):
        answers.completion(speaker.decode(body, asked()))
    if body != b'{"choices": []}':
        with pytest.raises(shape.Misshapen):
            answers.completion(body)


def test_content_in_parts_is_joined_and_thinking_kept_apart() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}, {"type": "text", "text": "m"}]}
    said = message(content=[thinking, {"type": "text", "text": "a"}, "b", {"type": "reference", "reference_ids": [1]}])
    assert (said.content, said["reasoning_content"]) == ("ab", "hmm")
    assert said["vendor_content"][3] == {"type": "reference", "reference_ids": [1]}
    assert delta(content=[thinking])["reasoning_content"] == "hmm"
    assert delta(content=[thinking]).content is None


def test_tool_call_without_type_or_with_arguments_as_an_object_is_a_tool_call() -> None:
    call = message(tool_calls=[{"function": {"name": "f", "arguments": {"a": 1}}}], content=None).tool_calls[0]
    assert (call.id, call.type, call.function.name) == ("call_0", "function", "f")
    assert json.loads(call.function.arguments) == {"a": 1}


def test_pieces_of_tool_calls_get_their_index() -> None:
    pieces = delta(
        tool_calls=[{"id": "x", "function": {"name": "f", "arguments": {}}}, {"function": {"arguments": "1"}}]
    )
    assert [piece.index for piece in pieces.tool_calls] == [0, 1]
    assert [piece.function.arguments for piece in pieces.tool_calls] == ["{}", "1"]


def test_answer_that_ends_in_tool_calls_without_saying_so_says_so() -> None:
    data = [{"message": {"tool_calls": [{"function": {"name": "f"}}]}, "finish_reason": ""}]
    assert whole(choices=data).choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 5, "completion_tokens": None, "total_tokens": None}, (5, 0, 5)),
        ({"input_tokens": 5, "output_tokens": 2}, (5, 2, 7)),
        ({"prompt_tokens": "5", "completion_tokens": 2.0}, (5, 2, 7)),
    ],
)
def test_usage_is_completed(usage: dict[str, Any], expected: tuple[int, int, int]) -> None:
    given = whole(usage=usage).usage
    assert (given.prompt_tokens, given.completion_tokens, given.total_tokens) == expected


@pytest.mark.parametrize("usage", [None, {}, [], "none", {"total_tokens": None}])
def test_usage_that_counts_nothing_is_none(usage: Any) -> None:
    assert whole(usage=usage, object=None).usage is None


def test_old_form_of_logprobs_is_brought_into_the_new() -> None:
    data = {**CHUNK["choices"][0], "logprobs": {"tokens": ["a"], "token_logprobs": [-0.5]}}
    token = (
        answers.chunk(json.dumps({**CHUNK, "object": "", "choices": [data]}).encode()).choices[0].logprobs.content[0]
    )
    assert (token.token, token.logprob, token.top_logprobs) == ("a", -0.5, [])


def test_what_has_no_place_is_kept_beside_it() -> None:
    answer = whole(service_tier="turbo")
    assert (answer.service_tier, answer["vendor_service_tier"]) == (None, "turbo")
    note = {"type": "file", "file": {"hash": "x"}}
    assert message(content="hi", annotations=[note])["vendor_annotations"] == [note]


def test_vendor_cannot_mark_an_answer_as_cached() -> None:
    assert whole(cache="warm").cache is False


def test_hollow_function_call_is_none() -> None:
    assert (
        message(content="hi", function_call={"name": "", "arguments": ""}, audio={"id": "", "data": ""}).audio is None
    )


# Rows' fixes: answers that validate and would lose their meaning.


@pytest.mark.parametrize("name", ["reasoning", "reasoning_text"])
@pytest.mark.parametrize("provider", ["openrouter", "groq", "ollama", "cerebras", "openai_compatible", "openai"])
def test_thinking_is_reasoning_content_whatever_the_vendor_calls_it(name: str, provider: str, speaker: Codec) -> None:
    data = {
        **WHOLE,
        "choices": [{**WHOLE["choices"][0], "message": {"role": "assistant", "content": "4", name: "2+2"}}],
    }
    said = answers.completion(speaker.decode(json.dumps(data).encode(), asked(provider))).choices[0].message
    assert (said["reasoning_content"], said[name], said.content) == ("2+2", "2+2", "4")
    piece = {**CHUNK, "choices": [{"index": 0, "delta": {name: "2+2"}, "finish_reason": "stop"}]}
    assert read_stream(speaker, events(piece, b"[DONE]"), provider)[0].choices[0].delta["reasoning_content"] == "2+2"


def test_cached_tokens_are_where_openai_has_them(speaker: Codec) -> None:
    usage = {**WHOLE["usage"], "prompt_cache_hit_tokens": 1, "prompt_cache_miss_tokens": 0}
    answer = answers.completion(speaker.decode(json.dumps({**WHOLE, "usage": usage}).encode(), asked("deepseek")))
    assert answer.usage.prompt_tokens_details.cached_tokens == 1


def test_groqs_usage_in_a_stream_is_found(speaker: Codec) -> None:
    last = {
        **CHUNK,
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        "x_groq": {"usage": WHOLE["usage"]},
    }
    assert read_stream(speaker, events(last), "groq")[-1].usage.total_tokens == 3


def test_moonshots_usage_in_a_choice_is_found(speaker: Codec) -> None:
    choice = {"index": 0, "delta": {}, "finish_reason": "stop", "usage": {**WHOLE["usage"], "cached_tokens": 1}}
    usage = read_stream(speaker, events({**CHUNK, "choices": [choice]}), "moonshot")[-1].usage
    assert (usage.total_tokens, usage.prompt_tokens_details.cached_tokens) == (3, 1)


@pytest.mark.parametrize(
    ("theirs", "ours"), [("model_length", "length"), ("sensitive", "content_filter"), ("odd", "odd")]
)
def test_finish_reasons_are_said_in_openais_words(theirs: str, ours: str, speaker: Codec) -> None:
    data = {**WHOLE, "choices": [{**WHOLE["choices"][0], "finish_reason": theirs}]}
    answer = answers.completion(speaker.decode(json.dumps(data).encode(), asked("openai_compatible")))
    assert answer.choices[0].finish_reason == ours


def test_answer_without_departures_is_not_even_copied(speaker: Codec) -> None:
    body = json.dumps(WHOLE).encode()
    assert speaker.decode(body, asked("groq")) is body


def test_chunk_that_calls_itself_a_completion_is_not_ended_by_mending(speaker: Codec) -> None:
    piece = {**CHUNK, "object": "chat.completion", "choices": [{"index": 0, "delta": {"reasoning": "hm"}}]}
    assert read_stream(speaker, events(piece, LAST))[0].choices[0].finish_reason is None


def test_row_may_bring_a_fix_of_its_own() -> None:
    def louder(data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "model": data["model"].upper()}

    speaker = OpenAICodec({"acme": Provider("acme", "http://x", fix=louder)})
    assert json.loads(speaker.decode(json.dumps(WHOLE).encode(), asked("acme")))["model"] == "M"
    assert json.loads(speaker.decode(json.dumps(WHOLE).encode(), asked("other")))["model"] == "m"


# Streams.

LAST = {**CHUNK, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def test_stream_may_end_without_done(speaker: Codec) -> None:
    assert len(read_stream(speaker, events(CHUNK, LAST))) == 2
    assert len(read_stream(speaker, events(CHUNK, LAST).rstrip())) == 2


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_stream_cut_inside_its_last_event_is_no_answer(cut: int, speaker: Codec) -> None:
    with pytest.raises(ProviderFault) as caught:
        read_stream(speaker, events(CHUNK, LAST).rstrip()[:-cut])
    assert caught.value.failure[:4] == ("The stream ended before the answer did.", "incomplete_stream", None, 502)


def test_empty_finish_reason_ends_nothing(speaker: Codec) -> None:
    with pytest.raises(ProviderFault):
        read_stream(
            speaker, events({**CHUNK, "choices": [{"index": 0, "delta": {}, "finish_reason": ""}]}), "snowflake"
        )


def test_pings_and_unknown_events_are_no_chunks(speaker: Codec) -> None:
    body = b': hello\n\nevent: ping\ndata: {}\n\ndata: {"type": "ping"}\n\n' + events(CHUNK, LAST, b"[DONE]")
    assert len(read_stream(speaker, body)) == 2


def test_chunks_on_neighbouring_lines_are_chunks(speaker: Codec) -> None:
    assert len(read_stream(speaker, events(CHUNK, LAST, b"[DONE]").replace(b"\n\n", b"\n"))) == 2


def test_last_chunk_with_only_usage_is_given(speaker: Codec) -> None:
    chunks = read_stream(speaker, events(CHUNK, LAST, {"usage": WHOLE["usage"]}, b"[DONE]"))
    assert (chunks[-1].choices, chunks[-1].usage.total_tokens) == ([], 3)


ERRORS = [
    ({"error": {"message": "slow down", "code": 429}}, 429),
    ({"error": {"message": "slow down", "type": "rate_limit_exceeded"}}, 429),
    ({"error": {"message": "no", "type": "invalid_request_error", "code": "tool_use_failed", "status_code": 400}}, 400),
    ({"error": {"message": "key", "type": "authentication_error"}}, 401),
    ({"error": "it broke"}, 500),
    ({"object": "error", "message": "no such model", "type": "NotFoundError", "code": 404}, 404),
    ({"detail": "unwell"}, 500),
    ({"choices": None, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, 429),
    ({**CHUNK, "error": {"message": "upstream", "code": 502}}, 502),
    (
        {**CHUNK, "choices": [{"delta": {}, "error": {"message": "upstream", "code": 503}, "finish_reason": "error"}]},
        503,
    ),
]


@pytest.mark.parametrize(("error", "status"), ERRORS)
def test_error_in_a_good_answer_or_stream_is_a_fault_with_its_status(error: Any, status: int, speaker: Codec) -> None:
    body = json.dumps(error).encode()
    for read in (
        lambda: read_stream(speaker, events(CHUNK, error)),
        lambda: read_stream(speaker, body),
        lambda: speaker.decode(body, asked()),
    ):
        with pytest.raises(ProviderFault) as caught:
            read()
        assert caught.value.failure.status == status
        assert not caught.value.failure.message.startswith("{")


def test_error_that_is_null_or_empty_is_none(speaker: Codec) -> None:
    assert json.loads(speaker.decode(json.dumps({**WHOLE, "error": None}).encode(), asked()))["error"] is None
    assert json.loads(speaker.decode(json.dumps({**WHOLE, "error": ""}).encode(), asked()))["error"] == ""


PAGE = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body>...</body></html>"


@pytest.mark.parametrize(
    "body", [b"", b"  \n", PAGE, b"Internal Server Error", b'{"choices": [{"message": {"content": "h']
)
def test_body_that_is_no_json_is_a_fault_of_the_server(body: bytes, speaker: Codec) -> None:
    for read in (lambda: speaker.decode(body, asked()), lambda: read_stream(speaker, body)):
        with pytest.raises(ProviderFault) as caught:
            read()
        assert caught.value.failure.status == 502
        assert caught.value.failure.message


def test_web_page_is_named_by_its_title() -> None:
    assert read_failure(PAGE, 502).message == "a web page instead of an answer: 502 Bad Gateway"


# Errors.

CONTEXT = [
    "This model's maximum context length is 8192 tokens. However, your messages resulted in 10000 tokens.",
    "Input tokens exceed the configured limit of 272000 tokens. Please reduce the length of the messages.",
    "This model's maximum prompt length is 131072 but the request contains 200000 tokens.",
    "request (2009 tokens) exceeds the available context size (512 tokens), try increasing it",
    "prompt is too long: 210000 tokens > 200000 maximum",
    "Prompt contains 40000 tokens, too large for model with 32768 maximum context length",
    "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    "Input validation error: `inputs` must have less than 4095 tokens. Given: 5000",
    "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
]
POLICY = [
    "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
    "Your request was rejected as a result of our safety system.",
    "Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
    "Content Exists Risk",
    "The request was rejected because it was considered high risk",
    "Input data may contain inappropriate content.",
]
NEITHER = [
    "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000.",
    "max_tokens is too large: 100000. This model supports at most 16384 completion tokens.",
    "Unknown parameter: 'context_length'.",
    "Unrecognized request argument supplied: moderation",
    "Unknown parameter: 'content_filter'.",
    "Invalid 'tools[0].function.name': string too long. Expected a string with maximum length 64.",
    "Failed to deserialize the JSON body into the target type: messages[0]: unknown variant `input_audio`",
]


@pytest.mark.parametrize(
    ("text", "kind"),
    [*((text, "context_window") for text in CONTEXT), *((text, "content_policy") for text in POLICY)]
    + [(text, None) for text in NEITHER],
)
def test_kind_of_an_error_is_read_from_its_words(text: str, kind: str | None) -> None:
    assert read_failure(json.dumps({"error": {"message": text}}).encode(), 400).kind == kind


def test_rate_limit_is_no_matter_of_the_context_window() -> None:
    text = "Too many tokens: exceeds the context window quota of this minute"
    assert read_failure(json.dumps({"error": {"message": text}}).encode(), 429).kind is None
    body = {"error": {"message": "reduce the length of the messages", "code": "rate_limit_exceeded"}}
    assert read_failure(json.dumps(body).encode(), 413).kind is None


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        ({"error": {"message": "m", "type": "t", "code": "c"}}, "m", "c"),
        ({"error": {"message": "m", "type": "t", "code": 400}}, "m", "t"),
        ({"error": {"message": "m", "code": None, "type": None}}, "m", None),
        ({"error": ["a", "b"], "error_type": "validation"}, "a; b", "validation"),
        (
            {"detail": [{"loc": ["body", "model"], "msg": "Field required", "type": "missing"}]},
            "body.model: Field required",
            None,
        ),
        (
            {"object": "error", "message": {"detail": [{"loc": ["body"], "msg": "bad"}]}, "code": "3051"},
            "body: bad",
            "3051",
        ),
        ({"success": False, "errors": [{"code": 7003, "message": "no route"}]}, "no route", "7003"),
        ([{"error": {"message": "m", "code": 404}}], "m", "404"),
        ("oops", "oops", None),
        (None, "None", None),
        ({}, "{}", None),
    ],
)
def test_error_is_read_in_every_shape(body: Any, message: str, code: str | None) -> None:
    failure = read_failure(json.dumps(body).encode(), 400)
    assert (failure.message, failure.code) == (message, code)


def test_what_the_provider_behind_openrouter_said_is_in_the_message() -> None:
    raw = '{"error":{"message":"maximum context length is 10"}}'
    failure = read_failure(
        json.dumps({"error": {"message": "Provider returned error", "metadata": {"raw": raw}}}).encode(), 400
    )
    assert failure.kind == "context_window"
    assert raw in failure.message


# The table.

KNOWN = PARAMETERS.union(*(names.split() for names in ENDPOINT_PARAMETERS.values()))
WITHOUT_CHAT = {"echo", "jina_ai", "voyage"}


@pytest.mark.parametrize("row", table.ROWS, ids=lambda row: row.name)
def test_row_is_whole(row: Provider) -> None:
    assert (row.codec, "chat") in table.CODECS
    assert not row.base_url.endswith("/")
    assert not row.base_url or urlsplit(row.base_url).scheme == ("http" if "localhost" in row.base_url else "https")
    assert row.key_env or not row.needs_key, "without a variable for its key, a user must pass it each time"
    assert row.base_url or row.base_env or row.name == "echo", "a row without an address says where one can be set"
    assert row.docs.startswith("https://") or not row.base_url, "a row names the page it was checked against"
    assert row.refused <= KNOWN
    assert not row.extra & PARAMETERS
    assert set(row.renamed) <= KNOWN
    assert row.codec != "openai" or row.name in WITHOUT_CHAT or isinstance(row.fix, Fix)


def test_rows_have_each_their_own_name() -> None:
    assert len(table.PROVIDERS) == len(table.ROWS) > 40
    assert not set(table.OTHER_NAMES) & set(table.PROVIDERS)
    assert set(table.OTHER_NAMES.values()) <= set(table.PROVIDERS)


def test_name_of_another_library_finds_the_row() -> None:
    assert table.resolve("together/meta/llama") == (table.PROVIDERS["together_ai"], "meta/llama")


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        ("antropic/x", "Did you mean 'anthropic'?"),
        ("nobody/x", "openai_compatible/nobody/x"),
        ("groq/", "Write 'groq/<model>'"),
        ("what", "openai/what"),
    ],
)
def test_unknown_provider_says_what_to_write(model: str, hint: str) -> None:
    with pytest.raises(UnknownProvider) as caught:
        table.resolve(model)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("0.0.0.0:11434", "http://localhost:11434/v1"),
        ("gpu-box", "http://gpu-box:11434/v1"),
        ("http://gpu-box:8000", "http://gpu-box:8000/v1"),
        ("https://gpu-box/ollama/v1/", "https://gpu-box/ollama/v1"),
        ("[::1]:5", "http://[::1]:5/v1"),
    ],
)
def test_ollamas_own_host_variable_is_understood(value: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OLLAMA_API_BASE", raising=False)
    monkeypatch.setenv("OLLAMA_HOST", value)
    assert table.api_base(table.PROVIDERS["ollama"], None) == url


def test_given_base_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROQ_API_BASE", "https://proxy/v1/")
    assert table.api_base(table.PROVIDERS["groq"], "http://here/") == "http://here"
    assert table.api_base(table.PROVIDERS["groq"], None) == "https://proxy/v1"


def test_parameters_are_renamed_as_the_vendor_has_them(speaker: Codec) -> None:
    row = table.PROVIDERS["mistral"]
    request = asked("mistral", stream=True, stream_options={"include_usage": True})
    request = request._replace(parameters={"seed": 7, "max_completion_tokens": 5}, extra_body={"safe_prompt": True})
    assert json.loads(speaker.encode(request, row).body) == {
        "model": "m",
        "messages": request.messages,
        "random_seed": 7,
        "max_tokens": 5,
        "stream": True,
        "safe_prompt": True,
    }
