"""Each public function and its async twin take the same parameters and say the same."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import rejoinder
from rejoinder import Cache
from rejoinder.caching.stores.base import Store
from rejoinder.caching.stores.disk import DiskStore
from rejoinder.caching.stores.memory import MemoryStore
from rejoinder.providers.echo import EchoWire
from rejoinder.providers.http import HttpReply, HttpWire
from rejoinder.router.live import LiveStream, Membership, Tape

HOMES: list[Any] = [rejoinder, Cache, Store, DiskStore, MemoryStore, HttpWire, HttpReply, EchoWire]
HOMES += [LiveStream, Membership, Tape]


def twins() -> list[tuple[str, Any, Any]]:
    """Every `x` beside an `ax` or `await_`, in every home."""
    found = []
    for home in HOMES:
        for name in dir(home):
            twin = getattr(home, f"a{name}", None)
            if not name.startswith("_") and callable(twin) and callable(getattr(home, name)):
                found.append((f"{home.__name__}.{name}", getattr(home, name), twin))
    return found


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [(each.name, each.kind, each.default) for each in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize(("name", "sync", "twin"), twins(), ids=[name for name, _, _ in twins()])
def test_twins_take_the_same_parameters(name: str, sync: Any, twin: Any) -> None:
    assert parameters(sync) == parameters(twin), name
    asks = inspect.iscoroutinefunction(twin) or inspect.isasyncgenfunction(twin) or hasattr(twin, "__wrapped__")
    assert asks, f"the twin of {name} is to be awaited"
    assert not inspect.iscoroutinefunction(sync)


def test_all_the_twins_there_must_be_are_found() -> None:
    names = {name for name, _, _ in twins()}
    assert {"rejoinder.completion", "Cache.get", "Cache.set", "Cache.clear", "Cache.close"} <= names
    assert {
        f"Store.{name}" for name in ("get", "set", "delete", "clear", "close", "lease", "renew", "release")
    } <= names


def test_streams_are_twins() -> None:
    for name in ("cache", "cache_info", "close"):
        stream = rejoinder.Stream(Membership(Tape([b"{}"])), None)  # type: ignore[arg-type]
        astream = rejoinder.AsyncStream(Membership(Tape([b"{}"])), None)  # type: ignore[arg-type]
        assert hasattr(type(stream), name) or hasattr(stream, name)
        assert hasattr(type(astream), name) or hasattr(astream, name)
