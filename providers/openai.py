"""The OpenAI chat protocol, and how its many speakers leave it.

https://platform.openai.com/docs/api-reference/chat (read 2026-11)
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from ..core.types import Request
from .base import Call, Codec, Failure, Provider, ProviderFault, StreamDecoder
from .sse import EventSplitter

PARAMETERS = frozenset(
    {
        "audio",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "modalities",
        "moderation",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    }
)
"""What OpenAI takes beside model, messages and the stream's own. `metadata` is ours: it is for the caller's logs."""

FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')


class OpenAICodec(Codec):
    """Chat completions. The answer's own JSON is already the shape that everything else speaks."""

    path = "/chat/completions"

    def parameters(self, provider: Provider) -> frozenset[str]:
        return (PARAMETERS | provider.extra) - provider.refused

    def encode(self, request: Request, provider: Provider) -> Call:
        body: dict[str, Any] = {"model": request.model, "messages": request.messages, **request.parameters}
        for ours, theirs in provider.renamed.items():
            if ours in body:
                body[theirs] = body.pop(ours)
        if request.stream:
            body["stream"] = True
            if request.stream_options and provider.stream_usage:
                body["stream_options"] = request.stream_options
        if request.extra_body:
            body.update(request.extra_body)
        return Call(self.path, wire_json(body), provider.headers)

    def decode(self, body: bytes, request: Request) -> bytes:
        if b'"choices"' not in body:
            raise ProviderFault(self._fault(body), body)
        return body

    def decoder(self, request: Request) -> StreamDecoder:
        return OpenAIStream(self)

    def failure(self, status: int, body: bytes) -> Failure:
        return read_failure(body)

    def _fault(self, body: bytes) -> Failure:
        failure = read_failure(body)
        return failure._replace(status=failure.status or 500)

    def template(self, provider: Provider, request: Request, api_key: str | None) -> tuple[str, dict[str, str]]:
        import openai

        from .http import Template

        catch = Template()
        sdk = openai.OpenAI(
            api_key=api_key or "none", base_url=request.api_base, max_retries=0, http_client=catch.client()
        )
        sdk.post(self.path, body={"model": request.model}, cast_to=object)
        if not api_key:
            catch.headers.pop("authorization", None)
        return catch.url, catch.headers


class OpenAIStream(StreamDecoder):
    """Events that already are chunks; what is left is to find the end, and errors on the way."""

    def __init__(self, codec: OpenAICodec) -> None:
        self._codec, self._events = codec, EventSplitter()
        self._finished = False
        self._raw_start = b""

    def feed(self, data: bytes) -> list[bytes]:
        if not self._raw_start:
            self._raw_start = data[:2000]
        return self._chunks(self._events.feed(data))

    def end(self) -> list[bytes]:
        chunks = self._chunks(self._events.end())
        if not self._finished:
            text = self._raw_start.lstrip()
            if text.startswith(b"{") and not text.startswith(b"data"):
                raise ProviderFault(self._codec._fault(text), text)
            raise ProviderFault(Failure("The stream ended before the answer did.", "incomplete_stream", status=502))
        return chunks

    def _chunks(self, events: list[Any]) -> list[bytes]:
        chunks = []
        for name, data in events:
            if data.startswith(b"[DONE]"):
                self._finished = True
            elif name == "error" or data.startswith((b'{"error"', b'{"error" ', b'{ "error"')):
                raise ProviderFault(self._codec._fault(data), data)
            elif data.startswith(b"{"):
                if not self._finished and FINISHED.search(data):
                    self._finished = True
                chunks.append(data)
        return chunks


def wire_json(body: Any) -> bytes:
    """`body` as JSON for the wire. Values that JSON does not know get their obvious form; the rest is a clear error."""
    try:
        return orjson.dumps(body, default=wire_form, option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, orjson.JSONEncodeError) as error:
        from ..core.api_errors import invalid

        cause = error.__cause__ or error
        if "surrogates" in str(error):
            cause = ValueError("a text is not valid Unicode: it has a lone surrogate; decode it with errors='replace'")
        raise invalid(f"The request is not JSON: {cause}.") from None


def wire_form(value: Any) -> Any:
    """The JSON form of a value that orjson does not know."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if hasattr(value, "__fspath__"):
        return value.__fspath__()
    if hasattr(value, "keys"):
        return dict(value)
    if isinstance(value, (bytes, bytearray)):
        raise TypeError(f"bytes ({len(value)} of them) have no JSON form; encode them as base64 text")
    raise TypeError(f"a value of type {type(value).__name__!r} has no JSON form")


CONTEXT_WINDOW = re.compile(
    r"context.{0,12}(length|window|size)|maximum context|too many (input )?tokens|prompt is too long"
    r"|input is too long|reduce the length|exceeds? the (model's |available )?(maximum |context)",
    re.IGNORECASE,
)
CONTENT_POLICY = re.compile(
    r"content.?(filter|policy|management)|safety (system|policy)|flagged|responsible ?ai|usage policies|moderation",
    re.IGNORECASE,
)


def read_failure(body: bytes) -> Failure:
    """What an error's body says, in any of the shapes that OpenAI-protocol vendors use."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        text = body[:500].decode("utf-8", "replace").strip()
        return Failure(text or "an empty answer", None, failure_kind(text, None))
    if isinstance(data, list) and data:
        data = data[0]
    if not isinstance(data, dict):
        return Failure(str(data)[:500])
    error = data.get("error", data)
    if isinstance(error, str):
        error = {**data, "message": error}
    if not isinstance(error, dict):
        error = data
    message = next((str(error[name]) for name in ("message", "detail", "error", "msg", "title") if error.get(name)), "")
    code = next((str(error[name]) for name in ("code", "type", "status") if error.get(name)), None)
    message = message or body[:500].decode("utf-8", "replace")
    return Failure(message, code, failure_kind(message, code), _status_in(error))


def failure_kind(message: str, code: str | None) -> str | None:
    """Whether an error is about the context window or the content policy, by its words."""
    if (code and "context" in code) or CONTEXT_WINDOW.search(message):
        return "context_window"
    if (code and ("content_filter" in code or "content_policy" in code)) or CONTENT_POLICY.search(message):
        return "content_policy"
    return None


def _status_in(error: dict[str, Any]) -> int | None:
    for name in ("code", "status", "status_code"):
        value = error.get(name)
        if isinstance(value, str) and value.isdigit():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600:
            return value
    return None
