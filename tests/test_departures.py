"""What vendors and the servers between say beside their protocols is read as it was meant, or is an error of ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import rejoinder
from tests.fixtures.scripted import Scripted, events

Json = dict[str, Any]

USER = {"role": "user", "content": "Hello"}
CLAUDE = "anthropic/claude-sonnet-4-5"
GEMINI = "gemini/gemini-2.5-flash"
COHERE = "cohere/command-a-03-2025"
BEDROCK = "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0"
OLLAMA = "ollama_chat/llama3.2"
ANY = "openai_compatible/any"
EVERY = (CLAUDE, GEMINI, COHERE, BEDROCK, OLLAMA, ANY)
STREAM = {"content-type": "text/event-stream"}


@pytest.fixture(scope="module")
def vendor() -> Iterator[Scripted]:
    with Scripted() as running:
        yield running


def ask(vendor: Scripted, model: str = ANY, messages: Any = None, **more: Any) -> Any:
    more = {"num_retries": 0, **more}
    return rejoinder.completion(
        model, messages or [USER], api_base=vendor.url, api_key="sk-mock", caching=False, **more
    )


def streamed(vendor: Scripted, *said: Any, model: str = ANY, **more: Any) -> Any:
    vendor.says(events(*said, **more), pieces=7, **STREAM)
    return rejoinder.stream_chunk_builder(list(ask(vendor, model, stream=True))).choices[0]


# Errors


DEAD = [
    (GEMINI, 403, {"error": {"code": 403, "message": "Your API key was reported as leaked.", "status": "X"}}),
    (GEMINI, 403, {"error": {"code": 403, "message": "Method doesn't allow unregistered callers", "status": "X"}}),
    (GEMINI, 400, {"error": {"code": 400, "message": "Expired.", "details": [{"reason": "API_KEY_INVALID"}]}}),
    (CLAUDE, 403, {"type": "error", "error": {"type": "permission_error", "message": "OAuth token has been revoked."}}),
    (BEDROCK, 403, {"__type": "ExpiredTokenException", "message": "The security token … is expired"}),
    (BEDROCK, 403, {"message": "The security token included in the request is invalid."}),
    (BEDROCK, 403, {"Message": "Authentication failed: Please make sure your API Key is valid."}),
]


@pytest.mark.parametrize(("model", "status", "body"), DEAD)
def test_a_key_that_is_no_longer_good_is_an_authentication_error(
    vendor: Scripted, model: str, status: int, body: Json
) -> None:
    vendor.says(body, status=status)
    with pytest.raises(rejoinder.AuthenticationError) as caught:
        ask(vendor, model)
    assert caught.value.status_code == status


LACKING = [
    (GEMINI, {"error": {"code": 403, "message": "No.", "details": [{"reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT"}]}}),
    (CLAUDE, {"type": "error", "error": {"type": "permission_error", "message": "Not this model."}}),
    (BEDROCK, {"__type": "AccessDeniedException", "message": "You don't have access to the model."}),
]


@pytest.mark.parametrize(("model", "body"), LACKING)
def test_a_right_that_lacks_is_a_permission_error(vendor: Scripted, model: str, body: Json) -> None:
    vendor.says(body, status=403)
    with pytest.raises(rejoinder.PermissionDeniedError):
        ask(vendor, model)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", EVERY)
def test_a_web_page_instead_of_an_answer_is_said_to_be_one(vendor: Scripted, model: str, stream: bool) -> None:
    vendor.says(b"\n<html><head><title>Sign in</title></head></html>", **{"content-type": "text/html"})
    with pytest.raises(rejoinder.InternalServerError, match="a web page instead of an answer: Sign in"):
        ask(vendor, model, stream=stream)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", EVERY)
def test_no_bytes_at_all_are_an_error(vendor: Scripted, model: str, stream: bool) -> None:
    vendor.says(b"")
    with pytest.raises(rejoinder.InternalServerError) as caught:
        ask(vendor, model, stream=stream)
    assert caught.value.status_code == 502


def test_cohere_s_list_of_what_must_not_be_said_is_a_content_policy(vendor: Scripted) -> None:
    vendor.says({"message": "blocked output"}, status=498)
    with pytest.raises(rejoinder.ContentPolicyViolation):
        ask(vendor, COHERE)


def test_an_account_without_money_is_not_asked_again(vendor: Scripted) -> None:
    error = {"message": "You exceeded your current quota.", "type": "insufficient_quota", "code": "insufficient_quota"}
    vendor.says({"error": error}, status=429)
    before = len(vendor.asked)
    with pytest.raises(rejoinder.RateLimitError):
        ask(vendor, "openai/gpt-4o", num_retries=3)
    assert len(vendor.asked) == before + 1


# Anthropic and its imitations


@pytest.mark.parametrize(("content", "said"), [(None, ""), ("Hi", "Hi"), ([], "")])
def test_claude_s_content_may_be_a_text_or_nothing(vendor: Scripted, content: Any, said: str) -> None:
    vendor.says({"type": "message", "content": content, "stop_reason": "end_turn"})
    assert ask(vendor, CLAUDE).choices[0].message.content == said


def test_a_call_s_input_that_is_a_text_is_not_quoted_again(vendor: Scripted) -> None:
    block = {"type": "tool_use", "id": "t", "name": "f", "input": '{"a":1}'}
    vendor.says({"type": "message", "content": [block], "stop_reason": "tool_use"})
    assert ask(vendor, CLAUDE).choices[0].message.tool_calls[0].function.arguments == '{"a":1}'


def test_tokens_written_to_claude_s_cache_count_where_only_their_lifetimes_are_told(vendor: Scripted) -> None:
    lifetimes = {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4}
    usage = {"input_tokens": 1, "output_tokens": 1, "cache_creation": lifetimes}
    vendor.says({"type": "message", "content": [], "stop_reason": "end_turn", "usage": usage})
    counted = ask(vendor, CLAUDE).usage
    assert (counted.prompt_tokens, counted.prompt_tokens_details.cache_write_tokens) == (8, 7)
    assert rejoinder.usage_line(counted) == "9 tokens [I: 1, CW: 7, CR: 0, O: 1]"
