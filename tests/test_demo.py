"""`rejoinder demo`, and the command line around it: what a newcomer sees first."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rejoinder.core.errors import CacheMiss
from rejoinder.providers import table
from rejoinder.router import cli
from rejoinder.router.cli import main
from rejoinder.router.demo import LOCAL, MODELS, choose
from tests.fixtures.servers import free_port, silent_server
from tests.fixtures.upstream import Upstream


@pytest.fixture(scope="module")
def running() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture
def upstream(running: Upstream) -> Upstream:
    running.reset()
    return running


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No provider's key, no local server, and a cache folder of the test's own."""
    rows = table.PROVIDERS.values()
    for variable in {name for row in rows for name in (*row.key_env, *row.base_env)} | {"REJOINDER_DEMO_MODEL"}:
        monkeypatch.delenv(variable, raising=False)
    for row in (table.PROVIDERS[name] for name in LOCAL):
        monkeypatch.setenv(row.base_env[0], f"http://127.0.0.1:{free_port()}/v1")
    monkeypatch.setenv("REJOINDER_CACHE_DIR", str(tmp_path / "cache"))


def shown(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    """What `rejoinder <words>` prints; it must end with `status`."""
    assert main(words) == status
    printed = capsys.readouterr()
    return printed.out + printed.err


def test_without_keys_the_echo_answers_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "demo")
    assert "echo" in text.splitlines()[0]
    assert "no provider's key is set and no local server answers" in text
    assert re.search(r"^first +provider +\d+ ms .*\$0\.0000", text, re.MULTILINE)
    assert re.search(r"^second +cache .* saved \$0\.0000", text, re.MULTILINE)
    assert "The second is the same answer" in text
    assert len(text.splitlines()) <= 20
    assert max(map(len, text.splitlines())) <= 120


def test_first_answer_is_fresh_in_every_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for _ in range(2):
        assert re.search("^first +provider", shown(capsys, "demo"), re.MULTILINE)
    assert not (tmp_path / "cache").exists(), "the demo must not write into the user's cache"


def test_provider_whose_key_is_set_is_asked_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, upstream: Upstream
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mock")
    monkeypatch.setenv("OPENAI_BASE_URL", upstream.url)
    text = shown(capsys, "demo")
    assert "openai/gpt-4o-mini: OPENAI_API_KEY is set" in text
    assert re.search(r"^second +cache .* nothing; saved \$0\.\d+", text, re.MULTILINE)
    assert [request.json["model"] for request in upstream.requests] == ["gpt-4o-mini"]


def test_anthropic_key_is_used_when_it_is_the_only_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, upstream: Upstream
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-mock")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", upstream.root)
    assert "anthropic/claude-haiku-4-5: ANTHROPIC_API_KEY is set" in shown(capsys, "demo")
    assert upstream.calls == 1


def test_wrong_key_gives_advice_and_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, upstream: Upstream
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-and-wrong")
    monkeypatch.setenv("OPENAI_BASE_URL", upstream.url)
    upstream.configure(status=401)
    text = shown(capsys, "demo", status=1)
    assert "AuthenticationError" in text
    assert "Look at OPENAI_API_KEY" in text
    assert "Traceback" not in text
    assert "very-secret" not in text


def test_missing_key_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Set GROQ_API_KEY" in shown(capsys, "demo", "--model", "groq/llama-3.1-8b-instant", status=1)


def test_unknown_provider_is_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'anthropic'?" in shown(capsys, "demo", "--model", "antropic/claude", status=1)


def test_local_server_is_found(monkeypatch: pytest.MonkeyPatch, local_models: str) -> None:
    monkeypatch.setenv("OLLAMA_API_BASE", local_models)
    assert choose(None).model == "ollama/llama3.2:1b"


def test_server_that_never_answers_does_not_hold_up_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    with silent_server() as port:
        monkeypatch.setenv("OLLAMA_API_BASE", f"http://127.0.0.1:{port}/v1")
        assert choose(None).model == "echo/demo"


@pytest.fixture
def local_models() -> Iterator[str]:
    """The base URL of a server that lists an embedding model and a chat model."""
    import http.server
    import threading

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"object": "list", "data": [{"id": "nomic-embed-text"}, {"id": "llama3.2:1b"}]}'
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


@pytest.mark.parametrize("provider", MODELS)
def test_demo_model_has_a_provider_with_a_key(provider: str) -> None:
    assert table.resolve(f"{provider}/{MODELS[provider]}")[0].key_env


# ── the command line ──────────────────────────────────────────────────────────────────────────────────────────────


def test_cache_path_and_stats_look_where_the_library_does(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from rejoinder.caching.stores.disk import DiskStore

    assert str(tmp_path / "cache") in shown(capsys, "cache", "path")
    assert str(tmp_path / "cache") in shown(capsys, "cache", "stats")
    assert not (tmp_path / "cache").exists(), "looking creates nothing"
    store = DiskStore()
    store.set("key", b"value")
    store.close()
    assert str(tmp_path / "cache") in shown(capsys, "cache", "stats")


def test_error_of_ours_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(options: cli.Options) -> int:
        raise CacheMiss("nothing there")

    monkeypatch.setattr(cli, "COMMANDS", (cli.Command(("fail",), "fails", fails),))
    assert shown(capsys, "fail", status=1) == "rejoinder: nothing there\n"


def test_module_runs_as_a_program_and_knows_its_version() -> None:
    import rejoinder

    src = str(Path(__file__).parents[1] / "src")
    run = subprocess.run(
        [sys.executable, "-m", "rejoinder", "--version"],
        env={**os.environ, "PYTHONPATH": src},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == f"rejoinder {rejoinder.__version__}\n"


@pytest.mark.parametrize(("words", "among"), [([], "providers"), (["cache"], "prune")])
def test_no_command_shows_which_there_are(words: list[str], among: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("usage: rejoinder")
    assert among in shown


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("chace list", "there is no 'chace'. Did you mean 'cache'?"),
        ("cache lits", "there is no 'lits'. Did you mean 'list'?"),
        ("cache list --jsn", "rejoinder cache list: error: unrecognized arguments: --jsn. Did you mean '--json'?"),
        ("models --jsn", "Did you mean '--json'?"),
        ("--verison", "Did you mean '--version'?"),
    ],
)
def test_a_slip_in_a_command_is_told_with_what_was_meant(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(line.split())
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("line", ["models groq --json", "providers --json"])
def test_listings_are_json_for_programs(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) > 1
    assert all(row.get("model") or row.get("name") for row in rows)
