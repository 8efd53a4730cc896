"""A pydantic class as a `response_format`.

OpenAI's strict mode wants every object closed and every property required:
https://platform.openai.com/docs/guides/structured-outputs (2026-11)
"""

from __future__ import annotations

import functools
from typing import Any

from .errors import WrongType


@functools.lru_cache(maxsize=256)
def response_format(kind: type) -> dict[str, Any]:
    """The `response_format` of a pydantic model class. Raises `WrongType` for another class."""
    if not hasattr(kind, "model_json_schema"):
        raise WrongType(f"response_format={kind.__name__} is not a pydantic model class; give one, or a dict.")
    schema = strict(kind.model_json_schema())
    return {"type": "json_schema", "json_schema": {"name": kind.__name__, "schema": schema, "strict": True}}


def strict(schema: Any) -> Any:
    """`schema` with every object closed and all of its properties required."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {
        name: {key: strict(item) for key, item in value.items()}
        if name in ("properties", "$defs", "definitions")
        else strict(value)
        for name, value in schema.items()
        if not (name == "default" and value is None)
    }
    if result.get("type") == "object" and "additionalProperties" not in result:
        result["additionalProperties"] = False
    if isinstance(result.get("properties"), dict):
        result["required"] = list(result["properties"])
    return result
