"""The command line: `rejoinder demo`, `rejoinder cache path`, `rejoinder models`, `rejoinder providers` …

A command is a row of `COMMANDS`. What a command needs is imported when it runs, so that `rejoinder --version` is quick.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ...core.errors import RejoinderError
from . import cache
from .command import Command as Command
from .command import Options as Options
from .command import Parser as Parser


def demo(options: Options) -> int:
    from ..demo import run

    return run(options.model)


def demo_arguments(parser: Parser) -> None:
    parser.add_argument("--model", metavar="PROVIDER/MODEL", help="ask this one, instead of the first that is there")


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
    *cache.COMMANDS,
    Command(("models",), "list models, with what they cost and can do", models, models_arguments),
    Command(("providers",), "list providers, with what each supports", providers),
)

GROUPS = {"cache": "look at a cache, tidy it up, and carry it elsewhere"}
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
        sys.stdout.flush()  # here, where it is known what to do about a closed pipe
    except RejoinderError as error:
        print(f"rejoinder: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever reads our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status
