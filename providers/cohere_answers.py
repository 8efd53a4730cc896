"""Cohere's answers as OpenAI's, whole and streamed.

https://docs.cohere.com/reference/chat and …/docs/streaming (read 2026-11)

Beside OpenAI's fields a message has, where the vendor gives them: `reasoning_content` (the text of its thinking),
`thinking_blocks` (the same, to be sent back), `citations` (those of pages are `annotations` too), and `tool_plan`. That
is what the model says it is about to do with its tools: no thinking that is turned on or budgeted, and the vendor wants
it back under its own name, so it keeps it (in a stream it comes in pieces, as the vendor gives it). A choice has
`native_finish_reason`.

Usage is what the model read and wrote (`usage.tokens`), which the counts of cached and reasoning tokens are part of. It
is more than what is paid for: the vendor's own preamble is free. That is in `usage.billed_units`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from ..core.types import Request
from .annotations import of_cohere
from .base import Failure, ProviderFault, StreamDecoder
from .broken import CUT_SHORT, MALFORMED, is_json, malformed
from .failures import fault_in_answer, read_failure
from .sse import Event, EventSplitter

Json = dict[str, Any]

FINISH_REASONS = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "ERROR_LIMIT": "length",
    "TOOL_CALL": "tool_calls",
    "ERROR_TOXIC": "content_filter",
}
BROKEN = {"ERROR": 500, "TIMEOUT": 504, "USER_CANCEL": 499}
"""Reasons that say that the answer is none, and the HTTP status that each stands for."""

DENIED = 498
"""The vendor's status for a prompt or an answer with a word on its list of what must not be said."""

TOO_MUCH = "too many tokens"
TOO_MUCH_ASKED = "max tokens must be"
"""The same code is also for a `max_tokens` above the model's most, which a shorter prompt would not help."""


def failure_of(body: bytes, status: int | None = None) -> Failure:
    """What an error's body says. https://docs.cohere.com/reference/errors (2026-11)"""
    failure = read_failure(body, status)
    if status == DENIED:
        return failure._replace(kind="content_policy")
    said = failure.message.lower()
    if failure.kind is None and said.startswith(TOO_MUCH) and TOO_MUCH_ASKED not in said:
        return failure._replace(kind="context_window")
    return failure


def fault_of(body: bytes) -> ProviderFault:
    """An error that came inside a 200, with the status that it stands for."""
    failure = fault_in_answer(body)
    kind = failure_of(body).kind
    return ProviderFault(failure._replace(kind=kind, status=400) if kind else failure, body)


def completion(body: bytes, request: Request) -> bytes:
    """A whole answer as `chat.completion` JSON. Raises `ProviderFault`."""
    try:
        answer = orjson.loads(body)
        if not isinstance(answer.get("message"), dict):
            raise fault_of(body)
        result = {
            **head(answer.get("id"), "chat.completion", request),
            "choices": [{"index": 0, "message": message_of(answer["message"]), **ending_of(answer, body)}],
        }
        logprobs = logprobs_of(answer.get("logprobs"))
        if logprobs:
            result["choices"][0]["logprobs"] = logprobs
        if answer.get("usage"):
            result["usage"] = usage_of(answer["usage"])
        return orjson.dumps(result)
    except MALFORMED as error:
        raise malformed("Cohere", error, body) from error


def head(identity: Any, kind: str, request: Request) -> Json:
    return {"id": str(identity or ""), "object": kind, "created": int(time.time()), "model": request.model}


def message_of(message: Mapping[str, Any]) -> Json:
    blocks = message.get("content") or ()
    if isinstance(blocks, str):
        blocks = ({"type": "text", "text": blocks},)
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    thought = [block for block in blocks if block["type"] == "thinking"]
    calls = [_tool_call(call) for call in message.get("tool_calls") or ()]
    said: Json = {"role": "assistant", "content": text if text or not calls else None}
    if thought:
        said["reasoning_content"] = "".join(block["thinking"] for block in thought)
        said["thinking_blocks"] = thought
    said.update({name: message[name] for name in ("tool_plan", "citations") if message.get(name)})
    if notes := of_cohere(message.get("citations") or ()):
        said["annotations"] = notes
    if calls:
        said["tool_calls"] = calls
    return said


def _tool_call(call: Mapping[str, Any]) -> Json:
    function = call["function"]
    name, arguments = function["name"], function.get("arguments")
    text = arguments if isinstance(arguments, str) else orjson.dumps(arguments or {}).decode()
    return {"id": call["id"], "type": "function", "function": {"name": name, "arguments": text or "{}"}}


def ending_of(answer: Mapping[str, Any], body: bytes) -> Json:
    """A choice's fields on why the answer ends. Raises `ProviderFault` if it broke."""
    reason = answer.get("finish_reason") or "COMPLETE"
    if reason in BROKEN:
        said = answer.get("error") or f"The answer broke off: {reason}."
        raise ProviderFault(Failure(str(said), reason, status=BROKEN[reason]), body)
    return {"finish_reason": FINISH_REASONS.get(reason, "stop"), "native_finish_reason": reason}


def usage_of(usage: Mapping[str, Any]) -> Json:
    tokens = usage.get("tokens") or usage.get("billed_units") or {}
    prompt, written = int(tokens.get("input_tokens") or 0), int(tokens.get("output_tokens") or 0)
    result: Json = {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
    read: Json = {}
    if usage.get("cached_tokens") is not None:
        read["cached_tokens"] = int(usage["cached_tokens"])
    if tokens.get("image_tokens") is not None:  # counted beside the others, not among them (recorded 2026)
        read["image_tokens"] = int(tokens["image_tokens"])
    if read:
        result["prompt_tokens_details"] = read
    if tokens.get("reasoning_tokens") is not None:
        result["completion_tokens_details"] = {"reasoning_tokens": int(tokens["reasoning_tokens"])}
    if usage.get("billed_units"):
        result["billed_units"] = usage["billed_units"]
    return result


def logprobs_of(items: Any) -> Json | None:
    """Cohere's are of a piece of text, which may be several tokens: their sum is the piece's."""
    if not items:
        return None
    content = [
        {
            "token": item.get("text") or "",
            "logprob": float(sum(item.get("logprobs") or ())),
            "bytes": None,
            "top_logprobs": [],
            "token_ids": item.get("token_ids"),
            "token_logprobs": item.get("logprobs"),
        }
        for item in items
    ]
    return {"content": content, "refusal": None}


class CohereStream(StreamDecoder):
    """Turns events into chunks."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._events = EventSplitter()
        self._body = bytearray()
        """The first bytes, until it is clear what they are; of a body that is no event stream: all."""
        self._is_events: bool | None = None
        self._head = b""
        self._thoughts: dict[int, list[str]] = {}
        """The pieces of the thinking blocks that are open, by the vendor's index."""
        self._calls: dict[int, int] = {}
        """OpenAI's index of each tool call, by the vendor's."""
        self._without_arguments: set[int] = set()
        """Calls, by the vendor's index, of whose arguments nothing has come."""
        self._has_text = self._finished = False
        self._chunks: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        if self._is_events:
            return self._read(self._events.feed(data))
        self._body += data
        if self._is_events is None and (start := self._body.lstrip()):
            self._is_events = not start.startswith((b"{", b"[", b"<"))
        return self._read(self._events.feed(bytes(self._body))) if self._is_events else []

    def end(self) -> list[bytes]:
        if not self._is_events:
            return self._unstreamed()
        # Half an event at the end is a cut, not a malformed answer.
        chunks = self._read([event for event in self._events.end() if is_json(event.data)])
        if not self._finished:
            raise ProviderFault(CUT_SHORT)
        return chunks

    def _unstreamed(self) -> list[bytes]:
        """The chunk of an answer, or the fault of an error, that came whole although a stream was asked for."""
        from ..core.shape import completion_as_chunk

        body = bytes(self._body)
        if not body.strip():
            raise ProviderFault(CUT_SHORT, body)
        return [orjson.dumps(completion_as_chunk(orjson.loads(completion(body, self._request))))]

    def _read(self, events: Iterable[Event]) -> list[bytes]:
        for name, data in events:
            if self._finished or data.startswith(b"[DONE]"):
                continue
            try:
                event = orjson.loads(data)
                take = EVENTS.get(event.get("type") or name)
                if take is not None:
                    take(self, event, data)
                elif "message" in event and "delta" not in event:  # an error as it is outside of streams
                    raise fault_of(data)
            except MALFORMED as error:
                raise malformed("Cohere", error, data) from error
        chunks, self._chunks = self._chunks, []
        return chunks

    def _say(self, delta: Mapping[str, Any], **choice: Any) -> None:
        if not self._head:
            raise ValueError("a piece came before message-start")
        said = orjson.dumps({"index": 0, "delta": delta, "finish_reason": None, **choice})
        self._chunks.append(self._head + b',"choices":[' + said + b"]}")

    def _start(self, event: Json, data: bytes) -> None:
        self._head = orjson.dumps(head(event.get("id"), "chat.completion.chunk", self._request))[:-1]
        self._say({"role": "assistant", "content": None})

    def _content(self, event: Json, data: bytes) -> None:
        """A block's start (with its type) or a piece of it (without); texts may be in either."""
        content = event["delta"]["message"]["content"]
        if content.get("type") == "thinking" or "thinking" in content:
            pieces = self._thoughts.setdefault(event["index"], [])
            if content.get("thinking"):
                pieces.append(content["thinking"])
                self._say({"reasoning_content": _text(content["thinking"])})
        elif content.get("text"):
            self._has_text = True
            logprobs = logprobs_of([event["logprobs"]]) if event.get("logprobs") else None
            self._say({"content": _text(content["text"])}, **({"logprobs": logprobs} if logprobs else {}))

    def _content_end(self, event: Json, data: bytes) -> None:
        self._close(event["index"])

    def _close(self, index: int) -> None:
        """A thinking block is said whole when it is: that is what goes back to the vendor."""
        pieces = self._thoughts.pop(index, None)
        if pieces:
            self._say({"thinking_blocks": [{"type": "thinking", "thinking": "".join(pieces)}]})

    def _plan(self, event: Json, data: bytes) -> None:
        self._say({"tool_plan": _text(event["delta"]["message"]["tool_plan"])})

    def _call(self, event: Json, data: bytes) -> None:
        call = event["delta"]["message"]["tool_calls"]
        index = self._calls[event["index"]] = len(self._calls)
        function = {"name": call["function"]["name"], "arguments": call["function"].get("arguments") or ""}
        self._say({"tool_calls": [{"index": index, "id": call["id"], "type": "function", "function": function}]})
        if not function["arguments"]:
            self._without_arguments.add(event["index"])

    def _call_piece(self, event: Json, data: bytes) -> None:
        self._arguments(event["index"], _text(event["delta"]["message"]["tool_calls"]["function"]["arguments"]))

    def _call_end(self, event: Json, data: bytes) -> None:
        """A call without arguments has none of these pieces; whole it says `{}`."""
        if event["index"] in self._without_arguments:
            self._arguments(event["index"], "{}")

    def _arguments(self, index: int, text: str) -> None:
        if text:
            self._without_arguments.discard(index)
            self._say({"tool_calls": [{"index": self._calls[index], "function": {"arguments": text}}]})

    def _citation(self, event: Json, data: bytes) -> None:
        given = event["delta"]["message"]["citations"]
        citations = given if isinstance(given, list) else [given]
        notes = of_cohere(citations)
        self._say({"citations": citations, **({"annotations": notes} if notes else {})})

    def _finish(self, event: Json, data: bytes) -> None:
        ending = ending_of(event["delta"], data)
        for index in list(self._thoughts):
            self._close(index)
        self._say({} if self._has_text or self._calls else {"content": ""}, **ending)
        usage = event["delta"].get("usage")
        if usage:
            self._chunks.append(self._head + b',"choices":[],"usage":' + orjson.dumps(usage_of(usage)) + b"}")
        self._finished = True


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} instead of text")
    return value


EVENTS = {
    "message-start": CohereStream._start,
    "content-start": CohereStream._content,
    "content-delta": CohereStream._content,
    "content-end": CohereStream._content_end,
    "tool-plan-delta": CohereStream._plan,
    "tool-call-start": CohereStream._call,
    "tool-call-delta": CohereStream._call_piece,
    "tool-call-end": CohereStream._call_end,
    "citation-start": CohereStream._citation,
    "message-end": CohereStream._finish,
}
"""The vendor may add kinds; those not here say nothing that a chunk could."""
