"""Google's Gemini protocol: generateContent and streamGenerateContent.

https://ai.google.dev/api/generate-content (read 2026-11). How messages are said is in `gemini_messages.py`, how answers
are read in `gemini_answers.py`, and what Vertex AI does differently in `vertex.py`.

What is decided here:

- Schemas are sent as JSON Schema (`parametersJsonSchema`, `responseJsonSchema`), the few things that the vendor refuses
  in them left out. A schema in the vendor's own form ("type": "OBJECT") is sent as such.
- `reasoning_effort` is a thinking budget for models before Gemini 3 and a thinking level from then on, and asks for the
  thoughts to be shown. A model that cannot stop thinking gets the least that it takes for "none".
- `thinking` is Anthropic's form of the same, or the vendor's own `thinkingConfig`.
- Tools without a `function` are the vendor's own ({"googleSearch": {}}) and are sent as they are. `web_search_options`
  is that one; the vendor knows neither places nor an amount of searching.
- `extra_body` is merged last, and into objects: {"generationConfig": {"topK": 3}} leaves the rest of it alone. A list
  or a plain value takes the place of what was there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from ..core.types import Request
from .base import Call, Codec, Failure, Provider, StreamDecoder
from .gemini_answers import GeminiStream, completion, failure_of
from .gemini_messages import conversation, has_levels, invalid
from .given import name_of, plain
from .openai import wire_json

API_VERSION = "v1beta"

CONFIG = {
    "audio_timestamp": "audioTimestamp",
    "frequency_penalty": "frequencyPenalty",
    "image_config": "imageConfig",
    "logprobs": "responseLogprobs",
    "max_completion_tokens": "maxOutputTokens",
    "max_tokens": "maxOutputTokens",
    "media_resolution": "mediaResolution",
    "n": "candidateCount",
    "presence_penalty": "presencePenalty",
    "seed": "seed",
    "speech_config": "speechConfig",
    "temperature": "temperature",
    "top_k": "topK",
    "top_logprobs": "logprobs",
    "top_p": "topP",
}
"""Parameters that are fields of `generationConfig` under another name."""

TOP_LEVEL = {
    "cached_content": "cachedContent",
    "labels": "labels",
    "safety_settings": "safetySettings",
    "store": "store",
}
"""Parameters that are fields of the request under another name."""

TRANSLATED = frozenset(
    {
        "modalities",
        "parallel_tool_calls",
        "reasoning_effort",
        "response_format",
        "service_tier",
        "stop",
        "thinking",
        "thinking_config",
        "tool_choice",
        "tool_config",
        "tools",
        "web_search_options",
    }
)
PARAMETERS = TRANSLATED | CONFIG.keys() | TOP_LEVEL.keys()
"""What it takes beside model, messages and the stream's own. `metadata` is ours: it is for the caller's logs."""

BUDGETS = {"minimal": 1_024, "low": 1_024, "medium": 8_192, "high": 24_576, "xhigh": 24_576, "max": 24_576}
"""Google's own table of efforts: https://ai.google.dev/gemini-api/docs/openai#thinking (2026-11)"""

LEVELS = {"minimal": "minimal", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}

WITH_MINIMAL = re.compile(r"gemini-3(\.[1-6])?-flash")
"""Models that take the level "minimal". 3.7 and 3.8 Flash refuse it, as Pro models do.
https://ai.google.dev/gemini-api/docs/generate-content/thinking#thinking-levels (2026-11)"""

NEVER_SILENT = re.compile(r"gemini-2\.5-pro")
LEAST_BUDGET = 128
"""What 2.5 Pro takes instead of no thinking at all."""

SERVICE_TIERS = {"auto": None, "default": "standard"}
CHOICES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "any": "ANY", "validated": "VALIDATED"}

LITERAL = frozenset({"default", "enum", "example", "examples", "required"})
"""Keywords whose value is no schema, nor a list of them."""

NAMED_SCHEMAS = frozenset({"properties", "$defs", "definitions", "patternProperties"})
"""Keywords whose value maps names to schemas."""


class GeminiCodec(Codec):
    """Contents in, candidates out. The model and the way of answering are in the URL."""

    version = API_VERSION

    def parameters(self, provider: Provider) -> frozenset[str]:
        return (PARAMETERS | provider.extra) - provider.refused

    def encode(self, request: Request, provider: Provider) -> Call:
        asked = request.parameters
        system, contents = conversation(request.messages, request.model)
        body: dict[str, Any] = {"contents": contents}
        if system:
            body["systemInstruction"] = {"parts": system}
        body.update(_tools(asked))
        config = _config(asked, request.model)
        if config:
            body["generationConfig"] = config
        body.update({theirs: asked[ours] for ours, theirs in TOP_LEVEL.items() if ours in asked})
        tier = asked.get("service_tier")
        if tier is not None and (tier := SERVICE_TIERS.get(tier, tier)) is not None:
            body["serviceTier"] = tier
        if request.extra_body:
            body = merged(body, request.extra_body)
        path = self.path(request)
        return Call(path, wire_json(body), provider.headers, self.base(request) + path)

    def base(self, request: Request) -> str:
        """The base URL; one without a path (as the vendor's SDK wants it) gets the API's version."""
        base = request.api_base
        return base if urlsplit(base).path.strip("/") else f"{base}/{request.api_version or self.version}"

    def path(self, request: Request) -> str:
        """Below the base URL."""
        model = quote(request.model, safe="/@:")
        place = model if model.startswith(("models/", "tunedModels/")) else f"models/{model}"
        return f"/{place}:" + ("streamGenerateContent?alt=sse" if request.stream else "generateContent")

    def decode(self, body: bytes, request: Request) -> bytes:
        return completion(body, request)

    def decoder(self, request: Request) -> StreamDecoder:
        return GeminiStream(request)

    def failure(self, status: int, body: bytes) -> Failure:
        return failure_of(body, status)

    def template(self, provider: Provider, request: Request, api_key: str | None) -> tuple[str, dict[str, str]]:
        headers = {"content-type": "application/json"}
        if api_key:
            headers["x-goog-api-key"] = api_key
        return self.base(request), headers


def _config(asked: Mapping[str, Any], model: str) -> dict[str, Any]:
    """`generationConfig`."""
    config = {theirs: asked[ours] for ours, theirs in CONFIG.items() if ours in asked}
    if "stop" in asked:
        config["stopSequences"] = [asked["stop"]] if isinstance(asked["stop"], str) else asked["stop"]
    if "modalities" in asked:
        config["responseModalities"] = [str(modality).upper() for modality in asked["modalities"]]
    config.update(_format(asked.get("response_format")))
    thinking = _thinking(asked, model)
    if thinking:
        config["thinkingConfig"] = thinking
    return config


def _format(form: Any) -> dict[str, Any]:
    kind = form.get("type") if isinstance(form, Mapping) else form
    if kind in (None, "text"):
        return {}
    if kind == "json_object":
        return {"responseMimeType": "application/json"}
    schema = (form.get("json_schema") or form).get("schema") if kind == "json_schema" else None
    if not isinstance(schema, Mapping):
        raise invalid("response_format must be 'text', 'json_object', or 'json_schema' with a schema.")
    name = "responseSchema" if _is_own_form(schema) else "responseJsonSchema"
    return {"responseMimeType": "application/json", name: accepted_schema(schema)}


def _thinking(asked: Mapping[str, Any], model: str) -> Mapping[str, Any] | None:
    """`thinkingConfig`, out of whichever parameter speaks of it."""
    own = asked.get("thinking_config")
    if own is not None:
        return own  # type: ignore[no-any-return]
    thinking, effort = asked.get("thinking"), asked.get("reasoning_effort")
    if isinstance(thinking, Mapping):
        kind = thinking.get("type")
        if kind is None:
            return thinking
        if kind == "enabled" and "budget_tokens" in thinking:
            return {"thinkingBudget": thinking["budget_tokens"], "includeThoughts": True}
        if kind in ("enabled", "adaptive") and effort is None:
            return {"includeThoughts": True}
        effort = "none" if kind == "disabled" else effort
    if effort is None:
        return None
    if effort in ("none", "disable"):
        return _no_thinking(model)
    if effort not in LEVELS:
        raise invalid(f"reasoning_effort={effort!r} is none of none, {', '.join(LEVELS)}.", model)
    if not has_levels(model):
        return {"thinkingBudget": BUDGETS[effort], "includeThoughts": True}
    if effort == "minimal":
        return {**_no_thinking(model), "includeThoughts": True}
    return {"thinkingLevel": LEVELS[effort], "includeThoughts": True}


def _no_thinking(model: str) -> dict[str, Any]:
    """As little of it as the model takes."""
    if has_levels(model):
        return {"thinkingLevel": "minimal" if WITH_MINIMAL.search(model) else "low"}
    return {"thinkingBudget": LEAST_BUDGET if NEVER_SILENT.search(model) else 0}


def _tools(asked: Mapping[str, Any]) -> dict[str, Any]:
    """`tools` and `toolConfig`."""
    if asked.get("parallel_tool_calls") is False:
        raise invalid("Gemini cannot be kept from calling several tools at once; leave out parallel_tool_calls=False.")
    functions: list[Any] = []
    own: list[Mapping[str, Any]] = []
    for given in asked.get("tools") or ():
        tool = plain(given)
        if isinstance(tool.get("function"), Mapping):
            functions.append(_function(tool["function"]))
        elif "type" in tool:
            raise invalid(
                f"Gemini has no tools of the type {tool['type']!r}; its own are like {{'googleSearch': {{}}}}."
            )
        else:
            own.append(tool)
    if "web_search_options" in asked and not any("googleSearch" in tool or "google_search" in tool for tool in own):
        own.append({"googleSearch": {}})
    said: dict[str, Any] = {}
    if functions or own:
        said["tools"] = [*([{"functionDeclarations": functions}] if functions else ()), *own]
    config = dict(asked.get("tool_config") or {})
    # Without a function of the caller's the vendor refuses a choice among them.
    if "tool_choice" in asked and (functions or any("functionDeclarations" in tool for tool in own)):
        config.setdefault("functionCallingConfig", _choice(asked["tool_choice"]))
    if config:
        said["toolConfig"] = config
    return said


def _function(function: Mapping[str, Any]) -> dict[str, Any]:
    said = {name: function[name] for name in ("name", "description") if function.get(name) is not None}
    schema = function.get("parameters")
    if isinstance(schema, Mapping) and schema:
        said["parameters" if _is_own_form(schema) else "parametersJsonSchema"] = accepted_schema(schema)
    return said


def _choice(choice: Any) -> dict[str, Any]:
    if isinstance(choice, str) and choice.lower() in CHOICES:
        return {"mode": CHOICES[choice.lower()]}
    if isinstance(choice, Mapping):
        function = choice.get("function")
        if isinstance(function, Mapping) and function.get("name"):
            return {"mode": "ANY", "allowedFunctionNames": [function["name"]]}
        allowed = choice.get("allowed_tools")
        if isinstance(allowed, Mapping):
            names = [name_of(plain(tool)) for tool in allowed.get("tools") or ()]
            return {"mode": "ANY" if allowed.get("mode") == "required" else "VALIDATED", "allowedFunctionNames": names}
        if "mode" in choice:
            return dict(choice)
    raise invalid(f"tool_choice={choice!r} means nothing to Gemini. Write 'auto', 'none', 'required' or one function.")


def _is_own_form(schema: Mapping[str, Any]) -> bool:
    """Whether a schema is in the vendor's own form (OpenAPI's, with types in capitals)."""
    kind = schema.get("type")
    return isinstance(kind, str) and kind.isupper()


def accepted_schema(schema: Any) -> Any:
    """`schema` as the vendor accepts it: beside a `$ref` only its like (`$defs`), and `const` as an `enum` of one."""
    if isinstance(schema, (list, tuple)):
        return [accepted_schema(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    refers = "$ref" in schema
    result: dict[str, Any] = {}
    for name, value in schema.items():
        if name == "$schema" or (refers and not name.startswith("$")):
            continue
        if name in NAMED_SCHEMAS and isinstance(value, Mapping):
            result[name] = {key: accepted_schema(item) for key, item in value.items()}
        elif name == "const":
            result.setdefault("enum", [value])
        elif name in LITERAL:
            result[name] = value
        else:
            result[name] = accepted_schema(value)
    return result


def merged(base: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `extra` in it: objects are merged, everything else is replaced."""
    result = dict(base)
    for name, value in extra.items():
        held = result.get(name)
        both = isinstance(held, Mapping) and isinstance(value, Mapping)
        result[name] = merged(held, value) if both else value  # type: ignore[arg-type]
    return result
