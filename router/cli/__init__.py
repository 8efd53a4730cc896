"""The command line: `rejoinder demo`, `rejoinder cache path`, `rejoinder models`, `rejoinder providers` …

A command is a row of `COMMANDS`. What a command needs is imported when it runs, so that `rejoinder --version` is quick.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...core.errors import RejoinderError

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


def demo(options: Options) -> int:
    from ..demo import run

    return run(options.model)


def demo_arguments(parser: Parser) -> None:
    parser.add_argument("--model", metavar="PROVIDER/MODEL", help="ask this one, instead of the first that is there")


def cache_path(options: Options) -> int:
    from ...caching.stores.disk import default_directory

    print(default_directory())
    return 0


def cache_stats(options: Options) -> int:
    from ...caching.stores.disk import DiskStore

    store = DiskStore()
    sizes = [record.size for record in store.scan()]
    print(f"{len(sizes)} entries, {sum(sizes):,} bytes, in {store.directory}")
    return 0


def models(options: Options) -> int:
    from .listings import print_models

    print_models(options.provider)
    return 0


def models_arguments(parser: Parser) -> None:
    parser.add_argument("provider", nargs="?", help="only those of this provider")


def providers(options: Options) -> int:
    from .listings import print_providers

    print_providers()
    return 0


COMMANDS = (
    Command(("demo",), "ask a question twice, and see the second answer come from the cache", demo, demo_arguments),
    Command(("cache", "path"), "print the folder of the cache on disk", cache_path),
    Command(("cache", "stats"), "print how much the cache on disk holds", cache_stats),
    Command(("models",), "list models, with what they cost and can do", models, models_arguments),
    Command(("providers",), "list providers, with what each supports", providers),
)

GROUPS = {"cache": "look at the cache on disk"}
"""What the first word of a command of two words is about."""


def parser_of(commands: Sequence[Command]) -> Parser:
    """The parser that knows these commands. Its result has the chosen command's `run`."""
    from ..._version import __version__

    parser = Parser(
        prog="rejoinder", description="One call to any LLM provider, and never pay for the same answer twice."
    )
    parser.add_argument("--version", action="version", version=f"rejoinder {__version__}")
    top = parser.add_subparsers(metavar="COMMAND", required=True)
    inner: dict[str, argparse._SubParsersAction[Parser]] = {}
    for command in commands:
        *group, word = command.words
        place = top
        if group:
            if group[0] not in inner:
                below = top.add_parser(group[0], help=GROUPS[group[0]], description=GROUPS[group[0]])
                inner[group[0]] = below.add_subparsers(metavar="COMMAND", required=True)
            place = inner[group[0]]
        own = place.add_parser(word, help=command.help, description=command.help)
        command.arguments(own)
        own.set_defaults(run=command.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (by default the process's), and give its exit status."""
    options = parser_of(COMMANDS).parse_args(argv)
    try:
        status: int = options.run(options)
    except RejoinderError as error:
        print(f"rejoinder: {error}", file=sys.stderr)
        return 1
    return status
