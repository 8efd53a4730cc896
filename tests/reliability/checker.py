"""Does a store keep its word? A worker does mixed operations and notes what it saw; `judged` compares all notes.

Every value says by whom and when it was written, and carries a checksum. A worker checks on the spot what it alone can
know: on keys that only it writes it reads its own last write, and on keys of others the counters never go back. What
needs the notes of all comes after: that whatever was read had been written, that nothing was served after its end, and
that no two held a lease at once.

Times are compared with care for what nobody can know: a value's end lies between the beginning and the end of its
`set`, plus its TTL; a lease is surely held from the moment that `lease` returned until its TTL after it was called.
"""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from rejoinder.caching.stores.base import Store

SLACK = 0.02
"""Seconds by which clocks and roundings may differ: those of a server's process and of ours on one machine."""
LEASE = 0.3
KEYS = 6  # of each kind
LEASES = 4
TAGS = ("red", "blue")


class Written(NamedTuple):
    key: str
    began: float
    ended: float
    ttl: float | None

    def surely_alive(self, now: float) -> bool:
        return self.ttl is None or now < self.began + self.ttl - SLACK

    def surely_dead(self, now: float) -> bool:
        return self.ttl is not None and now > self.ended + self.ttl + SLACK


def value_of(key: str, writer: int, counter: int, padding: bytes) -> bytes:
    body = f"{writer} {counter} {key} ".encode() + padding
    return zlib.crc32(body).to_bytes(4, "big") + body


def read_value(data: bytes) -> tuple[int, int, str]:
    """The writer, its counter, and the key. Raises ValueError for what nobody wrote like this."""
    if zlib.crc32(data[4:]).to_bytes(4, "big") != data[:4]:
        raise ValueError(f"{len(data)} bytes that nobody wrote")
    writer, counter, key, _ = data[4:].split(b" ", 3)
    return int(writer), int(counter), key.decode()


class Worker:
    """One of several who use a store at once."""

    def __init__(self, number: int, count: int, store: Store, dice: random.Random) -> None:
        self.number, self.count, self.store, self.dice = number, count, store, dice
        self.counter = 0
        self.written: dict[int, Written] = {}
        self.current: dict[str, int | None] = {}
        """What each of its own keys holds: a counter, or None where nothing can be said."""
        self.seen: dict[tuple[str, int, int], list[float]] = {}
        """When a value was first and last read: the end of the first reading, the beginning of the last."""
        self.newest: dict[str, int] = {}
        self.held: list[tuple[str, float, float]] = []
        self.faults: list[str] = []
        self.errors: list[str] = []

    def work(self, operations: int) -> dict[str, Any]:
        """Do that many; what came of it, as JSON."""
        actions = [self.read, self.write, self.remove, self.take_lease, self.list_group, self.clear_group]
        actions += [self.write_tagged, self.clear_tag]
        if not self.store.leases:
            actions.remove(self.take_lease)
        weights = {self.read: 50, self.write: 25, self.remove: 8, self.take_lease: 6, self.write_tagged: 6}
        chosen = self.dice.choices(actions, [weights.get(action, 2) for action in actions], k=operations)
        for action in chosen:
            try:
                action()
            except Exception as error:
                self.errors.append(f"{action.__name__}: {type(error).__name__}: {error}")
        self.store.close()
        return {
            "written": {counter: list(written) for counter, written in self.written.items()},
            "seen": [[*what, *when] for what, when in self.seen.items()],
            "held": self.held,
            "faults": self.faults,
            "errors": self.errors,
        }

    # ── keys ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def own(self, kind: str) -> list[str]:
        return [f"{kind}{self.number}:{index}" for index in range(KEYS)]

    def some_key(self) -> str:
        """One of its own, of another's, or of everybody's."""
        kind, whose = self.dice.choice(("own", "own", "grp", "tag", "all")), self.dice.randrange(self.count)
        return f"{kind}{'' if kind == 'all' else whose}:{self.dice.randrange(KEYS)}"

    def is_mine(self, key: str) -> bool:
        return key.partition(":")[0] in (f"own{self.number}", f"grp{self.number}", f"tag{self.number}")

    # ── operations ────────────────────────────────────────────────────────────────────────────────────────────────

    def read(self, key: str = "") -> None:
        key = key or self.some_key()
        began = time.time()
        data = self.store.get(key)
        ended = time.time()
        found = None if data is None else self._note(key, data, began, ended)
        if self.is_mine(key):
            self._compare(key, found, began, ended)

    def _note(self, key: str, data: bytes, began: float, ended: float) -> int:
        try:
            writer, counter, whose = read_value(data)
        except ValueError as error:
            self.faults.append(f"{key}: {error}")
            return -1
        if whose != key:
            self.faults.append(f"{key} holds the value of {whose}")
        seen = self.seen.setdefault((key, writer, counter), [ended, began])
        seen[1] = began
        if not key.startswith("all"):
            if counter < self.newest.get(key, 0):
                self.faults.append(f"{key} went back from {self.newest[key]} to {counter}")
            self.newest[key] = max(counter, self.newest.get(key, 0))
        return counter

    def _compare(self, key: str, found: int | None, began: float, ended: float) -> None:
        """With what this worker knows, who alone writes `key`."""
        if key not in self.current:
            if found is not None:
                self.faults.append(f"{key} holds {found}, and was removed or never written")
            return
        counter = self.current[key]
        if counter is None:
            return
        written = self.written[counter]
        if found is None and written.surely_alive(ended):
            self.faults.append(f"{key} is gone, and should hold {counter}")
        if found is not None and (found != counter or written.surely_dead(began)):
            self.faults.append(f"{key} holds {found}; written last was {counter}, for {written.ttl} s")

    def write(self, key: str = "") -> None:
        kind = self.dice.choice(("own", "own", "grp", "all"))
        key = key or (f"all:{self.dice.randrange(KEYS)}" if kind == "all" else self.dice.choice(self.own(kind)))
        ttl = self.dice.choice((None, None, 0.05, 0.5, 60.0))
        self.counter += 1
        size = self.dice.choice((0, 100, 100, 2_000, 2_000, 20_000))
        self.current[key] = None  # should it fail, nobody knows
        # Noted before, for others may see it before `set` returns.
        began = time.time()
        self.written[self.counter] = Written(key, began, began + 3600, ttl)
        value = value_of(key, self.number, self.counter, self.dice.randbytes(size))
        if key.startswith("tag"):
            self.store.tag(key, self._tags(key), ttl)
        self.store.set(key, value, ttl)
        self.written[self.counter] = Written(key, began, time.time(), ttl)
        self.current[key] = self.counter

    def remove(self) -> None:
        key = self.dice.choice([*self.own("own"), *self.own("grp"), f"all:{self.dice.randrange(KEYS)}"])
        known = self.current.get(key)
        self.current[key] = None
        was_there = self.store.delete(key)
        ended = time.time()
        if self.is_mine(key):
            if known is not None and not was_there and self.written[known].surely_alive(ended):
                self.faults.append(f"{key} was to be removed, and was not there")
            del self.current[key]
            self.read(key)

    def list_group(self) -> None:
        began = time.time()
        found = {record.key for record in self.store.scan(f"grp{self.number}:")}
        ended = time.time()
        for key in self.own("grp"):
            counter = self.current.get(key)
            written = None if counter is None else self.written[counter]
            if key in found and (key not in self.current or (written is not None and written.surely_dead(began))):
                self.faults.append(f"{key} is listed, and is not there")
            if key not in found and written is not None and written.surely_alive(ended):
                self.faults.append(f"{key} is there, and is not listed")

    def clear_group(self) -> None:
        self._clear(self.own("grp"), lambda: self.store.clear(f"grp{self.number}:"))

    def _clear(self, keys: list[str], clear: Any) -> None:
        known = {key: self.current.get(key) for key in keys}
        self.current.update(dict.fromkeys(keys, None))
        count = clear()
        ended = time.time()
        alive = sum(n is not None and self.written[n].surely_alive(ended) for n in known.values())
        if count < alive:
            self.faults.append(f"{count} keys were cleared, of {alive}")
        for key in keys:
            del self.current[key]
        self.read(self.dice.choice(keys))

    def write_tagged(self) -> None:
        self.write(self.dice.choice(self.own("tag")))

    def _tags(self, key: str) -> list[str]:
        """Always the same for a key, as a key that is set again keeps its tags."""
        index = int(key.partition(":")[2])
        return [tag for bit, tag in enumerate(TAGS) if index >> bit & 1]

    def clear_tag(self) -> None:
        tag = self.dice.choice(TAGS)
        keys = self.own("tag")
        self._clear(
            [key for key in keys if tag in self._tags(key)], lambda: self.store.clear_tag(f"tag{self.number}:", tag)
        )
        self.read(self.dice.choice(keys))

    # ── leases ────────────────────────────────────────────────────────────────────────────────────────────────────

    def take_lease(self) -> None:
        key = f"lease:{self.dice.randrange(LEASES)}"
        called = time.monotonic()
        token = self.store.lease(key, LEASE)
        start, end = time.monotonic(), called + LEASE
        if token is None:
            return
        for _ in range(self.dice.randrange(3)):
            self.read()
        if self.dice.random() < 0.4:
            called = time.monotonic()
            if self.store.renew(key, token, LEASE):
                end = max(end, called + LEASE)
            elif time.monotonic() < end - SLACK:
                self.faults.append(f"{key} was held and could not be renewed")
        if self.dice.random() < 0.8:  # else like somebody who died
            called = time.monotonic()
            if not self.store.release(key, token) and time.monotonic() < end - SLACK:
                self.faults.append(f"{key} was held and could not be released")
            end = min(end, called)
        if end - SLACK > start:
            self.held.append((key, start, end - SLACK))


# ── after the fact ────────────────────────────────────────────────────────────────────────────────────────────────────


def judged(notes: list[dict[str, Any]]) -> list[str]:
    """All faults, of the workers' own finding and of those that only all notes together show."""
    faults = [f"worker {number}: {fault}" for number, note in enumerate(notes) for fault in note["faults"]]
    return [*faults, *_unwritten_or_dead(notes), *_held_by_two(interval for note in notes for interval in note["held"])]


def _unwritten_or_dead(notes: list[dict[str, Any]]) -> Iterator[str]:
    written = [{int(counter): Written(*fields) for counter, fields in note["written"].items()} for note in notes]
    for note in notes:
        for key, writer, counter, first, last in note["seen"]:
            write = written[writer].get(counter) if writer < len(written) else None
            if write is None or write.key != key or write.began > first:
                yield f"{key} held {counter} of {writer}, who had not written it"
            elif write.surely_dead(last):
                yield f"{key} was served {last - write.ended - (write.ttl or 0):.3f} s after its end"


def _held_by_two(intervals: Iterable[Any]) -> Iterator[str]:
    ends: dict[str, float] = {}
    for key, start, end in sorted(intervals, key=lambda interval: interval[1]):
        if start < ends.get(key, 0.0):
            yield f"{key} was held by two for {ends[key] - start:.3f} s"
        ends[key] = max(end, ends.get(key, 0.0))
