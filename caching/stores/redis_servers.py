"""Where a Redis store's keys are: on one server, on the master that Sentinels name, or on the primaries of a cluster.

Clusters and Sentinels are asked here and not through redis-py's classes for them, as those know no budget: they connect
when they are made, wait between attempts, and try all nodes before they give up.
"""

from __future__ import annotations

import inspect
import os
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from ...core.errors import ConfigurationError, WrongType, suggestion
from ...core.flow import Flow, Io
from .redis_commands import asking

Address = tuple[str, int]

_ATTEMPTS = 4  # to find the server that has a key, each after it turned out that the one before had not


class OneServer:
    """How a client is opened. `url`, if there is one, says where; else `options` do."""

    def __init__(self, redis: Any, url: str | None, options: Mapping[str, Any]) -> None:
        self._redis, self._url, self._options = redis, url, options
        self._tls: Any = None

    def read_certificates(self) -> None:
        """Do so once, and before any call: it takes a tenth of a second, which is the budget of a call.

        redis-py would read them for each connection. Raises `ConfigurationError` if they cannot be used.
        """
        if not self.is_encrypted:
            return
        pool = self.open(self._redis.asyncio, None, self._an_address).connection_pool
        try:
            tls = pool.connection_class(**pool.connection_kwargs).ssl_context
            tls.get()
        except (OSError, ValueError, self._redis.RedisError) as error:
            raise ConfigurationError(f"The certificates for Redis cannot be used: {error}") from error
        self._tls = tls

    def open(self, package: Any, timeout: float | None, address: Address | None) -> Any:
        """A client from `redis` or `redis.asyncio` that neither retries nor checks by itself: the budget is ours."""
        options: dict[str, Any] = {
            "protocol": 2,  # as fast as 3 for what is asked here, and greets the server without a round trip
            "retry": package.retry.Retry(self._redis.backoff.NoBackoff(), 0),
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout and timeout / 2,
            "max_connections": 2**31,  # at its limit redis-py fails a call instead of letting it wait
            **_no_introduction(package.Redis),
            **self._options_of(address),
        }
        if package is self._redis and self.is_encrypted:
            options.setdefault("redis_connect_func", self._greet)
        try:
            opened = package.Redis(**options) if self._url is None else package.Redis.from_url(self._url, **options)
        except ValueError:
            if self._url is None:
                raise
            raise _unreadable() from None  # without its cause, which may quote a piece of the password
        if self._tls is not None:
            pool = opened.connection_pool
            pool.connection_class = _sharing(pool.connection_class, self._tls, options)
        return opened

    @property
    def _an_address(self) -> Address | None:
        return None

    @property
    def is_encrypted(self) -> bool:
        return bool(self._options.get("ssl")) or (self._url or "").startswith("rediss")

    def _greet(self, connection: Any) -> None:
        """Exchange a word once a connection is made.

        TLS 1.3 servers send their session tickets after the handshake. Where nothing else is read first, redis-py 8
        takes these for an answer that was left unread, and gives up a connection that is as good as any.
        """
        connection.on_connect()
        connection.send_command("PING")
        with suppress(self._redis.ResponseError):  # that this user may not
            connection.read_response()

    def _options_of(self, address: Address | None) -> Mapping[str, Any]:
        return self._options


class Clients:
    """One client for each server, opened when it is first wanted. Those of threads, or those of one event loop."""

    def __init__(self, servers: OneServer, package: Any, timeout: float | None) -> None:
        self._servers, self._package, self._timeout = servers, package, timeout
        self._clients: dict[Address | None, Any] = {}

    def at(self, address: Address | None) -> Any:
        client = self._clients.get(address)
        if client is None:
            # Of two threads that open one at once both get the same; the other has no connection yet.
            client = self._clients.setdefault(address, self._servers.open(self._package, self._timeout, address))
        return client

    def opened(self) -> list[Any]:
        return list(self._clients.values())


class Servers(OneServer, ABC):
    """Several servers, and a table that says which of them has a key: its slots, one after the other.

    `seeds` are asked for the table, one after the other until one answers. A table that has led astray is doubted, and
    the next call asks for another.
    """

    def __init__(self, redis: Any, options: Mapping[str, Any], seeds: Sequence[Address], budget: float) -> None:
        super().__init__(redis, None, options)
        self._seeds, self._budget = list(seeds), budget
        self._table: list[Address | None] = []
        self._is_doubtful = True

    def doubt(self) -> None:
        """The server that a call went to did not answer."""
        self._is_doubtful = True

    @property
    def primaries(self) -> list[Address]:
        """Those that have keys; none before the first call."""
        return sorted({address for address in self._table if address is not None})

    def groups(self, names: Sequence[Any]) -> Iterator[tuple[Address, list[Any]]]:
        """`names` by the server that has them, as far as is known."""
        groups: defaultdict[Address, list[Any]] = defaultdict(list)
        for name in names:
            groups[self._address_of(name)].append(name)
        return iter(groups.items())

    def route(self, clients: Clients, operation: Any, where: Any, *args: Any) -> Flow[Any]:
        """Have the server do `operation` that has the key `where`, or that is at the address `where`."""
        started, redis = time.monotonic(), self._redis
        for attempt in range(_ATTEMPTS):
            if self._is_doubtful:
                yield from self._look(clients, started)
            address = where if isinstance(where, tuple) else self._address_of(where)
            try:
                return (yield Io(operation, operation, (clients.at(address), where, *args)))
            except redis.exceptions.AskError as redirect:
                there = (redirect.host or address[0], redirect.port)
                if isinstance(redirect, redis.exceptions.MovedError):
                    self._table[redirect.slot_id] = there
                else:
                    io = Io(asking, asking, (clients.at(there), operation, where, *args))
                    return (yield io)[-1]
            except (redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError) as error:
                self._is_doubtful = True
                # The subclasses (a wrong password, a server that is still loading) would only fail again.
                may_repeat = type(error) in (redis.ConnectionError, redis.ReadOnlyError)
                if not may_repeat or attempt == _ATTEMPTS - 1 or self._is_late(started):
                    raise
        raise redis.ConnectionError("The servers of the cluster send each other's callers around in a circle.")

    def _look(self, clients: Clients, started: float) -> Flow[None]:
        last: Exception | None = None
        for seed in list(self._seeds):
            # Last until it has answered: if it hangs and this call is given up, the next one begins with another.
            self._seeds = [*(other for other in self._seeds if other != seed), seed]
            try:
                table, nodes = self._read((yield Io(self._ask, self._ask, (clients.at(seed),))), seed)
            except (self._redis.RedisError, OSError) as error:
                last = error
                if self._is_late(started):
                    raise
                continue
            self._seeds = [seed, *(node for node in (*nodes, *self._seeds) if node != seed)]
            self._seeds = list(dict.fromkeys(self._seeds))
            self._table, self._is_doubtful = table, False
            return
        raise self._redis.ConnectionError(f"{self} cannot be asked who has which key: {last}") from last

    def _address_of(self, name: str | bytes) -> Address:
        encoded = name if isinstance(name, bytes) else name.encode()
        slot: int = self._redis.crc.key_slot(encoded, len(self._table))
        address = self._table[slot]
        if address is None:
            self._is_doubtful = True
            raise self._redis.ConnectionError(f"No server of {self} has slot {slot} just now.")
        return address

    @property
    def _an_address(self) -> Address:
        return self._seeds[0]

    def _is_late(self, started: float) -> bool:
        return time.monotonic() - started > self._budget / 2

    def _options_of(self, address: Address | None) -> Mapping[str, Any]:
        assert address is not None
        return {**self._options, "host": address[0], "port": address[1]}

    @abstractmethod
    def _ask(self, client: Any) -> Any:
        """The question for the table."""

    @abstractmethod
    def _read(self, answer: Any, asked: Address) -> tuple[list[Address | None], list[Address]]:
        """The table, and further servers that can be asked for it. Raises a `RedisError` if this is none."""


class Cluster(Servers):
    """A Redis Cluster: 16,384 slots, spread over its primaries."""

    def __str__(self) -> str:
        return f"The cluster of {_said(self._seeds[:3])}"

    def _ask(self, client: Any) -> Any:
        return client.execute_command("CLUSTER", "SLOTS")

    def _read(self, answer: Any, asked: Address) -> tuple[list[Address | None], list[Address]]:
        table: list[Address | None] = [None] * self._redis.crc.REDIS_CLUSTER_HASH_SLOTS
        nodes: list[Address] = []
        for first, last, *servers in answer:
            # A node that does not know its own name leaves it out: it is the one that we know it by.
            addresses = [(host.decode() if host else asked[0], port) for host, port, *_ in servers]
            table[first : last + 1] = addresses[:1] * (last + 1 - first)
            nodes += addresses
        if not nodes:
            raise self._redis.ConnectionError("no server has any slot")
        return table, nodes


class Sentinels(Servers):
    """A master that Sentinels watch, and replace when it fails. It has all keys: its table has one slot."""

    def __init__(
        self, redis: Any, options: Mapping[str, Any], seeds: Sequence[Address], budget: float, service: str, **own: Any
    ) -> None:
        super().__init__(redis, options, seeds, budget)
        self._service, self._given, self._own = service, frozenset(seeds), own

    def __str__(self) -> str:
        return f"The master {self._service!r} of the Sentinels at {_said(sorted(self._given))}"

    def _options_of(self, address: Address | None) -> Mapping[str, Any]:
        options = super()._options_of(address)
        if address not in self._given:
            return options
        # Sentinels have users of their own and no databases, and are reached in the same way, encrypted or not.
        private = dict.fromkeys(("username", "password", "credential_provider"))
        return {**options, **private, "db": 0, **self._own}

    def _ask(self, client: Any) -> Any:
        return client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)

    def _read(self, answer: Any, asked: Address) -> tuple[list[Address | None], list[Address]]:
        if answer is None:
            raise self._redis.ConnectionError(f"the Sentinel at {_said([asked])} knows no {self._service!r}")
        host, port = answer
        return [(host.decode(), int(port))], []


def _sharing(kind: Any, tls: Any, options: Mapping[str, Any]) -> Any:
    """A class of connections like `kind`, of which none reads the certificates anew."""
    if not hasattr(kind, "_wrap_socket_with_ssl"):

        class Sharing(kind):  # type: ignore[misc]
            def __init__(self, *args: Any, **more: Any) -> None:
                super().__init__(*args, **more)
                self.ssl_context = tls

        return Sharing
    if any(name.startswith("ssl_validate_ocsp") and value for name, value in options.items()):
        return kind

    class SharingInThreads(kind):  # type: ignore[misc]
        def _wrap_socket_with_ssl(self, sock: Any) -> Any:
            return tls.get().wrap_socket(sock, server_hostname=self.host)

    return SharingInThreads


def find_servers(
    redis: Any,
    *,
    budget: float,
    url: str | None,
    host: str | None,
    port: int | None,
    unix_socket_path: str | None,
    cluster: bool,
    startup_nodes: Sequence[Any] | None,
    sentinel_nodes: Sequence[Any] | None,
    service_name: str | None,
    sentinel_username: str | None,
    sentinel_password: str | None,
    options: dict[str, Any],
) -> OneServer:
    """Where these options of the Redis store lead. Raises `ConfigurationError` if they contradict each other."""
    given = {
        "redis_url": url,
        "host": host,
        "unix_socket_path": unix_socket_path,
        "startup_nodes": startup_nodes,
        "sentinel_nodes": sentinel_nodes,
    }
    ways = [name for name, value in given.items() if value is not None]
    if len(ways) > 1:
        raise ConfigurationError(f"{' and '.join(ways)} each say where Redis is: give one of them.")
    if port is not None and ways not in ([], ["host"]):
        raise ConfigurationError(f"port goes with host, not with {ways[0]}.")
    if (sentinel_nodes is None) != (service_name is None):
        raise ConfigurationError("sentinel_nodes and service_name, the name of the master, go together.")
    if sentinel_nodes is None and (sentinel_username or sentinel_password):
        raise ConfigurationError("sentinel_username and sentinel_password are for sentinel_nodes.")
    if cluster and (sentinel_nodes is not None or unix_socket_path is not None):
        raise ConfigurationError(f"A cluster is found by redis_url, host or startup_nodes, not by {ways[0]}.")
    _check_names(redis, options)
    _check_tls(options, url, unix_socket_path)

    if sentinel_nodes is not None:
        seeds, own = _nodes("sentinel_nodes", sentinel_nodes), {}
        if sentinel_username or sentinel_password:
            own = {"username": sentinel_username, "password": sentinel_password}
        return Sentinels(redis, options, seeds, budget, str(service_name), **own)
    if cluster or startup_nodes is not None or (url is not None and "+cluster://" in url):
        if startup_nodes is not None:
            seeds = _nodes("startup_nodes", startup_nodes)
        elif url is not None:
            said, seeds = _cluster_url(redis, url)
            options = {**options, **said}
        else:
            seeds = [(host or "localhost", port or 6379)]
        if options.get("db"):
            raise ConfigurationError(f"db={options['db']}: a cluster has database 0 only.")
        return Cluster(redis, options, seeds, budget)
    if url is not None:
        options.pop("ssl", None)  # the URL's scheme says so
        return OneServer(redis, url, options)
    place = {"host": host or "localhost", "port": port or 6379, "unix_socket_path": unix_socket_path}
    return OneServer(redis, None, {**options, **place})


def _check_names(redis: Any, options: Mapping[str, Any]) -> None:
    known = inspect.signature(redis.Redis).parameters
    for name in options:
        if name not in known:
            raise ConfigurationError(f"The Redis store takes no {name}.{suggestion(name, known)}")


def _check_tls(options: Mapping[str, Any], url: str | None, unix_socket_path: str | None) -> None:
    """redis-py would leave out silently what is for TLS only, and name no file that it does not find."""
    is_tls = bool(options.get("ssl")) or (url is not None and url.startswith("rediss"))
    if is_tls and (unix_socket_path is not None or (url is not None and url.startswith("unix"))):
        raise ConfigurationError("A Unix socket has no TLS: leave out ssl.")
    if options.get("ssl") and url is not None and not url.startswith("rediss"):
        raise ConfigurationError("ssl=True and a URL that begins with redis://: write rediss://.")
    named = [name for name, value in options.items() if name.startswith("ssl_") and value is not None]
    if named and not is_tls:
        raise ConfigurationError(f"{named[0]} is for TLS: add ssl=True, or write rediss:// in the URL.")
    if options.get("ssl_keyfile") and not options.get("ssl_certfile"):
        raise ConfigurationError("ssl_keyfile goes with ssl_certfile.")
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        path = options.get(name)
        if path is not None and not os.path.isfile(path):
            raise ConfigurationError(f"{name}={path!r}: there is no such file.")


def _nodes(option: str, given: Sequence[Any]) -> list[Address]:
    """`[{"host": "a", "port": 7000}]` and `[("a", 7000)]` alike."""
    try:
        pairs = [(each["host"], each["port"]) if isinstance(each, Mapping) else tuple(each) for each in given]
        nodes = [(str(host), int(port)) for host, port in pairs]
    except (TypeError, ValueError, KeyError):
        raise WrongType(
            f'{option}={given!r}: write [{{"host": "localhost", "port": 7000}}] or [("localhost", 7000)].'
        ) from None
    if not nodes:
        raise ConfigurationError(f"{option} is empty.")
    return nodes


def _cluster_url(redis: Any, url: str) -> tuple[dict[str, Any], list[Address]]:
    """redis+cluster://user:password@one:7000,two:7000 as options and nodes. One without "+cluster" names one node."""
    scheme, _, rest = url.replace("+cluster://", "://", 1).partition("://")
    credentials, at, rest = rest.rpartition("@")
    end = min((rest.find(mark) for mark in "/?" if mark in rest), default=len(rest))
    hosts, tail = rest[:end].split(","), rest[end:]
    try:
        options = redis.connection.parse_url(f"{scheme}://{credentials}{at}{hosts[0]}{tail}")
        places = [urlsplit(f"//{host}") for host in hosts]
        seeds = [(place.hostname or "localhost", place.port or 6379) for place in places]
    except ValueError:
        raise _unreadable() from None
    if "path" in options:
        raise ConfigurationError("A cluster is reached over TCP, not through a Unix socket.")
    options.pop("host", None)
    options.pop("port", None)
    if options.pop("connection_class", None) is not None:
        options["ssl"] = True
    return options, seeds


def _unreadable() -> ConfigurationError:
    return ConfigurationError(
        "The url of the Redis store cannot be read. It begins with redis://, rediss://, unix://, redis+cluster:// or "
        "rediss+cluster://, and special characters in its password are percent-encoded."
    )


def _said(addresses: Sequence[Address]) -> str:
    return ", ".join(f"{host}:{port}" for host, port in addresses)


def _no_introduction(kind: Any) -> dict[str, None]:
    # CLIENT SETINFO, two round trips of each new connection. redis-py renamed the switch in version 7.
    if "driver_info" in inspect.signature(kind).parameters:
        return {"driver_info": None}
    return {"lib_name": None, "lib_version": None}
