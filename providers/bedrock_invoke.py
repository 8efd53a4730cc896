"""Amazon Bedrock's InvokeModel: Claude and Nova in their own protocols.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages.html and
https://docs.aws.amazon.com/nova/latest/userguide/complete-request-schema.html (read 2026-11). A stream's messages each
hold an event of the model's own protocol, as base64.

Claude takes here what Converse has no words for. Nova's protocol is nearly that of Converse. Other models take prompts;
they are to be had by Converse, as "bedrock/…".
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson

from ..core.types import Request
from .anthropic import AnthropicCodec, packed
from .anthropic_answers import AnthropicStream
from .base import Call, Provider, StreamDecoder
from .bedrock import CLAUDE, NOVA, BedrockCodec
from .bedrock_answers import MALFORMED, malformed
from .bedrock_answers import completion as converse_completion
from .bedrock_messages import invalid
from .bedrock_stream import ConverseStream, FramedStream
from .openai import wire_json

VERSION = "bedrock-2023-05-31"
CHUNK = "chunk"


class BedrockInvokeCodec(BedrockCodec):
    """Messages in, a message out, in the protocol of the model's maker."""

    whole, streamed = "invoke", "invoke-with-response-stream"
    _claude = AnthropicCodec()

    def parameters(self, provider: Provider) -> frozenset[str]:
        return self._claude.parameters(provider)

    def encode(self, request: Request, provider: Provider) -> Call:
        if NOVA.search(request.model):
            return self.call(request, provider, wire_json({"schemaVersion": "messages-v1", **self.body(request)}))
        if not CLAUDE.search(request.model) and not request.model.startswith("arn:"):
            raise invalid(f"{request.model!r} is called as 'bedrock/{request.model}'; here are only Claude and Nova.")
        body = {"anthropic_version": VERSION, **self._claude.body(request, provider)}
        betas = request.parameters.get("betas")
        if betas:
            body["anthropic_beta"] = [betas] if isinstance(betas, str) else betas
        for name in ("model", "stream"):
            body.pop(name, None)
        return self.call(request, provider, packed(body, request.model))

    def decode(self, body: bytes, request: Request) -> bytes:
        if NOVA.search(request.model):
            return converse_completion(body, request)
        return self._claude.decode(body, request)

    def decoder(self, request: Request) -> StreamDecoder:
        return NovaStream(request) if NOVA.search(request.model) else ClaudeStream(request)


class NovaStream(ConverseStream):
    """Chunks that each hold an event of Converse under its name."""

    def read(self, name: str, payload: bytes) -> list[bytes]:
        if name != CHUNK:
            return []
        try:
            return self.take(orjson.loads(event_in(payload)))
        except MALFORMED as error:
            raise malformed(error, payload) from error


class ClaudeStream(FramedStream):
    """Chunks that each hold an event of Anthropic's."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self._claude = AnthropicStream(request)

    def read(self, name: str, payload: bytes) -> list[bytes]:
        if name != CHUNK:
            return []
        return self._claude.feed(b"data: " + event_in(payload).replace(b"\n", b" ") + b"\n\n")

    def finish(self) -> list[bytes]:
        return self._claude.end()

    def read_whole(self, body: bytes) -> list[bytes]:
        return [*self._claude.feed(body), *self._claude.end()]


def event_in(payload: bytes) -> bytes:
    """The event that a chunk holds. Raises `ProviderFault`."""
    try:
        held: Any = orjson.loads(payload)["bytes"]
        return base64.b64decode(held, validate=True)
    except (*MALFORMED, binascii.Error) as error:
        raise malformed(error, payload) from error
