"""Keys: exhaustive by default. What reaches the wire is in the key unless it is known not to change the answer.

A key is `sha256` over canonical JSON: dict order does not count at any depth, 0 and 0.0 are one number, and each value
that JSON does not know has one defined form, or a clear error. The digest is hexadecimal, 64 characters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from ..core.types import Request

KEY_VERSION = 1
"""Raise it when the same request must no longer find what was stored before."""

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

NOT_IN_KEY_PARAMETERS = frozenset(
    {"prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "metadata", "store"}
)
"""Parameters that reach the wire and cannot change the answer: marks for the vendor's prompt cache, and bookkeeping."""

NOT_IN_KEY_HEADERS = frozenset(
    {
        "authorization",
        "api-key",
        "x-api-key",
        "x-goog-api-key",
        "cookie",
        "proxy-authorization",
        "user-agent",
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "host",
        "idempotency-key",
        "traceparent",
        "tracestate",
        "baggage",
        "x-request-id",
        "x-client-request-id",
        "x-correlation-id",
    }
)
"""Headers that carry credentials, transport or tracing, in lower case."""

MARK = "cache_control"
"""The name under which messages, their parts and tools mark where a vendor's prompt cache may break."""

SORTED = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
EXACT_INTEGERS = 2.0**53


class NotJSON(ValueError):
    """A value without a canonical form. The message names the value."""


def request_key(
    request: Request, seed: object = None, epoch: int | None = None, scopes: Mapping[str, str] | None = None
) -> str:
    """The default key of a request, as 64 hexadecimal digits.

    Raises `NotJSON` for values that have no canonical form (NaN, a function, text that is not valid Unicode).
    """
    parameters = request.parameters
    if parameters:
        parameters = canonical_parameters(parameters)
    material = (
        KEY_VERSION,
        request.endpoint,
        request.provider,
        request.model,
        request.api_base,
        request.api_version,
        canonical_messages(request.messages),
        parameters,
        canonical(request.extra_body) if request.extra_body else None,
        canonical_headers(request.extra_headers) if request.extra_headers else None,
        None if seed is None else str(seed),
        epoch,
        canonical(scopes) if scopes else None,
    )
    try:
        data = orjson.dumps(material, option=SORTED)
    except TypeError as error:
        data = _encode_odd(material, error)
    return hashlib.sha256(data).hexdigest()


def encode(material: Any) -> bytes:
    """Canonical JSON of an already canonical value."""
    try:
        return orjson.dumps(material, option=SORTED)
    except TypeError as error:
        return _encode_odd(material, error)


def _encode_odd(material: Any, error: TypeError) -> bytes:
    """The slow way, for what orjson refuses at first: keys that are numbers, and integers beyond 64 bits."""
    try:
        return orjson.dumps(_plain(material), option=SORTED)
    except TypeError:
        if "surrogates" in str(error):
            raise NotJSON(
                "A text is not valid Unicode: it has a lone surrogate. Decode it with errors='replace'."
            ) from None
        raise NotJSON(f"An argument is not JSON: {error}.") from None


def _plain(value: Any) -> Any:
    """`value` with JSON's own rule for keys (a number becomes its text), and large integers as tagged text."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else _key_text(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**64:
        return {"$integer": str(value)}
    return value


def _key_text(key: object) -> str:
    if key is True or key is False or key is None:
        return {True: "true", False: "false", None: "null"}[key]
    if isinstance(key, (int, float)):
        return str(canonical(key))
    raise NotJSON(f"A dict has the key {key!r}, a {type(key).__name__}; JSON wants text.")


# ── canonical values: the value itself where it already is canonical, else a changed copy ──────────────────────────────


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
    return _canonical_odd(value)


def _canonical_dict(value: dict[Any, Any]) -> dict[Any, Any]:
    changed: dict[Any, Any] | None = None
    for name, item in value.items():
        if type(item) is str:
            continue
        new = canonical(item)
        if new is not item:
            if changed is None:
                changed = dict(value)
            if new is ABSENT:
                del changed[name]
            else:
                changed[name] = new
    return value if changed is None else changed


def _canonical_list(value: list[Any]) -> list[Any]:
    for index, item in enumerate(value):
        if type(item) is not str and canonical(item) is not item:
            rest = [canonical(other) for other in value[index:]]
            return value[:index] + [other for other in rest if other is not ABSENT]
    return value


def _canonical_float(value: float) -> float | int:
    if value.is_integer() and -EXACT_INTEGERS <= value <= EXACT_INTEGERS:
        return int(value)
    if value != value or value in (float("inf"), float("-inf")):
        raise NotJSON(f"The number {value!r} is not JSON. Leave the argument out, or give a finite number.")
    return value


ABSENT = object()
"""What a value becomes that stands for "not given"."""


def _canonical_odd(value: Any) -> Any:
    """Types that JSON does not know, in the order in which they are likely."""
    name = type(value).__name__
    if name in ("NotGiven", "Omit"):  # the openai and anthropic packages' words for "not given"
        return ABSENT
    for applies, form in ODD_FORMS:
        if applies(value):
            return form(value)
    raise NotJSON(
        f"An argument of type {name!r} has no JSON form: {_short(value)}. Give text, numbers, lists, dicts, or a pydantic model."
    )


def _is_model(value: Any) -> bool:
    return not isinstance(value, type) and hasattr(value, "model_dump")


def _is_model_class(value: Any) -> bool:
    return isinstance(value, type) and hasattr(value, "model_json_schema")


def _is_dataclass(value: Any) -> bool:
    return hasattr(value, "__dataclass_fields__") and not isinstance(value, type)


def _from_dataclass(value: Any) -> Any:
    return canonical({name: getattr(value, name) for name in value.__dataclass_fields__})


def _is_enum(value: Any) -> bool:
    import enum

    return isinstance(value, enum.Enum)


def _is_moment(value: Any) -> bool:
    import datetime

    return isinstance(value, (datetime.date, datetime.time))


def _is_stringly(value: Any) -> bool:
    import decimal
    import os
    import uuid

    return isinstance(value, (os.PathLike, uuid.UUID, decimal.Decimal))


ODD_FORMS: tuple[tuple[Callable[[Any], bool], Callable[[Any], Any]], ...] = (
    (_is_enum, lambda value: canonical(value.value)),
    (lambda value: isinstance(value, str), str.__str__),
    (lambda value: isinstance(value, bool), bool),
    (lambda value: isinstance(value, int), int),
    (lambda value: isinstance(value, float), lambda value: _canonical_float(float(value))),
    (lambda value: isinstance(value, Mapping), lambda value: _canonical_dict(dict(value))),
    (lambda value: isinstance(value, tuple), lambda value: _canonical_list(list(value))),
    (_is_model, lambda value: canonical(value.model_dump(mode="json", exclude_none=True))),
    (_is_model_class, lambda value: {"$schema_of": value.__name__, "schema": canonical(value.model_json_schema())}),
    (_is_dataclass, _from_dataclass),
    (
        lambda value: isinstance(value, (bytes, bytearray, memoryview)),
        lambda value: {"$bytes": hashlib.sha256(value).hexdigest()},
    ),
    (_is_moment, lambda value: {"$time": value.isoformat()}),
    (_is_stringly, str),
    (
        lambda value: isinstance(value, (set, frozenset)),
        lambda value: {"$set": sorted(encode(canonical(item)).decode() for item in value)},
    ),
    (lambda value: isinstance(value, Sequence), lambda value: _canonical_list(list(value))),
)
"""What applies, and the canonical form. The first that applies counts."""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


# ── the parts of a request ─────────────────────────────────────────────────────────────────────────────────────────────


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
    return [_unmarked(message) for message in messages]


def _unmarked(message: Any) -> Any:
    """A message or tool, canonical, without its mark and those of its parts."""
    message = canonical(message)
    if type(message) is not dict:
        return message
    if MARK in message:
        message = {name: item for name, item in message.items() if name != MARK}
    content = message.get("content")
    if type(content) is list and any(type(part) is dict and MARK in part for part in content):
        message = {**message, "content": [_unmarked(part) for part in content]}
    return message


def canonical_parameters(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Parameters without what cannot change the answer."""
    if not NOT_IN_KEY_PARAMETERS.isdisjoint(parameters):
        parameters = {name: value for name, value in parameters.items() if name not in NOT_IN_KEY_PARAMETERS}
    tools = parameters.get("tools")
    if tools:
        parameters = {**parameters, "tools": [_unmarked_tool(tool) for tool in tools]}
    return canonical(parameters)  # type: ignore[no-any-return]


def _unmarked_tool(tool: Any) -> Any:
    tool = _unmarked(tool)
    if type(tool) is dict and type(tool.get("function")) is dict and MARK in tool["function"]:
        tool = {**tool, "function": _unmarked(tool["function"])}
    return tool


def canonical_headers(headers: Mapping[str, Any]) -> dict[str, str] | None:
    """Headers that may change the answer, names in lower case."""
    kept = {name.lower(): str(value) for name, value in headers.items() if name.lower() not in NOT_IN_KEY_HEADERS}
    return kept or None


def component_digests(request: Request) -> dict[str, Any]:
    """A short digest of each part of a request, kept beside its entry so that a later miss can be explained."""

    def digest(value: Any) -> str:
        return hashlib.sha256(encode(canonical(value))).hexdigest()[:16]

    return {
        "endpoint": request.endpoint,
        "model": request.full_model,
        "api_base": digest(request.api_base),
        "api_version": request.api_version,
        "messages": [digest(message) for message in canonical_messages(request.messages)],
        "parameters": {name: digest(value) for name, value in canonical_parameters(request.parameters).items()},
        "extra_body": {name: digest(value) for name, value in (request.extra_body or {}).items()},
        "extra_headers": sorted(canonical_headers(request.extra_headers) or ()) if request.extra_headers else [],
    }
