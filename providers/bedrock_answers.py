"""What Bedrock's Converse answers, as OpenAI's, whole and streamed.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html (read 2026-11)

Beside OpenAI's fields a message has, where the vendor gives them: `reasoning_content`, `thinking_blocks` (the same with
signatures, to be sent back), `citations`, and `converse_blocks` (every block as it came) if OpenAI's shape loses
something: citations, the vendor's own tools, images. A choice has `native_finish_reason`, and an answer the vendor's
`trace`, `metrics` and the like.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from ..core.types import Request
from .base import Failure, ProviderFault, Reply, StreamDecoder
from .eventstream import BadFrame, Frame, FrameSplitter
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

TOP_LEVEL = ("additionalModelResponseFields", "metrics", "performanceConfig", "trace")
"""The vendor's fields of an answer that OpenAI has no place for."""

TTLS = {"5m": "ephemeral_5m_input_tokens", "1h": "ephemeral_1h_input_tokens"}
"""Anthropic's names for tokens written to the prompt cache, by how long they are kept."""

MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError)
"""What reading JSON of the wrong shape raises."""

CUT = Failure("The stream ended before the answer did.", "incomplete_stream", status=502)

SIGNED_TEXT = re.compile(r"\s*The Canonical String for this request should have been.*", re.DOTALL)
"""In the message about a wrong signature: it repeats the session's token."""


def failure_of(status: int, body: bytes, name: str | None = None) -> Failure:
    """What an error's body says; `name` is the exception's, where the headers say it."""
    failure = read_failure(body, status)
    code = name or failure.code
    message = SIGNED_TEXT.sub("", failure.message)
    return failure._replace(message=message, code=code, kind=failure_kind(message, code or "", status))


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


def malformed(error: Exception, body: bytes) -> ProviderFault:
    said = f"The answer does not follow Bedrock's protocol ({type(error).__name__}: {error})."
    return ProviderFault(Failure(said, "malformed_answer", status=502), body)


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
            **_head("chat.completion", request),
            "choices": [{"index": 0, "message": message_of(blocks), **_ending(answer["stopReason"])}],
            **_rest(answer),
        }
        return orjson.dumps(result)
    except MALFORMED as error:
        raise malformed(error, body) from error


def message_of(blocks: list[Block]) -> dict[str, Any]:
    """An assistant's message with what these blocks say."""
    text = "".join(_texts(blocks))
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
    if not fits(blocks):
        message["converse_blocks"] = blocks
    return message


def _texts(blocks: list[Block]) -> list[str]:
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


def _head(kind: str, request: Request) -> dict[str, Any]:
    """The beginning of an answer or chunk. Bedrock gives no id in it, and does not repeat the model."""
    return {"id": "", "object": kind, "created": int(time.time()), "model": request.model}


def _ending(reason: str) -> dict[str, Any]:
    return {"finish_reason": FINISH_REASONS.get(reason, reason), "native_finish_reason": reason}


def _rest(answer: Mapping[str, Any]) -> dict[str, Any]:
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


class FramedStream(StreamDecoder):
    """Bytes as messages of an event stream, and what does not come as one."""

    def __init__(self) -> None:
        self._frames = FrameSplitter()
        self._body = b""
        """The bytes, if it is no event stream: an answer or an error that came whole."""
        self._is_whole: bool | None = None

    def feed(self, data: bytes) -> list[bytes]:
        if self._is_whole is None:
            self._body += data
            start = self._body.lstrip()
            if not start:
                return []
            # A message begins with its length, and none is as long as "{" would make it.
            self._is_whole = start.startswith(b"{")
            if not self._is_whole:
                data, self._body = self._body, b""
        elif self._is_whole:
            self._body += data
        if self._is_whole:
            return []
        chunks: list[bytes] = []
        try:
            frames = self._frames.feed(data)
        except BadFrame as error:
            raise malformed(error, data) from error
        for frame in frames:
            if frame.headers.get(":message-type", "event") != "event":
                raise fault_in_stream(frame)
            chunks += self.read(str(frame.headers.get(":event-type")), frame.payload)
        return chunks

    def end(self) -> list[bytes]:
        if not self._is_whole:
            return self.finish()
        try:
            orjson.loads(self._body)
        except orjson.JSONDecodeError:
            raise ProviderFault(CUT, self._body) from None
        return self.read_whole(self._body)

    def read(self, name: str, payload: bytes) -> list[bytes]:
        """The chunks that one event makes."""
        raise TypeError(f"{type(self).__name__} reads no events")

    def finish(self) -> list[bytes]:
        """What is left after the last event. Raises `ProviderFault` if the answer is not complete."""
        raise ProviderFault(CUT)

    def read_whole(self, body: bytes) -> list[bytes]:
        """The chunks of an answer that came whole although a stream was asked for."""
        raise malformed(ValueError("no event stream"), body)


class ConverseStream(FramedStream):
    """Bedrock's events as chunks."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self._request = request
        self._head = orjson.dumps(_head("chat.completion.chunk", request))[:-1]
        self._blocks: dict[int, OpenBlock] = {}
        self._calls = 0
        self._metadata: dict[str, Any] = {}
        self._stop: dict[str, Any] | None = None
        self._begun = False
        self._chunks: list[bytes] = []

    def read(self, name: str, payload: bytes) -> list[bytes]:
        take = EVENTS.get(name)
        if take is None:  # the vendor may add kinds
            return []
        try:
            take(self, orjson.loads(payload))
        except MALFORMED as error:
            raise malformed(error, payload) from error
        return self._taken()

    def take(self, events: Mapping[str, Any]) -> list[bytes]:
        """The chunks of events that come under their names: {"contentBlockDelta": {…}}."""
        for name, event in events.items():
            take = EVENTS.get(name)
            if take is not None:
                take(self, event)
        return self._taken()

    def finish(self) -> list[bytes]:
        if self._stop is None or not self._frames.is_between:
            raise ProviderFault(CUT)
        return []

    def read_whole(self, body: bytes) -> list[bytes]:
        try:
            answer = orjson.loads(body)
            if "output" not in answer:
                raise fault_of(body)
            for index, block in enumerate(answer["output"]["message"]["content"]):
                self._whole_block(index, block)
            self._end({"stopReason": answer["stopReason"]})
            self._tell(answer)
        except MALFORMED as error:
            raise malformed(error, body) from error
        return self._taken()

    def _taken(self) -> list[bytes]:
        chunks, self._chunks = self._chunks, []
        return chunks

    def _say(self, delta: Mapping[str, Any]) -> None:
        if not self._begun:
            self._begun = True
            self._say({"role": "assistant", "content": None})
        body = orjson.dumps(delta)
        self._chunks.append(self._head + b',"choices":[{"index":0,"delta":' + body + b',"finish_reason":null}]}')

    def _start(self, event: Mapping[str, Any]) -> None:
        if not self._begun:
            self._begun = True
            self._say({"role": "assistant", "content": None})

    def _open(self, event: Mapping[str, Any]) -> None:
        block = self._block(event["contentBlockIndex"])
        block.data.update({name: dict(value) for name, value in event["start"].items()})
        if is_call(block.data):
            use = block.data["toolUse"]
            block.call, self._calls = self._calls, self._calls + 1
            function = {"name": use["name"], "arguments": ""}
            self._say(
                {
                    "tool_calls": [
                        {"index": block.call, "id": use["toolUseId"], "type": "function", "function": function}
                    ]
                }
            )

    def _block(self, index: int) -> OpenBlock:
        if index not in self._blocks:
            self._blocks[index] = OpenBlock()
        return self._blocks[index]

    def _add(self, event: Mapping[str, Any]) -> None:
        block = self._block(event["contentBlockIndex"])
        for name, value in event["delta"].items():
            block.kind = block.kind or name
            take = DELTAS.get(name)
            if take is None:
                block.others.append({name: value})
            else:
                take(self, block, value)

    def _text(self, block: OpenBlock, text: str) -> None:
        if text:
            block.pieces.append(text)
            self._say({"content": text})

    def _input(self, block: OpenBlock, value: Mapping[str, Any]) -> None:
        text = value["input"]
        if text:
            block.pieces.append(text)
            self._arguments(block, text)

    def _arguments(self, block: OpenBlock, text: str) -> None:
        if block.call is not None:
            self._say({"tool_calls": [{"index": block.call, "function": {"arguments": text}}]})

    def _reason(self, block: OpenBlock, value: Mapping[str, Any]) -> None:
        text = value.get("text")
        if text:
            block.pieces.append(text)
            self._say({"reasoning_content": text})
        block.data.update({name: item for name, item in value.items() if name != "text"})

    def _cite(self, block: OpenBlock, citation: Mapping[str, Any]) -> None:
        block.citations.append(citation)
        self._say({"citations": [citation]})

    def _result(self, block: OpenBlock, pieces: list[Any]) -> None:
        block.data.setdefault("toolResult", {}).setdefault("content", []).extend(pieces)

    def _close(self, event: Mapping[str, Any]) -> None:
        block = self._block(event["contentBlockIndex"])
        if block.closed:
            return
        block.closed = True
        if block.kind == "reasoningContent":
            self._say({"thinking_blocks": [thinking_block(block.whole["reasoningContent"])]})
        elif block.call is not None and not block.pieces:
            self._arguments(block, "{}")

    def _whole_block(self, index: int, block: Block) -> None:
        """A block that came whole, as if it had come in pieces."""
        place = {"contentBlockIndex": index}
        if "toolUse" in block:
            use = dict(block["toolUse"])
            given = orjson.dumps(use.pop("input", None) or {}).decode()
            self._open({**place, "start": {"toolUse": use}})
            self._add({**place, "delta": {"toolUse": {"input": given}}})
        elif "reasoningContent" in block:
            reasoning = block["reasoningContent"]
            self._add({**place, "delta": {"reasoningContent": reasoning.get("reasoningText") or reasoning}})
        elif "citationsContent" in block:
            cited = block["citationsContent"]
            for piece in cited.get("content") or ():
                self._add({**place, "delta": piece})
            for citation in cited.get("citations") or ():
                self._add({**place, "delta": {"citation": citation}})
        elif "text" in block:
            self._add({**place, "delta": block})
        else:
            self._block(index).data.update(block)
        self._close(place)

    def _end(self, event: Mapping[str, Any]) -> None:
        for index in self._blocks:
            self._close({"contentBlockIndex": index})
        self._start({})
        blocks = [whole for block in self._blocks.values() if (whole := block.whole)]
        delta: dict[str, Any] = {} if fits(blocks) else {"converse_blocks": blocks}
        if not self._calls and not any(_texts(blocks)):
            delta["content"] = ""
        choice = {"index": 0, "delta": delta, **_ending(event["stopReason"])}
        self._chunks.append(self._head + b',"choices":[' + orjson.dumps(choice) + b"]}")
        self._stop = {**event}
        self._tell_rest()

    def _tell(self, event: Mapping[str, Any]) -> None:
        """What is known of the whole. Some give it before the end."""
        self._metadata = dict(event)
        self._tell_rest()

    def _tell_rest(self) -> None:
        if self._stop is not None and self._metadata:
            last = {"choices": [], **_rest({**self._stop, **self._metadata})}
            self._chunks.append(self._head + b"," + orjson.dumps(last)[1:])


class OpenBlock:
    """A block whose pieces are still coming."""

    def __init__(self) -> None:
        self.data: Block = {}
        self.kind = ""
        """The name of its first piece."""
        self.pieces: list[str] = []
        self.citations: list[Any] = []
        self.others: list[Block] = []
        self.call: int | None = None
        """OpenAI's index of the tool call that it is."""
        self.closed = False

    @property
    def whole(self) -> Block:
        """The block as it would be in a whole answer; empty if it says nothing."""
        joined = "".join(self.pieces)
        if "toolUse" in self.data:
            return {"toolUse": {**self.data["toolUse"], "input": _loaded(joined)}}
        if self.kind == "reasoningContent":
            if "redactedContent" in self.data:
                return {"reasoningContent": {"redactedContent": self.data["redactedContent"]}}
            return {"reasoningContent": {"reasoningText": {"text": joined, **self.data}}}
        if self.citations:
            content = {"content": [{"text": joined}]} if joined else {}
            return {"citationsContent": {**content, "citations": self.citations}}
        if joined:
            return {"text": joined}
        if self.others and not self.data:
            return {name: value for piece in self.others for name, value in piece.items()}
        return self.data


def _loaded(text: str) -> Any:
    """A call's input. Arguments cut by the limit are no JSON; the caller has seen their text."""
    try:
        return orjson.loads(text) if text else {}
    except orjson.JSONDecodeError:
        return {}


EVENTS: dict[str, Callable[[ConverseStream, Mapping[str, Any]], None]] = {
    "messageStart": ConverseStream._start,
    "contentBlockStart": ConverseStream._open,
    "contentBlockDelta": ConverseStream._add,
    "contentBlockStop": ConverseStream._close,
    "messageStop": ConverseStream._end,
    "metadata": ConverseStream._tell,
}
DELTAS: dict[str, Callable[[ConverseStream, OpenBlock, Any], None]] = {
    "text": ConverseStream._text,
    "toolUse": ConverseStream._input,
    "reasoningContent": ConverseStream._reason,
    "citation": ConverseStream._cite,
    "toolResult": ConverseStream._result,
}
