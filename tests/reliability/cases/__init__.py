"""The experiments, by name. Each yields the rows of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module

from ..report import Row, Scale

MODULES = ("kills", "mixed", "network", "clocks", "disks", "forks", "prunes", "sizes", "hostile")


def _loaded_late(name: str) -> Callable[[Scale], Iterator[Row]]:
    """The experiment in the module `name`: loaded only where it runs, as one of them must come before all else."""

    def rows(scale: Scale) -> Iterator[Row]:
        run: Callable[[Scale], Iterator[Row]] = import_module(f"{__name__}.{name}").rows
        return run(scale)

    return rows


CASES = {name: _loaded_late(name) for name in MODULES}
