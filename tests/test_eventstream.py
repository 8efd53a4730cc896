"""AWS's event streams are cut into the messages that AWS's own parser sees, wherever the bytes are cut."""

from __future__ import annotations

import random
import struct
from binascii import crc32
from typing import Any

import pytest

from rejoinder.providers.eventstream import MOST, BadFrame, Frame, FrameSplitter

eventstream = pytest.importorskip("botocore.eventstream", reason="botocore is the reference here")

TEXTS = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}


def packed(payload: bytes, headers: bytes = b"") -> bytes:
    prelude = struct.pack(">II", len(headers) + len(payload) + 16, len(headers))
    message = prelude + struct.pack(">I", crc32(prelude)) + headers + payload
    return message + struct.pack(">I", crc32(message))


def texts(values: dict[str, str]) -> bytes:
    return b"".join(header(name, 7, struct.pack(">H", len(text)) + text.encode()) for name, text in values.items())


def header(name: str, kind: int, value: bytes) -> bytes:
    return bytes([len(name)]) + name.encode() + bytes([kind]) + value


def read(data: bytes, size: int) -> list[Frame]:
    splitter = FrameSplitter()
    frames = [frame for start in range(0, len(data), size) for frame in splitter.feed(data[start : start + size])]
    assert splitter.is_between
    return frames


def by_botocore(data: bytes) -> list[Any]:
    buffer = eventstream.EventStreamBuffer()
    buffer.add_data(data)
    return list(buffer)


STREAM = b"".join(packed(b'{"n":%d}' % n + b" " * n, texts(TEXTS)) for n in range(40))
KINDS = [
    header("yes", 0, b""),
    header("no", 1, b""),
    header("byte", 2, struct.pack(">b", -3)),
    header("short", 3, struct.pack(">h", -300)),
    header("int", 4, struct.pack(">i", -70_000)),
    header("long", 5, struct.pack(">q", -(2**40))),
    header("bytes", 6, struct.pack(">H", 3) + b"\x00\xff\x01"),
    header("text", 7, struct.pack(">H", 5) + "aé€"[:2].encode() + b"zz"),
    header("time", 8, struct.pack(">q", 1_700_000_000_000)),
    header("uuid", 9, bytes(range(16))),
]


@pytest.mark.parametrize("size", [1, 3, 7, 64, 10**6])
def test_it_does_not_matter_where_bytes_are_cut(size: int) -> None:
    frames = read(STREAM, size)
    assert [frame.payload for frame in frames] == [event.payload for event in by_botocore(STREAM)]
    assert all(frame.headers == TEXTS for frame in frames)


def test_every_type_of_header_is_read_as_botocore_reads_it() -> None:
    data = packed(b"payload", b"".join(KINDS))
    (frame,), (event,) = read(data, 5), by_botocore(data)
    assert frame.headers == event.headers
    assert frame.payload == b"payload"


def test_a_message_may_be_empty() -> None:
    assert read(packed(b""), 1) == [Frame({}, b"")]


def test_half_a_message_is_waited_for() -> None:
    splitter = FrameSplitter()
    assert splitter.feed(STREAM[:50]) == []
    assert not splitter.is_between


@pytest.mark.parametrize("place", [0, 5, 9, 13, 40, -6, -1])
def test_a_changed_byte_is_seen(place: int) -> None:
    data = bytearray(packed(b"some payload", texts(TEXTS)))
    data[place] ^= 1
    with pytest.raises(BadFrame):
        FrameSplitter().feed(bytes(data))


@pytest.mark.parametrize("lengths", [(15, 0), (MOST + 1, 0), (20, 5)])
def test_lengths_that_cannot_be_are_seen_before_they_are_waited_for(lengths: tuple[int, int]) -> None:
    prelude = struct.pack(">II", *lengths)
    with pytest.raises(BadFrame):
        FrameSplitter().feed(prelude + struct.pack(">I", crc32(prelude)))


@pytest.mark.parametrize(
    "headers",
    [
        b"\x05ab",
        b"\x01a",
        b"\x01a\x0a",
        b"\x01a\x04\x00",
        b"\x01a\x07\x00\x09x",
        b"\x01a\x07\x00\x01\xff",
        b"\x01\xff\x00",
        b"\x01a\x09short",
    ],
)
def test_headers_that_cannot_be_read_are_refused(headers: bytes) -> None:
    with pytest.raises(BadFrame):
        FrameSplitter().feed(packed(b"", headers))


def test_noise_raises_nothing_else() -> None:
    chance = random.Random(3)
    refused = 0
    for _ in range(300):
        headers = chance.randbytes(chance.randint(0, 40))
        data = packed(chance.randbytes(5), headers) if chance.random() < 0.5 else chance.randbytes(60)
        try:
            FrameSplitter().feed(data)
        except BadFrame:
            refused += 1
    assert refused > 100
