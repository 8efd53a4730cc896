"""Runs the Python examples of a page of documentation: `python -m tests.pages docs/quickstart.md`.

All blocks marked `python` run in the order of the page, in one namespace and one event loop, like the cells of a
notebook; `await` may be used at the top level. A block that is followed by one marked `text` must print exactly that,
where a line that ends with `…` only gives the beginning. A block after the comment

    <!-- not run: why -->

must only be valid Python. Addresses of a Redis on port 6379 are changed to the port in REJOINDER_PAGES_REDIS.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import io
import linecache
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

FENCE = re.compile(
    r"^(?P<mark><!-- not run: [^\n]+ -->\n+)?```python\n(?P<code>.*?)^```$(?P<shown>\n+```text\n(?P<output>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    line: int  # where its code begins in the page
    code: str
    runs: bool
    output: str | None
    """What it must print; None: anything."""


def blocks(text: str) -> Iterator[Block]:
    """The Python blocks of a page."""
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        yield Block(line, match["code"], match["mark"] is None, match["output"])


def compiled(block: Block, page: str) -> Any:
    """The block's code; its tracebacks show the lines of the page."""
    padded = "\n" * (block.line - 1) + block.code
    return compile(padded, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def as_pattern(output: str) -> str:
    """A regular expression for an output that a page shows."""
    lines = [re.escape(line.removesuffix("…")) + (".*" if line.endswith("…") else "") for line in output.splitlines()]
    return "\n".join(lines) + "\n"


def with_redis(code: str) -> str:
    """`code` with the port of a Redis that is really there."""
    return re.sub(r"\b6379\b", os.environ.get("REJOINDER_PAGES_REDIS", "6379"), code)


def run(path: Path) -> int:
    """Run a page's blocks; how many. Raises what they raise, and `AssertionError` where they print something else."""
    text = path.read_text(encoding="utf-8")
    linecache.cache[str(path)] = (len(text), None, text.splitlines(True), str(path))
    namespace: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    with asyncio.Runner() as runner:
        for block in blocks(text):
            code = compiled(block._replace(code=with_redis(block.code)), str(path))
            if not block.runs:
                continue
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                found = eval(code, namespace)
                if found is not None:
                    runner.run(found)
            if block.output is not None:
                assert re.fullmatch(as_pattern(block.output), printed.getvalue()), (
                    f"{path}:{block.line} printed\n{printed.getvalue()}instead of\n{block.output}"
                )
            count += 1
    return count


if __name__ == "__main__":
    page, folder = Path(sys.argv[1]).absolute(), sys.argv[2]
    os.chdir(folder)
    print(run(page))
