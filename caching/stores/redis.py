"""In Redis or Valkey: shared by processes and hosts, with leases and tags. One server, Sentinels or a cluster.

Entries live under `<prefix>e:<key>`, leases under `<prefix>l:<key>` and tags under `<prefix>t:<namespace>:<tag>`, so
listing entries never meets another kind.
"""

from __future__ import annotations

import asyncio
import copy
import os
import re
import secrets
import time
from asyncio import AbstractEventLoop
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from ...core.errors import ConfigurationError, MissingPackage
from ...core.flow import Flow, Io, arun, run
from . import redis_commands as commands
from .base import Record, Store
from .redis_loops import Lane, Patience, Write, finish, keep, loops_of
from .redis_servers import Address, Clients, Servers, find_servers

_BYTES = "The Redis store keeps bytes: leave out decode_responses=True."


class RedisStore(Store):
    """A Redis or Valkey server (6 or later), the master that Sentinels name, or a cluster, through redis-py.

    - One server: `url` (`redis://`, `rediss://`, `unix://`) or the single fields.
    - A cluster: `startup_nodes=[{"host": …, "port": …}]`, any of its nodes; or `cluster=True` and the fields of one; or
      `redis+cluster://user:password@one:7000,two:7000` (`rediss+cluster://`).
    - Sentinels: `sentinel_nodes=[(host, port)]` and `service_name`, with their own `sentinel_username` and
      `sentinel_password`. `username` and `password` are the master's.

    Further keywords go to redis-py (`ssl_ca_certs`, `ssl_certfile`, `credential_provider` …). Or bring your own:
    `client` for sync calls and `aclient` for async ones, used as they are, with their own timeouts, and left open. With
    `client` alone, async calls run it in a thread; with `aclient` alone, sync calls go by `url` or the fields.

    `budget` bounds an operation including its connect. A connect gets half of it, as the command that follows takes at
    least as many round trips. Two things a sync call cannot bound: a name server that hangs (give an IP address where
    that matters), and an answer that keeps trickling in. A server of a cluster, or a master, that fails is asked
    about anew by the next attempt, within the budget.

    `max_connections` bounds the connections of one event loop; calls beyond it wait their turn, which costs no
    throughput. Threads open a connection each as they need it. Writes that begin in the same turn of an event loop are
    sent together.

    Redis does not know when a key was written, only when it was last used: that is what `stored_at` says in a `Record`
    of `scan`, to the second, and 0.0 where the server counts uses instead (an LFU eviction policy). A scan may name an
    entry twice if the server shrinks its table meanwhile, or a cluster moves it; it passes over what is just moving.

    A tag of a namespace is a sorted set of the keys that have it, by the time when each ends: what has ended leaves it
    with the next write under that tag, and the set itself ends a minute after its last key. A server that evicts keys
    (`maxmemory` with one of the `allkeys-` policies, or a `volatile-` one) may evict such a set before the entries, and
    then `clear_tag` no longer finds them; `clear` of a namespace always does. Where clearing by tag must be complete,
    use `noeviction` and TTLs. An entry that is written in the very moment in which its tag is cleared may stay.
    """

    name: ClassVar[str] = "redis"
    leases: ClassVar[bool] = True

    def __init__(
        self,
        *,
        url: str | None = None,
        host: str | None = None,
        port: int | None = None,
        password: str | None = None,
        username: str | None = None,
        db: int = 0,
        ssl: bool = False,
        unix_socket_path: str | None = None,
        cluster: bool = False,
        startup_nodes: Sequence[Any] | None = None,
        sentinel_nodes: Sequence[Any] | None = None,
        service_name: str | None = None,
        sentinel_username: str | None = None,
        sentinel_password: str | None = None,
        prefix: str = "rejoinder:",
        budget: float = 0.1,
        max_connections: int = 32,
        client: Any = None,
        aclient: Any = None,
        **more: Any,
    ) -> None:
        self._redis = _import_redis()
        self.prefix, self.budget, self.max_connections = prefix, budget, max_connections
        self._entries, self._leases, self._tags = f"{prefix}e:", f"{prefix}l:", f"{prefix}t:"
        self._home = find_servers(
            self._redis,
            budget=budget,
            url=url,
            host=host,
            port=port,
            unix_socket_path=unix_socket_path,
            cluster=cluster,
            startup_nodes=startup_nodes,
            sentinel_nodes=sentinel_nodes,
            service_name=service_name,
            sentinel_username=sentinel_username,
            sentinel_password=sentinel_password,
            options={"username": username, "password": password, "db": db, **({"ssl": True} if ssl else {}), **more},
        )
        self._home.read_certificates()
        self._servers = self._home if isinstance(self._home, Servers) else None
        self._is_ours, self._is_threaded = client is None, client is not None and aclient is None
        self._clients = Clients(self._home, self._redis, budget)
        self._client = client
        if client is None and self._servers is None:
            self._client = self._clients.at(None)
        if more.get("decode_responses"):
            raise ConfigurationError(_BYTES)
        self._aclient = aclient
        self._check_clients()
        self._get = commands.get_lean if client is None else commands.get
        self._aget = commands.aget_lean if client is None and aclient is None else commands.get

        self._lanes: WeakKeyDictionary[AbstractEventLoop, Lane] = WeakKeyDictionary()
        self._inherited: list[Lane] = []

    def __repr__(self) -> str:
        if self._servers is not None:
            return f"RedisStore({self._servers}, prefix={self.prefix!r})"
        pool = getattr(self._client, "connection_pool", None)
        options = getattr(pool, "connection_kwargs", {})
        where = options.get("path") or f"{options.get('host')}:{options.get('port')}"
        return f"RedisStore({where}, db={options.get('db', 0)}, prefix={self.prefix!r})"

    def get(self, key: str) -> bytes | None:
        value: bytes | None = self._ask(self._get, self._entries + key)
        return value

    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        self._ask(commands.put, self._entries + key, value, ttl)

    def delete(self, key: str) -> bool:
        return bool(self._ask(commands.remove, self._entries + key))

    def scan(self, prefix: str = "") -> Iterator[Record]:
        for address in run(self._addresses()):
            cursor, names = self._ask(commands.scan, address, 0, self._pattern(prefix))
            while True:
                yield from self._records(address, names)
                if not cursor:
                    break
                cursor, names = self._ask(commands.scan, address, cursor, self._pattern(prefix))

    def peek(self, keys: Sequence[str]) -> list[bytes | None]:
        run(self._know())
        values: dict[str, bytes | None] = {}
        for address, names in self._groups([self._entries + key for key in keys]):
            answers = self._ask(commands.look_at, address, names)[1:-1]
            for name, answer in zip(names, answers, strict=True):
                if isinstance(answer, self._redis.exceptions.AskError):
                    answer = self._ask(commands.get, name)
                values[name] = None if self._is_foreign(answer) else answer
        return [values[self._entries + key] for key in keys]

    def clear(self, prefix: str = "") -> int:
        return run(self._clear(prefix))

    def tag(self, key: str, tags: Sequence[str], ttl: float | None = None) -> None:
        run(self._tag(key, tags, ttl))

    def tagged(self, prefix: str, tag: str) -> Iterator[str]:
        name, cursor = self._tag_name(prefix, tag), None
        while cursor != 0:
            cursor, found = self._ask(commands.members, name, cursor or 0)
            for member, _ in found:
                yield prefix + member.decode()

    def clear_tag(self, prefix: str, tag: str) -> int:
        return run(self._clear_tag(prefix, tag))

    def close(self) -> None:
        """Close the connections of threads now; a running event loop closes its own at its next turn."""
        # A call under way in another thread keeps the old client, whose last connections close with it.
        old, self._clients = self._clients, Clients(self._home, self._redis, self.budget)
        if self._is_ours and self._servers is None:
            self._client = self._clients.at(None)
        for client in old.opened():
            client.connection_pool.disconnect(inuse_connections=False)
        self._sweep()
        for loop in loops_of(self._lanes):
            lane = self._lanes.pop(loop, None)
            if lane is not None and lane.keeper is not None and lane.pid == os.getpid():
                with suppress(RuntimeError):  # closed just now
                    loop.call_soon_threadsafe(finish, lane.keeper)

    def lease(self, key: str, ttl: float) -> str | None:
        return run(self._lease(key, ttl))

    def renew(self, key: str, token: str, ttl: float) -> bool:
        return bool(self._ask(commands.renew, self._leases + key, token, ttl))

    def release(self, key: str, token: str) -> bool:
        return bool(self._ask(commands.release, self._leases + key, token))

    async def aget(self, key: str) -> bytes | None:
        value: bytes | None = await self._aask(self._aget, self._entries + key)
        return value

    async def aset(self, key: str, value: bytes, ttl: float | None = None) -> None:
        write = (
            (self._entries + key).encode(),
            value,
            ttl,
        )  # text that cannot be encoded is this writer's trouble only
        lane = self._lanes.get(asyncio.get_running_loop())
        if lane is None or lane.pid != os.getpid():
            lane = None if self._is_threaded else await self._open_lane()
        if lane is None or lane.writes.is_first(self._send):
            await self._aask(commands.put, *write)
        else:
            await lane.writes.join(write)

    async def adelete(self, key: str) -> bool:
        return bool(await self._aask(commands.remove, self._entries + key))

    async def aclear(self, prefix: str = "") -> int:
        return await arun(self._clear(prefix))

    async def atag(self, key: str, tags: Sequence[str], ttl: float | None = None) -> None:
        await arun(self._tag(key, tags, ttl))

    async def aclear_tag(self, prefix: str, tag: str) -> int:
        return await arun(self._clear_tag(prefix, tag))

    async def aclose(self) -> None:
        """Close this event loop's connections and those of threads; another running loop closes its own soon."""
        lane = self._lanes.pop(asyncio.get_running_loop(), None)
        if lane is not None and lane.keeper is not None and lane.pid == os.getpid():
            await lane.keeper.aclose()
        self.close()

    async def alease(self, key: str, ttl: float) -> str | None:
        return await (super().alease(key, ttl) if self._is_threaded else arun(self._lease(key, ttl)))

    async def arenew(self, key: str, token: str, ttl: float) -> bool:
        return bool(await self._aask(commands.renew, self._leases + key, token, ttl))

    async def arelease(self, key: str, token: str) -> bool:
        return bool(await self._aask(commands.release, self._leases + key, token))

    # ── what takes several questions, as flows ────────────────────────────────────────────────────────────────────

    def _io(self, operation: Callable[..., Any], *args: Any) -> Io:
        return Io(self._ask, self._aask, (operation, *args))

    def _know(self) -> Flow[None]:
        """Have a table of the servers, which the first question brings along."""
        if self._servers is not None and not self._servers.primaries:
            yield self._io(commands.get, self._entries)

    def _addresses(self) -> Flow[Sequence[Address | None]]:
        """The servers that have keys as of now, each to be scanned."""
        if self._servers is None:
            return [None]
        self._servers.doubt()
        yield self._io(commands.get, self._entries)
        return self._servers.primaries

    def _groups(self, names: Sequence[Any]) -> Iterable[tuple[Address | None, Sequence[Any]]]:
        """`names` by the server that has each."""
        if self._servers is not None:
            return self._servers.groups(names)
        return [(None, names)] if names else []

    def _lease(self, key: str, ttl: float) -> Flow[str | None]:
        name, token = self._leases + key, secrets.token_hex(16)
        with self.leaving_nothing_taken(key, token):
            if (yield self._io(commands.take, name, token, ttl)):
                return token
            # If an answer was lost together with its connection, the second attempt meets our own token.
            return token if (yield self._io(commands.get, name)) == token.encode() else None

    def _clear(self, prefix: str) -> Flow[int]:
        count = 0
        for address in (yield from self._addresses()):
            count += yield from self._sweep_server(address, self._pattern(prefix))
            # Of whole namespaces: a tag has no part that belongs to some of the keys only.
            if ":" not in prefix[:-1]:
                yield from self._sweep_server(address, self._pattern(prefix, self._tags))
        return count

    def _sweep_server(self, address: Address | None, pattern: str) -> Flow[int]:
        count, cursor = 0, None
        while cursor != 0:
            cursor, names = yield self._io(commands.scan, address, cursor or 0, pattern)
            count += yield from self._remove(names)
        return count

    def _remove(self, names: Sequence[str | bytes]) -> Flow[int]:
        count = 0
        for address, group in self._groups(names):
            if address is None:
                count += yield self._io(commands.remove_together, None, group)
                continue
            answers = yield self._io(commands.remove_each, address, group)
            for name, answer in zip(group, answers, strict=True):
                if isinstance(answer, Exception):  # it has moved, most likely
                    answer = yield self._io(commands.remove, name)
                count += answer
        return count

    def _tag(self, key: str, tags: Sequence[str], ttl: float | None) -> Flow[None]:
        cut = key.find(":") + 1
        for tag in dict.fromkeys(tags):
            yield self._io(commands.tag, self._tag_name(key[:cut], tag), key[cut:], ttl)

    def _clear_tag(self, prefix: str, tag: str) -> Flow[int]:
        name, start = self._tag_name(prefix, tag), (self._entries + prefix).encode()
        count, cursor = 0, None
        while cursor != 0:
            cursor, found = yield self._io(commands.members, name, cursor or 0)
            if found:
                yield from self._know()
                count += yield from self._remove([start + member for member, _ in found])
                yield self._io(commands.untag, name, found)
        return count

    # ── one question ──────────────────────────────────────────────────────────────────────────────────────────────

    def _ask(self, operation: Callable[..., Any], *args: Any) -> Any:
        if self._servers is not None:
            return run(self._servers.route(self._clients, operation, *args))
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
                async with Patience(self.budget):
                    if self._servers is None:
                        answer = await self._repeat(operation, lane.client, *args)
                    else:
                        answer = await arun(self._servers.route(lane.clients, operation, *args))
            except TimeoutError:
                lane.outages += 1
                if self._servers is not None:
                    self._servers.doubt()
                raise TimeoutError(f"Redis did not answer within {self.budget} s.") from None
            except self._redis.ConnectionError:
                lane.outages += 1
                raise
        if lane.held_back:
            lane.let_in()
        return answer

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

    async def _send(self, writes: list[Write]) -> list[Exception | None]:
        """Do several writes in one round trip to each server; for each its error, or None."""
        await arun(self._know())
        errors: list[Exception | None] = [None] * len(writes)
        numbers: defaultdict[bytes, list[int]] = defaultdict(list)
        for number, (name, _, _) in enumerate(writes):
            numbers[name].append(number)

        async def send_to(address: Address | None, group: list[int]) -> None:
            try:
                answers = await self._aask(commands.put_all, address, [writes[number] for number in group])
            except Exception as error:
                answers = [copy.copy(error) for _ in group]  # to each its own, as each adds to its traceback
            for number, answer in zip(group, answers, strict=True):
                if isinstance(answer, self._redis.exceptions.AskError):  # it has moved
                    await self._aask(commands.put, *writes[number])
                elif isinstance(answer, Exception):
                    errors[number] = answer

        groups = self._groups(list(numbers))
        await asyncio.gather(
            *(send_to(address, [n for name in names for n in numbers[name]]) for address, names in groups)
        )
        return errors

    async def _open_lane(self) -> Lane:
        loop = asyncio.get_running_loop()
        self._sweep()
        inherited = self._lanes.pop(loop, None)
        if inherited is not None:
            # Forked inside a running loop. Kept, for closing it here would take the parent's sockets out of the poll.
            self._inherited.append(inherited)
        clients = Clients(self._home, self._redis.asyncio, None)
        if self._aclient is not None:
            lane = Lane(self._aclient, clients, self.max_connections, None)
        else:
            keeper = keep(clients, self._lanes)
            await anext(keeper)  # does not suspend
            client = clients.at(None) if self._servers is None else None
            lane = Lane(client, clients, self.max_connections, keeper)
            if self._home.is_encrypted:
                lane.hold_back()
        self._lanes[loop] = lane
        return lane

    def _sweep(self) -> None:
        for loop in loops_of(self._lanes):
            if loop.is_closed():
                lane = self._lanes.pop(loop, None)
                if lane is not None:
                    lane.abandon()

    # ── names ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _pattern(self, prefix: str, kind: str | None = None) -> str:
        return re.sub(r"([*?\[\]\\])", r"\\\1", (kind or self._entries) + prefix) + "*"

    def _tag_name(self, prefix: str, tag: str) -> str:
        return f"{self._tags}{prefix or ':'}{tag}"

    def _records(self, address: Address | None, names: Sequence[bytes]) -> Iterator[Record]:
        if not names:
            return
        answers = self._ask(commands.measure, address, names)[1:-1]
        for name, idle, size, rest_ms in zip(names, answers[::3], answers[1::3], answers[2::3], strict=True):
            if self._is_foreign(size) or rest_ms == commands.GONE:
                continue
            now = time.time()
            key = name.decode(errors="replace").removeprefix(self._entries)
            used_at = 0.0 if idle is None or isinstance(idle, Exception) else now - idle
            yield Record(key, size, used_at, None if rest_ms == commands.FOREVER else now + rest_ms / 1000)

    def _is_foreign(self, answer: Any) -> bool:
        """Whether the key asked about is none of ours, or has just moved. Other errors are raised."""
        if not isinstance(answer, Exception):
            return False
        if isinstance(answer, self._redis.exceptions.AskError) or "WRONGTYPE" in str(answer):
            return True
        raise answer

    def _check_clients(self) -> None:
        for each in (self._client, self._aclient):
            if each is None:
                continue
            if self._servers is not None or not hasattr(each, "connection_pool"):
                raise ConfigurationError(
                    "A client of your own is one of a single server. For a cluster give startup_nodes, for Sentinels "
                    "sentinel_nodes and service_name, and the Redis store makes a client for each server."
                )
            if each.get_encoder().decode_responses:
                raise ConfigurationError(_BYTES)


def _import_redis() -> Any:
    try:
        import redis
        import redis.asyncio.retry
        import redis.backoff
        import redis.connection
        import redis.crc
        import redis.retry
    except ImportError:
        raise MissingPackage("The Redis store", "redis", "redis") from None
    return redis
