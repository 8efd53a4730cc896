"""Hostile values in the store, with right checksums and, where entries are sealed, with the right key.

Whoever may write to a shared store must not be able to do more than to spoil answers: no call fails, nothing of the
value is run. An audit hook watches while it is read: nothing is compiled, executed, imported, opened or started.
"""

from __future__ import annotations

import asyncio
import codecs
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rejoinder import Cache, Echo
from rejoinder.caching import entry as entries
from rejoinder.caching import inspection
from rejoinder.caching.entry import HEADER, MAGIC
from tests.fixtures.calls import MESSAGES, awhole, streamed, text_of, whole

from .. import places
from ..places import Place
from ..report import Opening, Row, Scale, over, row, told

NAME = "hostile values"
PROMISE = "no call fails, nothing of them is run, none takes longer than a second"
SEALS: dict[str, dict[str, Any]] = {
    "plain": {},
    "signed": {"sign_with": "a key of sixteen characters and more"},
    "encrypted": {"encrypt_with": "a key of sixteen characters and more"},
}
SLOWEST = 1.0
EVERYWHERE: list[Opening] = [places.memory, places.disk]

FORBIDDEN = (
    "exec",
    "compile",
    "import",
    "open",
    "os.",
    "subprocess.",
    "socket.connect",
    "pickle.",
    "ctypes.",
    "shutil.",
)
ALLOWED = ("os.listdir", "os.scandir", "os.stat")


class Watch:
    """Notes what the interpreter is asked to do while it is on."""

    def __init__(self) -> None:
        self.is_on = False
        self.folder = "no folder"
        """What the store itself may open."""
        self.seen: Counter[str] = Counter()
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on or not event.startswith(FORBIDDEN) or event.startswith(ALLOWED):
            return
        if self.folder not in str(arguments):
            self.seen[f"{event} {str(arguments[:1])[:80]}"] += 1


def rows(scale: Scale) -> Iterator[Row]:
    watch = Watch()
    examples = scale.of(2_000, 20)

    def check(place: Place) -> Iterator[Row]:
        watch.folder = str(place.folder)
        for kind, options in SEALS.items():
            yield fuzzed(place, kind, options, examples, watch, is_random=scale.is_full)

    yield from over(NAME, EVERYWHERE, check)


# ── values ────────────────────────────────────────────────────────────────────────────────────────────────────────────

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["__import__('os').system('id')", "{0.__class__}", "%s%n", "../../etc/passwd", "\0", "\ud800", ""]
    )
)
things = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
sections = st.binary(max_size=80)
RARELY, OFTEN = st.sampled_from((False,) * 11 + (True,)), st.sampled_from((True, True, True, False))
moments = st.lists(st.floats(-1e300, 1e300) | st.integers(-5, 10), max_size=4)


def mutated(tree: Any, draw: Any) -> Any:
    """`tree` with something else in one place of it, or without it."""
    if isinstance(tree, dict) and tree and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(tree)))
        action = draw(st.sampled_from(("deeper", "deeper", "drop", "rename")))
        rest = {name: value for name, value in tree.items() if name != key}
        if action == "drop":
            return rest
        if action == "rename":
            return rest | {draw(st.sampled_from(("__class__", "_cache_info", "model_extra", "x" * 50))): tree[key]}
        return rest | {key: mutated(tree[key], draw)}
    if isinstance(tree, list) and tree and draw(st.integers(0, 3)):
        index = draw(st.integers(0, len(tree) - 1))
        return [*tree[:index], mutated(tree[index], draw), *tree[index + draw(st.integers(0, 1)) :]]
    return draw(things)


def dumped(tree: Any) -> bytes:
    try:
        return orjson.dumps(tree, option=orjson.OPT_PASSTHROUGH_DATACLASS)
    except (TypeError, ValueError):  # half of a surrogate pair, an integer of many digits: let it be text
        return repr(tree).encode("utf-8", "replace")


@st.composite
def values(draw: Any, answer: Any, chunks: list[Any]) -> bytes:
    """An entry's bytes: a real one in which something was changed, or one made of anything."""
    body = draw(sections) if draw(RARELY) else dumped(mutated(answer, draw) if draw(OFTEN) else answer)
    lines = [dumped(mutated(chunk, draw) if draw(RARELY) else chunk) for chunk in chunks]
    shown = draw(sections) if draw(RARELY) else b"\n".join(lines) if draw(OFTEN) else b""
    timing = draw(st.just(b"") | sections | moments.map(dumped)) if shown else b""
    notes = draw(st.just(b"") | sections | things.map(dumped))
    at = draw(st.floats()) if draw(RARELY) else time.time()
    ttl = draw(st.floats()) if draw(RARELY) else 0.0
    lengths = tuple(len(section) for section in (body, shown, timing, notes))
    if draw(RARELY):
        lengths = draw(st.tuples(*[st.integers(0, 2**32 - 1)] * 4))
    data, flags = body + shown + timing + notes, 0
    if draw(RARELY):
        flags = draw(st.sampled_from((1, 2, 255)))
        data = zlib.compress(data) if draw(OFTEN) else data
    return HEADER.pack(MAGIC, flags, at, ttl, *lengths, zlib.crc32(data)) + data


# ── reading them ──────────────────────────────────────────────────────────────────────────────────────────────────────


def fuzzed(place: Place, kind: str, options: dict[str, Any], examples: int, watch: Watch, *, is_random: bool) -> Row:
    cache, echo = place.cache(**options), Echo(["The right answer."])
    where = cache.prefix + cache.get_cache_key("echo/m", MESSAGES)
    real = real_entry(cache, echo, where)
    answer, chunks = orjson.loads(real.body), [orjson.loads(chunk) for chunk in real.chunks]
    done, faults, slowest = 0, list[str](), 0.0

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=not is_random,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(values(answer, chunks), RARELY)
    def try_one(value: bytes, damaged: bool) -> None:
        nonlocal done, slowest
        if cache.seal is not None:
            value = cache.seal.close(where, value)
        if damaged:
            value = value[: len(value) // 2] + b"\x00" + value[len(value) // 2 + 1 :]
        started = time.monotonic()
        watch.is_on = True
        try:
            faults.extend(read(cache, echo, where, value))
        except BaseException as error:
            faults.append(f"{type(error).__name__}: {str(error)[:200]} for {value[:2000]!r}")
        finally:
            watch.is_on = False
        done, slowest = done + 1, max(slowest, time.monotonic() - started)

    try_one()
    cache.close()
    hits, corrupt = (cache.stats()[count] for count in ("hits", "corrupt"))
    faults += [f"{event} ({count} times)" for event, count in watch.seen.items()]
    faults += [f"one took {slowest:.2f} s"] if slowest > SLOWEST else []
    watch.seen.clear()
    found = f"{hits:,} readings served, {corrupt:,} set aside as corrupt, {len(faults)} faults; "
    found += f"the slowest took {1000 * slowest:.0f} ms"
    action = f"{done:,} {kind} values, each asked for whole, streamed, replayed in time, listed and explained"
    return row(NAME, place.name, action, told(found, faults), PROMISE, held=not faults)


def real_entry(cache: Cache, echo: Echo, where: str) -> entries.Entry:
    """What a call keeps; with it everything is imported that reading needs."""
    for value in (b"nothing", b""):
        list(read(cache, echo, where, value))
    for encoding in (
        "utf-8-sig",
        *(f"utf-{bits}{end}" for bits in (16, 32) for end in ("", "-le", "-be")),
    ):  # between which Python's own JSON chooses
        codecs.lookup(encoding)
    cache.clear()
    streamed(client=echo, cache=cache)
    data = cache.store.get(where) or b""
    return entries.unpack(data if cache.seal is None else cache.seal.open(where, data))


def read(cache: Cache, echo: Echo, where: str, value: bytes) -> Iterator[str]:
    """Put `value` in the place of an answer and do all that reads it; what is wrong with what comes back."""
    for ask, more in ((whole, {}), (streamed, {}), (streamed, {"replay_timing": True}), (awhole, {})):
        if "replay_timing" in more and may_take_long(cache, where, value):
            continue
        cache.store.set(where, value)
        answer = ask(client=echo, cache=cache, **more)
        if isinstance(answer, list) or answer.choices:  # an answer may have none, which is as good as it says
            text = text_of(answer)
            if not isinstance(text, str):
                yield f"{ask.__name__} gave {text!r}"
    cache.store.set(where, value)
    list(inspection.cache_list(cache=cache))
    cache.explain("echo/m", [*MESSAGES, {"role": "user", "content": "Another."}])
    cache.store.set(cache.prefix + "value:mine", value)
    cache.get("mine")
    asyncio.run(cache.aget("mine"))
    cache.delete("mine")


def may_take_long(cache: Cache, where: str, value: bytes) -> bool:
    """A replay that keeps its timing may last as long as a stream may; that is no attack."""
    try:
        found = entries.unpack(value if cache.seal is None else cache.seal.open(where, value))
    except ValueError:
        return False
    return any(moment > 50 for moment in found.timing)
