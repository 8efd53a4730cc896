"""A call loads the packages that it needs and no others: each in a process of its own, against a local upstream."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.upstream import Upstream

ROOT = Path(__file__).parents[1]

NEVER = (
    *("google", "vertexai", "boto3", "botocore", "aiobotocore", "cohere", "groq", "mistralai", "ollama", "replicate"),
    *("tiktoken", "tokenizers", "tenacity", "redis", "sqlalchemy", "numpy"),
)
GEMINI = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "Hello."}]}, "finishReason": "STOP", "index": 0}],
    "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
}
OLLAMA = {"model": "m", "message": {"role": "assistant", "content": "Hello."}, "done": True, "done_reason": "stop"}

CALL = """
import asyncio, json, sys
import rejoinder

arguments = json.loads(sys.argv[1])
way = sys.argv[2]
if way == "sync":
    answer = rejoinder.completion(**arguments)
else:
    answer = asyncio.run(rejoinder.acompletion(**arguments))
assert answer.choices[0].message.content
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


def loaded_by(arguments: dict[str, Any], way: str) -> set[str]:
    """The packages that a new process has after this call."""
    given = {"messages": [{"role": "user", "content": "Hi"}], "api_key": "sk-mock", "num_retries": 0, **arguments}
    run = subprocess.run(
        [sys.executable, "-c", CALL, json.dumps(given), way],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1]))


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize(
    ("model", "body"),
    [
        ("openai/m", None),
        ("anthropic/m", None),
        ("gemini/m", GEMINI),
        ("ollama/m", None),
        ("ollama_chat/m", OLLAMA),
        ("groq/m", None),
        ("echo/m", None),
    ],
)
def test_call_loads_only_the_sdks_that_it_needs(model: str, body: Any, way: str, upstream: Upstream) -> None:
    upstream.reset()
    upstream.configure(body=body)
    base = upstream.root if model.startswith("anthropic") else upstream.url
    loaded = loaded_by({"model": model, "api_base": base}, way)
    assert upstream.calls == (0 if model.startswith("echo") else 1)
    assert "openai" in loaded  # for the types of answers
    assert ("anthropic" in loaded) == model.startswith("anthropic")
    assert not loaded & set(NEVER)
