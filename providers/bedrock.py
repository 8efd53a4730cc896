"""Amazon Bedrock's Converse and ConverseStream: one protocol for every model there.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html (read 2026-11). How messages are said
is in `bedrock_messages.py`, how answers are read in `bedrock_answers.py`, who may call and where in `bedrock_auth.py`.

What is decided here:

- What Converse has a field for goes there; what only some models know (`top_k`, `thinking`, `reasoning_effort`,
  `betas`) goes into `additionalModelRequestFields`, in that model's words. The caller's own such fields come last.
- `response_format` is `outputConfig.textFormat`; for models without it, and for "json_object", which the vendor has
  not, it is an instruction at the end of `system`.
- There is no tool choice "none": the tools are left out, which the vendor refuses once some were called. The choice
  `allowed_tools` leaves out the others.
- Tools without a `function` are the vendor's own ({"systemTool": …}) and pass as they are. `web_search_options` is the
  one that Nova searches the web with; no other model has such a tool.
- `extra_body` is merged last, and into objects.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import orjson

from ..core.types import Request
from .anthropic import EFFORTS, WITH_BUDGET, accepted_schema, budget
from .base import Call, Codec, Failure, Provider, Reply, StreamDecoder
from .bedrock_answers import completion, failure_of, named_failure
from .bedrock_auth import no_region
from .bedrock_messages import Block, conversation, invalid, point
from .bedrock_stream import ConverseStream
from .given import tools_and_choice
from .openai import wire_json
from .prompt_cache import WISHES, add_points, wish_of

CONFIG = {
    "max_completion_tokens": "maxTokens",
    "max_tokens": "maxTokens",
    "temperature": "temperature",
    "top_p": "topP",
}
"""Parameters that are fields of `inferenceConfig` under another name."""

OWN = frozenset(
    {
        "additionalModelResponseFieldPaths",
        "guardrailConfig",
        "performanceConfig",
        "promptVariables",
        "requestMetadata",
    }
)
"""The vendor's own fields of a request that are sent as they are."""

TRANSLATED = frozenset(
    {
        "additionalModelRequestFields",
        "betas",
        "outputConfig",
        "parallel_tool_calls",
        "reasoning_effort",
        "response_format",
        "serviceTier",
        "service_tier",
        "stop",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "web_search_options",
    }
)
PARAMETERS = OWN | TRANSLATED | CONFIG.keys() | WISHES
"""What it takes beside model, messages and the stream's own. `metadata` is ours: it is for the caller's logs."""

CLAUDE = re.compile("claude")
NOVA = re.compile(r"\bnova-")
GPT_OSS = re.compile("gpt-oss")

OF_WHAT = re.compile(r"^[\w.-]+/(?=arn:)")
"""Before an ARN: what it names, which the ARN does not say ("llama/arn:aws:bedrock:…")."""

WITHOUT_FORMAT = re.compile(r"\bnova-|titan-|\bllama|claude-(v2|instant|3-[57]|(opus|sonnet)-4-(1\b|20\d\d))")
"""Models without structured outputs and strict tools.
https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html (2026-11)"""

NOVA_EFFORTS = {"minimal": "low", "xhigh": "high", "max": "high"}
GROUNDING = {"systemTool": {"name": "nova_grounding"}}
JSON_ONLY = "Answer with one JSON object and nothing else: no other text, no code fence."


class BedrockCodec(Codec):
    """Messages in, a message out. The model and the way of answering are in the URL."""

    whole, streamed = "converse", "converse-stream"
    """The last part of the path."""

    def parameters(self, provider: Provider) -> frozenset[str]:
        return (PARAMETERS | provider.extra) - provider.refused

    def encode(self, request: Request, provider: Provider) -> Call:
        return self.call(request, provider, wire_json(self.body(request)))

    def body(self, request: Request) -> dict[str, Any]:
        """What to send, as JSON's values. Raises `InvalidRequest` for what the protocol cannot say."""
        asked, model = request.parameters, request.model
        system, messages = conversation(request.messages)
        output, instruction = _output(asked, model)
        if instruction:
            system = [*system, {"text": instruction}]
        more = additional(asked, model)
        body: dict[str, Any] = {
            "messages": messages,
            "system": system,
            "inferenceConfig": _config(asked),
            "outputConfig": output,
            "serviceTier": _tier(asked),
            **_tools(asked, messages, model, more),
            **{name: asked[name] for name in OWN if name in asked},
            "additionalModelRequestFields": {**more, **(asked.get("additionalModelRequestFields") or {})},
        }
        body = {name: value for name, value in body.items() if value}
        body = add_points(body, wish_of(asked, model), model)
        if request.extra_body:
            from .gemini import merged

            body = merged(body, request.extra_body)
        return body

    def call(self, request: Request, provider: Provider, data: bytes) -> Call:
        # An ARN's slashes are encoded. Not so colons, though botocore does that: aiohttp would decode them, and the
        # signature is over the path as it arrives.
        model = quote(OF_WHAT.sub("", request.model), safe="-._~:")
        path = f"/model/{model}/{self.streamed if request.stream else self.whole}"
        return Call(path, data, provider.headers, request.api_base + path)

    def decode(self, body: bytes, request: Request) -> bytes:
        return completion(body, request)

    def decoder(self, request: Request) -> StreamDecoder:
        return ConverseStream(request)

    def failure(self, status: int, body: bytes) -> Failure:
        return failure_of(status, body)

    def failed(self, reply: Reply) -> Failure:
        return named_failure(reply)

    def template(self, provider: Provider, request: Request, api_key: str | None) -> tuple[str, dict[str, str]]:
        if not request.api_base:
            no_region()
        headers = {"content-type": "application/json"}
        if api_key:
            headers["authorization"] = f"Bearer {api_key}"
        return request.api_base, headers


def _config(asked: Mapping[str, Any]) -> dict[str, Any]:
    """`inferenceConfig`."""
    config = {theirs: asked[ours] for ours, theirs in CONFIG.items() if ours in asked}
    if "stop" in asked:
        config["stopSequences"] = [asked["stop"]] if isinstance(asked["stop"], str) else asked["stop"]
    return config


def _tier(asked: Mapping[str, Any]) -> Any:
    tier = asked.get("serviceTier", asked.get("service_tier"))
    if isinstance(tier, str):
        return None if tier == "auto" else {"type": tier}
    return tier


def additional(asked: Mapping[str, Any], model: str) -> dict[str, Any]:
    """What this model takes beyond what all take."""
    fields: dict[str, Any] = {}
    if "top_k" in asked:
        is_nova = NOVA.search(model)
        fields.update({"inferenceConfig": {"topK": asked["top_k"]}} if is_nova else {"top_k": asked["top_k"]})
    if "betas" in asked:
        betas = asked["betas"]
        fields["anthropic_beta"] = [betas] if isinstance(betas, str) else betas
    if "thinking" in asked:
        fields["thinking"] = asked["thinking"]
    effort = asked.get("reasoning_effort")
    if effort is not None:
        fields = {**_reasoning(effort, asked, model), **fields}
    return fields


def _reasoning(effort: Any, asked: Mapping[str, Any], model: str) -> dict[str, Any]:
    """`reasoning_effort` in a model's own words."""
    if CLAUDE.search(model):
        if effort == "none":
            return {"thinking": {"type": "disabled"}}
        if WITH_BUDGET.search(model):
            return {"thinking": budget(effort, asked.get("max_completion_tokens", asked.get("max_tokens")), model)}
        return {"thinking": {"type": "adaptive"}, "output_config": {"effort": EFFORTS.get(effort, effort)}}
    if NOVA.search(model):
        # https://docs.aws.amazon.com/nova/latest/nova2-userguide/extended-thinking.html (2026-11)
        if effort == "none":
            return {"reasoningConfig": {"type": "disabled"}}
        return {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": NOVA_EFFORTS.get(effort, effort)}}
    if GPT_OSS.search(model):
        return {"reasoning_effort": effort}
    return {"reasoning_config": effort}  # Qwen, DeepSeek and others


def _output(asked: Mapping[str, Any], model: str) -> tuple[dict[str, Any], str | None]:
    """`outputConfig`, and what to say in the system text where the model has no field for it."""
    output = dict(asked.get("outputConfig") or {})
    form = asked.get("response_format")
    kind = form.get("type") if isinstance(form, Mapping) else None
    if form is None or kind == "text":
        return output, None
    if kind == "json_object":
        return output, JSON_ONLY
    given = (form.get("json_schema") or form) if kind == "json_schema" else {}
    schema = given.get("schema")
    if not isinstance(schema, Mapping):
        raise invalid("response_format must be 'text', 'json_object', or 'json_schema' with a schema.", model)
    if WITHOUT_FORMAT.search(model):
        return output, f"{JSON_ONLY} It must follow this JSON Schema: {orjson.dumps(schema).decode()}"
    said = {name: given[name] for name in ("name", "description") if given.get(name)}
    said["schema"] = orjson.dumps(accepted_schema(schema)).decode()
    output.setdefault("textFormat", {"type": "json_schema", "structure": {"jsonSchema": said}})
    return output, None


def _tools(
    asked: Mapping[str, Any], messages: Iterable[Mapping[str, Any]], model: str, more: dict[str, Any]
) -> dict[str, Any]:
    """`toolConfig`. What only Claude can be told of it goes into `more`."""
    allowed, choice = tools_and_choice(asked)
    tools = [said for tool in allowed for said in _tool(tool, model)]
    if "web_search_options" in asked:
        tools += _web_search(tools, model)
    if not tools:
        return {}
    if choice == "none":
        if any("toolUse" in block for message in messages for block in message["content"]):
            raise invalid("Bedrock has no tool_choice='none' once tools were called. Leave it out.", model)
        return {}
    said: dict[str, Any] = {"tools": tools}
    if choice is not None:
        said["toolChoice"] = _choice(choice, model)
    if asked.get("parallel_tool_calls") is False:
        if not CLAUDE.search(model):
            raise invalid(
                f"{model!r} cannot be kept from calling several tools at once; see parallel_tool_calls.", model
            )
        kind, fields = next(iter(said.pop("toolChoice", {"auto": {}}).items()))
        more["tool_choice"] = {"type": kind, **fields, "disable_parallel_tool_use": True}
    return {"toolConfig": said}


def _web_search(tools: Iterable[Block], model: str) -> list[Block]:
    """https://docs.aws.amazon.com/nova/latest/nova2-userguide/web-grounding.html (2026-11)"""
    if not NOVA.search(model):
        raise invalid(f"{model!r} has no web search at Bedrock, only Nova has. Leave out web_search_options.", model)
    return [] if GROUNDING in tools else [GROUNDING]


def _tool(tool: Mapping[str, Any], model: str) -> list[Block]:
    """A function as the vendor wants it, and a cache point behind it if it is marked."""
    function = tool.get("function")
    marks = [point(mark)] if (mark := tool.get("cache_control")) else []
    if not isinstance(function, Mapping):
        if "type" in tool:
            raise invalid(
                f"Bedrock has no tools of the type {tool['type']!r}; its own are like {{'systemTool': …}}.", model
            )
        return [{name: value for name, value in tool.items() if name != "cache_control"}, *marks]
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    is_strict = bool(function.get("strict")) and not WITHOUT_FORMAT.search(model)
    said: dict[str, Any] = {"name": function.get("name")}
    if function.get("description"):
        said["description"] = function["description"]
    said["inputSchema"] = {"json": accepted_schema(schema) if is_strict else schema}
    if is_strict:
        said["strict"] = True
    return [{"toolSpec": said}, *marks]


def _choice(choice: Any, model: str) -> dict[str, Any]:
    if choice == "auto":
        return {"auto": {}}
    if choice in ("required", "any"):
        return {"any": {}}
    if isinstance(choice, Mapping):
        function = choice.get("function")
        if isinstance(function, Mapping) and function.get("name"):
            return {"tool": {"name": function["name"]}}
        if choice.keys() & {"auto", "any", "tool"}:
            return dict(choice)
    raise invalid(f"tool_choice={choice!r} means nothing to Bedrock. Write 'auto', 'required' or one function.", model)
