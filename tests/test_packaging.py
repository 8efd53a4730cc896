"""What is installed: the name `rejoinder` and nothing beside it, whole, typed, from a wheel and editable alike.

The environments made here are real. They share the packages of the one that runs the tests, so nothing is downloaded.
"""

from __future__ import annotations

import configparser
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("core", "providers", "caching", "router")
LEFT_OUT = (".git", ".venv", ".cache", ".hypothesis", ".*_cache", "__pycache__", "*.egg-info", "build", "dist")

CONSUMER = """
import asyncio

import openai
from openai.types.chat import ChatCompletion
from typing import assert_type

import rejoinder

rejoinder.cache = rejoinder.Cache(type="local", ttl="1h")
answer = rejoinder.completion("echo/any", [{"role": "user", "content": "Hi"}], temperature=0)
assert_type(answer, rejoinder.Completion)
openai_answer: ChatCompletion = answer
text: str | None = answer.choices[0].message.content
marked: bool = answer.cache
for chunk in rejoinder.completion("echo/any", [{"role": "user", "content": "Hi"}], stream=True):
    assert_type(chunk, rejoinder.Chunk)
own = rejoinder.Cache(store_if=lambda answer: None, tags=["a"], old=rejoinder.Cache())
own.get_cache_key = lambda *args, **kwargs: "one for all"
with own, rejoinder.in_mode("refresh"):
    rejoinder.completion("echo/any", [{"role": "user", "content": "Hi"}], aws_region_name="eu-west-1", cache=True)
rejoinder.cache_mode = None


async def ask() -> str | None:
    return (await rejoinder.acompletion("echo/any", [{"role": "user", "content": text}])).choices[0].message.content


try:
    assert asyncio.run(ask()) == "Hi"
except openai.RateLimitError as error:
    print(error)
assert isinstance(answer, ChatCompletion) and text == "Hi"
print(rejoinder.__file__)
"""

WRONG_CONSUMER = """
import rejoinder

rejoinder.completion("echo/any", [], temperature="hot")
"""


def command(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program outside the repository, as a user would: no PYTHONPATH."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return subprocess.run([str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True)


def done(*words: str | Path, cwd: Path) -> str:
    """The same for a program that must succeed; what it printed."""
    run = command(*words, cwd=cwd)
    assert run.returncode == 0, f"{words}\n{run.stdout}{run.stderr}"
    return run.stdout


def needs(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed here: pip install -e '.[test]'")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository, links as links, so that building leaves nothing behind here."""
    folder = tmp_path_factory.mktemp("copy") / "a copy"
    shutil.copytree(ROOT, folder, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
    return folder


@pytest.fixture(scope="module")
def wheel(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs("pip", "setuptools")
    found = version("setuptools")
    if int(found.split(".")[0]) < 77:
        pytest.skip(f"setuptools {found} is here, and the build needs 77: pip install -e '.[test]'")
    folder = tmp_path_factory.mktemp("wheel")
    done(*PIP, "wheel", *OFFLINE, "--wheel-dir", folder, copy, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
OFFLINE = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation")


def environment(folder: Path) -> Path:
    """The Python of a new virtual environment that also sees the packages of this one, except rejoinder itself."""
    venv.create(folder, with_pip=False)
    python = folder / "bin/python"
    site = Path(done(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    # Python does not read the .pth files of a folder that is itself named in one, so an editable rejoinder stays out.
    (site / "shared.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}))
    return python


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, copy: Path) -> Path:
    """The Python of an environment into which the copy was installed in one of the two ways."""
    folder = tmp_path_factory.mktemp("installed")
    wheel: Path = request.getfixturevalue("wheel")
    what = [wheel] if request.param == "wheel" else ["--editable", copy]
    python = environment(folder / "env")
    # From outside, by the pip of this environment: only the new one's own folders are touched.
    done(python, "-m", "pip", "install", *OFFLINE, "--ignore-installed", *what, cwd=folder)
    return python


def modules_in_repository() -> set[str]:
    files = {path.relative_to(ROOT) for part in PARTS for path in (ROOT / part).rglob("*.py")}
    face = {path.relative_to(ROOT / "src/rejoinder") for path in (ROOT / "src/rejoinder").glob("*.py")}
    return {f"rejoinder/{path.as_posix()}" for path in files | face}


def packages_listed() -> set[str]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    return set(setup["options"]["packages"].split())


def test_every_package_is_listed() -> None:
    folders = {path.parent.relative_to(ROOT) for part in PARTS for path in (ROOT / part).rglob("*.py")}
    found = {"rejoinder", *(".".join(["rejoinder", *folder.parts]) for folder in folders)}
    assert packages_listed() == found, "options.packages in setup.cfg"


def test_every_folder_of_modules_is_a_package() -> None:
    for path in [path for part in PARTS for path in (ROOT / part).rglob("*.py")]:
        assert (path.parent / "__init__.py").exists(), path


def test_links_to_the_four_folders_are_links() -> None:
    for part in PARTS:
        assert (ROOT / "src/rejoinder" / part).readlink() == Path("../..", part)


def test_wheel_holds_the_package_whole_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"rejoinder"}
    assert {name for name in names if name.startswith("rejoinder/")} == modules_in_repository() | {"rejoinder/py.typed"}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_installed_package_works_from_a_foreign_folder(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "consumer.py").write_text(CONSUMER)
    where = Path(done(installed, "consumer.py", cwd=tmp_path).splitlines()[-1])
    assert where.name == "__init__.py"
    assert ROOT not in where.parents
    for bare in PARTS:
        run = command(installed, "-c", f"import {bare}", cwd=tmp_path)
        assert f"No module named '{bare}'" in run.stderr, f"a bare {bare!r} was installed"


def test_installed_command_runs(installed: Path, tmp_path: Path) -> None:
    import rejoinder

    assert done(installed.parent / "rejoinder", "--version", cwd=tmp_path) == f"rejoinder {rejoinder.__version__}\n"


def test_consumers_of_the_installed_package_are_type_checked(installed: Path, tmp_path: Path, mypy_cache: Path) -> None:
    (tmp_path / "consumer.py").write_text(CONSUMER)
    (tmp_path / "wrong.py").write_text(WRONG_CONSUMER)
    check = (sys.executable, "-m", "mypy", "--strict", "--python-executable", installed, "--cache-dir", mypy_cache)
    assert "Success" in done(*check, "consumer.py", cwd=tmp_path)
    # Without py.typed, or where the package is not found, everything is Any and nothing is wrong.
    assert "wrong.py:4: error: " in command(*check, "wrong.py", cwd=tmp_path).stdout


@pytest.fixture(scope="module")
def mypy_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by the ways of installing: what mypy knows of the openai package is the same in all."""
    needs("mypy")
    return tmp_path_factory.mktemp("mypy")
