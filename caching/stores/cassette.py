"""One readable file of recorded answers, one JSON object a line: for tests, and for reading in a review."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import orjson

from ...core.errors import ConfigurationError
from ..entry import Entry, pack, unpack
from .base import Record, Store

SECRETS = re.compile(
    r"\b(sk-[A-Za-z0-9_-]{12,}|gsk_[A-Za-z0-9]{12,}|xai-[A-Za-z0-9]{12,}|AIza[A-Za-z0-9_-]{20,}|AKIA[A-Z0-9]{12,}"
    r"|gh[pousr]_[A-Za-z0-9]{20,}|hf_[A-Za-z0-9]{20,}|Bearer [A-Za-z0-9._-]{16,})"
)
"""What the keys of well-known vendors look like."""


def scrubbed(text: str) -> str:
    """`text` without what looks like a vendor's key, and without the values of the environment's `*_API_KEY`s."""
    for name, value in os.environ.items():
        if len(value) >= 8 and name.endswith(("_API_KEY", "_TOKEN", "_SECRET", "_SECRET_ACCESS_KEY")):
            text = text.replace(value, "***")
    return SECRETS.sub("***", text)


class CassetteStore(Store):
    """A JSON Lines file, read once and rewritten, sorted by when they were recorded, at each change.

    `scrub` is applied to each line before it is written. Expiry is not kept: what is recorded stays.
    """

    name: ClassVar[str] = "cassette"
    instant: ClassVar[bool] = True
    checked: ClassVar[bool] = True

    def __init__(self, path: str | Path, *, scrub: Callable[[str], str] = scrubbed) -> None:
        self.path, self.scrub = Path(path), scrub
        self._lines: dict[str, dict[str, Any]] | None = None
        self._lock = threading.RLock()
        self.played: set[str] = set()
        """The keys that were asked for."""

    def _all(self) -> dict[str, dict[str, Any]]:
        if self._lines is None:
            self._lines = {}
            text = self.path.read_bytes() if self.path.exists() else b""
            for number, line in enumerate(text.splitlines(), 1):
                if line.strip():
                    item = self._parsed(line, number)
                    self._lines[item["key"]] = item
        return self._lines

    def _parsed(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            item = orjson.loads(line)
            entry_of(item)
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise ConfigurationError(f"{self.path}, line {number}, is no recording: {error!r}.") from None
        return item  # type: ignore[no-any-return]

    def get(self, key: str) -> bytes | None:
        with self._lock:
            item = self._all().get(key)
            if item is None:
                return None
            self.played.add(key)
            return pack(entry_of(item), deflate=False)

    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        item = item_of(key, unpack(value))
        with self._lock:
            self._all()[key] = orjson.loads(self.scrub(orjson.dumps(item).decode()))
            self.played.add(key)
            self._write()

    def delete(self, key: str) -> bool:
        with self._lock:
            there = self._all().pop(key, None) is not None
            if there:
                self._write()
            return there

    def scan(self, prefix: str = "") -> Iterator[Record]:
        with self._lock:
            items = list(self._all().items())
        for key, item in items:
            if key.startswith(prefix):
                yield Record(key, len(orjson.dumps(item)), item["recorded"], None)

    def _write(self) -> None:
        """All lines, at once: a reader sees the old file or the new one."""
        items = sorted(self._all().values(), key=lambda item: item["recorded"])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name, suffix=".new")
        try:
            with os.fdopen(handle, "wb") as file:
                file.writelines(orjson.dumps(item) + b"\n" for item in items)
            os.replace(name, self.path)
        except BaseException:
            os.unlink(name)
            raise


def item_of(key: str, entry: Entry) -> dict[str, Any]:
    """An entry as a line for people: what was asked first, then what was answered."""
    notes = entry.described()
    return {
        "key": key,
        "model": notes.get("model"),
        "request": notes.get("request"),
        "answer": orjson.loads(entry.body) if entry.body else None,
        "chunks": [orjson.loads(chunk) for chunk in entry.chunks],
        "timing": list(entry.timing),
        "recorded": entry.stored_at,
        "parts": notes.get("parts"),
    }


def entry_of(item: dict[str, Any]) -> Entry:
    """The entry of a line."""
    notes = {name: item[name] for name in ("model", "parts", "request") if item.get(name) is not None}
    return Entry(
        float(item["recorded"]),
        None,
        orjson.dumps(item["answer"]),
        tuple(orjson.dumps(chunk) for chunk in item["chunks"]),
        tuple(item["timing"]),
        orjson.dumps(notes),
    )
