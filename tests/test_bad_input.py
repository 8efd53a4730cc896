"""What cannot work is an error of the library's own, naming value and remedy; nothing is sent, kept or leaked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rejoinder
from rejoinder import Cache, Echo, InvalidRequest, MissingAPIKey, RejoinderError, UnknownProvider, WrongType
from tests.fixtures.calls import ataken, both, streamed, text_of, whole
from tests.fixtures.servers import refusing_server
from tests.fixtures.upstream import Upstream

KEY = "sk-proj-SECRET0123456789abcdef"
TEXT = "The answer."


@pytest.fixture(params=["no cache", "cache"])
def given_(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"client": Echo([TEXT]), **({"cache": Cache()} if request.param == "cache" else {})}


def check_refused(ask: Callable[..., Any], given_: dict[str, Any], kind: type, *words: str, **params: Any) -> None:
    with pytest.raises(kind) as caught:
        ask(**given_, **params)
    assert isinstance(caught.value, RejoinderError)
    for word in words:
        assert word in str(caught.value)
    assert given_["client"].calls == 0
    if "cache" in given_:
        assert not list(given_["cache"].store.scan())
        assert len(given_["cache"].flights) == 0


MESSAGES: list[tuple[Any, tuple[str, ...]]] = [
    (None, ("missing", "role")),
    ([], ("empty", "Hello")),
    ("hello", ("'hello'", "list")),
    (5, ("5", "list")),
    ({"role": "user", "content": "x"}, ("dict", "list")),
    ([None], ("messages[0]", "None")),
    ([[]], ("messages[0]", "dict")),
    (["hello"], ("messages[0]", "'hello'")),
    ([{}], ("messages[0]", "no role")),
    ([{"content": "x"}], ("no role", "user")),
    ([{"role": "robot", "content": "x"}], ("'robot'", "assistant")),
    ([{"role": ["user"], "content": "x"}], ("messages[0]", "['user']")),
    ([{"role": "user"}], ("no content",)),
    ([{"role": "user", "content": None}], ("no content",)),
    ([{"role": "user", "content": 5}], ("content", "5")),
    ([{"role": "user", "content": {"type": "text"}}], ("content", "list of parts")),
    ([{"role": "user", "content": b"\xff\xfe"}], ("bytes",)),
    ([{"role": "user", "content": [5]}], ("['content'][0]", "5")),
    ([{"role": "user", "content": "x"}, {"role": "user", "content": 1.5}], ("messages[1]", "1.5")),
]


@pytest.mark.parametrize(("messages", "words"), MESSAGES, ids=[str(messages)[:40] for messages, _ in MESSAGES])
@both
def test_malformed_messages(ask: Callable[..., Any], messages: Any, words: tuple[str, ...], given_: Any) -> None:
    check_refused(ask, given_, InvalidRequest, *words, messages=messages)


MODELS: list[tuple[Any, type, tuple[str, ...]]] = [
    ("antropic/claude", UnknownProvider, ("'antropic'", "Did you mean 'anthropic'?")),
    ("my-model", UnknownProvider, ("'my-model'", "provider/my-model")),
    ("openai/", UnknownProvider, ("'openai/'", "<model>")),
    ("/x", UnknownProvider, ("'/x'",)),
    ("", InvalidRequest, ("''", "openai/gpt-4o")),
    (None, InvalidRequest, ("None", "openai/gpt-4o")),
    (5, InvalidRequest, ("5", "openai/gpt-4o")),
]


@pytest.mark.parametrize(("model", "kind", "words"), MODELS, ids=[str(model) for model, _, _ in MODELS])
@both
def test_models_that_say_nothing(ask: Callable[..., Any], model: Any, kind: type, words: Any, given_: Any) -> None:
    check_refused(ask, given_, kind, *words, model=model)


VALUES: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"seed": float("inf")}, ("inf", "finite")),
    ({"temperature": object()}, ("object",)),
    ({"stop": [b"\xff"]}, ("bytes",)),
    ({"extra_body": 5}, ("extra_body", "dict")),
    ({"stream_options": "x"}, ("stream_options", "dict")),
    ({"num_retries": "2"}, ("num_retries='2'", "whole number")),
    ({"num_retries": -1}, ("num_retries=-1",)),
    ({"timeout": 0}, ("timeout=0",)),
    ({"timeout": float("nan")}, ("timeout=nan",)),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, ("Unicode", "surrogate")),
]


@pytest.mark.parametrize(("params", "words"), VALUES, ids=[str(params)[:40] for params, _ in VALUES])
@both
def test_values_that_are_not_json(ask: Callable[..., Any], params: Any, words: Any) -> None:
    check_refused(ask, {"client": Echo([TEXT]), "cache": Cache()}, InvalidRequest, *words, **params)


@both
def test_an_unknown_parameter_is_named_with_what_was_meant(ask: Callable[..., Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"'temperatur'.*Did you mean 'temperature'.*extra_body.*drop_params"):
        ask(model="openai/gpt-4o", api_key=KEY, temperatur=1)


@both
def test_a_missing_key_says_which_variable(ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(MissingAPIKey, match=r"'anthropic'.*api_key=.*ANTHROPIC_API_KEY"):
        ask(model="anthropic/claude-sonnet-4-5")


@pytest.mark.parametrize("value", ["redis", 5, Cache, True, {}], ids=repr)
def test_a_wrong_cache_is_refused_at_its_assignment(value: Any) -> None:
    with pytest.raises(WrongType, match=r"rejoinder\.cache = "):
        rejoinder.cache = value
    assert rejoinder.cache is None


@pytest.mark.parametrize("value", [5, "redis", Cache, [], object()], ids=repr)
@both
def test_a_wrong_cache_of_a_call_is_refused(ask: Callable[..., Any], value: Any) -> None:
    check_refused(ask, {"client": Echo([TEXT])}, WrongType, "cache=", cache=value)


@pytest.mark.parametrize(
    "given",
    [
        {"tl": 5},
        {"ttl": "x"},
        {"ttl": -1},
        {"ttl": float("nan")},
        {"s-maxage": []},
        {"namespace": 5},
        {"mode": "refesh"},
    ],
    ids=repr,
)
@both
def test_wrong_controls_are_named(ask: Callable[..., Any], given: dict[str, Any]) -> None:
    [(name, value)] = given.items()
    with Cache(), pytest.raises(rejoinder.ConfigurationError) as caught:
        ask(client=Echo([TEXT]), cache=given)
    assert name in str(caught.value) or repr(value) in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [{"type": "rediss"}, {"ttl": "soon"}, {"mode": "x"}, {"namespace": 5}, {"on_key_error": "x"}, {"nonsense": 1}],
    ids=repr,
)
def test_a_cache_that_cannot_be_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(rejoinder.ConfigurationError):
        Cache(**arguments)


@both
def test_a_prompt_of_three_megabytes_is_none(ask: Callable[..., Any], given_: dict[str, Any]) -> None:
    messages = [{"role": "user", "content": "wörd " * 600_000}]
    assert text_of(ask(**given_, messages=messages)) == TEXT


# ── keys leak nowhere ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with Upstream(text=TEXT) as upstream:
        yield upstream


@both
def test_no_key_is_in_any_error_log_or_store(
    ask: Callable[..., Any], server: Upstream, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="rejoinder")
    cache = Cache.disk(cache_path_root=tmp_path)
    given = {"model": "openai/gpt-4o", "api_key": KEY, "api_base": server.url, "cache": cache, "num_retries": 0}
    said = []
    for status in (400, 401, 403, 429, 500):
        echoed = {"error": {"message": f"Incorrect API key provided: {KEY}.", "code": KEY}}
        server.script({"status": status, "body": echoed})
        with pytest.raises(rejoinder.APIStatusError) as caught:
            ask(**given)
        said += [str(caught.value), repr(caught.value), str(caught.value.attempts)]
    answer = ask(**given)
    streamed(**given, messages=[{"role": "user", "content": "other"}])
    said += [repr(answer), repr(answer.cache_info), repr(cache), str(cache.stats())]
    with refusing_server() as port, pytest.raises(rejoinder.APIConnectionError) as refused:
        ask(**{**given, "api_base": f"http://127.0.0.1:{port}", "cache": False})
    said += [str(refused.value), repr(refused.value)]
    said += [record.getMessage() for record in caplog.records]
    cache.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert TEXT.encode() in stored
    assert KEY.encode() not in stored
    assert [text for text in said if KEY in text] == []


ODD_KEYS = ["\n", " \r\n", "é", "\0", "\u2028", "\nx-injected: 1"]


@pytest.mark.parametrize("end", ODD_KEYS, ids=ascii)
@both
def test_a_key_with_odd_characters_is_an_own_error_without_the_key(
    ask: Callable[..., Any], end: str, server: Upstream
) -> None:
    server.reset()
    error = what_it_raises(lambda: ask(model="openai/gpt-4o", api_key=KEY + end, api_base=server.url, num_retries=0))
    assert error is None or isinstance(error, InvalidRequest), repr(error)
    assert KEY not in str(error) + repr(error)
    for request in server.requests:
        assert request.headers["authorization"] == f"Bearer {KEY}", "white space at the end is of no account"


def what_it_raises(work: Callable[[], Any]) -> BaseException | None:
    try:
        work()
    except BaseException as error:
        return error
    return None


@pytest.mark.parametrize("headers", [{"X": 1}, {"X": "a\nb"}, {"é": "x"}, {"X": "é"}, {1: "x"}, 5, "x"], ids=ascii)
@both
def test_odd_headers_are_an_own_error(ask: Callable[..., Any], headers: Any, server: Upstream) -> None:
    for cache in (None, Cache()):
        given = {"model": "openai/gpt-4o", "api_key": KEY, "api_base": server.url, "num_retries": 0, "cache": cache}
        error = what_it_raises(lambda: ask(**given, extra_headers=headers))  # noqa: B023
        assert isinstance(error, InvalidRequest), repr(error)
        assert "extra_headers" in str(error)


def test_errors_in_a_loop_are_retrieved(caplog: pytest.LogCaptureFixture) -> None:
    async def many() -> None:
        asks = [ataken(client=Echo([TEXT]), cache=Cache(), messages=[]) for _ in range(10)]
        results = await asyncio.gather(*asks, return_exceptions=True)
        assert all(isinstance(result, InvalidRequest) for result in results)

    asyncio.run(many())
    assert whole(client=Echo([TEXT])).cache is False
    assert "never retrieved" not in caplog.text
