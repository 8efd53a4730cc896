"""What a caller iterates over: chunks, typed, out of a live stream or a replay."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .live import LiveStream, Tape, aread, read

if TYPE_CHECKING:
    from ..core.answers import CacheInfo, Chunk


class _Stream:
    def __init__(self, source: Tape | LiveStream, info: CacheInfo, wants_usage: bool) -> None:
        self.source, self.cache_info, self.wants_usage = source, info, wants_usage

    @property
    def cache(self) -> bool:
        """True if this answer was not paid for by this call."""
        return self.cache_info.hit


class Stream(_Stream):
    """An answer in pieces. Iterate once; leave early as you like: the connection is closed with the loop or `close()`."""

    def __init__(self, source: Tape | LiveStream, info: CacheInfo, wants_usage: bool = False) -> None:
        super().__init__(source, info, wants_usage)
        self._chunks = self._read()

    def _read(self) -> Iterator[Chunk]:
        from ..core.answers import chunk

        wants_usage, source = self.wants_usage, self.source
        started = time.monotonic() if source.timing else 0.0
        for index, data in enumerate(read(source)):
            if source.timing and index < len(source.timing):
                time.sleep(max(0.0, started + source.timing[index] / 1000 - time.monotonic()))
            piece = chunk(data)
            if not piece.choices and piece.usage is not None and not wants_usage:
                piece = with_a_choice(piece)
            yield piece

    def __iter__(self) -> Iterator[Chunk]:
        return self._chunks

    def __next__(self) -> Chunk:
        return next(self._chunks)

    def close(self) -> None:
        """Stop reading. If nobody else reads along, the connection is closed and nothing is stored."""
        self._chunks.close()  # type: ignore[attr-defined]

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class AsyncStream(_Stream):
    """An answer in pieces, for a task. Iterate once; leave early as you like."""

    def __init__(self, source: Tape | LiveStream, info: CacheInfo, wants_usage: bool = False) -> None:
        super().__init__(source, info, wants_usage)
        self._chunks = self._read()

    async def _read(self) -> AsyncIterator[Chunk]:
        from ..core.answers import chunk

        wants_usage, source = self.wants_usage, self.source
        started, index = time.monotonic() if source.timing else 0.0, 0
        pieces: Any = aread(source)
        try:
            async for data in pieces:
                if source.timing and index < len(source.timing):
                    await asyncio.sleep(max(0.0, started + source.timing[index] / 1000 - time.monotonic()))
                index += 1
                piece = chunk(data)
                if not piece.choices and piece.usage is not None and not wants_usage:
                    piece = with_a_choice(piece)
                yield piece
        finally:
            await pieces.aclose()

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self._chunks

    async def __anext__(self) -> Chunk:
        return await anext(self._chunks)

    async def aclose(self) -> None:
        """Stop reading. If nobody else reads along, the connection is closed and nothing is stored."""
        await self._chunks.aclose()  # type: ignore[attr-defined]

    close = aclose

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def with_a_choice(piece: Chunk) -> Chunk:
    """A chunk that has only usage, and was not asked for, with an empty choice: most callers read `choices[0]` of each."""
    from ..core.answers import ChunkChoice, Delta

    piece.choices = [ChunkChoice(index=0, delta=Delta(), finish_reason=None)]
    return piece
