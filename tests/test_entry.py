"""How an answer is kept, and that nothing found in its place can hurt a caller."""

from __future__ import annotations

import asyncio
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rejoinder
from rejoinder import Cache, Echo
from rejoinder.caching import entry as entries
from rejoinder.caching.entry import HEADER, MAGIC, BadEntry, Entry, pack, unpack
from tests.fixtures.calls import MESSAGES, astreamed, awhole, both, both_streams, streamed, text_of, whole

TEXT = "The right answer."
FEW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
MANY = settings(max_examples=300, deadline=None)

times = st.floats(min_value=0, max_value=4e9)
lines = st.binary(min_size=1, max_size=40).map(lambda data: data.replace(b"\n", b" "))
stored = st.builds(
    Entry,
    stored_at=times,
    ttl=st.none() | st.floats(min_value=0.1, max_value=1e9),
    body=st.binary(max_size=300),
    chunks=st.lists(lines, max_size=5).map(tuple),
    timing=st.just(()),
    notes=st.binary(max_size=50),
)


@MANY
@given(stored, st.booleans())
def test_what_is_packed_is_unpacked(entry: Entry, deflate: bool) -> None:
    assert unpack(pack(entry, deflate=deflate)) == entry


def test_timing_is_kept_to_a_tenth_of_a_millisecond() -> None:
    entry = Entry(1.0, None, b"{}", (b"1", b"2"), (0.12, 55.55))
    assert unpack(pack(entry)).timing == (0.1, 55.5)


def test_a_large_answer_is_deflated() -> None:
    entry = Entry(1.0, 60.0, b"x" * 200_000, (b"chunk" * 9000,), (), b"notes")
    data = pack(entry)
    assert len(data) < 5000
    assert unpack(data) == entry


def test_the_format_is_the_documented_one() -> None:
    data = pack(Entry(2.5, 7.0, b"body", (b"a", b"b"), (1.0, 2.0), b"{}"))
    magic, flags, at, ttl, *lengths, crc = struct.unpack_from("<4sB3xddIIIII", data)
    assert (magic, flags, at, ttl, lengths) == (b"RJE1", 0, 2.5, 7.0, [4, 3, 9, 2])
    assert crc == zlib.crc32(data[44:])
    assert data[44:] == b"body" + b"a\nb" + b"[1.0,2.0]" + b"{}"


@MANY
@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: MAGIC + tail))
def test_bytes_that_are_no_entry_are_refused(data: bytes) -> None:
    with pytest.raises(BadEntry):
        unpack(data)


@MANY
@given(stored, st.data())
def test_a_damaged_entry_is_refused_or_differs_in_its_times_at_most(entry: Entry, data: st.DataObject) -> None:
    whole_data = bytearray(pack(entry))
    place = data.draw(st.integers(0, len(whole_data) * 8 - 1))
    whole_data[place // 8] ^= 1 << place % 8
    try:
        found = unpack(bytes(whole_data))
    except BadEntry:
        return
    # The checksum covers the sections, and the lengths must add up: shifting a border keeps the sum only by two flips.
    assert found._replace(stored_at=0, ttl=None) == entry._replace(stored_at=0, ttl=None)


@MANY
@given(stored, st.data())
def test_a_cut_or_lengthened_entry_is_refused(entry: Entry, data: st.DataObject) -> None:
    packed = pack(entry)
    cut = data.draw(st.integers(0, len(packed) - 1))
    for wrong in (packed[:cut], packed + b"more"):
        with pytest.raises(BadEntry):
            unpack(wrong)


def forged(
    body: bytes = b"{}",
    chunks: bytes = b"",
    timing: bytes = b"",
    notes: bytes = b"",
    *,
    flags: int = 0,
    at: float | None = None,
    ttl: float = 0.0,
    lengths: tuple[int, int, int, int] | None = None,
    magic: bytes = MAGIC,
) -> bytes:
    """Bytes with a right checksum, whatever else is wrong with them."""
    sections = body + chunks + timing + notes
    lengths = lengths or (len(body), len(chunks), len(timing), len(notes))
    stored_at = time.time() if at is None else at
    return HEADER.pack(magic, flags, stored_at, ttl, *lengths, zlib.crc32(sections)) + sections


GOOD = orjson.dumps(
    {
        "id": "forged",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}],
    }
)
CHUNK = orjson.dumps(
    {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}],
    }
)


HOSTILE = {
    "nothing": b"",
    "text": b"hello",
    "a pickle": b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}.",
    "litellm's JSON": b'{"timestamp": 1, "response": "{}"}',
    "an older version": forged(GOOD, magic=b"RJE0"),
    "a newer version": forged(GOOD, magic=b"RJE2"),
    "only a header": forged(GOOD)[: HEADER.size],
    "huge lengths": forged(GOOD, lengths=(2**32 - 1,) * 4),
    "huge lengths, deflated": forged(zlib.compress(GOOD), lengths=(2**32 - 1,) * 4, flags=1),
    "a zip bomb": forged(zlib.compress(b"\0" * 50_000_000, 9), lengths=(100, 0, 0, 0), flags=1),
    "not deflated though it says so": forged(GOOD, flags=1),
    "half deflated": forged(zlib.compress(GOOD)[:40], lengths=(len(GOOD), 0, 0, 0), flags=1),
    "an empty body": forged(b""),
    "a body that is no JSON": forged(b"garbage{"),
    "a body that is null": forged(b"null"),
    "a body that is a list": forged(b"[]"),
    "a body that is an object": forged(b"{}"),
    "a body without choices": forged(b'{"id":"x","choices":[]}'),
    "a body that is not UTF-8": forged(b'{"id":"\xff\xfe"}'),
    "a body nested deep": forged(b"[" * 100_000),
    "chunks that are no JSON": forged(b"garbage", b"a\nb\nc"),
    "the timing is no list": forged(b"garbage", CHUNK, b"5"),
    "the timing has words": forged(GOOD, CHUNK, b'["x"]'),
    "the timing is no JSON": forged(GOOD, CHUNK, b"[1,"),
}
BAD_CHUNKS = {
    "no JSON": forged(GOOD, b"a\nb\nc"),
    "null": forged(GOOD, b"null"),
    "the second is broken": forged(GOOD, CHUNK + b"\n" + CHUNK[:-5]),
    "empty lines": forged(GOOD, b"\n\n\n"),
    "not UTF-8": forged(GOOD, b'\xff{"id":"\xff"'),
}


@pytest.fixture(params=["local", "disk"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cache]:
    cache = Cache() if request.param == "local" else Cache.disk(cache_path_root=tmp_path, budget=5)
    yield cache
    cache.close()


def plant(cache: Cache, data: Any) -> None:
    """Put `data` where the answer to the usual call is looked for."""
    rejoinder.warm_up()  # the router makes the keys
    key = cache.get_cache_key("echo/m", MESSAGES)
    cache.store.set(f"default:{key}", data)


def check_that_it_is_a_counted_miss(ask: Callable[..., Any], cache: Cache) -> None:
    echo = Echo([TEXT])
    assert text_of(ask(client=echo, cache=cache)) == TEXT
    stats = cache.stats()
    assert (stats["hits"], stats["corrupt"]) == (0, 1)
    assert text_of(ask(client=echo, cache=cache)) == TEXT
    assert echo.calls == 1, "the next answer has replaced it"


@pytest.mark.parametrize("ask", [whole, awhole, streamed, astreamed], ids=lambda ask: ask.__name__)
@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_value_is_a_counted_miss(data: bytes, ask: Callable[..., Any], cache: Cache) -> None:
    plant(cache, data)
    check_that_it_is_a_counted_miss(ask, cache)


@both_streams
@pytest.mark.parametrize("data", BAD_CHUNKS.values(), ids=BAD_CHUNKS.keys())
def test_hostile_chunks_are_a_counted_miss(data: bytes, read: Callable[..., Any], cache: Cache) -> None:
    plant(cache, data)
    check_that_it_is_a_counted_miss(read, cache)


@both
@pytest.mark.parametrize("value", [None, "text", 5, [], memoryview(b"abc"), bytearray(b"abc")], ids=repr)
def test_a_store_that_gives_no_bytes_fails_no_call(value: Any, ask: Callable[..., Any]) -> None:
    from rejoinder.caching.stores.memory import MemoryStore

    class Odd(MemoryStore):
        def get(self, key: str) -> Any:
            return value

    assert text_of(ask(client=Echo([TEXT]), cache=Cache(store=Odd()))) == TEXT


@pytest.mark.parametrize("timing", [b"[1e12]", b"[-5]", b"[1e308]"])
def test_a_hostile_timing_does_not_hold_a_replay_up(timing: bytes, cache: Cache) -> None:
    plant(cache, forged(GOOD, CHUNK, timing))
    started = time.monotonic()
    assert text_of(streamed(client=Echo([TEXT]), cache=cache, replay_timing=True)) in (TEXT, "x")
    assert time.monotonic() - started < 1


@FEW
@given(st.binary(max_size=300), st.sampled_from([whole, streamed]))
def test_any_bytes_in_the_store_are_a_miss(data: bytes, ask: Callable[..., Any]) -> None:
    cache = Cache()
    plant(cache, data)
    check_that_it_is_a_counted_miss(ask, cache)


@FEW
@given(st.binary(max_size=200), st.binary(max_size=100), st.binary(max_size=30), st.sampled_from([whole, streamed]))
def test_any_sections_with_a_right_checksum_raise_nothing(
    body: bytes, chunks: bytes, timing: bytes, ask: Callable[..., Any]
) -> None:
    cache = Cache()
    plant(cache, forged(body, chunks, timing))
    assert text_of(ask(client=Echo([TEXT]), cache=cache)) == TEXT


# Of places modulo the length: an entry holds times, so that its length differs from run to run.
flips = st.lists(st.tuples(st.integers(0, 2**16), st.integers(1, 255)), min_size=1, max_size=4)


@FEW
@given(flips, st.booleans())
def test_a_real_entry_with_flipped_bits_raises_nothing(flips: list[tuple[int, int]], sum_is_right: bool) -> None:
    cache, echo = Cache(), Echo([TEXT])
    streamed(client=echo, cache=cache)
    [record] = list(cache.store.scan())
    packed = bytearray(cache.store.get(record.key) or b"")
    for place, flip in flips:
        packed[place % len(packed)] ^= flip
    if sum_is_right:
        packed[40:44] = struct.pack("<I", zlib.crc32(packed[HEADER.size :]))
    cache.store.set(record.key, bytes(packed))
    for ask in (whole, streamed):
        text_of(ask(client=echo, cache=cache))


def test_own_values_that_were_damaged_are_the_default(cache: Cache) -> None:
    cache.set("mine", {"a": 1})
    [record] = list(cache.store.scan())
    for data in (b"junk", forged(b"{")):
        cache.store.set(record.key, data)
        assert cache.get("mine", "default") == "default"
        cache.store.set(record.key, data)
        assert asyncio.run(cache.aget("mine", "default")) == "default"


def test_no_entry_may_take_all_memory() -> None:
    assert entries.MOST <= 512 * 2**20
