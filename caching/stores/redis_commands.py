"""What the Redis store asks of a server, of a sync client and of an async one alike (it answers with an awaitable).

The second argument of each says where: the key it is about, or, where a whole server is asked, that server's address.
Only commands about single keys are used for what a cluster keeps in several places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BATCH = 500  # keys asked about, or removed, in one round trip

GONE, FOREVER = -2, -1  # what PTTL says of a key that is not there, and of one without an end

# Sent whole each time: these few bytes cost less than the round trip in which a server says that it has forgotten them.
_RENEW = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2]) or 0"
_RELEASE = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0"

# A tag's members, each with the millisecond in which it may be forgotten. Without a TTL that is in the year 128,000,
# plus now, so that tagging anew always changes it.
_TAG = """
local key, member, ttl = KEYS[1], ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
local rest = redis.call('PTTL', key)
redis.call('ZADD', key, now + (ttl or 4e15), member)
if ttl and (rest == -2 or rest >= 0 and rest < ttl) then
    redis.call('PEXPIRE', key, ttl)
elseif not ttl and rest >= 0 then
    redis.call('PERSIST', key)
end
"""

# Members that were tagged anew since they were read stay.
_UNTAG = """
for i = 1, #ARGV, 2 do
    local score = redis.call('ZSCORE', KEYS[1], ARGV[i])
    if score and tonumber(score) == tonumber(ARGV[i + 1]) then
        redis.call('ZREM', KEYS[1], ARGV[i])
    end
end
"""

_SPARE = 60.0  # seconds that a tag remembers a key beyond its TTL, which begins when it is set, a moment later


def get_lean(client: Any, name: str) -> Any:
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


async def aget_lean(client: Any, name: str) -> Any:
    """The same in an event loop. A connection that is cancelled while it sends or reads closes itself."""
    pool = client.connection_pool
    connection = await pool.get_connection()
    try:
        await connection.send_command("GET", name)
        return await connection.read_response()
    finally:
        await pool.release(connection)


def get(client: Any, name: str) -> Any:
    return client.get(name)


def put(client: Any, name: str | bytes, value: bytes, ttl: float | None) -> Any:
    return client.set(name, value, px=None if ttl is None else _milliseconds(ttl))


def put_all(client: Any, where: Any, writes: Sequence[tuple[bytes, bytes, float | None]]) -> Any:
    """Several at once; for each what the server says of it, or its error."""
    pipeline = client.pipeline(transaction=False)
    for write in writes:
        put(pipeline, *write)
    return pipeline.execute(raise_on_error=False)


def remove(client: Any, name: str | bytes) -> Any:
    return client.unlink(name)


def remove_together(client: Any, where: Any, names: Sequence[str | bytes]) -> Any:
    return client.unlink(*names)


def remove_each(client: Any, where: Any, names: Sequence[str | bytes]) -> Any:
    """For keys of different slots of a cluster, which one command may not name; for each 0, 1 or an error."""
    pipeline = client.pipeline(transaction=False)
    for name in names:
        pipeline.unlink(name)
    return pipeline.execute(raise_on_error=False)


def scan(client: Any, where: Any, cursor: int, pattern: str) -> Any:
    return client.scan(cursor, match=pattern, count=BATCH)


def take(client: Any, name: str, token: str, ttl: float) -> Any:
    return client.set(name, token, nx=True, px=_milliseconds(ttl))


def renew(client: Any, name: str, token: str, ttl: float) -> Any:
    return client.eval(_RENEW, 1, name, token, _milliseconds(ttl))


def release(client: Any, name: str, token: str) -> Any:
    return client.eval(_RELEASE, 1, name, token)


def tag(client: Any, name: str, member: str, ttl: float | None) -> Any:
    return client.eval(_TAG, 1, name, member, "" if ttl is None else _milliseconds(ttl + _SPARE))


def members(client: Any, name: str, cursor: int) -> Any:
    return client.zscan(name, cursor, count=BATCH)


def untag(client: Any, name: str, found: Sequence[tuple[bytes, float]]) -> Any:
    return client.eval(_UNTAG, 1, name, *[word for member, score in found for word in (member, score)])


def measure(client: Any, where: Any, names: Sequence[bytes]) -> Any:
    """Three answers for each key: the seconds since its last use, its size and the milliseconds it has left.

    They are between the answers to two commands about this connection: to look is not to use, from Redis 7.2 on.
    """
    pipeline = client.pipeline(transaction=False)
    pipeline.execute_command("CLIENT", "NO-TOUCH", "ON")
    for name in names:
        pipeline.object("IDLETIME", name)
        pipeline.strlen(name)
        pipeline.pttl(name)
    pipeline.execute_command("CLIENT", "NO-TOUCH", "OFF")
    return pipeline.execute(raise_on_error=False)


def look_at(client: Any, where: Any, names: Sequence[str]) -> Any:
    """Their values, without a trace in what the server knows of their use. They are between two other answers too."""
    pipeline = client.pipeline(transaction=False)
    pipeline.execute_command("CLIENT", "NO-TOUCH", "ON")
    for name in names:
        pipeline.get(name)
    pipeline.execute_command("CLIENT", "NO-TOUCH", "OFF")
    return pipeline.execute(raise_on_error=False)


def asking(client: Any, operation: Any, *args: Any) -> Any:
    """What `operation` asks, of the server that is just taking over the key's slot. The answer is the last."""
    pipeline = client.pipeline(transaction=False)
    pipeline.execute_command("ASKING")
    (get if operation in (get_lean, aget_lean) else operation)(pipeline, *args)
    return pipeline.execute()


def _milliseconds(ttl: float) -> int:
    return max(1, round(ttl * 1000))
