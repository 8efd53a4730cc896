"""Server-sent events out of bytes that may be cut anywhere.

The format: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

from typing import NamedTuple

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Event(NamedTuple):
    name: str
    """"message" unless the stream names it."""
    data: bytes


class EventSplitter:
    """Collects bytes and gives the events that are complete."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._begun = False

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes."""
        if b"\n" not in data and b"\r" not in data:  # tiny writes of a long event must not cost its square
            self._rest += data
            return []
        buffer = bytes(self._rest) + data if self._rest else data
        if not self._begun:
            self._begun, buffer = True, buffer.removeprefix(BYTE_ORDER_MARK)
        held = b""
        if b"\r" in buffer:
            held = b"\r" if buffer.endswith(b"\r") else b""  # perhaps half of a \r\n
            buffer = buffer[: len(buffer) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *blocks, rest = buffer.split(b"\n\n")
        self._rest = bytearray(rest + held)
        return [event for block in blocks if (event := _event(block)) is not None]

    def end(self) -> list[Event]:
        """What an unfinished last event holds. The format says to drop it; vendors forget the last blank line."""
        block, self._rest = bytes(self._rest), bytearray()
        block = block if self._begun else block.removeprefix(BYTE_ORDER_MARK)
        event = _event(block.replace(b"\r\n", b"\n").replace(b"\r", b"\n").rstrip(b"\n"))
        return [] if event is None else [event]


def _event(block: bytes) -> Event | None:
    if block.startswith(b"data: ") and b"\n" not in block:  # nearly every event of every vendor
        return Event("message", block[6:])
    name, data = "message", []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if field == b"data":
            data.append(value)
        elif field == b"error":  # llama.cpp's server before 2025 wrote its errors as a field of their own
            name = "error"
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
    return Event(name, b"\n".join(data)) if data else None
