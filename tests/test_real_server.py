"""Servers that others wrote are called: llama.cpp's as OpenAI and as Anthropic, and a mock of Gemini.

What the rest of the tests know of a vendor, they were told by us. Here somebody else decides what comes over the wire.
"""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import openai
import pytest

import rejoinder
from tests.fixtures.aimock import aimock_server
from tests.fixtures.llama import CONTEXT, WORDS, llama_server

Json = dict[str, Any]

MESSAGES: list[Json] = [{"role": "user", "content": "a small grey fox walks home"}]
TOO_LONG: list[Json] = [{"role": "user", "content": "a small grey fox " * CONTEXT}]
LIMIT = 8
WAYS = pytest.mark.parametrize("way", ["sync", "async"])
FACES = pytest.mark.parametrize("face", ["openai", "anthropic"])

GEMINI: list[Json] = [
    {"match": {"userMessage": "fox"}, "response": {"content": "The fox — small, grey — walks home. " * 5}},
    {
        "match": {"userMessage": "weather"},
        "response": {"toolCalls": [{"name": "weather", "arguments": '{"city": "Paris", "days": [1, 2]}'}]},
    },
    {"match": {"userMessage": "crowd"}, "response": {"error": {"message": "Too many"}, "status": 429}},
]
WEATHER: Json = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@pytest.fixture(scope="module")
def llama() -> Iterator[str]:
    with llama_server() as address:
        yield address


@pytest.fixture(scope="module")
def gemini() -> Iterator[Json]:
    with aimock_server(GEMINI) as address:
        yield {"model": "gemini/gemini-2.5-flash", "api_base": f"{address}/v1beta", "api_key": "any", "caching": False}


def place(face: str, llama: str) -> Any:
    """What leads a call to the server, in the words of OpenAI or of Anthropic. At 0 degrees it repeats itself."""
    base = {"openai": f"{llama}/v1", "anthropic": llama}[face]
    more = {"max_tokens": LIMIT, "temperature": 0, "caching": False}
    return {"model": f"{face}/tiny", "api_base": base, "api_key": "any", **more}


async def ask(way: str, **call: Any) -> Any:
    return await rejoinder.acompletion(**call) if way == "async" else rejoinder.completion(**call)


async def chunks(way: str, **call: Any) -> list[Any]:
    if way == "async":
        return [chunk async for chunk in await rejoinder.acompletion(**call, stream=True)]
    return list(rejoinder.completion(**call, stream=True))


def text(chunks: list[Any]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def post(url: str, body: Json) -> Json:
    """Ask the server without the library."""
    headers = {"content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=10) as reply:
        answer: Json = json.load(reply)
        return answer


def tokens_of_prompt(llama: str) -> int:
    """How many tokens the question has, by the server's own tokenizer."""
    prompt = post(f"{llama}/apply-template", {"messages": MESSAGES})["prompt"]
    return len(post(f"{llama}/tokenize", {"content": prompt, "add_special": True})["tokens"])


# ── llama.cpp, as OpenAI and as Anthropic ─────────────────────────────────────────────────────────────────────────────


@WAYS
@FACES
async def test_whole_answer_has_words_and_true_usage(face: str, way: str, llama: str) -> None:
    answer = await ask(way, messages=MESSAGES, **place(face, llama))
    said = answer.choices[0].message.content
    assert len(said.split()) == LIMIT
    assert set(said.split()) <= set(WORDS)
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.role == "assistant"
    # Also when llama.cpp had the beginning of the prompt ready from the call before.
    assert answer.usage.prompt_tokens == tokens_of_prompt(llama)
    assert answer.usage.completion_tokens == LIMIT
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + LIMIT
    assert not answer.cache


@WAYS
@FACES
async def test_stream_says_piece_by_piece_what_a_whole_answer_says(face: str, way: str, llama: str) -> None:
    call = {"messages": MESSAGES, **place(face, llama)}
    pieces = await chunks(way, **call, stream_options={"include_usage": True})
    whole = await ask(way, **call)
    assert sum(bool(text([piece])) for piece in pieces) > LIMIT // 2
    assert text(pieces) == whole.choices[0].message.content
    assert [c.finish_reason for piece in pieces for c in piece.choices if c.finish_reason] == ["length"]
    (usage,) = [piece.usage for piece in pieces if piece.usage]
    assert usage.prompt_tokens == whole.usage.prompt_tokens
    assert usage.completion_tokens == LIMIT


def test_both_faces_of_the_server_say_the_same(llama: str) -> None:
    answers = [rejoinder.completion(messages=MESSAGES, **place(face, llama)) for face in ("openai", "anthropic")]
    assert answers[0].choices[0].message.content == answers[1].choices[0].message.content


def test_what_the_library_says_is_what_the_server_sent(llama: str) -> None:
    body = {"model": "tiny", "messages": MESSAGES, "max_tokens": LIMIT, "temperature": 0}
    sent = post(f"{llama}/v1/chat/completions", body)
    answer = rejoinder.completion(messages=MESSAGES, **place("openai", llama))
    assert answer.choices[0].message.content == sent["choices"][0]["message"]["content"]
    assert answer.model == sent["model"]
    sent = post(f"{llama}/v1/messages", body)
    answer = rejoinder.completion(messages=MESSAGES, **place("anthropic", llama))
    assert answer.choices[0].message.content == sent["content"][0]["text"]


def test_system_message_reaches_the_model_by_either_face(llama: str) -> None:
    asked = [{"role": "system", "content": "no hurry at all"}, *MESSAGES]
    for face in ("openai", "anthropic"):
        short = rejoinder.completion(messages=MESSAGES, **place(face, llama))
        long = rejoinder.completion(messages=asked, **place(face, llama))
        assert short.usage is not None
        assert long.usage is not None
        assert long.usage.prompt_tokens > short.usage.prompt_tokens


@WAYS
async def test_n_answers_come_whole_and_streamed(way: str, llama: str) -> None:
    call: Any = {**place("openai", llama), "messages": MESSAGES, "n": 2, "temperature": 1.5, "seed": 3}
    answer = await ask(way, **call)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert all(len((choice.message.content or "").split()) == LIMIT for choice in answer.choices)
    texts = {0: "", 1: ""}
    for chunk in await chunks(way, **call):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert [len(said.split()) for said in texts.values()] == [LIMIT, LIMIT]


def test_logprobs_are_those_of_the_words(llama: str) -> None:
    answer = rejoinder.completion(messages=MESSAGES, **place("openai", llama), logprobs=True, top_logprobs=2)
    assert answer.choices[0].logprobs is not None
    tokens = answer.choices[0].logprobs.content or []
    assert "".join(token.token for token in tokens) == answer.choices[0].message.content
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in tokens)


@WAYS
@FACES
async def test_prompt_too_long_is_an_error_of_its_own(face: str, way: str, llama: str) -> None:
    with pytest.raises(rejoinder.ContextWindowExceeded, match=f"'{face}/tiny'.*context size") as raised:
        await ask(way, messages=TOO_LONG, **place(face, llama))
    assert isinstance(raised.value, openai.BadRequestError)
    assert raised.value.status_code == 400


@WAYS
async def test_bad_request_says_what_the_server_says(way: str, llama: str) -> None:
    call: Any = {**place("openai", llama), "temperature": "hot"}
    with pytest.raises(openai.BadRequestError, match="'temperature'"):
        await ask(way, messages=MESSAGES, **call)
    with pytest.raises(openai.BadRequestError, match="'temperature'"):
        await chunks(way, messages=MESSAGES, **call)


# ── the other endpoints of llama.cpp ──────────────────────────────────────────────────────────────────────────────────


async def test_text_completion_goes_on_with_the_prompt(llama: str) -> None:
    call: Any = {**place("openai", llama), "prompt": "a small grey fox"}
    whole = rejoinder.text_completion(**call)
    awaited = await rejoinder.atext_completion(**call)
    streamed = list(rejoinder.text_completion(**call, stream=True))
    said = whole.choices[0].text
    assert len(said.split()) == LIMIT
    assert awaited.choices[0].text == said
    assert "".join(choice.text for chunk in streamed for choice in chunk.choices) == said
    assert whole.usage is not None
    assert whole.usage.completion_tokens == LIMIT


async def test_embedding_is_a_vector_for_each_text(llama: str) -> None:
    call: Any = {"model": "openai/tiny", "api_base": f"{llama}/v1", "api_key": "any", "caching": False}
    answer = rejoinder.embedding(input=["a small grey fox", "no hurry at all"], **call)
    first, second = (item.embedding for item in answer.data)
    assert len(first) == len(second) == 64
    assert sum(number * number for number in first) == pytest.approx(1)
    assert first != pytest.approx(second)
    # One text alone: in company, llama.cpp gives it other numbers.
    sent = post(f"{llama}/v1/embeddings", {"model": "tiny", "input": "no hurry at all"})
    awaited = await rejoinder.aembedding(input="no hurry at all", **call)
    assert awaited.data[0].embedding == pytest.approx(sent["data"][0]["embedding"], abs=1e-6)
    assert awaited.usage.prompt_tokens == sent["usage"]["prompt_tokens"] > 0


async def test_responses_come_whole_and_streamed(llama: str) -> None:
    call: Any = {**place("openai", llama), "input": MESSAGES[0]["content"], "max_output_tokens": LIMIT}
    del call["max_tokens"]
    whole = rejoinder.responses(**call)
    assert len(whole.output_text.split()) == LIMIT
    assert whole.usage is not None
    assert whole.usage.output_tokens == LIMIT
    assert (await rejoinder.aresponses(**call)).output_text == whole.output_text
    events = list(rejoinder.responses(**call, stream=True))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == whole.output_text
    assert events[-1].type == "response.completed"


# ── real answers in the cache ─────────────────────────────────────────────────────────────────────────────────────────


def cached(face: str, llama: str) -> Any:
    """A call whose answers are never twice the same by chance."""
    call: Any = {**place(face, llama), "temperature": 2.0, "messages": MESSAGES}
    return {**call, "cache": rejoinder.Cache(type="local"), "caching": True}


@WAYS
@FACES
async def test_second_call_is_answered_from_the_cache(face: str, way: str, llama: str) -> None:
    call = cached(face, llama)
    fresh = await ask(way, **call)
    again = await ask(way, **call)
    assert (fresh.cache, again.cache) == (False, True)
    assert again == fresh
    assert again.id == fresh.id
    anew = await ask(way, **call | {"caching": False})
    assert anew.id != fresh.id


@WAYS
@FACES
async def test_streamed_answer_is_found_whole_and_streamed(face: str, way: str, llama: str) -> None:
    call = cached(face, llama)
    fresh = await chunks(way, **call)
    whole = await ask(way, **call)
    replayed = await chunks(way, **call)
    assert whole.cache
    assert whole.choices[0].message.content == text(fresh)
    assert whole.choices[0].finish_reason == "length"
    assert [text([chunk]) for chunk in replayed] == [text([chunk]) for chunk in fresh]


@WAYS
@FACES
async def test_whole_answer_is_found_streamed(face: str, way: str, llama: str) -> None:
    call = cached(face, llama)
    fresh = await ask(way, **call)
    replayed = await chunks(way, **call)
    assert text(replayed) == fresh.choices[0].message.content
    assert {chunk.id for chunk in replayed} == {fresh.id}


def test_bad_request_is_not_kept(llama: str) -> None:
    call = cached("openai", llama) | {"temperature": "hot"}
    for _ in range(2):
        with pytest.raises(openai.BadRequestError):
            rejoinder.completion(**call)


def test_embedding_of_one_text_is_found_among_others(llama: str) -> None:
    cache = rejoinder.Cache(type="local")
    call: Any = {"model": "openai/tiny", "api_base": f"{llama}/v1", "api_key": "any", "caching": True, "cache": cache}
    fresh = rejoinder.embedding(input=["a small grey fox", "no hurry at all"], **call)
    again = rejoinder.embedding(input="no hurry at all", **call)
    assert (fresh.cache, again.cache) == (False, True)
    assert again.data[0].embedding == fresh.data[1].embedding


# ── Gemini ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@WAYS
async def test_gemini_answers_whole_and_streamed(way: str, gemini: Any) -> None:
    asked: list[Json] = [{"role": "user", "content": "Where is the fox?"}]
    said = GEMINI[0]["response"]["content"]
    answer = await ask(way, messages=asked, **gemini)
    assert answer.choices[0].message.content == said
    assert answer.choices[0].finish_reason == "stop"
    pieces = await chunks(way, messages=asked, **gemini)
    assert text(pieces) == said
    assert sum(bool(text([piece])) for piece in pieces) > 1
    assert [c.finish_reason for piece in pieces for c in piece.choices if c.finish_reason] == ["stop"]


@WAYS
async def test_gemini_calls_tools_whole_and_streamed(way: str, gemini: Any) -> None:
    call = {"messages": [{"role": "user", "content": "How is the weather?"}], "tools": [WEATHER], **gemini}
    answer = await ask(way, **call)
    (wanted,) = answer.choices[0].message.tool_calls
    assert wanted.function.name == "weather"
    assert json.loads(wanted.function.arguments) == {"city": "Paris", "days": [1, 2]}
    # The mock's word for the end is FUNCTION_CALL, which is none of Google's: Gemini itself says STOP.
    assert answer.choices[0].finish_reason in ("tool_calls", "function_call")
    pieces = await chunks(way, **call)
    deltas = [delta for piece in pieces for c in piece.choices for delta in c.delta.tool_calls or ()]
    assert json.loads("".join(delta.function.arguments or "" for delta in deltas)) == {"city": "Paris", "days": [1, 2]}
    ends = [c.finish_reason for piece in pieces for c in piece.choices if c.finish_reason]
    assert ends == [answer.choices[0].finish_reason]


def test_answer_of_a_tool_goes_back_to_gemini(gemini: Any) -> None:
    asked: list[Json] = [{"role": "user", "content": "How is the weather?"}]
    called = rejoinder.completion(messages=asked, tools=[WEATHER], **gemini).choices[0].message
    assert called.tool_calls
    asked += [called.model_dump(exclude_none=True)]
    asked += [{"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": "Rain."}]
    asked += [{"role": "user", "content": "And the fox?"}]
    answer = rejoinder.completion(messages=asked, tools=[WEATHER], **gemini)
    assert re.match("The fox", answer.choices[0].message.content or "")


@WAYS
async def test_gemini_refuses_with_the_error_of_its_kind(way: str, gemini: Any) -> None:
    with pytest.raises(openai.RateLimitError, match="Too many"):
        await ask(way, messages=[{"role": "user", "content": "A crowd"}], num_retries=0, **gemini)


def test_answer_of_gemini_is_kept(gemini: Any) -> None:
    call: Any = gemini | {"caching": True, "cache": rejoinder.Cache(type="local")}
    asked: list[Json] = [{"role": "user", "content": "A fox, please"}]
    streamed = list(rejoinder.completion(messages=asked, **call, stream=True))
    whole = rejoinder.completion(messages=asked, **call)
    assert whole.cache
    assert whole.choices[0].message.content == text(streamed)
