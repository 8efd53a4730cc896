"""What a command is."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

Parser = argparse.ArgumentParser
Options = argparse.Namespace


class Command(NamedTuple):
    """One thing to type after `rejoinder`."""

    words: tuple[str, ...]
    """("demo",) or ("cache", "path")."""
    help: str
    run: Callable[[Options], int]
    """Does it, and gives the exit status. A `RejoinderError` is shown without a traceback."""
    arguments: Callable[[Parser], object] = lambda parser: None
    """Adds what the command takes."""
