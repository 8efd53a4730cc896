"""Ollama's own chat protocol and its vectors; the row `ollama` speaks OpenAI's to the same server.

https://docs.ollama.com/api/chat (read 2026-11; fields also by the vendor's openapi.yaml and Python client 0.6)

What is decided here:

- Sampling parameters go into `options`; what a caller gives there itself has the last word.
- `reasoning_effort` is `think`: "none" turns it off, the others are the vendor's levels, and models without levels take
  any of them for yes.
- Tool results are matched by `tool_name`, the vendor's documented way: the name is found by the id of the call. Ids
  themselves stay here.
- The vendor has no `tool_choice`: with "none" no tools are sent, and what would force a call is an error.
- Images must be in the request, as base64: the server fetches none.
- Texts of one message are joined by a line break.

Of an answer its durations (nanoseconds) are kept beside OpenAI's fields, under the vendor's names. How answers
are read is in `ollama_answers.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from ..core.types import Message, Request
from .base import Call, Codec, Failure, Provider, StreamDecoder
from .broken import MALFORMED, malformed
from .failures import read_failure
from .given import arguments_of, plain, tools_and_choice
from .ollama_answers import OllamaStream, completion, durations, fault_of
from .openai import wire_json

Json = dict[str, Any]

OPTIONS = {
    **{
        name: name
        for name in (
            "frequency_penalty",
            "min_p",
            "mirostat",
            "mirostat_eta",
            "mirostat_tau",
            "num_batch",
            "num_ctx",
            "num_gpu",
            "num_keep",
            "num_predict",
            "num_thread",
            "presence_penalty",
            "repeat_last_n",
            "repeat_penalty",
            "seed",
            "stop",
            "temperature",
            "tfs_z",
            "top_k",
            "top_p",
            "typical_p",
        )
    },
    "max_tokens": "num_predict",
    "max_completion_tokens": "num_predict",
}
"""Parameters that go into `options`, and their names there."""

SAME = frozenset({"format", "keep_alive", "logprobs", "think", "top_logprobs", "truncate", "shift"})
PARAMETERS = SAME | OPTIONS.keys() | {"options", "reasoning_effort", "response_format", "tool_choice", "tools"}
"""What it takes beside model, messages and the stream's own."""

EFFORTS = {"none": False, "minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "max"}


class OllamaCodec(Codec):
    """Chat: messages in, a message out, or one JSON object a line."""

    path = "/api/chat"
    takes = frozenset(PARAMETERS)

    def parameters(self, provider: Provider) -> frozenset[str]:
        return (self.takes | provider.extra) - provider.refused

    def encode(self, request: Request, provider: Provider) -> Call:
        asked = request.parameters
        body: Json = {"model": request.model, "messages": conversation(request.messages)}
        body.update({name: asked[name] for name in SAME if name in asked})
        if "reasoning_effort" in asked:
            body.setdefault("think", EFFORTS.get(asked["reasoning_effort"], asked["reasoning_effort"]))
        if "response_format" in asked:
            body.update(format_of(asked["response_format"]))
        tools, choice = tools_and_choice(asked)
        if tools and _may_call(choice):
            body["tools"] = tools
        options = options_of(asked)
        if options:
            body["options"] = options
        body["stream"] = request.stream  # without it the vendor streams
        return self._call(body, request, provider)

    def _call(self, body: Json, request: Request, provider: Provider) -> Call:
        if request.extra_body:
            body.update(request.extra_body)
        return Call(self.path, wire_json(body), provider.headers)

    def decode(self, body: bytes, request: Request) -> bytes:
        return completion(body, request)

    def decoder(self, request: Request) -> StreamDecoder:
        return OllamaStream(request)

    def failure(self, status: int, body: bytes) -> Failure:
        return read_failure(body, status)

    def template(self, provider: Provider, request: Request, api_key: str | None) -> tuple[str, dict[str, str]]:
        headers = {"accept": "application/json, application/x-ndjson", "content-type": "application/json"}
        if api_key:
            headers["authorization"] = f"Bearer {api_key}"
        # The base URL may be that of the server's OpenAI side: the same variable serves both rows.
        base = request.api_base.removesuffix(self.path).removesuffix("/v1").removesuffix("/api")
        return base + self.path, headers


class OllamaEmbed(OllamaCodec):
    """Texts to vectors. https://docs.ollama.com/api/embed"""

    path = "/api/embed"
    takes = frozenset({"dimensions", "encoding_format", "input", "keep_alive", "options", "truncate"}) | OPTIONS.keys()

    def encode(self, request: Request, provider: Provider) -> Call:
        asked = dict(request.parameters)
        if asked.pop("encoding_format", "float") != "float":
            raise _invalid("Ollama gives vectors as numbers only: leave out encoding_format.")
        body = {"model": request.model, **{name: value for name, value in asked.items() if name not in OPTIONS}}
        options = options_of(asked)
        if options:
            body["options"] = options
        return self._call(body, request, provider)

    def decode(self, body: bytes, request: Request) -> bytes:
        try:
            answer = orjson.loads(body)
            if "embeddings" not in answer:
                raise fault_of(body)
            data = [
                {"object": "embedding", "index": index, "embedding": list(vector)}
                for index, vector in enumerate(answer["embeddings"])
            ]
            tokens = int(answer.get("prompt_eval_count") or 0)
            usage = {"prompt_tokens": tokens, "total_tokens": tokens}
            model = answer.get("model") or request.model
            return orjson.dumps({"object": "list", "model": model, "data": data, "usage": usage, **durations(answer)})
        except MALFORMED as error:
            raise malformed("Ollama", error, body) from error

    def decoder(self, request: Request) -> StreamDecoder:
        raise _invalid("Ollama does not stream vectors. Leave out stream=True.")


def options_of(asked: Mapping[str, Any]) -> Json:
    """`options`."""
    options: Json = {theirs: asked[ours] for ours, theirs in OPTIONS.items() if ours in asked}
    if isinstance(options.get("stop"), str):
        options["stop"] = [options["stop"]]
    return {**options, **(asked.get("options") or {})}


def format_of(form: Any) -> Json:
    kind = form.get("type") if isinstance(form, Mapping) else None
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"format": form.get("schema") or "json"}
    schema = (form.get("json_schema") or form).get("schema") if kind == "json_schema" else None
    if not isinstance(schema, Mapping):
        raise _invalid("response_format must be 'text', 'json_object', or 'json_schema' with a schema.")
    return {"format": schema}


def _may_call(choice: Any) -> bool:
    if choice == "none":
        return False
    if choice in (None, "auto"):
        return True
    raise _invalid(f"tool_choice={choice!r}: Ollama cannot be made to call a tool. Write 'auto' or 'none'.")


def conversation(messages: Iterable[Message]) -> list[Json]:
    """The messages as the vendor wants them. Raises `InvalidRequest` for what it cannot be told."""
    names: dict[Any, str] = {}
    said = []
    for message in messages:
        calls = [plain(call) for call in message.get("tool_calls") or ()]
        names.update({call.get("id"): _function(call)["name"] for call in calls})
        said.append(_message(message, calls, names))
    return said


def _message(message: Message, calls: list[Mapping[str, Any]], names: Mapping[Any, str]) -> Json:
    role = message["role"]
    if role == "function":
        raise _invalid("'function' is an old role. For a tool's result use 'tool', with tool_call_id.")
    text, images = _content(message.get("content"))
    said: Json = {"role": "system" if role == "developer" else role, "content": text}
    if images:
        said["images"] = images
    if message.get("reasoning_content"):
        said["thinking"] = message["reasoning_content"]
    if calls:
        said["tool_calls"] = [{"type": "function", "function": _function(call)} for call in calls]
    if role == "tool":
        name = message.get("tool_name") or message.get("name") or names.get(message.get("tool_call_id"))
        if not name:
            raise _invalid(
                f"No earlier message calls {message.get('tool_call_id')!r}, which a 'tool' message answers. "
                "Ollama needs the function's name: put the call before it, or give the message a 'name'."
            )
        said["tool_name"] = name
    return said


def _function(call: Mapping[str, Any]) -> Json:
    function = call.get("function")
    if not isinstance(function, Mapping) or not function.get("name"):
        raise _invalid(f"The tool call {call.get('id')!r} has no function with a name; Ollama knows no other calls.")
    return {"name": function["name"], "arguments": arguments_of(function)}


def _content(content: Any) -> tuple[str, list[str]]:
    """The text of a message and its images."""
    if content is None or isinstance(content, str):
        return content or "", []
    texts, images = [], []
    for part in content:
        part = {"type": "text", "text": part} if isinstance(part, str) else plain(part)
        kind = part.get("type")
        if kind in ("text", "refusal"):
            texts.append(str(part.get(kind) or ""))
        elif kind == "image_url":
            images.append(_image(part))
        else:
            raise _invalid(f"Ollama takes no {kind!r} parts. Send text or images.")
    return "\n".join(texts), images


def _image(part: Mapping[str, Any]) -> str:
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, Mapping) else image
    head, comma, data = str(url).partition(",")
    if head and not comma and "://" not in head:
        return head  # bare base64, as the vendor has it
    if not head.startswith("data:") or not head.endswith(";base64"):
        raise _invalid(f"Ollama fetches no images: give a data URL with base64, not {str(url)[:60]!r}.")
    return data


def _invalid(message: str) -> Exception:
    from ..core import api_errors

    return api_errors.invalid(message, provider="ollama_chat")
