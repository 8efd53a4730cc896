"""Streams of images, speech and transcriptions: what comes, what is kept of it, who has none."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai.types.audio
import pytest

import rejoinder
from rejoinder.core import endpoint_folds
from tests.fixtures.endpoint_server import Asked, EndpointServer, Reply

Call = Callable[..., Any]
SOUND = [b"ID3\x04 first", b"\x00{second}\n", b"\xff\xfbthird"]


def events(*data: dict[str, Any], done: bool = False, names: bool = True) -> Reply:
    """Events as OpenAI sends them; each in a write of its own."""
    pieces = [
        (f"event: {item['type']}\n" if names else "").encode() + b"data: " + json.dumps(item).encode() + b"\n\n"
        for item in data
    ]
    return Reply(content_type="text/event-stream", events=[*pieces, *([b"data: [DONE]\n\n"] if done else [])])


def image_events(count: int = 1) -> list[dict[str, Any]]:
    base = {"created_at": 7, "size": "1024x1024", "quality": "low", "background": "opaque", "output_format": "png"}
    partial = {"type": "image_generation.partial_image", "b64_json": "aGFsZg==", "partial_image_index": 0, **base}
    usage = {"total_tokens": 30, "input_tokens": 10, "output_tokens": 20, "input_tokens_details": {"text_tokens": 10}}
    whole = {"type": "image_generation.completed", "b64_json": "d2hvbGU=", **base, "usage": usage}
    return [partial, *[whole] * count]


TRANSCRIPT = [
    {"type": "transcript.text.delta", "delta": "I see"},
    {"type": "transcript.text.delta", "delta": " skies"},
    {"type": "transcript.text.done", "text": "I see skies", "usage": {"type": "tokens", "total_tokens": 9}},
]
SPEECH = [
    *({"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()} for piece in SOUND),
    {"type": "speech.audio.done", "usage": {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}},
]


def answer(asked: Asked) -> Reply:
    path = asked.path.removeprefix("/v1")
    if path == "/images/generations":
        if asked.json.get("stream"):
            return events(*image_events(asked.json.get("n", 1)))
        return Reply(json={"created": 7, "data": [{"b64_json": "d2hvbGU="}], "size": "1024x1024"})
    if path == "/audio/transcriptions":
        return events(*TRANSCRIPT) if "stream" in asked.form else Reply(json={"text": "I see skies"})
    if asked.json.get("stream_format") == "sse":
        return events(*SPEECH)
    return Reply(content_type="audio/mpeg", events=SOUND)


@pytest.fixture
def server() -> Iterator[EndpointServer]:
    with EndpointServer(answer) as server:
        yield server


@pytest.fixture
def cache() -> Iterator[rejoinder.Cache]:
    with rejoinder.Cache.memory() as cache:
        yield cache


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, server: EndpointServer) -> Call:
    """Calls an endpoint in either form; of a stream it gives the list of its pieces, and whether it was cached."""

    def sync(name: str, **params: Any) -> Any:
        found = getattr(rejoinder, name)(**params)
        return (list(found), found.cache) if isinstance(found, rejoinder.Stream) else found

    async def acall(name: str, **params: Any) -> Any:
        found = await getattr(rejoinder, f"a{name}")(**params)
        return ([piece async for piece in found], found.cache) if isinstance(found, rejoinder.AsyncStream) else found

    def given(name: str, **params: Any) -> Any:
        params = {"api_base": server.url, "api_key": "sk-mock", "num_retries": 0, **SIMPLE[name], **params}
        return sync(name, **params) if request.param == "sync" else asyncio.run(acall(name, **params))

    return given


SIMPLE: dict[str, dict[str, Any]] = {
    "image_generation": {"model": "openai/gpt-image-1", "prompt": "a lighthouse"},
    "transcription": {"model": "openai/gpt-4o-transcribe", "file": b"ID3 sound"},
    "speech": {"model": "openai/gpt-4o-mini-tts", "input": "Hello", "voice": "alloy"},
}


# Images


def test_images_come_with_unfinished_ones_and_are_replayed(call: Call, server: EndpointServer, cache: Any) -> None:
    pieces, cached = call("image_generation", stream=True, partial_images=1)
    assert not cached
    assert server.requests[0].json["stream"] is True
    assert server.requests[0].json["partial_images"] == 1
    assert isinstance(pieces[0], openai.types.ImageGenPartialImageEvent)
    assert isinstance(pieces[1], openai.types.ImageGenCompletedEvent)
    assert (pieces[0].partial_image_index, pieces[1].b64_json) == (0, "d2hvbGU=")
    again, cached = call("image_generation", stream=True, partial_images=1)
    assert cached
    assert again == pieces
    whole = call("image_generation", partial_images=1)
    assert whole.cache
    assert (whole.created, whole.data[0].b64_json, whole.size) == (7, "d2hvbGU=", "1024x1024")
    assert whole.usage.total_tokens == 30
    assert server.calls == 1


def test_each_image_of_a_stream_has_an_end(call: Call, server: EndpointServer, cache: Any) -> None:
    pieces, _ = call("image_generation", stream=True, n=2)
    assert [piece.type.rpartition(".")[2] for piece in pieces] == ["partial_image", "completed", "completed"]
    whole = call("image_generation", n=2)
    assert (len(whole.data), whole.usage.total_tokens, whole.usage.input_tokens_details.text_tokens) == (2, 60, 20)
    server.answer = lambda asked: events(*image_events(1))
    with pytest.raises(rejoinder.APIError, match="ended before"):
        call("image_generation", stream=True, n=2, prompt="another")


def test_whole_image_serves_a_stream(call: Call, server: EndpointServer, cache: Any) -> None:
    call("image_generation")
    pieces, cached = call("image_generation", stream=True)
    assert cached
    assert [(piece.type, piece.b64_json) for piece in pieces] == [("image_generation.completed", "d2hvbGU=")]


# Transcriptions


def test_transcript_comes_as_it_is_understood_and_is_replayed(call: Call, server: EndpointServer, cache: Any) -> None:
    pieces, cached = call("transcription", stream=True)
    assert not cached
    assert server.requests[0].form["stream"] == [b"true"]
    assert isinstance(pieces[0], openai.types.audio.TranscriptionTextDeltaEvent)
    assert isinstance(pieces[2], openai.types.audio.TranscriptionTextDoneEvent)
    assert "".join(piece.delta for piece in pieces[:2]) == pieces[2].text
    assert call("transcription", stream=True) == (pieces, True)
    whole = call("transcription")
    assert (whole.text, whole.cache, whole.usage.total_tokens) == ("I see skies", True, 9)
    assert server.calls == 1


def test_whole_transcription_serves_a_stream(call: Call, server: EndpointServer, cache: Any) -> None:
    call("transcription")
    pieces, cached = call("transcription", stream=True)
    assert cached
    assert [piece.type for piece in pieces] == ["transcript.text.delta", "transcript.text.done"]
    assert (pieces[0].delta, pieces[1].text) == ("I see skies", "I see skies")


def test_speakers_come_segment_by_segment(call: Call, server: EndpointServer, cache: Any) -> None:
    segment = {"type": "transcript.text.segment", "id": "1", "start": 0.0, "end": 1.5, "text": "I", "speaker": "A"}
    server.answer = lambda asked: events(segment, *TRANSCRIPT)
    pieces, _ = call("transcription", stream=True, response_format="diarized_json", chunking_strategy="auto")
    assert isinstance(pieces[0], openai.types.audio.TranscriptionTextSegmentEvent)
    whole = call("transcription", response_format="diarized_json", chunking_strategy="auto")
    assert whole.cache
    assert [(part.speaker, part.end) for part in whole.segments] == [("A", 1.5)]


def test_mistrals_events_are_read_as_openais(call: Call, server: EndpointServer, cache: Any) -> None:
    segment = {"text": " I", "start": 0.0, "end": 1.5, "speaker_id": "A"}
    told = [
        {"type": "transcription.language", "audio_language": "en"},
        {"type": "transcription.text.delta", "text": " I"},
        {"type": "transcription.segment", **segment},
        {"type": "transcription.done", "text": " I", "model": "m", "segments": [], "usage": {"total_tokens": 4}},
    ]
    server.answer = lambda asked: events(*told)
    pieces, _ = call("transcription", model="mistral/voxtral-mini", stream=True)
    assert [piece.type for piece in pieces] == [
        *("transcript.text.delta", "transcript.text.segment", "transcript.text.done"),
    ]
    assert (pieces[0].delta, pieces[1].speaker, pieces[2].text) == (" I", "A", " I")
    whole = call("transcription", model="mistral/voxtral-mini")
    assert (whole.text, whole.cache, whole.segments[0].end) == (" I", True, 1.5)
    server.answer = lambda asked: events(*told[:3])
    with pytest.raises(rejoinder.APIError, match="ended before"):
        call("transcription", model="mistral/voxtral-mini", stream=True, file=b"ID3 other")


@pytest.mark.parametrize(("form", "body"), [("json", b'{"text": "said"}'), ("text", b"said"), ("text", b"[said]")])
def test_model_that_does_not_stream_is_read_all_the_same(
    form: str, body: bytes, call: Call, server: EndpointServer, cache: Any
) -> None:
    """whisper-1 takes `stream` for nothing."""
    server.answer = lambda asked: Reply(body=body, content_type="text/plain")
    pieces, _ = call("transcription", stream=True, response_format=form)
    said = "[said]" if body.startswith(b"[") else "said"
    assert [piece.type for piece in pieces] == ["transcript.text.delta", "transcript.text.done"]
    assert (pieces[0].delta, pieces[1].text) == (said, said)


# Speech


@pytest.mark.parametrize("form", [{}, {"stream_format": "audio"}])
def test_sound_comes_in_pieces_and_is_replayed(form: Any, call: Call, server: EndpointServer, cache: Any) -> None:
    pieces, cached = call("speech", stream=True, **form)
    assert not cached
    assert b"".join(pieces) == b"".join(SOUND)
    assert "stream" not in server.requests[0].json
    assert "stream_format" not in server.requests[0].json
    assert call("speech", stream=True) == (pieces, True)
    whole = call("speech")
    assert (whole.cache, whole.content) == (True, b"".join(SOUND))
    assert server.calls == 1


def test_sound_comes_in_events_with_the_usage(call: Call, server: EndpointServer, cache: Any) -> None:
    pieces, cached = call("speech", stream_format="sse")
    assert not cached
    assert server.requests[0].json["stream_format"] == "sse"
    assert [piece.type for piece in pieces] == ["speech.audio.delta"] * 3 + ["speech.audio.done"]
    assert [base64.b64decode(piece.audio) for piece in pieces[:3]] == SOUND
    assert pieces[3]["usage"]["total_tokens"] == 8
    assert call("speech", stream_format="sse") == (pieces, True)
    sound, cached = call("speech", stream=True)
    assert (b"".join(sound), cached) == (b"".join(SOUND), True)
    assert call("speech").content == b"".join(SOUND)
    assert server.calls == 1


def test_whole_speech_serves_both_kinds_of_stream(call: Call, server: EndpointServer, cache: Any) -> None:
    call("speech")
    sound, cached = call("speech", stream=True)
    assert (b"".join(sound), cached) == (b"".join(SOUND), True)
    told, cached = call("speech", stream_format="sse")
    assert ([piece.type for piece in told], cached) == (["speech.audio.delta", "speech.audio.done"], True)
    assert server.calls == 1


def test_sound_stream_is_had_from_everybody(call: Call, server: EndpointServer, cache: Any) -> None:
    sound, _ = call("speech", model="groq/playai-tts", stream=True)
    assert b"".join(sound) == b"".join(SOUND)
    server.answer = lambda asked: Reply(json={"audio_data": base64.b64encode(b"ID3 all").decode()})
    sound, _ = call("speech", model="mistral/voxtral-mini-tts", stream=True)
    assert b"".join(sound) == b"ID3 all"


@pytest.mark.parametrize("first", [b"{\x01\x02", b"<\x01\x02"])
@pytest.mark.parametrize("stream", [True, False])
def test_samples_that_look_like_a_bracket_are_sound(
    first: bytes, stream: bool, call: Call, server: EndpointServer
) -> None:
    server.answer = lambda asked: Reply(content_type="audio/pcm", events=[first, b"more samples"])
    found = call("speech", response_format="pcm", stream=stream)
    assert (b"".join(found[0]) if stream else found.content) == first + b"more samples"


def test_stream_format_that_is_none_is_refused(call: Call, server: EndpointServer) -> None:
    with pytest.raises(rejoinder.InvalidRequest, match="'sse' or 'audio'"):
        call("speech", stream_format="midi")
    assert server.calls == 0


# Trouble


@pytest.mark.parametrize("name", SIMPLE)
def test_stream_that_is_cut_is_an_error_and_not_stored(
    name: str, call: Call, server: EndpointServer, cache: Any
) -> None:
    told = {"image_generation": image_events()[:1], "transcription": TRANSCRIPT[:2], "speech": SPEECH[:2]}[name]
    server.answer = lambda asked: events(*told)
    how = {"stream_format": "sse"} if name == "speech" else {"stream": True}
    with pytest.raises(rejoinder.APIError, match="ended before"):
        call(name, **how)
    assert cache.stats()["stored"] == 0


@pytest.mark.parametrize("name", SIMPLE)
@pytest.mark.parametrize("events_first", [True, False])
def test_error_in_a_stream_has_its_class(
    name: str, events_first: bool, call: Call, server: EndpointServer, cache: Any
) -> None:
    error = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down", "code": "rate_limit"}}
    server.answer = lambda asked: events(error) if events_first else Reply(json={"error": error["error"]})
    with pytest.raises(rejoinder.APIError, match="slow down"):
        call(name, **({"stream_format": "sse"} if name == "speech" else {"stream": True}))
    assert cache.stats()["stored"] == 0


@pytest.mark.parametrize("name", SIMPLE)
def test_bytes_may_be_cut_anywhere(name: str, call: Call, server: EndpointServer, cache: Any) -> None:
    how: dict[str, Any] = {"stream_format": "sse"} if name == "speech" else {"stream": True}
    expected, _ = call(name, **how, caching=False)
    whole = b"".join(answer(server.requests[0]).events or ())
    pieces = [whole[at : at + 7] for at in range(0, len(whole), 7)]
    server.answer = lambda asked: Reply(content_type="text/event-stream", events=pieces)
    assert call(name, **how, caching=False)[0] == expected


@pytest.mark.parametrize("name", SIMPLE)
def test_events_without_names_and_a_done_are_read(name: str, call: Call, server: EndpointServer) -> None:
    told = {"image_generation": image_events(), "transcription": TRANSCRIPT, "speech": SPEECH}[name]
    server.answer = lambda asked: events(*told, done=True, names=False)
    pieces, _ = call(name, **({"stream_format": "sse"} if name == "speech" else {"stream": True}))
    assert [piece.type for piece in pieces] == [item["type"] for item in told]


@pytest.mark.parametrize(
    ("name", "model"),
    [
        *(("image_generation", model) for model in ("xai/grok-image", "together_ai/flux")),
        *(("transcription", model) for model in ("groq/whisper-large-v3", "openrouter/whisper")),
        *(("speech", model) for model in ("groq/playai-tts", "mistral/voxtral-tts")),
    ],
)
def test_provider_without_such_streams_says_so(name: str, model: str, call: Call, server: EndpointServer) -> None:
    provider = model.partition("/")[0]
    with pytest.raises(rejoinder.InvalidRequest, match=f"'{provider}' has no streams of events for {name}"):
        call(name, model=model, **({"stream_format": "sse"} if name == "speech" else {"stream": True}))
    assert server.calls == 0


@pytest.mark.parametrize("name", SIMPLE)
async def test_stream_that_is_left_is_not_stored(name: str, server: EndpointServer, cache: Any) -> None:
    given: Any = {**SIMPLE[name], "api_base": server.url, "api_key": "sk-mock", "stream": True}
    stream = await getattr(rejoinder, f"a{name}")(**given)
    await anext(stream)
    await stream.aclose()
    assert cache.stats()["stored"] == 0
    assert len(cache.flights) == 0


@pytest.mark.parametrize("name", SIMPLE)
def test_streams_outlive_the_process_on_disk(name: str, server: EndpointServer, tmp_path: Path) -> None:
    given: Any = {**SIMPLE[name], "api_base": server.url, "api_key": "sk-mock", "stream": True}
    with rejoinder.Cache.disk(cache_path_root=tmp_path):
        first = list(getattr(rejoinder, name)(**given))
    with rejoinder.Cache.disk(cache_path_root=tmp_path):
        stream = getattr(rejoinder, name)(**given)
        assert list(stream) == first
        assert stream.cache
    assert server.calls == 1


@pytest.mark.parametrize("name", SIMPLE)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_own_client_carries_the_stream(name: str, kind: str, server: EndpointServer) -> None:
    given: Any = {**SIMPLE[name], "stream": True}
    if kind == "sync":
        own: Any = openai.OpenAI(api_key="sk-own", base_url=server.url)
        pieces = list(getattr(rejoinder, name)(**given, client=own))
    else:

        async def go() -> list[Any]:
            client = openai.AsyncOpenAI(api_key="sk-own", base_url=server.url)
            return [piece async for piece in await getattr(rejoinder, f"a{name}")(**given, client=client)]

        pieces = asyncio.run(go())
    assert pieces
    assert server.requests[0].headers["authorization"] == "Bearer sk-own"


@pytest.mark.parametrize("name", SIMPLE)
def test_echo_streams_too(name: str) -> None:
    echo = rejoinder.Echo()
    given: Any = {**SIMPLE[name], "model": "echo/any", "client": echo}
    pieces = list(getattr(rejoinder, name)(**given, stream=True))
    assert pieces
    if name == "speech":
        assert b"".join(pieces) == b"Hello"


# Folds


@pytest.mark.parametrize(
    ("name", "body"),
    [
        (
            "image_generation",
            {"created": 7, "data": [{"b64_json": "YQ=="}, {"url": "x"}], "usage": {"total_tokens": 3}},
        ),
        ("transcription", {"text": "said", "logprobs": [], "usage": {"type": "duration", "seconds": 1}}),
        ("transcription", {"text": "said", "words": [], "segments": [{"id": 1, "text": "said"}]}),
        (
            "transcription",
            {"text": "said", "segments": [{"type": "transcript.text.segment", "id": "1", "speaker": "A"}]},
        ),
    ],
)
def test_answer_comes_back_out_of_its_stream(name: str, body: Any) -> None:
    chunks = endpoint_folds.UNFOLDS[name](json.dumps(body).encode())
    assert json.loads(endpoint_folds.FOLDS[name](chunks)) == body


def test_sound_comes_back_out_of_its_stream() -> None:
    assert endpoint_folds.fold_speech(endpoint_folds.unfold_speech(b"\x00\xff\n{")) == b"\x00\xff\n{"
