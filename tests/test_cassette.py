"""Recorded tests: the plugin is run on tests of a user's, in a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

import rejoinder
from rejoinder.caching.stores.cassette import CassetteStore, scrubbed

USERS_TEST = """
import rejoinder

MESSAGES = [{"role": "user", "content": "TEXT"}]

def test_whole(rejoinder_cassette):
    answer = rejoinder.completion("echo/m", MESSAGES)
    assert answer.choices[0].message.content == "TEXT"

def test_streamed(rejoinder_cassette):
    chunks = list(rejoinder.completion("echo/m", MESSAGES, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "TEXT"
    assert len(chunks) > 2
"""


def run(folder: Path, *options: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *PLUGIN, *options, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def has_entry_point() -> bool:
    from importlib.metadata import entry_points

    return any(point.name == "rejoinder" for point in entry_points(group="pytest11"))


PLUGIN = [] if has_entry_point() else ["-p", "rejoinder.router.pytest_plugin"]


@pytest.fixture
def users(tmp_path: Path) -> Path:
    (tmp_path / "test_mine.py").write_text(USERS_TEST.replace("TEXT", "a text of several chunks"))
    return tmp_path


def test_call_that_is_not_recorded_fails_and_says_so(users: Path) -> None:
    code, output = run(users)
    assert code == 1
    assert "CacheMiss" in output
    assert not (users / "cassettes").exists()


def test_recorded_calls_replay_whole_and_streamed(users: Path) -> None:
    assert run(users, "--rejoinder-record=once")[0] == 0
    files = sorted(path.name for path in (users / "cassettes" / "test_mine").iterdir())
    assert files == ["test_streamed.jsonl", "test_whole.jsonl"]
    assert run(users)[0] == 0
    line = orjson.loads((users / "cassettes" / "test_mine" / "test_whole.jsonl").read_bytes())
    assert line["request"]["messages"][0]["content"] == "a text of several chunks"


def test_changed_call_fails_and_says_what_differs(users: Path) -> None:
    run(users, "--rejoinder-record=once")
    (users / "test_mine.py").write_text(USERS_TEST.replace("TEXT", "a text of seventeen chunks"))
    code, output = run(users)
    assert code == 1
    assert "messages[0]" in output


def test_once_does_not_add_to_a_file_and_new_does(users: Path) -> None:
    run(users, "--rejoinder-record=once")
    (users / "test_mine.py").write_text(USERS_TEST.replace("TEXT", "another text of some length"))
    assert run(users, "--rejoinder-record=once")[0] == 1
    assert run(users, "--rejoinder-record=new")[0] == 0
    assert len((users / "cassettes" / "test_mine" / "test_whole.jsonl").read_bytes().splitlines()) == 2


def test_calls_past_the_cache_are_blocked_too(users: Path) -> None:
    (users / "test_mine.py").write_text(
        "import rejoinder\ndef test_it(rejoinder_cassette):\n"
        "    rejoinder.completion('echo/m', [{'role': 'user', 'content': 'Hi'}], caching=False)\n"
    )
    code, output = run(users)
    assert code == 1
    assert "Nothing may be sent here" in output


def test_marked_test_is_recorded(users: Path) -> None:
    (users / "test_mine.py").write_text(
        "import pytest, rejoinder\n@pytest.mark.rejoinder(record='new')\ndef test_it():\n"
        "    rejoinder.completion('echo/m', [{'role': 'user', 'content': 'Hi'}])\n"
    )
    assert run(users)[0] == 0
    assert (users / "cassettes" / "test_mine" / "test_it.jsonl").exists()


def test_secrets_are_scrubbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "an-odd-looking-secret")
    cache = rejoinder.Cache(store=CassetteStore(tmp_path / "c.jsonl"), keep_requests=True)
    text = "my keys are an-odd-looking-secret and sk-abcdefghijklmnop1234"
    rejoinder.completion("echo/m", [{"role": "user", "content": text}], cache=cache, api_key="sk-qrstuvwxyz0123456789")
    written = (tmp_path / "c.jsonl").read_text()
    assert "my keys are *** and ***" in written
    assert "qrstuv" not in written


def test_ordinary_text_is_left_alone() -> None:
    assert scrubbed("a risk-averse task, sk-short") == "a risk-averse task, sk-short"


def test_line_that_is_no_recording_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"key": "k"}\n')
    with pytest.raises(rejoinder.ConfigurationError, match="line 1"):
        CassetteStore(tmp_path / "c.jsonl").get("k")
