"""A wish for the vendor's prompt cache puts marks where Inspect's algorithm puts them, and nowhere without a wish."""

from __future__ import annotations

import json
from typing import Any

import pytest

import rejoinder
from rejoinder import InvalidRequest
from rejoinder.caching.keys import request_key
from rejoinder.core.types import Options
from rejoinder.providers import table
from rejoinder.providers.deployment import Deployment
from rejoinder.providers.prompt_cache import MOST, Wish, add_points, count_marks, mark_messages, wish_of
from rejoinder.router.shape import shape
from rejoinder.router.vendor import fitted
from tests.fixtures.upstream import Upstream

Json = dict[str, Any]

MARK = {"type": "ephemeral"}
CLAUDE = "anthropic/claude-sonnet-4-5"
ROUTED = "openrouter/anthropic/claude-sonnet-4.5"
SYSTEM = {"role": "system", "content": "Be brief."}
QUESTION = {"role": "user", "content": "Hello"}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def text(said: str, **rest: Any) -> Json:
    return {"type": "text", "text": said, **rest}


def sent(model: str, messages: list[Json], **params: Any) -> Json:
    """The body that goes to the vendor, by the same steps as in a call."""
    request = shape(model, messages, **params)
    row = table.PROVIDERS[request.provider]
    codec = table.codec(row.codec)
    assert codec is not None
    place = Deployment(row, codec, None, request.full_model)  # type: ignore[arg-type]
    body: Json = json.loads(codec.encode(fitted(request, Options(), place), row).body)
    return body


def marked(body: Json) -> list[str]:
    """Where the marks are: "top", "system[0]", "tools[1]", "messages[2][0]"."""
    places = ["top"] if "cache_control" in body else []
    for name in ("system", "tools"):
        blocks = body.get(name) or ()
        places += [f"{name}[{i}]" for i, block in enumerate(blocks) if "cache_control" in block]
    for turn, message in enumerate(body["messages"]):
        content = message["content"] if isinstance(message["content"], list) else ()
        places += [f"messages[{turn}][{i}]" for i, block in enumerate(content) if "cache_control" in block]
    return places


CONVERSATION = [
    SYSTEM,
    {"role": "user", "content": [text("One."), text("Two.")]},
    {"role": "assistant", "content": [text("Three."), text("Four.")]},
    {"role": "user", "content": [text("Five.")]},
]


# Anthropic


@pytest.mark.parametrize("wish", [True, "auto"])
def test_system_tools_the_whole_and_the_block_before_the_last_are_marked(wish: Any) -> None:
    body = sent(CLAUDE, CONVERSATION, tools=[TOOL, TOOL], cache_prompt=wish)
    assert marked(body) == ["top", "system[0]", "tools[1]", "messages[1][1]"]
    assert body["cache_control"] == body["tools"][1]["cache_control"] == MARK
    assert count_marks(body) == MOST


@pytest.mark.parametrize("params", [{}, {"cache_prompt": None}, {"cache_prompt": False}])
def test_without_a_wish_nothing_is_added(params: Json) -> None:
    body = sent(CLAUDE, CONVERSATION, tools=[TOOL], **params)
    assert marked(body) == []
    assert not {"cache_prompt", "cache_ttl"} & body.keys()


def test_lifetime_is_on_each_mark_and_is_a_wish_by_itself() -> None:
    body = sent(CLAUDE, CONVERSATION, tools=[TOOL], cache_ttl="1h")
    assert marked(body) == ["top", "system[0]", "tools[0]", "messages[1][1]"]
    assert json.dumps(body).count('{"type": "ephemeral", "ttl": "1h"}') == MOST


def test_a_refused_wish_counts_before_its_lifetime() -> None:
    assert marked(sent(CLAUDE, CONVERSATION, cache_prompt=False, cache_ttl="1h")) == []


def test_thinking_is_neither_marked_nor_counted() -> None:
    thinking = [{"type": "thinking", "thinking": "…", "signature": "s"}]
    call = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    answered = {"role": "assistant", "content": "", "thinking_blocks": thinking, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "a", "content": "sunny"}
    body = sent(CLAUDE, [QUESTION, answered, result], tools=[TOOL], cache_prompt=True)
    assert [block["type"] for block in body["messages"][1]["content"]] == ["thinking", "tool_use"]
    assert marked(body) == ["top", "tools[0]", "messages[1][1]"]
    body = sent(CLAUDE, [QUESTION, {**answered, "tool_calls": None, "content": "Yes."}, QUESTION], cache_prompt=True)
    assert marked(body) == ["top", "messages[1][1]"]


def test_a_bare_text_becomes_a_block_where_it_is_marked() -> None:
    body = sent(CLAUDE, [SYSTEM, QUESTION, {"role": "assistant", "content": "Hi."}, QUESTION], cache_prompt=True)
    assert body["system"] == [text("Be brief.", cache_control=MARK)]
    assert [message["content"] for message in body["messages"]] == ["Hello", [text("Hi.", cache_control=MARK)], "Hello"]


def test_one_message_has_no_block_before_the_last() -> None:
    assert marked(sent(CLAUDE, [QUESTION], cache_prompt=True)) == ["top"]


def test_a_tool_whose_loading_is_deferred_is_not_marked() -> None:
    body = sent(CLAUDE, [QUESTION], tools=[TOOL, {**TOOL, "defer_loading": True}], cache_prompt=True)
    assert marked(body) == ["top", "tools[0]"]


def test_where_the_whole_cannot_be_marked_the_last_block_is() -> None:
    body = {"messages": [{"role": "user", "content": [text("One."), text("Two.")]}]}
    assert marked(mark_messages(body, Wish(), top_level=False)) == ["messages[0][0]", "messages[0][1]"]


@pytest.mark.parametrize("model", ["claude-2.1", "claude-instant-1.2", "claude-3-sonnet-20240229"])
def test_models_without_a_prompt_cache_get_no_marks(model: str) -> None:
    assert marked(sent(f"anthropic/{model}", CONVERSATION, cache_prompt=True)) == []


@pytest.mark.parametrize("place", ["message", "system", "tool", "top"])
def test_marks_of_the_caller_replace_ours(place: str) -> None:
    messages, tools, params = [dict(message) for message in CONVERSATION], [dict(TOOL)], {}
    if place == "message":
        messages[1] = {**QUESTION, "content": [text("One.", cache_control=MARK), text("Two.")]}
    elif place == "system":
        messages[0] = {**SYSTEM, "cache_control": MARK}
    elif place == "tool":
        tools[0]["cache_control"] = MARK
    else:
        params = {"cache_control": MARK}
    body = sent(CLAUDE, messages, tools=tools, cache_prompt=True, **params)
    where = {"message": "messages[0][0]", "system": "system[0]", "tool": "tools[0]", "top": "top"}
    assert marked(body) == [where[place]]
    assert body == sent(CLAUDE, messages, tools=tools, **params)


@pytest.mark.parametrize("wish", [{}, {"cache_prompt": True}])
def test_a_fifth_mark_is_an_error_before_anything_is_sent(wish: Json) -> None:
    four = [{"role": "user", "content": [text(str(n), cache_control=MARK) for n in range(4)]}]
    assert len(marked(sent(CLAUDE, four, **wish))) == 4
    with pytest.raises(InvalidRequest, match=r"has 5 marks \(cache_control\); Anthropic takes 4 at most"):
        sent(CLAUDE, four, cache_control=MARK, **wish)


def test_a_text_about_marks_is_no_mark() -> None:
    said = [{"role": "user", "content": [text('"cache_control"') for _ in range(6)]}]
    tool = {"name": "x", "input_schema": {"properties": {"cache_control": {"cache_control": {}}}}}
    assert marked(sent(CLAUDE, said, tools=[tool, tool, tool])) == []


@pytest.mark.parametrize(("name", "value"), [("cache_prompt", "yes"), ("cache_prompt", 2), ("cache_ttl", "2h")])
@pytest.mark.parametrize("model", [CLAUDE, "openai/gpt-4o", ROUTED])
def test_a_wish_without_meaning_is_an_error(model: str, name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=name):
        sent(model, [QUESTION], **{name: value})


def test_what_the_caller_gave_is_not_changed() -> None:
    before = json.dumps([CONVERSATION, TOOL])
    for model in (CLAUDE, ROUTED):
        sent(model, CONVERSATION, tools=[TOOL], cache_prompt=True)
    assert json.dumps([CONVERSATION, TOOL]) == before


# Others


def test_openrouter_s_models_of_anthropic_are_marked_by_the_block() -> None:
    messages = [*CONVERSATION, {"role": "tool", "tool_call_id": "a", "content": "sunny"}]
    body = sent(ROUTED, messages, tools=[TOOL, TOOL], cache_prompt=True)
    assert marked(body) == ["tools[1]", "messages[0][0]", "messages[3][0]", "messages[4][0]"]
    assert body["tools"][1] == {**TOOL, "cache_control": MARK}
    assert body["messages"][4]["content"] == [text("sunny", cache_control=MARK)]
    assert not {"cache_prompt", "cache_ttl"} & body.keys()


def test_openrouter_s_marks_of_the_caller_stay_alone() -> None:
    messages = [{"role": "user", "content": [text("Long.", cache_control=MARK)]}, QUESTION]
    assert marked(sent(ROUTED, messages, cache_prompt=True)) == ["messages[0][0]"]


@pytest.mark.parametrize("model", ["openrouter/openai/gpt-4o", "openai/gpt-4o", "deepseek/deepseek-chat", "vllm/x"])
@pytest.mark.parametrize("wish", [{"cache_prompt": "auto"}, {"cache_prompt": True, "cache_ttl": "1h"}])
def test_who_caches_by_itself_is_sent_no_wish(model: str, wish: Json) -> None:
    assert sent(model, CONVERSATION, **wish) == sent(model, CONVERSATION)


def test_openai_s_own_arguments_are_passed() -> None:
    body = sent("openai/gpt-5", [QUESTION], prompt_cache_key="tenant-1", prompt_cache_retention="24h")
    assert (body["prompt_cache_key"], body["prompt_cache_retention"]) == ("tenant-1", "24h")


def test_marks_and_wishes_are_not_in_the_cache_key() -> None:
    plain = request_key(shape(CLAUDE, CONVERSATION, tools=[TOOL]))
    assert request_key(shape(CLAUDE, CONVERSATION, tools=[TOOL], cache_prompt=True, cache_ttl="1h")) == plain
    by_hand = [{**SYSTEM, "cache_control": MARK}, *CONVERSATION[1:]]
    assert request_key(shape(CLAUDE, by_hand, tools=[{**TOOL, "cache_control": MARK}])) == plain


def test_a_call_with_a_wish_is_answered_out_of_the_cache_of_one_without() -> None:
    echo, cache = rejoinder.Echo(["Once."]), rejoinder.Cache()
    for params in ({}, {"cache_prompt": True}):
        answer = rejoinder.completion("echo/x", [QUESTION], client=echo, cache=cache, **params)  # type: ignore[arg-type]
        assert answer.choices[0].message.content == "Once."
    assert answer.cache is True


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_what_reaches_the_vendor_has_marks_and_no_wish(way: str) -> None:
    with Upstream() as upstream:
        params: Json = {"api_base": upstream.url, "api_key": "sk-mock", "cache_prompt": True, "caching": False}
        for model in (ROUTED, "openai/gpt-4o-mini"):
            if way == "sync":
                rejoinder.completion(model, CONVERSATION, **params)
            else:
                await rejoinder.acompletion(model, CONVERSATION, **params)
        routed, plain = (request.json for request in upstream.requests)
    assert marked(routed) == ["messages[0][0]", "messages[2][1]", "messages[3][0]"]
    assert marked(plain) == []
    assert not {"cache_prompt", "cache_ttl"} & (routed.keys() | plain.keys())


# Bedrock

POINT = {"cachePoint": {"type": "default"}}
SONNET = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"


def converse(messages: int, *, system: bool = True, tools: bool = True) -> Json:
    body: Json = {"messages": [{"role": "user", "content": [{"text": str(n)}]} for n in range(messages)]}
    if system:
        body["system"] = [{"text": "Be brief."}]
    if tools:
        body["toolConfig"] = {"tools": [{"toolSpec": {"name": "weather"}}]}
    return body


def pointed(body: Json) -> list[str]:
    places = ["system"] if POINT in body.get("system", []) else []
    places += ["tools"] if POINT in body.get("toolConfig", {}).get("tools", []) else []
    for place, message in enumerate(body["messages"]):
        assert POINT not in message["content"][:-1]
        places += [f"messages[{place}]"] if message["content"][-1] == POINT else []
    return places


@pytest.mark.parametrize(
    ("model", "body", "places"),
    [
        (SONNET, converse(3), ["system", "messages[1]", "messages[2]"]),
        (SONNET, converse(3, system=False), ["tools", "messages[1]", "messages[2]"]),
        (SONNET, converse(1), ["system"]),
        (SONNET, converse(1, system=False, tools=False), []),
        ("amazon.nova-pro-v1:0", converse(2), ["system", "messages[0]", "messages[1]"]),
        ("amazon.nova-pro-v1:0", converse(2, system=False), ["messages[0]", "messages[1]"]),
        ("meta.llama3-70b-instruct-v1:0", converse(3), []),
        ("anthropic.claude-v2:1", converse(3), []),
        ("anthropic.claude-3-sonnet-20240229-v1:0", converse(3), []),
    ],
)
def test_points_of_bedrock(model: str, body: Json, places: list[str]) -> None:
    before = json.dumps(body)
    assert pointed(add_points(body, wish_of({"cache_prompt": True}, model), model)) == places
    assert json.dumps(body) == before


def test_points_of_the_caller_stay_alone() -> None:
    body = converse(3)
    body["messages"][0]["content"].append(POINT)
    assert add_points(body, Wish(), SONNET) == body


def test_points_have_a_lifetime() -> None:
    body = add_points(converse(1), wish_of({"cache_ttl": "1h"}, SONNET), SONNET)
    assert body["system"][-1] == {"cachePoint": {"type": "default", "ttl": "1h"}}


def test_no_wish_no_points() -> None:
    assert add_points(converse(3), wish_of({}, SONNET), SONNET) == converse(3)


def test_a_row_s_kind_of_prompt_cache_is_one_that_is_known() -> None:
    assert {row.prompt_cache for row in table.ROWS} <= {"", "automatic", "top_level", "blocks", "points"}
