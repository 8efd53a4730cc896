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

Of an answer its durations (nanoseconds) are kept beside OpenAI's fields, under the vendor's names.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from ..core.types import Message, Request
from .base import Call, Codec, Failure, Provider, ProviderFault, StreamDecoder
from .broken import CUT_SHORT, MALFORMED, is_json, malformed
from .failures import fault_in_answer, read_failure
from .given import arguments_of, plain, tools_and_choice
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

FINISH_REASONS = {"stop": "stop", "length": "length", "load": "stop", "unload": "stop"}
DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


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


# Answers.


def fault_of(body: bytes) -> ProviderFault:
    """An error that came inside a 200: `{"error": "…"}`, whose words are all there is to tell its status by."""
    return ProviderFault(fault_in_answer(body), body)


def completion(body: bytes, request: Request) -> bytes:
    """A whole answer as `chat.completion` JSON. Raises `ProviderFault`."""
    try:
        answer = orjson.loads(body)
        if answer.get("error") or "message" not in answer:
            raise fault_of(body)
        message = message_of(answer["message"], 0)
        calls = message.get("tool_calls")
        choice = {"index": 0, "message": message, **ending_of(answer, has_calls=bool(calls))}
        logprobs = logprobs_of(answer.get("logprobs"))
        if logprobs:
            choice["logprobs"] = logprobs
        result = {**head(answer, "chat.completion", request), "choices": [choice], "usage": usage_of(answer)}
        return orjson.dumps({**result, **durations(answer)})
    except MALFORMED as error:
        raise malformed("Ollama", error, body) from error


def head(answer: Mapping[str, Any], kind: str, request: Request) -> Json:
    """The vendor gives answers no id."""
    return {"id": "", "object": kind, "created": created(answer), "model": answer.get("model") or request.model}


def created(answer: Mapping[str, Any]) -> int:
    """The vendor's timestamp (RFC 3339, to the nanosecond) in seconds."""
    given = answer.get("created_at")
    if not given:
        return int(time.time())
    moment = datetime.datetime.fromisoformat(given)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp())


def message_of(message: Mapping[str, Any], first: int) -> Json:
    """What a message, or a piece of one, says. `first`: how many tool calls came before."""
    calls = [_tool_call(call, first + place) for place, call in enumerate(message.get("tool_calls") or ())]
    text, thinking = text_of(message.get("content")), text_of(message.get("thinking"))
    said: Json = {"role": "assistant", "content": text or (None if calls else "")}
    if thinking:
        said["reasoning_content"] = thinking
    if calls:
        said["tool_calls"] = calls
    return said


def _tool_call(call: Mapping[str, Any], place: int) -> Json:
    function = call["function"]
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else orjson.dumps(arguments or {}).decode()
    identity = call.get("id") or f"call_{place}"  # older servers give none
    return {"id": identity, "type": "function", "function": {"name": function["name"], "arguments": text or "{}"}}


def ending_of(answer: Mapping[str, Any], *, has_calls: bool) -> Json:
    """A choice's fields on why the answer ends: OpenAI's word and the vendor's, which is "stop" for calls too."""
    reason = answer.get("done_reason")
    finished = FINISH_REASONS.get(reason or "stop", "stop")
    if has_calls and finished == "stop":
        finished = "tool_calls"
    return {"finish_reason": finished, "native_finish_reason": reason}


def usage_of(answer: Mapping[str, Any]) -> Json:
    prompt, written = int(answer.get("prompt_eval_count") or 0), int(answer.get("eval_count") or 0)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def durations(answer: Mapping[str, Any]) -> Json:
    return {name: answer[name] for name in DURATIONS if answer.get(name) is not None}


def logprobs_of(items: Any) -> Json | None:
    """The vendor's are OpenAI's, without the list around them."""
    if not items:
        return None
    content = [{"bytes": None, **item, "top_logprobs": item.get("top_logprobs") or []} for item in items]
    return {"content": content, "refusal": None}


def text_of(value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{value!r} instead of text")
    return value or ""


class OllamaStream(StreamDecoder):
    """One JSON object a line, each with a piece of the message; the last says `done`."""

    holds = "message"
    """The field without which a line is none of the answer's."""

    def __init__(self, request: Request) -> None:
        self._request, self._rest = request, bytearray()
        self._calls = 0
        self._has_begun = self._has_text = self._finished = False

    def feed(self, data: bytes) -> list[bytes]:
        if b"\n" not in data:  # tiny writes of a long line must not cost its square
            self._rest += data
            return []
        *lines, rest = (bytes(self._rest) + data).split(b"\n")
        self._rest = bytearray(rest)
        return [chunk for line in lines for chunk in self._read(line)]

    def end(self) -> list[bytes]:
        # The last line may lack its break; or it is what was there when the connection broke.
        rest, self._rest = bytes(self._rest), bytearray()
        if self._has_begun and not self._finished and not is_json(rest):
            raise ProviderFault(CUT_SHORT, rest)
        chunks = self._read(rest)
        if not self._finished:
            raise ProviderFault(CUT_SHORT)
        return chunks

    def _read(self, line: bytes) -> list[bytes]:
        line = line.strip()
        if self._finished or not line:
            return []
        try:
            event = orjson.loads(line)
            if event.get("error") or self.holds not in event:
                raise fault_of(line)
            return self._chunks(event)
        except MALFORMED as error:
            raise malformed("Ollama", error, line) from error

    def _chunks(self, event: Json) -> list[bytes]:
        base = head(event, "chat.completion.chunk", self._request)
        delta = message_of(event["message"], self._calls)
        for place, call in enumerate(delta.get("tool_calls") or (), self._calls):
            call["index"] = place
        self._calls += len(delta.get("tool_calls") or ())
        self._has_text = self._has_text or bool(delta["content"])
        self._finished = bool(event.get("done"))
        logprobs = logprobs_of(event.get("logprobs"))
        choice: Json = {"index": 0, "delta": self._news(delta), "finish_reason": None}
        if logprobs:
            choice["logprobs"] = logprobs
        if not self._finished:
            return [orjson.dumps({**base, "choices": [choice]})]
        choice.update(ending_of(event, has_calls=self._calls > 0))
        last = {**base, "choices": [], "usage": usage_of(event), **durations(event)}
        return [orjson.dumps({**base, "choices": [choice]}), orjson.dumps(last)]

    def _news(self, delta: Json) -> Json:
        """The delta without what is said already or says nothing: the role after the first, empty texts."""
        kept = {name: value for name, value in delta.items() if name != "role" and value}
        if not self._has_begun:
            kept["role"] = "assistant"
        self._has_begun = True
        if self._finished and not self._has_text and not self._calls:
            kept["content"] = ""
        return kept
