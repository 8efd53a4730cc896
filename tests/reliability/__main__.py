"""The table of what rejoinder bears: `python -m tests.reliability [--full] [--only NAME …] [--json FILE]`.

Without `--full` everything is done a few times only, as the tests do it. Each experiment runs in a process of its own,
which starts nothing before it forks. The exit status says whether a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .cases import CASES
from .report import FAILED, SKIPPED, Row, Scale, as_markdown, as_text, say

TIMEOUTS = {True: 900.0, False: 120.0}


def main() -> int:
    options = _arguments()
    if options.here:
        logging.getLogger("rejoinder").setLevel(logging.CRITICAL)  # the trouble is of our own making
        rows = [row for name in options.only for row in CASES[name](Scale(options.full))]
    else:
        started = time.monotonic()
        rows = [row for name in options.only for row in in_own_process(name, full=options.full)]
        print(as_markdown(rows) if options.markdown else as_text(rows))
        print(f"\n{_summary(rows)} In {time.monotonic() - started:.0f} s. {_circumstances()}")
    if options.json:
        Path(options.json).write_text(json.dumps([row.as_json() for row in rows], indent=1, ensure_ascii=False))
    return int(any(row.is_bad for row in rows))


def in_own_process(name: str, *, full: bool) -> list[Row]:
    """The rows of one experiment."""
    started = time.monotonic()
    say(f"{name} … ")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows.json")
        command = [sys.executable, "-m", "tests.reliability", "--here", "--only", name, "--json", str(file)]
        try:
            subprocess.run([*command, *(["--full"] if full else [])], timeout=TIMEOUTS[full])
            rows = [Row(**fields) for fields in json.loads(file.read_text())]
        except (subprocess.TimeoutExpired, FileNotFoundError) as error:
            rows = [Row(name, "-", "it broke off", str(error), "-", FAILED)]
    say(f"{time.monotonic() - started:.0f} s\n")
    return rows


def _summary(rows: list[Row]) -> str:
    done = [row for row in rows if row.verdict != SKIPPED]
    held = sum(not row.is_bad for row in done)
    skipped = len(rows) - len(done)
    return f"{held} of {len(done)} promises held" + (f", {skipped} skipped." if skipped else ".")


def _circumstances() -> str:
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{python}, {platform.system()}, {os.cpu_count()} cores."


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description="What rejoinder bears.")
    parser.add_argument(
        "--full", action="store_true", help="as often as docs/reliability.md says: a quarter of an hour"
    )
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--json", metavar="FILE", help="write the rows there as well")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--here", action="store_true", help="in this process, and print nothing")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
