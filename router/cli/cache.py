"""`rejoinder cache …`: look at a cache, tidy it up, and carry it elsewhere.

Every command but `ledger` works on any store (`--url`), on all namespaces or one (`--namespace`). They print tables or
JSON; what they need is imported when they run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from ...core.errors import RejoinderError
from . import bundles, ledger, looking, tidying
from .command import Command, Options, Parser

STORES = {"redis", "sqlalchemy", "sqlite3"}
"""Packages whose exceptions mean that the store has failed, and not we."""


def guarded(run: Callable[[Options], int]) -> Callable[[Options], int]:
    """The command, with the failures of stores and files as one line instead of a traceback."""

    @functools.wraps(run)
    def command(options: Options) -> int:
        try:
            return run(options)
        except (BrokenPipeError, RejoinderError):
            raise
        except Exception as error:
            of_store = type(error).__module__.partition(".")[0] in STORES
            if not of_store and not isinstance(error, (OSError, RuntimeError)):
                raise
            raise RejoinderError(_said(error, of_store)) from None

    return command


def _said(error: Exception, of_store: bool) -> str:
    """An exception in one line."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}."
    first = (str(error).splitlines() or [""])[0]
    return f"The store failed. {type(error).__name__}: {first}" if of_store or not first else first


Adder = Callable[[Parser], object]


def _model(parser: Parser) -> None:
    parser.add_argument("--model", metavar="MODEL", action="append", help="this model only; may be repeated")


def _tag(parser: Parser) -> None:
    parser.add_argument("--tag", metavar="TAG", action="append", help="what has this tag only; may be repeated")


def _yes(parser: Parser) -> None:
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask")


def _pruneable(parser: Parser) -> None:
    parser.add_argument("--pruneable", action="store_true", help="only what `prune` would remove")
    parser.add_argument("--entries", action="store_true", help="one line for each entry, with its key")
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="with --entries: so many at most; 0: all")


def _all(parser: Parser) -> None:
    parser.add_argument("--all", action="store_true", help="everything, of every model")


def _key(parser: Parser) -> None:
    parser.add_argument("key", metavar="KEY", help="an entry's key, or as much of its beginning as is unique")
    parser.add_argument("--lines", type=int, default=20, metavar="N", help="lines of the answer to show (20)")


def _fix(parser: Parser) -> None:
    parser.add_argument("--fix", action="store_true", help="remove corrupt entries")


def _file(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", help="the bundle; compressed if its name ends in .gz")


def _overwrite(parser: Parser) -> None:
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--overwrite", action="store_true", help="replace answers that are there")
    choice.add_argument("--skip", action="store_true", help="leave answers alone that are there (the default)")


def _call(parser: Parser) -> None:
    """How the call to explain is given."""
    parser.add_argument("--call", metavar="FILE", help='the call as JSON, {"model": …, "messages": […], …}; -: stdin')
    parser.add_argument("--model", metavar="PROVIDER/MODEL")
    parser.add_argument("--system", metavar="TEXT", help="the system message")
    parser.add_argument("--message", metavar="TEXT", action="append", help="a user's message; may be repeated")
    parser.add_argument(
        "--param", metavar="NAME=VALUE", action="append", help="a further argument; VALUE is JSON, else text"
    )
    parser.add_argument("--cache-seed", metavar="SEED", help="the cache_seed of the program's cache")


def _cache(parser: Parser, namespace: str) -> None:
    """What every command on a cache takes."""
    parser.add_argument(
        "--url",
        metavar="WHERE",
        help="the cache: a folder, redis://host:6379/0, s3://bucket/path, gs://…, az://…, or a database's "
        "postgresql://…, mysql://…, sqlite:///file, or cosmos://DATABASE/CONTAINER "
        "(else the cache on disk in your cache folder, or in REJOINDER_CACHE_DIR)",
    )
    parser.add_argument("--table", metavar="NAME", help="of a database: the cache's table=, if it was given one")
    parser.add_argument("--prefix", metavar="TEXT", help="of a Redis: the cache's prefix=, if it was given another one")
    parser.add_argument("--namespace", metavar="NAME", help=namespace)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _row(
    word: str,
    help: str,
    run: Callable[[Options], int],
    *adders: Adder,
    namespace: str = "this one only (else all of them)",
) -> Command:
    def arguments(parser: Parser) -> None:
        for adder in adders:
            adder(parser)
        _cache(parser, namespace)

    return Command(("cache", word), help, guarded(run), arguments)


COMMANDS = (
    _row("list", "list models and how much their answers take", looking.list_, _pruneable, _model, _tag),
    _row("clear", "remove all answers, or those of models or tags", tidying.clear, _all, _model, _tag, _yes),
    _row("prune", "remove what has expired or is corrupt", tidying.prune, _model, _yes),
    _row("path", "print where the cache is", looking.path),
    _row("size", "print how much the answers take", looking.size, _model, _tag),
    _row("stats", "count entries, states, models and namespaces", looking.stats, _model),
    _row("show", "show one entry", looking.show, _key),
    _row(
        "explain",
        "say why a call would hit or miss, without making it",
        looking.explain,
        _call,
        namespace="that of the program's cache",
    ),
    _row("verify", "read every entry; exit status 1 if one is corrupt", tidying.verify, _fix, _yes),
    _row("export", "write entries into a bundle, to be imported elsewhere", bundles.export, _file, _model, _tag, _yes),
    _row(
        "import", "put a bundle's entries into the cache", bundles.import_, _file, _overwrite, namespace="put them here"
    ),
    Command(("cache", "ledger"), "print what calls cost and saved", guarded(ledger.ledger), ledger.ledger_arguments),
)
