"""`rejoinder cache` export, import: entries in a file, to be replayed elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

from ...core.errors import ConfigurationError
from .command import Options
from .screen import agreed, as_json, counted, entries_text, size_text, watched
from .walking import items


def export(options: Options) -> int:
    from ...caching.bundle import export_bundle
    from .opening import opened

    cache, file = opened(options), Path(options.file)
    if not file.parent.is_dir():
        raise ConfigurationError(f"There is no folder {file.parent}.")
    if file.exists() and not agreed(f"{file} exists. Replace it?", yes=options.yes):
        print("Nothing was written.", file=sys.stderr)
        return 1
    done = export_bundle(file, cache=cache, items=items(options, cache, "Exporting"))
    if options.json:
        print(as_json(done._asdict()))
        return 0
    models = counted(len(done.models), "model")
    print(f"Exported {entries_text(done.entries)} of {models} ({size_text(done.bytes)}) to {file}.")
    for state, count in done.left_out.items():
        said = "sealed, and no key was given" if state == "sealed" else state
        print(f"Left out {entries_text(count)}: {said}.")
    return 0


def import_(options: Options) -> int:
    from ...caching.bundle import put_lines
    from .opening import opened, place

    cache = opened(options, may_create=True)
    done = put_lines(
        cache,
        Path(options.file),
        options.overwrite,
        lambda line: options.namespace or line.namespace,
        watched,
    )
    if options.json:
        print(as_json(done._asdict()))
        return 0
    print(f"Imported {entries_text(done.stored)} of {done.entries:,} into {place(cache)}.")
    if done.kept:
        print(f"Kept {entries_text(done.kept)} that had an answer; --overwrite replaces them.")
    if done.expired:
        print(f"Left out {entries_text(done.expired)}: expired since.")
    if done.too_large:
        print(f"Left out {entries_text(done.too_large)}: larger than the store may hold.")
    return 0
