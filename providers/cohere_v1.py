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
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from ..core.types import Message, Request
from .base import Call, Provider, ProviderFault, StreamDecoder
from .broken import CUT_SHORT, MALFORMED, malformed
from .cohere import CohereCodec, invalid
from .cohere_answers import ending_of, fault_of, head, usage_of
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

KEPT = ("documents", "generation_id", "search_queries", "search_results", "is_search_required", "prompt")
"""The vendor's fields of an answer that OpenAI has no place for."""


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


# Answers


def completion(body: bytes, request: Request) -> bytes:
    """A whole answer as `chat.completion` JSON. Raises `ProviderFault`."""
    try:
        answer = orjson.loads(body)
        if not isinstance(answer.get("text"), str):
            raise fault_of(body)
        message: Json = {"role": "assistant", "content": answer["text"], **_beside(answer)}
        if message.get("tool_calls") and not answer["text"]:
            message["content"] = None
        ending = finish(answer, body, has_calls="tool_calls" in message)
        result = {
            **head(_identity(answer), "chat.completion", request),
            "choices": [{"index": 0, "message": message, **ending}],
            **rest_of(answer),
        }
        return orjson.dumps(result)
    except MALFORMED as error:
        raise malformed("Cohere", error, body) from error


def _identity(answer: Mapping[str, Any]) -> Any:
    return answer.get("response_id") or answer.get("generation_id")


def _beside(answer: Mapping[str, Any]) -> Json:
    """What a message has beside its text."""
    said: Json = {"citations": answer["citations"]} if answer.get("citations") else {}
    calls = [tool_call(call, place) for place, call in enumerate(answer.get("tool_calls") or ())]
    return {**said, "tool_calls": calls} if calls else said


def tool_call(call: Mapping[str, Any], place: int) -> Json:
    arguments = orjson.dumps(call.get("parameters") or {}).decode()
    return {"id": f"call_{place}", "type": "function", "function": {"name": call["name"], "arguments": arguments}}


def finish(answer: Mapping[str, Any], body: bytes, *, has_calls: bool) -> Json:
    """Why the answer ends. The vendor says "COMPLETE" of tool calls too."""
    ending = ending_of(answer, body)
    return {**ending, "finish_reason": "tool_calls"} if has_calls and ending["finish_reason"] == "stop" else ending


def rest_of(answer: Mapping[str, Any]) -> Json:
    """An answer's fields beside its choices."""
    rest = {name: answer[name] for name in KEPT if answer.get(name)}
    meta = answer.get("meta") or {}
    return {**rest, "usage": usage_of(meta)} if meta.get("tokens") or meta.get("billed_units") else rest


class CohereV1Stream(StreamDecoder):
    """One JSON object a line, bare or as an event's data."""

    def __init__(self, request: Request) -> None:
        self._rest = bytearray()
        self._reader = V1Reader(request)
        self._request = request
        self._body = bytearray()
        """What came before the first event: all of an answer or error that does not stream."""

    def feed(self, data: bytes) -> list[bytes]:
        if b"\n" not in data:  # tiny writes of a long line must not cost its square
            self._rest += data
            return []
        *lines, rest = (bytes(self._rest) + data).split(b"\n")
        self._rest = bytearray(rest)
        return [chunk for line in lines for chunk in self._line(line)]

    def end(self) -> list[bytes]:
        rest, self._rest = bytes(self._rest), bytearray()
        if not self._reader.has_begun and b"event_type" not in rest:
            return self._unstreamed(bytes(self._body) + rest)
        # The last line may lack its break; or it is what was there when the connection broke.
        chunks = self._line(rest) if rest.rstrip().endswith(b"}") else []
        if not self._reader.finished:
            raise ProviderFault(CUT_SHORT, rest)
        return chunks

    def _unstreamed(self, body: bytes) -> list[bytes]:
        """The chunk of an answer, or the fault of an error, that came whole although a stream was asked for."""
        from ..core.shape import completion_as_chunk

        if not body.strip():
            raise ProviderFault(CUT_SHORT, body)
        return [orjson.dumps(completion_as_chunk(orjson.loads(completion(body, self._request))))]

    def _line(self, line: bytes) -> list[bytes]:
        text = line.strip().removeprefix(b"data:").lstrip()
        if self._reader.finished or not text or text.startswith((b"event:", b"id:", b":", b"[DONE]")):
            return []
        if not self._reader.has_begun and b"event_type" not in text:
            self._body += line + b"\n"
            return []
        try:
            return self._reader.read(orjson.loads(text), text)
        except MALFORMED as error:
            raise malformed("Cohere", error, text) from error


class V1Reader:
    """Turns events, parsed, into chunks."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._head = b""
        self._has_text = False
        self._calls = 0
        self._chunks: list[bytes] = []
        self.finished = False

    @property
    def has_begun(self) -> bool:
        return bool(self._head)

    def read(self, event: Json, data: bytes) -> list[bytes]:
        """The chunks of one event. Raises `ProviderFault`, or any of `MALFORMED`."""
        kind = event.get("event_type")
        if kind is None and "message" in event:  # an error as it is outside of streams
            raise fault_of(data)
        if not self._head:
            identity = event.get("generation_id") or _identity(event.get("response") or {})
            self._head = orjson.dumps(head(identity, "chat.completion.chunk", self._request))[:-1]
            self._say({"role": "assistant", "content": None})
        take = EVENTS.get(str(kind))
        if take is not None:
            take(self, event, data)
        chunks, self._chunks = self._chunks, []
        return chunks

    def _say(self, delta: Mapping[str, Any], **choice: Any) -> None:
        said = orjson.dumps({"index": 0, "delta": delta, "finish_reason": None, **choice})
        self._chunks.append(self._head + b',"choices":[' + said + b"]}")

    def _text(self, event: Json, data: bytes) -> None:
        text = event["text"]
        if not isinstance(text, str):
            raise TypeError(f"{text!r} instead of text")
        if text:
            self._has_text = True
            self._say({"content": text})

    def _called(self, event: Json, data: bytes) -> None:
        """All calls at once. The vendor said them in pieces before, as "tool-calls-chunk"."""
        for call in event.get("tool_calls") or ():
            self._say({"tool_calls": [{"index": self._calls, **tool_call(call, self._calls)}]})
            self._calls += 1

    def _cited(self, event: Json, data: bytes) -> None:
        self._say({"citations": event["citations"]})

    def _end(self, event: Json, data: bytes) -> None:
        answer = event.get("response") or {}
        if not self._calls:
            self._called(answer, data)
        if not self._has_text and answer.get("text"):
            self._text(answer, data)
        reason = answer.get("finish_reason") or event.get("finish_reason")
        ending = finish({**answer, "finish_reason": reason}, data, has_calls=self._calls > 0)
        self._say({} if self._has_text or self._calls else {"content": ""}, **ending)
        rest = rest_of(answer)
        counts = event.get("amazon-bedrock-invocationMetrics")  # which has them there, and `meta` is not
        if counts and "usage" not in rest:
            asked, said = counts.get("inputTokenCount"), counts.get("outputTokenCount")
            rest["usage"] = usage_of({"tokens": {"input_tokens": asked, "output_tokens": said}})
        if rest:
            self._chunks.append(self._head + b',"choices":[],' + orjson.dumps(rest)[1:])
        self.finished = True


EVENTS: dict[str, Callable[[V1Reader, Json, bytes], None]] = {
    "text-generation": V1Reader._text,
    "tool-calls-generation": V1Reader._called,
    "citation-generation": V1Reader._cited,
    "stream-end": V1Reader._end,
}
"""The vendor may add kinds; those not here say nothing that a chunk could, or what the last one says again."""
