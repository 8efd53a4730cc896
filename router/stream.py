"""What a caller iterates over: chunks, typed, out of a live stream or a replay."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..core.shape import Misshapen
from .live import Membership, Tape, aread, read

if TYPE_CHECKING:
    from ..core.answers import CacheInfo, Chunk


class _Stream:
    def __init__(self, info: CacheInfo) -> None:
        self.cache_info = info

    @property
    def cache(self) -> bool:
        """True if this answer was not paid for by this call."""
        return self.cache_info.hit

    def __repr__(self) -> str:
        return f"<{type(self).__name__} cache={self.cache}>"

    @property
    def _hidden_params(self) -> dict[str, Any]:
        from ..core.answers import hidden_params

        return hidden_params(self)


class Stream(_Stream):
    """An answer in pieces. Iterate once; leave early as you like: dropping it, or `close()`, closes the connection."""

    def __init__(self, member: Membership, info: CacheInfo, wants_usage: bool = False, endpoint: str = "chat") -> None:
        super().__init__(info)
        # Not a method: a generator that held this object could only be freed by the cycle collector, and a stream
        # that is dropped half-way must close its connection at once.
        self._chunks = _chunks(member, wants_usage, endpoint)

    def __iter__(self) -> Iterator[Chunk]:
        return self._chunks

    def __next__(self) -> Chunk:
        return next(self._chunks)

    def close(self) -> None:
        """Stop reading. If nobody else reads along, the connection is closed and nothing is stored."""
        self._chunks.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncStream(_Stream):
    """An answer in pieces, for a task. Iterate once; leave early as you like."""

    def __init__(self, member: Membership, info: CacheInfo, wants_usage: bool = False, endpoint: str = "chat") -> None:
        super().__init__(info)
        self._chunks = _achunks(member, wants_usage, endpoint)

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self._chunks

    async def __anext__(self) -> Chunk:
        return await anext(self._chunks)

    async def aclose(self) -> None:
        """Stop reading. If nobody else reads along, the connection is closed and nothing is stored."""
        await self._chunks.aclose()

    close = aclose

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _chunks(member: Membership, wants_usage: bool, endpoint: str) -> Generator[Chunk, None, None]:
    make = piece_reader(endpoint, wants_usage)
    timing = member.stream.timing
    ready = typed_already(member, endpoint, wants_usage)
    if ready is not None:
        yield from ready
        return
    started = time.monotonic()
    for index, data in enumerate(read(member)):
        if index < len(timing):
            time.sleep(max(0.0, started + timing[index] / 1000 - time.monotonic()))
        try:
            piece = make(data)
        except Misshapen as error:
            raise member.stream.translate(error) from None
        yield piece


async def _achunks(member: Membership, wants_usage: bool, endpoint: str) -> AsyncGenerator[Chunk, None]:
    make = piece_reader(endpoint, wants_usage)
    timing = member.stream.timing
    ready = typed_already(member, endpoint, wants_usage)
    if ready is not None:
        for piece in ready:
            yield piece
        return
    started, index = time.monotonic(), 0
    async with contextlib.aclosing(aread(member)) as pieces:
        async for data in pieces:
            if index < len(timing):
                await asyncio.sleep(max(0.0, started + timing[index] / 1000 - time.monotonic()))
            index += 1
            try:
                piece = make(data)
            except Misshapen as error:
                raise member.stream.translate(error) from None
            yield piece


def typed_already(member: Membership, endpoint: str, wants_usage: bool) -> Iterable[Any] | None:
    """The pieces of a replay that has them and waits for nothing; None: they are yet to be read."""
    stream = member.stream
    if not isinstance(stream, Tape) or stream.pieces is None or stream.timing:
        return None
    fill = FILLS.get(endpoint)
    if wants_usage or fill is None:
        return stream.pieces
    return [piece if piece.choices else fill(piece) for piece in stream.pieces]


def piece_maker(endpoint: str) -> Callable[[bytes], Any]:
    """What makes the typed pieces of a stream out of their JSON."""
    if endpoint == "chat":
        from ..core.answers import chunk

        return chunk
    from ..core import endpoint_answers

    return endpoint_answers.PIECES[endpoint]


def form_of(endpoint: str, said: Mapping[str, Any] | None) -> str:
    """The form in which an endpoint's stream is given: its own name, but for speech, which has two."""
    return "speech_events" if endpoint == "speech" and (said or {}).get("stream_format") == "sse" else endpoint


def piece_reader(endpoint: str, wants_usage: bool) -> Callable[[bytes], Any]:
    """The same, as the caller wants to see them."""
    make, fill = piece_maker(endpoint), FILLS.get(endpoint)
    if wants_usage or fill is None:
        return make

    def made(data: bytes) -> Any:
        piece = make(data)
        return piece if piece.choices else fill(piece)

    return made


def with_a_choice(piece: Chunk) -> Chunk:
    """A chunk that has only usage, which was not asked for, with an empty choice: most callers read `choices[0]`."""
    from ..core.answers import ChunkChoice, Delta

    if piece.usage is not None:
        piece.choices = [ChunkChoice(index=0, delta=Delta(), finish_reason=None)]
    return piece


def with_a_text(piece: Any) -> Any:
    """The same for a text completion."""
    from ..core.endpoint_answers import TextChoice

    if piece.usage is not None:
        piece.choices = [TextChoice(index=0, text="", finish_reason=None)]
    return piece


FILLS: dict[str, Callable[[Any], Any]] = {"chat": with_a_choice, "text_completion": with_a_text}
"""What gives a piece without choices one, by endpoint. Events of responses have none."""
