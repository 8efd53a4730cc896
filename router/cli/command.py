"""What a command is, and how what was typed is read."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from ...core.errors import suggestion

Options = argparse.Namespace


class Parser(argparse.ArgumentParser):
    """A parser that says what may have been meant."""

    def error(self, message: str) -> NoReturn:
        # The list of choices is quoted or not, as the version of Python has it.
        wrong = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message)
        if wrong is not None:
            message = f"there is no {wrong[1]!r}.{suggestion(wrong[1], re.findall('[a-z]+', wrong[2]))}"
        super().error(message)

    def refuse(self, words: list[str]) -> NoReturn:
        """End as after an error, for words that this parser does not know."""
        options = re.findall(r"--[a-z-]+", self.format_usage())
        self.error(f"unrecognized arguments: {' '.join(words)}.{suggestion(words[0], options)}")


class Command(NamedTuple):
    """One thing to type after `rejoinder`."""

    words: tuple[str, ...]
    """("demo",) or ("cache", "path")."""
    help: str
    run: Callable[[Options], int]
    """Does it, and gives the exit status. A `RejoinderError` is shown without a traceback."""
    arguments: Callable[[Parser], object] = lambda parser: None
    """Adds what the command takes."""
