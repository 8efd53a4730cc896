"""Amazon Bedrock's InvokeModel: every model in the protocol of its maker.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html and
https://docs.aws.amazon.com/nova/latest/userguide/complete-request-schema.html (read 2026-11). A stream's messages each
hold an event of the model's own protocol, as base64.

How a model is asked goes by its name:

| model | protocol |
|---|---|
| Claude, and an ARN that says no more | Anthropic's messages |
| Nova | nearly that of Converse |
| Command R | Cohere's chat, version 1 |
| Llama, Mistral 7B and 8x7B, Titan Text, DeepSeek-R1, Cohere Command, Jurassic-2 | one text: `bedrock_prompts.py` |
| others (Mistral Large, Jamba, gpt-oss, Qwen, …) | OpenAI's messages |

An imported model, or one behind an ARN, is named by what it is: "llama/arn:aws:bedrock:…". How an answer is read goes
by the answer itself.

`text_completion` sends the caller's own text, in whatever form that is, to the models that read one.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson

from ..core.endpoint_folds import unfold_text
from ..core.shape import completion_as_chunk
from ..core.types import Request
from . import bedrock_choices, cohere_v1, cohere_v1_answers
from .anthropic import AnthropicCodec, packed
from .anthropic_answers import AnthropicStream
from .base import Call, Provider, ProviderFault, Reply, StreamDecoder
from .bedrock import CLAUDE, NOVA, PARAMETERS, BedrockCodec
from .bedrock_answers import completion as converse_completion
from .bedrock_messages import invalid
from .bedrock_prompts import CLAUDE_TEXT, family_of, turns_of
from .bedrock_stream import ConverseStream, FramedStream
from .broken import CUT_SHORT, MALFORMED, malformed
from .openai import PARAMETERS as OPENAI_PARAMETERS
from .openai import wire_json

VERSION = "bedrock-2023-05-31"
CHUNK = "chunk"

Json = dict[str, Any]


class BedrockInvokeCodec(BedrockCodec):
    """Messages in, a message out, in the protocol of the model's maker."""

    whole, streamed = "invoke", "invoke-with-response-stream"
    _claude = AnthropicCodec()

    def parameters(self, provider: Provider) -> frozenset[str]:
        return self._claude.parameters(provider) - {"web_search_options"}  # Bedrock runs no tools of Anthropic's

    def parameters_for(self, request: Request, provider: Provider) -> frozenset[str]:
        model = request.model
        if is_claude(model):
            return self.parameters(provider)
        if NOVA.search(model):
            return PARAMETERS | provider.extra
        if "command-r" in model:
            return cohere_v1.PARAMETERS | provider.extra
        family = family_of(model)
        return OPENAI_PARAMETERS | provider.extra if family is None else frozenset(family.takes) | provider.extra

    def encode(self, request: Request, provider: Provider) -> Call:
        if is_claude(request.model):
            return self.call(request, provider, packed(self._claude_body(request, provider), request.model))
        return self.call(request, provider, wire_json(self._body(request)))

    def _claude_body(self, request: Request, provider: Provider) -> Json:
        body = {"anthropic_version": VERSION, **self._claude.body(request, provider)}
        betas = request.parameters.get("betas")
        if betas:
            body["anthropic_beta"] = [betas] if isinstance(betas, str) else betas
        for name in ("model", "stream"):
            body.pop(name, None)
        return body

    def _body(self, request: Request) -> Json:
        if NOVA.search(request.model):
            return {"schemaVersion": "messages-v1", **self.body(request)}
        family = family_of(request.model)
        if "command-r" in request.model:
            body = cohere_v1.body_of(request)
        elif family is None:
            body = messages_body(request)
        else:
            prompt = family.prompt(turns_of(request.messages))
            body = family.body(prompt, request.parameters, stream=request.stream)
        return {**body, **(request.extra_body or {})}

    def decode(self, body: bytes, request: Request) -> bytes:
        try:
            answer = orjson.loads(body)
            if not isinstance(answer, dict):
                raise TypeError("no object")
        except MALFORMED as error:
            raise malformed("Bedrock", error, body) from error
        if "output" in answer:
            return converse_completion(body, request)
        if bedrock_choices.READERS.keys() & answer.keys():
            return bedrock_choices.completion(body, request)
        if "text" in answer:
            return cohere_v1_answers.completion(body, request)
        return self._claude.decode(body, request)

    def decode_reply(self, reply: Reply, request: Request) -> bytes:
        return bedrock_choices.with_counts(self.decode(reply.body, request), reply)

    def decoder(self, request: Request) -> StreamDecoder:
        return InvokeStream(request)


class BedrockTextCodec(BedrockInvokeCodec):
    """A text, sent as it is to a model that reads one."""

    def parameters_for(self, request: Request, provider: Provider) -> frozenset[str]:
        return frozenset({"prompt", *self._family(request).takes}) | provider.extra

    def encode(self, request: Request, provider: Provider) -> Call:
        prompt = request.parameters["prompt"]
        if not isinstance(prompt, str):
            raise invalid("Bedrock reads one text: prompt must be a string.", request.model)
        body = self._family(request).body(prompt, request.parameters, stream=request.stream)
        return self.call(request, provider, wire_json({**body, **(request.extra_body or {})}))

    def _family(self, request: Request) -> Any:
        family = CLAUDE_TEXT if CLAUDE.search(request.model) else family_of(request.model)
        if family is None:
            raise invalid(f"{request.model!r} takes messages: call it by completion().", request.model)
        return family


def is_claude(model: str) -> bool:
    return bool(CLAUDE.search(model)) or (model.startswith("arn:") and not NOVA.search(model) and not family_of(model))


def messages_body(request: Request) -> Json:
    """OpenAI's form, which has no model in it here. gpt-oss has the newer name of the limit, the others the older."""
    body: Json = {"messages": request.messages, **request.parameters}
    old, new = "max_tokens", "max_completion_tokens"
    ours, theirs = (old, new) if "gpt-oss" in request.model else (new, old)
    if ours in body:
        body[theirs] = body.pop(ours)
    if "mistral" in request.model and body.get("tool_choice") == "required":
        body["tool_choice"] = "any"
    return body


class InvokeStream(FramedStream):
    """Chunks that each hold an event of a model's own protocol; the first says whose."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self._request = request
        self._inner: NovaStream | ClaudeStream | ChoiceStream | V1Stream | None = None

    def read(self, name: str, payload: bytes) -> list[bytes]:
        if name != CHUNK:
            return []
        if self._inner is None:
            self._inner = self._stream_of(payload)
        return self._inner.read(name, payload)

    def _stream_of(self, payload: bytes) -> NovaStream | ClaudeStream | ChoiceStream | V1Stream:
        try:
            event = orjson.loads(event_in(payload))
            if "event_type" in event:
                return V1Stream(self._request)
            if bedrock_choices.READERS.keys() & event.keys():
                return ChoiceStream(self._request)
            return ClaudeStream(self._request) if "type" in event else NovaStream(self._request)
        except MALFORMED as error:
            raise malformed("Bedrock", error, payload) from error

    def finish(self) -> list[bytes]:
        if self._inner is None or not self._frames.is_between:
            raise ProviderFault(CUT_SHORT)
        return self._inner.finish()

    def read_whole(self, body: bytes) -> list[bytes]:
        codec = BedrockInvokeCodec()
        answer = orjson.loads(codec.decode(body, self._request))
        if self._request.endpoint != "chat":
            return unfold_text(orjson.dumps(answer))
        return [orjson.dumps(completion_as_chunk(answer))]


class NovaStream(ConverseStream):
    """Chunks that each hold an event of Converse under its name."""

    def read(self, name: str, payload: bytes) -> list[bytes]:
        if name != CHUNK:
            return []
        try:
            return self.take(orjson.loads(event_in(payload)))
        except MALFORMED as error:
            raise malformed("Bedrock", error, payload) from error


class ChoiceStream(FramedStream):
    """Chunks that each hold a piece of text, in one of many forms."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self._reader = bedrock_choices.ChoiceReader(request)

    def read(self, name: str, payload: bytes) -> list[bytes]:
        return read_event(self._reader, payload)

    def finish(self) -> list[bytes]:
        if not self._reader.is_complete:
            raise ProviderFault(CUT_SHORT)
        return []


class V1Stream(FramedStream):
    """Chunks that each hold an event of Cohere's, version 1."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self._reader = cohere_v1_answers.V1Reader(request)

    def read(self, name: str, payload: bytes) -> list[bytes]:
        return read_event(self._reader, payload)

    def finish(self) -> list[bytes]:
        if not self._reader.finished:
            raise ProviderFault(CUT_SHORT)
        return []


def read_event(reader: bedrock_choices.ChoiceReader | cohere_v1_answers.V1Reader, payload: bytes) -> list[bytes]:
    event = event_in(payload)
    try:
        return reader.read(orjson.loads(event), event)
    except MALFORMED as error:
        raise malformed("Bedrock", error, payload) from error


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


def event_in(payload: bytes) -> bytes:
    """The event that a chunk holds. Raises `ProviderFault`."""
    try:
        held: Any = orjson.loads(payload)["bytes"]
        return base64.b64decode(held, validate=True)
    except (*MALFORMED, binascii.Error) as error:
        raise malformed("Bedrock", error, payload) from error
