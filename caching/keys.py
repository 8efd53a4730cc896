"""Keys: exhaustive by default. What reaches the wire is in the key unless it is known not to change the answer.

A key is `sha256` over canonical JSON: dict order does not count at any depth, 0 and 0.0 are one number, and each value
that JSON does not know has the form that it has on the wire (`core/forms.py`), or a clear error. The digest is
hexadecimal, 64 characters. `docs/keys.md` has the rules and what follows from them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from ..core.forms import NotJSON as NotJSON
from ..core.forms import fault, number, plain, text_keys
from ..core.types import Request

KEY_VERSION = 1
"""Raise it when the same request must no longer find what was stored before."""

EARLIER: tuple[int, ...] = ()
"""Versions whose keys are still looked for, where there is nothing under today's. What is found is moved."""

IN_KEY = frozenset(
    {
        "endpoint",
        "provider",
        "model",
        "api_base",
        "api_version",
        "messages",
        "parameters",
        "extra_body",
        "extra_headers",
    }
)
"""The fields of a `Request` that change the answer."""

NOT_IN_KEY = frozenset({"stream", "stream_options"})
"""The fields of a `Request` that do not: a stored stream answers a whole call, and the other way round."""

MARK = "cache_control"
"""The name under which messages, their parts and tools mark where a vendor's prompt cache may break."""

HOLDERS = ("content", "content_blocks", "function", "tool_calls")
"""Where marks may be below a message or tool. Not in a schema or in arguments: there the name is the caller's own."""

NOT_IN_KEY_PARAMETERS = frozenset(
    {
        MARK,
        "cache_prompt",
        "cache_ttl",
        "metadata",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
    }
)
"""Parameters that cannot change the answer: marks for the vendor's prompt cache, and what is for the caller's logs.

`store` is not one of them: by the id of an answer that the vendor has kept one can go on, by another's not."""

NOT_IN_KEY_HEADERS = frozenset(
    {
        # credentials
        "api-key",
        "authorization",
        "cookie",
        "ocp-apim-subscription-key",
        "proxy-authorization",
        "x-amz-security-token",
        "x-api-key",
        "x-goog-api-key",
        # transport
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "host",
        "idempotency-key",
        "user-agent",
        # tracing
        "b3",
        "baggage",
        "sentry-trace",
        "traceparent",
        "tracestate",
        "x-amzn-trace-id",
        "x-client-request-id",
        "x-cloud-trace-context",
        "x-correlation-id",
        "x-request-id",
    }
)
"""Headers that carry credentials, transport or tracing, in lower case."""

SORTED = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME


def request_key(
    request: Request,
    seed: object = None,
    epoch: int | None = None,
    scopes: Mapping[str, str] | None = None,
    sample: int | None = None,
    version: int = KEY_VERSION,
) -> str:
    """The default key of a request, as 64 hexadecimal digits.

    Raises `NotJSON` for values that have no JSON form (NaN, a function, text that is not valid Unicode), naming the
    place: "messages[3].content[1].text".
    """
    parameters, headers = request.parameters, request.extra_headers
    try:
        material = (
            version,
            request.endpoint,
            request.provider,
            request.model,
            request.api_base,
            request.api_version,
            canonical_messages(request.messages),
            canonical_parameters(parameters) if parameters else parameters,
            canonical(request.extra_body) if request.extra_body else None,
            canonical_headers(headers) if headers else None,
            None if seed is None else str(seed),
            epoch,
            canonical(scopes) if scopes else None,
            sample,
        )
        data = encode(material)
    except (NotJSON, RecursionError) as error:
        raise _located(request, scopes, error) from None
    return hashlib.sha256(data).hexdigest()


def _located(request: Request, scopes: Any, error: Exception) -> NotJSON:
    """`error`, saying which argument of the call it is about."""
    arguments = {
        "messages": request.messages,
        **request.parameters,
        "extra_body": request.extra_body,
        "api_version": request.api_version,
        "scopes": scopes,
    }
    for name, value in arguments.items():
        said = fault(value, name)
        if said is not None:
            return NotJSON(f"{said}.")
    if isinstance(error, RecursionError):
        return NotJSON("The arguments are nested too deeply for what the stack of this call has left.")
    return error if isinstance(error, NotJSON) else NotJSON(f"The arguments are not JSON: {error}.")


def encode(material: Any) -> bytes:
    """Canonical JSON of an already canonical value. Raises `NotJSON`."""
    try:
        return orjson.dumps(material, option=SORTED)
    except TypeError:
        return _encode_odd(material)


def _encode_odd(material: Any) -> bytes:
    """The slow way, for what orjson refuses at first: keys that are not text, such as `logit_bias` with numbers."""
    try:
        return orjson.dumps(_with_text_keys(material), option=SORTED)
    except (TypeError, RecursionError) as error:
        raise NotJSON(f"{fault(material, 'value') or error}.") from None


def _with_text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_text_keys(item) for key, item in text_keys(value).items()}
    if isinstance(value, (list, tuple)):
        return [_with_text_keys(item) for item in value]
    return value


def canonical(value: Any) -> Any:
    """`value` with one form for one meaning. Returns the same object when there is nothing to change."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if kind is dict:
        return _canonical_dict(value)
    if kind is list:
        return _canonical_list(value)
    if kind is float:
        return _canonical_float(value)
    return canonical(plain(value))


def _canonical_dict(value: dict[Any, Any]) -> dict[Any, Any]:
    changed: dict[Any, Any] | None = None
    for name, item in value.items():
        if type(item) is str:
            continue
        new = canonical(item)
        if new is not item:
            if changed is None:
                changed = dict(value)
            changed[name] = new
    return value if changed is None else changed


def _canonical_list(value: list[Any]) -> list[Any]:
    changed: list[Any] | None = None
    for index, item in enumerate(value):
        if type(item) is str:
            continue
        new = canonical(item)
        if new is not item:
            if changed is None:
                changed = list(value)
            changed[index] = new
    return value if changed is None else changed


def _canonical_float(value: float) -> float | int:
    """Whole numbers as integers, as far as both can be written: 1 and 1.0 are one number, 0 and -0.0 too."""
    if value.is_integer() and -(2.0**63) <= value < 2.0**64:
        return int(value)
    return number(value)


def canonical_messages(messages: Sequence[Any]) -> Sequence[Any]:
    """Messages without prompt-cache marks, on themselves or on their parts."""
    for message in messages:  # most conversations are plain text, and are canonical as they are
        if type(message) is not dict or MARK in message:
            break
        for item in message.values():
            if type(item) is not str:
                break
        else:
            continue
        break
    else:
        return messages
    return [unmarked(canonical(message)) for message in messages]


def unmarked(value: Any) -> Any:
    """A canonical message, part or tool without its prompt-cache mark, and without those of what it holds."""
    if type(value) is not dict:
        return value
    if MARK in value:
        value = {name: item for name, item in value.items() if name != MARK}
    for name in HOLDERS:
        held = value.get(name)
        if type(held) is list:
            new: Any = [unmarked(item) for item in held]
            if any(one is not other for one, other in zip(new, held, strict=True)):
                value = {**value, name: new}
        elif type(held) is dict and (new := unmarked(held)) is not held:
            value = {**value, name: new}
    return value


def canonical_parameters(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Parameters without what cannot change the answer."""
    if not NOT_IN_KEY_PARAMETERS.isdisjoint(parameters):
        parameters = {name: value for name, value in parameters.items() if name not in NOT_IN_KEY_PARAMETERS}
    parameters = canonical(parameters)
    tools = parameters.get("tools")
    if type(tools) is list:
        parameters = {**parameters, "tools": [unmarked(tool) for tool in tools]}
    return parameters


def canonical_headers(headers: Mapping[str, Any]) -> dict[str, Any] | None:
    """Headers that may change the answer, names in lower case. Of two that differ in case the last counts, as sent."""
    if not isinstance(headers, Mapping):
        raise NotJSON(f"extra_headers must be a dict, not {type(headers).__name__}.")
    kept = {}
    for name, value in headers.items():
        lower = str(_header_text(name)).lower()
        if lower not in NOT_IN_KEY_HEADERS:
            try:
                kept[lower] = canonical(_header_text(value))
            except NotJSON as error:
                raise NotJSON(f"extra_headers[{name!r}]: {error}.") from None
    return kept or None


def _header_text(value: Any) -> Any:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def component_digests(request: Request) -> dict[str, Any]:
    """A short digest of each part of a request, kept beside its entry so that a later miss can be explained.

    Never raises: a caller's own key function may accept what has no canonical form. Its digest is empty.
    """
    return {
        "endpoint": request.endpoint,
        "model": request.full_model,
        "api_base": _digest(request.api_base),
        "api_version": request.api_version,
        "messages": [_digest(message, is_marked=True) for message in request.messages],
        "parameters": _digests(request.parameters, NOT_IN_KEY_PARAMETERS),
        "extra_body": _digests(request.extra_body),
        "extra_headers": _digests(_kept(request.extra_headers)),
    }


def texts(request: Request) -> dict[str, Any]:
    """The same parts in canonical form, not digested. Never raises: what has none is left out."""
    result = {name: _canonical_or_none(getattr(request, name)) for name in ("endpoint", "api_base", "api_version")}
    result["model"] = request.full_model
    result["messages"] = [_canonical_or_none(message) for message in request.messages]
    result["parameters"] = {name: _canonical_or_none(value) for name, value in request.parameters.items()}
    result["extra_body"] = {str(name): _canonical_or_none(value) for name, value in (request.extra_body or {}).items()}
    return result


def _canonical_or_none(value: Any) -> Any:
    try:
        return orjson.loads(encode(canonical(value)))
    except (NotJSON, RecursionError):
        return None


def _kept(headers: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    try:
        return canonical_headers(headers) if headers else None
    except NotJSON:
        return None


def _digests(values: Mapping[str, Any] | None, left_out: frozenset[str] = frozenset()) -> dict[str, str]:
    return {
        str(name): _digest(value, is_marked=name == "tools")
        for name, value in (values or {}).items()
        if name not in left_out
    }


def _digest(value: Any, *, is_marked: bool = False) -> str:
    try:
        value = canonical(value)
        if is_marked:
            value = [unmarked(item) for item in value] if type(value) is list else unmarked(value)
        return hashlib.sha256(encode(value)).hexdigest()[:16]
    except (NotJSON, RecursionError):
        return ""
