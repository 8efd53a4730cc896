"""What Bedrock's Converse answers, as OpenAI's. How it streams is read in `bedrock_stream.py`.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html (read 2026-11)

Beside OpenAI's fields a message has, where the vendor gives them: `reasoning_content`, `thinking_blocks` (the same with
signatures, to be sent back), `citations` (those of pages are `annotations` too), and `converse_blocks` (every block as
it came) if OpenAI's shape loses something: citations, the vendor's own tools, images. A choice has
`native_finish_reason`, and an answer the vendor's `trace`, `metrics` and the like.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

import orjson

from ..core.types import Request
from .annotations import of_bedrock
from .base import Failure, ProviderFault, Reply
from .broken import MALFORMED, malformed
from .eventstream import Frame
from .failures import failure_kind, read_failure

Block = dict[str, Any]

FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
"""In OpenAI's words. Others ("malformed_tool_use") it has no word for."""

SERVICE_TIERS = frozenset({"default", "flex", "priority"})
"""Those that OpenAI knows too."""

STATUSES = {
    "accessdeniedexception": 403,
    "expiredtokenexception": 403,
    "internalserverexception": 500,
    "modelerrorexception": 424,
    "modelnotreadyexception": 429,
    "modelstreamerrorexception": 424,
    "modeltimeoutexception": 408,
    "resourcenotfoundexception": 404,
    "servicequotaexceededexception": 400,
    "serviceunavailableexception": 503,
    "throttlingexception": 429,
    "unrecognizedclientexception": 403,
    "validationexception": 400,
}
"""What an exception in a stream stands for, by its name in lower case. A stream writes it with a small letter."""

EXCEPTION = re.compile(rb'"__type"\s*:\s*"(?:[^"#]*#)?(\w+)')
"""The exception's name, where the body has it: "com.amazon.coral.service#ExpiredTokenException"."""

UNKNOWN_CALLER = re.compile(
    r"ExpiredToken|UnrecognizedClient|InvalidClientTokenId|InvalidSignature|IncompleteSignature|MissingAuthentication"
    r"|security token included in the request is|(token|key) has expired|API Key is valid",
    re.IGNORECASE,
)
"""The vendor answers 403 (and in part 400) to credentials that are wrong or too old, as to a right that lacks.
https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html (2026-11)"""

TOP_LEVEL = ("additionalModelResponseFields", "metrics", "performanceConfig", "trace")
"""The vendor's fields of an answer that OpenAI has no place for."""

TTLS = {"5m": "ephemeral_5m_input_tokens", "1h": "ephemeral_1h_input_tokens"}
"""Anthropic's names for tokens written to the prompt cache, by how long they are kept."""


def failure_of(status: int, body: bytes, name: str | None = None) -> Failure:
    """What an error's body says; `name` is the exception's, where the headers say it."""
    failure = read_failure(body, status)
    named = EXCEPTION.search(body)
    code = name or (named[1].decode() if named else failure.code)
    is_unknown = UNKNOWN_CALLER.search(f"{code} {failure.message}")
    kind = "authentication" if is_unknown else failure_kind(failure.message, code or "", status)
    return failure._replace(code=code, kind=kind)


def named_failure(reply: Reply) -> Failure:
    """The failure of an error answer; `x-amzn-errortype` names it: "ThrottlingException:http://…"."""
    name = next((value for key, value in reply.headers.items() if key.lower() == "x-amzn-errortype"), "")
    return failure_of(reply.status, reply.body, name.partition(":")[0] or None)


def fault_in_stream(frame: Frame) -> ProviderFault:
    """An exception that came as a message of the stream."""
    name = str(frame.headers.get(":exception-type") or frame.headers.get(":error-code") or "")
    body = frame.payload or orjson.dumps({"message": str(frame.headers.get(":error-message") or name)})
    status = STATUSES.get(name.lower(), 500)
    try:
        data = orjson.loads(body)
        status = data.get("originalStatusCode") or status if isinstance(data, dict) else status
    except orjson.JSONDecodeError:
        pass
    status = status if isinstance(status, int) and 400 <= status < 600 else 500
    return ProviderFault(failure_of(status, body, name or None)._replace(status=status), body)


def fault_of(body: bytes) -> ProviderFault:
    """An error that came inside a 200."""
    failure = failure_of(500, body)
    return ProviderFault(failure._replace(status=failure.status or 500), body)


def completion(body: bytes, request: Request) -> bytes:
    """A whole answer as `chat.completion` JSON. Raises `ProviderFault`."""
    try:
        answer = orjson.loads(body)
        if "output" not in answer and ("message" in answer or "__type" in answer):
            raise fault_of(body)
        blocks = answer["output"]["message"]["content"]
        result = {
            **head("chat.completion", request),
            "choices": [{"index": 0, "message": message_of(blocks), **ending_of(answer["stopReason"])}],
            **rest_of(answer),
        }
        return orjson.dumps(result)
    except MALFORMED as error:
        raise malformed("Bedrock", error, body) from error


def message_of(blocks: list[Block]) -> dict[str, Any]:
    """An assistant's message with what these blocks say."""
    text = "".join(texts_of(blocks))
    calls = [_tool_call(block["toolUse"]) for block in blocks if is_call(block)]
    thought = [thinking_block(block["reasoningContent"]) for block in blocks if "reasoningContent" in block]
    message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None}
    if thought:
        message["thinking_blocks"] = thought
        reasoning = "".join(block.get("thinking", "") for block in thought)
        if reasoning:
            message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = calls
    cited = [citation for block in blocks for citation in (block.get("citationsContent") or {}).get("citations") or ()]
    if cited:
        message["citations"] = cited
        if notes := of_bedrock(blocks):
            message["annotations"] = notes
    if not fits(blocks):
        message["converse_blocks"] = blocks
    return message


def texts_of(blocks: list[Block]) -> list[str]:
    """What the model says: its texts, and those that it says with citations."""
    texts: list[str] = []
    for block in blocks:
        if "text" in block:
            texts.append(block["text"])
        elif "citationsContent" in block:
            texts += [piece["text"] for piece in block["citationsContent"].get("content") or () if "text" in piece]
    return texts


def is_call(block: Block) -> bool:
    """Whether a block calls a tool of the caller's; the vendor's own tools have answered already."""
    return "toolUse" in block and block["toolUse"].get("type") != "server_tool_use"


def _tool_call(use: Mapping[str, Any]) -> dict[str, Any]:
    arguments = orjson.dumps(use.get("input") or {}).decode()
    return {"id": use["toolUseId"], "type": "function", "function": {"name": use["name"], "arguments": arguments}}


def thinking_block(reasoning: Mapping[str, Any]) -> Block:
    """Reasoning in the form in which Anthropic's thinking is kept."""
    if "redactedContent" in reasoning:
        return {"type": "redacted_thinking", "data": reasoning["redactedContent"]}
    text = reasoning["reasoningText"]
    block = {"type": "thinking", "thinking": text.get("text") or ""}
    return {**block, "signature": text["signature"]} if text.get("signature") else block


def fits(blocks: list[Block]) -> bool:
    """Whether OpenAI's shape and `thinking_blocks` lose nothing that the vendor wants back: kinds, or their order."""
    places = []
    for block in blocks:
        if "reasoningContent" in block:
            places.append(0 if _is_signed(block["reasoningContent"]) else -1)
        elif "text" in block:
            places.append(1)
        elif is_call(block):
            places.append(2)
        else:
            return False
    kept = [place for place in places if place >= 0]  # reasoning that nobody signed is not sent back
    return kept == sorted(kept)


def _is_signed(reasoning: Mapping[str, Any]) -> bool:
    return "redactedContent" in reasoning or bool(reasoning["reasoningText"].get("signature"))


def head(kind: str, request: Request) -> dict[str, Any]:
    """The beginning of an answer or chunk. Bedrock gives no id in it, and does not repeat the model."""
    return {"id": "", "object": kind, "created": int(time.time()), "model": request.model}


def ending_of(reason: str) -> dict[str, Any]:
    return {"finish_reason": FINISH_REASONS.get(reason, reason), "native_finish_reason": reason}


def rest_of(answer: Mapping[str, Any]) -> dict[str, Any]:
    """An answer's fields beside its choices."""
    rest: dict[str, Any] = {name: answer[name] for name in TOP_LEVEL if answer.get(name)}
    if answer.get("usage"):
        rest["usage"] = usage_of(answer["usage"])
    tier = (answer.get("serviceTier") or {}).get("type")
    if tier:
        rest["service_tier" if tier in SERVICE_TIERS else "serviceTier"] = tier
    return rest


def usage_of(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Bedrock's `inputTokens` are only those outside its cache; OpenAI counts all."""
    read, written = _cached(usage, "Read"), _cached(usage, "Write")
    prompt = (usage.get("inputTokens") or 0) + read + written
    output = usage.get("outputTokens") or 0
    result: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
    }
    details = {
        TTLS[part["ttl"]]: part["inputTokens"] for part in usage.get("cacheDetails") or () if part["ttl"] in TTLS
    }
    if details:
        result["cache_creation"] = details
    if usage.get("serverToolUsage"):
        result["server_tool_usage"] = usage["serverToolUsage"]
    return result


def _cached(usage: Mapping[str, Any], how: str) -> int:
    """Tokens read from or written to the prompt cache. InvokeModel has another name for them."""
    return usage.get(f"cache{how}InputTokens") or usage.get(f"cache{how}InputTokenCount") or 0
