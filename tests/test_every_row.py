"""What must hold for every provider of the table that speaks OpenAI's protocol, over a socket."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

import rejoinder
from rejoinder.providers import table
from rejoinder.providers.base import Provider
from tests.fixtures.upstream import Upstream

ROWS = [
    row
    for row in table.ROWS
    if row.codec == "openai"
    and row.name != "echo"
    and table.codec(row.codec)
    and (row.endpoints or {}).get("chat") != ""
]
MESSAGES = [{"role": "user", "content": "Hello"}]
KEY = "key-0123456789abcdef"

every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with Upstream(chunks=5) as upstream:
        yield upstream


@pytest.fixture
def upstream(server: Upstream) -> Upstream:
    server.reset()
    return server


def ask(row: Provider, upstream: Upstream, **more: Any) -> Any:
    call = {"api_base": upstream.url, "api_key": KEY, "num_retries": 0, **more}
    return rejoinder.completion(f"{row.name}/some-model", MESSAGES, **call)


@every_row
def test_whole_answer(row: Provider, upstream: Upstream) -> None:
    answer = ask(row, upstream, max_tokens=5)
    assert answer.choices[0].message.content
    assert answer.usage.total_tokens > 0
    sent = upstream.requests[-1]
    assert sent.json["model"] == "some-model"
    assert sent.json["messages"] == MESSAGES
    assert sent.json[row.renamed.get("max_tokens", "max_tokens")] == 5
    assert KEY in " ".join(sent.headers.values())


@every_row
async def test_streamed_answer(row: Provider, upstream: Upstream) -> None:
    pieces = [chunk.choices[0].delta.content or "" for chunk in ask(row, upstream, stream=True) if chunk.choices]
    stream = await rejoinder.acompletion(
        f"{row.name}/some-model", MESSAGES, api_base=upstream.url, api_key=KEY, stream=True
    )
    assert "".join(pieces) == "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
    assert "".join(pieces)
    assert upstream.requests[-1].json["stream"] is True


@every_row
@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, rejoinder.AuthenticationError), (429, rejoinder.RateLimitError), (500, rejoinder.InternalServerError)],
)
def test_error_has_its_class_and_not_the_key(row: Provider, upstream: Upstream, status: int, kind: Any) -> None:
    upstream.configure(status=status, body=f'{{"error": {{"message": "wrong key {KEY}"}}}}')
    with pytest.raises(kind) as caught:
        ask(row, upstream)
    assert caught.value.provider == row.name
    assert KEY not in f"{caught.value!r} {caught.value} {caught.value.body} {caught.value.response.text}"


@every_row
def test_unknown_parameter_is_named_dropped_or_passed_on(row: Provider, upstream: Upstream) -> None:
    if row.open_ended:
        ask(row, upstream, no_such_parameter=1)
        assert upstream.requests[-1].json["no_such_parameter"] == 1
        return
    with pytest.raises(rejoinder.InvalidRequest, match="no_such_parameter"):
        ask(row, upstream, no_such_parameter=1)
    assert upstream.calls == 0
    ask(row, upstream, no_such_parameter=1, drop_params=True)
    assert "no_such_parameter" not in upstream.requests[-1].json


@every_row
def test_missing_key_is_said_with_the_variable_to_set(
    row: Provider, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in row.key_env:
        monkeypatch.delenv(name, raising=False)
    if not row.needs_key:
        assert ask(row, upstream, api_key=None).choices
        return
    with pytest.raises(rejoinder.MissingAPIKey, match=row.key_env[0]):
        ask(row, upstream, api_key=None)
    assert upstream.calls == 0


@every_row
def test_second_call_is_a_hit(row: Provider, upstream: Upstream) -> None:
    cache = rejoinder.Cache.memory()
    first, second = ask(row, upstream, cache=cache), ask(row, upstream, cache=cache)
    assert (first.cache, second.cache, first == second, upstream.calls) == (False, True, True, 1)


def test_a_vendors_own_word_is_no_misspelling(upstream: Upstream) -> None:
    ask(next(row for row in ROWS if row.name == "openrouter"), upstream, models=["a/b", "c/d"])
    assert upstream.requests[-1].json["models"] == ["a/b", "c/d"]


IDLE = {"n": 1, "frequency_penalty": 0, "presence_penalty": 0.0, "logprobs": False, "logit_bias": {}, "store": False}


@pytest.mark.parametrize("model", ["anthropic/claude-x", "cohere/command-x", "gemini/gemini-x", "ollama_chat/x"])
def test_what_asks_for_nothing_is_taken_by_all(model: str, upstream: Upstream) -> None:
    with contextlib.suppress(rejoinder.APIError):  # this upstream does not answer in all of these protocols
        rejoinder.completion(model, MESSAGES, api_base=upstream.url, api_key=KEY, num_retries=0, **IDLE)
    assert not {"n", "logit_bias"} & upstream.requests[-1].json.keys()


def test_what_asks_for_something_is_still_refused(upstream: Upstream) -> None:
    with pytest.raises(rejoinder.InvalidRequest, match="has no parameter 'n'"):
        rejoinder.completion("anthropic/claude-x", MESSAGES, api_base=upstream.url, api_key=KEY, n=2)
