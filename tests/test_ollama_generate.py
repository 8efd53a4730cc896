"""Ollama's own text completions: what is sent, what is read, recorded answers, damage."""

from __future__ import annotations

import asyncio
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

import rejoinder
from rejoinder.core import endpoint_answers
from rejoinder.core.endpoint_folds import fold_text
from rejoinder.core.shape import Misshapen
from rejoinder.core.types import Request
from rejoinder.providers.base import ProviderFault
from rejoinder.providers.ollama_generate import OllamaGenerate
from rejoinder.providers.table import PROVIDERS
from tests.fixtures.damage import change
from tests.fixtures.endpoint_server import EndpointServer, Reply

Json = dict[str, Any]
FOLDER = Path(os.environ.get("REJOINDER_WIRE_DIR") or Path(__file__).resolve().parents[2] / "shared" / "wire")
CODEC, ROW = OllamaGenerate(), PROVIDERS["ollama_chat"]
WHOLE: Json = {
    "model": "m",
    "created_at": "2025-05-19T09:27:00.062985Z",
    "response": "I am.",
    "thinking": "Hm.",
    "done": True,
    "done_reason": "length",
    "context": [1, 2],
    "prompt_eval_count": 7,
    "eval_count": 3,
    "total_duration": 9,
}
PIECES: list[Json] = [
    {"model": "m", "created_at": "2025-05-19T09:27:00Z", "response": "I", "done": False},
    {"model": "m", "created_at": "2025-05-19T09:27:00Z", "response": " am.", "done": False},
    {**WHOLE, "response": ""},
]


def request(**fields: Any) -> Request:
    base = {"parameters": {"prompt": "Who?"}, "messages": (), "api_base": "http://localhost:11434", **fields}
    return Request("text_completion", "ollama_chat", "m", **base)


def lines(events: list[Json]) -> bytes:
    return "".join(f"{json.dumps(event)}\n" for event in events).encode()


def read(data: bytes, size: int = 10_000) -> list[bytes]:
    decoder = CODEC.decoder(request(stream=True))
    chunks = []
    for start in range(0, len(data), size):
        chunks += decoder.feed(data[start : start + size])
    return chunks + decoder.end()


def test_sampling_goes_into_options() -> None:
    asked = {"prompt": "a", "suffix": "b", "max_tokens": 9, "stop": "x", "think": False, "options": {"num_ctx": 5}}
    form = {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}
    call = CODEC.encode(request(parameters={**asked, "response_format": form}), ROW)
    assert call.path == "/api/generate"
    assert json.loads(call.body) == {
        "model": "m",
        "prompt": "a",
        "suffix": "b",
        "think": False,
        "format": {"type": "object"},
        "options": {"num_predict": 9, "stop": ["x"], "num_ctx": 5},
        "stream": False,
    }


def test_whole_and_streamed_are_the_same_answer() -> None:
    whole = endpoint_answers.text_completion(CODEC.decode(json.dumps(WHOLE).encode(), request()))
    for size in (1, 7, 10_000):
        for data in (lines(PIECES), lines(PIECES).rstrip()):
            streamed = endpoint_answers.text_completion(fold_text(read(data, size)))
            for answer in (whole, streamed):
                assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("I am.", "length")
                assert answer.usage is not None
                assert answer.usage.total_tokens == 10
                assert answer.context == [1, 2]  # type: ignore[attr-defined]
    assert whole.choices[0].reasoning_content == "Hm."  # type: ignore[attr-defined]


def test_broken_answers_are_faults() -> None:
    data = lines(PIECES)
    for short in (b"", data[:30], data[: len(data) // 2], lines(PIECES[:-1])):
        with pytest.raises(ProviderFault) as caught:
            read(short)
        assert caught.value.failure.status in (500, 502)
    for body in (b"{}", b'{"error": "model not found"}', b"[]", b"<html>", b'{"response": 3}'):
        with pytest.raises(ProviderFault):
            CODEC.decode(body, request())
        with pytest.raises(ProviderFault):
            read(body)


def test_damaged_answers_are_faults_and_nothing_else() -> None:
    chance, faults = random.Random(5), 0
    for _ in range(300):
        body = json.dumps(change(WHOLE, chance)).encode()
        data = lines([change(event, chance) for event in PIECES])
        for attempt in (
            lambda body=body: endpoint_answers.text_completion(CODEC.decode(body, request())),
            lambda data=data: [endpoint_answers.text_completion(each) for each in read(data, 50)],
        ):
            try:
                attempt()
            except (ProviderFault, Misshapen):
                faults += 1
    assert faults


def recorded() -> list[Any]:
    file = FOLDER / "ollama.jsonl"
    if not file.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no recordings in {FOLDER}"))]
    items = map(json.loads, file.read_text("utf-8").splitlines())
    return [pytest.param(item, id=item["id"]) for item in items if item["wire"] == "ollama_generate"]


def meant(body: Json) -> Json:
    """Without what says nothing: empty texts and lists, and what is the vendor's default."""
    kept = {name: meant(value) if isinstance(value, dict) else value for name, value in body.items()}
    return {name: value for name, value in kept.items() if value not in ("", [], {}, None, False)}


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("item", recorded())
def test_recorded_texts_are_asked_for_and_read(item: Json, mode: str) -> None:
    asked, response = dict(item["request"]["json"]), item["response"]
    model = asked.pop("model")
    is_stream = response["chunks"] is not None
    body = "".join(response["chunks"] or [response["body"]]).encode()
    reply = Reply(events=[body[at : at + 50] for at in range(0, len(body), 50)]) if is_stream else Reply(body=body)

    async def acall(given: Any) -> Any:
        made = await rejoinder.atext_completion(**given)
        return [piece async for piece in made] if is_stream else made

    with EndpointServer(lambda _: reply) as server:
        given: Any = {**asked, "model": f"ollama_chat/{model}", "api_base": server.url, "num_retries": 0}
        if mode == "async":
            answer = asyncio.run(acall(given))
        else:
            answer = rejoinder.text_completion(**given)
            answer = list(answer) if is_stream else answer
        assert server.requests[0].path == item["request"]["path"]
        assert meant(server.requests[0].json) == meant(item["request"]["json"])
    told = list(map(json.loads, body.splitlines())) if is_stream else [json.loads(body)]
    pieces = answer if is_stream else [answer]
    assert "".join(c.text for piece in pieces for c in piece.choices) == "".join(each["response"] for each in told)
    ends = [c.finish_reason for piece in pieces for c in piece.choices]
    assert [end for end in ends if end] == [told[-1]["done_reason"]]
    if not is_stream:
        assert answer.usage.completion_tokens == told[-1]["eval_count"]
        assert answer.total_duration == told[-1]["total_duration"]
