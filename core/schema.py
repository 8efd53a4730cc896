"""A pydantic class as a `response_format`.

OpenAI's strict mode wants every object closed and every property required, a `$ref` alone, and a plain name:
https://platform.openai.com/docs/guides/structured-outputs (2026-11). The schema is the one that OpenAI's own package
sends, so that both find the same stored answer.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from .errors import WrongType

NOT_IN_NAME = re.compile(r"[^a-zA-Z0-9_-]")
"""The vendor accepts ^[a-zA-Z0-9_-]{1,64}$; a generic class is called `Box[int]`."""

SCHEMAS_BY_NAME = ("$defs", "definitions", "properties")
LISTS_OF_SCHEMAS = ("allOf", "anyOf", "oneOf", "prefixItems")
SCHEMAS = ("additionalProperties", "items", "not")


@functools.lru_cache(maxsize=256)
def response_format(kind: type) -> dict[str, Any]:
    """The `response_format` of a pydantic model class. Raises `WrongType` for another class."""
    if not hasattr(kind, "model_json_schema"):
        raise WrongType(f"response_format={kind.__name__} is not a pydantic model class; give one, or a dict.")
    name = NOT_IN_NAME.sub("_", kind.__name__)[:64]
    return {
        "type": "json_schema",
        "json_schema": {"name": name, "schema": strict(kind.model_json_schema()), "strict": True},
    }


def strict(schema: Any) -> Any:
    """`schema` with every object closed, all of its properties required, and no `$ref` beside other words."""
    return _strict(schema, schema, frozenset())


def _strict(schema: Any, root: Any, within: frozenset[str]) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    schema, within = _without_mixed_ref(schema, root, within)
    result: dict[str, Any] = {}
    for name, value in schema.items():
        if name in SCHEMAS_BY_NAME and isinstance(value, Mapping):
            result[name] = {key: _strict(item, root, within) for key, item in value.items()}
        elif name in LISTS_OF_SCHEMAS and isinstance(value, list):
            result[name] = [_strict(item, root, within) for item in value]
        elif name in SCHEMAS:
            result[name] = _strict(value, root, within)
        elif not (name == "default" and value is None):
            result[name] = value
    if result.get("type") == "object" and "additionalProperties" not in result:
        result["additionalProperties"] = False
    if isinstance(result.get("properties"), dict):
        result["required"] = list(result["properties"])
    return result


def _without_mixed_ref(
    schema: Mapping[str, Any], root: Mapping[str, Any], within: frozenset[str]
) -> tuple[Mapping[str, Any], frozenset[str]]:
    """`schema` with what it refers to written out, where it says more than `$ref`; and the references so followed.

    A reference inside of what it refers to has no end: there the other words are left out instead.
    """
    while "$ref" in schema and len(schema) > 1:
        reference = schema["$ref"]
        target = _target(reference, root)
        if target is None:
            break
        if reference in within:
            return {"$ref": reference}, within
        within = within | {reference}
        schema = {**target, **{name: value for name, value in schema.items() if name != "$ref"}}
    return schema, within


def _target(reference: Any, root: Any) -> Mapping[str, Any] | None:
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    for step in reference[2:].split("/"):
        root = root.get(step) if isinstance(root, Mapping) else None
    return root if isinstance(root, Mapping) else None
