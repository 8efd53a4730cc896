"""What a value is in JSON: one form, the same on the wire and in keys, or a clear error.

Keys are right because of it: two requests share a key if and only if they would be the same on the wire. So no value
has a form of its own in keys, and what cannot be sent has no key.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import math
import os
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

import orjson

from .errors import RejoinderError

DEEPEST = 250
"""As many lists and dicts inside each other as an argument may have: orjson writes 254, with those of the request."""


class NotJSON(RejoinderError, ValueError):
    """A value that JSON cannot say. The message names the place and the remedy."""


def plain(value: Any) -> Any:
    """`value` as text, a number, a list or a dict; what is inside may be odd still. Raises `NotJSON`.

    For what orjson knows (an Enum, a dataclass, a datetime …) it is what orjson writes; for the rest it is made to be
    orjson's `default`.
    """
    for applies, form in FORMS:
        if applies(value):
            return form(value)
    raise NotJSON(_refusal(value))


def _is_dataclass(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _from_dataclass(value: Any) -> dict[str, Any]:
    """As orjson has it: whatever the instance holds, or the fields where there are slots; no private names."""
    if "__slots__" in vars(type(value)) or not hasattr(value, "__dict__"):
        names: Iterable[str] = [field.name for field in dataclasses.fields(value)]
    else:
        names = vars(value)
    return {name: getattr(value, name) for name in names if not name.startswith("_")}


def _written(value: Any) -> Any:
    try:
        return orjson.loads(orjson.dumps(value))
    except TypeError as error:
        raise NotJSON(f"{_short(value)} has no JSON form ({error}); give text") from None


def _is_model(value: Any) -> bool:
    return not isinstance(value, type) and hasattr(value, "model_dump")


def _dumped(value: Any) -> Any:
    try:
        return value.model_dump(mode="json", exclude_none=True)
    except Exception as error:
        raise NotJSON(f"a {type(value).__name__} that cannot be dumped: {error}") from error


def _sorted(value: Set[Any]) -> list[Any]:
    """A set has no order of its own; only texts, or numbers, have one that is the same in every process."""
    items = list(value)
    if all(isinstance(item, str) for item in items) or all(isinstance(item, (int, float)) for item in items):
        return sorted(items)
    raise NotJSON("a set of more than texts, or numbers, has no order to be sent in; give a list")


def _path_text(value: os.PathLike[Any]) -> str:
    path = os.fspath(value)
    if isinstance(path, str):
        return path
    raise NotJSON(f"{_short(value)} is a path of bytes; give text, with os.fsdecode")


FORMS: tuple[tuple[Callable[[Any], bool], Callable[[Any], Any]], ...] = (
    (lambda value: isinstance(value, enum.Enum), lambda value: value.value),
    (lambda value: isinstance(value, str), str.__str__),
    (lambda value: isinstance(value, int), int.__int__),
    (lambda value: isinstance(value, (list, tuple)), list),
    (lambda value: isinstance(value, dict), dict),
    (_is_dataclass, _from_dataclass),
    (lambda value: isinstance(value, (datetime.date, datetime.time, uuid.UUID)), _written),
    (_is_model, _dumped),
    (lambda value: isinstance(value, (set, frozenset)), _sorted),
    (lambda value: isinstance(value, os.PathLike), _path_text),
    (lambda value: isinstance(value, Mapping), dict),
    (lambda value: isinstance(value, float), float.__float__),
    (lambda value: isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)), list),
)
"""What applies, and the form. The first that applies counts; the order of the first seven is orjson's."""

REMEDIES = {
    "bytes": "encode them as base64 text",
    "bytearray": "encode it as base64 text",
    "memoryview": "encode it as base64 text",
    "Decimal": "give a float, or text",
    "NotGiven": "leave the name out",
    "Omit": "leave the name out",
    "generator": "give a list",
}


def _refusal(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__} has no JSON form; give an instance, or its JSON schema"
    name = type(value).__name__
    remedy = REMEDIES.get(name, "give text, numbers, lists, dicts or a pydantic model")
    return f"{_short(value)}, a value of type {name!r}, has no JSON form; {remedy}"


def key_text(key: Any) -> str:
    """A dict's key as the text that the wire has for it: 1 is "1", 1.0 is "1.0", None is "null". Raises `NotJSON`."""
    if isinstance(key, float) and not math.isfinite(key):
        raise NotJSON(f"a dict has the key {key!r}; JSON wants text")
    try:
        return str(next(iter(orjson.loads(orjson.dumps({key: None}, option=orjson.OPT_NON_STR_KEYS)))))
    except TypeError:
        raise NotJSON(f"a dict has the key {_short(key)}, of type {type(key).__name__!r}; JSON wants text") from None


def text_keys(value: Mapping[Any, Any]) -> dict[str, Any]:
    """`value` with the keys that the wire has. Raises `NotJSON` where two keys are one there."""
    texts: dict[str, Any] = {}
    for key, item in value.items():
        text = unicode_text(key) if type(key) is str else key_text(key)
        if text in texts:
            raise NotJSON(f"a dict has two keys that are both {text!r} in JSON; leave one out")
        texts[text] = item
    return texts


def unicode_text(text: str) -> str:
    """`text`, if it is Unicode."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise NotJSON(
            f"the text is not valid Unicode: it has a lone surrogate at {error.start}; decode it with errors='replace'"
        ) from None
    return text


def number(value: float) -> float:
    """`value`, if JSON has it."""
    if not math.isfinite(value):
        raise NotJSON(f"the number {value!r} is not JSON; leave it out, or give a finite one")
    return value


def fault(value: Any, path: str) -> str | None:
    """Where in `value` something has no JSON form, and why: "messages[3].content[1].text: …". None: there is nothing.

    Only for error messages, once something has failed: it is many times slower than writing the value.
    """
    stack: list[tuple[str, Any, tuple[Any, ...]]] = [(path, value, ())]
    while stack:
        path, item, around = stack.pop()
        if any(item is outer for outer in around):
            return f"{_cut(path)}: the {type(item).__name__} contains itself; JSON has no circles"
        if sum(type(outer) in (dict, list) for outer in around) > DEEPEST:
            return f"{_cut(path)}: lists and dicts are nested more than {DEEPEST} levels deep"
        try:
            children = _children(item)
        except NotJSON as error:
            return f"{_cut(path)}: {error}"
        stack += [(path + step, child, (*around, item)) for step, child in reversed(children)]
    return None


def _children(item: Any) -> list[tuple[str, Any]]:
    """What is directly inside a value, each with its step of the path. Raises `NotJSON` for a value without a form."""
    kind = type(item)
    if kind is dict:
        return [(_step(name), child) for name, child in text_keys(item).items()]
    if kind is list:
        return [(f"[{index}]", child) for index, child in enumerate(item)]
    if kind is str:
        unicode_text(item)
    elif kind is float:
        number(item)
    elif kind is int:
        if not -(2**63) <= item < 2**64:
            raise NotJSON(f"the integer {_short(item)} has more than 64 bits; give text, or a float")
    elif item is not None and kind is not bool:
        return [("", plain(item))]
    return []


def _step(name: str) -> str:
    return f".{name}" if name.isidentifier() else f"[{name!r}]"


def _cut(path: str) -> str:
    return path if len(path) <= 120 else f"{path[:80]}…{path[-30:]}"


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"  # its own repr fails; the message must not
    return text if len(text) <= 80 else text[:77] + "…"
