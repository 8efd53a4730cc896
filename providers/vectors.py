"""Vectors of vendors that do not speak OpenAI's protocol, in its shape."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Any

import orjson

from ..core.types import Request


def in_openais_shape(vectors: Sequence[Any], tokens: int, request: Request) -> bytes:
    """The answer to `request`; vectors are text where base64 was asked for. Raises `TypeError` for what is none."""
    for vector in vectors:
        if not isinstance(vector, list):
            raise TypeError(f"{str(vector)[:80]} instead of a vector")
    if request.parameters.get("encoding_format") == "base64":
        vectors = [in_base64(vector) for vector in vectors]
    data = [{"object": "embedding", "index": place, "embedding": vector} for place, vector in enumerate(vectors)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return orjson.dumps({"object": "list", "model": request.model, "data": data, "usage": usage})


def in_base64(vector: list[float]) -> str:
    """As OpenAI has it: 32-bit numbers, the lowest byte first. Raises `TypeError` for what is no number."""
    try:
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    except (struct.error, OverflowError) as error:
        raise TypeError(f"a vector that is none: {error}") from None
