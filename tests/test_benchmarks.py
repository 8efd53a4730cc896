"""The benchmarks produce every row, and the upstream that they and other tests use does what it is told.

Nothing here asserts how long anything takes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.benchmarks.report import Budget, Row, Unmeasured, as_markdown, as_text, from_json
from tests.fixtures.upstream import Upstream

ROOT = Path(__file__).parents[1]
MESSAGES: Any = [{"role": "user", "content": "Hello"}]
CODECS = ["openai", "anthropic", "gemini", "cohere", "ollama"]
ROWS = [
    "import rejoinder",
    "exact hit, memory, sync",
    "exact hit, memory, async",
    "exact hit, disk, sync",
    "exact hit, disk, async",
    "exact hit, Redis, sync",
    "exact hit, Redis, async",
    "key of a 3 MB prompt",
    "miss, whole call, sync",
    "miss, whole call, async",
    "stream of 500, per chunk, sync",
    "stream of 500, per chunk, async",
    "replay of 500 chunks, sync",
    "replay of 500 chunks, async",
    *(f"decode {name}, {form}" for name in CODECS for form in ("whole", "per chunk")),
    "at once, upstream of 50 ms",
    "the same, CPU per 1,000 calls",
    "identical calls, threads",
    "identical calls, tasks",
    "processes, one disk",
    "processes, one Redis",
    "store down, sync, first call",
    "store down, sync, later calls",
    "store down, async, first call",
    "store down, async, later calls",
    "store hangs, sync, first call",
    "store hangs, sync, later calls",
    "store hangs, async, first call",
    "store hangs, async, later calls",
    "memory after",
]


# ── the table ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Every case once, with as few calls as there can be."""
    from tests.benchmarks.cases import CASES

    file = tmp_path_factory.mktemp("benchmarks") / "rows.json"
    command = [sys.executable, "-m", "tests.benchmarks", "--here", "--only", *CASES, "--json", str(file)]
    subprocess.run([*command, "--rounds", "2", "--scale", "0.01"], cwd=ROOT, timeout=120)
    found: list[dict[str, Any]] = json.loads(file.read_text())
    return found


@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_produced_and_is_a_positive_ratio(name: str, lines: list[dict[str, Any]]) -> None:
    rows = [line for line in lines if name in line["name"] and "ratio" in line]
    unmeasured = [line for line in lines if "reason" in line]
    skipped = [line["reason"] for line in unmeasured if not line["failed"]]
    if not rows and skipped:
        pytest.skip(skipped[0])
    assert len(rows) == 1, unmeasured
    assert rows[0]["ratio"] > 0
    assert not rows[0]["fault"]


def test_no_row_is_produced_that_nobody_expects(lines: list[dict[str, Any]]) -> None:
    assert [line["name"] for line in lines if "ratio" in line and not any(name in line["name"] for name in ROWS)] == []


def test_a_row_says_whether_it_is_within_its_budget() -> None:
    twice = Budget(at_most=2)
    assert Row("a", 3.0, 2.0, "µs", twice).within
    assert not Row("a", 5.0, 2.0, "µs", twice).within
    assert not Row("a", 3.0, 2.0, "µs", twice, fault="a call failed").within
    assert Row("a", 10.0, 2.0, "calls/s", Budget(at_least=5)).within
    assert not Row("a", 9.0, 2.0, "calls/s", Budget(at_least=5)).within
    assert Row("a", 61.0, 2.0, "ms", Budget(more=60, unit="ms")).within
    assert not Row("a", 63.0, 2.0, "ms", Budget(more=60, unit="ms")).within


def test_a_row_without_a_budget_is_over_it_only_by_its_fault() -> None:
    assert Row("a", 900.0, 2.0, "µs", Budget()).cells()[4:6] == ("-", "-")
    assert Row("a", 900.0, 2.0, "µs", Budget(), fault="a call failed").cells()[5] == "OVER"


def test_a_line_survives_its_json() -> None:
    lines: list[Row | Unmeasured] = [
        Row("a", 3.0, 2.0, "µs", Budget(at_most=2), "floor: b"),
        Unmeasured("c", "no server here"),
    ]
    assert [from_json(json.loads(json.dumps(line.as_json()))) for line in lines] == lines


def test_the_table_is_aligned() -> None:
    lines = [
        Row("short", 3.0, 2.0, "µs", Budget(at_most=2), "x"),
        Row("a longer name", 1234.6, 2.0, "ms", Budget(at_most=2), "x"),
    ]
    first, second = as_text(lines).splitlines()[2:]
    assert first.index("≤") == second.index("≤")
    assert len(first) == len(second)  # both end with the remark
    assert "1,235 ms" in second
    assert as_markdown(lines).splitlines()[2].startswith("| short | 3 µs | 2 µs | 1.50")


# ── the upstream ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def running() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture
def upstream(running: Upstream) -> Upstream:
    running.reset()
    return running


@pytest.fixture
def client(upstream: Upstream) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=upstream.url, api_key="sk-mock", max_retries=0, timeout=5) as client:
        yield client


def said(client: openai.OpenAI) -> str | None:
    return client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES).choices[0].message.content


def streamed(client: openai.OpenAI) -> Iterator[str]:
    for chunk in client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True):
        if chunk.choices and chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content


def test_upstream_answers_as_openai_does(upstream: Upstream, client: openai.OpenAI) -> None:
    upstream.configure(text="Hello, wörld")
    first = client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    second = client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    assert first.choices[0].message.content == "Hello, wörld"
    assert first.model == "gpt-4o-mini"
    assert first.id != second.id
    assert upstream.calls == 2


def test_upstream_streams_as_openai_does(upstream: Upstream, client: openai.OpenAI) -> None:
    upstream.configure(text="Hello, wörld", chunks=3)
    assert list(streamed(client)) == ["Hell", "o, w", "örld"]
    upstream.configure(delay=0.001)
    assert list(streamed(client)) == ["Hell", "o, w", "örld"]


def test_upstream_speaks_anthropic(upstream: Upstream) -> None:
    upstream.configure(text="Hello", chunks=2)
    with anthropic.Anthropic(base_url=upstream.root, api_key="sk-mock", max_retries=0) as client:
        answer = client.messages.create(model="claude-local", max_tokens=10, messages=MESSAGES)
        assert [block.text for block in answer.content if block.type == "text"] == ["Hello"]
        with client.messages.stream(model="claude-local", max_tokens=10, messages=MESSAGES) as stream:
            assert list(stream.text_stream) == ["Hel", "lo"]


def test_upstream_plays_a_script_and_then_answers_as_usual(upstream: Upstream, client: openai.OpenAI) -> None:
    upstream.script({"status": 429, "headers": {"retry-after": "7"}}, {"text": "second"})
    with pytest.raises(openai.RateLimitError) as refused:
        said(client)
    assert refused.value.response.headers["retry-after"] == "7"
    assert said(client) == "second"
    assert said(client) not in (None, "second")


def test_upstream_breaks_a_stream_where_it_is_told_to(upstream: Upstream, client: openai.OpenAI) -> None:
    upstream.configure(text="abcd", chunks=4, drop_after=3)
    seen: list[str] = []
    with pytest.raises(openai.APIConnectionError):
        seen.extend(streamed(client))
    stream = streamed(client)
    assert [next(stream), next(stream)] == ["a", "b"]  # the first event has the role and no text
    with pytest.raises(openai.APIConnectionError):
        next(stream)


@pytest.mark.parametrize("drop_after", [0, 1])
def test_upstream_breaks_a_whole_answer(drop_after: int, upstream: Upstream, client: openai.OpenAI) -> None:
    upstream.script({"drop_after": drop_after})
    with pytest.raises(openai.APIConnectionError):
        said(client)
    assert said(client)


def test_upstream_hangs_and_counts_who_went_away(upstream: Upstream, client: openai.OpenAI) -> None:
    upstream.configure(hang=True)
    with pytest.raises(openai.APITimeoutError):
        said(client.with_options(timeout=0.03))
    deadline = time.monotonic() + 5
    while not upstream.abandoned:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert upstream.calls == 1


def test_upstream_serves_any_body_on_any_path(upstream: Upstream, client: openai.OpenAI) -> None:
    upstream.configure(body={"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "x"}]})
    assert [model.id for model in client.models.list()] == ["m"]
    upstream.reset()
    with pytest.raises(openai.NotFoundError):
        client.models.list()


def test_upstream_remembers_what_was_asked(upstream: Upstream, client: openai.OpenAI) -> None:
    said(client)
    (request,) = upstream.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer sk-mock"
    assert request.json == {"model": "gpt-4o-mini", "messages": MESSAGES}
    upstream.reset()
    assert upstream.requests == []


def test_upstream_that_stopped_refuses_connections() -> None:
    with Upstream() as upstream:
        url = upstream.url
    with (
        openai.OpenAI(base_url=url, api_key="sk-mock", max_retries=0) as client,
        pytest.raises(openai.APIConnectionError),
    ):
        said(client)
