"""Lines out of bytes that may be cut anywhere: of vendors that send one JSON object a line."""

from __future__ import annotations


class LineSplitter:
    """Collects bytes and gives the lines that are complete, without their breaks."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes."""
        if b"\n" not in data:  # tiny writes of a long line must not cost its square
            self._rest += data
            return []
        *lines, rest = (bytes(self._rest) + data).split(b"\n")
        self._rest = bytearray(rest)
        return lines

    def end(self) -> bytes:
        """The last line, which may lack its break; or what was there of it when the connection broke."""
        rest, self._rest = bytes(self._rest), bytearray()
        return rest
