"""What `import rejoinder` costs, and that it does nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

from ..measure import Effort, paired
from ..report import Budget, Row

HEAVY = ("openai", "anthropic", "httpx", "httpx2", "aiohttp", "redis", "tiktoken", "pydantic", "numpy", "tenacity")

# Everything that Python tells an audit hook about: https://docs.python.org/3/library/audit_events.html
WATCH = """
import json, sys
seen = []
def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        seen.append("network: " + repr(args[1:]))
    elif event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        seen.append("wrote: " + repr(args[0]))
    elif event in ("os.mkdir", "os.rename", "os.remove", "sqlite3.connect", "subprocess.Popen"):
        seen.append(event + ": " + repr(args[0]))
sys.addaudithook(hook)
import rejoinder
print(json.dumps(seen + ["loads " + name for name in sys.argv[1:] if name in sys.modules]))
"""


def importing(effort: Effort) -> Iterator[Row]:
    found = subprocess.run([sys.executable, "-B", "-c", WATCH, *HEAVY], check=True, capture_output=True, text=True)
    fault = ", ".join(json.loads(found.stdout))
    starts = range(effort.count(4))
    times = paired(effort.rounds, lambda _: _start("import rejoinder"), lambda _: _start("pass"), lambda: starts)
    budget = Budget(more=60, unit="ms")
    remark = "" if fault else "no SDK loaded, no network, no file written"
    yield Row("import rejoinder", times.subject * 1e3, times.floor * 1e3, "ms", budget, remark, fault)


def _start(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)
