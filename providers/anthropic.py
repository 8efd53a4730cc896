"""The Anthropic Messages protocol.

https://platform.claude.com/docs/en/api/messages (read 2026-11). How messages are said is in `anthropic_messages.py`,
how answers are read in `anthropic_answers.py`.

What is decided here:

- `max_tokens` is required. Without one it is what the thinking budget takes plus 16,000, which each model since
  Claude 3.7 can write (4,096 or 8,192 for older ones).
- `reasoning_effort` is adaptive thinking with `output_config.effort`; on models before 4.6, which do not know these, a
  thinking budget. A caller's own `thinking` is sent as it is.
- `response_format` is `output_config.format`, with the schema brought into the form that the vendor accepts; for models
  without it, and for "json_object", which the vendor has not, it is an instruction at the end of `system`.
- `web_search_options` is the vendor's own tool `web_search`; the amount of context that is asked for says how often it
  may search.
- The choice `allowed_tools` leaves out the other tools.
- Parameters that this codec does not translate are sent as they are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import orjson

from ..core.types import Request
from .anthropic_answers import AnthropicStream, completion
from .anthropic_messages import conversation, with_instruction
from .base import Call, Codec, Failure, Provider, StreamDecoder
from .failures import read_failure
from .given import tools_and_choice
from .openai import wire_json
from .prompt_cache import MOST, WISHES, check_marks, mark_messages, wish_of

TRANSLATED = frozenset(
    {
        "betas",
        "max_completion_tokens",
        "max_tokens",
        "output_config",
        "parallel_tool_calls",
        "reasoning_effort",
        "response_format",
        "service_tier",
        "stop",
        "thinking",
        "tool_choice",
        "tools",
        "user",
        "web_search_options",
    }
)
SAMPLING = frozenset({"temperature", "top_k", "top_p"})
PARAMETERS = (
    TRANSLATED
    | WISHES
    | SAMPLING
    | {
        "cache_control",
        "container",
        "context_management",
        "diagnostics",
        "inference_geo",
        "mcp_servers",
        "speed",
        "stop_sequences",
    }
)
"""What it takes beside model, messages and the stream's own. `metadata` is ours: it is for the caller's logs."""

SAMPLING_VERSION = "2023-06-01"
"""From 2026-10-21 on the API refuses temperature, top_p and top_k, whatever their value and whatever the model.
https://platform.claude.com/docs/en/api/migration-2026-10-21 (2026-11)"""

WITH_BUDGET = re.compile(r"claude-(instant|[123]\b|4-)|claude-[a-z]+-4([-.@]([015]\b|20\d\d)|$)")
"""Models that think within a budget, if they think. Later ones refuse a budget (4.7 on) or deprecate it (4.6)."""

WITHOUT_FORMAT = re.compile(r"claude-(instant|[123]\b|4-)|claude-[a-z]+-4([-.@]([01]\b|20\d\d)|$)")
"""Models without structured outputs and strict tools.
https://platform.claude.com/docs/en/build-with-claude/structured-outputs (2026-11)"""

SYSTEM_IN_PLACE = re.compile(r"claude-(opus-(4[-.]([89]|\d\d)\b|[5-9])|(fable|mythos)-[5-9])")
"""Models that take system messages among the others.
https://platform.claude.com/docs/en/build-with-claude/mid-conversation-system-messages (2026-11)"""

MOST_TOKENS = (
    (re.compile(r"claude-(instant|[12]\b|3-(opus|sonnet|haiku))"), 4_096),
    (re.compile(r"claude-3-5"), 8_192),
    (re.compile(""), 16_000),
)
"""How much an answer may be where the caller does not say: by model, the first that fits."""

EFFORTS = {"minimal": "low"}
"""OpenAI's words for which Anthropic has another."""

BUDGETS = {"minimal": 1_024, "low": 2_048, "medium": 8_192, "high": 16_000, "xhigh": 16_000, "max": 16_000}
LEAST_BUDGET = 1_024

SERVICE_TIERS = {"default": "standard_only", "priority": "auto"}
DEAD_TOKEN = re.compile(r"token has (been revoked|expired)", re.IGNORECASE)
"""The vendor answers some of these 403, as if the key were right."""

TOOL_CHOICES = {"auto": "auto", "none": "none", "required": "any", "any": "any"}
NATIVE_CHOICES = frozenset({"auto", "any", "tool", "none"})

WEB_SEARCH = "web_search_20250305"
SEARCHES = {"low": 1, "medium": 5, "high": 10}
"""How often the model may search, for OpenAI's words on how much it should read."""

UNKNOWN_IN_SCHEMA = frozenset(
    {
        "exclusiveMaximum",
        "exclusiveMinimum",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minLength",
        "minProperties",
        "minimum",
        "multipleOf",
        "uniqueItems",
    }
)
"""What the vendor refuses in an output schema. The description tells the model instead, as in the vendor's SDK."""


FORMATS = frozenset({"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"})
"""Of texts; others are told like bounds."""


class AnthropicCodec(Codec):
    """Messages in, messages out."""

    path = "/v1/messages"

    def parameters(self, provider: Provider) -> frozenset[str]:
        return (PARAMETERS | provider.extra) - provider.refused

    def encode(self, request: Request, provider: Provider) -> Call:
        body = self.body(request, provider)
        headers = _headers(provider, body, request.parameters.get("betas"))
        return Call(self.path, packed(body, request.model), headers)

    def body(self, request: Request, provider: Provider) -> dict[str, Any]:
        """What to send, as JSON's values. Raises `InvalidRequest` for what the protocol cannot say."""
        asked, model = request.parameters, request.model
        system, messages = conversation(request.messages, system_in_place=bool(SYSTEM_IN_PLACE.search(model)))
        body: dict[str, Any] = {"model": model, "messages": messages}
        body.update({name: value for name, value in asked.items() if name not in TRANSLATED | WISHES})
        if "stop" in asked:
            body["stop_sequences"] = [asked["stop"]] if isinstance(asked["stop"], str) else asked["stop"]
        if "user" in asked:
            body["metadata"] = {"user_id": asked["user"]}
        if "service_tier" in asked:
            body["service_tier"] = SERVICE_TIERS.get(asked["service_tier"], asked["service_tier"])
        body.update(_tools(asked, model))
        body.update(_thinking(asked, model))
        output, instruction = _output(asked, model)
        if output:
            body["output_config"] = output
        if instruction:
            system = with_instruction(system, instruction)
        if system:
            body["system"] = system
        for ours, theirs in provider.renamed.items():
            if ours in body:
                body[theirs] = body.pop(ours)
        wish = wish_of(asked, model)
        if wish is not None:
            body = mark_messages(body, wish, top_level=provider.prompt_cache != "blocks")
        if request.stream:
            body["stream"] = True
        if request.extra_body:
            body.update(request.extra_body)
        return body

    def decode(self, body: bytes, request: Request) -> bytes:
        return completion(body, request)

    def decoder(self, request: Request) -> StreamDecoder:
        return AnthropicStream(request)

    def failure(self, status: int, body: bytes) -> Failure:
        failure = read_failure(body, status)
        return failure._replace(kind="authentication") if DEAD_TOKEN.search(failure.message) else failure

    def template(self, provider: Provider, request: Request, api_key: str | None) -> tuple[str, dict[str, str]]:
        import anthropic

        from .http import Template

        catch = Template()
        # Never without a credential of ours: the SDK would look for a profile on disk and exchange it over the network.
        token = None if api_key else os.environ.get("ANTHROPIC_AUTH_TOKEN")
        credential = {"auth_token": token} if token else {"api_key": api_key or "none"}
        sdk = anthropic.Anthropic(**credential, base_url=request.api_base, max_retries=0, http_client=catch.client())  # type: ignore[arg-type]
        sdk.post(self.path, body={"model": request.model}, cast_to=object)
        catch.headers.pop("x-stainless-timeout", None)
        if not (api_key or token):
            catch.headers.pop("authorization", None)
            catch.headers.pop("x-api-key", None)
        return catch.url, catch.headers


def packed(body: Mapping[str, Any], model: str) -> bytes:
    """A body as JSON. Raises `InvalidRequest` if it has more marks than the vendor takes."""
    data = wire_json(body)
    if data.count(b'"cache_control"') > MOST:
        check_marks(body, model)
    return data


def _headers(provider: Provider, body: Mapping[str, Any], betas: Any) -> Mapping[str, str]:
    headers = dict(provider.headers)
    if not SAMPLING.isdisjoint(body):
        headers["anthropic-version"] = SAMPLING_VERSION
    if betas:
        headers["anthropic-beta"] = betas if isinstance(betas, str) else ",".join(betas)
    return headers


def _tools(asked: Mapping[str, Any], model: str) -> dict[str, Any]:
    """`tools` and `tool_choice`."""
    said: dict[str, Any] = {}
    given, chosen = tools_and_choice(asked)
    tools = [_tool(tool, model) for tool in given]
    if "web_search_options" in asked and not any(tool.get("name") == "web_search" for tool in tools):
        tools.append(_web_search(asked["web_search_options"], model))
    if tools:
        said["tools"] = tools
    choice = _tool_choice(chosen) if "tool_choice" in asked else None
    if asked.get("parallel_tool_calls") is False and (choice or said):
        choice = choice or {"type": "auto"}
        if choice["type"] != "none":
            choice = {**choice, "disable_parallel_tool_use": True}
    if choice:
        said["tool_choice"] = choice
    return said


def _web_search(options: Any, model: str) -> dict[str, Any]:
    """https://platform.claude.com/docs/en/agents-and-tools/tool-use/web-search-tool (2026-11)"""
    options = options if isinstance(options, Mapping) else {}
    tool: dict[str, Any] = {"type": WEB_SEARCH, "name": "web_search"}
    size = options.get("search_context_size")
    if size is not None:
        if size not in SEARCHES:
            raise _invalid(f"search_context_size={size!r} is none of {', '.join(SEARCHES)}.", model)
        tool["max_uses"] = SEARCHES[size]
    place = options.get("user_location")
    if isinstance(place, Mapping):
        inner = place.get("approximate")
        tool["user_location"] = {"type": "approximate", **inner} if isinstance(inner, Mapping) else dict(place)
    return tool


def _tool(tool: Mapping[str, Any], model: str) -> Mapping[str, Any]:
    """A function as the vendor wants it. Tools in the vendor's own shape have no `function`: they pass as they are."""
    function = tool.get("function")
    if isinstance(tool.get("custom"), Mapping):
        raise _invalid(f"Anthropic has no free-form tools ({tool['custom'].get('name')!r}). Give it a function.", model)
    if not isinstance(function, Mapping):
        return tool
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    said = {name: value for name, value in tool.items() if name not in ("type", "function")}
    said.update({name: value for name, value in function.items() if name != "parameters" and value is not None})
    if not said.get("strict") or WITHOUT_FORMAT.search(model):
        said.pop("strict", None)
    else:
        schema = accepted_schema(schema)
    if isinstance(schema, Mapping) and "type" not in schema:
        schema = {"type": "object", **schema}  # OpenAI does not ask for it; the vendor does
    return {**said, "input_schema": schema}


def _tool_choice(choice: Any) -> dict[str, Any]:
    if isinstance(choice, str) and choice in TOOL_CHOICES:
        return {"type": TOOL_CHOICES[choice]}
    if isinstance(choice, Mapping):
        function = choice.get("function")
        if isinstance(function, Mapping) and function.get("name"):
            return {"type": "tool", "name": function["name"]}
        if choice.get("type") in NATIVE_CHOICES:
            return dict(choice)
    raise _invalid(
        f"tool_choice={choice!r} means nothing to Anthropic. Write 'auto', 'none', 'required' or one function.", ""
    )


def _thinking(asked: Mapping[str, Any], model: str) -> dict[str, Any]:
    """`thinking` and `max_tokens`: a budget is part of what may be written."""
    most = asked.get("max_completion_tokens", asked.get("max_tokens"))
    thinking = asked.get("thinking")
    effort = asked.get("reasoning_effort")
    if thinking is None and effort == "none":
        thinking = {"type": "disabled"}
    elif thinking is None and effort is not None:
        thinking = budget(effort, most, model) if WITH_BUDGET.search(model) else {"type": "adaptive"}
    if most is None:
        thought = thinking.get("budget_tokens") if isinstance(thinking, Mapping) else None
        most = next(tokens for pattern, tokens in MOST_TOKENS if pattern.search(model)) + (thought or 0)
    return {"max_tokens": most} if thinking is None else {"max_tokens": most, "thinking": thinking}


def budget(effort: Any, most: int | None, model: str) -> dict[str, Any]:
    """An effort as a thinking budget, which must leave something to write of `max_tokens`."""
    if effort not in BUDGETS:
        raise _invalid(f"reasoning_effort={effort!r} is none of {', '.join(BUDGETS)}.", model)
    tokens = BUDGETS[effort]
    if isinstance(most, int):
        tokens = max(min(tokens, most // 2), LEAST_BUDGET)
    if isinstance(most, int) and tokens >= most:
        raise _invalid(f"{model!r} thinks in {LEAST_BUDGET} tokens or more; max_tokens={most} is too few.", model)
    return {"type": "enabled", "budget_tokens": tokens}


def _output(asked: Mapping[str, Any], model: str) -> tuple[dict[str, Any], str | None]:
    """`output_config`, and what to say in the system text where the API has no field for it."""
    output = dict(asked.get("output_config") or {})
    effort = asked.get("reasoning_effort")
    if effort is not None and effort != "none" and not WITH_BUDGET.search(model):
        output.setdefault("effort", EFFORTS.get(effort, effort))
    form = asked.get("response_format")
    if form is None:
        return output, None
    kind = form.get("type") if isinstance(form, Mapping) else None
    if kind == "text":
        return output, None
    if kind == "json_object":
        return output, "Answer with one JSON object and nothing else: no other text, no code fence."
    schema = (form.get("json_schema") or form).get("schema") if kind == "json_schema" else None
    if not isinstance(schema, Mapping):
        raise _invalid("response_format must be 'text', 'json_object', or 'json_schema' with a schema.", model)
    if WITHOUT_FORMAT.search(model):
        text = orjson.dumps(schema).decode()
        return output, f"Answer with JSON and nothing else, no code fence. It must follow this JSON Schema: {text}"
    output.setdefault("format", {"type": "json_schema", "schema": accepted_schema(schema)})
    return output, None


def accepted_schema(schema: Any) -> Any:
    """`schema` as the vendor accepts it: objects closed, `oneOf` as `anyOf`, bounds as words in the description."""
    if not isinstance(schema, Mapping):
        return schema
    result: dict[str, Any] = {}
    bounds = []
    for name, value in schema.items():
        if not _is_accepted(name, value):
            bounds.append(f"{name}: {orjson.dumps(value).decode()}")
        elif name in ("properties", "$defs", "definitions") and isinstance(value, Mapping):
            result[name] = {key: accepted_schema(item) for key, item in value.items()}
        elif name in ("anyOf", "oneOf", "allOf", "prefixItems") and isinstance(value, (list, tuple)):
            result["anyOf" if name == "oneOf" else name] = [accepted_schema(item) for item in value]
        else:
            result[name] = accepted_schema(value) if name == "items" else value
    kinds = result.get("type")
    is_object = "object" in kinds if isinstance(kinds, (list, tuple)) else kinds == "object"
    if is_object and not isinstance(result.get("additionalProperties"), Mapping):
        result["additionalProperties"] = False
    if bounds:
        told = "{" + ", ".join(bounds) + "}"
        result["description"] = f"{result['description']}\n\n{told}" if result.get("description") else told
    return result


def _is_accepted(name: str, value: Any) -> bool:
    if name == "format":
        return value in FORMATS
    return name not in UNKNOWN_IN_SCHEMA and (name != "minItems" or value in (0, 1))


def _invalid(message: str, model: str) -> Exception:
    from ..core.api_errors import invalid

    return invalid(message, provider="anthropic", model=model or None)
