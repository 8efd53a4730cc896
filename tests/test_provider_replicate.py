"""The Replicate codec makes a prediction of what was asked in OpenAI's words, and reads a finished one back.

The answers are written by hand after https://replicate.com/docs/topics/predictions/create-a-prediction and the examples
on the models' own pages.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rejoinder
from rejoinder.core.shape import Misshapen
from rejoinder.core.types import Request
from rejoinder.providers.base import ProviderFault
from rejoinder.providers.replicate import ReplicateCodec
from rejoinder.providers.table import PROVIDERS
from tests.fixtures.calls import both, both_streams
from tests.fixtures.endpoint_server import EndpointServer, Reply

Json = dict[str, Any]
Ask = Callable[..., Any]

ROW = PROVIDERS["replicate"]
CODEC = ReplicateCodec()
LLAMA = "meta/meta-llama-3.1-405b-instruct"
USER = {"role": "user", "content": "How many sisters?"}
PREDICTION: Json = {
    "id": "zjq6szssxdrm20cgw0fsntgvbg",
    "model": LLAMA,
    "version": "hidden",
    "input": {"prompt": "How many sisters?"},
    "logs": "",
    "output": ["Tina", " has", " one."],
    "error": None,
    "status": "succeeded",
    "created_at": "2024-07-23T15:04:21.227000Z",
    "completed_at": "2024-07-23T15:04:24.090090Z",
    "metrics": {"input_token_count": 26, "output_token_count": 84, "predict_time": 2.8, "total_time": 2.9},
    "urls": {"get": "https://api.replicate.com/v1/predictions/zjq6szssxdrm20cgw0fsntgvbg"},
}


def request(*messages: Json, model: str = LLAMA, **fields: Any) -> Request:
    base = {"api_base": ROW.base_url, "parameters": {}, "messages": list(messages) or [USER]}
    return Request(**{"endpoint": "chat", "provider": "replicate", "model": model, **base, **fields})


def asked(*messages: Json, model: str = LLAMA, **parameters: Any) -> Json:
    """The input that is sent."""
    sent: Json = json.loads(CODEC.encode(request(*messages, model=model, parameters=parameters), ROW).body)
    return sent["input"]


def image(url: str) -> Json:
    return {"type": "image_url", "image_url": {"url": url}}


def decoded(parameters: Json | None = None, **changes: Any) -> Json:
    body = json.dumps({**PREDICTION, **changes}).encode()
    answer: Json = json.loads(CODEC.decode(body, request(parameters=parameters or {})))
    return answer


# Requests.


def test_official_model_has_a_url_of_its_own_and_a_version_the_common_one() -> None:
    call = CODEC.encode(request(), ROW)
    assert call.url == f"https://api.replicate.com/v1/models/{LLAMA}/predictions"
    assert call.headers["prefer"] == "wait"
    assert json.loads(call.body) == {"input": {"prompt": "How many sisters?"}}
    call = CODEC.encode(request(model="me/mine:5c7d5dc6"), ROW)
    assert call.url == "https://api.replicate.com/v1/predictions"
    assert json.loads(call.body) == {"version": "5c7d5dc6", "input": {"prompt": "How many sisters?"}}


@pytest.mark.parametrize("model", ["llama", "a/b/c", "/b", "a/"])
def test_model_without_an_owner_is_a_clear_error(model: str) -> None:
    with pytest.raises(rejoinder.InvalidRequest, match="owner/name"):
        asked(model=model)


def test_conversation_is_written_out_and_the_system_is_apart() -> None:
    said = asked(
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Be kind."},
        USER,
        {"role": "assistant", "content": "One."},
        {"role": "user", "content": [{"type": "text", "text": "Sure?"}]},
    )
    assert said == {
        "system_prompt": "Be brief.\n\nBe kind.",
        "prompt": "User: How many sisters?\n\nAssistant: One.\n\nUser: Sure?\n\nAssistant:",
    }


def test_parameters_are_said_in_the_models_words() -> None:
    said = asked(max_completion_tokens=5, temperature=0, top_k=3, top_p=0.5, seed=1, stop=["<end>", "<stop>"])
    assert said.pop("prompt")
    assert said == {
        "max_tokens": 5,
        "temperature": 0,
        "top_k": 3,
        "top_p": 0.5,
        "seed": 1,
        "stop_sequences": "<end>,<stop>",
    }
    assert asked(max_tokens=5, model="openai/gpt-4.1-mini")["max_completion_tokens"] == 5
    assert asked(max_new_tokens=5)["max_new_tokens"] == 5


def test_extra_body_goes_into_the_input_and_has_the_last_word() -> None:
    call = CODEC.encode(request(parameters={"top_k": 1}, extra_body={"top_k": 2, "effort": "low"}), ROW)
    assert json.loads(call.body)["input"] == {"prompt": "How many sisters?", "top_k": 2, "effort": "low"}


@pytest.mark.parametrize("url", ["https://example.com/a.png", "data:image/png;base64,AA=="])
def test_image_goes_beside_the_prompt(url: str) -> None:
    message = {"role": "user", "content": [{"type": "text", "text": "What?"}, image(url)]}
    assert asked(message) == {"prompt": "What?", "image": url}
    assert asked(message, model="openai/gpt-4o") == {"prompt": "What?", "image_input": [url]}


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": [image("https://a/1.png"), image("https://a/2.png")]}],
        [{"role": "user", "content": [image("/etc/hosts")]}],
        [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}],
        [{"role": "system", "content": "Only this."}],
        [USER, {"role": "tool", "tool_call_id": "c", "content": "x"}],
        [USER, {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}],
    ],
)
def test_what_the_vendor_cannot_be_told_is_a_clear_error(messages: list[Json]) -> None:
    with pytest.raises(rejoinder.InvalidRequest):
        asked(*messages)


def test_stop_sequences_that_have_a_comma_are_refused_among_several() -> None:
    with pytest.raises(rejoinder.InvalidRequest, match="commas"):
        asked(stop=["a,b", "c"])


# Answers.


def test_pieces_are_joined_and_tokens_counted() -> None:
    answer = decoded()
    assert answer["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "Tina has one."}, "finish_reason": "stop"}
    ]
    assert answer["usage"] == {"prompt_tokens": 26, "completion_tokens": 84, "total_tokens": 110}
    assert (answer["id"], answer["model"], answer["created"]) == (PREDICTION["id"], LLAMA, 1721747061)
    assert decoded(output="hello Alice", metrics=None)["choices"][0]["message"]["content"] == "hello Alice"


def test_text_of_as_many_tokens_as_were_allowed_ended_for_its_length() -> None:
    assert decoded({"max_tokens": 84})["choices"][0]["finish_reason"] == "length"
    assert decoded({"max_tokens": 85})["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"status": "processing", "output": None}, 504, "not finished within the wait.*predictions/zjq6"),
        ({"status": "starting", "output": None, "urls": {}}, 504, "'zjq6szssxdrm20cgw0fsntgvbg'"),
        ({"status": "failed", "error": "CUDA out of memory"}, 500, "CUDA out of memory"),
        ({"status": "failed", "error": "The input was flagged as sensitive (E005)"}, 400, "E005"),
        ({"status": "canceled"}, 409, "canceled"),
        ({"output": ["https://a/1.png", 1]}, 502, "not text"),
        ({"output": None}, 502, "not text"),
    ],
)
def test_prediction_without_an_answer_is_an_error_that_says_why(changes: Json, status: int, words: str) -> None:
    with pytest.raises(ProviderFault, match=words) as caught:
        decoded(**changes)
    assert caught.value.failure.status == status


@settings(max_examples=60, deadline=None)
@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.just(PREDICTION)))
def test_no_answer_breaks_the_codec(answer: Any) -> None:
    body = json.dumps(answer).encode()
    CODEC.failure(500, body)
    try:
        CODEC.decode(body, request())
    except (ProviderFault, Misshapen):
        return
    assert answer == PREDICTION


# Through the public functions, over a socket.


def call(ask: Ask, server: EndpointServer, **more: Any) -> Any:
    given = {"model": f"replicate/{LLAMA}", "messages": [USER], "api_key": "r8_mock", "num_retries": 0}
    return ask(**{**given, "api_base": server.url, **more})


@both
def test_round_trip_is_cached(ask: Ask) -> None:
    with EndpointServer(lambda _: Reply(json=PREDICTION, status=201)) as server, rejoinder.Cache.memory():
        first, second = call(ask, server, max_tokens=100), call(ask, server, max_tokens=100)
        (sent,) = server.requests
    assert (first.cache, second.cache, first == second) == (False, True, True)
    assert first.choices[0].message.content == "Tina has one."
    assert first.usage.total_tokens == 110
    assert sent.path == f"/v1/models/{LLAMA}/predictions"
    assert sent.json == {"input": {"prompt": "How many sisters?", "max_tokens": 100}}
    assert (sent.headers["prefer"], sent.headers["authorization"]) == ("wait", "Bearer r8_mock")


@both
def test_unfinished_prediction_is_asked_for_again_and_not_stored(ask: Ask) -> None:
    replies = iter([Reply(json={**PREDICTION, "status": "processing", "output": None}, status=202)])
    with EndpointServer(lambda _: next(replies, Reply(json=PREDICTION))) as server, rejoinder.Cache.memory() as cache:
        with pytest.raises(rejoinder.InternalServerError, match="not finished"):
            call(ask, server)
        assert cache.stats()["stored"] == 0
        assert not call(ask, server).cache
        assert server.calls == 2


@both
@pytest.mark.parametrize(
    ("status", "kind", "body"),
    [
        (
            401,
            rejoinder.AuthenticationError,
            {"title": "Unauthenticated", "detail": "You did not pass an authentication token", "status": 401},
        ),
        (429, rejoinder.RateLimitError, {"detail": "Request was throttled.", "status": 429}),
        (
            422,
            rejoinder.UnprocessableEntityError,
            {"title": "Input validation failed", "detail": "- input: prompt is required", "status": 422},
        ),
    ],
)
def test_error_has_its_class_and_the_vendors_words(ask: Ask, status: int, kind: Any, body: Json) -> None:
    with EndpointServer(lambda _: Reply(json=body, status=status)) as server, pytest.raises(kind) as caught:
        call(ask, server)
    assert body["detail"] in str(caught.value)


@both_streams
def test_stream_is_refused_with_the_reason(read: Ask) -> None:
    with EndpointServer(lambda _: Reply(json=PREDICTION)) as server:
        with pytest.raises(rejoinder.InvalidRequest, match="second request"):
            call(read, server)
        assert server.calls == 0


@both
def test_tools_are_refused_or_dropped(ask: Ask) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    with EndpointServer(lambda _: Reply(json=PREDICTION)) as server:
        with pytest.raises(rejoinder.InvalidRequest, match="'tools'"):
            call(ask, server, tools=tools)
        assert server.calls == 0
        call(ask, server, tools=tools, drop_params=True)
        assert "tools" not in server.requests[0].json["input"]
