"""What the echo provider answers beside chat: plausible, and the same for the same question.

Vectors of equal texts are equal, and have the length 1. A ranking counts the words that a document shares with the
query. Speech is the text's own bytes, and a transcription the file's, as text. A scripted dict is the answer as it is.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from ..core.endpoint_folds import UNFOLDS

Json = dict[str, Any]
DIMENSIONS = 8


def echoed_text(body: Mapping[str, Any]) -> str:
    """What a request beside chat says, as text."""
    if "file" in body:
        return str(body["file"].data.decode("utf-8", "replace"))
    for name in ("input", "prompt", "query", "document"):
        value = body.get(name)
        if value is not None:
            return value if isinstance(value, str) else orjson.dumps(value).decode()
    return ""


def whole(endpoint: str, number: int, body: Mapping[str, Any], answer: Any) -> bytes:
    """The body of the answer numbered `number`."""
    if isinstance(answer, Mapping):
        return orjson.dumps(answer)
    text = str(answer)
    return text.encode() if endpoint == "speech" else orjson.dumps(ANSWERS[endpoint](number, body, text))


def events(endpoint: str, data: bytes) -> list[Json]:
    """The stream of an answer."""
    return [orjson.loads(piece) for piece in UNFOLDS[endpoint](data)]


def _embedding(number: int, body: Mapping[str, Any], text: str) -> Json:
    given = body["input"]
    items = [given] if isinstance(given, str) or all(isinstance(item, int) for item in given) else given
    size = int(body.get("dimensions") or DIMENSIONS)
    count = sum(_tokens(item) for item in items)
    return {
        "object": "list",
        "model": body["model"],
        "data": [
            {"object": "embedding", "index": index, "embedding": _vector(orjson.dumps(item), size)}
            for index, item in enumerate(items)
        ],
        "usage": {"prompt_tokens": count, "total_tokens": count},
    }


def _tokens(item: Any) -> int:
    return len(item.split()) if isinstance(item, str) else len(item)


def _vector(data: bytes, size: int) -> list[float]:
    digest = hashlib.shake_128(data).digest(2 * size)
    numbers = [int.from_bytes(digest[at : at + 2], "big") / 32768 - 1 for at in range(0, 2 * size, 2)]
    length = math.sqrt(sum(number * number for number in numbers)) or 1.0
    return [number / length for number in numbers]


def _text(number: int, body: Mapping[str, Any], text: str) -> Json:
    asked, said = len(echoed_text(body).split()), len(text.split())
    return {
        "id": f"echo-{number}",
        "object": "text_completion",
        "created": 1_700_000_000 + number,
        "model": body["model"],
        "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said},
    }


def _response(number: int, body: Mapping[str, Any], text: str) -> Json:
    asked, said = len(echoed_text(body).split()), len(text.split())
    part = {"type": "output_text", "text": text, "annotations": []}
    message = {"type": "message", "id": f"msg-{number}", "role": "assistant", "status": "completed", "content": [part]}
    return {
        "id": f"echo-{number}",
        "object": "response",
        "created_at": 1_700_000_000 + number,
        "status": "completed",
        "model": body["model"],
        "output": [message],
        "error": None,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {"input_tokens": asked, "output_tokens": said, "total_tokens": asked + said},
    }


def _image(number: int, body: Mapping[str, Any], text: str) -> Json:
    picture = base64.b64encode(text.encode()).decode()
    return {"created": 1_700_000_000 + number, "data": [{"b64_json": picture}] * (body.get("n") or 1)}


def _moderation(number: int, body: Mapping[str, Any], text: str) -> Json:
    given = body["input"]
    verdict: Json = {"flagged": False, "categories": {}, "category_scores": {}}
    return {
        "id": f"echo-{number}",
        "model": body["model"],
        "results": [verdict] * (1 if isinstance(given, str) else len(given)),
    }


def _ranking(number: int, body: Mapping[str, Any], text: str) -> Json:
    wanted = set(str(body["query"]).lower().split())
    scores = [len(wanted & set(str(item).lower().split())) / (len(wanted) or 1) for item in body["documents"]]
    return {
        "id": f"echo-{number}",
        "results": [{"index": index, "relevance_score": score} for index, score in enumerate(scores)],
    }


def _count(number: int, body: Mapping[str, Any], text: str) -> Json:
    words = sum(len(orjson.dumps(item.get("content", item)).split()) for item in body["input"])
    return {"object": "response.input_tokens", "input_tokens": words}


def _pages(number: int, body: Mapping[str, Any], text: str) -> Json:
    return {
        "model": body["model"],
        "pages": [{"index": 0, "markdown": text, "images": [], "dimensions": None}],
        "usage_info": {"pages_processed": 1, "doc_size_bytes": len(text)},
    }


ANSWERS: Mapping[str, Callable[[int, Mapping[str, Any], str], Json]] = {
    "count_tokens": _count,
    "embedding": _embedding,
    "image_generation": _image,
    "moderation": _moderation,
    "ocr": _pages,
    "rerank": _ranking,
    "responses": _response,
    "text_completion": _text,
    "transcription": lambda number, body, text: {"text": text},
    "translation": lambda number, body, text: {"text": text},
}
