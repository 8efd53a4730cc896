"""The OpenAI chat protocol, and how its many speakers leave it.

https://platform.openai.com/docs/api-reference/chat (read 2026-11)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import orjson

from ..core import shape
from ..core.forms import fault, plain
from ..core.types import Request
from .base import Call, Codec, Failure, Provider, ProviderFault, StreamDecoder
from .broken import CUT_SHORT, is_json
from .call_places import CallPlaces
from .failures import ANSWERS, fault_in_answer, raise_if_fault
from .failures import CONTENT_POLICY as CONTENT_POLICY  # for codecs of other protocols
from .failures import read_failure as read_failure
from .fixes import Fix
from .prompt_cache import WISHES, mark_chat, wish_of
from .sse import Event, EventSplitter

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

FINISHED = re.compile(rb'"finish_reason"\s*:\s*"[^"]')
CHOICES = re.compile(rb'"choices"\s*:\s*\[')
FAILS = re.compile(rb'"error"\s*:\s*(?!null)')
Mend = Callable[[dict[str, Any]], dict[str, Any]]
NO_ROWS: Mapping[str, Provider] = MappingProxyType({})


class OpenAICodec(Codec):
    """Chat completions. The answer's own JSON is already the shape that everything else speaks, or nearly."""

    path = "/chat/completions"

    def __init__(self, rows: Mapping[str, Provider] = NO_ROWS) -> None:
        self._rows = rows
        """The table, where a request's provider says how its answers are to be mended."""

    def parameters(self, provider: Provider) -> frozenset[str]:
        return (PARAMETERS | provider.extra) - provider.refused

    def encode(self, request: Request, provider: Provider) -> Call:
        messages = request.messages
        if provider.history is not None:
            messages = [provider.history(message, request.model) for message in messages]
        body: dict[str, Any] = {"model": request.model, "messages": messages, **request.parameters}
        for ours, theirs in provider.renamed.items():
            if ours in body:
                body[theirs] = body.pop(ours)
        if not WISHES.isdisjoint(body):
            body = _with_marks(body, request.model)
        if request.stream:
            body["stream"] = True
            if request.stream_options and provider.stream_usage:
                body["stream_options"] = request.stream_options
        if request.extra_body:
            body.update(request.extra_body)
        return Call(self.path, wire_json(body), provider.headers)

    def decode(self, body: bytes, request: Request) -> bytes:
        if not ANSWERS.search(body) or not body.rstrip().endswith(b"}"):
            raise ProviderFault(fault_in_answer(body), body)
        if FAILS.search(body):
            raise_if_fault(body)
        return mended(body, self._fix(request))

    def decoder(self, request: Request) -> StreamDecoder:
        return OpenAIStream(self._fix(request))

    def failure(self, status: int, body: bytes) -> Failure:
        return read_failure(body, status)

    def _fix(self, request: Request) -> Mend | None:
        row = self._rows.get(request.provider)
        return row.fix if row else None

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


def _with_marks(body: dict[str, Any], model: str) -> dict[str, Any]:
    """`body` with the marks that its wish for prompt caching asks for, and without the wish."""
    wish = wish_of(body, model)
    body = {name: value for name, value in body.items() if name not in WISHES}
    return body if wish is None else mark_chat(body, wish)


class OpenAIStream(StreamDecoder):
    """Events that already are chunks; what is left is to find the end, and errors on the way."""

    def __init__(self, fix: Mend | None = None) -> None:
        self._fix, self._events, self._places = fix, EventSplitter(), CallPlaces()
        self._finished = False
        self._start = bytearray()
        """The first bytes, until it is clear what they are; of a body that is no event stream: all."""
        self._is_events: bool | None = None

    def feed(self, data: bytes) -> list[bytes]:
        if self._is_events:
            return self._chunks(self._events.feed(data))
        self._start += data
        if self._is_events is None and (head := self._start.lstrip(b"\xef\xbb\xbf \t\r\n")):
            self._is_events = not head.startswith((b"{", b"[", b"<"))
        return self._chunks(self._events.feed(bytes(self._start))) if self._is_events else []

    def end(self) -> list[bytes]:
        if not self._is_events:
            return self._unstreamed()
        chunks = []
        for event in self._events.end():
            # A last event without its blank line may be whole, or what was there when the connection broke.
            last = event_lines(event.data)[-1]
            if last.startswith(b"{") and not is_json(last):
                raise ProviderFault(CUT_SHORT, last)
            chunks += self._chunks([event])
        if not self._finished:
            raise ProviderFault(CUT_SHORT)
        return chunks

    def _chunks(self, events: list[Event]) -> list[bytes]:
        chunks = []
        for name, data in events:
            if name == "error":
                raise ProviderFault(fault_in_answer(data), data)
            for line in event_lines(data):
                if line.startswith(b"[DONE]"):
                    self._finished = True
                elif self._is_chunk(line):
                    chunks.append(mended(self._places.settle(line), self._fix))
        return chunks

    def _is_chunk(self, data: bytes) -> bool:
        """Whether `data` belongs to the answer: a ping does not. Raises `ProviderFault` for an error."""
        if not data.startswith(b"{"):
            return False
        if b'"error"' in data and FAILS.search(data):
            raise_if_fault(data)
        if not CHOICES.search(data):
            raise_if_fault(data)
            return b'"usage"' in data
        if not self._finished and FINISHED.search(data):
            self._finished = True
        return True

    def _unstreamed(self) -> list[bytes]:
        """A body that is no event stream: an error; or the whole answer, from a server that does not stream."""
        body = bytes(self._start)
        if not ANSWERS.search(body):
            raise ProviderFault(fault_in_answer(body), body)
        raise_if_fault(body)
        try:
            whole = shape.parsed(mended(body, self._fix))
            return [orjson.dumps(shape.completion_as_chunk(whole))]
        except shape.Misshapen:
            raise ProviderFault(fault_in_answer(body), body) from None


def mended(data: bytes, fix: Mend | None) -> bytes:
    """An answer or chunk as the row's fix leaves it; the bytes themselves where there is nothing to fix."""
    if fix is None:
        return data
    if isinstance(fix, Fix) and not fix.is_needed(data):
        return data
    try:
        return orjson.dumps(fix(shape.parsed(data)))
    except shape.Misshapen:
        raise ProviderFault(fault_in_answer(data), data) from None


def event_lines(data: bytes) -> list[bytes]:
    """One chunk a line, from servers that leave out the blank lines between events; else the data as it is."""
    return data.split(b"\n") if b"\n{" in data or b"\n[DONE]" in data else [data]


def wire_json(body: Any) -> bytes:
    """`body` as JSON for the wire, in the forms that keys know too; or a clear error that says where."""
    try:
        data = orjson.dumps(body, default=plain, option=orjson.OPT_NON_STR_KEYS)
        if b"null" in data and (said := _first_fault(body)):  # what orjson makes of NaN, which is nobody's intention
            raise TypeError(said)
        return data
    except TypeError as error:
        from ..core.api_errors import invalid

        said = _first_fault(body) or f"The request is not JSON: {error}"
        raise invalid(said.rstrip(".") + ".") from None


def _first_fault(body: Mapping[str, Any]) -> str | None:
    """What of `body` is not JSON, and where; None if all of it is."""
    return next(filter(None, (fault(value, name) for name, value in body.items())), None)
