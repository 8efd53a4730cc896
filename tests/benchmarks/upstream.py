"""A local upstream that answers as OpenAI and Anthropic do: quickly, and as badly as it is told to.

    python -m tests.benchmarks.upstream --port 0        # prints the port it took

Tests use it through `tests.fixtures.upstream`. Paths that end in `/chat/completions` are answered in OpenAI's form, in
`/messages` in Anthropic's; any other path needs a `body` or `events`. `/_upstream` sets and tells what it does.
Standard library only, one thread, answers built once and sent as they are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Any

CONTROL = b"/_upstream"
RECORDED = 100
"""How many of the last requests are kept."""

NUMBER = "@number@@"
"""Stands in a built answer where the number of the call goes. As long as the nine digits that take its place."""

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]+)"')
STREAM = re.compile(rb'"stream"\s*:\s*true')
USAGE = re.compile(rb'"include_usage"\s*:\s*true')
PROMPT_TOKENS = 10


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one call is answered."""

    latency: float = 0.0
    """Seconds until the first byte."""
    text: str | None = None
    """What the assistant says; None for `size` bytes of filler, in a stream one word a chunk."""
    size: int = 1000
    chunks: int = 10
    """How many content chunks a stream has. A `text` is cut into at most as many."""
    delay: float = 0.0
    """Seconds between the chunks; 0 sends them all at once."""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: str | None = None
    """The body of an answer that is not streamed, as it is."""
    events: tuple[str, ...] | None = None
    """The events of a stream, each one's data as it is. `[DONE]` is not added."""
    hang: bool = False
    """Read the request and never answer."""
    drop_after: int | None = None
    """Break the connection after that many events of a stream, or amid a whole answer; 0: before any byte."""

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Behaviour:
        fields["headers"] = tuple((name, value) for name, value in fields["headers"])
        fields["events"] = None if fields["events"] is None else tuple(fields["events"])
        return cls(**fields)


# ── what the vendors say ──────────────────────────────────────────────────────────────────────────────────────────────


class OpenAI:
    """https://platform.openai.com/docs/api-reference/chat, as of 2025."""

    @staticmethod
    def usage(tokens: int) -> dict[str, Any]:
        return {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": tokens,
            "total_tokens": PROMPT_TOKENS + tokens,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        }

    @classmethod
    def whole(cls, model: str, text: str) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
        return {
            "id": f"chatcmpl-{NUMBER}",
            "object": "chat.completion",
            "created": 1750000000,
            "model": model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": cls.usage(len(text.split())),
            "service_tier": "default",
            "system_fingerprint": "fp_local",
        }

    @classmethod
    def events(cls, model: str, pieces: Sequence[str], with_usage: bool) -> list[str]:
        def chunk(choices: list[dict[str, Any]], **more: Any) -> str:
            return _compact(
                {
                    "id": f"chatcmpl-{NUMBER}",
                    "object": "chat.completion.chunk",
                    "created": 1750000000,
                    "model": model,
                    "system_fingerprint": "fp_local",
                    "choices": choices,
                    **more,
                }
            )

        def delta(delta: dict[str, Any], finish_reason: str | None = None) -> list[dict[str, Any]]:
            return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]

        none: dict[str, Any] = {"usage": None} if with_usage else {}
        events = [chunk(delta({"role": "assistant", "content": "", "refusal": None}), **none)]
        events += [chunk(delta({"content": piece}), **none) for piece in pieces]
        events.append(chunk(delta({}, "stop"), **none))
        if with_usage:
            events.append(chunk([], usage=cls.usage(len(pieces))))
        return [*events, "[DONE]"]


class Anthropic:
    """https://docs.anthropic.com/en/api/messages, as of 2025."""

    @staticmethod
    def whole(model: str, text: str) -> dict[str, Any]:
        return {
            "id": f"msg_{NUMBER}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": PROMPT_TOKENS, "output_tokens": len(text.split())},
        }

    @classmethod
    def events(cls, model: str, pieces: Sequence[str], with_usage: bool) -> list[str]:
        start = cls.whole(model, "") | {"content": [], "stop_reason": None}
        texts = [{"type": "text_delta", "text": piece} for piece in pieces]
        deltas = [{"type": "content_block_delta", "index": 0, "delta": delta} for delta in texts]
        end = {"stop_reason": "end_turn", "stop_sequence": None}
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": start},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            *deltas,
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": end, "usage": {"output_tokens": len(pieces)}},
            {"type": "message_stop"},
        ]
        return [_compact(event) for event in events]


DIALECTS: dict[str, type[OpenAI] | type[Anthropic]] = {"/chat/completions": OpenAI, "/messages": Anthropic}


def dialect_of(path: bytes) -> str | None:
    """The key in `DIALECTS` of the vendor whose path it is."""
    return next((end for end in DIALECTS if path.endswith(end.encode())), None)


# ── answers, built once ───────────────────────────────────────────────────────────────────────────────────────────────


@lru_cache(maxsize=256)
def whole_answer(behaviour: Behaviour, dialect: str | None, model: str) -> tuple[bytes, ...]:
    """The pieces in which a whole answer is sent: one, or the two halves of one that will break."""
    if behaviour.body is not None:
        body = behaviour.body
    elif behaviour.status >= 400 or dialect is None:
        body = _error_body(behaviour.status if behaviour.status >= 400 else 404)
    else:
        text = behaviour.text if behaviour.text is not None else ("word " * (behaviour.size // 5 + 1))[: behaviour.size]
        body = _compact(DIALECTS[dialect].whole(model, text))
    data = body.encode()
    status = 404 if dialect is None and behaviour.body is None else behaviour.status
    answer = _head(status, behaviour, "application/json", f"content-length: {len(data)}") + data
    return (answer,) if behaviour.drop_after is None else (answer[: len(answer) - len(data) // 2 - 1],)


@lru_cache(maxsize=256)
def streamed_answer(behaviour: Behaviour, dialect: str, model: str, with_usage: bool) -> tuple[bytes, ...]:
    """The pieces in which a stream is sent: the head, then one an event; or all in one if nothing comes in between."""
    events = behaviour.events
    if events is None:
        events = tuple(DIALECTS[dialect].events(model, _cut(behaviour), with_usage))
    transfer = ("cache-control: no-cache", "transfer-encoding: chunked")
    head = _head(behaviour.status, behaviour, "text/event-stream", *transfer)
    pieces = [head, *(_http_chunk(_event(event, dialect)) for event in events)]
    if behaviour.drop_after is not None:
        return tuple(pieces[: behaviour.drop_after + 1])
    pieces[-1] += b"0\r\n\r\n"
    return tuple(pieces) if behaviour.delay else (b"".join(pieces),)


def _cut(behaviour: Behaviour) -> list[str]:
    if behaviour.text is None:
        return [f" word{index}" for index in range(behaviour.chunks)]
    width = max(1, -(-len(behaviour.text) // behaviour.chunks))
    return [behaviour.text[start : start + width] for start in range(0, len(behaviour.text), width)]


def _event(data: str, dialect: str) -> bytes:
    if DIALECTS[dialect] is Anthropic:
        return f"event: {json.loads(data)['type']}\ndata: {data}\n\n".encode()
    return f"data: {data}\n\n".encode()


def _http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _head(status: int, behaviour: Behaviour, content_type: str, *more: str) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"content-type: {content_type}", *more]
    lines += [f"{name}: {value}" for name, value in behaviour.headers]
    return ("\r\n".join(lines) + f"\r\nx-request-id: req_{NUMBER}\r\n\r\n").encode()


def _error_body(status: int) -> str:
    message = f"The upstream was told to answer {status}."
    return _compact({"type": "error", "error": {"message": message, "type": "upstream_error", "code": None}})


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


# ── the server ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Server:
    """What all connections share."""

    def __init__(self) -> None:
        self.behaviour = Behaviour()
        self.script: deque[Behaviour] = deque()
        self.forget()

    def forget(self) -> None:
        self.calls = self.connections = self.under_way = self.peak = self.abandoned = 0
        self.recorded: deque[tuple[bytes, bytes]] = deque(maxlen=RECORDED)

    def control(self, method: bytes, path: bytes, body: bytes) -> bytes:
        """Obey a PUT, answer a GET."""
        if method == b"PUT":
            order = json.loads(body)
            if order["forget"]:
                self.forget()
            self.behaviour = Behaviour.from_json(order["behaviour"])
            self.script = deque(Behaviour.from_json(step) for step in order["script"])
        if path.endswith(b"/requests"):
            return json.dumps([_readable(head, body) for head, body in self.recorded]).encode()
        counters = ("calls", "connections", "peak", "abandoned")
        return json.dumps({name: getattr(self, name) for name in counters}).encode()


def _readable(head: bytes, body: bytes) -> dict[str, Any]:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {"method": method, "path": path, "headers": headers, "body": body.decode("utf-8", "replace")}


class Connection(asyncio.Protocol):
    """One client, which sends its next request when it has the answer to the last."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.buffer = bytearray()
        self.timer: asyncio.TimerHandle | None = None
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.loop = asyncio.get_running_loop()
        self.server.connections += 1

    def connection_lost(self, error: Exception | None) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self.busy:
            self.server.abandoned += 1
            self.finished()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        length = CONTENT_LENGTH.search(self.buffer, 0, end)
        whole = end + 4 + (int(length[1]) if length else 0)
        if len(self.buffer) < whole:
            return
        head, body = bytes(self.buffer[:end]), bytes(self.buffer[end + 4 : whole])
        del self.buffer[:whole]
        method, path, _ = head.split(b" ", 2)
        if path.startswith(CONTROL):
            reply = self.server.control(method, path, body)
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(reply), reply))
        else:
            self.answer(head, path.partition(b"?")[0], body)

    def answer(self, head: bytes, path: bytes, body: bytes) -> None:
        server = self.server
        server.calls += 1
        server.recorded.append((head, body))
        self.busy = True
        server.under_way += 1
        server.peak = max(server.peak, server.under_way)
        behaviour = server.script.popleft() if server.script else server.behaviour
        if behaviour.hang:
            return
        pieces = _pieces(behaviour, path, body)
        number = b"%09d" % server.calls
        pieces = tuple(piece.replace(NUMBER.encode(), number) for piece in pieces)
        if behaviour.latency:
            self.timer = self.loop.call_later(behaviour.latency, self.send, behaviour, pieces, 0)
        else:
            self.send(behaviour, pieces, 0)

    def send(self, behaviour: Behaviour, pieces: tuple[bytes, ...], index: int) -> None:
        """Write the pieces from `index` on: one, with the next due later, or all."""
        if behaviour.drop_after == 0:
            self.transport.close()
            return
        if behaviour.delay and index < len(pieces) - 1:
            self.transport.write(pieces[index])
            # The head does not count as a chunk: the first goes out with it.
            delay = behaviour.delay if index else 0
            self.timer = self.loop.call_later(delay, self.send, behaviour, pieces, index + 1)
            return
        self.transport.write(b"".join(pieces[index:]))
        if behaviour.drop_after is not None:
            self.transport.close()
        else:
            self.finished()

    def finished(self) -> None:
        self.busy = False
        self.server.under_way -= 1


def _pieces(behaviour: Behaviour, path: bytes, body: bytes) -> tuple[bytes, ...]:
    dialect = dialect_of(path)
    found = MODEL.search(body)
    model = found[1].decode() if found else "none"
    if dialect and behaviour.status < 400 and STREAM.search(body):
        return streamed_answer(behaviour, dialect, model, USAGE.search(body) is not None)
    return whole_answer(behaviour, dialect, model)


def raise_file_limit() -> None:
    """Let this process have as many connections as the system allows it; often it starts with 1,024."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def serve(port: int, *, with_parent: bool) -> None:
    """Listen on 127.0.0.1, say on which port, and serve until killed or, if asked to, until stdin ends."""
    loop = asyncio.get_running_loop()
    server = Server()
    listener = await loop.create_server(lambda: Connection(server), "127.0.0.1", port, backlog=4096)
    print(listener.sockets[0].getsockname()[1], flush=True)
    if with_parent:
        await loop.run_in_executor(None, sys.stdin.read)
    else:
        await listener.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.upstream", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--with-parent", action="store_true", help="end when stdin does")
    options = parser.parse_args()
    raise_file_limit()
    asyncio.run(serve(options.port, with_parent=options.with_parent))


if __name__ == "__main__":
    main()
