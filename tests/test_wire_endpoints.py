"""Every recorded call of the endpoints beside chat, made again through the public functions: what is sent and read.

The recordings are not part of the project. They are looked for in REJOINDER_WIRE_DIR, else beside the repository.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import itertools
import json
import os
import random
from pathlib import Path
from typing import Any

import openai
import pytest

import rejoinder
from rejoinder.core.api_errors import class_for
from rejoinder.providers.table import PROVIDERS, codec
from tests.fixtures.endpoint_server import EndpointServer, Reply

WIRE = Path(os.environ.get("REJOINDER_WIRE_DIR") or Path(__file__).resolve().parents[2] / "shared" / "wire")
PLACE = "REJOINDER_WIRE_DIR" if os.environ.get("REJOINDER_WIRE_DIR") else "../shared/wire"
MISSING = f"no recorded traffic: {PLACE} is not a folder"

ENDPOINTS = {
    "openai_embeddings": "embedding",
    "openai_completions": "text_completion",
    "openai_responses": "responses",
    "openai_images": "image_generation",
    "openai_moderations": "moderation",
    "openai_audio": "transcription",
    "rerank": "rerank",
}
FILE = ("sound.mp3", b"ID3 sound")


@functools.cache
def recordings() -> list[dict[str, Any]]:
    lines = (line for file in sorted(WIRE.glob("*.jsonl")) for line in file.read_text("utf-8").splitlines())
    return [record for line in lines if (record := json.loads(line))["wire"] in ENDPOINTS]


def of_kind(kind: str) -> list[Any]:
    if not WIRE.is_dir():
        return [pytest.param(None, marks=pytest.mark.skip(reason=MISSING))]
    return [pytest.param(record, id=record["id"]) for record in recordings() if kind_of(record) == kind]


def kind_of(record: dict[str, Any]) -> str:
    if record["response"]["status"] >= 400:
        return "error"
    if record["provider"] == "writer":
        return "writer"  # its pieces are `{"value": …}`, and nothing marks their end
    return "stream" if record["response"]["chunks"] else "whole"


def endpoint_of(record: dict[str, Any]) -> str:
    return "speech" if record["request"]["path"].endswith("/speech") else ENDPOINTS[record["wire"]]


def row_of(record: dict[str, Any]) -> str:
    row = PROVIDERS.get(record["provider"])
    has = row is not None and row.codec in ("openai", "writer") and row.endpoints.get(endpoint_of(record)) != ""
    return record["provider"] if has else "openai_compatible"


def arguments_of(record: dict[str, Any]) -> dict[str, Any]:
    """The recorded request, as one would write it in Python."""
    endpoint, row = endpoint_of(record), PROVIDERS[row_of(record)]
    speaker = codec("openai", endpoint)
    assert speaker is not None
    sent = {name: value for name, value in (record["request"]["json"] or {}).items() if value is not None}
    if endpoint == "transcription":
        sent = {"file": sound_sent(record)}
    sent.pop("model", None)
    takes = speaker.parameters(row) | {"stream", "stream_options"}
    ours = {"return_documents": False} if endpoint == "rerank" else {}
    extra = {name: sent.pop(name) for name in list(sent) if name not in takes}
    model = record["model"] or "omni-moderation-latest"
    return {**ours, **sent, "model": f"{row.name}/{model}", **({"extra_body": extra} if extra else {})}


def sound_sent(record: dict[str, Any]) -> tuple[str, bytes]:
    """The recorded file: of a form none is kept, in JSON (OpenRouter) it is `input_audio`."""
    sound = (record["request"]["json"] or {}).get("input_audio")
    return (f"sound.{sound['format']}", base64.b64decode(sound["data"])) if sound else FILE


def reply_of(record: dict[str, Any], cut: random.Random | None = None) -> Reply:
    response = record["response"]
    if response["chunks"] is not None:
        return Reply(content_type="text/event-stream", events=pieces("".join(response["chunks"]).encode(), cut))
    body = base64.b64decode(response["body"]) if is_sound(response) else response["body"].encode()
    return Reply(body=body, status=response["status"], content_type=response["content_type"] or "application/json")


def is_sound(response: dict[str, Any]) -> bool:
    """Sound is recorded as base64, whatever is said of its encoding."""
    return (response["content_type"] or "").startswith("audio/")


def pieces(body: bytes, cut: random.Random | None) -> list[bytes]:
    if cut is None:
        return [body]
    places = [0, *sorted(cut.sample(range(1, len(body)), min(60, len(body) - 1))), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(places)]


def call(record: dict[str, Any], server: EndpointServer, mode: str, **more: Any) -> Any:
    """The answer; of a stream, the list of its pieces."""
    endpoint = endpoint_of(record)
    given = {**arguments_of(record), "api_base": server.url, "api_key": "sk-mock", "num_retries": 0, **more}
    if mode == "sync":
        answer = getattr(rejoinder, endpoint)(**given)
        return list(answer) if given.get("stream") else answer

    async def acall() -> Any:
        answer = await getattr(rejoinder, f"a{endpoint}")(**given)
        return [piece async for piece in answer] if given.get("stream") else answer

    return asyncio.run(acall())


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def without_nones(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nones(item) for name, item in value.items() if item is not None}
    return [without_nones(item) for item in value] if isinstance(value, list) else value


def is_within(told: Any, read: Any) -> bool:
    """Whether all that the vendor told is in what was read, down to the last field."""
    if isinstance(told, dict):
        return isinstance(read, dict) and all(is_within(item, read.get(name)) for name, item in told.items())
    if isinstance(told, list):
        return isinstance(read, list) and len(told) == len(read) and all(map(is_within, told, read))
    return bool(told == read)


def plain(record: dict[str, Any]) -> Any:
    """What the vendor told. It knows nothing of our code."""
    data = json.loads(record["response"]["body"])
    if record["wire"] == "rerank":
        data["results"] = data.pop("data", None) or data["results"]
        for item in data["results"]:
            if isinstance(item.get("document"), str):
                item["document"] = {"text": item["document"]}
        data.pop("object", None)
    return data


def dumped(answer: Any) -> Any:
    return answer.model_dump(by_alias=True, mode="json", warnings=False)


@pytest.mark.parametrize("record", of_kind("whole"))
def test_recorded_answer_is_read_in_full_and_its_request_is_what_we_send(record: dict[str, Any], mode: str) -> None:
    with EndpointServer(lambda _: reply_of(record)) as server:
        answer = call(record, server, mode)
        asked = server.requests[0]
    assert answer.cache is False
    if endpoint_of(record) == "speech":
        assert answer.content == sound_of(record)
    else:
        assert is_within(plain(record), dumped(answer))
    if endpoint_of(record) == "transcription" and record["request"]["json"] is None:
        assert asked.form == {"model": [record["model"].encode()], "file": [FILE[1]]}
    else:
        sent = without_nones(record["request"]["json"])
        if sent.get("stream") is False:
            del sent["stream"]
        assert asked.json == {"model": asked.json["model"], **sent}


def sound_of(record: dict[str, Any]) -> bytes:
    response = record["response"]
    if is_sound(response):
        return base64.b64decode(response["body"])
    return base64.b64decode(json.loads(response["body"])["audio_data"])


@pytest.mark.parametrize("record", of_kind("whole"))
def test_recorded_answer_comes_out_of_the_cache_as_it_went_in(record: dict[str, Any], mode: str) -> None:
    with EndpointServer(lambda _: reply_of(record)) as server, rejoinder.Cache.memory():
        first, second = call(record, server, mode), call(record, server, mode)
        kept = getattr(first, "status", None) in (None, "completed")
        assert server.calls == (1 if kept else 2)
    assert (first.cache, second.cache) == (False, kept)
    assert first == second


@pytest.mark.parametrize("record", of_kind("stream"))
def test_recorded_stream_is_read_piece_by_piece_however_it_is_cut(record: dict[str, Any], mode: str) -> None:
    told = [json.loads(line[5:]) for line in "".join(record["response"]["chunks"]).splitlines() if is_piece(line)]
    with EndpointServer(lambda _: reply_of(record, random.Random(record["id"]))) as server:
        read = call(record, server, mode)
    if endpoint_of(record) == "responses":
        assert all(isinstance(event, openai.BaseModel) for event in read)
        others = {event.type for event in read if type(event).__name__ == "OtherEvent"}
        assert others <= {"response.reasoning_part.added", "response.reasoning_part.done"}  # gpt-oss, by vLLM
    assert len(read) == len(told)
    for mine, theirs in zip(read, told, strict=True):
        assert is_within(theirs, dumped(mine))


def is_piece(line: str) -> bool:
    return line.startswith("data:") and line[5:].strip().startswith("{")


@pytest.mark.parametrize("record", of_kind("stream"))
def test_recorded_stream_is_replayed_and_answers_a_whole_call(record: dict[str, Any], mode: str) -> None:
    with EndpointServer(lambda _: reply_of(record)) as server, rejoinder.Cache.memory():
        first = call(record, server, mode)
        second = call(record, server, mode)
        complete = endpoint_of(record) != "responses" or first[-1].type == "response.completed"
        assert server.calls == (1 if complete else 2)
        assert [dumped(piece) for piece in first] == [dumped(piece) for piece in second]
        if complete:
            whole = call(record, server, mode, stream=False, stream_options=None)
            assert (server.calls, whole.cache) == (1, True)
            if endpoint_of(record) == "responses":
                assert is_within(dumped(first[-1].response), dumped(whole))
            else:
                assert whole.choices[0].text == "".join(piece.choices[0].text for piece in first if piece.choices)


@pytest.mark.parametrize("record", of_kind("stream"))
def test_recorded_stream_cut_short_is_an_error_and_is_not_stored(record: dict[str, Any], mode: str) -> None:
    body = "".join(record["response"]["chunks"]).encode()
    short = Reply(content_type="text/event-stream", events=[body[: body.rindex(b"data: {") + 9][: len(body) * 2 // 3]])
    with EndpointServer(lambda _: short) as server, rejoinder.Cache.memory() as cache:
        for _ in range(2):
            with pytest.raises(rejoinder.APIError):
                call(record, server, mode)
        assert server.calls == 2
        assert cache.stats()["stored"] == 0


@pytest.mark.parametrize("record", of_kind("error"))
def test_recorded_error_has_its_class_and_the_vendors_words(record: dict[str, Any], mode: str) -> None:
    with EndpointServer(lambda _: reply_of(record)) as server:
        given = {"documents": ["no documents were given"]} if "documents" in arguments_of(record) else {}
        given = given or ({"input": "no text was given"} if arguments_of(record).get("input") == [""] else {})
        with pytest.raises(class_for(record["response"]["status"])) as caught:
            call(record, server, mode, **given)
    told = json.loads(record["response"]["body"])
    inner = told.get("error", told) if isinstance(told.get("error", told), dict) else {"message": told["error"]}
    words = str(inner.get("message") or inner.get("detail"))
    assert words.rstrip(".")[:60] in str(caught.value)


@pytest.mark.parametrize("record", of_kind("writer"))
def test_recorded_stream_of_writer_is_read_and_replayed(record: dict[str, Any], mode: str) -> None:
    told = [json.loads(line[5:])["value"] for line in "".join(record["response"]["chunks"]).splitlines() if line]
    with EndpointServer(lambda _: reply_of(record, random.Random(3))) as server, rejoinder.Cache.memory():
        first, second = call(record, server, mode), call(record, server, mode)
        assert server.calls == 1
        assert server.requests[0].json == record["request"]["json"]
    assert [piece.choices[0].text for piece in first] == [*told, ""]
    assert first[-1].choices[0].finish_reason == "stop"
    assert [dumped(piece) for piece in first] == [dumped(piece) for piece in second]


@pytest.mark.parametrize("record", of_kind("writer"))
def test_stream_of_another_protocol_is_an_error(record: dict[str, Any], mode: str) -> None:
    with EndpointServer(lambda _: reply_of(record)) as server, pytest.raises(rejoinder.APIError):
        call(record, server, mode, model="openai_compatible/m")


@pytest.mark.parametrize("body", [b"", b'data: {"value"', b'data: {"error": "no"}\n\n', b"data: 3\n\n", b"{}", b"<p>"])
def test_writer_says_nothing_else(body: bytes, mode: str) -> None:
    given: Any = {"model": "writer/m", "prompt": "a", "stream": True, "api_key": "k", "num_retries": 0}
    with EndpointServer(lambda _: Reply(content_type="text/event-stream", events=[body])) as server:
        with pytest.raises(rejoinder.APIError):
            list(rejoinder.text_completion(**given, api_base=server.url))
        assert server.requests[0].path == "/v1/completions"


# Gemini's own embeddings


def of_gemini(is_good: bool) -> list[Any]:
    if not WIRE.is_dir():
        return [pytest.param(None, marks=pytest.mark.skip(reason=MISSING))]
    lines = (line for file in sorted(WIRE.glob("*.jsonl")) for line in file.read_text("utf-8").splitlines())
    found = [record for line in lines if (record := json.loads(line))["wire"] == "gemini_embed"]
    return [pytest.param(item, id=item["id"]) for item in found if (item["response"]["status"] < 400) == is_good]


def gemini_arguments(record: dict[str, Any]) -> dict[str, Any]:
    requests = record["request"]["json"]["requests"]
    size = requests[0].get("outputDimensionality") or requests[0].get("output_dimensionality")
    texts = [item["content"]["parts"][0]["text"] for item in requests]
    return {"model": f"gemini/{record['model']}", "input": texts, **({"dimensions": size} if size else {})}


def embed_by_gemini(record: dict[str, Any], server: EndpointServer, mode: str) -> Any:
    base = server.url.removesuffix("/v1") + "/v1beta"
    given = {**gemini_arguments(record), "api_base": base, "api_key": "sk-mock", "num_retries": 0}
    return rejoinder.embedding(**given) if mode == "sync" else asyncio.run(rejoinder.aembedding(**given))


def in_one_spelling(value: Any) -> Any:
    """Recorded requests without a role, which says nothing here, and with Google's newer spelling."""
    if isinstance(value, dict):
        renamed = {"output_dimensionality": "outputDimensionality"}
        return {renamed.get(name, name): in_one_spelling(item) for name, item in value.items() if name != "role"}
    return [in_one_spelling(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("record", of_gemini(True))
def test_recorded_vectors_of_gemini_are_read_and_asked_for(record: dict[str, Any], mode: str) -> None:
    with EndpointServer(lambda _: reply_of(record)) as server:
        answer = embed_by_gemini(record, server, mode)
        asked = server.requests[0]
    told = json.loads(record["response"]["body"])
    assert [item.embedding for item in answer.data] == [item["values"] for item in told["embeddings"]]
    assert answer.usage.prompt_tokens == told.get("usageMetadata", {}).get("promptTokenCount", 0)
    assert asked.path == record["request"]["path"].partition("?")[0]
    assert asked.json["requests"] == in_one_spelling(record["request"]["json"]["requests"])
    assert asked.headers["x-goog-api-key"] == "sk-mock"


@pytest.mark.parametrize("record", of_gemini(False))
def test_recorded_error_of_geminis_vectors_has_its_class(record: dict[str, Any], mode: str) -> None:
    with (
        EndpointServer(lambda _: reply_of(record)) as server,
        pytest.raises(rejoinder.NotFoundError, match="is not found"),
    ):
        embed_by_gemini(record, server, mode)


def test_gemini_embeds_one_by_one_from_the_cache() -> None:
    def answer(asked: Any) -> Reply:
        texts = [item["content"]["parts"][0]["text"] for item in asked.json["requests"]]
        return Reply(json={"embeddings": [{"values": [float(len(text))]} for text in texts]})

    with EndpointServer(answer) as server, rejoinder.Cache.memory():
        given: Any = {"model": "gemini/m", "api_base": server.url, "api_key": "sk-mock"}
        rejoinder.embedding(input=["a", "bb"], **given)
        mixed = rejoinder.embedding(input=["bb", "ccc"], **given)
        assert [item.embedding for item in mixed.data] == [[2.0], [3.0]]
        assert [len(request.json["requests"]) for request in server.requests] == [2, 1]
        with pytest.raises(rejoinder.InvalidRequest, match="texts, not tokens"):
            rejoinder.embedding(input=[1, 2], **given)
