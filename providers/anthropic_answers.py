"""Anthropic's answers as OpenAI's, whole and streamed.

https://platform.claude.com/docs/en/api/messages and …/build-with-claude/streaming (read 2026-11)

Beside OpenAI's fields a message has, where the vendor gives them: `reasoning_content` (the text of its thinking),
`thinking_blocks` (the same with signatures, to be sent back), and `content_blocks` (every block as it came) if OpenAI's
shape loses something: citations, the vendor's own tools, thinking between texts. Citations of pages are `annotations`
too. A choice has `native_finish_reason`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from ..core.types import Request
from .annotations import of_anthropic
from .base import ProviderFault, StreamDecoder
from .broken import CUT_SHORT, MALFORMED, cut_short, is_json, malformed
from .failures import read_failure
from .sse import Event, EventSplitter

Block = dict[str, Any]

FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "compaction": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}

SERVICE_TIERS = {"standard": "default", "priority": "priority"}
"""In OpenAI's words; others stay in `usage.service_tier` alone, for the openai package's type knows no others."""

STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""https://platform.claude.com/docs/en/api/errors"""

ORDER = {"thinking": 0, "redacted_thinking": 0, "text": 1, "tool_use": 2}
"""In which order OpenAI's shape gives blocks back."""

COUNTED = frozenset({"input_tokens", "output_tokens", "output_tokens_details"})
"""Counts that OpenAI has its own names for. The vendor's others are kept as they are."""

LIFETIMES = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
"""Tokens written to the vendor's cache, by how long they are kept."""

TOP_LEVEL = ("container", "context_management", "diagnostics")
"""The vendor's fields of an answer that OpenAI has no place for."""


def fault_of(body: bytes) -> ProviderFault:
    """An error that came inside a 200. The vendor's type of it stands for a status."""
    failure = read_failure(body)
    return ProviderFault(failure._replace(status=STATUSES.get(failure.code or "", 500)), body)


def completion(body: bytes, request: Request) -> bytes:
    """A whole answer as `chat.completion` JSON. Raises `ProviderFault`."""
    try:
        answer = orjson.loads(body)
        if answer.get("type") == "error" or ("error" in answer and "content" not in answer):
            raise fault_of(body)
        usage = answer.get("usage")
        result = {
            "id": answer.get("id") or "",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": answer.get("model") or request.model,
            "choices": [{"index": 0, "message": message_of(blocks_of(answer)), **ending_of(answer)}],
            **top_level(answer),
        }
        if usage:
            result.update(usage_fields(usage))
        return orjson.dumps(result)
    except MALFORMED as error:
        raise malformed("Anthropic", error, body) from error


def blocks_of(answer: Mapping[str, Any]) -> list[Block]:
    """An answer's blocks. Servers that imitate the vendor also give a text, or null."""
    content = answer["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content or []


def message_of(blocks: list[Block]) -> dict[str, Any]:
    """An assistant's message with what these blocks say."""
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    thought = [block for block in blocks if ORDER.get(block["type"]) == 0]
    calls = [_tool_call(block) for block in blocks if block["type"] == "tool_use"]
    message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None}
    if thought:
        message["thinking_blocks"] = thought
        reasoning = "".join(block.get("thinking") or "" for block in thought)
        if reasoning:
            message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = calls
    if not fits(blocks):
        message["content_blocks"] = blocks
        if notes := of_anthropic(blocks):
            message["annotations"] = notes
    return message


def _tool_call(block: Block) -> dict[str, Any]:
    given = block.get("input")
    arguments = given if given and isinstance(given, str) else orjson.dumps(given or {}).decode()
    return {"id": block["id"], "type": "function", "function": {"name": block["name"], "arguments": arguments}}


def fits(blocks: list[Block]) -> bool:
    """Whether OpenAI's shape and `thinking_blocks` lose nothing that the vendor wants back."""
    places = [ORDER.get(block["type"]) for block in blocks]
    if None in places or any(block.get("citations") or not _is_direct(block) for block in blocks):
        return False
    return places == sorted(places, key=lambda place: place or 0)


def _is_direct(block: Block) -> bool:
    """False for a call that the vendor's own tool made, or a tool of the vendor's own set."""
    caller = block.get("caller")
    return (not caller or caller["type"] == "direct") and not block.get("toolset_name")


def ending_of(answer: Mapping[str, Any]) -> dict[str, Any]:
    """A choice's fields on why the answer ends: OpenAI's word and the vendor's."""
    reason = answer.get("stop_reason")
    ending = {"finish_reason": FINISH_REASONS.get(reason or "end_turn", "stop"), "native_finish_reason": reason}
    ending.update({name: answer[name] for name in ("stop_sequence", "stop_details") if answer.get(name)})
    return ending


def top_level(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: answer[name] for name in TOP_LEVEL if answer.get(name)}


def usage_fields(usage: Mapping[str, Any]) -> dict[str, Any]:
    """`usage` and `service_tier`. Anthropic's `input_tokens` are only those outside its cache; OpenAI counts all."""
    read = usage.get("cache_read_input_tokens") or 0
    lifetimes = usage.get("cache_creation") or {}
    written = usage.get("cache_creation_input_tokens") or sum(lifetimes.get(name) or 0 for name in LIFETIMES)
    prompt = (usage.get("input_tokens") or 0) + read + written
    completion = usage.get("output_tokens") or 0
    own = {name: value for name, value in usage.items() if value is not None and name not in COUNTED}
    details = usage.get("output_tokens_details") or {}
    result = {
        **own,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
    }
    if "thinking_tokens" in details:
        result["completion_tokens_details"] = {"reasoning_tokens": details["thinking_tokens"]}
    tier = SERVICE_TIERS.get(usage.get("service_tier") or "")
    return {"usage": result, "service_tier": tier} if tier else {"usage": result}


@dataclass(slots=True)
class OpenBlock:
    """A block whose pieces are still coming."""

    data: Block
    pieces: list[str] = field(default_factory=list)
    call: int | None = None
    """OpenAI's index of the tool call that it is."""
    closed: bool = False

    def close(self) -> None:
        """Put the pieces into the block."""
        self.closed = True
        joined = "".join(self.pieces)
        if "input" in self.data:
            self.data["input"] = _loaded(joined) if joined else self.data["input"] or {}
        elif joined:
            self.data["text" if self.data["type"] == "text" else "thinking"] = joined


def _loaded(text: str) -> Any:
    """A call's input. Arguments cut by `max_tokens` are no JSON; the caller has seen their text."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}


class AnthropicStream(StreamDecoder):
    """Turns events about blocks into chunks. Blocks are collected: their sum tells if OpenAI's shape holds them."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._events = EventSplitter()
        self._body = b""
        """The first bytes, until it is clear what they are; of a body that is no event stream: all."""
        self._is_events: bool | None = None
        self._head = b""
        self._answer: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._blocks: dict[int, OpenBlock] = {}
        self._calls = 0
        self._ending = self._finished = False
        self._chunks: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        if self._is_events:
            return self._read(self._events.feed(data))
        self._body += data
        start = self._body.lstrip(b"\xef\xbb\xbf \t\r\n")
        if start and self._is_events is None:
            self._is_events = not start.startswith((b"{", b"<"))
        return self._read(self._events.feed(self._body)) if self._is_events else []

    def end(self) -> list[bytes]:
        # Half an event at the end is a cut, not a malformed answer.
        chunks = self._read([event for event in self._events.end() if is_json(event.data)])
        if self._finished:
            return chunks
        if self._ending:
            return chunks + self._read([Event("message_stop", b"{}")])
        if self._is_events is False:
            return self._unstreamed()
        raise ProviderFault(CUT_SHORT)

    def _unstreamed(self) -> list[bytes]:
        """The chunks of an answer, or the fault of an error, that came whole although a stream was asked for."""
        if not is_json(self._body):
            raise cut_short(self._body)
        try:
            answer = orjson.loads(self._body)
            if "content" not in answer:
                raise fault_of(self._body)
            self._start({"message": answer})
            for index, block in enumerate(blocks_of(answer)):
                self._start_block({"index": index, "content_block": block})
                self._stop_block({"index": index})
            self._finish({})
        except MALFORMED as error:
            raise malformed("Anthropic", error, self._body) from error
        return self._taken()

    def _read(self, events: Iterable[Event]) -> list[bytes]:
        for name, data in events:
            if self._finished or data.startswith(b"[DONE]"):
                continue
            try:
                event = orjson.loads(data)
                kind = event.get("type") or ("error" if "error" in event else name)
                if kind == "error":
                    raise fault_of(data)
                take = EVENTS.get(kind)
                if not self._head and take not in (None, AnthropicStream._start):
                    raise ValueError(f"{kind} came before message_start")
                if take is not None:  # the vendor may add kinds
                    take(self, event)
            except MALFORMED as error:
                raise malformed("Anthropic", error, data) from error
        return self._taken()

    def _taken(self) -> list[bytes]:
        chunks, self._chunks = self._chunks, []
        return chunks

    def _say(self, delta: Mapping[str, Any]) -> None:
        body = orjson.dumps(delta)
        self._chunks.append(
            self._head + b',"choices":[{"index":0,"delta":' + body + b',"finish_reason":null}]}',
        )

    def _start(self, event: dict[str, Any]) -> None:
        self._answer = dict(event["message"])
        self._usage = dict(self._answer.get("usage") or {})
        head = {
            "id": self._answer.get("id") or "",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": self._answer.get("model") or self._request.model,
        }
        self._head = orjson.dumps(head)[:-1]
        self._say({"role": "assistant", "content": None})

    def _start_block(self, event: dict[str, Any]) -> None:
        block = self._blocks[event["index"]] = OpenBlock(dict(event["content_block"]))
        data = block.data
        if data["type"] == "tool_use":
            block.call, self._calls = self._calls, self._calls + 1
            function = {"name": data["name"], "arguments": ""}
            call = {"index": block.call, "id": data["id"], "type": "function", "function": function}
            self._say({"tool_calls": [call]})
        elif data.get("text") and data["type"] == "text":
            self._text(block, data)
        elif data.get("thinking") and data["type"] == "thinking":
            self._thinking(block, data)

    def _continue_block(self, event: dict[str, Any]) -> None:
        delta = event["delta"]
        take = DELTAS.get(delta["type"], AnthropicStream._other)
        take(self, self._blocks[event["index"]], delta)

    def _text(self, block: OpenBlock, delta: dict[str, Any]) -> None:
        text = delta["text"]
        if text:
            block.pieces.append(text)
            self._say({"content": text})

    def _thinking(self, block: OpenBlock, delta: dict[str, Any]) -> None:
        text = delta["thinking"]
        if text:
            block.pieces.append(text)
            self._say({"reasoning_content": text})

    def _input(self, block: OpenBlock, delta: dict[str, Any]) -> None:
        text = delta["partial_json"]
        if text:
            block.pieces.append(text)
            self._arguments(block, text)

    def _arguments(self, block: OpenBlock, text: str) -> None:
        if block.call is not None:
            self._say({"tool_calls": [{"index": block.call, "function": {"arguments": text}}]})

    def _citation(self, block: OpenBlock, delta: dict[str, Any]) -> None:
        block.data["citations"] = [*(block.data.get("citations") or ()), delta["citation"]]

    def _other(self, block: OpenBlock, delta: dict[str, Any]) -> None:
        """A signature, or a kind that is new: its fields are the block's."""
        block.data.update({name: value for name, value in delta.items() if name != "type"})

    def _stop_block(self, event: dict[str, Any]) -> None:
        block = self._blocks[event["index"]]
        if block.closed:
            return
        block.close()
        if ORDER.get(block.data["type"]) == 0:
            self._say({"thinking_blocks": [block.data]})
        elif not block.pieces and block.call is not None:
            self._arguments(block, orjson.dumps(block.data["input"]).decode())

    def _change(self, event: dict[str, Any]) -> None:
        """What is known of the whole at its end. Its counts are totals, and leave out what does not apply."""
        self._answer.update({**top_level(event), **event["delta"]})
        usage = event.get("usage") or {}
        self._usage.update({name: value for name, value in usage.items() if value is not None})
        self._ending = self._ending or bool(self._answer.get("stop_reason"))

    def _finish(self, event: dict[str, Any]) -> None:
        for index in self._blocks:
            self._stop_block({"index": index})
        blocks = [block.data for block in self._blocks.values()]
        delta: dict[str, Any] = {} if fits(blocks) else {"content_blocks": blocks}
        if delta and (notes := of_anthropic(blocks)):
            delta["annotations"] = notes
        if not self._calls and not any(block.pieces for block in self._blocks.values() if block.data["type"] == "text"):
            delta["content"] = ""
        choice = {"index": 0, "delta": delta, **ending_of(self._answer)}
        self._chunks.append(self._head + b',"choices":[' + orjson.dumps(choice) + b"]}")
        last = {"choices": [], **top_level(self._answer), **usage_fields(self._usage)}
        self._chunks.append(self._head + b"," + orjson.dumps(last)[1:])
        self._finished = True


EVENTS = {
    "message_start": AnthropicStream._start,
    "content_block_start": AnthropicStream._start_block,
    "content_block_delta": AnthropicStream._continue_block,
    "content_block_stop": AnthropicStream._stop_block,
    "message_delta": AnthropicStream._change,
    "message_stop": AnthropicStream._finish,
}
DELTAS = {
    "text_delta": AnthropicStream._text,
    "thinking_delta": AnthropicStream._thinking,
    "input_json_delta": AnthropicStream._input,
    "citations_delta": AnthropicStream._citation,
}
