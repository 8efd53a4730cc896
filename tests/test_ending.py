"""Programs that end with something open."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, sys
import rejoinder
rejoinder.cache = rejoinder.Cache.disk(cache_path_root=sys.argv[1])
call = {"model": "echo/m", "messages": [{"role": "user", "content": "a text that comes in many pieces"}]}
call["client"] = rejoinder.Echo(chunk_latency=0.01)
"""
ENDS = {
    "an open stream": "stream = rejoinder.completion(**call, stream=True); next(stream)",
    "a stream nobody reads": "stream = rejoinder.completion(**call, stream=True)",
    "an open async stream": """
async def main():
    global stream
    stream = await rejoinder.acompletion(**call, stream=True)
    await anext(stream)
asyncio.run(main())""",
    "a call that was given up": """
async def main():
    task = asyncio.create_task(rejoinder.acompletion(**call))
    await asyncio.sleep(0)
    task.cancel()
asyncio.run(main())""",
    "an error": "raise SystemExit(rejoinder.completion(**call).usage is None)",
}


@pytest.mark.parametrize("end", ENDS)
def test_program_ends_at_once_and_quietly(end: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "default", "-c", PROGRAM + ENDS[end], str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")
