"""The front door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from ..core.flow import arun, run
from .call_params import CallParams
from .engine import begin
from .miss import Streamed
from .stream import AsyncStream, Stream

if TYPE_CHECKING:
    from ..core.answers import Completion


class Params(CallParams, total=False):
    """What a call may be given beside `model`, `messages` and `stream`.

    The chat parameters, in OpenAI's words: https://platform.openai.com/docs/api-reference/chat/create
    What every call may be given is in `CallParams`.
    """

    audio: Any
    frequency_penalty: float | None
    function_call: Any
    functions: Any
    logit_bias: Mapping[Any, float] | None
    logprobs: bool | None
    max_completion_tokens: int | None
    max_tokens: int | None
    modalities: Sequence[str] | None
    n: int | None
    parallel_tool_calls: bool | None
    prediction: Any
    presence_penalty: float | None
    cache_prompt: bool | Literal["auto"] | None
    """Ask for the vendor's prompt cache: "auto" or True; None and False: add nothing. See `docs/prompt-caching.md`."""
    cache_ttl: Literal["5m", "1h"] | None
    """For how long the vendor is to keep what it caches."""
    prompt_cache_key: str | None
    prompt_cache_retention: str | None
    reasoning_effort: str | None
    response_format: Any
    """A dict, or a pydantic model class."""
    safety_identifier: str | None
    seed: int | None
    service_tier: str | None
    stop: str | Sequence[str] | None
    store: bool | None
    temperature: float | None
    thinking: Any
    tool_choice: Any
    tools: Sequence[Any] | None
    top_k: int | None
    top_logprobs: int | None
    top_p: float | None
    user: str | None
    verbosity: str | None
    web_search_options: Any

    # of streams
    stream_options: Mapping[str, Any] | None
    replay_timing: bool | None
    """Replay a stored stream at its original pace."""


@overload
def completion(model: str, messages: Sequence[Any], *, stream: Literal[True], **params: Unpack[Params]) -> Stream: ...
@overload
def completion(
    model: str, messages: Sequence[Any], *, stream: Literal[False] | None = None, **params: Unpack[Params]
) -> Completion: ...
@overload
def completion(
    model: str, messages: Sequence[Any], *, stream: bool, **params: Unpack[Params]
) -> Completion | Stream: ...
def completion(model: str, messages: Any = None, **params: Any) -> Completion | Stream:
    """Ask a model, or the cache.

    `model` is "provider/model", or a well-known bare name ("gpt-…", "claude-…"). `messages` are OpenAI's, for every
    provider. The other arguments are those of `Params`. With `stream=True` it returns a `Stream` of chunks.

    Raises `InvalidRequest` before anything is sent, else the openai package's classes (`RateLimitError`, …) in our
    subclasses, with `provider`, `model`, `retry_after` and `attempts` on them. The cache never makes a call fail.
    """
    found: Any = begin(model, messages, mocked(params) if "mock_response" in params else params, "completion")
    if type(found) is GeneratorType:
        found = run(found)
    if type(found) is Streamed or "response_format" in params:
        return handed_over(found, params, Stream)  # type: ignore[no-any-return]
    return found  # type: ignore[no-any-return]


@overload
async def acompletion(
    model: str, messages: Sequence[Any], *, stream: Literal[True], **params: Unpack[Params]
) -> AsyncStream: ...
@overload
async def acompletion(
    model: str, messages: Sequence[Any], *, stream: Literal[False] | None = None, **params: Unpack[Params]
) -> Completion: ...
@overload
async def acompletion(
    model: str, messages: Sequence[Any], *, stream: bool, **params: Unpack[Params]
) -> Completion | AsyncStream: ...
async def acompletion(model: str, messages: Any = None, **params: Any) -> Completion | AsyncStream:
    """`completion` for a running event loop. With `stream=True` it returns an `AsyncStream`."""
    found: Any = begin(model, messages, mocked(params) if "mock_response" in params else params, "acompletion")
    if type(found) is GeneratorType:
        found = await arun(found)
    if type(found) is Streamed or "response_format" in params:
        return handed_over(found, params, AsyncStream)  # type: ignore[no-any-return]
    return found  # type: ignore[no-any-return]


def handed_over(found: Any, params: Mapping[str, Any], kind: Any) -> Any:
    """What the caller gets of what was found: an answer that knows its class, or a stream of `kind`."""
    if type(found) is Streamed:
        return stream_of(found, params, kind)
    if "response_format" in params and isinstance(params["response_format"], type):
        from ..core.answers import expecting

        return expecting(found, params["response_format"])
    return found


def stream_of(found: Streamed, params: Mapping[str, Any], kind: Any) -> Any:
    wants_usage = bool((params.get("stream_options") or {}).get("include_usage"))
    return kind(found.member, found.info, wants_usage)


def mocked(params: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call with `mock_response`: it goes to an `Echo`, and past the cache."""
    from ..providers.echo import Echo

    params = dict(params)
    answer = params.pop("mock_response")
    return params if answer is None else {**params, "client": Echo([answer], is_mock=True), "caching": False}
