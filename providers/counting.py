"""How many tokens a conversation has, asked of the vendor: what each is sent, and how it answers.

https://docs.anthropic.com/en/api/messages-count-tokens, https://ai.google.dev/api/tokens, Claude on Vertex AI at
https://docs.cloud.google.com/vertex-ai/generative-ai/docs/partner-models/claude/count-tokens,
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_CountTokens.html and
https://platform.openai.com/docs/api-reference/responses/input-tokens (read 2026-11)

What is counted is the request that `completion` would make of the same arguments, so far as the vendor counts it:
sampling is left out. An answer has `input_tokens`, and what the vendor says beside under its own names.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import orjson

from ..core import shape
from ..core.types import Message, Request
from .anthropic import AnthropicCodec, packed
from .base import Call, Codec, Provider, ProviderFault, StreamDecoder
from .bedrock import BedrockCodec
from .bedrock_invoke import BedrockInvokeCodec
from .failures import fault_in_answer
from .gemini import GeminiCodec
from .openai import wire_json
from .openai_endpoints import EndpointCodec
from .vertex import OURS, VertexCodec, project_path
from .vertex_anthropic import VertexAnthropicCodec, without

Json = dict[str, Any]

COUNTED = frozenset(
    {
        *("cache_control", "context_management", "mcp_servers", "messages", "model", "output_config", "system"),
        *("thinking", "tool_choice", "tools"),
    }
)
"""The fields of a request to Claude that its count takes."""


class Counting(Codec):
    """An endpoint whose answer is a number."""

    names = ("input_tokens",)
    """The vendors' names for it."""

    def decode(self, body: bytes, request: Request) -> bytes:
        return counted(body, self.names, request)

    def decoder(self, request: Request) -> StreamDecoder:
        raise TypeError("a count does not stream")  # no such request gets this far


def counted(body: bytes, names: tuple[str, ...], request: Request) -> bytes:
    """An answer with the count under the one name that callers know. Raises `ProviderFault`."""
    try:
        answer = shape.parsed(body)
    except shape.Misshapen:
        raise ProviderFault(fault_in_answer(body)._replace(status=502), body) from None
    name = next((name for name in names if type(answer.get(name)) is int), None)
    if name is None or answer.get("error"):
        raise ProviderFault(fault_in_answer(body), body)
    return orjson.dumps({"model": request.model, **answer, "input_tokens": answer[name]})


def said_alone(request: Request) -> Request:
    """The request without what the caller adds to its body, which is added to what is counted."""
    return request._replace(extra_body=None)


class AnthropicCount(Counting, AnthropicCodec):
    path = "/v1/messages/count_tokens"

    def body(self, request: Request, provider: Provider) -> Json:
        body = super().body(said_alone(request), provider)
        return {name: value for name, value in body.items() if name in COUNTED} | dict(request.extra_body or {})


class VertexAnthropicCount(Counting, VertexAnthropicCodec):
    def encode(self, request: Request, provider: Provider) -> Call:
        asked = without(request, OURS)
        body = AnthropicCount.body(_ANTHROPIC, asked, provider)
        path = f"{project_path(request)}/{self._model(request._replace(model='count-tokens'))}:rawPredict"
        return Call(path, packed(body, request.model), {}, self._place.base(request) + path)


_ANTHROPIC = AnthropicCount()


class GeminiCount(Counting, GeminiCodec):
    """The whole request as it would be sent: contents alone would leave out the system's text and the tools."""

    names = ("totalTokens",)

    def encode(self, request: Request, provider: Provider) -> Call:
        call = super().encode(request, provider)
        model = call.path.strip("/").partition(":")[0]
        whole = {"model": model, **orjson.loads(call.body)}
        return call._replace(body=wire_json({"generateContentRequest": whole}))

    def path(self, request: Request) -> str:
        return super().path(request._replace(stream=False)).removesuffix("generateContent") + "countTokens"


class VertexCount(Counting, VertexCodec):
    names = ("totalTokens",)

    def path(self, request: Request) -> str:
        return super().path(request._replace(stream=False)).removesuffix("generateContent") + "countTokens"


class BedrockCount(Counting, BedrockCodec):
    """Of a Converse request: its messages, system texts and tools."""

    whole = "count-tokens"
    names = ("inputTokens",)

    def encode(self, request: Request, provider: Provider) -> Call:
        body = self.body(said_alone(request))
        taken = ("messages", "system", "toolConfig", "additionalModelRequestFields")
        converse = {name: body[name] for name in taken if name in body} | dict(request.extra_body or {})
        return self.call(request, provider, wire_json({"input": {"converse": converse}}))


class BedrockInvokeCount(Counting, BedrockInvokeCodec):
    """Of an InvokeModel request, the whole of it as base64."""

    whole = "count-tokens"
    names = ("inputTokens",)

    def encode(self, request: Request, provider: Provider) -> Call:
        body = base64.b64encode(super().encode(request, provider).body).decode()
        return self.call(request, provider, wire_json({"input": {"invokeModel": {"body": body}}}))


# OpenAI, who counts for its Responses API only


class OpenAICount(Counting, EndpointCodec):
    endpoint = "count_tokens"

    def body(self, request: Request, provider: Provider) -> Json:
        asked = request.parameters
        items = [item for message in request.messages for item in _items(message)]
        body: Json = {"model": request.model, "input": items}
        if asked.get("tools"):
            body["tools"] = [_flat(tool) for tool in asked["tools"]]
        if "tool_choice" in asked:
            body["tool_choice"] = _flat(asked["tool_choice"])
        if "reasoning_effort" in asked:
            body["reasoning"] = {"effort": asked["reasoning_effort"]}
        form = asked.get("response_format")
        if isinstance(form, Mapping):
            body["text"] = {"format": {"type": form.get("type"), **(form.get("json_schema") or {})}}
        same = ("parallel_tool_calls", "truncation", "instructions")
        return {**body, **{name: asked[name] for name in same if name in asked}, **(request.extra_body or {})}


def _items(message: Message) -> list[Json]:
    """A message of chat as items of the Responses API."""
    content, role = message.get("content"), message["role"]
    if role == "tool":
        output = content if isinstance(content, str) else [_part(part, role) for part in content or ()]
        return [{"type": "function_call_output", "call_id": message.get("tool_call_id"), "output": output}]
    said: list[Json] = []
    if content:
        parts = content if isinstance(content, str) else [_part(part, role) for part in content]
        said = [{"role": role, "content": parts}]
    for given in message.get("tool_calls") or ():
        call = given if isinstance(given, Mapping) else given.model_dump()
        said.append({"type": "function_call", "call_id": call.get("id"), **(call.get("function") or {})})
    return said


def _part(given: Any, role: str) -> Json:
    part: Json = {"type": "text", "text": given} if isinstance(given, str) else dict(given)
    if part.get("type") == "text":
        return {"type": "output_text" if role == "assistant" else "input_text", "text": part.get("text")}
    if part.get("type") == "image_url":
        image = part.get("image_url")
        held = dict(image) if isinstance(image, Mapping) else {"url": image}
        url = held.pop("url", None)
        return {"type": "input_image", "image_url": url, **held}
    if part.get("type") == "file":
        return {"type": "input_file", **(part.get("file") or {})}
    return part


def _flat(tool: Any) -> Any:
    """A function without the level that chat has around it."""
    if isinstance(tool, Mapping) and isinstance(tool.get("function"), Mapping):
        return {"type": "function", **tool["function"]}
    return tool
