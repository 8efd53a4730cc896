"""`rejoinder cache …`, as it is typed: what it prints, what it removes, how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import shlex
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rejoinder
from rejoinder.router.cli import main, screen
from tests.fixtures.calls import text_of
from tests.fixtures.servers import RedisServer, redis_server, refusing_server

KEY = "a key of sixteen characters or more"
Shown = Callable[..., str]


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("REJOINDER_SIGN_WITH", "REJOINDER_ENCRYPT_WITH", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REJOINDER_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture(params=["disk", "redis", "sql"])
def url(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> str:
    """Where a cache is: of each kind of store."""
    if request.param == "redis":
        running: RedisServer = request.getfixturevalue("server")
        running.command("FLUSHALL")
        return running.url
    if request.param == "sql":
        pytest.importorskip("sqlalchemy", reason="needs the extra: pip install 'rejoinder[sql]'")
        return f"sqlite:///{tmp_path}/answers.db"
    return str(folder)


def cache_at(url: str, **options: Any) -> rejoinder.Cache:
    if "://" not in url:
        return rejoinder.Cache(type="disk", disk_cache_dir=url, **options)
    if url.startswith("redis"):
        return rejoinder.Cache(type="redis", redis_url=url, budget=5, **options)
    return rejoinder.Cache(type="sql", url=url, budget=5, **options)


def ask(cache: rejoinder.Cache, text: str = "Hi", model: str = "echo/a", **more: Any) -> Any:
    return rejoinder.completion(model, [{"role": "user", "content": text}], cache=cache, **more)


def fill(url: str) -> rejoinder.Cache:
    """Two answers of one model, one of another, one of its grace only, one corrupt."""
    cache = cache_at(url)
    for model, text in (("echo/a", "1"), ("echo/a", "2"), ("echo/b", "1")):
        ask(cache, text, model)
    ask(cache_at(url, ttl=0.001, stale_if_error="1D"), "old", "echo/old")
    cache.store.set("default:bad", b"junk")
    return cache


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Shown:
    """What `rejoinder cache <words>` prints; it must end with `status`."""

    def run(*words: str, status: int = 0) -> str:
        capsys.readouterr()
        assert main(["cache", *words]) == status
        printed = capsys.readouterr()
        return printed.out + printed.err

    return run


def models(cache: rejoinder.Cache) -> list[str]:
    return [name for name, _ in rejoinder.cache_size(cache=cache)]


# ── looking ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_list_is_inspects_table_with_sizes_to_the_right(shown: Shown, url: str) -> None:
    fill(url)
    title, _, head, rule, *rows = shown("list", "--url", url).splitlines()
    assert title == "Cache Sizes"
    assert head.split() == ["Model", "Entries", "Size"]
    assert set(rule) == {"-", " "}
    assert [row.split()[:2] for row in rows] == [
        ["(corrupt)", "1"],
        ["echo/a", "2"],
        ["echo/b", "1"],
        ["echo/old", "1"],
        ["Total", "5"],
    ]
    assert len({len(row) for row in [head, *rows]}) == 1
    assert all(re.search(r"\d B$|\d\.\d\d KB$", row) for row in rows)


def test_list_pruneable_shows_what_prune_would_remove(shown: Shown, url: str) -> None:
    cache = fill(url)
    text = shown("list", "--pruneable", "--url", url)
    assert text.startswith("The following models can be pruned due to cache expiry\n")
    assert [line.split()[0] for line in text.splitlines()[4:]] == ["(corrupt)", "echo/old", "Total"]
    assert shown("prune", "--yes", "--url", url).endswith("\nRemoved 2 entries.\n")
    assert models(cache) == ["echo/a", "echo/b"]
    assert shown("list", "--pruneable", "--url", url) == "No expired cache entries.\n"
    assert shown("prune", "--yes", "--url", url) == "No expired cache entries to prune.\n"


def test_list_entries_gives_keys_that_show_takes(shown: Shown, url: str) -> None:
    fill(url)
    table = shown("list", "--entries", "--model", "echo/b", "--url", url)
    key = table.splitlines()[4].split()[0]
    text = shown("show", key, "--url", url)
    assert re.search(r"^Model +echo/b$", text, re.MULTILINE)
    assert re.search(r"^Usage +\d+ tokens \[I: \d+, O: \d+\]$", text, re.MULTILINE)
    assert re.search(r"^Stored +\d{4}-.* ago$", text, re.MULTILINE)
    assert text.endswith("\n  1\n")


def test_json_of_every_command_can_be_read(shown: Shown, url: str, tmp_path: Path) -> None:
    fill(url)
    at = ("--json", "--url", url)
    found = json.loads(shown("list", *at))
    assert found["entries"] == 5
    assert found["models"][1]["model"] == "echo/a"
    entry = json.loads(shown("list", "--entries", "--model", "echo/b", *at))["items"][0]
    assert json.loads(shown("show", entry["key"], *at))["answer"] == "1"
    assert json.loads(shown("stats", *at))["expired"] == 1
    assert json.loads(shown("size", *at)) == {"bytes": found["bytes"], "entries": 5}
    assert json.loads(shown("path", *at))["path"]
    assert json.loads(shown("verify", *at, status=1))["corrupt"][0]["key"] == "bad"
    assert json.loads(shown("explain", "--model", "echo/b", "--message", "1", *at))["hit"]
    assert json.loads(shown("export", str(tmp_path / "b"), *at))["entries"] == 3
    assert json.loads(shown("import", str(tmp_path / "b"), *at))["kept"] == 3
    assert json.loads(shown("prune", "--yes", *at))["removed"] == 2
    assert json.loads(shown("clear", "--all", "--yes", *at))["removed"] == 3
    assert json.loads(shown("clear", "--all", "--yes", *at)) == {"removed": 0, "entries": 0, "bytes": 0, "models": []}


def test_stats_count_states_models_and_namespaces(shown: Shown, url: str) -> None:
    fill(url)
    ask(cache_at(url, namespace="team:a"))
    found = dict(re.findall(r"^(\w+) +(.+)$", shown("stats", "--url", url), re.MULTILINE))
    assert [found[name] for name in ("Entries", "Fresh", "Expired", "Corrupt")] == ["6", "4", "1", "1"]
    assert found["Namespaces"] == "default, team:a"
    assert found["Models"] == "(corrupt), echo/a, echo/b, echo/old"


def test_namespaces_are_a_column_and_can_be_chosen(shown: Shown, url: str) -> None:
    ask(cache_at(url))
    ask(cache_at(url, namespace="team:a"), model="echo/b")
    rows = [line.split()[:2] for line in shown("list", "--url", url).splitlines()[2:]]
    assert rows[0] == ["Namespace", "Model"]
    assert rows[2:4] == [["default", "echo/a"], ["team:a", "echo/b"]]
    shown("clear", "--all", "--yes", "--namespace", "team:a", "--url", url)
    assert "team:a" not in shown("list", "--url", url)
    assert ask(cache_at(url)).cache


def test_empty_cache_says_so_and_creates_nothing(shown: Shown, folder: Path) -> None:
    assert shown("list") == f"Nothing is cached in {folder / 'cache.sqlite3'}.\n"
    assert shown("size") == "0 B\n"
    assert shown("path") == f"{folder}\n"
    assert "Entries  0" in shown("stats")
    assert shown("verify") == "0 entries read, 0 corrupt.\n"
    assert shown("clear", "--all") == "Nothing to clear.\n"
    assert not folder.exists()


def test_stored_text_cannot_steer_the_terminal(shown: Shown, folder: Path) -> None:
    ask(rejoinder.Cache(type="disk"), "red \x1b[31m\rand \x07 bell", "echo/a\x1b]0;title\x07")
    key = json.loads(shown("list", "--entries", "--json"))["items"][0]["key"]
    for words in (("list",), ("list", "--entries"), ("show", key), ("stats",)):
        assert not re.search(r"[\x00-\x09\x0b-\x1f]", shown(*words))


def test_show_of_a_stream_a_value_and_something_corrupt(shown: Shown, folder: Path) -> None:
    cache = rejoinder.Cache(type="disk")
    list(ask(cache, "line one\nline two\nline three", stream=True))
    (key,) = [item.key for item in rejoinder.cache_list(cache=cache)]
    text = shown("show", key[:7], "--lines", "1")
    assert re.search(r"^Stream +\d+ chunks$", text, re.MULTILINE)
    assert text.endswith("\n  line one\n  … 2 more lines\n")
    cache.set("mine", {"a": 1})
    assert '{"a": 1}' in shown("show", "value:mine")
    cache.store.set("default:bad", b"junk")
    assert "4 bytes are too few for an entry" in shown("show", "default:bad")


def test_show_needs_one_entry(shown: Shown, folder: Path) -> None:
    cache = rejoinder.Cache(type="disk")
    for name in ("one", "oneself"):
        cache.set(name, 1)
    assert "No entry's key begins with 'x'" in shown("show", "x", status=1)
    assert "2 keys begin with 'value:o'" in shown("show", "value:o", status=1)
    assert "value:one" in shown("show", "value:one")  # which is exact, although another begins so


def test_explain_takes_options_or_a_file(shown: Shown, folder: Path, tmp_path: Path) -> None:
    rejoinder.completion(
        "echo/a",
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        temperature=0.5,
        cache=rejoinder.Cache(type="disk"),
    )
    same = ("explain", "--model", "echo/a", "--system", "Be brief.", "--message", "Hi")
    assert shown(*same, "--param", "temperature=0.5").startswith("HIT: ")
    missed = shown(*same, "--param", "temperature=0.7")
    assert missed.startswith("MISS: no entry has this key; the nearest differs in parameters.temperature.")
    call = {"model": "echo/a", "messages": [{"role": "user", "content": "Hi"}]}
    (tmp_path / "call.json").write_text(json.dumps(call))
    assert "  differs  messages[0]\n" in shown("explain", "--call", str(tmp_path / "call.json"))
    assert "--model and --message" in shown("explain", status=1)
    assert "write NAME=VALUE" in shown(*same, "--param", "temperature", status=1)


# ── removing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_clear_of_models_leaves_the_others(shown: Shown, url: str) -> None:
    cache = fill(url)
    text = shown("clear", "--model", "echo/a", "--model", "echo/old", "--yes", "--url", url)
    assert text.startswith("Clearing the following caches\n")
    assert text.endswith("\nRemoved 3 entries.\n")
    assert models(cache) == ["(corrupt)", "echo/b"]


def test_clear_wants_to_know_what_and_knows_a_near_name(shown: Shown, url: str) -> None:
    cache = fill(url)
    assert shown("clear", "--url", url, status=1) == "rejoinder: Need to specify either --all, or --model or --tag.\n"
    assert "either --all, or --model" in shown("clear", "--all", "--model", "echo/a", "--url", url, status=1)
    assert "Did you mean 'echo/old'?" in shown("clear", "--model", "echo/olt", "--yes", "--url", url, status=1)
    assert len(models(cache)) == 4


@pytest.mark.parametrize("words", [("clear", "--all"), ("clear", "--model", "echo/a"), ("prune",), ("verify", "--fix")])
def test_nothing_is_removed_where_nobody_can_be_asked(shown: Shown, folder: Path, words: tuple[str, ...]) -> None:
    cache = fill(str(folder))
    assert "Nobody can be asked, as this is not a terminal: add --yes" in shown(*words, status=1)
    assert len(models(cache)) == 4


def test_verify_reports_and_fix_removes(shown: Shown, url: str) -> None:
    cache = fill(url)
    text = shown("verify", "--url", url, status=1)
    assert "4 bytes are too few for an entry" in text
    assert text.endswith("\n5 entries read, 1 corrupt.\n")
    assert shown("verify", "--fix", "--yes", "--url", url).endswith("Removed 1 entry.\n")
    assert shown("verify", "--url", url) == "4 entries read, 0 corrupt.\n"
    assert models(cache) == ["echo/a", "echo/b", "echo/old"]


def test_sealed_entries_are_opened_with_the_key_of_the_environment(
    shown: Shown, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(rejoinder.Cache(type="disk", sign_with=KEY))
    assert "1 entry could not be checked" in shown("verify")
    assert "(sealed)" in shown("list")
    monkeypatch.setenv("REJOINDER_SIGN_WITH", KEY)
    assert shown("verify") == "1 entry read, 0 corrupt.\n"
    monkeypatch.setenv("REJOINDER_SIGN_WITH", f"{KEY} new\n{KEY}")
    assert "echo/a" in shown("list")
    monkeypatch.setenv("REJOINDER_SIGN_WITH", "another key of sixteen characters")
    assert "not signed with a key of ours" in shown("verify", status=1)


# ── bundles ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_bundle_goes_from_any_store_to_another(shown: Shown, url: str, tmp_path: Path) -> None:
    fill(url)
    ask(cache_at(url, namespace="team:a"))
    file = str(tmp_path / "run.jsonl.gz")
    said = shown("export", file, "--url", url).splitlines()
    assert re.fullmatch(rf"Exported 4 entries of 2 models \(\d\.\d\d KB\) to {re.escape(file)}\.", said[0])
    assert sorted(said[1:]) == ["Left out 1 entry: corrupt.", "Left out 1 entry: expired."]
    there = str(tmp_path / "there")
    assert shown("import", file, "--url", there) == f"Imported 4 entries of 4 into {there}/cache.sqlite3.\n"
    assert "--overwrite replaces them" in shown("import", file, "--url", there)
    for namespace in (None, "team:a"):
        answer = ask(cache_at(there, namespace=namespace, mode="replay_only"), "1" if namespace is None else "Hi")
        assert answer.cache
    shown("import", file, "--url", there, "--namespace", "moved")
    assert text_of(ask(cache_at(there, namespace="moved", mode="replay_only"), "Hi")) == "Hi"


def test_export_replaces_a_file_only_when_told_to(shown: Shown, folder: Path, tmp_path: Path) -> None:
    fill(str(folder))
    (tmp_path / "b").write_text("precious")
    assert "Nobody can be asked" in shown("export", str(tmp_path / "b"), status=1)
    assert (tmp_path / "b").read_text() == "precious"
    assert shown("export", str(tmp_path / "b"), "--yes", "--model", "echo/a").startswith(
        "Exported 2 entries of 1 model ("
    )


# ── errors ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_error_is_one_line_that_says_what_to_do(shown: Shown, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "foreign").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "foreign" / "cache.sqlite3")) as connection:
        connection.execute("CREATE TABLE t (x)")
    for words, said in {
        ("list", "--url", str(tmp_path / "nowhere")): "There is no cache in",
        ("list", "--url", str(tmp_path / "file")): "is a file. A cache on disk is a folder",
        ("list", "--url", str(tmp_path / "foreign")): "belongs to another program",
        ("export", str(tmp_path / "no" / "b")): "There is no folder",
        ("import", str(tmp_path / "nothing")): "nothing: No such file or directory.",
        ("import", str(tmp_path / "file")): "The file is no bundle",
    }.items():
        text = shown(*words, status=1)
        assert text.startswith("rejoinder: ")
        assert said in text
        assert text.count("\n") == 1


def test_password_of_an_unreachable_store_is_not_shown(shown: Shown) -> None:
    with refusing_server() as port:
        text = shown("list", "--url", f"redis://user:geheim@127.0.0.1:{port}/0", status=1)
    assert text.startswith("rejoinder: The store failed. ConnectionError: ")
    assert "geheim" not in text


@pytest.mark.parametrize("words", [["list"], ["list", "--entries"], ["list", "--pruneable"]])
def test_a_model_that_is_not_there_is_told_from_an_empty_cache(shown: Shown, folder: Path, words: list[str]) -> None:
    fill(str(folder))
    assert "Nothing of 'echo/olt' is cached. Did you mean 'echo/old'?" in shown(*words, "--model", "echo/olt", status=1)
    assert shown("list", "--pruneable", "--model", "echo/b") == "No expired cache entries.\n"


def test_address_may_be_the_file_or_the_folder(shown: Shown, folder: Path) -> None:
    fill(str(folder))
    assert shown("list", "--url", str(folder)) == shown("list", "--url", str(folder / "cache.sqlite3"))
    assert shown("list", "--url", str(folder)) == shown("list")


def test_unknown_address_is_told_which_there_are(shown: Shown) -> None:
    text = shown("list", "--url", "rediss3://host", status=1)
    assert "redis, rediss, unix" in text
    assert "Did you mean 'rediss'?" in text


def test_every_database_has_an_address() -> None:
    pytest.importorskip("sqlalchemy", reason="needs the extra: pip install 'rejoinder[sql]'")
    from rejoinder.caching.stores.sql_dialects import DIALECTS
    from rejoinder.router.cli.opening import SCHEMES

    assert DIALECTS.keys() <= {name for name, kind in SCHEMES.items() if kind == "sql"}


def test_valkey_is_an_address_too(shown: Shown, server: RedisServer) -> None:
    server.command("FLUSHALL")
    fill(server.url)
    assert "echo/old" in shown("list", "--url", server.url.replace("redis://", "valkey://"))


# ── at a terminal ─────────────────────────────────────────────────────────────────────────────────────────────────


def at_terminal(*words: str, typed: str = "", **variables: str) -> tuple[str, int]:
    """What a person sees who types `rejoinder cache <words>`, and then `typed` when asked; and the exit status."""
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(Path(__file__).parents[1] / "src"), **variables}
    master, slave = pty.openpty()
    program = subprocess.Popen(
        [sys.executable, "-m", "rejoinder", "cache", *words], stdin=slave, stdout=slave, stderr=slave, env=environment
    )
    os.close(slave)
    seen, deadline = b"", time.monotonic() + 30
    while time.monotonic() < deadline:
        if select.select([master], [], [], 0.05)[0]:
            try:
                data = os.read(master, 65536)
            except OSError:  # the other side is closed
                break
            seen += data
            if typed and b"[y/N] " in seen:
                os.write(master, typed.encode())
                typed = ""
    status = program.wait(10)
    os.close(master)
    return seen.decode().replace("\r\n", "\n"), status


@pytest.mark.parametrize(
    ("typed", "left"), [("y\n", []), ("n\n", ["echo/a"]), ("\n", ["echo/a"]), ("\x04", ["echo/a"])]
)
def test_clear_asks_first(folder: Path, typed: str, left: list[str]) -> None:
    cache = rejoinder.Cache(type="disk")
    ask(cache)
    seen, status = at_terminal("clear", "--all", typed=typed)
    assert re.search(r"Remove 1 entry \(\d+ B\)\? \[y/N\] ", seen)
    assert ("Removed 1 entry." in seen, status) == ((True, 0) if not left else (False, 1))
    assert models(cache) == left


def test_interrupt_at_the_question_removes_nothing_and_shows_no_traceback(folder: Path) -> None:
    cache = rejoinder.Cache(type="disk")
    ask(cache)
    master, slave = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    command = [sys.executable, "-m", "rejoinder", "cache", "clear", "--all"]
    program = subprocess.Popen(command, stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    assert program.stderr is not None
    seen = b""
    while b"[y/N] " not in seen:
        seen += os.read(program.stderr.fileno(), 100)
    program.send_signal(2)
    _, rest = program.communicate(timeout=10)
    assert (program.returncode, b"Traceback" in rest) == (130, False)
    assert models(cache) == ["echo/a"]
    os.close(master)
    os.close(slave)


def test_title_is_bold_at_a_terminal_unless_colour_is_unwanted(folder: Path) -> None:
    ask(rejoinder.Cache(type="disk"))
    assert at_terminal("list")[0].startswith("\x1b[1mCache Sizes\x1b[0m\n")
    assert at_terminal("list", NO_COLOR="1")[0].startswith("Cache Sizes\n")


def test_reader_that_has_seen_enough_is_no_error(folder: Path) -> None:
    ask(rejoinder.Cache(type="disk"))
    program = f"{shlex.quote(sys.executable)} -m rejoinder cache list --json | true"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    run = subprocess.run(program, shell=True, env=environment, capture_output=True, text=True)
    assert run.stderr == ""


class Terminal:
    """A stream that says it is one."""

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None: ...


def test_progress_is_shown_of_what_takes_long_and_wiped_away(monkeypatch: pytest.MonkeyPatch) -> None:
    quick: Any = Terminal()
    assert list(screen.watched(range(5), "Reading", quick)) == [0, 1, 2, 3, 4]
    assert quick.text == ""
    monkeypatch.setattr(screen, "PATIENCE", 0.0)
    slow: Any = Terminal()
    assert len(list(screen.watched(range(5), "Reading", slow))) == 5
    assert slow.text.startswith("\rReading: 1 entry ")
    assert slow.text.endswith("\r\x1b[K")


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KB"), (1536, "1.50 KB"), (2**20, "1.00 MB"), (3 * 2**30, "3.00 GB")],
)
def test_sizes_read_as_inspects(size: int, text: str) -> None:
    assert screen.size_text(size) == text


def test_what_has_a_tag_is_listed_and_cleared(shown: Any, tmp_path: Path) -> None:
    with rejoinder.Cache.disk(cache_path_root=tmp_path, budget=5):
        for model, tags in {"echo/a": ["draft"], "echo/b": ["draft", "final"], "echo/c": []}.items():
            rejoinder.completion(model, [{"role": "user", "content": "Hi"}], cache={"tags": tags})
    told = json.loads(shown("list", "--tag", "draft", "--json", "--url", str(tmp_path)))
    assert {row["model"] for row in told["models"]} == {"echo/a", "echo/b"}
    assert shown("clear", "--tag", "draft", "--yes", "--url", str(tmp_path)).endswith("Removed 2 entries.\n")
    assert "echo/c" in shown("list", "--url", str(tmp_path))


def test_a_table_or_prefix_of_its_own_can_be_named(shown: Shown, server: RedisServer, tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy", reason="needs the extra: pip install 'rejoinder[sql]'")
    database = f"sqlite:///{tmp_path}/answers.db"
    server.command("FLUSHALL")
    caches = {
        ("--url", database, "--table", "mine"): rejoinder.Cache(type="sql", url=database, table="mine", budget=5),
        ("--url", server.url, "--prefix", "mine:"): rejoinder.Cache(
            type="redis", redis_url=server.url, prefix="mine:", budget=5
        ),
    }
    for words, cache in caches.items():
        rejoinder.completion("echo/a", [{"role": "user", "content": "Hi"}], cache=cache)
        assert json.loads(shown("list", "--json", *words))["entries"] == 1
        assert json.loads(shown("list", "--json", *words[:2]))["entries"] == 0
    said = shown("list", "--url", database, "--prefix", "mine:", status=1)
    assert "--prefix is for a redis cache, and --url names a sql one" in said


def test_a_container_of_cosmos_can_be_named(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("azure.cosmos", reason="pip install 'rejoinder[cosmos]'")
    assert "AZURE_COSMOS_CONNECTION_STRING" in shown("path", "--url", "cosmos://db/answers", status=1)
    secret = "AccountEndpoint=https://me.documents.azure.com:443/;AccountKey=c2VjcmV0;"
    monkeypatch.setenv("AZURE_COSMOS_CONNECTION_STRING", secret)
    said = shown("path", "--url", "cosmos://db/answers?partition=41")
    assert said == "CosmosStore(https://me.documents.azure.com:443/, 'db', 'answers')\n"
    assert "cosmos://DATABASE/CONTAINER" in shown("path", "--url", "cosmos://db", status=1)
