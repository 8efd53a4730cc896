"""Reads what an error of an OpenAI-protocol vendor says, in the many shapes that they use."""

from __future__ import annotations

import re
from typing import Any

import orjson

from .base import Failure, ProviderFault

CONTEXT_CODES = re.compile(r"context_?(length|window|size)|prompt_too_long|too_many_prompt_tokens", re.IGNORECASE)
CONTEXT_WINDOW = re.compile(
    r"max(imum)? (context|prompt|model) length"
    r"|context (length|window|size|limit)[^.]{0,60}(exceed|overflow|too (long|large|small))"
    r"|exceed[^.]{0,60}context (length|window|size|limit)"
    r"|(prompt|input)( is| was|) too long|length of all messages is too long"
    r"|(input|prompt) (token count|tokens|length)[^.]{0,40}exceed"
    r"|total number of tokens in the prompt"
    r"|longer than the (maximum )?(model|context)"
    r"|reduce the length of (the |your )?(messages|prompt|input)"
    r"|`?inputs`? (tokens \+|must have less than)"
    r"|too long to fit into the model|exceeded model token limit|prompt exceeds max length|too many input tokens"
    r"|range of input length should be|messages\[\d+\]\.content'?: string too long",
    re.IGNORECASE,
)
CONTENT_CODES = re.compile(
    r"content_?(filter|policy)|moderation_blocked|responsible_?ai|data_?inspection_?failed|prohibited_content",
    re.IGNORECASE,
)
CONTENT_POLICY = re.compile(
    r"content management policy|content policy|responsible ?ai"
    r"|violat\w+ [^.]{0,60}\b(usage |content |safety |our )\w*\s?(policy|policies|guidelines)"
    r"|\bflagged (as|by|for|in)\b|\b(was|were|been) flagged\b"
    r"|safety (system|filter)|(filtered|blocked|rejected) [^.]{0,40}content (filter|moderation)"
    r"|inappropriate content|content exists risk|considered high risk|\bnew_sensitive\b|可能包含不安全或敏感内容",
    re.IGNORECASE,
)
NOT_OF_THE_PROMPT = frozenset({401, 402, 404, 408, 409, 429})
"""An error of these kinds may speak of tokens or policies, but a shorter or tamer prompt would not help."""

STATUS_WORDS = (
    (re.compile(r"rate[_ ]?limit|too[_ ]?many[_ ]?requests|quota|insufficient[_ ]balance", re.IGNORECASE), 429),
    (re.compile(r"authenti|unauthori|api[_ ]?key", re.IGNORECASE), 401),
    (re.compile(r"permission|forbidden", re.IGNORECASE), 403),
    (re.compile(r"not[_ ]?found", re.IGNORECASE), 404),
    (re.compile(r"overloaded|unavailable|capacity", re.IGNORECASE), 503),
    (re.compile(r"timeout", re.IGNORECASE), 504),
    (re.compile(r"server[_ ]?error|internal", re.IGNORECASE), 500),
    (re.compile(r"invalid|unsupported|bad[_ ]?request|validation|tool_use_failed", re.IGNORECASE), 400),
)
"""What an error's code or type says about its status, where no number does; its message, if the code is a number."""

MESSAGE_NAMES = (
    *("message", "Message", "msg", "detail", "error", "error_message", "status_msg", "title", "description"),
    "reason",
)
ANSWERS = re.compile(rb'"choices"\s*:\s*\[\s*\{')
"""In a body that is an answer, whole or broken off."""

TITLE = re.compile(rb"<title[^>]*>\s*([^<]{1,200})", re.IGNORECASE)


def read_failure(body: bytes, status: int | None = None) -> Failure:
    """What an error's body says. `status` is the answer's, if that was an error; else it is read in the body."""
    text = body[:500].decode("utf-8", "replace").strip()
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        title = TITLE.search(body[:5000])
        if title:
            text = f"a web page instead of an answer: {title[1].decode('utf-8', 'replace').strip()}"
        return Failure(text or "an empty answer", None, failure_kind(text, "", status))
    error = _error_in(data)
    message = _message_in(error) or text
    words = [word for name in ("code", "type", "status", "error_type", "status_code") if (word := _word(error, name))]
    code = next((word for word in words if not _is_status(word)), words[0] if words else None)
    inside = _status_in(error)
    if status is None:
        status = inside
    # OpenRouter says "Provider returned error", and what the provider said beside it.
    metadata = error.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    if isinstance(raw, str) and raw and raw not in message:
        message = f"{message}: {raw[:2000]}"
    inner = error.get("innererror")
    words += [word for word in (_word(inner, "code"),) if word] if isinstance(inner, dict) else []
    return Failure(message, code, failure_kind(message, " ".join(words), status), inside)


def failure_kind(message: str, words: str, status: int | None) -> str | None:
    """Whether an error is about the context window or the content policy. `words` are its code and type."""
    if status in NOT_OF_THE_PROMPT or STATUS_WORDS[0][0].search(words):
        return None
    if CONTEXT_CODES.search(words) or CONTEXT_WINDOW.search(message):
        return "context_window"
    if CONTENT_CODES.search(words) or CONTENT_POLICY.search(message):
        return "content_policy"
    return None


def fault_in_answer(body: bytes) -> Failure:
    """The failure that a 200 answer or a piece of a stream stands for, with a status of its own."""
    failure = read_failure(body)
    if failure.status is not None:
        return failure
    if not body.lstrip().startswith((b"{", b"[")) or ANSWERS.search(body):
        return failure._replace(status=502)
    if failure.kind:
        return failure._replace(status=400)
    words = failure.code if failure.code and not failure.code.isdigit() else failure.message
    return failure._replace(status=next((status for pattern, status in STATUS_WORDS if pattern.search(words)), 500))


def raise_if_fault(body: bytes) -> None:
    """Raises `ProviderFault` if `body`, a 200 answer or a chunk, holds an error."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise ProviderFault(fault_in_answer(body), body) from None
    if not isinstance(data, dict):
        raise ProviderFault(fault_in_answer(body), body)
    choices = data.get("choices")
    # OpenRouter: an error in the choice (https://openrouter.ai/docs/api/reference/errors-and-debugging, 2026-11)
    holders = (
        [data, *(choice for choice in choices if isinstance(choice, dict))] if isinstance(choices, list) else [data]
    )
    for holder in holders:
        if holder.get("error"):
            raise ProviderFault(fault_in_answer(orjson.dumps({"error": holder["error"]})), body)
    if not choices and not data.get("usage") and (data.get("object") == "error" or _message_in(_error_in(data))):
        raise ProviderFault(fault_in_answer(body), body)


def _error_in(data: Any) -> dict[str, Any]:
    """The innermost object that speaks of the error."""
    if isinstance(data, list):
        data = data[0] if data else {}
    if not isinstance(data, dict):
        return {"message": str(data)[:500]}
    errors, base = data.get("errors"), data.get("base_resp")  # Cloudflare; MiniMax, whose status_code 0 is no error
    first = errors[0] if isinstance(errors, list) and errors else None
    for inner in (data.get("error"), first, base if isinstance(base, dict) and base.get("status_code") else None):
        if isinstance(inner, dict) and inner:
            return inner
        if isinstance(inner, list) and inner:
            return {**data, "message": "; ".join(map(str, inner))}
        if isinstance(inner, str) and inner:
            return {**data, "message": inner}
    return data


def _message_in(error: dict[str, Any]) -> str:
    for name in MESSAGE_NAMES:
        value = error.get(name)
        if isinstance(value, dict):
            value = value.get("message") or value.get("detail") or value
        if isinstance(value, list):  # FastAPI's: [{"loc": ["body", "model"], "msg": "Field required"}]
            value = "; ".join(_validation_message(item) for item in value[:5])
        if value:
            return str(value)
    return ""


def _validation_message(item: Any) -> str:
    if not isinstance(item, dict):
        return str(item)
    location = item.get("loc")
    where = ".".join(map(str, location)) if isinstance(location, list) else ""
    return f"{where}: {item.get('msg', item)}" if where else str(item.get("msg", item))


def _word(error: dict[str, Any], name: str) -> str | None:
    value = error.get(name)
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _is_status(word: str) -> bool:
    return len(word) == 3 and word.isascii() and word.isdigit() and 400 <= int(word) < 600


def _status_in(error: dict[str, Any]) -> int | None:
    for name in ("status_code", "raw_status_code", "code", "status"):
        word = _word(error, name)
        if word and _is_status(word):
            return int(word)
    return None
