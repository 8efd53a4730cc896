"""The floors: the cheapest honest code that does what a row is about."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from .measure import Messages

BODY = {"model": "gpt-4o-mini"}


def key(messages: Messages) -> str:
    """Sorted JSON, hashed once: what a key costs at the least if the order of a dict is not to count."""
    import orjson

    return hashlib.sha256(orjson.dumps(["gpt-4o-mini", messages], option=orjson.OPT_SORT_KEYS)).hexdigest()


class Point(Protocol):
    """The cheapest way to keep bytes in some medium."""

    def get(self, name: str) -> bytes | None: ...

    def set(self, name: str, value: bytes) -> None: ...


class MemoryPoint:
    def __init__(self) -> None:
        items: dict[str, bytes] = {}
        self.get, self.set = items.get, items.__setitem__


class DiskPoint:
    """One SQLite table, one point read through the connection's statement cache."""

    def __init__(self, folder: Path) -> None:
        self.connection = sqlite3.connect(folder / "floor.sqlite3", isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = NORMAL")
        self.connection.execute("CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB NOT NULL)")

    def get(self, name: str) -> bytes | None:
        row = self.connection.execute("SELECT value FROM entries WHERE key = ?", (name,)).fetchone()
        return row[0] if row else None

    def set(self, name: str, value: bytes) -> None:
        self.connection.execute("INSERT INTO entries VALUES (?, ?)", (name, value))


def hit(point: Point) -> Callable[[Messages], object]:
    """A hit: the key, the bytes, the openai package's own answer type."""
    from openai.types.chat import ChatCompletion

    get, validate = point.get, ChatCompletion.model_validate_json

    def answer(messages: Messages) -> object:
        data = get(key(messages))
        assert data is not None
        return validate(data)

    return answer


def whole_answer(url: str, messages: Messages) -> bytes:
    """The upstream's answer, as its bytes."""
    return _post(url, {**BODY, "messages": messages})


def stream_payloads(url: str, messages: Messages) -> list[bytes]:
    """The chunks of a streamed answer, each as its JSON."""
    lines = _post(url, {**BODY, "messages": messages, "stream": True}).split(b"\n\n")
    payloads = [line.removeprefix(b"data: ") for line in lines]
    return [payload for payload in payloads if payload.startswith(b"{")]


def _post(url: str, body: dict[str, Any]) -> bytes:
    request = urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode())
    with urllib.request.urlopen(request) as response:
        data: bytes = response.read()
        return data
