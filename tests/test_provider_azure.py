"""OpenAI's protocol at Azure: URLs and headers as the openai package's own client sends them, and what filters say."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai
import pytest

import rejoinder
from rejoinder import Cache
from rejoinder.core.api_errors import (
    AuthenticationError,
    BadRequestError,
    ContentPolicyViolation,
    ContextWindowExceeded,
    InvalidRequest,
    MissingAPIKey,
)
from rejoinder.providers.azure import AzureCodec
from rejoinder.providers.openai import OpenAICodec
from rejoinder.providers.table import PROVIDERS
from rejoinder.router.shape import options_of, shape
from tests.fixtures.calls import both, both_streams

Json = dict[str, Any]

MESSAGES = [{"role": "user", "content": "Hello"}]
VERSION = "2024-12-01-preview"
PER_CALL = {
    "accept-encoding",  # what the transport can read
    "content-length",
    "host",
    "x-stainless-async",
    "x-stainless-read-timeout",
    "x-stainless-retry-count",
    "x-stainless-timeout",
}
SAFE = {"hate": {"filtered": False, "severity": "safe"}}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-2024-08-06",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Hello"},
            "content_filter_results": SAFE,
        }
    ],
    "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": SAFE}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


class Resource:
    """An Azure resource of our own: records what it is sent and answers `status` and `body`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.seen: list[tuple[str, dict[str, str], Json]] = []
        self.status, self.body = 200, json.dumps(ANSWER).encode()

    @property
    def last(self) -> tuple[str, dict[str, str], Json]:
        return self.seen[-1]


@pytest.fixture
def resource(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resource]:
    row = PROVIDERS["azure"]
    for name in (*row.key_env, *row.base_env, *row.version_env):
        monkeypatch.delenv(name, raising=False)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            found.seen.append((self.path, headers, json.loads(asked)))
            self.send_response(found.status)
            kind = "text/event-stream" if found.body.startswith(b"data:") else "application/json"
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(found.body)))
            self.end_headers()
            self.wfile.write(found.body)

        def log_message(self, *args: Any) -> None:
            """Nothing: the test has what was sent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Resource(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()


def at(resource: Resource, **params: Any) -> Json:
    """Where and how; a credential or version of the test's own counts."""
    base = {"model": "azure/my-gpt", "messages": MESSAGES, "api_base": resource.url, "num_retries": 0}
    credential = {} if {"azure_ad_token", "azure_ad_token_provider"} & params.keys() else {"api_key": "sk-azure"}
    return {**base, "api_version": VERSION, **credential, **params}


def lasting(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in PER_CALL}


# Where calls go, against the vendor's SDK over a real socket.


@both
@pytest.mark.parametrize("credential", [{"api_key": "sk-azure"}, {"azure_ad_token": "entra-token"}])
def test_url_headers_and_body_are_those_of_the_sdk(ask: Any, credential: Json, resource: Resource) -> None:
    sdk = openai.AzureOpenAI(azure_endpoint=resource.url, api_version=VERSION, max_retries=0, **credential)
    sdk.chat.completions.create(model="my-gpt", messages=MESSAGES, temperature=0)
    ask(**at(resource, temperature=0, **credential))
    (their_path, their_headers, their_body), (our_path, our_headers, our_body) = resource.seen
    assert our_path == their_path == f"/openai/deployments/my-gpt/chat/completions?api-version={VERSION}"
    assert our_body == their_body
    assert lasting(our_headers) == lasting(their_headers)


def test_vectors_go_where_the_sdk_sends_them(resource: Resource) -> None:
    vectors = {"object": "list", "model": "e", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}]}
    resource.body = json.dumps({**vectors, "usage": {"prompt_tokens": 1, "total_tokens": 1}}).encode()
    sdk = openai.AzureOpenAI(azure_endpoint=resource.url, api_version=VERSION, api_key="sk-azure")
    sdk.embeddings.create(model="my-vectors", input=["a"], encoding_format="float")
    where = {"api_base": resource.url, "api_version": VERSION, "api_key": "sk-azure"}
    answer = rejoinder.embedding("azure/my-vectors", ["a"], **where)
    assert answer.data[0].embedding == [0.5]
    assert resource.seen[1][0] == resource.seen[0][0]
    assert resource.seen[1][1]["api-key"] == resource.seen[0][1]["api-key"]


def test_each_deployment_has_a_url_of_its_own(resource: Resource) -> None:
    for name in ("one", "two", "one", "with space"):
        rejoinder.completion(**at(resource, model=f"azure/{name}"))
    names = [path.split("/")[3] for path, _, _ in resource.seen]
    assert names == ["one", "two", "one", "with%20space"]


@pytest.mark.parametrize(
    ("tail", "version", "path"),
    [
        ("", None, "/openai/v1/chat/completions"),
        ("/openai", None, "/openai/v1/chat/completions"),
        ("/openai", VERSION, f"/openai/deployments/my-gpt/chat/completions?api-version={VERSION}"),
        ("/openai/v1", None, "/openai/v1/chat/completions"),
        ("/openai/v1/", "preview", "/openai/v1/chat/completions?api-version=preview"),
        ("/openai/v1", VERSION, "/openai/v1/chat/completions"),
        ("/openai/deployments/other", VERSION, f"/openai/deployments/other/chat/completions?api-version={VERSION}"),
        (
            "/openai/deployments/other/chat/completions?api-version=2025-01-01-preview",
            None,
            "/openai/deployments/other/chat/completions?api-version=2025-01-01-preview",
        ),
        ("/models", "2024-05-01-preview", "/models/chat/completions?api-version=2024-05-01-preview"),
    ],
)
def test_base_urls_in_all_their_forms(tail: str, version: str | None, path: str, resource: Resource) -> None:
    rejoinder.completion(**at(resource, api_base=resource.url + tail, api_version=version))
    assert resource.last[0] == path


def test_the_version_less_api_is_called_as_openai_s_own_client_does(resource: Resource) -> None:
    sdk = openai.OpenAI(base_url=f"{resource.url}/openai/v1", api_key="sk-azure")
    sdk.chat.completions.create(model="my-gpt", messages=MESSAGES)
    rejoinder.completion(**at(resource, api_version=None))
    (their_path, their_headers, their_body), (our_path, our_headers, our_body) = resource.seen
    assert (our_path, our_body) == (their_path, their_body)
    assert our_headers["authorization"] == their_headers["authorization"] == "Bearer sk-azure"


def test_models_of_other_vendors_take_the_key_in_azure_s_header(resource: Resource) -> None:
    rejoinder.completion(**at(resource, model="azure_ai/grok-4", api_base=f"{resource.url}/models"))
    _, headers, body = resource.last
    assert (headers["api-key"], "authorization" in headers, body["model"]) == ("sk-azure", False, "grok-4")


def test_a_deployment_s_url_needs_a_version(resource: Resource) -> None:
    with pytest.raises(InvalidRequest, match="needs an API version"):
        rejoinder.completion(**at(resource, api_base=f"{resource.url}/openai/deployments/x", api_version=None))


# Credentials and the environment.


def test_everything_may_come_from_the_environment(resource: Resource, monkeypatch: pytest.MonkeyPatch) -> None:
    for base, version, key in (
        ("AZURE_API_BASE", "AZURE_API_VERSION", "AZURE_API_KEY"),
        ("AZURE_OPENAI_ENDPOINT", "OPENAI_API_VERSION", "AZURE_OPENAI_API_KEY"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(base, f"{resource.url}/")
            patch.setenv(version, VERSION)
            patch.setenv(key, f"of-{key}")
            rejoinder.completion("azure/my-gpt", MESSAGES)
        path, headers, _ = resource.last
        assert path == f"/openai/deployments/my-gpt/chat/completions?api-version={VERSION}"
        assert headers["api-key"] == f"of-{key}"


@pytest.mark.parametrize("name", ["AZURE_OPENAI_AD_TOKEN", "AZURE_AD_TOKEN"])
def test_a_token_of_the_environment_is_sent_as_one(
    name: str, resource: Resource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, f"token-of-{name}")
    rejoinder.completion(**at(resource, api_key=None))
    headers = resource.last[1]
    assert (headers["authorization"], "api-key" in headers) == (f"Bearer token-of-{name}", False)


@both
def test_a_provider_of_tokens_is_asked_before_each_call(ask: Any, resource: Resource) -> None:
    tokens = iter(("first", "second"))
    for token in ("first", "second"):
        ask(**at(resource, azure_ad_token_provider=lambda: next(tokens)))
        assert resource.last[1]["authorization"] == f"Bearer {token}"


async def gives_later() -> str:
    return "token"


@pytest.mark.parametrize("give", [gives_later, lambda: None, lambda: ""])
def test_a_provider_of_tokens_that_gives_none_is_a_clear_error(give: Any, resource: Resource) -> None:
    with pytest.raises(InvalidRequest, match="azure_ad_token_provider gave a"):
        rejoinder.completion(**at(resource, azure_ad_token_provider=give))


def test_two_credentials_are_one_too_many(resource: Resource) -> None:
    with pytest.raises(InvalidRequest, match="Give one of"):
        rejoinder.completion(**at(resource, azure_ad_token="t", api_key="k"))


def test_equal_providers_of_tokens_are_equal_terms() -> None:
    def give() -> str:
        return "token"

    first, second, other = (options_of({"azure_ad_token_provider": it}) for it in (give, give, lambda: "token"))
    assert first.terms == second.terms
    assert first.terms != other.terms


def test_what_is_missing_is_said(resource: Resource) -> None:
    with pytest.raises(MissingAPIKey, match="AZURE_API_KEY or AZURE_OPENAI_API_KEY"):
        rejoinder.completion(**at(resource, api_key=None))
    with pytest.raises(InvalidRequest, match="AZURE_API_BASE or AZURE_OPENAI_ENDPOINT"):
        rejoinder.completion("azure/my-gpt", MESSAGES)


def test_the_version_is_in_the_key_wherever_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_API_VERSION", VERSION)
    given = shape("azure/m", MESSAGES, api_base="https://a", api_version=VERSION)
    assert shape("azure/m", MESSAGES, api_base="https://a") == given
    monkeypatch.setenv("AZURE_API_VERSION", "2025-01-01-preview")
    assert shape("azure/m", MESSAGES, api_base="https://a").api_version == "2025-01-01-preview"


def test_credentials_are_not_in_the_key(resource: Resource) -> None:
    cache = Cache()
    first = rejoinder.completion(**at(resource, cache=cache))
    again = rejoinder.completion(**at(resource, cache=cache, azure_ad_token="entra-token"))
    assert (first.cache, again.cache, len(resource.seen)) == (False, True, 1)


@pytest.mark.parametrize("is_async", [False, True])
def test_the_caller_s_own_client_may_be_given(is_async: bool, resource: Resource) -> None:
    kind = openai.AsyncAzureOpenAI if is_async else openai.AzureOpenAI
    client = kind(azure_endpoint=resource.url, api_version=VERSION, api_key="of-the-client")
    if is_async:
        answer = asyncio.run(rejoinder.acompletion("azure/my-gpt", MESSAGES, client=client))
    else:
        answer = rejoinder.completion("azure/my-gpt", MESSAGES, client=client)
    assert answer.choices[0].message.content == "Hello"
    path, headers, _ = resource.last
    assert path == f"/openai/deployments/my-gpt/chat/completions?api-version={VERSION}"
    assert headers["api-key"] == "of-the-client"


# What filters found.


@both
def test_what_filters_found_is_kept(ask: Any, resource: Resource) -> None:
    answer = ask(**at(resource))
    assert answer.choices[0].content_filter_results == SAFE
    assert answer.prompt_filter_results[0]["content_filter_results"] == SAFE


def events(*chunks: Json) -> bytes:
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


def piece(delta: Json | None, **choice: Any) -> Json:
    said = {"index": 0, "finish_reason": None, **choice}
    if delta is not None:
        said["delta"] = delta
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o", "choices": [said]}


PROMPT_FILTERED = {
    "id": "",
    "object": "",
    "created": 0,
    "model": "",
    "choices": [],
    "prompt_filter_results": ANSWER["prompt_filter_results"],
}
OFFSETS = {"check_offset": 0, "start_offset": 0, "end_offset": 5}


@both_streams
def test_a_stream_begins_with_what_filters_say_of_the_prompt(read: Any, resource: Resource) -> None:
    resource.body = events(
        PROMPT_FILTERED,
        piece({"role": "assistant", "content": "Hel"}),
        piece({"content": "lo"}),
        piece(None, content_filter_results=SAFE, content_filter_offsets=OFFSETS),  # the asynchronous filter's
        piece({}, finish_reason="stop"),
    )
    said = read(**at(resource))
    assert said[0].prompt_filter_results == PROMPT_FILTERED["prompt_filter_results"]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in said if chunk.choices) == "Hello"
    offsets = [chunk.choices[0].get("content_filter_offsets") for chunk in said if chunk.choices]
    assert offsets == [None, None, OFFSETS, None]


def test_a_stored_stream_keeps_what_filters_found(resource: Resource) -> None:
    violence = {"violence": {"filtered": False, "severity": "safe"}}
    resource.body = events(
        PROMPT_FILTERED,
        piece({"role": "assistant", "content": "Hello"}, content_filter_results=SAFE),
        piece({}, finish_reason="stop", content_filter_results=violence),
        piece({}, content_filter_results={}),
    )
    cache = Cache()
    list(rejoinder.completion(**at(resource, cache=cache, stream=True)))
    answer = rejoinder.completion(**at(resource, cache=cache))
    assert answer.cache is True
    assert answer.choices[0].content_filter_results == {**SAFE, **violence}
    assert answer.prompt_filter_results == PROMPT_FILTERED["prompt_filter_results"]
    assert (answer.id, answer.model) == ("c", "gpt-4o")


def test_a_filter_that_could_not_run_is_no_error(resource: Resource) -> None:
    failed = {"error": {"code": "content_filter_error", "message": "The contents are not filtered"}}
    choice = {**ANSWER["choices"][0], "content_filter_result": failed}
    resource.body = json.dumps({**ANSWER, "choices": [choice], "prompt_filter_results": [failed]}).encode()
    assert rejoinder.completion(**at(resource)).choices[0].content_filter_result == failed
    resource.body = events(
        {**PROMPT_FILTERED, "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": failed}]},
        piece({"role": "assistant", "content": "Hello"}, content_filter_results=failed),
        piece({}, finish_reason="stop"),
    )
    assert len(list(rejoinder.completion(**at(resource, stream=True)))) == 3


FILTERED = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {"violence": {"filtered": True, "severity": "medium"}},
        },
    }
}


@both
@pytest.mark.parametrize("stream", [False, True])
def test_a_filtered_prompt_is_a_violation_that_says_what_was_found(ask: Any, stream: bool, resource: Resource) -> None:
    resource.status, resource.body = 400, json.dumps(FILTERED).encode()
    with pytest.raises(ContentPolicyViolation, match="content management policy") as caught:
        ask(**at(resource, stream=stream))
    found = caught.value.response.json()["error"]["innererror"]["content_filter_result"]
    assert found == FILTERED["error"]["innererror"]["content_filter_result"]
    assert (caught.value.code, caught.value.llm_provider) == ("content_filter", "azure")


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"code": "ResponsibleAIPolicyViolation", "message": "No."}, ContentPolicyViolation),
        (400, {"code": "context_length_exceeded", "message": "Too long."}, ContextWindowExceeded),
        (400, {"code": "BadRequest", "message": "API version not supported"}, BadRequestError),
        (401, {"code": "401", "message": "Access denied due to invalid subscription key."}, AuthenticationError),
    ],
)
def test_errors_have_their_class(status: int, error: Json, kind: type[Exception], resource: Resource) -> None:
    resource.status, resource.body = status, json.dumps({"error": error}).encode()
    with pytest.raises(kind) as caught:
        rejoinder.completion(**at(resource))
    assert type(caught.value) is kind
    assert "sk-azure" not in str(caught.value)


def test_a_filter_that_stops_an_answer_is_its_finish_reason(resource: Resource) -> None:
    choice = {**ANSWER["choices"][0], "finish_reason": "content_filter", "message": {"role": "assistant"}}
    resource.body = json.dumps({**ANSWER, "choices": [choice]}).encode()
    (said,) = rejoinder.completion(**at(resource)).choices
    assert (said.finish_reason, said.message.content) == ("content_filter", None)


def test_only_what_openai_takes_is_taken() -> None:
    row = PROVIDERS["azure"]
    assert AzureCodec(OpenAICodec(PROVIDERS)).parameters(row) == OpenAICodec(PROVIDERS).parameters(row)
