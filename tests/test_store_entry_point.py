"""A store that another package offers is one of the types of `Cache(type=…)`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import rejoinder
from rejoinder import Cache, Echo
from rejoinder.core.errors import ConfigurationError, WrongType
from tests.fixtures.calls import text_of, whole

Install = Callable[..., None]

SHELF = """
from rejoinder.caching.stores.memory import MemoryStore

class Shelf(MemoryStore):
    name = "shelf"
    def __init__(self, height=1):
        super().__init__()
        self.height = height

def no_store():
    return 7
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution with these entry points on the path, as pip would."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "shelf_store", raising=False)
    (tmp_path / "shelf_store.py").write_text(SHELF)

    def install(package: str = "shelf", **points: str) -> None:
        folder = tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {place}" for name, place in points.items()]
        (folder / "entry_points.txt").write_text("\n".join(["[rejoinder.stores]", *lines, ""]))

    return install


def test_a_call_is_answered_from_it(install: Install) -> None:
    install(shelf="shelf_store:Shelf")
    cache = Cache(type="shelf", height=3)
    assert (cache.type, cache.store.height) == ("shelf", 3)  # type: ignore[attr-defined]
    echo = Echo(["first", "second"])
    assert [text_of(whole(client=echo, cache=cache)) for _ in range(2)] == ["first", "first"]


def test_its_budget_is_the_caches(install: Install) -> None:
    install(shelf="shelf_store:Shelf")
    assert Cache(type="shelf", budget=1.0).store.budget == pytest.approx(0.9)


def test_an_option_that_it_does_not_know_is_named(install: Install) -> None:
    install(shelf="shelf_store:Shelf")
    with pytest.raises(ConfigurationError, match=r"Cache\(type='shelf'\).*width"):
        Cache(type="shelf", width=3)


def test_what_does_not_load_says_so(install: Install) -> None:
    install(shelf="shelf_store:Gone")
    with pytest.raises(ConfigurationError, match="shelf_store:Gone could not be loaded: AttributeError"):
        Cache(type="shelf")


def test_what_makes_no_store_says_so(install: Install) -> None:
    install(shelf="shelf_store:no_store")
    with pytest.raises(WrongType, match=r"must make a rejoinder.Store, not 7"):
        Cache(type="shelf")


def test_two_that_differ_are_refused(install: Install) -> None:
    install("one", shelf="shelf_store:Shelf")
    install("two", shelf="shelf_store:no_store")
    with pytest.raises(ConfigurationError, match="several packages offer it"):
        Cache(type="shelf")


def test_ours_are_not_replaced(install: Install) -> None:
    install(local="shelf_store:Shelf")
    assert rejoinder.Cache(type="local").type == "local"
