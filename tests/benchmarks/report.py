"""What was measured, and how it is shown."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("openai", "anthropic", "httpx2", "aiohttp", "pydantic", "orjson", "redis", "hiredis")
TIMES = "×"
HEADINGS = ("what", "rejoinder", "floor", "ratio", "budget", "", "remarks")


@dataclass(frozen=True, slots=True)
class Budget:
    """What a row may cost: a ratio to its floor, or an amount more than it in the row's own unit. Empty: anything."""

    at_most: float | None = None
    at_least: float | None = None
    more: float | None = None
    unit: str = ""

    def __bool__(self) -> bool:
        return (self.at_most, self.at_least, self.more) != (None, None, None)

    def holds(self, subject: float, floor: float) -> bool:
        ratio = subject / floor
        return (
            (self.at_most is None or ratio <= self.at_most)
            and (self.at_least is None or ratio >= self.at_least)
            and (self.more is None or subject - floor <= self.more)
        )

    def __str__(self) -> str:
        if self.at_most is not None:
            return f"≤ {self.at_most:g}{TIMES}"
        if self.at_least is not None:
            return f"≥ {self.at_least:g}{TIMES}"
        if self.more is not None:
            return f"≤ {self.more:g} {self.unit} more"
        return "-"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    subject: float
    floor: float
    unit: str
    budget: Budget
    remark: str = ""
    fault: str = ""
    """What was wrong besides the figure, such as a call that failed. A row with a fault is over its budget."""

    @property
    def ratio(self) -> float:
        return self.subject / self.floor

    @property
    def within(self) -> bool:
        return not self.fault and self.budget.holds(self.subject, self.floor)

    def cells(self) -> tuple[str, ...]:
        figures = (f"{figure(self.subject)} {self.unit}", f"{figure(self.floor)} {self.unit}")
        remarks = "; ".join(part for part in (self.fault, self.remark) if part)
        verdict = "OVER" if not self.within else "within" if self.budget else "-"
        return (
            self.name,
            *figures,
            f"{self.ratio:.2f}{TIMES}",
            str(self.budget),
            verdict,
            remarks,
        )

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": self.ratio, "within": self.within}


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """A line of the table without figures: the case could not run here, or failed."""

    name: str
    reason: str
    failed: bool = False

    def cells(self) -> tuple[str, ...]:
        return (self.name, "-", "-", "-", "-", "FAILED" if self.failed else "skipped", self.reason)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def from_json(fields: dict[str, Any]) -> Row | Unmeasured:
    """The line that `as_json` wrote."""
    if "reason" in fields:
        return Unmeasured(**fields)
    given = {name: value for name, value in fields.items() if name not in ("ratio", "within")}
    return Row(**given | {"budget": Budget(**given["budget"])})


def figure(value: float) -> str:
    """Three significant digits, never in powers of ten."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def circumstances() -> str:
    """The versions, and how busy the machine was."""
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"no {package}")
    python = f"{platform.python_implementation()} {platform.python_version()}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{python} on {sys.platform} {platform.machine()}, {cores} cores, load {load()}; {', '.join(versions)}"


def load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def as_text(lines: Sequence[Row | Unmeasured]) -> str:
    """An aligned table, one row a line."""
    table = [HEADINGS, *(line.cells() for line in lines)]
    widths = [max(len(cells[column]) for cells in table) for column in range(len(HEADINGS))]
    rule = "  ".join("─" * width for width in widths[:-1])

    def aligned(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if 1 <= column <= 3 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(padded).rstrip()

    return "\n".join([aligned(HEADINGS), rule, *(aligned(line.cells()) for line in lines)])


def as_markdown(lines: Sequence[Row | Unmeasured]) -> str:
    """The same table for a page of the documentation."""
    rows = [HEADINGS, ("---", "---:", "---:", "---:", "---", "---", "---"), *(line.cells() for line in lines)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
