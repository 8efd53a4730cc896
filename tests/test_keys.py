"""Keys: what is in them, what they refuse and how they say it, and that they stay the same."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
import typing
from collections import deque, namedtuple
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from openai import NOT_GIVEN

import rejoinder
from rejoinder import Cache, CacheKeyError, Echo, InvalidRequest
from rejoinder.caching import keys
from rejoinder.caching.keys import canonical, component_digests, encode, request_key, texts
from rejoinder.core.forms import NotJSON, fault
from rejoinder.core.schema import response_format, strict
from rejoinder.core.types import Options, Request
from rejoinder.providers import anthropic, openai, table
from rejoinder.router.shape import OURS, shape

MESSAGES = [{"role": "user", "content": "Say hello."}]


@pytest.fixture(autouse=True)
def no_cache_afterwards() -> Iterator[None]:
    yield
    rejoinder.cache = None


def request(**changes: Any) -> Request:
    return Request("chat", "echo", "m", "", MESSAGES, {})._replace(**changes)


def key(value: Any) -> str:
    """The key of a request that has `value` in its body."""
    return request_key(request(extra_body={"x": value}))


# where each argument belongs: a new one fails these tests until somebody writes it down here, and means it

ARGUMENTS_IN_KEY = {"api_base", "api_version", "base_url", "extra_body", "extra_headers", "messages", "model"}
ARGUMENTS_NOT_IN_KEY = {
    "api_key",
    "aws_access_key_id",
    "aws_profile_name",
    "aws_region_name",
    "aws_secret_access_key",
    "aws_session_token",
    "azure_ad_token",
    "azure_ad_token_provider",
    "cache",
    "caching",
    "client",
    "deadline",
    "drop_params",
    "fallbacks",
    "max_retries",
    "metadata",
    "mock_response",
    "num_retries",
    "replay_timing",
    "request_timeout",
    "stream",
    "stream_options",
    "timeout",
}
PARAMETERS_IN_KEY = {
    "audio",
    "betas",
    "container",
    "context_management",
    "diagnostics",
    "frequency_penalty",
    "function_call",
    "functions",
    "inference_geo",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "mcp_servers",
    "modalities",
    "moderation",
    "n",
    "output_config",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "speed",
    "stop",
    "stop_sequences",
    "store",
    "temperature",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
}


def test_each_field_of_a_request_is_in_the_key_or_is_not() -> None:
    assert set(Request._fields) == keys.IN_KEY | keys.NOT_IN_KEY, "say in caching/keys.py whether it is in the key"
    assert not keys.IN_KEY & keys.NOT_IN_KEY


def test_each_argument_of_a_call_is_in_the_key_or_is_not() -> None:
    assert ARGUMENTS_IN_KEY | ARGUMENTS_NOT_IN_KEY == OURS, "say here and in docs/keys.md whether it is in the key"
    assert not ARGUMENTS_IN_KEY & ARGUMENTS_NOT_IN_KEY


def test_each_chat_parameter_is_in_the_key_or_is_not() -> None:
    known = openai.PARAMETERS | anthropic.PARAMETERS
    assert known == PARAMETERS_IN_KEY | (keys.NOT_IN_KEY_PARAMETERS - OURS), "say here whether it is in the key"
    assert not PARAMETERS_IN_KEY & keys.NOT_IN_KEY_PARAMETERS


@pytest.mark.parametrize("name", sorted(PARAMETERS_IN_KEY))
def test_parameter_is_in_the_key(name: str) -> None:
    assert request_key(request(parameters={name: 1})) != request_key(request(parameters={name: 2}))
    assert request_key(request(parameters={name: 1})) != request_key(request())


@pytest.mark.parametrize("name", sorted(keys.NOT_IN_KEY_PARAMETERS))
def test_parameter_is_not_in_the_key(name: str) -> None:
    assert request_key(request(parameters={name: 1, "seed": 1})) == request_key(request(parameters={"seed": 1}))


@pytest.mark.parametrize("name", sorted(Request._fields))
def test_field_counts_or_does_not(name: str) -> None:
    other: dict[str, Any] = {
        "messages": [{"role": "user", "content": "Say goodbye."}],
        "parameters": {"seed": 1},
        "extra_body": {"a": 1},
        "extra_headers": {"x-a": "1"},
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    changed = request(**{name: other.get(name, "something else")})
    assert (request_key(changed) != request_key(request())) is (name in keys.IN_KEY)


def test_parameters_of_every_row_are_in_the_key() -> None:
    for name in sorted({extra for row in table.ROWS for extra in row.extra} - keys.NOT_IN_KEY_PARAMETERS):
        assert request_key(request(parameters={name: "a"})) != request_key(request(parameters={name: "b"}))


def test_options_have_no_way_into_a_key() -> None:
    assert not set(Options._fields) & set(Request._fields)


# properties

leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
leaves |= st.text(st.characters(codec="utf-8"), max_size=8)
names = st.text(st.characters(codec="utf-8"), max_size=5)
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4))


def shuffled(value: Any, random: Any) -> Any:
    if isinstance(value, dict):
        items = list(value.items())
        random.shuffle(items)
        return {name: shuffled(item, random) for name, item in items}
    return [shuffled(item, random) for item in value] if isinstance(value, list) else value


def leaf_places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if not isinstance(value, (dict, list)):
        return [place]
    steps = value.items() if isinstance(value, dict) else enumerate(value)
    return [found for step, item in steps for found in leaf_places(item, (*place, step))]


def with_leaf(value: Any, place: tuple[Any, ...], leaf: Any) -> Any:
    if not place:
        return leaf
    changed = copy.copy(value)
    changed[place[0]] = with_leaf(value[place[0]], place[1:], leaf)
    return changed


def is_same_leaf(one: Any, other: Any) -> bool:
    """Python's own idea: 1 is 1.0, but not True."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


@given(values, st.randoms())
def test_order_of_dicts_never_counts(value: Any, random: Any) -> None:
    assert key(shuffled(value, random)) == key(value)


@given(values, leaves, st.data())
def test_any_changed_leaf_counts(value: Any, leaf: Any, data: st.DataObject) -> None:
    places = leaf_places(value)
    assume(places)
    place = data.draw(st.sampled_from(places))
    before = value
    for step in place:
        before = before[step]
    assert (key(with_leaf(value, place, leaf)) == key(value)) is is_same_leaf(before, leaf)


@given(values)
def test_canonical_form_is_its_own(value: Any) -> None:
    form = canonical(value)
    assert canonical(form) is form
    assert encode(form) == encode(canonical(copy.deepcopy(value)))


@given(values)
def test_keys_leave_the_arguments_alone(value: Any) -> None:
    before = copy.deepcopy(value)
    key(value)
    assert repr(value) == repr(before)


@dataclasses.dataclass
class Plain:
    x: int
    _hidden: int = 0
    kind: typing.ClassVar[str] = "plain"

    def __post_init__(self) -> None:
        self.more = self.x


@dataclasses.dataclass(slots=True)
class Slotted:
    x: int
    _hidden: int = 0


class Model(pydantic.BaseModel):
    x: int
    y: str | None = None


odd_values = st.one_of(
    st.builds(Plain, st.integers(0, 2), st.integers(0, 1)),
    st.builds(Slotted, st.integers(0, 2), st.integers(0, 1)),
    st.builds(Model, x=st.integers(0, 2)),
    st.frozensets(st.sampled_from("abc")),
    st.tuples(st.integers(0, 2)),
    st.builds(Path, st.sampled_from("abc")),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.timezones()),
    st.times(),
    st.uuids(),
    st.sampled_from(
        ["a", {"x": 0}, {"x": 0, "more": 0}, ["a"], ["a", "b"], [0], {1: 0}, {"1": 0}, {1.0: 0}, {"1.0": 0}]
    ),
    st.sampled_from([{"$bytes": "a"}, {"$set": ["a"]}, {"$time": "1"}, {None: 0}, {"null": 0}, {True: 0}, {"true": 0}]),
)


def sent(value: Any) -> str:
    """What the wire has for it, with numbers compared as numbers and the order of dicts forgotten."""
    return json.dumps(json.loads(openai.wire_json({"x": value})), sort_keys=True)


@given(odd_values, odd_values)
def test_keys_are_equal_exactly_where_the_wire_is(one: Any, other: Any) -> None:
    assert (key(one) == key(other)) is (sent(one) == sent(other))


@given(odd_values)
def test_odd_value_has_the_key_of_what_is_sent(value: Any) -> None:
    assert key(value) == key(json.loads(openai.wire_json(value)))


# the same for ever

GOLDEN = {
    "plain": (request(), "10de08d92aeda65b96bede00caf4d6f1e18f7a0e5049696ae8dcc12a319b81fa"),
    "numbers": (
        request(parameters={"temperature": 0.0, "top_p": 0.1, "seed": 7, "logit_bias": {50256: -100}}),
        "4c6a1883447fc607a0ea348bdad8715ec166842b958cfd0b518ca7274ab208de",
    ),
    "everything": (
        request(
            provider="openai",
            api_base="https://api.example/v1",
            api_version="2026-01-01",
            messages=[{"role": "user", "content": [{"type": "text", "text": "Grüße 👋", "cache_control": {}}]}],
            parameters={"tools": [{"type": "function", "function": {"name": "f"}}], "stop": {"b", "a"}},
            extra_body={"b": [1, {"c": None}], "a": True},
            extra_headers={"X-Beta": "one", "Authorization": "Bearer secret"},
            stream=True,
        ),
        "af88ec7e668b9ae1537a338d2f06bc001ce8fd72622f67a9778b4b3da20787cc",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_keys_are_what_they_were(name: str) -> None:
    made, expected = GOLDEN[name]
    assert request_key(made, seed=42, epoch=1, scopes={"tenant": "a"}) == expected, (
        "The form of keys has changed: everything that users have stored would be a miss. If that is meant, raise "
        "KEY_VERSION in caching/keys.py, put the new keys here, and say so in the changelog."
    )


def test_keys_are_hexadecimal_sha256_of_canonical_json() -> None:
    material = [keys.KEY_VERSION, "chat", "echo", "m", "", None, MESSAGES, {}, None, None, None, None, None, None]
    data = json.dumps(material, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert request_key(request()) == hashlib.sha256(data.encode()).hexdigest()


@pytest.mark.parametrize("seed", ["0", "1"])
def test_keys_are_the_same_in_every_process(seed: str) -> None:
    code = (
        "from rejoinder.caching.keys import request_key; from rejoinder.core.types import Request; "
        "print(request_key(Request('chat', 'echo', 'm', '', [{'role': 'user', 'content': 'hi'}], "
        "{'stop': {'a', 'b', 'c', 'd', 'e'}, 'b': {'y': 1, 'x': 2}})))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    same = Request(
        "chat", "echo", "m", "", [{"role": "user", "content": "hi"}], {"stop": list("abcde"), "b": {"x": 2, "y": 1}}
    )
    assert run.stdout.strip() == request_key(same)


# marks of the vendors' prompt caches

MARKED = {"cache_control": {"type": "ephemeral"}}


def marked_places() -> dict[str, Callable[[dict[str, Any]], Request]]:
    """Requests with a mark somewhere, or without it."""

    def message(**content: Any) -> Request:
        return request(messages=[{"role": "user", **content}])

    return {
        "message": lambda mark: message(content="a", **mark),
        "part": lambda mark: message(content=[{"type": "text", "text": "a", **mark}]),
        "part of a tool's result": lambda mark: message(
            content=[{"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "a", **mark}]}]
        ),
        "block of an earlier answer": lambda mark: message(content="a", content_blocks=[{"type": "text", **mark}]),
        "tool call": lambda mark: message(content="a", tool_calls=[{"id": "1", "type": "function", **mark}]),
        "tool": lambda mark: request(parameters={"tools": [{"type": "function", "function": {"name": "f"}, **mark}]}),
        "function of a tool": lambda mark: request(
            parameters={"tools": [{"type": "function", "function": {"name": "f", **mark}}]}
        ),
        "request": lambda mark: request(parameters={"seed": 1, **mark}),
    }


@pytest.mark.parametrize("place", marked_places())
def test_mark_is_not_in_the_key(place: str) -> None:
    make = marked_places()[place]
    assert request_key(make(MARKED)) == request_key(make({}))


def test_callers_own_name_is_no_mark() -> None:
    def function(properties: dict[str, Any]) -> Request:
        tool = {
            "type": "function",
            "function": {"name": "f", "parameters": {"type": "object", "properties": properties}},
        }
        return request(parameters={"tools": [tool]})

    assert request_key(function({"cache_control": {"type": "string"}})) != request_key(function({}))

    def arguments(given: dict[str, Any]) -> Request:
        return request(messages=[{"role": "assistant", "content": [{"type": "tool_use", "name": "f", "input": given}]}])

    assert request_key(arguments({"cache_control": "no-store"})) != request_key(arguments({}))


# headers


@pytest.mark.parametrize(
    "name", ["Authorization", "x-api-key", "API-KEY", "traceparent", "User-Agent", b"Authorization"]
)
def test_header_is_not_in_the_key(name: Any) -> None:
    assert request_key(request(extra_headers={name: "one"})) == request_key(request())


def test_header_as_bytes_is_the_header_as_text() -> None:
    as_text, as_bytes = {"x-beta": "one"}, {b"X-Beta": b"one"}
    assert request_key(request(extra_headers=as_bytes)) == request_key(request(extra_headers=as_text))


def test_of_two_headers_of_one_name_the_last_counts() -> None:
    both = {"X-Beta": "one", "x-beta": "two"}
    assert request_key(request(extra_headers=both)) == request_key(request(extra_headers={"x-beta": "two"}))


# errors that say where

circle: list[Any] = []
circle.append(circle)
two_circles: dict[str, Any] = {"a": [{}]}
two_circles["a"][0]["b"] = two_circles


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def messages_with(content: Any) -> dict[str, Any]:
    return {"messages": [*MESSAGES, {"role": "user", "content": content}]}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "NaN": ({"temperature": float("nan")}, r"temperature: the number nan is not JSON"),
    "infinity": ({"extra_body": {"a": [1, -float("inf")]}}, r"extra_body\.a\[1\]: the number -inf"),
    "function": ({"tools": [{"function": print}]}, r"tools\[0\]\.function: <built-in function print>"),
    "surrogate": (messages_with([{"type": "text", "text": "a\udc00"}]), r"messages\[1\]\.content\[0\]\.text: .* at 1;"),
    "surrogate in plain text": (messages_with("\ud800"), r"messages\[1\]\.content: the text is not valid Unicode"),
    "surrogate in a name": ({"metadata_": {"\ud800": 1}}, r"metadata_: the text is not valid Unicode"),
    "name that is a tuple": ({"logit_bias": {(1, 2): 3}}, r"logit_bias: a dict has the key \(1, 2\), of type 'tuple'"),
    "name that is bytes": ({"extra_body": {"a": {b"b": 1}}}, r"extra_body\.a: a dict has the key b'b'"),
    "name that is NaN": ({"logit_bias": {float("nan"): 3}}, r"logit_bias: a dict has the key nan"),
    "one name twice": ({"logit_bias": {1: 1, "1": 2}}, r"logit_bias: a dict has two keys that are both '1'"),
    "odd name": ({"extra_body": {"a b": {"c": print}}}, r"extra_body\['a b'\]\.c: "),
    "circle": ({"x": circle}, r"x\[0\]: the list contains itself"),
    "circle through a dict": ({"extra_body": two_circles}, r"extra_body\.a\[0\]\.b: the dict contains itself"),
    "circle in a message": (messages_with(circle), r"messages\[1\]\.content\[0\]: the list contains itself"),
    "300 levels": ({"x": nested(300)}, r"x\[0\]\[0\].*nested more than 250 levels"),
    "100,000 levels": ({"x": nested(100_000)}, r"x\[0\]\[0\].*nested more than 250 levels"),
    "large integer": ({"seed": 2**64}, r"seed: the integer 18446744073709551616 has more than 64 bits"),
    "small integer": ({"seed": -(2**63) - 1}, r"seed: the integer -9223372036854775809 has more than 64 bits"),
    "bytes": ({"extra_body": {"a": b"x"}}, r"extra_body\.a: b'x', .*base64"),
    "class": ({"extra_body": {"a": Model}}, r"extra_body\.a: the class Model has no JSON form; give an instance"),
    "set without order": ({"stop": {1, "a"}}, r"stop: a set"),
    "generator": ({"tools": (tool for tool in [])}, r"tools: .*give a list"),
    "NOT_GIVEN inside": (
        messages_with([{"type": "text", "text": "a", "x": NOT_GIVEN}]),
        r"\.x: NOT_GIVEN, .*leave the",
    ),
    "no repr": ({"extra_body": {"a": Unprintable()}}, r"extra_body\.a: <Unprintable>"),
    "header": ({"extra_headers": {"x-a": object()}}, r"extra_headers\['x-a'\]: <object"),
    "headers as a list": ({"extra_headers": ["a"]}, r"extra_headers must be a dict, not list"),
}


@pytest.mark.parametrize("name", WRONG)
def test_error_names_the_place(name: str) -> None:
    arguments, pattern = WRONG[name]
    echo = Echo()
    rejoinder.cache = Cache()
    with pytest.raises(InvalidRequest, match=pattern) as caught:
        rejoinder.completion(**{"model": "echo/m", "messages": MESSAGES, "client": echo, **arguments})
    assert str(caught.value).count("\n") == 0
    assert len(str(caught.value)) < 400
    assert echo.calls == 0
    assert rejoinder.cache.stats()["stored"] == 0


def test_error_of_a_call_is_the_error_of_its_key() -> None:
    with pytest.raises(NotJSON, match=r"^seed: the number nan") as caught:
        Cache().get_cache_key(model="echo/m", messages=MESSAGES, seed=float("nan"))
    assert isinstance(caught.value, (rejoinder.RejoinderError, ValueError))


def test_deep_but_possible_arguments_have_a_key() -> None:
    assert key(nested(200)) != key(nested(201))
    openai.wire_json({"x": nested(200)})


def test_error_never_shows_what_a_header_of_credentials_holds() -> None:
    with pytest.raises(NotJSON) as caught:
        request_key(request(extra_headers="Authorization: Bearer secret"))
    assert "secret" not in str(caught.value)


def test_value_within_a_circle_of_models_is_refused() -> None:
    class Node(pydantic.BaseModel):
        other: Any = None

    node = Node()
    node.other = node
    with pytest.raises(NotJSON, match=r"extra_body\.x: a Node that cannot be dumped"):
        key(node)


@given(values)
def test_no_fault_is_found_where_there_is_none(value: Any) -> None:
    assert fault(value, "x") is None


# what is kept beside an entry


def test_component_digests_tell_which_part_differs() -> None:
    one = component_digests(request(parameters={"seed": 1, "top_p": 0.5}, extra_headers={"X-A": "1", "Cookie": "c"}))
    other = component_digests(request(parameters={"seed": 2, "top_p": 0.5}, extra_headers={"x-a": "1"}))
    assert {name for name in one if one[name] != other[name]} == {"parameters"}
    assert one["parameters"]["top_p"] == other["parameters"]["top_p"]
    assert "Say hello" not in json.dumps(one)


def test_component_digests_never_raise() -> None:
    odd = request(parameters={"temperature": float("nan")}, extra_body={"x": circle}, extra_headers={"x": object()})
    digests = component_digests(odd)
    assert digests["parameters"] == {"temperature": ""}
    assert digests["extra_body"] == {"x": ""}


def test_texts_of_a_request_are_json_whatever_it_is() -> None:
    odd = request(parameters={"logit_bias": {1: 2}, "seed": 2**64}, extra_body={"x": circle, "y": b"y"})
    kept = json.loads(json.dumps(texts(odd)))
    assert kept["parameters"] == {"logit_bias": {"1": 2}, "seed": None}
    assert kept["extra_body"] == {"x": None, "y": None}


# keys of the caller's own


class ByModel(Cache):
    def get_cache_key(self, *args: Any, **kwargs: Any) -> str:
        return str(kwargs["model"])


async def ask(is_async: bool, **arguments: Any) -> Any:
    call = {"model": "echo/m", "messages": MESSAGES, **arguments}
    return await rejoinder.acompletion(**call) if is_async else rejoinder.completion(**call)


both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


@both
async def test_key_function_on_the_instance_decides(is_async: bool) -> None:
    cache, echo = Cache(), Echo()
    cache.get_cache_key = lambda *args, **kwargs: "one for all"  # type: ignore[method-assign]
    rejoinder.cache = cache
    await ask(is_async, client=echo)
    answer = await ask(is_async, client=echo, messages=[{"role": "user", "content": "Something else"}])
    assert answer.cache is True
    assert answer.cache_info.key == "default:own:chat:one for all"


@both
async def test_key_function_of_a_subclass_decides(is_async: bool) -> None:
    rejoinder.cache, echo = ByModel(), Echo()
    first = await ask(is_async, client=echo)
    other = await ask(is_async, client=echo, model="echo/other")
    again = await ask(is_async, client=echo, temperature=1)
    assert [answer.cache for answer in (first, other, again)] == [False, False, True]


@both
async def test_key_function_gets_the_callers_own_arguments_by_name(is_async: bool) -> None:
    got: list[tuple[tuple[Any, ...], Mapping[str, Any]]] = []

    def own(*args: Any, **kwargs: Any) -> str:
        got.append((args, kwargs))
        return "k"

    rejoinder.cache, echo = Cache(), Echo()
    rejoinder.cache.get_cache_key = own
    given_arguments = {"messages": MESSAGES, "client": echo, "temperature": 0.0, "response_format": Model, "user": None}
    await ask(is_async, **given_arguments)
    assert got == [((), {"model": "echo/m", **given_arguments})]
    assert got[0][1]["messages"] is MESSAGES


def raising(*args: Any, **kwargs: Any) -> str:
    raise ZeroDivisionError("no key today")


BAD_KEYS: dict[str, tuple[Callable[..., Any], str]] = {
    "raising": (raising, "get_cache_key raised ZeroDivisionError: no key today"),
    "None": (lambda *args, **kwargs: None, "get_cache_key returned None; it must return text"),
    "number": (lambda *args, **kwargs: 5, "get_cache_key returned 5; it must return text"),
    "bytes": (lambda *args, **kwargs: b"k", "get_cache_key returned b'k'"),
    "empty": (lambda *args, **kwargs: "", "get_cache_key returned ''"),
    "without arguments": (lambda: "k", "get_cache_key raised TypeError"),
}


@both
@pytest.mark.parametrize("name", BAD_KEYS)
async def test_failing_key_function_is_an_error(name: str, is_async: bool) -> None:
    function, words = BAD_KEYS[name]
    rejoinder.cache, echo = Cache(), Echo()
    rejoinder.cache.get_cache_key = function
    with pytest.raises(CacheKeyError, match=re.escape(words)):
        await ask(is_async, client=echo)
    assert echo.calls == 0


@both
@pytest.mark.parametrize("name", BAD_KEYS)
async def test_failing_key_function_may_be_skipped(name: str, is_async: bool) -> None:
    rejoinder.cache, echo = Cache(on_key_error="skip"), Echo()
    rejoinder.cache.get_cache_key = BAD_KEYS[name][0]
    answers = [await ask(is_async, client=echo) for _ in range(2)]
    assert [answer.cache for answer in answers] == [False, False]
    assert (echo.calls, rejoinder.cache.stats()["key_errors"], rejoinder.cache.stats()["stored"]) == (2, 2, 0)


@both
async def test_call_with_own_key_may_be_what_default_keys_refuse(is_async: bool) -> None:
    rejoinder.cache, echo = Cache(), Echo()
    rejoinder.cache.get_cache_key = lambda *args, **kwargs: "k"
    odd = {"extra_headers": {"x-a": object()}}
    answers = [await ask(is_async, client=echo, **odd) for _ in range(2)]
    assert [answer.cache for answer in answers] == [False, True]


def test_namespaces_do_not_run_into_keys() -> None:
    echo, first = Echo(), Cache(namespace="a")
    second = Cache(namespace="a:b", store=first.store)
    first.get_cache_key = lambda *args, **kwargs: "b:c"  # type: ignore[method-assign]
    second.get_cache_key = lambda *args, **kwargs: "c"  # type: ignore[method-assign]
    for cache in (first, second):
        assert rejoinder.completion("echo/m", MESSAGES, client=echo, cache=cache).cache is False
    assert first.clear() == 1
    assert rejoinder.completion("echo/m", MESSAGES, client=echo, cache=second).cache is True


# a pydantic class as response_format


class Inner(pydantic.BaseModel):
    x: int = pydantic.Field(description="the x", ge=0)


class Outer(pydantic.BaseModel):
    """Of everything something."""

    maybe: str | None = None
    told: Inner = pydantic.Field(description="words beside a reference")
    many: list[Inner] = []
    either: Inner | str
    by_name: dict[str, int] = {}


class Tree(pydantic.BaseModel):
    children: list[Tree]


class Endless(pydantic.BaseModel):
    inner: Endless = pydantic.Field(description="words beside a reference")


Content = typing.TypeVar("Content")


class Box(pydantic.BaseModel, typing.Generic[Content]):
    content: Content


@pytest.mark.parametrize("kind", [Inner, Outer, Tree, Box[int]])
def test_schema_of_a_class_is_the_one_that_openai_sends(kind: type[pydantic.BaseModel]) -> None:
    from openai.lib._parsing._completions import type_to_response_format_param

    theirs: Any = type_to_response_format_param(kind)
    assert response_format(kind)["json_schema"]["schema"] == theirs["json_schema"]["schema"]


def test_class_has_a_name_that_the_vendor_takes() -> None:
    assert response_format(Box[int])["json_schema"]["name"] == "Box_int_"
    assert len(response_format(type("A" * 100, (Inner,), {}))["json_schema"]["name"]) == 64


def test_schema_that_refers_to_itself_has_an_end() -> None:
    assert response_format(Endless)["json_schema"]["schema"]["properties"]["inner"] == {"$ref": "#/$defs/Endless"}


def test_defaults_and_constants_are_no_schemas() -> None:
    schema = {"type": "object", "properties": {"a": {"default": {"type": "object"}, "const": {"type": "object"}}}}
    assert strict(schema)["properties"]["a"] == {"default": {"type": "object"}, "const": {"type": "object"}}


def test_class_that_is_no_model_is_refused() -> None:
    with pytest.raises(rejoinder.WrongType, match="response_format=int is not a pydantic model class"):
        shape("echo/m", MESSAGES, response_format=int)


# what the wire does not take today, and keys already have


Pair = namedtuple("Pair", "a b")


class Fraction(float):
    """As numpy's float64 is one."""


@pytest.mark.parametrize(
    ("odd", "plain"),
    [(Pair(1, 2), [1, 2]), (deque([1]), [1]), (Fraction(0.5), 0.5), (range(2), [0, 1])],
    ids=["namedtuple", "deque", "float of another class", "range"],
)
def test_odd_value_has_the_key_of_its_plain_form(odd: Any, plain: Any) -> None:
    assert key(odd) == key(plain)
