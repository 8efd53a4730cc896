"""Forked processes: a fork of a warm process takes milliseconds, where a new one would import for a second."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

PATIENCE = 600.0


class Child:
    """A forked process that does `work(say)`, where `say(line)` reaches the parent at once, and returns JSON."""

    def __init__(self, work: Callable[[Callable[[str], None]], Any]) -> None:
        reading, writing = os.pipe()
        self._output = b""
        self.pid = os.fork()
        if self.pid == 0:
            _live(work, writing)
        os.close(writing)
        self._pipe = reading
        self._is_open = True

    def kill(self) -> None:
        """As hard as it gets. What it had said by then is still to be read."""
        os.kill(self.pid, signal.SIGKILL)

    def wait_for_line(self, patience: float = 30.0) -> None:
        deadline = time.monotonic() + patience
        while b"\n" not in self._output:
            self._read(deadline)
            if not self._is_open and b"\n" not in self._output:
                raise RuntimeError("the child ended without a word")

    def lines(self, patience: float = PATIENCE) -> list[str]:
        """All that it said, once it has ended."""
        deadline = time.monotonic() + patience
        try:
            while self._is_open:
                self._read(deadline)
        finally:
            if self._is_open:
                self.kill()
                os.close(self._pipe)
            os.waitpid(self.pid, 0)
        return self._output.decode().split("\n")[:-1]  # the last piece has no end: it was killed while it spoke

    def result(self, patience: float = PATIENCE) -> Any:
        """What its work returned. Raises if that failed, or takes longer than `patience`."""
        lines = self.lines(patience)
        answer = json.loads(lines[-1]) if lines else {"error": "it ended without a word"}
        if "error" in answer:
            raise RuntimeError(f"a child failed:\n{answer['error']}")
        return answer["result"]

    def _read(self, deadline: float) -> None:
        if not select.select([self._pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError("a child does not end")
        piece = os.read(self._pipe, 1 << 20)
        self._output += piece
        if not piece:
            os.close(self._pipe)
            self._is_open = False


def _live(work: Callable[[Callable[[str], None]], Any], pipe: int) -> None:
    def say(line: str) -> None:
        data = f"{line}\n".encode()
        while data:
            data = data[os.write(pipe, data) :]

    try:
        say(json.dumps({"result": work(say)}))
    except BaseException:
        say(json.dumps({"error": traceback.format_exc()}))
    finally:
        sys.stderr.flush()
        os._exit(0)  # not the parent's clean-up


def in_child(work: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """What `work` returns in a forked process."""
    return Child(lambda say: work()).result(patience)


def together(works: Sequence[Callable[[], Any]], patience: float = PATIENCE) -> list[Any]:
    """The same for several processes at once."""
    children = [Child(lambda say, work=work: work()) for work in works]  # type: ignore[misc]
    return [child.result(patience) for child in children]
