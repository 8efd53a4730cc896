"""Streams: passed on as they come, shared while they run, stored when complete, replayed as they were."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import rejoinder
from rejoinder import Cache, Echo
from tests.fixtures.calls import (
    MESSAGES,
    aread,
    astreamed,
    ataken,
    auntil,
    awhole,
    both,
    both_streams,
    crowd,
    streamed,
    text_of,
    until,
    whole,
    within,
)
from tests.fixtures.upstream import Upstream

TEXT = "It is about a stream, which comes in pieces and is one thing all the same. Ünïcödé 🗝 too."


@pytest.fixture
def echo() -> Echo:
    return Echo([TEXT], chunk_size=5)


@pytest.fixture
def cache() -> Cache:
    return Cache()


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture
def upstream(server: Upstream) -> Upstream:
    server.reset()
    return server


def place(upstream: Upstream, **params: Any) -> dict[str, Any]:
    return {"model": "openai/gpt-4o-mini", "api_base": upstream.url, "api_key": "sk-mock", "num_retries": 0, **params}


def is_empty(cache: Cache) -> bool:
    return not list(cache.store.scan()) and not len(cache.flights)


# ── stored and replayed ───────────────────────────────────────────────────────────────────────────────────────────────


@both_streams
def test_a_replay_equals_the_live_stream_chunk_by_chunk(read: Callable[..., Any], echo: Echo, cache: Cache) -> None:
    live = read(client=echo, cache=cache)
    assert text_of(live) == TEXT
    assert read(client=echo, cache=cache) == live
    assert echo.calls == 1


@both_streams
def test_a_replay_over_http_equals_the_live_stream(read: Callable[..., Any], upstream: Upstream, cache: Cache) -> None:
    upstream.configure(text=TEXT, chunks=9)
    live = read(**place(upstream), cache=cache)
    replay = read(**place(upstream), cache=cache)
    assert text_of(replay) == TEXT
    assert replay == live
    assert upstream.calls == 1


@pytest.mark.parametrize("is_cached", [False, True])
@both_streams
def test_usage_comes_as_it_was_asked_for(read: Callable[..., Any], is_cached: bool, echo: Echo, cache: Cache) -> None:
    params = {"client": echo, "cache": cache, "stream_options": {"include_usage": True}}
    if is_cached:
        read(**params)
    last = read(**params)[-1]
    assert last.choices == []
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens > 0


@both_streams
@both
def test_a_stream_answers_a_whole_call(
    ask: Callable[..., Any], read: Callable[..., Any], echo: Echo, cache: Cache
) -> None:
    chunks = read(client=echo, cache=cache)
    answer = ask(client=echo, cache=cache)
    assert (text_of(answer), answer.cache, answer.id) == (TEXT, True, chunks[0].id)
    assert answer.usage.total_tokens > 0
    assert echo.calls == 1


@both_streams
@both
def test_a_whole_answer_answers_a_streamed_call(
    ask: Callable[..., Any], read: Callable[..., Any], echo: Echo, cache: Cache
) -> None:
    answer = ask(client=echo, cache=cache)
    chunks = read(client=echo, cache=cache, stream_options={"include_usage": True})
    assert (text_of(chunks), chunks[0].id) == (TEXT, answer.id)
    assert chunks[-1].usage == answer.usage
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert echo.calls == 1


def test_a_stream_says_whether_it_was_paid_for(echo: Echo, cache: Cache) -> None:
    fresh = whole(stream=True, client=echo, cache=cache)
    list(fresh)
    replay = whole(stream=True, client=echo, cache=cache)
    assert (fresh.cache, replay.cache, replay.cache_info.kind) == (False, True, "exact")


@both_streams
def test_a_replay_keeps_its_pace_if_asked(read: Callable[..., Any], cache: Cache) -> None:
    echo = Echo(["a b c d"], chunk_size=2, chunk_latency=0.02)
    read(client=echo, cache=cache)
    started = time.monotonic()
    read(client=echo, cache=cache)
    quick = time.monotonic() - started
    read(client=echo, cache=cache, replay_timing=True)
    slow = time.monotonic() - started - quick
    assert quick < 0.05
    assert slow >= 0.06


@both_streams
def test_ten_thousand_chunks(read: Callable[..., Any], cache: Cache) -> None:
    echo = Echo(["x" * 10_000], chunk_size=1)
    live = read(client=echo, cache=cache)
    assert len(live) == 10_002  # the finish reason, and the usage
    assert read(client=echo, cache=cache) == live


@both_streams
def test_characters_cut_between_network_reads_come_whole(read: Callable[..., Any]) -> None:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    events = [{**chunk, "choices": [{"index": 0, "delta": {"content": "é🗝漢"}, "finish_reason": None}]}]
    events += [{**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]
    body = b"".join(b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n" for event in events)
    with slow_bytes(body + b"data: [DONE]\n\n") as port:
        chunks = read(model="openai_compatible/m", api_base=f"http://127.0.0.1:{port}", num_retries=0)
    assert text_of(chunks) == "é🗝漢"


def read_request(connection: socket.socket) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)


class slow_bytes:
    """A server that answers one request with these bytes as an event stream, each in a packet of its own."""

    def __init__(self, body: bytes) -> None:
        self._body, self._listener = body, socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> int:
        threading.Thread(target=self._serve, daemon=True).start()
        port: int = self._listener.getsockname()[1]
        return port

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            read_request(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
            with contextlib.suppress(OSError):  # the reader may leave
                for byte in self._body:
                    connection.sendall(bytes([byte]))

    def __exit__(self, *error: object) -> None:
        self._listener.close()


@both_streams
def test_a_vendor_that_sends_all_at_once_is_stored(read: Callable[..., Any], upstream: Upstream, cache: Cache) -> None:
    answer = {"role": "assistant", "content": TEXT}
    body = {"id": "w", "object": "chat.completion", "created": 1, "model": "m"}
    body["choices"] = [{"index": 0, "message": answer, "finish_reason": "stop"}]  # type: ignore[assignment]
    with plain_json(json.dumps(body).encode()) as port:
        params = {"model": "openai_compatible/m", "api_base": f"http://127.0.0.1:{port}", "num_retries": 0}
        assert text_of(read(**params, cache=cache)) == TEXT
    assert len(cache.flights) == 0
    assert text_of(read(**params, cache=cache)) == TEXT  # nobody listens any more


class plain_json(slow_bytes):
    """A server that does not stream, whatever it is asked."""

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            read_request(connection)
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
            connection.sendall(head + b"content-length: %d\r\n\r\n%b" % (len(self._body), self._body))


# ── broken ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("reads", [pytest.param(streamed, id="sync"), pytest.param(astreamed, id="async")])
def test_a_broken_stream_is_raised_and_not_stored(reads: Callable[..., Any], upstream: Upstream, cache: Cache) -> None:
    upstream.configure(drop_after=3, delay=0.005)
    with pytest.raises(rejoinder.APIConnectionError):
        reads(**place(upstream, num_retries=2), cache=cache)
    assert upstream.calls == 1, "after the first chunk nothing is tried again"
    assert is_empty(cache)


@both_streams
def test_what_came_before_the_break_is_passed_on(read: Callable[..., Any], cache: Cache) -> None:
    echo = Echo([{"content": TEXT, "break_after": 3}], chunk_size=5)
    got: list[Any] = []

    def listen() -> None:
        for chunk in whole(stream=True, client=echo, cache=cache):
            got.append(chunk)

    async def alisten() -> None:
        async for chunk in await ataken(stream=True, client=echo, cache=cache):
            got.append(chunk)

    with pytest.raises(rejoinder.APIConnectionError):
        listen() if read is streamed else asyncio.run(alisten())
    assert text_of(got) == TEXT[:15]
    assert is_empty(cache)


@both_streams
def test_an_error_before_the_first_chunk_is_tried_again(
    read: Callable[..., Any], upstream: Upstream, cache: Cache
) -> None:
    upstream.configure(text=TEXT)
    upstream.script({"status": 503, "headers": {"retry-after": "0"}}, {"drop_after": 0}, {})
    assert text_of(read(**place(upstream, num_retries=2), cache=cache)) == TEXT
    assert upstream.calls == 3


@both_streams
def test_an_error_in_place_of_the_first_event_is_tried_again(read: Callable[..., Any], upstream: Upstream) -> None:
    upstream.configure(text=TEXT)
    fault = {"error": {"message": "overloaded", "code": 503}}
    upstream.script({"events": [fault]}, {})
    assert text_of(read(**place(upstream, num_retries=1))) == TEXT


@both_streams
def test_a_stream_without_an_end_is_not_stored(read: Callable[..., Any], upstream: Upstream, cache: Cache) -> None:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunk["choices"] = [{"index": 0, "delta": {"content": "half a"}, "finish_reason": None}]  # type: ignore[assignment]
    upstream.configure(events=[chunk])
    with pytest.raises(rejoinder.APIError):
        read(**place(upstream), cache=cache)
    assert is_empty(cache)


@both_streams
def test_a_stream_without_any_event_is_not_stored(read: Callable[..., Any], upstream: Upstream, cache: Cache) -> None:
    upstream.configure(events=["[DONE]"])
    assert read(**place(upstream), cache=cache) == []
    assert is_empty(cache)


ODD = [
    {"choices": [{"index": {}, "delta": {"content": "a"}, "finish_reason": "stop"}]},
    {"choices": ["no choice"]},
    {"choices": [{"index": 0, "delta": {"tool_calls": [5]}, "finish_reason": "stop"}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": {"a": 1}}, "finish_reason": "stop"}]},
    {"choices": [{"index": 0, "delta": "text", "finish_reason": "stop"}]},
    {"choices": [{"index": 0, "delta": {"content": [1]}, "logprobs": 5, "finish_reason": "stop"}]},
]


@pytest.mark.parametrize("event", ODD, ids=range(len(ODD)))
@both_streams
def test_odd_chunks_leave_no_flight(
    read: Callable[..., Any], event: dict[str, Any], upstream: Upstream, cache: Cache
) -> None:
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    upstream.configure(events=[{**base, **event}, "[DONE]"])
    with contextlib.suppress(rejoinder.RejoinderError):
        read(**place(upstream), cache=cache)
    assert len(cache.flights) == 0


# ── abandoned ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def breaks(**params: Any) -> None:
    for _ in whole(stream=True, **params):
        break


def forgets(**params: Any) -> None:
    stream = whole(stream=True, **params)
    next(stream)
    loop = [stream]
    loop.append(loop)  # only the cycle collector can free it
    del stream, loop
    gc.collect()


def closes(**params: Any) -> None:
    with whole(stream=True, **params) as stream:
        next(stream)


def never_reads(**params: Any) -> None:
    whole(stream=True, **params)


def closes_unread(**params: Any) -> None:
    whole(stream=True, **params).close()


async def abreaks(**params: Any) -> None:
    async for _ in await ataken(stream=True, **params):
        break


async def acloses(**params: Any) -> None:
    async with await ataken(stream=True, **params) as stream:
        await anext(stream)


async def anever_reads(**params: Any) -> None:
    await ataken(stream=True, **params)


async def acloses_unread(**params: Any) -> None:
    await (await ataken(stream=True, **params)).aclose()


async def is_cancelled(**params: Any) -> None:
    got: list[Any] = []

    async def listen() -> None:
        async for chunk in await ataken(stream=True, **params):
            got.append(chunk)

    task = asyncio.create_task(listen())
    await auntil(lambda: got)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def times_out(**params: Any) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await aread(**params)


WAYS = [breaks, forgets, closes, never_reads, closes_unread]
AWAYS = [abreaks, acloses, anever_reads, acloses_unread, is_cancelled, times_out]


@pytest.mark.parametrize("leave", [*WAYS, *AWAYS], ids=lambda leave: leave.__name__)
def test_an_abandoned_stream_closes_its_connection_and_is_not_stored(
    leave: Callable[..., Any], upstream: Upstream, cache: Cache
) -> None:
    upstream.configure(delay=0.02, chunks=200)

    async def left() -> None:
        await leave(**place(upstream), cache=cache)
        await auntil(lambda: upstream.abandoned == 1)

    if leave in AWAYS:
        asyncio.run(left())
    else:
        leave(**place(upstream), cache=cache)
    until(lambda: upstream.abandoned == 1)
    until(lambda: is_empty(cache))


@pytest.mark.parametrize("leave", [*WAYS, *AWAYS], ids=lambda leave: leave.__name__)
def test_an_abandoned_stream_is_closed_at_the_wire(leave: Callable[..., Any], cache: Cache) -> None:
    echo = Echo([TEXT], chunk_size=1, chunk_latency=0.02)

    async def left() -> None:
        await leave(client=echo, cache=cache)
        await auntil(lambda: echo.closed_early == 1)

    asyncio.run(left()) if leave in AWAYS else leave(client=echo, cache=cache)
    until(lambda: echo.closed_early == 1)
    assert is_empty(cache)
    echo.chunk_latency = 0
    assert text_of(whole(client=echo, cache=cache)) == TEXT
    assert echo.calls == 2


@pytest.mark.parametrize("leave", AWAYS, ids=lambda leave: leave.__name__)
def test_a_stream_left_with_its_loop_leaves_no_flight(leave: Callable[..., Any], cache: Cache) -> None:
    echo = Echo([TEXT], chunk_size=1, chunk_latency=0.01)
    asyncio.run(leave(client=echo, cache=cache))
    gc.collect()
    until(lambda: len(cache.flights) == 0)
    echo.chunk_latency = 0
    assert text_of(crowd([lambda: whole(client=echo, cache=cache)], 5)[0]) == TEXT


@pytest.mark.parametrize("latency", [{"latency": 5.0}, {"chunk_latency": 5.0}])
async def test_a_call_cancelled_before_its_first_chunk_leaves_nothing(latency: Any, cache: Cache) -> None:
    echo = Echo([TEXT], **latency)
    task = asyncio.create_task(aread(client=echo, cache=cache))
    await auntil(lambda: len(cache.flights) == 1)
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await auntil(lambda: len(asyncio.all_tasks()) == 1)
    assert is_empty(cache)


async def test_a_call_cancelled_while_it_waits_for_the_first_event_closes_its_connection(
    upstream: Upstream, cache: Cache
) -> None:
    # The head comes at once and the first event never: the wire is open, and nobody has a stream yet.
    with slow_bytes(b": ping\n\n" * 20_000) as port:
        task = asyncio.create_task(aread(model="openai_compatible/m", api_base=f"http://127.0.0.1:{port}", cache=cache))
        await asyncio.sleep(0.03)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await auntil(lambda: len(asyncio.all_tasks()) == 1)
    assert is_empty(cache)


# ── shared while under way ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("follower", [streamed, astreamed, whole, awhole], ids=lambda f: f.__name__)
@pytest.mark.parametrize("leader", ["thread", "task"])
def test_a_follower_joins_the_live_stream(leader: str, follower: Callable[..., Any], cache: Cache) -> None:
    echo = Echo([TEXT], chunk_size=5, chunk_latency=0.005)
    is_live = threading.Event()

    def lead() -> list[Any]:
        stream = whole(stream=True, client=echo, cache=cache)
        first = next(stream)
        is_live.set()
        return [first, *stream]

    async def alead() -> list[Any]:
        stream = await ataken(stream=True, client=echo, cache=cache)
        first = await anext(stream)
        is_live.set()
        return [first, *[chunk async for chunk in stream]]

    def follow() -> Any:
        is_live.wait(5)
        return follower(client=echo, cache=cache)

    led, followed = crowd([lead if leader == "thread" else lambda: asyncio.run(alead()), follow], 10)
    assert text_of(led) == text_of(followed) == TEXT
    assert echo.calls == 1
    if isinstance(followed, list):
        assert followed == led
    assert text_of(whole(client=echo, cache=cache)) == TEXT
    assert is_empty(cache) is False
    assert len(cache.flights) == 0


async def test_a_follower_has_chunks_while_the_stream_still_runs(upstream: Upstream, cache: Cache) -> None:
    upstream.configure(delay=0.03, chunks=20)
    leader = await ataken(stream=True, **place(upstream), cache=cache)
    first = await anext(leader)
    follower = await ataken(stream=True, **place(upstream), cache=cache)
    assert await within(1, anext(follower)) == first
    await within(1, anext(follower))
    assert upstream.calls == 1
    assert len(cache.flights) == 1, "the leader's stream is still under way"
    await leader.aclose()
    await follower.aclose()


def test_a_leader_that_does_not_read_on_holds_no_follower_up(cache: Cache) -> None:
    echo = Echo([TEXT], chunk_size=5)
    leader = whole(stream=True, client=echo, cache=cache)
    next(leader)
    assert text_of(streamed(client=echo, cache=cache)) == TEXT
    assert text_of(astreamed(client=echo, cache=cache)) == TEXT
    assert text_of(whole(client=echo, cache=cache)) == TEXT
    assert echo.calls == 1
    assert len(list(leader)) > 10


async def test_an_async_leader_that_does_not_read_on_holds_no_follower_up(cache: Cache) -> None:
    echo = Echo([TEXT], chunk_size=5)
    leader = await ataken(stream=True, client=echo, cache=cache)
    await anext(leader)
    assert text_of(await within(2, aread(client=echo, cache=cache))) == TEXT
    assert text_of(await within(2, asyncio.to_thread(streamed, client=echo, cache=cache))) == TEXT
    assert echo.calls == 1
    await leader.aclose()


async def test_a_stream_is_read_to_its_end_by_a_follower_when_its_leader_leaves(cache: Cache) -> None:
    echo = Echo([TEXT], chunk_size=5, chunk_latency=0.002)
    leader = await ataken(stream=True, client=echo, cache=cache)
    await anext(leader)
    followers = [await ataken(stream=True, client=echo, cache=cache) for _ in range(3)]
    await leader.aclose()
    texts = [text_of([chunk async for chunk in follower]) for follower in followers]
    assert texts == [TEXT] * 3
    assert echo.closed_early == 0
    assert (await ataken(client=echo, cache=cache)).cache
    assert echo.calls == 1


def test_a_stream_is_read_to_its_end_by_another_thread_when_its_leader_leaves(cache: Cache) -> None:
    echo = Echo([TEXT], chunk_size=5, chunk_latency=0.002)
    leader = whole(stream=True, client=echo, cache=cache)
    next(leader)
    follower = whole(stream=True, client=echo, cache=cache)
    leader.close()
    assert text_of(list(follower)) == TEXT
    assert whole(client=echo, cache=cache).cache
    assert echo.calls == 1


def test_a_follower_that_comes_and_goes_first_does_not_cut_the_leader_short(cache: Cache) -> None:
    # leader: has its stream, and has not begun to read      follower: reads one chunk, leaves, and is the only reader
    echo = Echo([TEXT], chunk_size=5)
    leader = whole(stream=True, client=echo, cache=cache)
    breaks(client=echo, cache=cache)
    assert text_of(list(leader)) == TEXT
    assert echo.closed_early == 0


def test_nobody_joins_a_stream_that_everybody_has_left(cache: Cache) -> None:
    from rejoinder.router.live import LiveStream, Membership

    class Reply:
        def close(self) -> None:
            closed.append(True)

    closed: list[bool] = []
    stream: Any = LiveStream(Reply(), None, iter([]), lambda error: error)  # type: ignore[arg-type]
    member = Membership(stream)
    member.leave()
    late = Membership(stream)
    assert closed == [True]
    assert not late
    assert isinstance(stream.error, ConnectionError), "and what was read so far is not taken for the whole"


def test_when_all_abandon_it_nothing_is_stored(cache: Cache) -> None:
    echo = Echo([TEXT], chunk_size=1)
    streams = [whole(stream=True, client=echo, cache=cache) for _ in range(5)]
    for stream in streams:
        next(stream)
    for stream in streams:
        assert echo.closed_early == 0
        stream.close()
    assert echo.closed_early == 1
    assert is_empty(cache)


async def test_a_follower_of_another_loop_may_be_the_last_to_leave(upstream: Upstream, cache: Cache) -> None:
    upstream.configure(delay=0.02, chunks=200)
    leader = await ataken(stream=True, **place(upstream), cache=cache)
    await anext(leader)
    joined, go = threading.Event(), threading.Event()

    async def follow() -> None:
        async with await ataken(stream=True, **place(upstream), cache=cache) as stream:
            await anext(stream)
            joined.set()
            await asyncio.to_thread(go.wait, 5)

    other = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(follow())))
    await auntil(joined.is_set)
    await leader.aclose()
    assert upstream.abandoned == 0
    go.set()
    await other
    await auntil(lambda: upstream.abandoned == 1)
    assert is_empty(cache)


@pytest.mark.parametrize("follower", [streamed, astreamed, whole, awhole], ids=lambda f: f.__name__)
def test_a_loop_that_ends_under_a_stream_hangs_no_follower(follower: Callable[..., Any], cache: Cache) -> None:
    slow, quick = Echo([TEXT], chunk_size=2, chunk_latency=0.02), Echo([TEXT])
    is_live = threading.Event()

    async def lead() -> None:
        stream = await ataken(stream=True, client=slow, cache=cache)
        await anext(stream)
        is_live.set()
        await asyncio.sleep(0.1)

    def follow() -> Any:
        is_live.wait(5)
        return follower(client=quick, cache=cache)

    _, followed = crowd([lambda: asyncio.run(lead()), follow], 10)
    # A streaming follower may have passed on half of it; then it must hear that there is no more.
    assert isinstance(followed, rejoinder.APIConnectionError) or text_of(followed) == TEXT
    if follower in (whole, awhole):
        assert text_of(followed) == TEXT
    assert len(cache.flights) == 0


@pytest.mark.parametrize("is_closed", [False, True])
@pytest.mark.parametrize("follower", [streamed, astreamed, whole, awhole], ids=lambda f: f.__name__)
def test_a_loop_that_stands_still_hangs_no_follower(
    follower: Callable[..., Any], is_closed: bool, cache: Cache
) -> None:
    echo = Echo([TEXT], chunk_size=2)
    loop = asyncio.new_event_loop()
    stream = loop.run_until_complete(ataken(stream=True, client=echo, cache=cache))
    loop.run_until_complete(anext(stream))
    if is_closed:
        loop.close()
    [followed] = crowd([lambda: follower(client=echo, cache=cache)], 8)
    assert isinstance(followed, rejoinder.APIConnectionError) or text_of(followed) == TEXT
    [again] = crowd([lambda: whole(client=echo, cache=cache)], 8)
    assert text_of(again) == TEXT
    if not is_closed:
        rest = loop.run_until_complete(_rest_of(stream))
        assert text_of(rest) == TEXT[2:], "whoever owns the loop may run it again"
        loop.close()


async def _rest_of(stream: Any) -> list[Any]:
    return [chunk async for chunk in stream]


async def test_a_broken_live_stream_does_not_spin_its_loop(cache: Cache) -> None:
    """The stream has broken and its connection is being closed; a new call of the same key must not wait for that."""
    echo = Echo([{"content": TEXT, "break_after": 2}, TEXT], chunk_size=5)
    original = rejoinder.providers.echo.EchoReply.aclose  # type: ignore[attr-defined]

    async def slow_close(self: Any) -> None:
        await asyncio.sleep(0.03)
        await original(self)

    rejoinder.providers.echo.EchoReply.aclose = slow_close  # type: ignore[attr-defined]
    try:
        leader = asyncio.create_task(aread(client=echo, cache=cache))
        await auntil(lambda: echo.calls == 1)
        answers = await within(5, asyncio.gather(*(ataken(client=echo, cache=cache) for _ in range(5))))
        with pytest.raises(rejoinder.APIConnectionError):
            await leader
    finally:
        rejoinder.providers.echo.EchoReply.aclose = original  # type: ignore[attr-defined]
    assert {text_of(answer) for answer in answers} == {TEXT}


def test_an_interrupted_reader_interrupts_nobody_else(cache: Cache) -> None:
    """KeyboardInterrupt while pulling: it is the puller's own; the others hear of a broken stream."""
    from rejoinder.providers.echo import EchoReply

    echo = Echo([TEXT], chunk_size=5)
    leader = whole(stream=True, client=echo, cache=cache)
    next(leader)
    follower = whole(stream=True, client=echo, cache=cache)
    events = EchoReply._events

    stream = leader._chunks.gi_frame.f_locals["member"].stream

    def interrupted() -> Iterator[bytes]:
        raise KeyboardInterrupt
        yield b""

    stream.source = interrupted()
    with pytest.raises(KeyboardInterrupt):
        next(leader)
    next(follower)
    with pytest.raises(rejoinder.APIConnectionError):
        next(follower)
    assert EchoReply._events is events
    assert is_empty(cache)


def test_errors_of_a_shared_stream_are_not_one_object(cache: Cache) -> None:
    echo = Echo([{"content": TEXT, "break_after": 2}], chunk_size=5)
    first, second = (whole(stream=True, client=echo, cache=cache) for _ in range(2))
    errors = []
    for stream in (first, second):
        with pytest.raises(rejoinder.APIConnectionError) as caught:
            list(stream)
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert str(errors[0]) == str(errors[1])


def test_many_readers_of_one_stream_all_have_all_of_it(cache: Cache) -> None:
    for _ in range(20):
        echo = Echo([TEXT], chunk_size=3)
        cache.clear()
        readers = [streamed, whole, astreamed, streamed, whole, streamed]
        answers = crowd([functools.partial(read, client=echo, cache=cache) for read in readers])
        assert [text_of(answer) for answer in answers] == [TEXT] * len(readers)
        assert echo.calls == 1
        assert len(cache.flights) == 0


def test_usage_is_stored_though_the_first_reader_did_not_want_it(echo: Echo, cache: Cache) -> None:
    streamed(client=echo, cache=cache, stream_options={"include_usage": False})
    assert whole(client=echo, cache=cache).usage is not None


def test_mock_response_streams_and_is_not_stored(cache: Cache) -> None:
    with cache:
        assert text_of(streamed(model="openai/gpt-4o", mock_response="mocked", messages=MESSAGES)) == "mocked"
    assert is_empty(cache)
