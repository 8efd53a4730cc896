"""Threads for work that nobody waits for."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable


def start(work: Callable[[], object], *, daemon: bool) -> bool:
    """Do `work` in a thread of its own. False, and nothing done, where there can be none any more.

    While the interpreter ends, a new thread never gets to run, and whoever starts it waits for it for ever.
    """
    if sys.is_finalizing():
        return False
    try:
        threading.Thread(target=work, daemon=daemon).start()
    except RuntimeError:  # the interpreter is about to end, or there are too many threads
        return False
    return True
