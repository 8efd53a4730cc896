"""Who may import whom, and what importing must not do. The rules are read off the source, so that nothing has to run.

src/rejoinder ─► router ─► providers ─┐
                   └─────► caching ───┴─► core ─► the standard library
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PARTS = {
    "core": {"core"},
    "providers": {"providers", "core"},
    "caching": {"caching", "core"},
    "router": {"router", "providers", "caching", "core", "_version"},
}
"""Each folder, and what of ours it may import, inside functions and for type checkers too."""

EVERYWHERE = {"orjson"}
"""Small, quick to import, and needed by every call."""

FIRST_USE = {
    "caching/stores/sql.py": {"sqlalchemy"},
    "caching/stores/sql_dialects.py": {"sqlalchemy"},
    "caching/stores/sql_statements.py": {"sqlalchemy"},
    "core/answers.py": {"openai", "pydantic"},
    "core/api_errors.py": {"openai", "httpx2"},
    "core/endpoint_answers.py": {"openai", "httpx2", "pydantic"},
    "providers/http.py": {"httpx2"},
    "providers/sdk.py": {"httpx2"},
    "router/pytest_plugin.py": {"pytest"},
}
"""Files that are themselves imported only when they are needed, and what they may import at their head."""

CORE_WITH_OPENAI = {"core/answers.py", "core/api_errors.py", "core/endpoint_answers.py"}
"""The leaves that need more than the standard library and orjson: openai's types and its errors."""

SLOW = {"asyncio", "sqlite3", "ssl", "email", "logging"}
"""Of the standard library, what takes longer to load than all of `import rejoinder` should."""

DANGEROUS = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}


class Import(NamedTuple):
    file: str
    line: int
    module: str
    """In full: "rejoinder.core.flow", "openai.types"."""
    at_head: bool
    """Done when the file is imported: neither inside a function nor for type checkers only."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"

    @property
    def package(self) -> str:
        return self.module.split(".")[0]

    @property
    def part(self) -> str:
        """Of ours: "core", "router" …; "" for the face itself."""
        return [*self.module.split("."), ""][1]


def sources() -> list[Path]:
    found = [path for part in PARTS for path in sorted((ROOT / part).rglob("*.py"))]
    return [*found, *sorted((ROOT / "src/rejoinder").glob("*.py"))]


def name_of(path: Path) -> str:
    """The file's path from the root, with slashes."""
    return path.relative_to(ROOT).as_posix()


@cache
def imports() -> list[Import]:
    return [found for path in sources() for found in imports_in(name_of(path), path.read_text(encoding="utf-8"))]


def imports_in(file: str, text: str) -> Iterator[Import]:
    """Every import of a source text that lies at `file`."""
    package = ["rejoinder", *file.removeprefix("src/rejoinder/").split("/")[:-1]]

    def visit(node: ast.AST, at_head: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(file, child.lineno, name.name, at_head) for name in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else []
                for name in child.names:
                    module = ".".join([*base, *filter(None, [child.module]), *([] if child.module else [name.name])])
                    yield Import(file, child.lineno, module, at_head)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                yield from visit(ast.Module(child.body, []), False)
                yield from visit(ast.Module(child.orelse, []), at_head)
            else:
                function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from visit(child, at_head and not function)

    return visit(ast.parse(text), True)


def is_third_party(found: Import) -> bool:
    return found.package != "rejoinder" and found.package not in sys.stdlib_module_names


# ── the arrows ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("part", PARTS)
def test_arrows_point_one_way(part: str) -> None:
    ours = [found for found in imports() if found.file.startswith(f"{part}/") and found.package == "rejoinder"]
    assert ours or part == "core", "nothing was read: the rule below would hold for nothing"
    wrong = [f"{found}" for found in ours if found.part not in PARTS[part]]
    assert not wrong, f"{part} may import {sorted(PARTS[part])} only"


def test_core_needs_little_but_for_its_documented_leaves() -> None:
    found = [item for item in imports() if item.file.startswith("core/") and is_third_party(item)]
    wrong = [f"{item}" for item in found if item.package not in EVERYWHERE and item.file not in CORE_WITH_OPENAI]
    assert not wrong


def test_imports_inside_the_package_are_relative() -> None:
    # Type checkers name a file by its path: by absolute imports the same class would be two.
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [name.name for name in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            assert not [name for name in names if name.split(".")[0] in {"rejoinder", *PARTS}], name_of(path)


def test_packages_are_imported_at_the_head_of_few_files_only() -> None:
    heads = [found for found in imports() if found.at_head and is_third_party(found)]
    wrong = [f"{found}" for found in heads if found.package not in EVERYWHERE | FIRST_USE.get(found.file, set())]
    assert not wrong, "import it inside the function that needs it; FIRST_USE is for whole files that are imported so"


def test_allowances_are_used() -> None:
    used = {(found.file, found.package) for found in imports() if found.at_head and is_third_party(found)}
    allowed = {(file, package) for file, packages in FIRST_USE.items() for package in packages}
    assert allowed <= used, "an allowance that nobody needs any more"


def test_rules_see_what_they_forbid() -> None:
    text = """
import openai
from ..router import api
def late():
    from .. import caching
    import numpy
if TYPE_CHECKING:
    import redis
"""
    found = list(imports_in("providers/bad.py", text))
    assert [(item.module, item.at_head) for item in found] == [
        ("openai", True),
        ("rejoinder.router", True),
        ("rejoinder.caching", False),
        ("numpy", False),
        ("redis", False),
    ]
    assert [item.part for item in found if item.package == "rejoinder"] == ["router", "caching"]
    deep = next(imports_in("caching/stores/bad.py", "from ...providers.table import resolve"))
    assert deep.part == "providers"


# ── what must not be there ────────────────────────────────────────────────────────────────────────────────────────


def test_no_module_is_called_cache_beside_the_face() -> None:
    # Importing rejoinder.cache as a module would overwrite the setting rejoinder.cache.
    assert not list((ROOT / "src/rejoinder").glob("cache*"))


def test_nothing_unpickles_or_evaluates() -> None:
    wrong = [f"{found}" for found in imports() if found.package in DANGEROUS]
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Name) and node.id in {"eval", "exec", "__import__"}:
                wrong.append(f"{name_of(path)}:{node.lineno} uses {node.id}")
    assert not wrong


def test_only_the_face_and_the_four_folders_are_in_src() -> None:
    names = {path.name for path in (ROOT / "src/rejoinder").iterdir()} - {"__pycache__"}
    assert names == {"__init__.py", "__main__.py", "_version.py", "py.typed", *PARTS}


# ── what importing does ───────────────────────────────────────────────────────────────────────────────────────────

WATCH = """
import sys
seen = []
events = "socket.connect socket.getaddrinfo socket.bind sqlite3.connect subprocess.Popen os.mkdir".split()
def hook(event, args):
    if event in events:
        seen.append(event)
    elif event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        seen.append(f"wrote {args[0]}")
sys.addaudithook(hook)
"""


def after(code: str) -> tuple[list[str], set[str]]:
    """What running `code` in a new process did to the world, and the packages that it loaded."""
    program = f"{WATCH}\nbefore = set(sys.modules)\n{code}\nimport json\n"
    program += "print(json.dumps([seen, sorted({name.split('.')[0] for name in set(sys.modules) - before})]))"
    # -B, because bytecode is Python's to write.
    run = subprocess.run(
        [sys.executable, "-B", "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    seen, loaded = json.loads(run.stdout.splitlines()[-1])
    return seen, set(loaded)


def test_import_loads_no_package_and_touches_nothing() -> None:
    seen, loaded = after("import rejoinder")
    assert not seen
    assert {name for name in loaded if name not in sys.stdlib_module_names} == {"rejoinder"}
    assert not loaded & SLOW


def test_setting_a_cache_connects_nowhere_and_loads_no_vendor() -> None:
    seen, loaded = after("import rejoinder; rejoinder.cache = rejoinder.Cache(type='redis', host='localhost', port=1)")
    assert not seen
    assert not loaded & {"openai", "anthropic", "httpx", "httpx2", "tiktoken", "numpy", "aiohttp", "pydantic"}


def test_calling_one_vendor_does_not_load_the_other() -> None:
    call = "rejoinder.completion('echo/x', [{'role': 'user', 'content': 'Hi'}])"
    _, loaded = after(f"import rejoinder; {call}")
    assert "openai" in loaded
    assert not loaded & {"anthropic", "redis", "tiktoken", "numpy"}


def test_watch_sees_a_file_written(tmp_path: Path) -> None:
    seen, loaded = after(f"open({str(tmp_path / 'x')!r}, 'w').close(); import sqlite3")
    assert seen == [f"wrote {tmp_path / 'x'}"]
    assert "sqlite3" in loaded
