"""Forms with files, as the openai package sends them."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

KINDS = (
    (b"ID3", "mp3"),
    (b"\xff\xfb", "mp3"),
    (b"\xff\xf3", "mp3"),
    (b"OggS", "ogg"),
    (b"fLaC", "flac"),
    (b"\x1a\x45\xdf\xa3", "webm"),
    (b"RIFF", "wav"),
)
"""How sound files begin, and the ending that vendors want to see in their names."""


class Upload(dict[str, str]):
    """A file to be sent. As a value, and so in the cache key, it is the digest of its bytes: neither name nor type."""

    def __init__(self, data: bytes, name: str, content_type: str | None = None) -> None:
        super().__init__(sha256=hashlib.sha256(data).hexdigest())
        self.data, self.name, self.content_type = data, name, content_type

    @property
    def format(self) -> str:
        """What kind of sound it is, by the ending of its name; where it has none, by how it begins."""
        return Path(self.name).suffix[1:].lower() or _ending(self.data)

    @property
    def as_httpx(self) -> Any:
        """The tuple that httpx and the SDKs take for a file."""
        return (self.name, self.data) if self.content_type is None else (self.name, self.data, self.content_type)


def upload(file: Any) -> Upload:
    """The whole content of `file`: a path, bytes, a file object, or a tuple of a name, one of these and a type.

    A file object is left where it stood. Raises `ValueError` for what is no such thing, `OSError` if it cannot be read.
    """
    name: str | None = None
    content_type: str | None = None
    if isinstance(file, Upload):
        return file
    if isinstance(file, tuple):
        if not 2 <= len(file) <= 4:
            raise ValueError("a tuple must be (name, content) or (name, content, content_type)")
        name, file, content_type = file[0], file[1], file[2] if len(file) > 2 else None
    data = _content(file)
    if not data:
        raise ValueError("it is empty")
    return Upload(data, name or _name_of(file) or f"audio.{_ending(data)}", content_type)


def _content(file: Any) -> bytes:
    if isinstance(file, (bytes, bytearray, memoryview)):
        return bytes(file)
    if isinstance(file, (str, os.PathLike)):
        return Path(file).read_bytes()
    if not hasattr(file, "read"):
        raise ValueError(f"{type(file).__name__} is no file: give a path, bytes, a file object or (name, bytes)")
    if isinstance(file, io.TextIOBase):
        raise ValueError("it is open as text; open it with mode 'rb'")
    if not (hasattr(file, "seekable") and file.seekable()):
        return bytes(file.read())
    place = file.tell()
    try:
        file.seek(0)
        return bytes(file.read())
    finally:
        file.seek(place)


def _name_of(file: Any) -> str | None:
    name = file if isinstance(file, (str, os.PathLike)) else getattr(file, "name", None)
    return Path(name).name if isinstance(name, (str, os.PathLike)) else None


def _ending(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return "m4a"
    return next((ending for start, ending in KINDS if data.startswith(start)), "mp3")


def form(fields: Mapping[str, Any]) -> tuple[bytes, str]:
    """`fields` as a multipart body, and its content type."""
    import httpx2

    plain: dict[str, list[str]] = {}
    files = {}
    for name, value in fields.items():
        if isinstance(value, Upload):
            files[name] = value.as_httpx
            continue
        for path, text in _flat(name, value):
            plain.setdefault(path, []).append(text)
    request = httpx2.Request("POST", "http://form", data=plain, files=files)
    return request.read(), request.headers["content-type"]


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Lists and dicts in the form of brackets: `include[]`, `chunking_strategy[type]`."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{name}[{key}]", item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _flat(f"{name}[]", item)
    elif isinstance(value, bool):
        yield name, "true" if value else "false"
    elif value is not None:
        yield name, str(value)
