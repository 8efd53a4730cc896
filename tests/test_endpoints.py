"""The endpoints beside chat: what is sent, what callers get, and what the cache keeps of it."""

from __future__ import annotations

import asyncio
import base64
import inspect
import io
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import openai
import openai.types.audio
import openai.types.responses
import pydantic
import pytest

import rejoinder
from tests.fixtures.endpoint_server import Asked, EndpointServer, Reply

Call = Callable[..., Any]
ENDPOINTS = (
    *("embedding", "image_generation", "moderation", "rerank", "responses", "speech", "text_completion"),
    *("transcription", "translation", "batch_completion", "batch_completion_models", "count_tokens", "ocr"),
)


def text_answer(asked: Asked) -> Reply:
    """OpenAI's older completions, whole or streamed in three pieces."""
    said = ["Once", " upon", f" {asked.json['prompt']}"]
    base = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}
    usage = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    if not asked.json.get("stream"):
        choice = {"index": 0, "text": "".join(said), "logprobs": None, "finish_reason": "length"}
        return Reply(json={**base, "choices": [choice], "usage": usage})
    pieces = [{**base, "choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in said]
    pieces[-1]["choices"][0]["finish_reason"] = "length"
    if asked.json.get("stream_options", {}).get("include_usage"):
        pieces.append({**base, "choices": [], "usage": usage})
    return events([*(json.dumps(piece) for piece in pieces), "[DONE]"])


def events(data: Sequence[str]) -> Reply:
    return Reply(content_type="text/event-stream", events=[f"data: {item}\n\n".encode() for item in data])


def response(text: str = "Hello.", **changes: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": "m",
        "output": [message],
        "error": None,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
        **changes,
    }


def response_answer(asked: Asked, **changes: Any) -> Reply:
    whole = response(**changes)
    if not asked.json.get("stream"):
        return Reply(json=whole)
    begun = {**whole, "status": "in_progress", "output": []}
    where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    told = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_text.delta", **where, "delta": "Hel", "logprobs": []},
        {"type": "response.output_text.delta", **where, "delta": "lo.", "logprobs": []},
        {"type": f"response.{whole['status']}", "response": whole},
    ]
    return events([json.dumps({**event, "sequence_number": number}) for number, event in enumerate(told)])


ANSWERS: dict[str, Callable[[Asked], Reply]] = {
    "/completions": text_answer,
    "/responses": response_answer,
    "/images/generations": lambda asked: Reply(json={"created": 1, "data": [{"b64_json": "aGVsbG8="}]}),
    "/audio/transcriptions": lambda asked: Reply(json={"text": "said"}),
    "/audio/translations": lambda asked: Reply(json={"text": "said in English"}),
    "/audio/speech": lambda asked: Reply(body=b"ID3" + asked.json["input"].encode(), content_type="audio/mpeg"),
    "/moderations": lambda asked: Reply(
        json={
            "id": "modr-1",
            "model": "m",
            "results": [{"flagged": True, "categories": {"hate/threatening": True}, "category_scores": {}}],
        }
    ),
    "/rerank": lambda asked: Reply(
        json={
            "id": "r",
            "results": [
                {"index": index, "relevance_score": 1 / (1 + len(document))}
                for index, document in enumerate(asked.json["documents"])
            ],
        }
    ),
    "/ocr": lambda asked: Reply(json={"model": "m", "pages": [{"index": 0, "markdown": "# Hi", "images": []}]}),
    "/chat/completions": lambda asked: Reply(
        json={
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": asked.json["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": asked.json["messages"][-1]["content"].upper()},
                    "finish_reason": "stop",
                }
            ],
        }
    ),
}


@pytest.fixture
def server() -> Iterator[EndpointServer]:
    with EndpointServer(lambda asked: ANSWERS[asked.path.removeprefix("/v1")](asked)) as server:
        yield server


@pytest.fixture
def cache() -> Iterator[rejoinder.Cache]:
    with rejoinder.Cache.memory() as cache:
        yield cache


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, server: EndpointServer) -> Call:
    """Calls an endpoint in either form; of a stream it gives the list of its pieces, and whether it was cached."""

    def sync(name: str, **params: Any) -> Any:
        answer = getattr(rejoinder, name)(**params)
        return (list(answer), answer.cache) if params.get("stream") else answer

    async def acall(name: str, **params: Any) -> Any:
        answer = await getattr(rejoinder, f"a{name}")(**params)
        return ([piece async for piece in answer], answer.cache) if params.get("stream") else answer

    def given(name: str, **params: Any) -> Any:
        params = {"model": "openai/m", "api_base": server.url, "api_key": "sk-mock", "num_retries": 0, **params}
        return sync(name, **params) if request.param == "sync" else asyncio.run(acall(name, **params))

    return given


# All of them

SIMPLE: dict[str, dict[str, Any]] = {
    "text_completion": {"prompt": "a time"},
    "responses": {"input": "Hi"},
    "image_generation": {"prompt": "a lighthouse"},
    "transcription": {"file": b"ID3 sound"},
    "translation": {"file": b"ID3 sound"},
    "speech": {"input": "Hello", "voice": "alloy"},
    "moderation": {"input": "something"},
    "rerank": {"model": "openai_compatible/m", "query": "q", "documents": ["bb", "a"]},
    "ocr": {"model": "mistral/m", "document": "https://x.test/a.pdf"},
}
TYPES: dict[str, Any] = {
    "text_completion": openai.types.Completion,
    "responses": openai.types.responses.Response,
    "image_generation": openai.types.ImagesResponse,
    "transcription": openai.types.audio.Transcription,
    "translation": openai.types.audio.Translation,
    "speech": openai.HttpxBinaryResponseContent,
    "moderation": openai.types.ModerationCreateResponse,
    "rerank": rejoinder.Ranking,
    "ocr": rejoinder.Recognition,
}


@pytest.mark.parametrize("name", SIMPLE)
def test_answer_has_openais_type_and_is_cached(name: str, call: Call, server: EndpointServer, cache: Any) -> None:
    first, second = call(name, **SIMPLE[name]), call(name, **SIMPLE[name])
    assert isinstance(first, TYPES[name])
    assert (first.cache, second.cache, server.calls) == (False, True, 1)
    assert (first.cache_info.kind, second.cache_info.kind) == ("none", "exact")
    assert first == second
    if name != "speech":
        assert (first["cache"], second["cache"]) == (False, True)


@pytest.mark.parametrize("name", SIMPLE)
def test_each_endpoint_has_keys_of_its_own(name: str, call: Call, server: EndpointServer, cache: Any) -> None:
    cache.get_cache_key = lambda *args, **kwargs: "one key for all"
    for other in SIMPLE:
        call(other, **SIMPLE[other])
    assert server.calls == len(SIMPLE)
    assert call(name, **SIMPLE[name]).cache
    assert server.calls == len(SIMPLE)


@pytest.mark.parametrize("name", SIMPLE)
def test_other_parameters_are_another_call(name: str, call: Call, server: EndpointServer, cache: Any) -> None:
    call(name, **SIMPLE[name])
    assert not call(name, **SIMPLE[name], extra_body={"style": "plain"}).cache
    assert server.calls == 2


@pytest.mark.parametrize("name", SIMPLE)
def test_provider_that_lacks_an_endpoint_says_so(name: str, call: Call, server: EndpointServer) -> None:
    with pytest.raises(rejoinder.InvalidRequest, match=f"'anthropic' has no endpoint '{name}'"):
        call(name, **{**SIMPLE[name], "model": "anthropic/any"})
    assert server.calls == 0


@pytest.mark.parametrize("name", sorted(SIMPLE.keys() - {"rerank"}))  # of which no row has a closed list
def test_unknown_parameter_is_refused(name: str, call: Call, server: EndpointServer) -> None:
    with pytest.raises(rejoinder.InvalidRequest, match="has no parameter 'nonsense'"):
        call(name, **SIMPLE[name], nonsense=1)
    assert server.calls == 0


@pytest.mark.parametrize("name", SIMPLE)
def test_errors_have_their_class(name: str, call: Call, server: EndpointServer, cache: Any) -> None:
    server.answer = lambda asked: Reply(json={"error": {"message": "slow down"}}, status=429)
    with pytest.raises(rejoinder.RateLimitError, match="slow down"):
        call(name, **SIMPLE[name])
    server.answer = lambda asked: Reply(json={"error": {"message": "in trouble", "code": "server_error"}})
    with pytest.raises(rejoinder.InternalServerError, match="in trouble"):
        call(name, **SIMPLE[name])
    assert cache.stats()["stored"] == 0


@pytest.mark.parametrize("name", SIMPLE)
@pytest.mark.parametrize("body", [b"", b"<html><title>Bad gateway</title>", b'{"almost": "an ans'])
def test_answer_that_is_none_is_a_library_error(name: str, body: bytes, call: Call, server: EndpointServer) -> None:
    server.answer = lambda asked: Reply(body=body)
    with pytest.raises(rejoinder.APIError):
        call(name, **SIMPLE[name])


@pytest.mark.parametrize("name", SIMPLE)
def test_fallback_is_asked_when_the_first_model_fails(name: str, call: Call, server: EndpointServer) -> None:
    usual = server.answer
    server.answer = lambda asked: Reply(status=500, body=b"down") if b"broken" in asked.body else usual(asked)
    good = SIMPLE[name].get("model", "openai/m")
    answer = call(name, **{**SIMPLE[name], "model": good.replace("/m", "/broken")}, fallbacks=[good])
    assert isinstance(answer, TYPES[name])
    assert server.calls == 2


@pytest.mark.parametrize("name", SIMPLE)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_own_client_carries_the_call(name: str, kind: str, server: EndpointServer) -> None:
    given = {"model": "openai/m", **SIMPLE[name]}
    if kind == "sync":
        client: Any = openai.OpenAI(api_key="sk-own", base_url=server.url)
        answer = getattr(rejoinder, name)(**given, client=client)
    else:
        client = openai.AsyncOpenAI(api_key="sk-own", base_url=server.url)
        answer = asyncio.run(getattr(rejoinder, f"a{name}")(**given, client=client))
    assert isinstance(answer, TYPES[name])
    assert server.requests[0].headers["authorization"] == "Bearer sk-own"
    if "file" in given:
        assert server.requests[0].form["file"] == [given["file"]]


@pytest.mark.parametrize("name", ["text_completion", "responses"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_own_client_carries_the_stream(name: str, kind: str, server: EndpointServer) -> None:
    given: Any = {"model": "openai/m", **SIMPLE[name], "stream": True}
    if kind == "sync":
        own = openai.OpenAI(api_key="sk-own", base_url=server.url)
        told = list(getattr(rejoinder, name)(**given, client=own))
    else:

        async def go() -> list[Any]:
            client = openai.AsyncOpenAI(api_key="sk-own", base_url=server.url)
            return await read_all(await getattr(rejoinder, f"a{name}")(**given, client=client))

        told = asyncio.run(go())
    assert len(told) > 2
    assert server.requests[0].headers["authorization"] == "Bearer sk-own"


@pytest.mark.parametrize("name", ["translation", "moderation", "rerank"])
def test_endpoint_without_streams_says_so(name: str, server: EndpointServer) -> None:
    with pytest.raises(rejoinder.InvalidRequest, match="has no streams"):
        getattr(rejoinder, name)(**{"model": "openai/m", **SIMPLE[name]}, stream=True)


@pytest.mark.parametrize("name", ENDPOINTS)
def test_twins_take_the_same(name: str) -> None:
    mine, twin = (inspect.signature(getattr(rejoinder, prefix + name)) for prefix in ("", "a"))
    assert mine.parameters == twin.parameters


# Text completions


def test_text_stream_is_replayed_and_serves_whole_calls(call: Call, server: EndpointServer, cache: Any) -> None:
    pieces, cached = call("text_completion", prompt="a time", stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == "Once upon a time"
    assert not cached
    again, cached = call("text_completion", prompt="a time", stream=True)
    assert cached
    assert again == pieces
    whole = call("text_completion", prompt="a time")
    assert (whole.choices[0].text, whole.choices[0].finish_reason, whole.cache) == ("Once upon a time", "length", True)
    assert whole.usage.total_tokens == 5
    assert server.calls == 1


def test_usage_comes_last_in_a_text_stream_if_asked_for(call: Call, cache: Any) -> None:
    for _ in range(2):
        pieces, _ = call("text_completion", prompt="a time", stream=True, stream_options={"include_usage": True})
        assert (pieces[-1].choices, pieces[-1].usage.total_tokens) == ([], 5)


def test_whole_text_answer_is_streamed(call: Call, server: EndpointServer, cache: Any) -> None:
    call("text_completion", prompt="a time")
    pieces, cached = call("text_completion", prompt="a time", stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == "Once upon a time"
    assert (cached, server.calls) == (True, 1)


def test_many_choices_are_folded_by_their_index(call: Call, server: EndpointServer, cache: Any) -> None:
    pieces = [
        {"choices": [{"index": index, "text": text, "logprobs": {"tokens": [text], "token_logprobs": [-1.0]}}]}
        for index, text in [(1, "b"), (0, "a"), (1, "B"), (0, "A")]
    ]
    ends = [{"choices": [{"index": index, "text": "", "finish_reason": "stop"}]} for index in (0, 1)]
    server.answer = lambda asked: events([*(json.dumps(piece) for piece in [*pieces, *ends]), "[DONE]"])
    call("text_completion", prompt="x", n=2, stream=True)
    whole = call("text_completion", prompt="x", n=2)
    assert [choice.text for choice in whole.choices] == ["aA", "bB"]
    assert whole.choices[1].logprobs.tokens == ["b", "B"]


# Responses


def test_response_stream_is_replayed_event_by_event(call: Call, server: EndpointServer, cache: Any) -> None:
    told, cached = call("responses", input="Hi", stream=True)
    again, cached_again = call("responses", input="Hi", stream=True)
    assert (cached, cached_again, server.calls) == (False, True, 1)
    assert told == again
    assert isinstance(told[1], openai.types.responses.ResponseTextDeltaEvent)
    assert "".join(event.delta for event in told if event.type == "response.output_text.delta") == "Hello."
    whole = call("responses", input="Hi")
    assert (whole.output_text, whole.cache, server.calls) == ("Hello.", True, 1)


def test_whole_response_is_streamed_as_events(call: Call, server: EndpointServer, cache: Any) -> None:
    function = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": '{"a":1}'}
    output = [{"type": "reasoning", "id": "rs_1", "summary": []}, response()["output"][0], function]
    server.answer = lambda asked: response_answer(asked, output=output)
    whole = call("responses", input="Hi")
    told, cached = call("responses", input="Hi", stream=True)
    assert (cached, server.calls) == (True, 1)
    assert [type(event).__name__ for event in told if type(event).__name__ == "OtherEvent"] == []
    assert [event.sequence_number for event in told] == list(range(len(told)))
    assert (told[0].type, told[-1].type) == ("response.created", "response.completed")
    assert "".join(event.delta for event in told if event.type == "response.output_text.delta") == "Hello."
    assert [event.arguments for event in told if event.type == "response.function_call_arguments.done"] == ['{"a":1}']
    assert whole == told[-1].response


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
        {
            "output": [
                {"type": "message", "id": "m", "role": "assistant", "content": [{"type": "refusal", "refusal": "No"}]}
            ]
        },
        {"output": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a":'}]},
    ],
    ids=["incomplete", "refusal", "broken arguments"],
)
@pytest.mark.parametrize("stream", [False, True])
def test_response_that_is_not_right_is_given_and_not_stored(
    call: Call, server: EndpointServer, cache: Any, changes: Any, stream: bool
) -> None:
    server.answer = lambda asked: response_answer(asked, **changes)
    for _ in range(2):
        call("responses", input="Hi", stream=stream)
    assert server.calls == 2
    assert cache.stats()["stored"] == 0


@pytest.mark.parametrize("stream", [False, True])
def test_failed_response_is_raised(call: Call, server: EndpointServer, cache: Any, stream: bool) -> None:
    error = {"code": "rate_limit_exceeded", "message": "too many"}
    server.answer = lambda asked: response_answer(asked, status="failed", error=error)
    with pytest.raises(rejoinder.RateLimitError, match="too many"):
        call("responses", input="Hi", stream=stream)
    assert cache.stats()["stored"] == 0


def test_error_event_is_raised(call: Call, server: EndpointServer) -> None:
    server.answer = lambda asked: events([json.dumps({"type": "error", "code": "server_error", "message": "oh no"})])
    with pytest.raises(rejoinder.InternalServerError, match="oh no"):
        call("responses", input="Hi", stream=True)


def test_server_that_does_not_stream_is_read_all_the_same(call: Call, server: EndpointServer, cache: Any) -> None:
    server.answer = lambda asked: Reply(json=response())
    told, _ = call("responses", input="Hi", stream=True)
    assert told[-1].response.output[0].content[0].text == "Hello."


def test_text_format_is_a_schema_on_the_wire(call: Call, server: EndpointServer) -> None:
    class City(pydantic.BaseModel):
        name: str

    call("responses", input="Hi", text_format=City)
    sent = server.requests[0].json["text"]["format"]
    assert (sent["type"], sent["name"], sent["strict"]) == ("json_schema", "City", True)
    assert sent["schema"]["properties"]["name"]["type"] == "string"


class City(pydantic.BaseModel):
    name: str


def test_parsed_answer_is_an_object_of_the_class_also_from_the_cache(
    call: Call, server: EndpointServer, cache: Any
) -> None:
    server.answer = lambda asked: response_answer(asked, text='{"name": "Kyoto"}')
    for is_cached in (False, True):
        answer = call("responses", input="Hi", text_format=City)
        assert (answer.output_parsed, answer.cache) == (City(name="Kyoto"), is_cached)
        assert answer.output_text == '{"name": "Kyoto"}'
    assert call("responses", input="Hi", model="openai/other").output_parsed is None
    assert server.calls == 2


def test_parsed_answer_of_a_refusal_is_none_and_what_does_not_fit_raises(call: Call, server: EndpointServer) -> None:
    refusal = {"type": "refusal", "refusal": "No."}
    message = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [refusal]}
    server.answer = lambda asked: response_answer(asked, output=[{"type": "reasoning", "id": "r"}, message])
    assert call("responses", input="Hi", text_format=City).output_parsed is None
    server.answer = lambda asked: response_answer(asked, text="no JSON")
    with pytest.raises(pydantic.ValidationError):
        _ = call("responses", input="Hi", text_format=City).output_parsed


def test_recorded_stream_serves_a_parsed_answer(call: Call, server: EndpointServer, cache: Any) -> None:
    server.answer = lambda asked: response_answer(asked, text='{"name": "Kyoto"}')
    told, _ = call("responses", input="Hi", text_format=City, stream=True)
    assert told[-1].type == "response.completed"
    answer = call("responses", input="Hi", text_format=City)
    assert (answer.output_parsed.name, answer.cache) == ("Kyoto", True)


@pytest.mark.parametrize("status", ["queued", "in_progress", "cancelled"])
def test_response_that_is_yet_to_come_is_given_and_not_stored(
    status: str, call: Call, server: EndpointServer, cache: Any
) -> None:
    server.answer = lambda asked: Reply(json=response(status=status, output=[], background=True, usage=None))
    for _ in range(2):
        answer = call("responses", input="Hi", background=True)
        assert (answer.status, answer.cache) == (status, False)
    assert server.requests[0].json["background"] is True
    assert (server.calls, cache.stats()["stored"]) == (2, 0)
    server.answer = response_answer
    call("responses", input="Hi", background=True)
    assert call("responses", input="Hi", background=True).status == "completed"
    assert server.calls == 3


def test_what_came_before_a_response_is_in_the_key(call: Call, server: EndpointServer, cache: Any) -> None:
    for before in ("resp_1", "resp_2", None):
        for is_cached in (False, True):
            assert call("responses", input="Go on.", previous_response_id=before).cache is is_cached
    assert [asked.json.get("previous_response_id") for asked in server.requests] == ["resp_1", "resp_2", None]


def test_format_that_is_no_class_is_refused(call: Call, server: EndpointServer) -> None:
    with pytest.raises(rejoinder.InvalidRequest, match="pydantic class"):
        call("responses", input="Hi", text_format={"type": "json_object"})
    assert server.calls == 0


def test_conversation_of_the_vendors_is_not_cached(call: Call, server: EndpointServer, cache: Any) -> None:
    for _ in range(2):
        assert not call("responses", input="Hi", conversation="conv_1").cache
    assert server.calls == 2


async def test_equal_calls_at_once_are_one(server: EndpointServer, cache: Any) -> None:
    opened, usual = threading.Event(), server.answer

    def answer(asked: Asked) -> Reply:
        opened.wait(5)
        return usual(asked)

    server.answer = answer
    given: Any = {"model": "openai/m", "api_base": server.url, "api_key": "sk-mock"}
    whole = [asyncio.create_task(rejoinder.aresponses("Hi", **given)) for _ in range(5)]
    streams = [asyncio.create_task(rejoinder.aresponses("Hi", stream=True, **given)) for _ in range(5)]
    spoken = [asyncio.create_task(rejoinder.aspeech(input="Hi", voice="alloy", **given)) for _ in range(5)]
    while cache.stats()["misses"] < 15:
        await asyncio.sleep(0.002)
    opened.set()
    answers = await asyncio.gather(*whole)
    assert {found.output_text for found in answers} == {"Hello."}
    assert sorted(found.cache for found in answers) == [False] + [True] * 4
    for stream in await asyncio.gather(*streams):
        assert [event async for event in stream][-1].type == "response.completed"
    assert {found.content for found in await asyncio.gather(*spoken)} == {b"ID3Hi"}
    assert server.calls == 2


async def test_followers_read_along_with_a_stream_of_events(server: EndpointServer, cache: Any) -> None:
    given: Any = {"model": "openai/m", "api_base": server.url, "api_key": "sk-mock"}
    streams = await asyncio.gather(*(rejoinder.aresponses("Hi", stream=True, **given) for _ in range(4)))
    told = await asyncio.gather(*(read_all(stream) for stream in streams), rejoinder.aresponses("Hi", **given))
    assert all(events == told[0] for events in told[:4])
    assert told[4].output_text == "Hello."
    assert server.calls == 1


async def read_all(stream: Any) -> list[Any]:
    return [event async for event in stream]


async def test_stream_that_is_left_is_not_stored(server: EndpointServer, cache: Any) -> None:
    given: Any = {"model": "openai/m", "api_base": server.url, "api_key": "sk-mock"}
    async with await rejoinder.aresponses("Hi", stream=True, **given) as stream:
        async for _ in stream:
            break
    assert cache.stats()["stored"] == 0
    assert not (await rejoinder.aresponses("Hi", **given)).cache


# Images


def test_links_to_images_are_kept_for_less_than_an_hour(call: Call, server: EndpointServer) -> None:
    now = [1000.0]
    server.answer = lambda asked: Reply(json={"data": [{"url": "https://images.example/1"}]})
    with rejoinder.Cache.memory(clock=lambda: now[0]):
        call("image_generation", prompt="a")
        now[0] += 40 * 60
        assert call("image_generation", prompt="a").cache
        now[0] += 20 * 60
        assert not call("image_generation", prompt="a").cache


# Files


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "hello.wav"
    path.write_bytes(b"RIFF hello")
    return path


FORMS: dict[str, Callable[[Path], Any]] = {
    "path": lambda path: path,
    "text": str,
    "bytes": lambda path: path.read_bytes(),
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "open file": lambda path: path.open("rb"),
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
    "tuple": lambda path: ("other.mp3", path.read_bytes()),
    "typed tuple": lambda path: ("other.mp3", path.open("rb"), "audio/mpeg"),
}


@pytest.mark.parametrize(
    ("file", "kind"),
    [(b"\xff\xf3d sound", "mp3"), (("said.WAV", b"sound"), "wav"), (("said", b"OggS sound"), "ogg")],
)
def test_openrouter_gets_sound_as_json(file: Any, kind: str, call: Call, server: EndpointServer, cache: Any) -> None:
    for is_hit in (False, True):
        answer = call("transcription", model="openrouter/openai/whisper-1", file=file, language="en")
        assert (answer.text, answer.cache) == ("said", is_hit)
    (asked,) = server.requests
    data = file if isinstance(file, bytes) else file[1]
    sound = {"data": base64.b64encode(data).decode(), "format": kind}
    assert asked.json == {"model": "openai/whisper-1", "language": "en", "input_audio": sound}
    assert asked.headers["content-type"] == "application/json"


@pytest.mark.parametrize("form", FORMS)
def test_file_may_be_given_in_any_form_and_its_bytes_are_the_key(
    form: str, call: Call, server: EndpointServer, cache: Any, sound: Path
) -> None:
    assert not call("transcription", file=("first.ogg", b"RIFF hello")).cache
    assert call("transcription", file=FORMS[form](sound)).cache
    call("translation", file=FORMS[form](sound))
    assert server.requests[-1].form == {"model": [b"m"], "file": [b"RIFF hello"]}
    names = {"path": "hello.wav", "text": "hello.wav", "open file": "hello.wav", "bytes": "audio.wav"}
    names |= {"bytearray": "audio.wav", "BytesIO": "audio.wav"}
    assert server.requests[-1].filename == names.get(form, "other.mp3")
    assert not call("transcription", file=b"RIFF other").cache


def test_file_object_is_left_where_it_stood(call: Call, server: EndpointServer, sound: Path) -> None:
    with sound.open("rb") as file:
        file.seek(4)
        call("transcription", file=file)
        assert file.tell() == 4
    assert server.requests[0].form["file"] == [b"RIFF hello"]


@pytest.mark.parametrize("file", [b"", "no/such/file.wav", io.StringIO("text"), 7, ("name",)])
def test_file_that_cannot_be_sent_is_refused(file: Any, call: Call, server: EndpointServer) -> None:
    with pytest.raises(rejoinder.InvalidRequest, match="file"):
        call("transcription", file=file)
    assert server.calls == 0


def test_form_has_lists_and_dicts_as_openai_writes_them(call: Call, server: EndpointServer) -> None:
    call(
        "transcription",
        file=b"ID3",
        language="en",
        temperature=0.5,
        timestamp_granularities=["word", "segment"],
        chunking_strategy={"type": "server_vad", "threshold": 0.5},
        extra_body={"flag": True},
    )
    client = openai.OpenAI(api_key="sk-mock", base_url=server.url)
    client.audio.transcriptions.create(
        model="m",
        file=("audio.mp3", b"ID3"),
        language="en",
        temperature=0.5,
        timestamp_granularities=["word", "segment"],
        chunking_strategy={"type": "server_vad", "threshold": 0.5},
        extra_body={"flag": True},
    )
    mine, theirs = server.requests
    assert mine.form == theirs.form
    assert mine.filename == theirs.filename


@pytest.mark.parametrize("kind", ["text", "srt", "vtt"])
def test_plain_transcription_is_text(kind: str, call: Call, server: EndpointServer, cache: Any) -> None:
    server.answer = lambda asked: Reply(body="1\n00:00 grüß dich\n".encode(), content_type="text/plain")
    for _ in range(2):
        assert call("transcription", file=b"ID3", response_format=kind).text == "1\n00:00 grüß dich\n"
    assert server.calls == 1


def test_times_of_a_transcription_are_typed(call: Call, server: EndpointServer) -> None:
    word = {"word": "hi", "start": 0.0, "end": 0.5}
    server.answer = lambda asked: Reply(
        json={"task": "transcribe", "language": "english", "duration": 0.5, "text": "hi", "words": [word]}
    )
    answer = call("transcription", file=b"ID3", response_format="verbose_json")
    assert (answer.duration, answer.language) == (0.5, "english")
    assert isinstance(answer.words[0], openai.types.audio.TranscriptionWord)
    assert answer["words"][0]["end"] == 0.5


# Speech, moderation, rerank


def test_speech_is_bytes_and_a_file(call: Call, server: EndpointServer, cache: Any, tmp_path: Path) -> None:
    for _ in range(2):
        answer = call("speech", input="Hello", voice="alloy")
        assert answer.content == answer.read() == b"".join(answer.iter_bytes()) == b"ID3Hello"
        answer.write_to_file(tmp_path / "hello.mp3")
        assert (tmp_path / "hello.mp3").read_bytes() == b"ID3Hello"
    assert server.calls == 1
    assert server.requests[0].headers["accept"] == "application/octet-stream"
    assert server.requests[0].json == {"model": "m", "input": "Hello", "voice": "alloy"}


def test_moderation_has_a_model_of_its_own(server: EndpointServer) -> None:
    answer = rejoinder.moderation("something", api_base=server.url, api_key="sk-mock")
    assert server.requests[0].json == {"model": "omni-moderation-latest", "input": "something"}
    assert answer.results[0].flagged
    assert answer.results[0].categories.hate_threatening


def test_ranking_is_sorted_and_has_its_documents(call: Call, server: EndpointServer, cache: Any) -> None:
    given = {"model": "openai_compatible/m", "query": "q", "documents": ["ccc", "a", {"text": "bb"}]}
    answer = call("rerank", **given)
    assert server.requests[0].json == {"model": "m", "query": "q", "documents": given["documents"]}
    assert [result.index for result in answer.results] == [1, 2, 0]
    assert answer.results[0].document == {"text": "a"}
    assert answer["results"][0]["relevance_score"] == 0.5
    assert [result.index for result in call("rerank", **given, top_n=1).results] == [1]
    assert server.requests[1].json["top_n"] == 1
    plain = call("rerank", **given, return_documents=False)
    assert [result.document for result in plain.results] == [None] * 3


def test_voyage_is_asked_in_its_own_words(call: Call, server: EndpointServer) -> None:
    server.answer = lambda asked: Reply(json={"object": "list", "data": [{"index": 0, "relevance_score": 0.5}]})
    answer = call("rerank", model="voyage/rerank-2", query="q", documents=["a"], top_n=1)
    assert server.requests[0].json == {"model": "rerank-2", "query": "q", "documents": ["a"], "top_k": 1}
    assert answer.results[0].document == {"text": "a"}
    with pytest.raises(rejoinder.InvalidRequest, match="'voyage' has no endpoint 'speech'"):
        call("speech", model="voyage/rerank-2", input="a")


def test_path_of_the_row_is_used(call: Call, server: EndpointServer) -> None:
    server.answer = text_answer
    call("text_completion", model="deepseek/m", prompt="a")
    assert server.requests[0].path == "/v1/beta/completions"


# Batches


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_batch_gives_answers_in_order_and_errors_in_place(call: Call, server: EndpointServer, cache: Any) -> None:
    usual = server.answer
    server.answer = lambda asked: Reply(status=400, json={"error": "no"}) if b"bad" in asked.body else usual(asked)
    answers = call("batch_completion", messages=[ask("a"), ask("bad"), ask("b"), ask("a")], max_workers=2)
    assert isinstance(answers[1], rejoinder.BadRequestError)
    assert [answer.choices[0].message.content for answer in (*answers[:1], *answers[2:])] == ["A", "B", "A"]
    assert server.calls == 3


def test_equal_items_of_a_batch_are_asked_once(call: Call, server: EndpointServer, cache: Any) -> None:
    messages = [ask(text) for text in "abcabcabc"]
    answers = call("batch_completion", messages=messages, caching=True)
    assert [answer.choices[0].message.content for answer in answers] == list("ABCABCABC")
    assert sorted(asked.json["messages"][0]["content"] for asked in server.requests) == ["a", "b", "c"]
    assert sum(answer.cache for answer in answers) == 6


def test_equal_items_that_fail_share_the_failure(call: Call, server: EndpointServer, cache: Any) -> None:
    gate = threading.Event()

    def answer(asked: Asked) -> Reply:
        gate.wait(0.05)  # so that all are there before the first has failed
        return Reply(status=400, json={"error": {"message": "no"}})

    server.answer = answer
    errors = call("batch_completion", messages=[ask("a")] * 5, caching=True)
    assert {type(error) for error in errors} == {rejoinder.BadRequestError}
    assert len({id(error) for error in errors}) == 5
    assert server.calls == 1


@pytest.mark.parametrize("workers", [0, -1, 1.5, True, "2"])
def test_bound_that_is_none_is_refused(workers: Any, call: Call, server: EndpointServer) -> None:
    with pytest.raises(rejoinder.InvalidRequest, match="max_workers"):
        call("batch_completion", messages=[ask("a")], max_workers=workers)
    assert server.calls == 0


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_losers_of_a_race_are_neither_stored_nor_waited_for(kind: str, server: EndpointServer) -> None:
    usual, released = server.answer, threading.Event()

    def answer(asked: Asked) -> Reply:
        if asked.json["model"] == "slow":
            released.wait(5)
        return usual(asked)

    server.answer = answer
    with rejoinder.Cache.memory() as cache:
        assert race(kind, server, "openai/slow", "openai/fast").model == "fast"
        assert (cache.stats()["stored"], len(cache.flights)) == (1, 0)
        released.set()
        given: Any = {"api_base": server.url, "api_key": "sk-mock", "messages": ask("hi")}
        assert rejoinder.completion("openai/fast", **given).cache
        assert not rejoinder.completion("openai/slow", **given).cache


async def test_stream_that_came_second_is_closed_and_not_stored(server: EndpointServer, cache: Any) -> None:
    released, both = threading.Event(), threading.Barrier(2)

    def pieces(asked: Asked) -> Iterator[bytes]:
        for number, piece in enumerate(chat_events(asked).events or ()):
            if number:
                released.wait(5)
            yield piece

    def answer(asked: Asked) -> Reply:
        both.wait(5)
        return Reply(content_type="text/event-stream", events=pieces(asked))  # type: ignore[arg-type]

    server.answer = answer
    given: Any = {"api_base": server.url, "api_key": "sk-mock", "messages": ask("hi"), "stream": True}
    stream = await rejoinder.abatch_completion_models(models=["openai/a", "openai/b"], **given)
    released.set()
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "Hello"
    assert (server.calls, cache.stats()["stored"]) == (2, 1)
    assert len(cache.flights) == 0


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_stored_answer_wins_a_race_at_once(kind: str, server: EndpointServer, cache: Any) -> None:
    given: Any = {"api_base": server.url, "api_key": "sk-mock", "messages": ask("hi")}
    rejoinder.completion("openai/known", **given)
    won = race(kind, server, "openai/unknown", "openai/known")
    assert (won.model, won.cache) == ("known", True)


async def test_cancelled_batch_leaves_nothing_behind(server: EndpointServer, cache: Any) -> None:
    released = threading.Event()
    server.answer = lambda asked: (released.wait(5), Reply(status=500, body=b""))[1]  # type: ignore[func-returns-value]
    given: Any = {"api_base": server.url, "api_key": "sk-mock", "num_retries": 0}
    task = asyncio.create_task(rejoinder.abatch_completion("openai/m", [ask("a"), ask("b")], **given))
    while server.calls < 2:
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    released.set()
    assert len(cache.flights) == 0


def test_empty_batch_is_empty(call: Call, server: EndpointServer) -> None:
    assert call("batch_completion", messages=[]) == []


def test_one_conversation_is_no_batch(call: Call, server: EndpointServer) -> None:
    with pytest.raises(rejoinder.InvalidRequest, match="list of them"):
        call("batch_completion", messages=ask("a"))
    assert server.calls == 0


def test_batch_runs_no_more_than_its_bound(call: Call, server: EndpointServer) -> None:
    usual, running, peaks, lock = server.answer, [0], [0], threading.Lock()

    def answer(asked: Asked) -> Reply:
        with lock:
            running[0] += 1
            peaks[0] = max(peaks[0], running[0])
        threading.Event().wait(0.02)
        with lock:
            running[0] -= 1
        return usual(asked)

    server.answer = answer
    assert len(call("batch_completion", messages=[ask(str(n)) for n in range(9)], max_workers=3)) == 9
    assert peaks[0] == 3


def race(kind: str, server: EndpointServer, *names: str) -> Any:
    given: Any = {"api_base": server.url, "api_key": "sk-mock", "num_retries": 0, "messages": ask("hi")}
    if kind == "async":
        return asyncio.run(rejoinder.abatch_completion_models(models=list(names), **given))
    return rejoinder.batch_completion_models(models=list(names), **given)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_first_answer_wins_and_the_others_are_broken_off(kind: str, server: EndpointServer) -> None:
    usual, released = server.answer, threading.Event()

    def answer(asked: Asked) -> Reply:
        if asked.json["model"] == "slow":
            released.wait(5)
        if asked.json["model"] == "broken":
            return Reply(status=500, body=b"down")
        return usual(asked)

    server.answer = answer
    won = race(kind, server, "openai/slow", "openai/broken", "openai/fast")
    released.set()
    assert won.model == "fast"
    assert won.choices[0].message.content == "HI"


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_race_that_all_lose_raises_the_first_models_error(kind: str, server: EndpointServer) -> None:
    server.answer = lambda asked: Reply(status=404 if asked.json["model"] == "a" else 500, body=b"down")
    with pytest.raises(rejoinder.NotFoundError):
        race(kind, server, "openai/a", "openai/b")


async def test_race_of_streams_is_won_by_the_first_to_begin(server: EndpointServer) -> None:
    piece = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    delta = {"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}
    server.answer = lambda asked: (
        events([json.dumps({**piece, "choices": [delta]}), "[DONE]"])
        if asked.json["model"] == "good"
        else Reply(status=500, body=b"down")
    )
    given: Any = {"api_base": server.url, "api_key": "sk-mock", "num_retries": 0}
    stream = await rejoinder.abatch_completion_models(
        models=["openai/bad", "openai/good"], messages=ask("hi"), stream=True, **given
    )
    assert [chunk.choices[0].delta.content async for chunk in stream] == ["hi"]
    with pytest.raises(rejoinder.InvalidRequest, match="no streams"):
        rejoinder.batch_completion_models(models=["openai/a"], messages=ask("hi"), stream=True, **given)


# The echo provider, for users' own tests


@pytest.mark.parametrize("name", ["embedding", *SIMPLE])
def test_echo_answers_every_endpoint(name: str, call: Call, cache: Any) -> None:
    given = {**SIMPLE.get(name, {"input": ["a", "b"]}), "model": "echo/any"}
    first, second = call(name, **given), call(name, **given)
    assert (first.cache, second.cache) == (False, True)
    assert first == second


def test_echo_says_what_it_was_asked(call: Call, cache: Any) -> None:
    assert call("responses", model="echo/m", input="Hello there").output_text == "Hello there"
    assert call("text_completion", model="echo/m", prompt="Hello there").choices[0].text == "Hello there"
    assert call("transcription", model="echo/m", file=b"spoken words").text == "spoken words"
    assert call("speech", model="echo/m", input="Hello").content == b"Hello"
    documents = ["nothing of it", "the lighthouse", "a red lighthouse at sea"]
    ranking = call("rerank", model="echo/m", query="red lighthouse", documents=documents)
    assert [result.index for result in ranking.results] == [2, 1, 0]
    for name, given in (("responses", {"input": "Hello"}), ("text_completion", {"prompt": "Hello"})):
        pieces, _ = call(name, model="echo/streams", stream=True, **given)
        assert pieces
        assert call(name, model="echo/streams", **given).cache


def test_echos_vectors_tell_texts_apart(call: Call) -> None:
    first, second, third = call("embedding", model="echo/m", input=["a", "b", "a"], dimensions=16).data
    assert len(first.embedding) == 16
    assert first.embedding == third.embedding != second.embedding
    assert abs(sum(number * number for number in first.embedding) - 1) < 1e-9


def test_scripted_answers_and_errors(call: Call) -> None:
    echo = rejoinder.Echo([response("scripted"), {"status": 429, "message": "slow down"}])
    assert call("responses", model="echo/m", input="Hi", client=echo).output_text == "scripted"
    with pytest.raises(rejoinder.RateLimitError, match="slow down"):
        call("responses", model="echo/m", input="Hi", client=echo)
    assert echo.requests[0] == {"model": "m", "input": "Hi"}


def test_mock_response_asks_nobody(call: Call, server: EndpointServer) -> None:
    assert call("text_completion", prompt="a", mock_response="mocked").choices[0].text == "mocked"
    assert call("transcription", file=b"ID3", mock_response="mocked").text == "mocked"
    assert server.calls == 0


def chat_events(asked: Asked) -> Reply:
    piece = {"index": 0, "delta": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return events([json.dumps({**base, "choices": [piece]}), "[DONE]"])


def message_events(asked: Asked) -> Reply:
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None}
    told: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**message, "usage": {"input_tokens": 1, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]
    pieces = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in told]
    return Reply(content_type="text/event-stream", events=pieces)


@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
@pytest.mark.parametrize("is_async", [False, True])
def test_own_client_streams_a_chat(vendor: str, is_async: bool, server: EndpointServer) -> None:
    import anthropic

    server.answer = chat_events if vendor == "openai" else message_events
    base = server.url if vendor == "openai" else server.url.removesuffix("/v1")
    sdk: Any = {"openai": openai, "anthropic": anthropic}[vendor]
    name = ("Async" if is_async else "") + {"openai": "OpenAI", "anthropic": "Anthropic"}[vendor]
    given: Any = {"model": f"{vendor}/m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}

    async def go() -> list[Any]:
        own = getattr(sdk, name)(api_key="sk-own", base_url=base)
        return await read_all(await rejoinder.acompletion(**given, stream=True, client=own))

    if is_async:
        chunks = asyncio.run(go())
    else:
        own = getattr(sdk, name)(api_key="sk-own", base_url=base)
        chunks = list(rejoinder.completion(**given, stream=True, client=own))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello"


# Who has what


def test_what_a_row_lacks_is_an_error_before_anything_is_sent(call: Call, server: EndpointServer) -> None:
    from rejoinder.providers import table

    lacking = 0
    for row in table.ROWS:
        for name in ["embedding", *SIMPLE]:
            if row.endpoints.get(name) != "" and table.codec(row.codec, name) is not None:
                continue
            lacking += 1
            given = {**SIMPLE.get(name, {"input": "a"}), "model": f"{row.name}/m"}
            with pytest.raises(rejoinder.InvalidRequest, match=f"'{row.name}' has no endpoint '{name}'"):
                call(name, **given)
    assert lacking > 100
    assert server.calls == 0


@pytest.mark.parametrize(
    ("model", "name", "path"),
    [
        ("openrouter/m", "image_generation", "/images"),
        ("openrouter/m", "rerank", "/rerank"),
        ("together_ai/m", "rerank", "/rerank"),
        ("together_ai/m", "translation", "/audio/translations"),
        ("fireworks_ai/m", "rerank", "/rerank"),
        ("groq/m", "translation", "/audio/translations"),
        ("mistral/m", "moderation", "/moderations"),
        ("xai/m", "image_generation", "/images/generations"),
        ("huggingface/m", "responses", "/responses"),
    ],
)
def test_what_a_row_has_is_asked_where_it_is(model: str, name: str, path: str, server: EndpointServer) -> None:
    paths = {"/images": "/images/generations"}
    server.answer = lambda asked: ANSWERS[paths.get(path, path)](asked)
    getattr(rejoinder, name)(**{**SIMPLE[name], "model": model}, api_base=server.url, api_key="sk-mock")
    assert server.requests[0].path == f"/v1{path}"


# Large files


def test_equal_bytes_are_one_key_whatever_they_come_in(call: Call, server: EndpointServer, tmp_path: Path) -> None:
    data = b"ID3" + bytes(range(256)) * 4
    file = tmp_path / "any name.mp3"
    file.write_bytes(data)
    in_the_middle = io.BytesIO(data)
    in_the_middle.seek(100)
    with rejoinder.Cache.memory(), file.open("rb") as opened:
        opened.seek(7)
        forms = [file, str(file), opened, data, bytearray(data), memoryview(data), in_the_middle]
        forms += [("b.wav", data), ("c.ogg", data, "audio/ogg"), ("d", io.BytesIO(data)), (None, file)]
        found = [call("transcription", file=form) for form in forms]
        assert [answer.cache for answer in found] == [False, *[True] * (len(forms) - 1)]
        assert len({answer.cache_info.key for answer in found}) == 1
        assert (opened.tell(), in_the_middle.tell()) == (7, 100)
        assert not call("transcription", file=data + b"!").cache
    assert [asked.form["file"][0] for asked in server.requests] == [data, data + b"!"]


def test_large_file_is_copied_once_and_into_the_form_once(tmp_path: Path) -> None:
    import tracemalloc

    from rejoinder.providers.multipart import form, upload

    size = 20 * 2**20
    data, file = bytes(size), tmp_path / "long.mp3"
    file.write_bytes(data)
    for given, copies in ((data, 0), (("long.mp3", data), 0), (file, 1), (io.BytesIO(data), 1)):
        tracemalloc.start()
        sound = upload(given)
        read = tracemalloc.get_traced_memory()[1]
        form({"model": "m", "file": sound})
        whole = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert read < (copies + 0.1) * size
        assert whole < (copies + 1.1) * size
