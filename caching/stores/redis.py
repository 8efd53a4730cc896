"""In Redis or Valkey: shared by processes and hosts, with leases.

Entries live under `<prefix>e:<key>` and leases under `<prefix>l:<key>`, so listing or clearing entries never meets a
lease.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import secrets
import time
from asyncio import AbstractEventLoop
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from types import TracebackType
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from ...core.errors import ConfigurationError, MissingPackage
from .base import Record, Store

_BATCH = 500  # keys asked about, or removed, in one round trip
_TURNS = 10  # of the event loop, that an answer may be late without the server being to blame

_GONE, _FOREVER = -2, -1  # what PTTL says of a key that is not there, and of one without an end

_RENEW = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2]) or 0"
_RELEASE = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0"


class RedisStore(Store):
    """A Redis or Valkey server (6 or later), through redis-py.

    `url` (`redis://`, `rediss://`, `unix://`) or the single fields say where it is; further keywords go to redis-py. Or
    bring your own: `client` for sync calls and `aclient` for async ones, used as they are, with their own timeouts, and
    left open. With `client` alone, async calls run it in a thread; with `aclient` alone, sync calls go by `url` or the
    fields.

    `budget` bounds an operation including its connect. A connect gets half of it, as the command that follows takes at
    least as many round trips. Two things a sync call cannot bound: a name server that hangs (give an IP address where
    that matters), and an answer that keeps trickling in.

    `max_connections` bounds the connections of one event loop; calls beyond it wait their turn, which costs no
    throughput. Threads open a connection each as they need it.

    Redis does not know when a key was written, only when it was last used: that is what `stored_at` says in a `Record`
    of `scan`, to the second, and 0.0 where the server counts uses instead (an LFU eviction policy). A scan may name an
    entry twice if the server shrinks its table meanwhile.
    """

    name: ClassVar[str] = "redis"
    leases: ClassVar[bool] = True

    def __init__(
        self,
        *,
        url: str | None = None,
        host: str = "localhost",
        port: int = 6379,
        password: str | None = None,
        username: str | None = None,
        db: int = 0,
        ssl: bool = False,
        unix_socket_path: str | None = None,
        prefix: str = "rejoinder:",
        budget: float = 0.1,
        max_connections: int = 32,
        client: Any = None,
        aclient: Any = None,
        **more: Any,
    ) -> None:
        self._redis = _import_redis()
        self.prefix, self.budget, self.max_connections = prefix, budget, max_connections
        self._entries, self._leases = f"{prefix}e:", f"{prefix}l:"
        self._url, self._options = url, {"username": username, "password": password, "db": db, **more}
        if url is None:
            self._options |= {"host": host, "port": port, "ssl": ssl, "unix_socket_path": unix_socket_path}

        self._is_ours, self._is_threaded = client is None, client is not None and aclient is None
        self._client = self._open(self._redis, budget) if client is None else client
        self._aclient = aclient
        for each in (self._client, aclient):
            if each is not None and each.get_encoder().decode_responses:
                raise ConfigurationError("The Redis store keeps bytes: leave out decode_responses=True.")

        self._lanes: WeakKeyDictionary[AbstractEventLoop, _Lane] = WeakKeyDictionary()
        self._inherited: list[_Lane] = []

    def __repr__(self) -> str:
        pool = getattr(self._client, "connection_pool", None)
        options = getattr(pool, "connection_kwargs", {})
        where = options.get("path") or f"{options.get('host')}:{options.get('port')}"
        return f"RedisStore({where}, db={options.get('db', 0)}, prefix={self.prefix!r})"

    def get(self, key: str) -> bytes | None:
        value: bytes | None = self._ask(_get_lean if self._is_ours else _get, self._entries + key)
        return value

    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        self._ask(_set, self._entries + key, value, ttl)

    def delete(self, key: str) -> bool:
        return bool(self._ask(_remove, self._entries + key))

    def scan(self, prefix: str = "") -> Iterator[Record]:
        for names in self._batches(prefix):
            for name, (size, idle, rest_ms) in zip(names, self._ask(_measure, names), strict=True):
                if size is not None and rest_ms != _GONE:
                    now = time.time()
                    key = name.decode(errors="replace").removeprefix(self._entries)
                    used_at = 0.0 if idle is None else now - idle
                    yield Record(key, size, used_at, None if rest_ms == _FOREVER else now + rest_ms / 1000)

    def peek(self, keys: Sequence[str]) -> list[bytes | None]:
        values: list[bytes | None] = self._ask(_look_at, [self._entries + key for key in keys])
        return values

    def clear(self, prefix: str = "") -> int:
        return sum(self._ask(_remove, *names) for names in self._batches(prefix))

    def close(self) -> None:
        """Close the connections of threads now; a running event loop closes its own at its next turn."""
        if self._is_ours:
            # A call under way in another thread keeps the old client, whose last connections close with it.
            idle, self._client = self._client.connection_pool, self._open(self._redis, self.budget)
            idle.disconnect(inuse_connections=False)
        self._sweep()
        for loop in _keys(self._lanes):
            lane = self._lanes.pop(loop, None)
            if lane is not None and lane.keeper is not None and lane.pid == os.getpid():
                with suppress(RuntimeError):  # closed just now
                    loop.call_soon_threadsafe(_finish, lane.keeper)

    def lease(self, key: str, ttl: float) -> str | None:
        name, token = self._leases + key, secrets.token_hex(16)
        # If an answer was lost together with its connection, the second attempt meets our own token.
        is_ours = self._ask(_take, name, token, ttl) or self._ask(_get, name) == token.encode()
        return token if is_ours else None

    def renew(self, key: str, token: str, ttl: float) -> bool:
        return bool(self._ask(_renew, self._leases + key, token, ttl))

    def release(self, key: str, token: str) -> bool:
        return bool(self._ask(_release, self._leases + key, token))

    async def aget(self, key: str) -> bytes | None:
        value: bytes | None = await self._aask(_get, self._entries + key)
        return value

    async def aset(self, key: str, value: bytes, ttl: float | None = None) -> None:
        await self._aask(_set, self._entries + key, value, ttl)

    async def adelete(self, key: str) -> bool:
        return bool(await self._aask(_remove, self._entries + key))

    async def aclear(self, prefix: str = "") -> int:
        if self._is_threaded:
            return await super().aclear(prefix)
        removed, cursor = 0, 0
        while True:
            cursor, names = await self._aask(_scan, cursor, self._pattern(prefix))
            if names:
                removed += await self._aask(_remove, *names)
            if cursor == 0:
                return removed

    async def aclose(self) -> None:
        """Close this event loop's connections and those of threads; another running loop closes its own soon."""
        lane = self._lanes.pop(asyncio.get_running_loop(), None)
        if lane is not None and lane.keeper is not None and lane.pid == os.getpid():
            await lane.keeper.aclose()
        self.close()

    async def alease(self, key: str, ttl: float) -> str | None:
        name, token = self._leases + key, secrets.token_hex(16)
        is_ours = await self._aask(_take, name, token, ttl) or await self._aask(_get, name) == token.encode()
        return token if is_ours else None

    async def arenew(self, key: str, token: str, ttl: float) -> bool:
        return bool(await self._aask(_renew, self._leases + key, token, ttl))

    async def arelease(self, key: str, token: str) -> bool:
        return bool(await self._aask(_release, self._leases + key, token))

    def _ask(self, operation: Callable[..., Any], *args: Any) -> Any:
        started = time.monotonic()
        try:
            return operation(self._client, *args)
        except self._redis.ConnectionError as error:
            if not self._may_repeat(error) or time.monotonic() - started > self.budget / 2:
                raise
        return operation(self._client, *args)

    async def _aask(self, operation: Callable[..., Any], *args: Any) -> Any:
        if self._is_threaded:
            return await asyncio.to_thread(self._ask, operation, *args)
        lane = self._lanes.get(asyncio.get_running_loop())
        if lane is None or lane.pid != os.getpid():
            lane = await self._open_lane()
        outages = lane.outages
        async with lane.places:
            if lane.outages != outages:
                # Those before us have just waited out the budget. Did each do so in turn, the last would wait seconds.
                raise TimeoutError("Redis did not answer the calls before this one.")
            try:
                async with _Patience(self.budget):
                    return await self._repeat(operation, lane.client, *args)
            except TimeoutError:
                lane.outages += 1
                raise TimeoutError(f"Redis did not answer within {self.budget} s.") from None
            except self._redis.ConnectionError:
                lane.outages += 1
                raise

    async def _repeat(self, operation: Callable[..., Any], client: Any, *args: Any) -> Any:
        try:
            return await operation(client, *args)
        except self._redis.ConnectionError as error:
            if not self._may_repeat(error):
                raise
        return await operation(client, *args)

    def _may_repeat(self, error: Exception) -> bool:
        # redis-py looks whether a pooled connection is still open before it uses it; the server may close it right
        # after. The subclasses (a wrong password, a server that is still loading) would only fail again.
        return type(error) is self._redis.ConnectionError

    async def _open_lane(self) -> _Lane:
        loop = asyncio.get_running_loop()
        self._sweep()
        inherited = self._lanes.pop(loop, None)
        if inherited is not None:
            # Forked inside a running loop. Kept, for closing it here would take the parent's sockets out of the poll.
            self._inherited.append(inherited)
        if self._aclient is not None:
            lane = _Lane(self._aclient, self.max_connections, None)
        else:
            client = self._open(self._redis.asyncio, None)
            keeper = _keep(client, self._lanes)
            await anext(keeper)  # does not suspend
            lane = _Lane(client, self.max_connections, keeper)
        self._lanes[loop] = lane
        return lane

    def _open(self, package: Any, timeout: float | None) -> Any:
        """A client from `redis` or `redis.asyncio` that neither retries nor checks by itself: the budget is ours."""
        options: dict[str, Any] = {
            "protocol": 2,  # as fast as 3 for what is asked here, and greets the server without a round trip
            "retry": package.retry.Retry(self._redis.backoff.NoBackoff(), 0),
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout and timeout / 2,
            "max_connections": 2**31,  # at its limit redis-py fails a call instead of letting it wait
            **_no_introduction(package.Redis),
            **self._options,
        }
        if self._url is None:
            return package.Redis(**options)
        try:
            return package.Redis.from_url(self._url, **options)
        except ValueError:
            # Without its cause, which may quote a piece of the password.
            raise ConfigurationError(
                "The url of the Redis store cannot be read. It begins with redis://, rediss:// or unix://, and special "
                "characters in its password are percent-encoded."
            ) from None

    def _sweep(self) -> None:
        for loop in _keys(self._lanes):
            if loop.is_closed():
                lane = self._lanes.pop(loop, None)
                if lane is not None:
                    lane.abandon()

    def _pattern(self, prefix: str) -> str:
        return re.sub(r"([*?\[\]\\])", r"\\\1", self._entries + prefix) + "*"

    def _batches(self, prefix: str) -> Iterator[list[bytes]]:
        names = self._client.scan_iter(match=self._pattern(prefix), count=_BATCH)
        while batch := list(islice(names, _BATCH)):
            yield batch


class _Lane:
    """What one event loop talks through: its own client, and how many calls may use it at a time."""

    __slots__ = ("client", "keeper", "outages", "pid", "places")

    def __init__(self, client: Any, places: int, keeper: AsyncGenerator[None] | None) -> None:
        self.client, self.places, self.keeper = client, asyncio.Semaphore(places), keeper
        self.outages, self.pid = 0, os.getpid()

    def abandon(self) -> None:
        """Close the sockets after the loop was closed without a chance to. A closed loop can no longer be waited on."""
        if self.keeper is None:
            return
        pool = self.client.connection_pool
        for connection in chain(pool._available_connections, pool._in_use_connections):
            writer, connection._reader, connection._writer = connection._writer, None, None
            if writer is not None:
                with suppress(RuntimeError):  # that the loop is closed; by then the transport knows that it is closing
                    writer.transport.close()
                # The rest of closing, which the transport has just failed to leave to the loop.
                finish = getattr(writer.transport, "_call_connection_lost", None)
                if finish is not None:
                    finish(None)


class _Patience:
    """Like `asyncio.timeout`, but a loop too busy to read its sockets is not mistaken for a server that is silent.

    Once the seconds are over, the loop gets a few turns to deliver what has arrived. They cost an idle loop nothing.
    """

    __slots__ = ("_limit", "_loop", "_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds, self._limit = seconds, asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle = self._loop.call_later(self._seconds, self._take_turn, _TURNS)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._limit.__aexit__(kind, error, traceback)

    def _take_turn(self, left: int) -> None:
        if left:
            self._timer = self._loop.call_soon(self._take_turn, left - 1)
        else:
            self._limit.reschedule(self._loop.time())


async def _keep(client: Any, lanes: WeakKeyDictionary[AbstractEventLoop, _Lane]) -> AsyncGenerator[None]:
    """Close `client` while its loop still runs: asyncio ends the generators of a loop before it closes the loop."""
    try:
        yield
    finally:
        loop = asyncio.get_running_loop()
        lane = lanes.get(loop)
        if lane is not None and lane.client is client:
            del lanes[loop]
        await client.aclose()


def _finish(keeper: AsyncGenerator[None]) -> None:
    task = asyncio.ensure_future(keeper.aclose())
    _finishing.add(task)  # asyncio itself holds on to a task only weakly
    task.add_done_callback(_finishing.discard)


_finishing: set[asyncio.Future[None]] = set()


def _keys(lanes: WeakKeyDictionary[AbstractEventLoop, _Lane]) -> list[AbstractEventLoop]:
    # One step, unlike list(lanes), which other threads may disturb.
    return [loop for reference in lanes.keyrefs() if (loop := reference()) is not None]


# What is asked of Redis, of a sync client and of an async one alike (which answers with something to await).


def _get_lean(client: Any, name: str) -> Any:
    """One GET over a pooled connection, without the client's layers of commands and options: a quarter less time.

    A connection that was interrupted between the two halves is no danger: the pool throws away one with data unread.
    """
    pool = client.connection_pool
    connection = pool.get_connection()
    try:
        connection.send_command("GET", name)
        return connection.read_response()
    finally:
        pool.release(connection)


def _get(client: Any, name: str) -> Any:
    return client.get(name)


def _set(client: Any, name: str, value: bytes, ttl: float | None) -> Any:
    return client.set(name, value, px=None if ttl is None else _milliseconds(ttl))


def _remove(client: Any, *names: str | bytes) -> Any:
    return client.unlink(*names)


def _scan(client: Any, cursor: int, pattern: str) -> Any:
    return client.scan(cursor, match=pattern, count=_BATCH)


def _take(client: Any, name: str, token: str, ttl: float) -> Any:
    return client.set(name, token, nx=True, px=_milliseconds(ttl))


def _renew(client: Any, name: str, token: str, ttl: float) -> Any:
    return client.register_script(_RENEW)(keys=[name], args=[token, _milliseconds(ttl)])


def _release(client: Any, name: str, token: str) -> Any:
    return client.register_script(_RELEASE)(keys=[name], args=[token])


def _measure(client: Any, names: list[bytes]) -> list[tuple[int | None, int | None, int]]:
    """Of each key the size, the seconds since its last use and the milliseconds it has left. None: not of our kind."""
    pipeline = client.pipeline(transaction=False)
    pipeline.execute_command("CLIENT", "NO-TOUCH", "ON")  # to look is not to use; from Redis 7.2 on
    for name in names:
        pipeline.object("IDLETIME", name)
        pipeline.strlen(name)
        pipeline.pttl(name)
    pipeline.execute_command("CLIENT", "NO-TOUCH", "OFF")
    answers = pipeline.execute(raise_on_error=False)[1:-1]
    for answer in answers[1::3]:
        if isinstance(answer, Exception) and "WRONGTYPE" not in str(answer):
            raise answer
    answers = [None if isinstance(answer, Exception) else answer for answer in answers]
    return list(zip(answers[1::3], answers[::3], answers[2::3], strict=True))


def _look_at(client: Any, names: list[str]) -> Any:
    """Their values in one round trip, without a trace in what the server knows of their use."""
    pipeline = client.pipeline(transaction=False)
    pipeline.execute_command("CLIENT", "NO-TOUCH", "ON")  # from Redis 7.2 on
    for name in names:
        pipeline.get(name)
    pipeline.execute_command("CLIENT", "NO-TOUCH", "OFF")
    answers = pipeline.execute(raise_on_error=False)[1:-1]
    for answer in answers:
        if isinstance(answer, Exception) and "WRONGTYPE" not in str(answer):
            raise answer
    return [None if isinstance(answer, Exception) else answer for answer in answers]


def _milliseconds(ttl: float) -> int:
    return max(1, round(ttl * 1000))


def _no_introduction(kind: Any) -> dict[str, None]:
    # CLIENT SETINFO, two round trips of each new connection. redis-py renamed the switch in version 7.
    if "driver_info" in inspect.signature(kind).parameters:
        return {"driver_info": None}
    return {"lib_name": None, "lib_version": None}


def _import_redis() -> Any:
    try:
        import redis
        import redis.asyncio.retry
        import redis.backoff
        import redis.retry
    except ImportError:
        raise MissingPackage("The Redis store", "redis", "redis") from None
    return redis
