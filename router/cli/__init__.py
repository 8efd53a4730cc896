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
    from .listings import models_json, print_models

    (models_json if options.json else print_models)(options.provider)
    return 0


def models_arguments(parser: Parser) -> None:
    parser.add_argument("provider", nargs="?", help="only those of this provider")
    json_argument(parser)


def providers(options: Options) -> int:
    from .listings import print_providers, providers_json

    (providers_json if options.json else print_providers)()
    return 0


def json_argument(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


COMMANDS = (
    Command(("demo",), "ask a question twice, and see the second answer come from the cache", demo, demo_arguments),
    *cache.COMMANDS,
    Command(("models",), "list models, with what they cost and can do", models, models_arguments),
    Command(("providers",), "list providers, with what each supports", providers, json_argument),
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
    top = parser.add_subparsers(metavar="COMMAND")
    parser.set_defaults(run=_help, parser=parser)
    inner: dict[str, argparse._SubParsersAction[Parser]] = {}
    for command in commands:
        *group, word = command.words
        place = top
        if group:
            if group[0] not in inner:
                below = top.add_parser(group[0], help=GROUPS[group[0]], description=GROUPS[group[0]])
                inner[group[0]] = below.add_subparsers(metavar="COMMAND")
                below.set_defaults(run=_help, parser=below)
            place = inner[group[0]]
        own = place.add_parser(word, help=command.help, description=command.help)
        command.arguments(own)
        own.set_defaults(run=command.run, parser=own)
    return parser


def _help(options: Options) -> int:
    """What there is, for whoever has not said what is wanted."""
    options.parser.print_help(sys.stderr)
    return 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (by default the process's), and give its exit status."""
    options, unknown = parser_of(COMMANDS).parse_known_args(argv)
    if unknown:
        options.parser.refuse(unknown)
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
