"""How an answer is kept: a fixed header, then JSON. Never pickle.

    offset  size  what
    0       4     b"RJE" and the schema number, 1
    4       1     flags: 1 = the sections are deflated
    5       3     nothing
    8       8     when it was stored, seconds since the epoch, float64
    16      8     TTL in seconds, float64; 0 = for ever
    24      4     length of the body: OpenAI-shaped JSON of the whole answer
    28      4     length of the chunks: their JSON, one a line; 0 if the answer did not come as a stream
    32      4     length of the timing: a JSON list of milliseconds, one a chunk; 0 if not recorded
    36      4     length of the notes: JSON about the request, for listing and explaining
    40      4     CRC-32 of the sections as stored
    44            the sections

All numbers are little-endian. Whatever does not read back exactly is no entry.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import orjson

HEADER = struct.Struct("<4sB3xddIIIII")
MAGIC = b"RJE1"
DEFLATED = 1
DEFLATE_OVER = 64 * 1024
"""Sections larger than this are deflated."""
MOST = 128 * 2**20
"""Sections that claim to be larger are not read."""
LONGEST = 24 * 3600 * 1000.0
"""Milliseconds that a stream may have taken."""
ERROR = b'{"kept_error":'
"""What the body of an entry begins with that keeps an error; no answer does."""


new = tuple.__new__  # makes a named tuple in half the time of its class, where a hit is counted in tenths of a µs


class BadEntry(ValueError):
    """Bytes that are no entry: truncated, from another version, or not ours."""


class Entry(NamedTuple):
    """One stored answer."""

    stored_at: float
    ttl: float | None
    body: bytes
    chunks: tuple[bytes, ...] = ()
    timing: tuple[float, ...] = ()
    """Milliseconds from the start of the stream to each chunk."""
    notes: bytes = b""

    def described(self) -> dict[str, Any]:
        """The notes, read. Raises `BadEntry` for what nobody of ours noted."""
        if not self.notes:
            return {}
        try:
            notes = orjson.loads(self.notes)
        except ValueError as error:
            raise BadEntry(f"the notes do not read: {error}") from None
        if not isinstance(notes, dict):
            raise BadEntry("the notes are no JSON object")
        for name in ("parts", "request"):
            if not isinstance(notes.get(name) or {}, dict):
                raise BadEntry(f"the notes have {name} that are no JSON object")
        return notes

    @property
    def is_error(self) -> bool:
        """Whether it keeps a vendor's error, and no answer."""
        return self.body.startswith(ERROR)

    @property
    def tags(self) -> tuple[str, ...]:
        """Those that its notes name."""
        if b'"tags"' not in self.notes:
            return ()
        try:
            tags = self.described()["tags"]
        except (ValueError, LookupError, TypeError):
            return ()  # notes of somebody who writes them otherwise
        return tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else ()

    def tagged(self, tags: Sequence[str]) -> Entry:
        """The same, with `tags` besides its own."""
        missing = [tag for tag in tags if tag not in self.tags]
        if not missing:
            return self
        try:
            notes = self.described()
        except BadEntry:  # of somebody who writes them otherwise
            notes = {}
        return self._replace(notes=orjson.dumps({**notes, "tags": sorted({*self.tags, *missing})}))


FORMATS: dict[bytes, Callable[[bytes], Entry]] = {}
"""What reads the formats before this one, by how they begin. An entry of theirs is written anew when it is read."""


def pack(entry: Entry, *, deflate: bool = True) -> bytes:
    """`entry` as bytes."""
    chunks = b"\n".join(entry.chunks)
    timing = orjson.dumps([round(moment, 1) for moment in entry.timing]) if entry.timing else b""
    sections = entry.body + chunks + timing + entry.notes
    flags = 0
    if deflate and len(sections) > DEFLATE_OVER:
        sections, flags = zlib.compress(sections, 1), DEFLATED
    lengths = (len(entry.body), len(chunks), len(timing), len(entry.notes))
    return HEADER.pack(MAGIC, flags, entry.stored_at, entry.ttl or 0.0, *lengths, zlib.crc32(sections)) + sections


def unpack(data: bytes, *, verify: bool = True) -> Entry:
    """The entry that `data` holds. Raises `BadEntry`. `verify=False` skips the checksum: the store has its own."""
    try:
        magic, flags, stored_at, ttl, body, chunks, timing, notes, crc = HEADER.unpack_from(data)
    except struct.error:
        raise BadEntry(f"{len(data)} bytes are too few for an entry") from None
    except TypeError:
        raise BadEntry(f"{type(data).__name__} is not bytes") from None
    if magic != MAGIC:
        if magic in FORMATS:
            return FORMATS[magic](data)
        raise BadEntry(f"starts with {magic!r}, not {MAGIC!r}")
    total = body + chunks + timing + notes
    if verify and zlib.crc32(memoryview(data)[HEADER.size :]) != crc:
        raise BadEntry("the checksum does not fit")
    start = HEADER.size
    if flags & DEFLATED:
        data, start = _inflate(data, total), 0
    if len(data) - start != total:
        raise BadEntry(f"{len(data) - start} bytes of sections, {total} announced")
    if not chunks and not timing:
        middle = start + body
        return new(Entry, (stored_at, ttl or None, data[start:middle], (), (), data[middle:]))
    return _with_chunks(data, start, stored_at, ttl, body, chunks, timing)


def _inflate(data: bytes, total: int) -> bytes:
    if total > MOST:
        raise BadEntry(f"{total} bytes announced, more than {MOST}")
    try:
        engine = zlib.decompressobj()
        return engine.decompress(memoryview(data)[HEADER.size :], total + 1)
    except zlib.error as error:
        raise BadEntry(f"does not inflate: {error}") from None


def _with_chunks(data: bytes, start: int, stored_at: float, ttl: float, body: int, chunks: int, timing: int) -> Entry:
    first = start + body
    second = first + chunks
    third = second + timing
    try:
        moments: Sequence[Any] = orjson.loads(data[second:third]) if timing else ()
        clean = tuple(float(moment) for moment in moments)
        if not all(0 <= moment <= LONGEST for moment in clean):
            raise ValueError("a moment is before the stream or a day after it")
    except (ValueError, TypeError) as error:
        raise BadEntry(f"the timing does not read: {error}") from None
    pieces = tuple(data[first:second].split(b"\n")) if chunks else ()
    return Entry(stored_at, ttl or None, data[start:first], pieces, clean, data[third:])
