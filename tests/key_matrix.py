"""The key matrix as data: pairs of calls that differ in one thing, and whether one stored answer may serve both.

`tests/test_key_matrix.py` makes each pair of calls. `docs/keys.md` shows the matrix beside what litellm does with the
same pairs, as recorded by `tests/key_matrix_litellm.py`. To bring the page up to date:

    python -m tests.key_matrix
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import pathlib
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple

import openai
import pydantic
from openai.types.chat import ChatCompletionMessage

UPSTREAM = "http://upstream.invalid"
"""Stands for a server. The environment says that OpenAI is at `UPSTREAM`/v1; a runner may put another address here."""

SAME, DIFFERENT, REFUSED = "same", "different", "refused"
"""What is right: one answer serves both; two answers; the second call is an error and nothing is sent."""


class Case(NamedTuple):
    what: str
    verdict: str
    one: dict[str, Any]
    other: dict[str, Any]
    around_one: Mapping[str, Any] = MappingProxyType({})
    around_other: Mapping[str, Any] = MappingProxyType({})
    """What is not an argument of the call: "seed", "epoch", "scopes"."""
    ours: bool = False
    """Not to be asked of litellm: it has no such thing."""


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def say(content: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [user(content, **more)]}


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def tool(name: str = "weather", description: str = "The weather.", **more: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}, **more}


def upside_down(value: Any) -> Any:
    """`value` with the order of every dict turned round."""
    if isinstance(value, dict):
        return {name: upside_down(value[name]) for name in reversed(value)}
    return [upside_down(item) for item in value] if isinstance(value, list) else value


def called(identity: str, **more: Any) -> dict[str, Any]:
    """A conversation with a tool call."""
    call = {"id": identity, "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}, **more}
    return {
        "messages": [
            user("Weather?"),
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": identity, "content": "rain"},
        ]
    }


class City(pydantic.BaseModel):
    name: str
    people: int


class Town(pydantic.BaseModel):
    name: str
    people: int


CityWithRiver = pydantic.create_model("City", name=(str, ...), people=(int, ...), river=(str, ...))
CITY_SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "City",
        "strict": True,
        "schema": {
            "title": "City",
            "type": "object",
            "properties": {
                "name": {"title": "Name", "type": "string"},
                "people": {"title": "People", "type": "integer"},
            },
            "required": ["name", "people"],
            "additionalProperties": False,
        },
    },
}


class Effort(enum.Enum):
    LOW = "low"
    HIGH = "high"


@dataclasses.dataclass
class Options:
    depth: int
    width: float = 1.0


MARKED = {"cache_control": {"type": "ephemeral"}}
BOOK = "It was a bright cold day in April, and the clocks were striking thirteen. " * 41_000
NOON = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)
THINKER = {"model": "openai/gpt-5-mini"}
VLLM = {"model": "hosted_vllm/llama", "api_base": f"{UPSTREAM}/v1"}
BASE: dict[str, Any] = {"model": "openai/gpt-4o-mini", **say("Say hello.")}


def body(**more: Any) -> dict[str, Any]:
    return {"extra_body": more}


def headers(**more: str) -> dict[str, Any]:
    return {"extra_headers": {name.replace("_", "-"): value for name, value in more.items()}}


MATRIX: dict[str, tuple[Case, ...]] = {
    "Where it goes": (
        Case("nothing", SAME, {}, {}),
        Case("`model`", DIFFERENT, {}, {"model": "openai/gpt-4o"}),
        Case("provider", DIFFERENT, VLLM, {**VLLM, "model": "openai/llama"}),
        Case("`api_base`", DIFFERENT, {"api_base": f"{UPSTREAM}/a"}, {"api_base": f"{UPSTREAM}/b"}),
        Case("`api_base` with a slash at its end", SAME, {"api_base": f"{UPSTREAM}/a"}, {"api_base": f"{UPSTREAM}/a/"}),
        Case("`api_base` absent, or the default given", SAME, {}, {"api_base": f"{UPSTREAM}/v1"}),
        Case("`base_url` for `api_base`", SAME, {"api_base": f"{UPSTREAM}/a"}, {"base_url": f"{UPSTREAM}/a"}),
        Case("`api_version`", DIFFERENT, {"api_version": "2026-01-01"}, {"api_version": "2026-02-01"}),
        Case("`api_key`", SAME, {"api_key": "key-one"}, {"api_key": "key-two"}),
    ),
    "Messages": (
        Case("role", DIFFERENT, {}, {"messages": [{"role": "system", "content": "Say hello."}]}),
        Case("content", DIFFERENT, {}, say("Say goodbye.")),
        Case("content: white space", DIFFERENT, {}, say("Say hello. ")),
        Case("content: Unicode composed or decomposed", DIFFERENT, say("caf\u00e9"), say("cafe\u0301")),
        Case("content: one byte of 3 MB", DIFFERENT, say(BOOK), say(BOOK[:-1] + "!")),
        Case("content: 3 MB, equal but not identical", SAME, say(BOOK), say("".join(list(BOOK)))),
        Case("content: text, or one text part", DIFFERENT, {}, say([text("Say hello.")])),
        Case("`name`", DIFFERENT, say("Hi", name="Ann"), say("Hi", name="Bob")),
        Case(
            "order of messages", DIFFERENT, {"messages": [user("a"), user("b")]}, {"messages": [user("b"), user("a")]}
        ),
        Case("order of a message's names", SAME, {}, {"messages": [upside_down(user("Say hello."))]}),
        Case("list, or tuple", SAME, {}, {"messages": (user("Say hello."),)}),
        Case("dict, or OrderedDict", SAME, {}, {"messages": [OrderedDict(user("Say hello."))]}),
        Case(
            "dict, or the SDK's message",
            SAME,
            {"messages": [user("a"), {"role": "assistant", "content": "b"}, user("c")]},
            {"messages": [user("a"), ChatCompletionMessage(role="assistant", content="b"), user("c")]},
        ),
        Case("image URL", DIFFERENT, say([image("https://a.example/1")]), say([image("https://a.example/2")])),
        Case("order of parts", DIFFERENT, say([text("a"), text("b")]), say([text("b"), text("a")])),
        Case("parts: list, or tuple", SAME, say([text("a"), text("b")]), say((text("a"), text("b")))),
        Case("prompt-cache mark on a message", SAME, {}, say("Say hello.", **MARKED)),
        Case("prompt-cache mark on a part", SAME, say([text("a")]), say([text("a", **MARKED)])),
        Case("prompt-cache mark on a tool call", SAME, called("call_1"), called("call_1", **MARKED)),
        Case("id of a tool call", DIFFERENT, called("call_1"), called("call_2")),
    ),
    "Sampling and length": (
        Case("`temperature` 0, or 0.0", SAME, {"temperature": 0}, {"temperature": 0.0}),
        Case("`temperature` 0.0, or -0.0", SAME, {"temperature": 0.0}, {"temperature": -0.0}),
        Case("`temperature` 1, or 1.0", SAME, {"temperature": 1}, {"temperature": 1.0}),
        Case("`temperature`", DIFFERENT, {"temperature": 0}, {"temperature": 0.1}),
        Case("`temperature`: the next float", DIFFERENT, {"temperature": 0.3}, {"temperature": 0.1 + 0.2}),
        Case("`temperature` absent, or 0", DIFFERENT, {}, {"temperature": 0}),
        Case("`top_p`", DIFFERENT, {"top_p": 0.5}, {"top_p": 0.9}),
        Case("`seed`", DIFFERENT, {"seed": 1}, {"seed": 2}),
        Case('`seed` 1, or "1"', DIFFERENT, {"seed": 1}, {"seed": "1"}),
        Case("`seed` 1, or True", DIFFERENT, {"seed": 1}, {"seed": True}),
        Case("`seed` 2⁵³, or 2⁵³ + 1", DIFFERENT, {"seed": 2**53}, {"seed": 2**53 + 1}),
        Case("`n`", DIFFERENT, {"n": 1}, {"n": 2}),
        Case("`stop`", DIFFERENT, {"stop": ["a"]}, {"stop": ["b"]}),
        Case("`stop` absent, or an empty list", DIFFERENT, {}, {"stop": []}),
        Case("`stop`: list, or set", SAME, {"stop": ["a", "b"]}, {"stop": {"b", "a"}}),
        Case("`max_tokens`", DIFFERENT, {"max_tokens": 10}, {"max_tokens": 20}),
        Case("`max_tokens`, or `max_completion_tokens`", DIFFERENT, {"max_tokens": 9}, {"max_completion_tokens": 9}),
        Case("`logit_bias`", DIFFERENT, {"logit_bias": {"50256": -100}}, {"logit_bias": {"50256": 100}}),
        Case("`logit_bias` by number, or by text", SAME, {"logit_bias": {50256: 1}}, {"logit_bias": {"50256": 1}}),
        Case("`logprobs`", DIFFERENT, {"logprobs": True}, {"logprobs": False}),
        Case(
            "`reasoning_effort`",
            DIFFERENT,
            {**THINKER, "reasoning_effort": "low"},
            {**THINKER, "reasoning_effort": "high"},
        ),
    ),
    "Tools and response format": (
        Case("`tools`: absent, or one", DIFFERENT, {}, {"tools": [tool()]}),
        Case("`tools` absent, or an empty list", DIFFERENT, {}, {"tools": []}),
        Case("`tools`: description", DIFFERENT, {"tools": [tool()]}, {"tools": [tool(description="The sky.")]}),
        Case("`tools`: order of names, at any depth", SAME, {"tools": [tool()]}, {"tools": [upside_down(tool())]}),
        Case("order of `tools`", DIFFERENT, {"tools": [tool("a"), tool("b")]}, {"tools": [tool("b"), tool("a")]}),
        Case("prompt-cache mark on a tool", SAME, {"tools": [tool()]}, {"tools": [tool(**MARKED)]}),
        Case(
            "`tool_choice`",
            DIFFERENT,
            {"tools": [tool()], "tool_choice": "auto"},
            {"tools": [tool()], "tool_choice": "required"},
        ),
        Case("`response_format`: another class", DIFFERENT, {"response_format": City}, {"response_format": Town}),
        Case(
            "`response_format`: a further field",
            DIFFERENT,
            {"response_format": City},
            {"response_format": CityWithRiver},
        ),
        Case(
            "`response_format`: class, or its schema", SAME, {"response_format": City}, {"response_format": CITY_SCHEMA}
        ),
        Case("`response_format` absent, or JSON", DIFFERENT, {}, {"response_format": {"type": "json_object"}}),
    ),
    "Vendor parameters and headers": (
        Case("`extra_body`", DIFFERENT, body(top_k=1), body(top_k=2)),
        Case("`extra_body`: absent, or some", DIFFERENT, {}, body(top_k=1)),
        Case("`extra_body`: absent, or empty", SAME, {}, {"extra_body": {}}),
        Case("`extra_body`, deep inside", DIFFERENT, body(a={"b": [{"c": 1}]}), body(a={"b": [{"c": 2}]})),
        Case("`extra_body`: order of names", SAME, body(a=1, b={"c": 1, "d": 2}), body(b={"d": 2, "c": 1}, a=1)),
        Case("a parameter that OpenAI does not know", DIFFERENT, {**VLLM, "top_k": 1}, {**VLLM, "top_k": 2}),
        Case("the same, absent or given", DIFFERENT, VLLM, {**VLLM, "repetition_penalty": 1.1}),
        Case("header that changes the answer", DIFFERENT, headers(x_beta="one"), headers(x_beta="two")),
        Case("header: case of its name", SAME, headers(X_Beta="one"), headers(x_beta="one")),
        Case(
            "header with a credential", SAME, headers(Authorization="Bearer one"), headers(Authorization="Bearer two")
        ),
        Case("header of tracing", SAME, headers(traceparent="00-1-1-01"), headers(traceparent="00-2-2-01")),
        Case("`user`", DIFFERENT, {"user": "ann"}, {"user": "bob"}),
        Case("`prompt_cache_key`", SAME, {"prompt_cache_key": "a"}, {"prompt_cache_key": "b"}),
    ),
    "How it is sent": (
        Case("order of arguments", SAME, {"temperature": 0, "seed": 1}, {"seed": 1, "temperature": 0}),
        Case("`stream`", SAME, {}, {"stream": True}),
        Case("`stream`, the other way round", SAME, {"stream": True}, {}),
        Case("`stream_options`", SAME, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        Case("`timeout`", SAME, {"timeout": 30}, {"timeout": 60}),
        Case("`num_retries`", SAME, {"num_retries": 0}, {"num_retries": 1}),
        Case("`max_retries`", SAME, {"max_retries": 0}, {"max_retries": 1}),
        Case("`fallbacks`", SAME, {}, {"fallbacks": ["openai/gpt-4o"]}),
        Case("`metadata`", SAME, {"metadata": {"run": "1"}}, {"metadata": {"run": "2"}}),
        Case("`drop_params`", SAME, {}, {"drop_params": True}),
        Case("`caching=True`", SAME, {}, {"caching": True}),
        Case("`cache={'ttl'}`", SAME, {"cache": {"ttl": 60}}, {"cache": {"ttl": 120}}),
        Case("`cache={'s-maxage'}`", SAME, {}, {"cache": {"s-maxage": 60}}),
    ),
    "Whose answers": (
        Case("`cache={'namespace'}`", DIFFERENT, {"cache": {"namespace": "a"}}, {"cache": {"namespace": "b"}}),
        Case("`cache={'sample'}`", DIFFERENT, {"cache": {"sample": 1}}, {"cache": {"sample": 2}}, ours=True),
        Case("`cache_seed`", DIFFERENT, {}, {}, {"seed": 1}, {"seed": 2}, ours=True),
        Case('`cache_seed` 42, or "42"', SAME, {}, {}, {"seed": 42}, {"seed": "42"}, ours=True),
        Case(
            'seed "a#1", or seed "a" with sample 1',
            DIFFERENT,
            {},
            {"cache": {"sample": 1}},
            {"seed": "a#1"},
            {"seed": "a"},
            ours=True,
        ),
        Case("epoch", DIFFERENT, {}, {}, {"epoch": 1}, {"epoch": 2}, ours=True),
        Case("scopes", DIFFERENT, {}, {}, {"scopes": {"tenant": "a"}}, {"scopes": {"tenant": "b"}}, ours=True),
        Case(
            "order of scopes",
            SAME,
            {},
            {},
            {"scopes": {"a": "1", "b": "2"}},
            {"scopes": {"b": "2", "a": "1"}},
            ours=True,
        ),
    ),
    "Values that JSON does not know": (
        Case("None, or absent", SAME, {}, {"temperature": None}),
        Case("`NOT_GIVEN`, or absent", SAME, {}, {"temperature": openai.NOT_GIVEN}),
        Case("`omit`, or absent", SAME, {}, {"temperature": openai.omit}),
        Case(
            "Enum, or its value",
            SAME,
            {**THINKER, "reasoning_effort": "low"},
            {**THINKER, "reasoning_effort": Effort.LOW},
        ),
        Case(
            "another Enum",
            DIFFERENT,
            {**THINKER, "reasoning_effort": Effort.LOW},
            {**THINKER, "reasoning_effort": Effort.HIGH},
        ),
        Case("Path, or its text", SAME, body(at="a/b"), body(at=pathlib.PurePosixPath("a/b"))),
        Case("another Path", DIFFERENT, body(at=pathlib.PurePosixPath("a")), body(at=pathlib.PurePosixPath("b"))),
        Case("datetime, or its text", SAME, body(at=NOON.isoformat()), body(at=NOON)),
        Case("another datetime", DIFFERENT, body(at=NOON), body(at=NOON + datetime.timedelta(seconds=1))),
        Case("UUID, or its text", SAME, body(at=str(uuid.UUID(int=7))), body(at=uuid.UUID(int=7))),
        Case("dataclass, or its dict", SAME, body(o={"depth": 1, "width": 1.0}), body(o=Options(1))),
        Case("another dataclass", DIFFERENT, body(o=Options(1)), body(o=Options(2))),
        Case(
            "pydantic model, or its dict",
            SAME,
            body(o={"name": "Ulm", "people": 1}),
            body(o=City(name="Ulm", people=1)),
        ),
        Case("another set", DIFFERENT, body(o={"a", "b"}), body(o={"a", "c"})),
        Case("a dict that looks like a tag, or the set", DIFFERENT, body(o={"a"}), body(o={"$set": ["a"]})),
        Case("bytes", REFUSED, {}, body(o=b"abc")),
        Case("Decimal", REFUSED, {}, body(o=Decimal("0.5"))),
        Case("NaN", REFUSED, {}, {"temperature": float("nan")}),
        Case("infinity", REFUSED, {}, {"temperature": float("inf")}),
        Case("an integer of more than 64 bits", REFUSED, {}, {"seed": 2**64}),
        Case("a function", REFUSED, {}, body(o=print)),
        Case("text with a lone surrogate", REFUSED, {}, say("\ud800")),
        Case('a dict with 1 and "1"', REFUSED, {}, {"logit_bias": {1: 1, "1": 2}}),
    ),
}

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "keys.md"
RECORDED = pathlib.Path(__file__).parent / "data" / "litellm_key_matrix.json"
BEGIN, END = "<!-- the matrix: written by python -m tests.key_matrix -->", "<!-- the end of the matrix -->"

RIGHT = {SAME: "hit", DIFFERENT: "miss", REFUSED: "error"}
WORDS = {SAME: "one", DIFFERENT: "two", REFUSED: "none: an error"}
FAULTS = {
    (DIFFERENT, "hit"): "**hit: wrong answer**",
    (SAME, "miss"): "miss: paid twice",
    (REFUSED, "hit"): "hit: not looked at",
    (REFUSED, "miss"): "miss: sent",
}


def name_of(section: str, case: Case) -> str:
    """What a case is called in the records."""
    return f"{section}: {case.what}"


def cases() -> list[tuple[str, Case]]:
    return [(section, case) for section, group in MATRIX.items() for case in group]


def table() -> str:
    """The matrix as the page shows it."""
    record = json.loads(RECORDED.read_text())
    lines = [f"{len(cases())} pairs. litellm is {record['version']}, run on {record['date']}.", ""]
    for section, group in MATRIX.items():
        lines += [
            f"### {section}",
            "",
            "| the two calls differ in | answers | rejoinder | litellm |",
            "|---|---|---|---|",
        ]
        for case in group:
            theirs = record["results"].get(name_of(section, case), {"result": "—"})["result"]
            said = FAULTS.get((case.verdict, theirs), theirs)
            lines.append(f"| {case.what} | {WORDS[case.verdict]} | {RIGHT[case.verdict]} | {said} |")
        lines.append("")
    return "\n".join(lines + summary(record))


def summary(record: dict[str, Any]) -> list[str]:
    """How often litellm serves a wrong answer, pays twice, or fails."""
    known = {name_of(section, case): case.verdict for section, case in cases()}
    results = [(known[name], entry["result"]) for name, entry in record["results"].items() if name in known]
    wrong = results.count((DIFFERENT, "hit"))
    twice = results.count((SAME, "miss"))
    failed = sum(result == "error" and verdict != REFUSED for verdict, result in results)
    return [
        f"Of the {len(results)} pairs that mean something to it, litellm serves a wrong answer for {wrong}, "
        f"pays twice for {twice}, and fails on {failed}.",
        "",
    ]


def page(current: str) -> str:
    """`current`, with the matrix as it is now."""
    before, _, rest = current.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
