"""Server-sent events, whatever the writes they come in."""

from __future__ import annotations

import time

import pytest

from rejoinder.providers.sse import Event, EventSplitter

STREAM = (
    b": a comment\n\n"
    b"data: one\n\n"
    b"event: error\ndata: two\n\n"
    b"data:no space\n\n"
    b"id: 7\nretry: 10\ndata: first line\ndata: second line\n\n"
    b"event: ping\n\n"
    b"data: \xe2\x82\xac\n\n"
)
EVENTS = [
    Event("message", b"one"),
    Event("error", b"two"),
    Event("message", b"no space"),
    Event("message", b"first line\nsecond line"),
    Event("message", "€".encode()),
]


def split(data: bytes, size: int) -> list[Event]:
    splitter = EventSplitter()
    events = [event for start in range(0, len(data), size) for event in splitter.feed(data[start : start + size])]
    return events + splitter.end()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_events_are_the_same_for_every_cut_and_newline(size: int, newline: bytes, mark: bytes) -> None:
    assert split(mark + STREAM.replace(b"\n", newline), size) == EVENTS


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r", b"\r\n"])
def test_last_event_without_its_blank_line_is_given_at_the_end(ending: bytes) -> None:
    assert split(b"data: [DONE]" + ending, 3) == [Event("message", b"[DONE]")]


def test_event_is_given_as_soon_as_it_is_complete() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: one\n") == []
    assert splitter.feed(b"\ndata: tw") == [Event("message", b"one")]
    assert splitter.feed(b"o\n\n") == [Event("message", b"two")]


def test_error_written_as_a_field_of_its_own_is_an_error_event() -> None:
    assert split(b'error: {"code": 500}\n\n', 5) == [Event("error", b'{"code": 500}')]


def test_nothing_comes_of_nothing() -> None:
    assert split(b"", 1) == []
    assert split(b"\n\n\n\n: only comments\n\n", 4) == []


def test_long_event_in_tiny_writes_does_not_cost_its_square() -> None:
    splitter, piece = EventSplitter(), b"data: " + b"x" * 2_000_000
    started = time.process_time()
    for start in range(0, len(piece), 10):
        splitter.feed(piece[start : start + 10])
    assert splitter.feed(b"\n\n") == [Event("message", piece[6:])]
    assert time.process_time() - started < 5  # copied at each write, it would be 200 GB
