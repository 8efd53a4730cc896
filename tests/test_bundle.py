"""Bundles: what was exported replays elsewhere, to the byte; what was changed on its way does not get in."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rejoinder
from rejoinder.caching import bundle
from rejoinder.caching.entry import unpack
from rejoinder.caching.stores.memory import MemoryStore
from tests.fixtures.calls import text_of
from tests.fixtures.servers import RedisServer, redis_server

KEY, OTHER = "a key of sixteen characters or more", "another key of sixteen characters"
STORY = [{"role": "user", "content": "Tell me a story that is long enough for several chunks."}]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def ask(cache: rejoinder.Cache, text: str = "Hi", model: str = "echo/a", **more: Any) -> Any:
    return rejoinder.completion(model, [{"role": "user", "content": text}], cache=cache, **more)


def recorded(path: Path, **options: Any) -> rejoinder.Cache:
    """A cache on disk with three answers of two models, a stream with pauses, a long answer and a value."""
    cache = rejoinder.Cache(type="disk", disk_cache_dir=path, budget=5, **options)
    for model, text in (("echo/a", "one"), ("echo/a", "two"), ("echo/b", "three")):
        ask(cache, text, model)
    echo = rejoinder.Echo(chunk_latency=0.005, chunk_size=5)
    assert len(list(rejoinder.completion("echo/s", STORY, stream=True, client=echo, cache=cache))) > 5
    ask(cache, "long " * 20_000, "echo/long")  # more than is kept as it is
    cache.set("mine", {"a": [1, None]})
    return cache


def entries(cache: rejoinder.Cache) -> dict[str, Any]:
    """Every entry as it can be used: chunks, timing, body, notes, time of storing."""
    found = {}
    for item in rejoinder.cache_list(cache=cache):
        assert item.entry is not None
        found[item.namespace, item.key] = item.entry
    return found


def lines(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    return [json.loads(line) for line in (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines()]


# ── there and back ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["run.jsonl", "run.jsonl.gz"])
def test_bundle_from_disk_replays_from_redis_to_the_byte(redis: RedisServer, tmp_path: Path, name: str) -> None:
    disk = recorded(tmp_path / "disk")
    assert rejoinder.export_bundle(tmp_path / name, cache=disk).entries == 6
    redis.command("FLUSHALL")
    options: dict[str, Any] = {"type": "redis", "redis_url": redis.url, "budget": 5, "mode": "replay_only"}
    there = rejoinder.Cache(**options)
    assert rejoinder.import_bundle(tmp_path / name, cache=there).stored == 6
    assert entries(there) == entries(disk)
    assert ask(there, "two").model_dump_json() == ask(disk, "two").model_dump_json()
    one, other = (list(rejoinder.completion("echo/s", STORY, stream=True, cache=cache)) for cache in (disk, there))
    assert [chunk.model_dump_json() for chunk in one] == [chunk.model_dump_json() for chunk in other]
    assert there.get("mine") == {"a": [1, None]}


def test_replay_keeps_the_timing_of_the_stream(tmp_path: Path) -> None:
    rejoinder.export_bundle(tmp_path / "b.jsonl", cache=recorded(tmp_path / "disk"))
    there = rejoinder.Cache()
    rejoinder.import_bundle(tmp_path / "b.jsonl", cache=there)
    started = time.monotonic()
    list(rejoinder.completion("echo/s", STORY, stream=True, cache=there, replay_timing=True))
    assert time.monotonic() - started > 0.03


def test_bundle_says_what_is_in_it(tmp_path: Path) -> None:
    cache = recorded(tmp_path / "disk", namespace="team a")
    done = rejoinder.export_bundle(tmp_path / "b.jsonl", cache=cache)
    head, *middle, manifest = lines(tmp_path / "b.jsonl")
    assert (head["format"], head["version"]) == ("rejoinder-bundle", 1)
    assert manifest["entries"] == len(middle) == done.entries
    assert manifest["models"] == done.models
    assert manifest["models"]["echo/a"] == 2
    assert manifest["namespaces"] == ["team a"]
    for line in middle:
        data = base64.b64decode(line["entry"])
        assert hashlib.sha256(data).hexdigest() == line["sha256"]
        assert unpack(data).stored_at == line["stored_at"]
    before = b"".join((tmp_path / "b.jsonl").read_bytes().splitlines(True)[:-1])
    assert manifest["sha256"] == hashlib.sha256(before).hexdigest()


def test_same_entries_make_the_same_bundle_whichever_store_they_come_from(tmp_path: Path) -> None:
    disk = recorded(tmp_path / "disk")
    memory = rejoinder.Cache()
    rejoinder.export_bundle(tmp_path / "one.jsonl", cache=disk)
    rejoinder.import_bundle(tmp_path / "one.jsonl", cache=memory)
    rejoinder.export_bundle(tmp_path / "two.jsonl", cache=memory)
    one, two = (lines(tmp_path / name)[1:-1] for name in ("one.jsonl", "two.jsonl"))
    assert sorted(one, key=str) == sorted(two, key=str)


def test_only_the_models_that_were_named_are_exported(tmp_path: Path) -> None:
    cache = recorded(tmp_path / "disk")
    assert rejoinder.export_bundle(tmp_path / "b.jsonl", model="echo/a", cache=cache).models == {"echo/a": 2}
    assert rejoinder.export_bundle(tmp_path / "b.jsonl", model=["echo/b", "echo/s"], cache=cache).entries == 2


def test_entries_go_into_the_namespace_of_the_cache_or_the_one_that_is_named(tmp_path: Path) -> None:
    rejoinder.export_bundle(tmp_path / "b.jsonl", cache=recorded(tmp_path / "disk"))
    store = MemoryStore()
    rejoinder.import_bundle(tmp_path / "b.jsonl", cache=rejoinder.Cache(store=store, namespace="x"))
    rejoinder.import_bundle(tmp_path / "b.jsonl", cache=rejoinder.Cache(store=store), namespace="y:z")
    assert not ask(rejoinder.Cache(store=store), "one").cache
    for name in ("x", "y:z"):
        assert ask(rejoinder.Cache(store=store, namespace=name), "one").cache


# ── what is there already, and what has expired ───────────────────────────────────────────────────────────────────


def test_an_answer_that_is_there_stays_unless_it_is_to_be_overwritten(tmp_path: Path) -> None:
    source, target = rejoinder.Cache(), rejoinder.Cache()
    ask(source, client=rejoinder.Echo("from the bundle"))
    ask(target, client=rejoinder.Echo("from before"))
    rejoinder.export_bundle(tmp_path / "b.jsonl", cache=source)
    assert rejoinder.import_bundle(tmp_path / "b.jsonl", cache=target) == (1, 0, 1, 0, 0)
    assert text_of(ask(target)) == "from before"
    assert rejoinder.import_bundle(tmp_path / "b.jsonl", cache=target, overwrite=True) == (1, 1, 0, 0, 0)
    assert text_of(ask(target)) == "from the bundle"


def test_an_entry_that_cannot_serve_is_replaced(tmp_path: Path) -> None:
    source, target = rejoinder.Cache(), rejoinder.Cache()
    ask(source)
    rejoinder.export_bundle(tmp_path / "b.jsonl", cache=source)
    (record,) = source.store.scan()
    target.store.set(record.key, b"junk")
    assert rejoinder.import_bundle(tmp_path / "b.jsonl", cache=target).stored == 1
    assert ask(target).cache


def test_time_of_storing_and_ttl_are_kept_and_the_store_lets_go_in_time(tmp_path: Path) -> None:
    now = [1_000_000.0]
    source = rejoinder.Cache(ttl=100, clock=lambda: now[0])
    ask(source)
    rejoinder.export_bundle(tmp_path / "b.jsonl", cache=source)
    now[0] += 60
    target = rejoinder.Cache(store=MemoryStore(clock=lambda: now[0]), clock=lambda: now[0])
    rejoinder.import_bundle(tmp_path / "b.jsonl", cache=target)
    (item,) = rejoinder.cache_list(cache=target)
    assert (item.stored_at, item.ttl) == (1_000_000.0, 100)
    (record,) = target.store.scan()
    assert record.expires_at == 1_000_100.0
    now[0] += 41
    assert rejoinder.import_bundle(tmp_path / "b.jsonl", cache=rejoinder.Cache(clock=lambda: now[0])).expired == 1


def test_what_cannot_serve_is_left_out_and_counted(tmp_path: Path) -> None:
    now = [1_000_000.0]
    cache = rejoinder.Cache(ttl=10, stale_if_error=100, clock=lambda: now[0])
    ask(cache, "old")
    now[0] += 20
    ask(cache, "new")
    cache.store.set("default:bad", b"junk")
    done = rejoinder.export_bundle(tmp_path / "b.jsonl", cache=cache)
    assert (done.entries, done.left_out) == (1, {"expired": 1, "corrupt": 1})


# ── sealed caches ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seal", ["sign_with", "encrypt_with"])
def test_sealed_entries_are_opened_for_the_bundle_and_sealed_again_in_their_new_place(
    tmp_path: Path, seal: str
) -> None:
    if seal == "encrypt_with":
        pytest.importorskip("cryptography", reason="needs the extra: pip install 'rejoinder[encrypt]'")
    source, store = rejoinder.Cache(**{seal: KEY}), MemoryStore()  # type: ignore[arg-type]
    ask(source)
    rejoinder.export_bundle(tmp_path / "b.jsonl", cache=source)
    target = rejoinder.Cache(store=store, namespace="elsewhere", **{seal: OTHER})  # type: ignore[arg-type]
    rejoinder.import_bundle(tmp_path / "b.jsonl", cache=target)
    assert ask(target).cache
    (record,) = store.scan()
    assert (store.get(record.key) or b"")[:4] in (b"RJS1", b"RJX1")
    closed = rejoinder.Cache(store=source.store)
    assert rejoinder.export_bundle(tmp_path / "c.jsonl", cache=closed).left_out == {"sealed": 1}


# ── what must not get in ──────────────────────────────────────────────────────────────────────────────────────────

Damage = Callable[[list[bytes]], list[bytes]]


def edited(number: int, name: str, value: Any) -> Damage:
    """A change of one field of one line."""

    def change(found: list[bytes]) -> list[bytes]:
        changed = json.dumps({**json.loads(found[number]), name: value}).encode() + b"\n"
        return [changed if line is found[number] else line for line in found]

    return change


def forged(found: list[bytes]) -> list[bytes]:
    """An entry with other bytes and the hash that fits them; the manifest is as it was."""
    line = json.loads(found[1])
    data = base64.b64decode(line["entry"]).replace(b"one", b"won")
    line |= {"entry": base64.b64encode(data).decode(), "sha256": hashlib.sha256(data).hexdigest()}
    return [found[0], json.dumps(line).encode() + b"\n", *found[2:]]


DAMAGES: dict[str, Damage] = {
    "an entry is missing": lambda found: [found[0], *found[2:]],
    "an entry is there twice": lambda found: [*found[:2], *found[1:]],
    "entries are in another order": lambda found: [found[0], found[2], found[1], *found[3:]],
    "the manifest is missing": lambda found: found[:-1],
    "the end is missing": lambda found: [*found[:-1], found[-1][:-9]],
    "it ends in an entry": lambda found: [*found[:2], found[2][:100]],
    "there is more after the manifest": lambda found: [*found, b"{}\n"],
    "the bytes of an entry": edited(2, "entry", base64.b64encode(b"RJE1" + b"\0" * 60).decode()),
    "no base64": edited(2, "entry", "*" * 40),
    "the hash of an entry": edited(2, "sha256", "0" * 64),
    "the key of an entry": edited(2, "key", "another"),
    "a key that is no text": edited(2, "key", 5),
    "the model of an entry": edited(2, "model", "echo/other"),
    "the manifest's hash": edited(-1, "sha256", "0" * 64),
    "the manifest's count": edited(-1, "entries", 2),
    "no JSON": lambda found: [*found[:2], b"what?\n", *found[3:]],
    "no object": lambda found: [*found[:2], b"[]\n", *found[3:]],
    "forged": forged,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_bundle_is_refused_before_anything_is_stored(tmp_path: Path, name: str) -> None:
    source = rejoinder.Cache()
    for text in ("one", "two", "three"):
        ask(source, text)
    path = tmp_path / "b.jsonl"
    rejoinder.export_bundle(path, cache=source)
    found = path.read_bytes().splitlines(True)
    damaged = DAMAGES[name](found)
    assert damaged != found
    path.write_bytes(b"".join(damaged))
    target = rejoinder.Cache()
    with pytest.raises(rejoinder.BundleError):
        rejoinder.import_bundle(path, cache=target)
    assert list(target.store.scan()) == []


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"{}\n", b"hello", b"\x1f\x8bhello", b'{"format": "another"}\n', b"\0" * 50]
)
def test_file_that_is_no_bundle_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b").write_bytes(content)
    with pytest.raises(rejoinder.BundleError):
        rejoinder.import_bundle(tmp_path / "b", cache=rejoinder.Cache())


def test_bundle_of_a_newer_version_is_refused_by_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "b").write_text('{"format": "rejoinder-bundle", "version": 2}\n{"what": "nobody knows"}\n')
    with pytest.raises(rejoinder.BundleError, match="version 2 and this rejoinder reads version 1"):
        rejoinder.import_bundle(tmp_path / "b", cache=rejoinder.Cache())


def test_damage_inside_a_compressed_bundle_is_seen(tmp_path: Path) -> None:
    cache = rejoinder.Cache()
    for number in range(50):
        ask(cache, f"{number}")
    path = tmp_path / "b.jsonl.gz"
    rejoinder.export_bundle(path, cache=cache)
    data = path.read_bytes()
    for broken in (data[: len(data) // 2], data[:-4] + b"\0\0\0\0", data[:500] + bytes(50) + data[550:]):
        path.write_bytes(broken)
        with pytest.raises(rejoinder.BundleError):
            rejoinder.import_bundle(path, cache=rejoinder.Cache())


def test_bundle_that_was_unpacked_under_its_old_name_is_read(tmp_path: Path) -> None:
    cache = rejoinder.Cache()
    ask(cache)
    rejoinder.export_bundle(tmp_path / "b.jsonl", cache=cache)
    (tmp_path / "b.jsonl").rename(tmp_path / "b.jsonl.gz")
    assert rejoinder.import_bundle(tmp_path / "b.jsonl.gz", cache=rejoinder.Cache()).stored == 1


# ── the file ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_failed_export_leaves_the_old_bundle_and_nothing_else(tmp_path: Path) -> None:
    def failing() -> Iterator[Any]:
        yield from rejoinder.cache_list(cache=cache)
        raise ConnectionError("the store is gone")

    cache = rejoinder.Cache()
    ask(cache)
    path = tmp_path / "b.jsonl"
    path.write_text("the old one")
    with pytest.raises(ConnectionError):
        rejoinder.export_bundle(path, cache=cache, items=failing())
    assert [file.name for file in tmp_path.iterdir()] == ["b.jsonl"]
    assert path.read_text() == "the old one"


def test_bundle_is_for_its_owner_only(tmp_path: Path) -> None:
    rejoinder.export_bundle(tmp_path / "b.jsonl", cache=rejoinder.Cache())
    assert (tmp_path / "b.jsonl").stat().st_mode & 0o077 == 0


def test_line_longer_than_any_entry_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "LONGEST_LINE", 100)
    cache = rejoinder.Cache()
    ask(cache)
    rejoinder.export_bundle(tmp_path / "b.jsonl", cache=cache)
    with pytest.raises(rejoinder.BundleError):
        rejoinder.import_bundle(tmp_path / "b.jsonl", cache=rejoinder.Cache())


def test_an_entry_that_is_too_large_for_the_store_is_left_out(tmp_path: Path) -> None:
    source, target = rejoinder.Cache(), rejoinder.Cache(max_bytes=2_000)
    ask(source, client=rejoinder.Echo("short"))
    ask(source, client=rejoinder.Echo("long " * 1_000), temperature=0.5)
    rejoinder.export_bundle(tmp_path / "b.jsonl", cache=source)
    done = rejoinder.import_bundle(tmp_path / "b.jsonl", cache=target)
    assert (done.entries, done.stored, done.too_large) == (2, 1, 1)
