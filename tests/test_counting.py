"""Tokens counted by the vendor, and documents read: what is sent, what is read, what is recorded."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import random
from pathlib import Path
from typing import Any

import pydantic
import pytest

import rejoinder
from rejoinder.core import endpoint_answers
from rejoinder.core.shape import Misshapen
from rejoinder.core.types import Request
from rejoinder.providers.base import ProviderFault
from rejoinder.providers.table import PROVIDERS, codec, serves
from tests.fixtures.damage import change
from tests.fixtures.endpoint_server import EndpointServer, Reply

Json = dict[str, Any]
FOLDER = Path(os.environ.get("REJOINDER_WIRE_DIR") or Path(__file__).resolve().parents[2] / "shared" / "wire")
USER = {"role": "user", "content": "Hi"}
TALK = [{"role": "system", "content": "S"}, USER]
TOOL = {"type": "function", "function": {"name": "f", "description": "F.", "parameters": {"type": "object"}}}
CLAUDE = "claude-sonnet-4-5"
COUNTS: dict[str, tuple[str, Json]] = {
    f"anthropic/{CLAUDE}": ("/v1/messages/count_tokens", {"input_tokens": 7}),
    "gemini/gemini-2.5-flash": ("/v1/models/gemini-2.5-flash:countTokens", {"totalTokens": 7}),
    "vertex_ai/gemini-2.5-flash": (
        "/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-flash:countTokens",
        {"totalTokens": 7, "totalBillableCharacters": 9},
    ),
    f"vertex_ai/{CLAUDE}": (
        "/v1/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredict",
        {"input_tokens": 7},
    ),
    f"bedrock/anthropic.{CLAUDE}": (f"/v1/model/anthropic.{CLAUDE}/count-tokens", {"inputTokens": 7}),
    f"bedrock_invoke/anthropic.{CLAUDE}": (f"/v1/model/anthropic.{CLAUDE}/count-tokens", {"inputTokens": 7}),
    "openai/gpt-5": ("/v1/responses/input_tokens", {"object": "response.input_tokens", "input_tokens": 7}),
}


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def call(mode: str, name: str, **given: Any) -> Any:
    if mode == "sync":
        return getattr(rejoinder, name)(**given)
    return asyncio.run(getattr(rejoinder, f"a{name}")(**given))


def where(model: str, server: EndpointServer) -> Json:
    base = server.url.removesuffix("/v1") if model.startswith("anthropic/") else server.url
    place = {"vertex_project": "p", "vertex_location": "l"} if model.startswith("vertex") else {}
    return {"model": model, "api_base": base, "api_key": "sk-mock", "num_retries": 0, **place}


@pytest.mark.parametrize("model", COUNTS)
def test_each_vendor_is_asked_for_its_count_once(model: str, mode: str) -> None:
    path, told = COUNTS[model]
    with EndpointServer(lambda _: Reply(json=told)) as server, rejoinder.Cache.memory():
        given = {**where(model, server), "messages": TALK, "tools": [TOOL]}
        first, second = call(mode, "count_tokens", **given), call(mode, "count_tokens", **given)
        other = call(mode, "count_tokens", **{**given, "messages": [USER]})
        assert server.calls == 2
        assert server.requests[0].path == path
    assert (first.input_tokens, first.total_tokens, second.cache, other.cache) == (7, 7, True, False)
    assert first == second
    assert all(first[name] == value for name, value in told.items())


def sent(model: str, messages: Any = TALK, **parameters: Any) -> Json:
    with EndpointServer(lambda _: Reply(json=COUNTS[model][1])) as server:
        rejoinder.count_tokens(**where(model, server), messages=messages, **parameters)
        body: Json = server.requests[0].json
    return body


def test_what_is_counted_is_what_would_be_sent() -> None:
    claude: Json = {
        "messages": [USER],
        "model": CLAUDE,
        "system": "S",
        "tools": [{"name": "f", "description": "F.", "input_schema": {"type": "object"}}],
    }
    assert sent(f"anthropic/{CLAUDE}", tools=[TOOL]) == claude
    assert sent(f"vertex_ai/{CLAUDE}", tools=[TOOL]) == claude
    gemini = sent("gemini/gemini-2.5-flash")["generateContentRequest"]
    assert (gemini["model"], gemini["systemInstruction"]) == ("models/gemini-2.5-flash", {"parts": [{"text": "S"}]})
    assert sent("vertex_ai/gemini-2.5-flash").keys() == {"contents", "systemInstruction"}
    converse = sent(f"bedrock/anthropic.{CLAUDE}", tools=[TOOL])["input"]["converse"]
    assert converse.keys() == {"messages", "system", "toolConfig"}
    body = json.loads(base64.b64decode(sent(f"bedrock_invoke/anthropic.{CLAUDE}")["input"]["invokeModel"]["body"]))
    assert body["anthropic_version"] == "bedrock-2023-05-31"


def test_openai_counts_items_of_its_responses() -> None:
    class Answer(pydantic.BaseModel):
        n: int

    function = {"name": "f", "arguments": "{}"}
    picture = {"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "low"}}
    talk = [
        {"role": "user", "content": [{"type": "text", "text": "Hi"}, picture]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "c", "content": "ok"},
        {"role": "assistant", "content": [{"type": "text", "text": "Ho"}]},
    ]
    body = sent("openai/gpt-5", talk, tools=[TOOL], response_format=Answer, reasoning_effort="low")
    assert body["input"] == [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Hi"},
                {"type": "input_image", "image_url": "https://x.test/a.png", "detail": "low"},
            ],
        },
        {"type": "function_call", "call_id": "c", **function},
        {"type": "function_call_output", "call_id": "c", "output": "ok"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Ho"}]},
    ]
    assert body["tools"] == [{"type": "function", **TOOL["function"]}]  # type: ignore[dict-item]
    assert (body["text"]["format"]["name"], body["reasoning"]) == ("Answer", {"effort": "low"})


def test_extra_body_is_counted_too() -> None:
    assert sent(f"anthropic/{CLAUDE}", extra_body={"more": 1})["more"] == 1
    assert sent(f"bedrock/anthropic.{CLAUDE}", extra_body={"more": 1})["input"]["converse"]["more"] == 1


@pytest.mark.parametrize("model", ["groq/m", "azure/m", "cohere/m", "ollama_chat/m", "openai_compatible/m"])
def test_a_vendor_that_does_not_count_says_so(model: str) -> None:
    for name, given in (("count_tokens", {"messages": TALK}), ("ocr", {"document": b"%PDF"})):
        with pytest.raises(rejoinder.InvalidRequest, match=f"has no endpoint '{name}'"):
            getattr(rejoinder, name)(model=model, api_base="http://x.test", api_key="k", **given)


def test_messages_are_checked_before_anything_is_sent() -> None:
    for messages in (None, "Hi", [], [{"role": "nobody", "content": "x"}], [{"role": "user"}], [3]):
        with pytest.raises(rejoinder.InvalidRequest, match="messages"):
            rejoinder.count_tokens(f"anthropic/{CLAUDE}", messages, api_key="k")  # type: ignore[arg-type]
    with pytest.raises(rejoinder.InvalidRequest, match="has no streams"):
        rejoinder.count_tokens(f"anthropic/{CLAUDE}", TALK, api_key="k", stream=True)  # type: ignore[call-arg]


def test_a_key_function_sees_the_messages() -> None:
    seen: list[Json] = []
    with EndpointServer(lambda _: Reply(json={"input_tokens": 7})) as server, rejoinder.Cache.memory() as cache:
        cache.get_cache_key = lambda *args, **kwargs: seen.append(kwargs) or "key"  # type: ignore[func-returns-value]
        rejoinder.count_tokens(**where(f"anthropic/{CLAUDE}", server), messages=TALK)
    assert seen[0]["messages"] == TALK


def test_it_counts_with_the_echo_too(mode: str) -> None:
    assert (
        call(mode, "count_tokens", model="echo/m", messages=[{"role": "user", "content": "one two"}]).input_tokens == 2
    )


# Recorded traffic

ROWS = {"anthropic": "anthropic", "bedrock": "bedrock", "gemini": "gemini", "vertex": "vertex_ai"}


def recorded(*wires: str) -> list[Any]:
    if not FOLDER.is_dir():
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no recordings in {FOLDER}"))]
    lines = (line for file in sorted(FOLDER.glob("*.jsonl")) for line in file.read_text("utf-8").splitlines())
    items = (item for line in lines if (item := json.loads(line))["wire"] in wires)
    return [pytest.param(item, id=item["id"]) for item in items]


def asked_in(item: Json) -> Json:
    """A recorded count as one would write it in Python. What is in the vendor's own form goes into `extra_body`."""
    sent = dict(item["request"]["json"])
    if "generateContentRequest" in sent:
        sent = {name: value for name, value in sent["generateContentRequest"].items() if name != "model"}
    if "contents" in sent:
        (content,) = sent.pop("contents")
        return {"messages": [{"role": "user", "content": content["parts"][0]["text"]}], "extra_body": sent}
    if "input" in sent and "converse" in sent["input"]:
        (message,) = sent["input"]["converse"]["messages"]
        return {"messages": [{"role": "user", "content": message["content"][0]["text"]}]}
    if "input" in sent:
        sent = json.loads(base64.b64decode(sent["input"]["invokeModel"]["body"]))
        return {"messages": sent.pop("messages"), "extra_body": sent}
    return {"messages": [USER], "extra_body": {name: value for name, value in sent.items() if name != "model"}}


def row_for(item: Json) -> str:
    is_invoke = "invokeModel" in (item["request"]["json"].get("input") or {})
    return "bedrock_invoke" if is_invoke else ROWS[item["provider"]]


def counted_in(asked: Json) -> Json:
    """A request without what says nothing, and without the role of system texts."""
    held = asked.get("input") or {}
    if "invokeModel" in held:
        asked = json.loads(base64.b64decode(held["invokeModel"]["body"]))
    return plain({name: value for name, value in asked.items() if name != "input"} or held.get("converse") or {})


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items() if item not in ([], {}, None)}
    return [plain(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("item", recorded("anthropic_count", "bedrock_count", "gemini_count"))
def test_recorded_counts_are_asked_for_and_read(item: Json, mode: str) -> None:
    response = item["response"]
    reply = Reply(body=response["body"].encode(), status=response["status"])
    with EndpointServer(lambda _: reply) as server:
        model = f"{row_for(item)}/{item['model']}"
        given: Any = {**where(model, server), **asked_in(item)}
        if model.startswith(("gemini", "vertex")):
            given["api_base"] = server.url.removesuffix("/v1") + item["request"]["path"].partition("/projects")[0][:8]
        if response["status"] == 200:
            answer = call(mode, "count_tokens", **given)
            told = json.loads(response["body"])
            assert answer.input_tokens == next(
                told[name] for name in ("input_tokens", "inputTokens", "totalTokens") if name in told
            )
        else:
            kind = {400: rejoinder.BadRequestError, 404: rejoinder.NotFoundError}[response["status"]]
            with pytest.raises(kind):
                call(mode, "count_tokens", **given)
        asked = server.requests[0]
    assert counted_in(asked.json) == counted_in(item["request"]["json"])
    assert asked.path.rsplit("/", 1)[1] == item["request"]["path"].partition("?")[0].rsplit("/", 1)[1]


@pytest.mark.parametrize("item", recorded("mistral_ocr"))
def test_recorded_pages_are_asked_for_and_read(item: Json, mode: str) -> None:
    with EndpointServer(lambda _: Reply(body=item["response"]["body"].encode())) as server, rejoinder.Cache.memory():
        given = {**item["request"]["json"], **where(f"mistral/{item['model']}", server)}
        first, second = call(mode, "ocr", **given), call(mode, "ocr", **given)
        assert server.calls == 1
        assert server.requests[0].json == item["request"]["json"]
        assert server.requests[0].path == item["request"]["path"]
    told = json.loads(item["response"]["body"])
    assert [page.markdown for page in first.pages] == [page["markdown"] for page in told["pages"]]
    assert first.model_dump(exclude={"cache"}, exclude_unset=True, mode="json") == told
    assert (second.cache, second) == (True, first)


# Documents


def document_sent(document: Any, mode: str = "sync", model: str = "mistral/m") -> Any:
    with EndpointServer(lambda _: Reply(json={"pages": []})) as server:
        call(mode, "ocr", **where(model, server), document=document)
        return server.requests[0].json["document"]


def test_a_document_may_be_an_address_or_a_file(tmp_path: Path, mode: str) -> None:
    data = b"%PDF-1.7"
    as_url = {"type": "document_url", "document_url": "data:application/pdf;base64," + base64.b64encode(data).decode()}
    (tmp_path / "a").write_bytes(data)
    files: list[Any] = [data, tmp_path / "a", str(tmp_path / "a"), io.BytesIO(data), {"type": "file", "file": data}]
    for document in files:
        assert document_sent(document, mode) == as_url
    for url, kind in (("https://x.test/a.pdf", "document_url"), ("https://x.test/A.PNG?x=1", "image_url")):
        assert document_sent(url) == {"type": kind, kind: url}
    assert document_sent("data:image/png;base64,eA==")["type"] == "image_url"
    assert document_sent(("a.png", b"x"))["image_url"] == "data:image/png;base64,eA=="
    own = {"type": "file", "file_id": "f"}
    assert document_sent(own) == own


def test_what_is_no_document_is_an_error(tmp_path: Path) -> None:
    for document in (b"", str(tmp_path / "none.pdf"), 3, io.StringIO("x")):
        with pytest.raises(rejoinder.InvalidRequest):
            rejoinder.ocr("mistral/m", document, api_key="k")


def test_mistral_at_azure_reads_at_a_path_of_its_own() -> None:
    with EndpointServer(lambda _: Reply(json={"pages": []})) as server:
        root = server.url.removesuffix("/v1")
        for base in (root, f"{root}/models", f"{root}/providers/mistral/azure/ocr"):
            rejoinder.ocr("azure_ai/mistral-document-ai-2505", b"%PDF", api_base=base, api_key="key")
        assert {asked.path for asked in server.requests} == {"/providers/mistral/azure/ocr"}
        assert server.requests[0].headers["authorization"] == "Bearer key"


# Damage


@pytest.mark.parametrize("model", COUNTS)
def test_damaged_counts_are_faults_and_nothing_else(model: str) -> None:
    row = PROVIDERS["vertex_anthropic" if model.startswith("vertex_ai/claude") else model.partition("/")[0]]
    speaker, chance, faults = codec(row.codec, "count_tokens"), random.Random(model), 0
    assert speaker is not None
    request = Request("count_tokens", row.name, "m", "http://x.test", [USER], {})
    for _ in range(60):
        body = json.dumps(change(COUNTS[model][1], chance)).encode() if chance.random() < 0.8 else chance.randbytes(9)
        try:
            answer = endpoint_answers.READERS["count_tokens"](speaker.decode(body, request))
            assert isinstance(answer.input_tokens, int)
        except (ProviderFault, Misshapen):
            faults += 1
        assert speaker.failure(500, body).message
    assert faults


def test_rows_say_who_counts_and_who_reads() -> None:
    counting = {name for name, row in PROVIDERS.items() if serves(row, "count_tokens")}
    assert counting == {
        *("anthropic", "bedrock", "bedrock_invoke", "echo", "gemini", "openai", "vertex_ai", "vertex_anthropic"),
    }
    assert {name for name, row in PROVIDERS.items() if serves(row, "ocr")} == {"azure_ai", "echo", "mistral"}
