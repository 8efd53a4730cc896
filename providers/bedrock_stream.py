"""Bedrock's streams as OpenAI's chunks: what ConverseStream says, message by message.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html (read 2026-11)
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from ..core.types import Request
from .annotations import of_bedrock
from .base import ProviderFault, StreamDecoder
from .bedrock_answers import (
    Block,
    ending_of,
    fault_in_stream,
    fault_of,
    fits,
    head,
    is_call,
    rest_of,
    texts_of,
    thinking_block,
)
from .broken import CUT_SHORT, MALFORMED, cut_short, malformed
from .eventstream import BadFrame, FrameSplitter


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
            # A message begins with its length, and none is as long as "{" or "<" would make it.
            self._is_whole = start.startswith((b"{", b"<"))
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
            raise malformed("Bedrock", error, data) from error
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
            raise cut_short(self._body) from None
        return self.read_whole(self._body)

    def read(self, name: str, payload: bytes) -> list[bytes]:
        """The chunks that one event makes."""
        raise TypeError(f"{type(self).__name__} reads no events")

    def finish(self) -> list[bytes]:
        """What is left after the last event. Raises `ProviderFault` if the answer is not complete."""
        raise ProviderFault(CUT_SHORT)

    def read_whole(self, body: bytes) -> list[bytes]:
        """The chunks of an answer that came whole although a stream was asked for."""
        raise malformed("Bedrock", ValueError("no event stream"), body)


class ConverseStream(FramedStream):
    """Bedrock's events as chunks."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self._request = request
        self._head = orjson.dumps(head("chat.completion.chunk", request))[:-1]
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
            raise malformed("Bedrock", error, payload) from error
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
            raise ProviderFault(CUT_SHORT)
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
            raise malformed("Bedrock", error, body) from error
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
        hidden = value.get("redactedContent")
        if hidden and "redactedContent" in block.data:
            value = {**value, "redactedContent": joined_base64(block.data["redactedContent"], hidden)}
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
        if delta and (notes := of_bedrock(blocks)):
            delta["annotations"] = notes
        if not self._calls and not any(texts_of(blocks)):
            delta["content"] = ""
        choice = {"index": 0, "delta": delta, **ending_of(event["stopReason"])}
        self._chunks.append(self._head + b',"choices":[' + orjson.dumps(choice) + b"]}")
        self._stop = {**event}
        self._tell_rest()

    def _tell(self, event: Mapping[str, Any]) -> None:
        """What is known of the whole. Some give it before the end."""
        self._metadata = dict(event)
        self._tell_rest()

    def _tell_rest(self) -> None:
        if self._stop is not None and self._metadata:
            last = {"choices": [], **rest_of({**self._stop, **self._metadata})}
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


def joined_base64(first: str, second: str) -> str:
    """What two pieces encode, as one."""
    return base64.b64encode(base64.b64decode(first) + base64.b64decode(second)).decode()


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
