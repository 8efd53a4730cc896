"""The README and the pages of `docs/` keep their word: examples run, links lead somewhere, commands exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import pages
from tests.fixtures.servers import RedisServer, redis_server
from tests.fixtures.upstream import Upstream

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]

RUN_ELSEWHERE = {
    "docs/add-a-store.md": "tests/test_stores.py makes its files and runs them",
    "docs/add-a-provider.md": "its blocks are rows of a table and parts of a module",
}


@pytest.fixture(scope="module")
def vendor() -> Iterator[Upstream]:
    """Answers in OpenAI's and in Anthropic's stead."""
    with Upstream(text="Paris is the capital of France.") as upstream:
        yield upstream


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def page_environment(vendor: Upstream, folder: Path) -> dict[str, str]:
    """No keys and no caches but those of the test."""
    kept = {name: value for name, value in os.environ.items() if not re.search("_API_|_KEY|REDIS|REJOINDER", name)}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        "REJOINDER_CACHE_DIR": str(folder / "user-cache"),
        "OPENAI_API_KEY": "sk-mock",
        "OPENAI_BASE_URL": vendor.url,
        "ANTHROPIC_API_KEY": "sk-mock",
        "ANTHROPIC_BASE_URL": vendor.root,
    }


def has_examples(name: str) -> bool:
    return name not in RUN_ELSEWHERE and "```python" in (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", list(filter(has_examples, PAGES)))
def test_examples_run(name: str, vendor: Upstream, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    found = list(pages.blocks((ROOT / name).read_text(encoding="utf-8")))
    environment = page_environment(vendor, tmp_path)
    if any("6379" in block.code for block in found if block.runs):
        environment["REJOINDER_PAGES_REDIS"] = str(request.getfixturevalue("redis").port)
    command = [sys.executable, "-m", "tests.pages", str(ROOT / name), str(tmp_path)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) == sum(block.runs for block in found)


@pytest.mark.parametrize("name", PAGES)
def test_no_python_block_escapes_the_runner(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert len(re.findall("^ *```py", text, re.MULTILINE)) == len(list(pages.blocks(text)))


@pytest.mark.parametrize("name", [*PAGES, "CHANGELOG.md"])
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in link and not link.startswith("#"):
            assert (ROOT / name).parent.joinpath(link.split("#")[0]).exists(), link


def test_commands_of_the_readme_exist() -> None:
    named = set(re.findall(r"\bmake ([a-z]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"\]\(([a-z-]+\.md)\)", index))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"} <= listed


def test_runner_notices_a_wrong_output_and_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nprint('one')\n```\n\n```text\ntwo\n```\n")
    with pytest.raises(AssertionError, match="printed\none\n"):
        pages.run(page)
    page.write_text(
        "```python\nimport asyncio\nx = await asyncio.sleep(0, 1)\n```\n\n```python\nraise KeyError(x)\n```\n"
    )
    with pytest.raises(KeyError):
        pages.run(page)
    page.write_text("<!-- not run: it would fail -->\n```python\nraise KeyError\n```\n")
    assert pages.run(page) == 0
