"""A pytest plugin: calls to models are recorded once and replayed ever after, one readable file a test.

    def test_greeting(rejoinder_cassette):
        assert "Hello" in rejoinder.completion("openai/gpt-4o", [...]).choices[0].message.content

Or mark tests, or a whole module, with `@pytest.mark.rejoinder` (`record="new"` sets the mode). What is done with calls
that are not recorded is `--rejoinder-record`:

    none   nothing goes out; a call that is not recorded fails the test, and says what differs (the default)
    once   a test without a file records one; a test with a file is as in `none`
    new    calls that are not recorded are made and added
    all    every call is made, and its recording replaced

Streams are recorded with their chunks. Keys of vendors are scrubbed from what is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

MODES = ("none", "once", "new", "all")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("rejoinder")
    group.addoption(
        "--rejoinder-record",
        choices=MODES,
        default=None,
        help="what is done with calls to models that are not recorded (default: none)",
    )
    parser.addini("rejoinder_record", "the default of --rejoinder-record", default="none")
    parser.addini("rejoinder_cassettes", "the folder of recordings, beside each test file", default="cassettes")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "rejoinder(record=None): record and replay this test's calls to models")


@pytest.fixture
def rejoinder_cassette(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The test's recording, a `rejoinder.Cache`: every call inside the test uses it."""
    from ..caching.cache import Cache
    from ..caching.stores.cassette import CassetteStore
    from ..core import settings

    mode = record_mode(request)
    store = CassetteStore(path_of(request))
    if mode == "once":
        mode = "none" if store.path.exists() else "new"
    cache = Cache(
        store=store,
        mode={"none": "replay_only", "new": "on", "all": "refresh"}[mode],
        keep_requests=True,
        single_flight=False,
        namespace="cassette",
    )
    before, settings.offline = settings.offline, mode == "none"
    try:
        with cache:
            yield cache
    finally:
        settings.offline = before


@pytest.fixture(autouse=True)
def _rejoinder_marked(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("rejoinder") is not None:
        request.getfixturevalue("rejoinder_cassette")


def record_mode(request: pytest.FixtureRequest) -> str:
    """The mode of a test: the command line's, else its mark's, else the ini file's."""
    marker = request.node.get_closest_marker("rejoinder")
    said = request.config.getoption("--rejoinder-record") or (marker.kwargs.get("record") if marker else None)
    mode = said or request.config.getini("rejoinder_record")
    if mode not in MODES:
        raise pytest.UsageError(f"rejoinder: record={mode!r} is no mode; there are {', '.join(MODES)}.")
    return str(mode)


def path_of(request: pytest.FixtureRequest) -> Path:
    """Where a test's recording is: `cassettes/<file>/<test>.jsonl` beside the test file."""
    folder = request.path.parent / request.config.getini("rejoinder_cassettes") / request.path.stem
    name = re.sub(r"[^\w.=-]+", "_", request.node.nodeid.partition("::")[2]).strip("_")
    return Path(folder / f"{name[:150]}.jsonl")
