"""Cohere's chat protocol, version 1: one message, and the history before it.

https://docs.cohere.com/v1/reference/chat and …/v1/docs/streaming (read 2026-11; events also by the vendor's SDK). The
same protocol is Command R's at Amazon Bedrock.

What is decided here:

- System messages before all others are the `preamble`, as the vendor asks; later ones stand in the history.
- The last user message is `message`. Where the conversation ends with tools' results, these are `tool_results`, and
  `message` is empty.
- This version gives tool calls no ids: they are "call_0", "call_1" … here, and results are sent with the call itself.
- Tools have named parameters with Python's types; of a JSON Schema that is what is sent. There is no way to force a
  call: with tool_choice="none" the tools are left out, and "required" is an error.

How answers are read is in `cohere_v1_answers.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from ..core.types import Message, Request
from .base import Call, Provider, StreamDecoder
from .cohere import CohereCodec, invalid
from .cohere_v1_answers import CohereV1Stream, completion
from .given import plain

Json = dict[str, Any]

SAME = frozenset({"frequency_penalty", "max_tokens", "presence_penalty", "seed", "temperature"})
RENAMED = {"max_completion_tokens": "max_tokens", "top_k": "k", "top_p": "p"}
TRANSLATED = frozenset({"response_format", "stop", "tool_choice", "tools"})
NATIVE = frozenset(
    {
        *("chat_history", "citation_quality", "connectors", "conversation_id", "documents", "force_single_step", "k"),
        *("max_input_tokens", "p", "preamble", "prompt_truncation", "raw_prompting", "return_prompt"),
        *("safety_mode", "search_queries_only", "stop_sequences"),
    }
)
PARAMETERS = SAME | RENAMED.keys() | TRANSLATED | NATIVE
"""What it takes beside model, messages and the stream's own."""

ROLES = {"system": "SYSTEM", "developer": "SYSTEM", "user": "USER", "assistant": "CHATBOT"}
TYPES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "array": "list", "object": "dict"}
"""JSON Schema's types in Python's words, which the vendor wants."""


class CohereV1Codec(CohereCodec):
    """Chat in the older version."""

    path = "/v1/chat"

    def parameters(self, provider: Provider) -> frozenset[str]:
        return (PARAMETERS | provider.extra) - provider.refused

    def encode(self, request: Request, provider: Provider) -> Call:
        body: Json = {"model": request.model, **body_of(request)}
        if request.stream:
            body["stream"] = True
        return self._call(body, request, provider)

    def decode(self, body: bytes, request: Request) -> bytes:
        return completion(body, request)

    def decoder(self, request: Request) -> StreamDecoder:
        return CohereV1Stream(request)

    def template(self, provider: Provider, request: Request, api_key: str | None) -> tuple[str, dict[str, str]]:
        base = request.api_base.removesuffix("/v1")
        return super().template(provider, request._replace(api_base=base), api_key)


# Requests


def body_of(request: Request) -> Json:
    """What to send, without the model. Raises `InvalidRequest` for what the protocol cannot say."""
    asked = request.parameters
    body = conversation(request.messages)
    body.update({name: value for name, value in asked.items() if name not in TRANSLATED | RENAMED.keys()})
    body.update({theirs: asked[ours] for ours, theirs in RENAMED.items() if ours in asked})
    if "stop" in asked:
        body["stop_sequences"] = [asked["stop"]] if isinstance(asked["stop"], str) else asked["stop"]
    if "response_format" in asked:
        body.update(_format(asked["response_format"]))
    if asked.get("tools") and _may_call(asked.get("tool_choice")):
        body["tools"] = [_tool(plain(tool)) for tool in asked["tools"]]
    return body


def conversation(messages: Iterable[Message]) -> Json:
    """`message`, and `preamble`, `chat_history` and `tool_results` where there are such."""
    given = list(messages)
    preamble = []
    while given and ROLES.get(given[0]["role"]) == "SYSTEM":
        preamble.append(_text(given.pop(0)))
    calls: dict[Any, Json] = {}
    turns: list[Json] = []
    for message in given:
        if message["role"] == "tool":
            _add_result(message, calls, turns)
        else:
            turns.append(_turn(message, calls))
    if not turns or turns[-1]["role"] not in ("USER", "TOOL"):
        raise invalid("Cohere answers a user or a tool: the last message must be of one of them.")
    last = turns.pop()
    said: Json = {"message": last.get("message", "")}
    if "tool_results" in last:
        said["tool_results"] = last["tool_results"]
    if turns:
        said["chat_history"] = turns
    if preamble:
        said["preamble"] = "\n".join(preamble)
    return said


def _turn(message: Message, calls: dict[Any, Json]) -> Json:
    """One message of the history. The calls in it are remembered in `calls` by their ids."""
    role = ROLES.get(message["role"])
    if role is None:
        raise invalid(f"Cohere has no messages of the role {message['role']!r}. For a tool's result use 'tool'.")
    turn: Json = {"role": role, "message": _text(message)}
    made = [(plain(call).get("id"), _call(plain(call))) for call in message.get("tool_calls") or ()]
    calls.update(made)
    if made:
        turn["tool_calls"] = [call for _, call in made]
    return turn


def _add_result(message: Message, calls: Mapping[Any, Json], turns: list[Json]) -> None:
    """Results that follow one another are one turn."""
    call = calls.get(message.get("tool_call_id"))
    if call is None:
        raise invalid(f"No earlier message calls {message.get('tool_call_id')!r}, which a 'tool' message answers.")
    if not turns or turns[-1]["role"] != "TOOL":
        turns.append({"role": "TOOL", "tool_results": []})
    turns[-1]["tool_results"].append({"call": call, "outputs": [_output(_text(message))]})


def _output(text: str) -> Any:
    """A tool's result as the object that the vendor wants: itself, if it is one."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = None
    return found if isinstance(found, dict) else {"output": text}


def _call(call: Mapping[str, Any]) -> Json:
    function = call.get("function")
    if not isinstance(function, Mapping) or not function.get("name"):
        raise invalid(f"The tool call {call.get('id')!r} has no function with a name; Cohere knows no other calls.")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = orjson.loads(arguments)
        except orjson.JSONDecodeError as error:
            raise invalid(f"The arguments of the call of {function['name']!r} are not JSON ({error}).") from None
    return {"name": function["name"], "parameters": arguments}


def _text(message: Message) -> str:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or message.get("refusal") or ""
    texts = []
    for given in content:
        part = {"type": "text", "text": given} if isinstance(given, str) else plain(given)
        if part.get("type") not in ("text", "refusal"):
            raise invalid(f"Cohere's version 1 takes no {part.get('type')!r} parts, only text. Use 'cohere/…'.")
        texts.append(str(part.get(part["type"]) or ""))
    return "\n".join(texts)


def _format(form: Any) -> Json:
    kind = form.get("type") if isinstance(form, Mapping) else None
    if kind == "text":
        return {}
    if kind not in ("json_object", "json_schema"):
        raise invalid("response_format must be 'text', 'json_object' or 'json_schema'.")
    schema = form.get("schema") or form.get("json_schema")
    if isinstance(schema, Mapping) and isinstance(schema.get("schema"), Mapping):
        schema = schema["schema"]
    if kind == "json_schema" and not isinstance(schema, Mapping):
        raise invalid("response_format 'json_schema' has no schema.")
    return {"response_format": {"type": "json_object", **({"schema": schema} if schema else {})}}


def _may_call(choice: Any) -> bool:
    if choice in (None, "auto", "none"):
        return bool(choice != "none")
    raise invalid(f"tool_choice={choice!r}: this version cannot be made to call a tool. Use 'cohere/…' for that.")


def _tool(tool: Mapping[str, Any]) -> Json:
    function = tool.get("function")
    if not isinstance(function, Mapping):
        if "parameter_definitions" in tool:
            return dict(tool)  # the vendor's own form
        raise invalid(f"Cohere takes functions as tools, not {dict(tool)!r}.")
    schema = function.get("parameters") or {}
    required = schema.get("required") or ()
    said: Json = {"name": function.get("name"), "description": function.get("description") or ""}
    definitions = {
        name: {
            **({"description": field["description"]} if field.get("description") else {}),
            "type": _type(field.get("type")),
            "required": name in required,
        }
        for name, field in (schema.get("properties") or {}).items()
    }
    return {**said, "parameter_definitions": definitions}


def _type(kind: Any) -> str:
    """Of several types the first that is one: `["string", "null"]` is a text that may be missing."""
    kinds = kind if isinstance(kind, list) else [kind]
    return next((TYPES[each] for each in kinds if each in TYPES), "str")
