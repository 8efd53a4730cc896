"""The table of what rejoinder costs: `python -m tests.benchmarks [--quick] [--only NAME …] [--json FILE]`.

Each case runs in a process of its own, so that none inherits another's connections, memory or imports, and a case that
fails costs its own rows only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from .cases import CASES
from .measure import FULL, QUICK, Effort
from .report import Row, Unmeasured, as_markdown, as_text, circumstances, from_json, load

CASE_TIMEOUT = 120.0
Line = Row | Unmeasured


def main() -> int:
    options = _arguments()
    if options.here:
        effort = Effort(options.rounds, options.scale)
        lines = [line for name in options.only for line in measured(name, effort)]
    else:
        print(f"{circumstances()}\n", flush=True)
        started = time.monotonic()
        effort = QUICK if options.quick else FULL
        lines = [line for name in options.only for line in _in_own_process(name, effort)]
        print(as_markdown(lines) if options.markdown else as_text(lines))
        print(f"\n{_summary(lines)} Measured in {time.monotonic() - started:.0f} s; load at the end {load()}.")
    if options.json:
        Path(options.json).write_text(json.dumps([line.as_json() for line in lines], indent=1, ensure_ascii=False))
    return int(any(isinstance(line, Unmeasured) and line.failed for line in lines))


def measured(name: str, effort: Effort) -> list[Line]:
    """The rows of one case; where it stops early, those it has, and why."""
    lines: list[Line] = []
    try:
        lines.extend(CASES[name](effort))
    except pytest.skip.Exception as skipped:
        lines.append(Unmeasured(name, str(skipped)))
    except Exception as error:
        lines.append(Unmeasured(name, f"{type(error).__name__}: {error}", failed=True))
    return lines


def _in_own_process(name: str, effort: Effort) -> list[Line]:
    started = time.monotonic()
    print(f"{name} … ", end="", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows.json")
        command = [sys.executable, "-m", "tests.benchmarks", "--here", "--only", name, "--json", str(file)]
        command += ["--rounds", str(effort.rounds), "--scale", str(effort.scale)]
        try:
            subprocess.run(command, timeout=CASE_TIMEOUT)
            lines: list[Line] = [from_json(fields) for fields in json.loads(file.read_text())]
        except (subprocess.TimeoutExpired, FileNotFoundError) as error:
            lines = [Unmeasured(name, f"gave no figures: {error}", failed=True)]
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return lines


def _summary(lines: Sequence[Line]) -> str:
    rows = [line for line in lines if isinstance(line, Row)]
    judged = [row for row in rows if row.budget or row.fault]
    within = sum(row.within for row in judged)
    unmeasured = len(lines) - len(rows)
    return f"{within} of {len(judged)} rows within budget" + (f", {unmeasured} not measured." if unmeasured else ".")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="What rejoinder costs.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and calls; the figures are noisier")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--json", metavar="FILE", help="write the rows there as well")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    inner = parser.add_argument_group("for a single process")
    inner.add_argument("--here", action="store_true", help="measure in this process and print nothing")
    inner.add_argument("--rounds", type=int, default=FULL.rounds)
    inner.add_argument("--scale", type=float, default=FULL.scale, help="of the number of calls")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
