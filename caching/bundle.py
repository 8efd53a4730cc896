"""Bundles: a cache's entries in one file, to be replayed elsewhere to the byte.

A bundle is JSON lines in UTF-8, compressed if its name ends in .gz:

    {"format": "rejoinder-bundle", "version": 1, "created": …}
    {"namespace": …, "key": …, "model": …, "stored_at": …, "ttl": …, "sha256": …, "entry": …}        one for each entry
    {"entries": …, "models": {…}, "namespaces": […], "bytes": …, "sha256": …}                        the manifest

An `entry` is base64 of what `entry.pack` writes, not deflated and not sealed; its `sha256` is of these bytes.
The manifest's is of all lines before it, so that an entry that was moved, left out or put under another key is seen.

The hashes show damage. They do not say who made a bundle: import only what comes from somebody you would take answers
from. A cache that signs or encrypts does so with what is imported, as if it had got the answers itself.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import os
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson

from ..core.errors import CacheError
from .cache import Cache, prefix_of
from .entry import MOST, BadEntry, Entry, pack, unpack
from .inspection import FRESH, SEALED, CacheItem, chosen, judged, named, walk
from .stores.base import TooLarge

FORMAT, VERSION = "rejoinder-bundle", 1
LONGEST_LINE = MOST * 4 // 3 + 2**20
"""Bytes. A longer line is nothing that was exported."""


class BundleError(CacheError):
    """A file that is no bundle, is damaged, or is from a newer version. Nothing of it was imported."""


class Exported(NamedTuple):
    """What `export_bundle` did."""

    entries: int
    models: dict[str, int]
    """How many of each model."""
    bytes: int
    """Of the entries themselves."""
    left_out: dict[str, int]
    """How many entries were not taken because they are "expired", "corrupt" or "sealed" (there was no key)."""
    sha256: str
    """The manifest's hash, over all that was written before it."""


class Imported(NamedTuple):
    """What `import_bundle` did."""

    entries: int
    """In the bundle."""
    stored: int
    kept: int
    """Left alone, as there was a fresh answer under the key."""
    expired: int
    """Not stored, since they would no longer serve."""
    too_large: int = 0
    """Not stored, since the store holds none of their size."""


class Line(NamedTuple):
    """One entry of a bundle, checked."""

    namespace: str
    key: str
    model: str
    entry: Entry
    size: int


Seen = Callable[[Iterable[Line], str], Iterable[Line]]


# ── export ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def export_bundle(
    file: str | Path,
    *,
    model: str | Sequence[str] | None = None,
    cache: Cache | None = None,
    items: Iterable[CacheItem] | None = None,
) -> Exported:
    """Write the cache's namespace (of one model, several or all) into `file`, which is there whole or not at all.

    What no longer serves, and what cannot be opened, is left out and counted. The file is readable to its owner only:
    it holds answers. `items`, where given, are the entries to take, as `inspection.walk` gives them.
    """
    found = chosen(cache)
    if items is None:
        items = walk(found, found.prefix, named(model))
    with written(Path(file)) as output:
        return write(output, items, found.clock())


def write(output: IO[bytes], items: Iterable[CacheItem], now: float) -> Exported:
    """Write the lines of a bundle."""
    digest = hashlib.sha256()

    def put(line: dict[str, Any]) -> None:
        data = orjson.dumps(line) + b"\n"
        digest.update(data)
        output.write(data)

    models: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    namespaces: set[str] = set()
    total = 0
    put({"format": FORMAT, "version": VERSION, "created": now})
    for item in items:
        if item.state != FRESH or item.entry is None:
            left_out[item.state] += 1
            continue
        data = pack(item.entry, deflate=False)
        put({**described(item), "sha256": hashlib.sha256(data).hexdigest(), "entry": base64.b64encode(data).decode()})
        models[item.model] += 1
        namespaces.add(item.namespace)
        total += len(data)
    sha256 = digest.hexdigest()
    exported = Exported(models.total(), dict(sorted(models.items())), total, dict(left_out), sha256)
    manifest = {"entries": exported.entries, "models": exported.models, "namespaces": sorted(namespaces)}
    put({**manifest, "bytes": total, "sha256": sha256})
    return exported


def described(item: CacheItem) -> dict[str, Any]:
    return {name: getattr(item, name) for name in ("namespace", "key", "model", "stored_at", "ttl")}


@contextlib.contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name when all of it is on the disk; if anything goes wrong, there is none."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "wb") as raw:
            # No time and no name in the header: the same entries make the same file.
            with gzip.GzipFile("", "wb", 6, raw, mtime=0) if is_zipped(path) else contextlib.nullcontext(raw) as output:
                yield output  # type: ignore[misc]
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def is_zipped(path: Path) -> bool:
    return path.suffix == ".gz"


# ── import ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def import_bundle(
    file: str | Path, *, overwrite: bool = False, namespace: str | None = None, cache: Cache | None = None
) -> Imported:
    """Put the entries of a bundle into the cache, once all of its hashes have been found to fit.

    Entries keep their time of storing and their TTL. They go into the cache's namespace, or into `namespace`. Where
    there is a fresh answer already it stays, unless `overwrite`. Raises `BundleError`, and then nothing was stored.
    """
    found = chosen(cache)
    return put_lines(found, Path(file), overwrite, lambda line: namespace or found.namespace)


def put_lines(
    cache: Cache,
    path: Path,
    overwrite: bool,
    home: Callable[[Line], str],
    seen: Seen = lambda lines, doing: lines,
) -> Imported:
    """The same, with `home` saying into which namespace each line goes. `seen` passes them on, and may count them."""
    with open(path, "rb") as raw:
        count = sum(1 for _ in seen(read(raw), "Checking"))
        raw.seek(0)  # the same open file, so that another that takes its name meanwhile is not read unchecked
        did = Counter(
            put(cache, prefix_of(home(line)) + line.key, line.entry, overwrite) for line in seen(read(raw), "Importing")
        )
    return Imported(count, did["stored"], did["kept"], did["expired"], did["too_large"])


def put(cache: Cache, place: str, entry: Entry, overwrite: bool) -> str:
    """Store one entry as if the cache had got it when it was given: "stored", or why not, in a word of `Imported`."""
    rest = None if entry.ttl is None else entry.stored_at + entry.ttl + cache.grace - cache.clock()
    if rest is not None and rest <= 0:
        return "expired"
    store = cache.store
    if not overwrite:
        there = store.peek([place])[0]
        if there is not None and judged(cache, place, there).state in (FRESH, SEALED):
            return "kept"
    data = pack(entry, deflate=not store.in_process)
    try:
        if entry.tags:
            store.tag(place, entry.tags, rest)
        store.set(place, data if cache.seal is None else cache.seal.close(place, data), rest)
    except TooLarge:
        return "too_large"
    return "stored"


def read(raw: IO[bytes]) -> Iterator[Line]:
    """The entries of a bundle, each checked as it comes; at the end the whole. Raises `BundleError`."""
    source = unzipped(raw)
    digest, count = hashlib.sha256(), 0
    check_head(parsed(source, digest, 1))
    while True:
        before = digest.hexdigest()
        number = count + 2
        line = parsed(source, digest, number)
        if "entry" not in line:
            break
        yield checked(line, number)
        count += 1
    if line.get("sha256") != before or line.get("entries") != count:
        raise BundleError("The bundle's manifest does not fit what stands before it: it was changed after its export.")
    if source.read(1):
        raise BundleError(f"There is more after the bundle's manifest, in line {number}.")


def unzipped(raw: IO[bytes]) -> IO[bytes]:
    """By what the file holds, not by its name: a bundle may have been compressed or unpacked on its way."""
    is_gzip = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    return io.BufferedReader(gzip.GzipFile(fileobj=raw, mode="rb")) if is_gzip else raw


def parsed(source: IO[bytes], digest: Any, number: int) -> dict[str, Any]:
    """The next line. Raises `BundleError` where there is none, or where it is no JSON object."""
    try:
        data = source.readline(LONGEST_LINE)
    except (OSError, EOFError, zlib.error) as error:  # what gzip says of damage
        raise BundleError(f"The bundle cannot be read in line {number}: {error}") from None
    if not data.endswith(b"\n"):
        what = "is no bundle" if number == 1 else f"ends early, in line {number}: it was cut off"
        raise BundleError(f"The file {what}.")
    digest.update(data)
    try:
        line = orjson.loads(data)
    except orjson.JSONDecodeError:
        line = None
    if not isinstance(line, dict):
        raise BundleError("The file is no bundle." if number == 1 else f"Line {number} of the bundle is damaged.")
    return line


def check_head(head: dict[str, Any]) -> None:
    if head.get("format") != FORMAT:
        raise BundleError(f"The file is no bundle: its first line does not say {FORMAT!r}.")
    version = head.get("version")
    if version != VERSION:
        raise BundleError(
            f"The bundle has version {version!r} and this rejoinder reads version {VERSION}. Upgrade it, or export "
            "again with an older one."
        )


def checked(line: dict[str, Any], number: int) -> Line:
    """A line whose hash fits and whose entry can be read."""
    where = f"Line {number} of the bundle"
    namespace, key, text = line.get("namespace"), line.get("key"), line.get("entry")
    if not (isinstance(namespace, str) and isinstance(key, str) and isinstance(text, str)):
        raise BundleError(f"{where} lacks its namespace, key or entry.")
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise BundleError(f"{where} is damaged: its entry is no base64.") from None
    if hashlib.sha256(data).hexdigest() != line.get("sha256"):
        raise BundleError(f"{where} is damaged: the hash of its entry does not fit.")
    try:
        return Line(namespace, key, str(line.get("model")), unpack(data), len(data))
    except BadEntry as error:
        raise BundleError(f"{where} holds no entry: {error}") from None
