"""Cohere's chat protocol, version 2.

https://docs.cohere.com/reference/chat (read 2026-11; parameters and events also by the vendor's SDK 7.3). How answers
are read is in `cohere_answers.py`, the vendor's other endpoints are in `cohere_endpoints.py`.

What is decided here:

- `reasoning_effort` is `thinking`: "none" turns it off, lower efforts have a token budget, "high" and more have none. A
  caller's own `thinking` is sent as it is.
- `response_format` is always `json_object`, the only form the vendor has; a schema goes with it.
- Cohere cannot be made to call one certain function. If that function is the only tool that is sent, `REQUIRED` says
  the same; and so with some of the tools (`allowed_tools`).
- Of an earlier answer go back: its text, its tool calls, its `tool_plan`, its `citations`, and those `thinking_blocks`
  that have no signature, which are Cohere's own. Thinking of other vendors stays out.
- Tool results are sent as they are, text or parts; a part of the vendor's type `document` can be cited.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..core.types import Message, Request
from .base import Call, Codec, Failure, Provider, StreamDecoder
from .cohere_answers import CohereStream, completion, failure_of
from .given import plain, tools_and_choice
from .openai import wire_json

Json = dict[str, Any]

SAME = frozenset({"frequency_penalty", "logprobs", "presence_penalty", "seed", "temperature"})
RENAMED = {"max_tokens": "max_tokens", "max_completion_tokens": "max_tokens", "top_k": "k", "top_p": "p"}
TRANSLATED = frozenset({"reasoning_effort", "response_format", "stop", "tool_choice", "tools"})
NATIVE = frozenset(
    {"citation_options", "documents", "k", "p", "priority", "safety_mode", "stop_sequences", "strict_tools", "thinking"}
)
PARAMETERS = SAME | RENAMED.keys() | TRANSLATED | NATIVE
"""What it takes beside model, messages and the stream's own."""

BUDGETS = {"minimal": 1_024, "low": 2_048, "medium": 8_192}
"""Tokens of thinking for efforts below the model's own; the vendor has a budget only."""

EFFORTS = frozenset({"none", *BUDGETS, "high", "xhigh", "max"})
TOOL_CHOICES = {"auto": None, "required": "REQUIRED", "any": "REQUIRED", "none": "NONE"}
NO_PARAMETERS = {"type": "object", "properties": {}}


class CohereCodec(Codec):
    """Chat: messages in, a message out."""

    path = "/v2/chat"

    def parameters(self, provider: Provider) -> frozenset[str]:
        return (PARAMETERS | provider.extra) - provider.refused

    def encode(self, request: Request, provider: Provider) -> Call:
        asked = request.parameters
        body: Json = {"model": request.model, "messages": [_message(message) for message in request.messages]}
        body.update({name: value for name, value in asked.items() if name not in TRANSLATED | RENAMED.keys()})
        body.update({theirs: asked[ours] for ours, theirs in RENAMED.items() if ours in asked})
        if "stop" in asked:
            body["stop_sequences"] = [asked["stop"]] if isinstance(asked["stop"], str) else asked["stop"]
        if "response_format" in asked:
            body["response_format"] = _response_format(asked["response_format"])
        if "reasoning_effort" in asked and "thinking" not in asked:
            body["thinking"] = _thinking(asked["reasoning_effort"])
        body.update(_tools(asked))
        if request.stream:
            body["stream"] = True
        return self._call(body, request, provider)

    def _call(self, body: Json, request: Request, provider: Provider) -> Call:
        if request.extra_body:
            body.update(request.extra_body)
        return Call(self.path, wire_json(body), provider.headers)

    def decode(self, body: bytes, request: Request) -> bytes:
        return completion(body, request)

    def decoder(self, request: Request) -> StreamDecoder:
        return CohereStream(request)

    def failure(self, status: int, body: bytes) -> Failure:
        return failure_of(body, status)

    def template(self, provider: Provider, request: Request, api_key: str | None) -> tuple[str, dict[str, str]]:
        headers = {"accept": "application/json", "content-type": "application/json", "x-client-name": "rejoinder"}
        if api_key:
            headers["authorization"] = f"Bearer {api_key}"
        # A base URL is also given with the version (the vendor's pages), or whole (as litellm wants it).
        base = request.api_base.removesuffix(self.path).removesuffix("/v2")
        return base + self.path, headers


def _thinking(effort: Any) -> Json:
    if effort not in EFFORTS:
        raise invalid(f"reasoning_effort={effort!r} is none of {', '.join(sorted(EFFORTS))}.")
    if effort == "none":
        return {"type": "disabled"}
    return {"type": "enabled", "token_budget": BUDGETS[effort]} if effort in BUDGETS else {"type": "enabled"}


def _response_format(form: Any) -> Json:
    kind = form.get("type") if isinstance(form, Mapping) else None
    if kind == "text":
        return {"type": "text"}
    if kind not in ("json_object", "json_schema"):
        raise invalid("response_format must be 'text', 'json_object' or 'json_schema'.")
    # `json_object` with a schema is Cohere's own form, under one of two names; in `json_schema` it is one level deeper.
    schema = form.get("schema") or form.get("json_schema")
    if kind == "json_schema" and isinstance(schema, Mapping) and isinstance(schema.get("schema"), Mapping):
        schema = schema["schema"]
    if kind == "json_schema" and not isinstance(schema, Mapping):
        raise invalid("response_format 'json_schema' has no schema.")
    return {"type": "json_object", "json_schema": schema} if schema else {"type": "json_object"}


def _tools(asked: Mapping[str, Any]) -> Json:
    """`tools`, `strict_tools` and `tool_choice`."""
    said: Json = {}
    tools, choice = tools_and_choice(asked)
    if isinstance(choice, Mapping):
        tools, choice = _only(choice, tools), "required"
    if tools:
        said["tools"] = [_tool(tool) for tool in tools]
        if any(_function(tool).get("strict") for tool in tools):
            said["strict_tools"] = True
    if choice is not None:
        word = TOOL_CHOICES.get(str(choice).lower(), "")
        if word == "":
            raise invalid(f"tool_choice={choice!r} means nothing to Cohere. Write 'auto', 'required' or 'none'.")
        if word:
            said["tool_choice"] = word
    return said


def _only(choice: Mapping[str, Any], tools: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The one tool that is to be called."""
    function = choice.get("function")
    name = function.get("name") if isinstance(function, Mapping) else choice.get("name")
    chosen = [tool for tool in tools if _function(tool).get("name") == name]
    if not name or not chosen:
        raise invalid(f"tool_choice={dict(choice)!r} names no function that is among the tools.")
    return chosen


def _tool(tool: Mapping[str, Any]) -> Json:
    function = {name: value for name, value in _function(tool).items() if name != "strict" and value is not None}
    if not function.get("name"):
        raise invalid(f"Cohere takes functions as tools, not {dict(tool)!r}.")
    return {"type": "function", "function": {**function, "parameters": function.get("parameters") or NO_PARAMETERS}}


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool.get("function")
    return function if isinstance(function, Mapping) else {}


def _message(message: Message) -> Json:
    read = READERS.get(message["role"])
    if read is None:
        raise invalid(f"Cohere has no messages of the role {message['role']!r}. For a tool's result use 'tool'.")
    return read(message)


def _system(message: Message) -> Json:
    return {"role": "system", "content": _content(message)}


def _user(message: Message) -> Json:
    return {"role": "user", "content": _content(message)}


def _assistant(message: Message) -> Json:
    if message.get("function_call"):
        raise invalid("'function_call' is OpenAI's old form, without the id that Cohere needs. Use 'tool_calls'.")
    said: Json = {"role": "assistant"}
    content = _content(message) or message.get("refusal")
    thought = [{"type": "thinking", "thinking": block["thinking"]} for block in _own_thinking(message)]
    if thought:
        text = [{"type": "text", "text": content}] if isinstance(content, str) else content
        content = [*thought, *(text or ())]
    if content:
        said["content"] = content
    calls = [_call(plain(call)) for call in message.get("tool_calls") or ()]
    if calls:
        said["tool_calls"] = calls
    said.update({name: message[name] for name in ("tool_plan", "citations") if message.get(name)})
    return said


def _own_thinking(message: Message) -> list[Mapping[str, Any]]:
    blocks = [plain(block) for block in message.get("thinking_blocks") or ()]
    return [block for block in blocks if block.get("thinking") and not block.get("signature")]


def _call(call: Mapping[str, Any]) -> Json:
    function = _function(call)
    if not function.get("name"):
        raise invalid(f"The tool call {call.get('id')!r} has no function with a name; Cohere knows no other calls.")
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else wire_json(arguments or {}).decode()
    return {
        "id": call.get("id"),
        "type": "function",
        "function": {"name": function["name"], "arguments": text or "{}"},
    }


def _tool_result(message: Message) -> Json:
    identity = message.get("tool_call_id")
    if not identity:
        raise invalid("A message of the role 'tool' needs the tool_call_id of the call that it answers.")
    return {"role": "tool", "tool_call_id": identity, "content": _content(message)}


def _content(message: Message) -> Any:
    """Text, or parts; of a part only what the vendor knows."""
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content
    return [_part({"type": "text", "text": part} if isinstance(part, str) else plain(part)) for part in content]


def _part(part: Mapping[str, Any]) -> Json:
    kind = part.get("type")
    if kind == "refusal":
        return {"type": "text", "text": part.get("refusal")}
    if kind == "image_url" and isinstance(part.get("image_url"), str):
        return {"type": "image_url", "image_url": {"url": part["image_url"]}}
    if kind not in ("text", "image_url", "document", "thinking"):
        raise invalid(f"Cohere takes no {kind!r} parts. Send text, images or documents.")
    return {"type": kind, kind: part.get(kind)}


def invalid(message: str) -> Exception:
    from ..core import api_errors

    return api_errors.invalid(message, provider="cohere")


READERS: dict[str, Callable[[Message], Json]] = {
    "system": _system,
    "developer": _system,
    "user": _user,
    "assistant": _assistant,
    "tool": _tool_result,
}
