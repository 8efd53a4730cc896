"""AWS's event streams: framed messages out of bytes that may be cut anywhere.

https://smithy.io/2.0/aws/amazon-eventstream.html (read 2026-11). A message is

    total length (4 bytes) · length of the headers (4) · CRC-32 of these (4) · headers · payload · CRC-32 of all (4)

and a header is: length of the name (1) · name · type (1) · value. All numbers are big-endian.
"""

from __future__ import annotations

import struct
from binascii import crc32
from collections.abc import Mapping
from typing import Any, NamedTuple

PRELUDE = 12
"""Bytes before the headers."""

LEAST, MOST = PRELUDE + 4, 24 * 1024 * 1024
"""How long a message may be. The most is what AWS's own SDKs accept."""

FIXED = {2: ">b", 3: ">h", 4: ">i", 5: ">q", 8: ">q", 9: "16s"}
"""Types of headers whose value has a length of its own, and how it is packed."""

BYTES, TEXT = 6, 7
"""Types of headers whose value begins with its length (2 bytes)."""


class BadFrame(ValueError):
    """The bytes are no event stream, or damaged."""


class Frame(NamedTuple):
    """One message."""

    headers: Mapping[str, Any]
    payload: bytes


class FrameSplitter:
    """Collects bytes and gives the messages that are complete."""

    def __init__(self) -> None:
        self._rest = bytearray()

    @property
    def is_between(self) -> bool:
        """Whether the bytes so far end where a message does."""
        return not self._rest

    def feed(self, data: bytes) -> list[Frame]:
        """The messages that `data` completes. Raises `BadFrame`."""
        rest = self._rest
        rest += data
        frames, start = [], 0
        while len(rest) - start >= PRELUDE:
            total, check = _prelude(rest, start)
            if len(rest) - start < total:
                break
            frames.append(_frame(bytes(rest[start : start + total]), check))
            start += total
        del rest[:start]
        return frames


def _prelude(data: bytearray, start: int) -> tuple[int, int]:
    """How long the message is that begins at `start`, and the checksum of what tells so."""
    total, headers, told = struct.unpack_from(">III", data, start)
    check = crc32(data[start : start + 8])
    if check != told:
        raise BadFrame("the checksum of a prelude is wrong")
    if not LEAST <= total <= MOST or headers > total - LEAST:
        raise BadFrame(f"a message of {total} bytes with {headers} of headers cannot be")
    return total, check


def _frame(message: bytes, check: int) -> Frame:
    """A whole message. `check` is the checksum of its first eight bytes."""
    (told,) = struct.unpack_from(">I", message, len(message) - 4)
    if crc32(message[8:-4], check) != told:
        raise BadFrame("the checksum of a message is wrong")
    (length,) = struct.unpack_from(">I", message, 4)
    end = PRELUDE + length
    return Frame(_headers(message[PRELUDE:end]), message[end:-4])


def _headers(data: bytes) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    place = 0
    try:
        while place < len(data):
            end = place + 1 + data[place]
            name, kind = data[place + 1 : end].decode(), data[end]
            headers[name], place = _value(data, end + 1, kind)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise BadFrame(f"the headers of a message cannot be read ({error})") from None
    return headers


def _value(data: bytes, place: int, kind: int) -> tuple[Any, int]:
    """A header's value, and where the next header begins."""
    if kind in (0, 1):
        return kind == 0, place
    if kind in FIXED:
        form = FIXED[kind]
        return struct.unpack_from(form, data, place)[0], place + struct.calcsize(form)
    if kind not in (BYTES, TEXT):
        raise BadFrame(f"a header has the type {kind}, which there is not")
    (length,) = struct.unpack_from(">H", data, place)
    value, end = data[place + 2 : place + 2 + length], place + 2 + length
    if end > len(data):
        raise BadFrame("a header is longer than the headers")
    return (value.decode() if kind == TEXT else value), end
