"""What the disk store promises beyond every store: it survives what happens to files."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rejoinder.caching.stores import disk, disk_file
from rejoinder.caching.stores.base import TooLarge
from rejoinder.caching.stores.disk import DiskStore, default_directory
from tests.conformance.store import in_fork, in_threads

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="these tests use fork, signals and permission bits")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    store = DiskStore(tmp_path / "cache", budget=5)
    yield store
    store.close()


def set_aside(path: Path) -> list[Path]:
    return [file for file in path.parent.glob("*corrupt*") if not file.name.endswith(("-wal", "-shm"))]


def python(program: str, *arguments: object) -> subprocess.Popen[str]:
    """A real process that has `DiskStore`, `sys`, `os`, `random` and `time`, in which our package is importable."""
    head = "import os, random, sys, time\nfrom rejoinder.caching.stores.disk import DiskStore\n"
    root = Path(disk.__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    command = [sys.executable, "-c", head + program, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


# ── where and when files appear ───────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_created_before_the_first_write(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "deep" / "cache")
    assert store.get("k") is None
    assert asyncio.run(store.aget("k")) is None
    assert list(store.scan()) == []
    assert store.delete("k") is False
    assert (store.clear(), store.prune()) == (0, 0)
    assert store.release("k", "token") is False
    store.close()
    assert list(tmp_path.iterdir()) == []
    store.set("k", b"value")
    assert store.path.exists()
    store.close()


def test_only_the_owner_may_read(store: DiskStore) -> None:
    before = os.umask(0)
    try:
        store.set("k", b"value")
    finally:
        os.umask(before)
    assert stat.S_IMODE(store.directory.stat().st_mode) == 0o700
    files = list(store.directory.iterdir())
    assert len(files) == 3  # the database, its log, the log's index
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_the_directory_is_the_one_that_was_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("REJOINDER_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_directory() == tmp_path / ".cache" / "rejoinder"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_directory() == tmp_path / ".cache" / "rejoinder"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_directory() == tmp_path / "xdg" / "rejoinder"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert default_directory() == tmp_path / "Library" / "Caches" / "rejoinder"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert default_directory() == tmp_path / "local" / "rejoinder"
    monkeypatch.setenv("REJOINDER_CACHE_DIR", str(tmp_path / "mine"))
    assert default_directory() == tmp_path / "mine" == DiskStore().directory


def test_a_directory_with_odd_characters_works(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "a?b#c%20 é")
    store.set("k", b"value")
    assert store.get("k") == b"value"
    assert [path.name for path in tmp_path.iterdir()] == ["a?b#c%20 é"]
    store.close()


# ── many processes ────────────────────────────────────────────────────────────────────────────────────────────────────

MIXED = """
store, me = DiskStore(sys.argv[1], budget=10), sys.argv[2]
for turn in range(150):
    key = f"{me}:{turn % 7}"
    store.set(key, f"{me}:{turn}".encode() * 100, 100)
    assert store.get(key) == f"{me}:{turn}".encode() * 100
    store.set("shared", me.encode() * 5000)
    assert len(set(store.get("shared"))) == 1
    if turn % 10 == 0:
        assert store.delete(key) and store.get(key) is None
        assert len(list(store.scan(me + ":"))) <= 7
    if turn % 50 == 0:
        store.prune(), store.clear(f"{me}:6"), store.close()
    if token := store.lease("only one", 10):
        counter = int(store.get("counter") or 0)
        store.set("counter", str(counter + 1).encode())
        print("counted", flush=True)
        assert store.release("only one", token)
"""


def test_processes_share_one_file(store: DiskStore) -> None:
    processes = [python(MIXED, store.directory, number) for number in range(4)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    counted = "".join(outputs).count("counted")
    assert counted > 0
    assert store.get("counter") == str(counted).encode()  # none was lost: the lease kept the others out
    assert set_aside(store.path) == []


WRITER = """
store, round = DiskStore(sys.argv[1], budget=10), sys.argv[2]
for number in range(100_000):
    size = random.choice([10, 1000, 50_000])
    store.set(f"{round}:{number}", f"{round}:{number};".encode() * (size // 8 + 1))
    os.write(1, b"%d\\n" % number)
"""


def test_after_a_kill_every_acknowledged_write_is_there_and_whole(store: DiskStore) -> None:
    acknowledged: dict[str, int] = {}
    for turn in range(30):
        process = python(WRITER, store.directory, turn)
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(random.uniform(0, 0.03))
        process.kill()
        # Not `communicate`: it does not see what `readline` has read ahead.
        numbers = (first + process.stdout.read()).split("\n")[:-1]
        process.stdout.close()
        process.wait()
        acknowledged[str(turn)] = int(numbers[-1])
    entries = {record.key for record in store.scan()}
    for turn_name, last in acknowledged.items():
        for number in range(last + 1):
            key = f"{turn_name}:{number}"
            value = store.get(key)
            assert value is not None, key
            assert value.replace(f"{key};".encode(), b"") == b""
            entries.discard(key)
    assert len(entries) <= 30  # of each round, the one write that was done but not yet reported
    assert sum(acknowledged.values()) > 100
    assert set_aside(store.path) == []


def test_the_lease_of_a_killed_process_expires(store: DiskStore) -> None:
    process = python("print(DiskStore(sys.argv[1]).lease('k', 0.5), flush=True); time.sleep(60)", store.directory)
    assert process.stdout is not None
    assert len(process.stdout.readline()) > 10
    process.kill()
    process.communicate()
    assert store.lease("k", 10) is None
    deadline = time.monotonic() + 5
    while store.lease("k", 10) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_locked_file_costs_no_more_than_the_budget(store: DiskStore) -> None:
    store.set("k", b"value")
    hasty = DiskStore(store.directory, budget=0.1)
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for write in (lambda: hasty.set("x", b""), lambda: hasty.delete("k"), lambda: hasty.lease("k", 1)):
        begin = time.monotonic()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            write()
        assert 0.05 < time.monotonic() - begin < 0.3
    assert hasty.get("k") == b"value"  # a reader does not wait for a writer
    other.execute("ROLLBACK")
    other.close()
    hasty.set("x", b"value")
    assert hasty.get("x") == b"value"
    hasty.close()


# ── forks and threads ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_forks_under_load_lose_nothing(store: DiskStore) -> None:
    """Threads write while others fork; what children wrote must survive that the parent closes first."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def write() -> None:
        number = 0
        try:
            while not stop.is_set():
                store.set(f"thread:{number % 10}", b"x" * 500)
                number += 1
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    for turn in range(10):

        def child(turn: int = turn) -> None:
            for number in range(10):
                store.set(f"child:{turn}:{number}", b"value")
                assert store.get(f"child:{turn}:{number}") == b"value"

        in_fork(child)
        store.close()
    stop.set()
    thread.join(10)
    assert failures == []
    assert len(list(store.scan("child:"))) == 100
    assert set_aside(store.path) == []


def test_no_connection_is_open_at_a_fork(store: DiskStore) -> None:
    store.set("k", b"value")

    def child() -> None:
        descriptors = Path("/proc/self/fd") if Path("/proc/self/fd").exists() else Path("/dev/fd")
        open_files = [
            os.readlink(entry) for entry in descriptors.iterdir() if entry.is_symlink() and os.path.lexists(entry)
        ]
        assert not any(name.startswith(str(store.path)) for name in open_files)
        assert store.get("k") == b"value"

    in_fork(child)
    assert store.get("k") == b"value"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files through /proc")
def test_connections_of_ended_threads_are_released(store: DiskStore) -> None:
    def count() -> int:
        gc.collect()
        names = []
        for entry in Path("/proc/self/fd").iterdir():
            try:
                names.append(os.readlink(entry))
            except FileNotFoundError:
                continue
        return sum(name == str(store.path) for name in names)

    store.set("k", b"value")
    assert count() == 1
    for _ in range(5):
        in_threads(8, lambda number: store.set(f"{number}", b"value"))
    # SQLite keeps a descriptor while another connection of the process has locks, and uses it again.
    assert count() <= 9
    store.close()
    assert count() == 0


# ── damage ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    store = DiskStore(tmp_path_factory.mktemp("sound"))
    for number in range(60):
        store.set(f"k{number}", f"{number};".encode() * 300, 1000)
    store.close()
    return store.path.read_bytes()


def expected(number: int) -> bytes:
    return f"{number};".encode() * 300


def recovers(directory: Path, content: bytes) -> bool:
    """Over a file with this content no read is wrong and no call fails; true if soon every write is read again.

    Not at once: a write may go into a sound part of the file, before a read finds the damage in another.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    (directory / disk.FILE).write_bytes(content)
    store = DiskStore(directory, budget=5)
    values = {f"k{number}": expected(number) for number in range(60)}
    for key, value in values.items():
        assert store.get(key) in (None, value)
    list(store.scan())
    well = False
    for _ in range(10):
        for key, value in values.items():
            store.set(key, value)
            assert store.get(key) in (None, value)
        well = {key: store.get(key) for key in values} == values
        if well:
            break
    store.clear()
    store.close()
    return well


def test_a_truncated_file_is_a_miss_and_then_works(tmp_path: Path, sound: bytes) -> None:
    for length in [0, 1, 15, 16, 99, 100, 4095, 4096, 4097, *range(6000, len(sound), len(sound) // 12), len(sound) - 1]:
        assert recovers(tmp_path / "cache", sound[:length]), length


@pytest.mark.parametrize(
    "content", [b"garbage", b"\0" * 10_000, b"SQLite format 3\0" + b"\xff" * 9000, b"{}" * 5000], ids=range(4)
)
def test_what_is_no_database_is_set_aside(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    store = DiskStore(tmp_path)
    store.path.write_bytes(content)
    with caplog.at_level(logging.WARNING, "rejoinder"):
        assert store.get("k") is None
        store.set("k", b"value")
        assert store.get("k") == b"value"
    assert len(caplog.records) == 1
    assert str(store.path) in caplog.text
    (aside,) = set_aside(store.path)
    assert aside.read_bytes() == content
    store.close()


def test_flipped_bytes_are_a_miss_and_never_a_wrong_answer(tmp_path: Path, sound: bytes) -> None:
    generator = random.Random(4)
    well = 0
    for _ in range(40):
        content = bytearray(sound)
        for _ in range(generator.choice([1, 20, 500])):
            # Not in the header, where a flip may make the file one of a newer version, and so not ours to replace.
            content[generator.randrange(100, len(content))] ^= 1 << generator.randrange(8)
        well += recovers(tmp_path / "cache", bytes(content))
    # Rows in a wrong order are damage that SQLite does not see. Some keys then stay misses, which is bearable.
    assert well >= 36


def test_damage_while_in_use_is_noticed(store: DiskStore) -> None:
    for number in range(200):
        store.set(f"k{number}", b"value" * 300)
    store.close()
    with open(store.path, "r+b") as file:
        file.seek(4096)
        file.write(os.urandom(store.path.stat().st_size - 4096))
    assert {store.get(f"k{number}") for number in range(200)} == {None}
    store.set("k", b"value")
    assert store.get("k") == b"value"
    assert len(set_aside(store.path)) == 1


def test_damage_in_a_file_that_was_replaced_does_not_touch_the_new_one(
    store: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"k{number}" for number in range(200)]
    for key in keys:
        store.set(key, b"value" * 300)
    store.close()
    monkeypatch.setattr(disk_file, "LOOK_EVERY", 60)
    late = DiskStore(store.directory, budget=5)
    assert store.get("k0") == late.get("k0") == b"value" * 300
    # In another process: closing a file here would drop the locks that SQLite has on it.
    harm = "f = open(sys.argv[1], 'r+b'); f.seek(4096); f.write(os.urandom(os.path.getsize(sys.argv[1]) - 4096))"
    assert python(harm, store.path).wait(30) == 0
    assert None in [store.get(key) for key in keys]
    store.set("new", b"value")
    assert None in [late.get(key) for key in keys]  # from the old file, which is damaged, and no longer at the path
    assert store.get("new") == late.get("new") == b"value"
    assert len(set_aside(store.path)) == 1
    late.close()


SETTLER = """
store, me = DiskStore(sys.argv[1], budget=10), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
store.get("k")
store.set(me, b"mine")
"""


def test_processes_that_find_the_same_damage_do_not_set_a_good_file_aside(store: DiskStore) -> None:
    store.directory.mkdir()
    for _ in range(3):
        store.close()
        for path in store.directory.iterdir():
            path.unlink()
        store.path.write_bytes(b"garbage" * 1000)
        processes = [python(SETTLER, store.directory, number) for number in range(4)]
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        assert [process.communicate(timeout=30) and process.returncode for process in processes] == [0, 0, 0, 0]
        assert [path.read_bytes()[:7] for path in set_aside(store.path)] == [b"garbage"]
        assert {record.key for record in store.scan()} == {"0", "1", "2", "3"}


def test_only_the_latest_damaged_file_is_kept(store: DiskStore) -> None:
    store.directory.mkdir()
    old = store.path.with_name(f"{disk.FILE}.corrupt-1")
    old.write_bytes(b"old")
    store.path.write_bytes(b"garbage")
    store.get("k")
    assert [path.read_bytes() for path in set_aside(store.path)] == [b"garbage"]


@pytest.mark.parametrize("prepare", ["PRAGMA user_version = 99", "PRAGMA application_id = 7"])
def test_a_newer_or_foreign_file_is_left_alone(store: DiskStore, prepare: str) -> None:
    store.set("k", b"value")
    store.close()
    with sqlite3.connect(store.path) as other:
        other.execute(prepare)
    other.close()
    before = store.path.read_bytes()
    for use in (lambda: store.get("k"), lambda: store.set("k", b"new"), lambda: list(store.scan())):
        with pytest.raises(RuntimeError, match=r"newer rejoinder|another program"):
            use()
    store.close()
    assert store.path.read_bytes() == before
    assert set_aside(store.path) == []


def test_a_newer_schema_that_appears_while_in_use_is_left_alone(store: DiskStore) -> None:
    store.set("k", b"value")
    other = sqlite3.connect(store.path, isolation_level=None)
    other.executescript("BEGIN; DROP TABLE entries; PRAGMA user_version = 99; COMMIT;")
    other.close()
    with pytest.raises(RuntimeError, match="newer rejoinder"):
        store.get("k")
    assert set_aside(store.path) == []


def test_a_directory_removed_while_in_use_is_made_again(store: DiskStore) -> None:
    store.set("k", b"value")
    shutil.rmtree(store.directory)
    store.set("new", b"value")
    assert store.get("new") == b"value"
    assert store.get("k") is None
    assert DiskStore(store.directory).get("new") == b"value"
    shutil.rmtree(store.directory)
    time.sleep(1.1 * disk_file.LOOK_EVERY)  # for so long a reader may go on with the file it has
    assert store.get("new") is None
    assert not store.directory.exists()


# ── where writing fails ───────────────────────────────────────────────────────────────────────────────────────────────


def as_nobody(work: Callable[[], None]) -> None:
    """In a child without root's power to ignore permission bits."""

    def child() -> None:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        work()

    in_fork(child)


def forbid_writing(directory: Path) -> None:
    """Let everybody read in `directory`, and nobody write (but root)."""
    for file in directory.iterdir():
        file.chmod(0o444)
    directory.chmod(0o555)


@pytest.fixture
def public() -> Iterator[DiskStore]:
    """A store in a place that every user can reach, which pytest's own folders are not."""
    base = Path(tempfile.mkdtemp())
    base.chmod(0o755)
    store = DiskStore(base / "cache", budget=5)
    yield store
    store.close()
    if store.directory.exists():
        store.directory.chmod(0o700)
    shutil.rmtree(base)


def check_read_only(directory: Path) -> None:
    store = DiskStore(directory)
    before = sorted(directory.iterdir())
    assert store.get("k") == b"value"
    assert asyncio.run(store.aget("k")) == b"value"
    assert store.get("missing") is None
    assert [record.key for record in store.scan()] == ["k"]
    with pytest.raises((sqlite3.OperationalError, OSError)):
        store.set("k", b"new")
    with pytest.raises((sqlite3.OperationalError, OSError)):
        store.clear()
    assert store.get("k") == b"value"
    store.close()
    assert sorted(directory.iterdir()) == before


def test_a_read_only_directory_can_be_read(public: DiskStore) -> None:
    public.set("k", b"value")
    public.close()
    forbid_writing(public.directory)
    as_nobody(lambda: check_read_only(public.directory))


def test_a_read_only_directory_with_a_live_log_can_be_read(public: DiskStore) -> None:
    public.set("k", b"value")
    process = python(
        "DiskStore(sys.argv[1]).set('k', b'value'); print('ready', flush=True); time.sleep(60)", public.directory
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()  # so that its log stays
    process.communicate()
    forbid_writing(public.directory)
    assert len(list(public.directory.iterdir())) == 3
    as_nobody(lambda: check_read_only(public.directory))


def test_a_directory_that_cannot_be_made_is_a_plain_error(public: DiskStore) -> None:
    base = public.directory.parent
    base.chmod(0o555)

    def work() -> None:
        store = DiskStore(public.directory)
        assert store.get("k") is None
        with pytest.raises(PermissionError):
            store.set("k", b"value")
        store.close()

    as_nobody(work)


def test_damage_in_a_read_only_directory_is_a_plain_error(public: DiskStore) -> None:
    public.directory.mkdir()
    public.path.write_bytes(b"garbage" * 1000)
    forbid_writing(public.directory)

    def work() -> None:
        store = DiskStore(public.directory)
        for _ in range(3):
            with pytest.raises(sqlite3.DatabaseError):
                store.get("k")

    as_nobody(work)
    assert set_aside(public.path) == []


def test_a_read_only_reader_sees_what_the_owner_writes(public: DiskStore) -> None:
    """Also where it had to open the file as immutable, which SQLite never looks at again."""
    public.set("k", b"old")
    public.close()
    directory = public.directory
    forbid_writing(directory)
    read_end, write_end = os.pipe()

    def work() -> None:
        reader = DiskStore(directory)
        assert reader.get("k") == b"old"
        os.write(write_end, b"x")
        deadline = time.monotonic() + 10
        while reader.get("k") != b"new":
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def write() -> None:
        os.read(read_end, 1)
        directory.chmod(0o755)
        public.path.chmod(0o644)
        public.set("k", b"new")
        public.close()

    if os.getuid() != 0:
        pytest.skip("needs two users, and so root")
    # The writer is a process of its own: a thread here would have the file open at the fork.
    writer = os.fork()
    if writer == 0:
        try:
            write()
        finally:
            os._exit(0)
    try:
        as_nobody(work)
    finally:
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)


def test_a_full_disk_is_an_error_and_harms_nothing(store: DiskStore) -> None:
    store.set("before", b"value")

    def child() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
        written, failed = [], 0
        for number in range(100):
            try:
                store.set(f"k{number}", b"x" * 20_000)
                written.append(number)
            except sqlite3.OperationalError:
                failed += 1
        assert len(written) > 5
        assert failed > 5
        assert store.get("before") == b"value"
        assert all(store.get(f"k{number}") == b"x" * 20_000 for number in written)
        assert len(list(store.scan("k"))) == len(written)

    in_fork(child)
    assert store.get("before") == b"value"
    store.set("after", b"value")
    assert store.get("after") == b"value"
    connection = sqlite3.connect(store.path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    assert set_aside(store.path) == []


# ── size ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.mark.parametrize("size", [100, 1000, 30_000])
def test_the_file_stays_within_its_bound(tmp_path: Path, size: int) -> None:
    store = DiskStore(tmp_path, max_bytes=400_000, clock=Clock())
    count = 3 * 400_000 // (size + 200)
    for number in range(count):
        store.set(f"k{number}", os.urandom(size))
        assert store.get(f"k{number}") is not None
    kept = sum(record.size for record in store.scan())
    assert kept > 400_000 * (0.3 if size == 100 else 0.6)
    store.close()
    assert store.path.stat().st_size <= 400_000 + size + 50_000


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, max_bytes=400_000, clock=Clock())
    for number in range(30):
        store.set(f"k{number}", os.urandom(10_000))
    for number in range(5):
        assert store.get(f"k{number}")
    for number in range(20):
        store.set(f"new{number}", os.urandom(10_000))
    kept = {record.key for record in store.scan()}
    assert {f"k{number}" for number in range(5)} <= kept
    assert {f"new{number}" for number in range(20)} <= kept
    assert not {f"k{number}" for number in range(5, 10)} & kept
    store.close()


def test_expired_entries_go_before_live_ones(tmp_path: Path) -> None:
    clock = Clock()
    store = DiskStore(tmp_path, max_bytes=400_000, clock=clock)
    store.set("oldest", os.urandom(10_000))
    for number in range(30):
        store.set(f"k{number}", os.urandom(10_000), ttl=1)
    clock.now += 2
    for number in range(8):
        store.set(f"new{number}", os.urandom(10_000))
    assert store.get("oldest") is not None
    store.close()


def test_a_value_larger_than_the_bound_is_not_kept(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, max_bytes=400_000)
    store.set("small", b"value")
    store.set("k", b"value")
    with pytest.raises(TooLarge, match="400,001 bytes"):
        store.set("k", b"x" * 400_001)
    assert store.get("k") is None
    assert store.get("small") == b"value"
    store.close()


def test_a_hit_writes_nothing(store: DiskStore) -> None:
    store.set("k", b"value")
    files = [store.path, store.path.with_name(store.path.name + "-wal")]
    before = [(file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    for _ in range(100):
        assert store.get("k") == b"value"
    assert [(file.stat().st_size, file.stat().st_mtime_ns) for file in files] == before


def test_clearing_gives_the_space_back(store: DiskStore) -> None:
    for number in range(100):
        store.set(f"k{number}", os.urandom(50_000))
    store.close()
    assert store.path.stat().st_size > 5_000_000
    assert store.clear() == 100
    store.close()
    assert store.path.stat().st_size < 200_000


def test_deleted_space_is_used_again(store: DiskStore) -> None:
    for _ in range(30):
        store.set("k", os.urandom(200_000))
        store.delete("k")
    store.close()
    assert store.path.stat().st_size < 1_000_000


def test_values_of_16_mb_come_back_whole(store: DiskStore) -> None:
    value = os.urandom(2**20) * 16
    store.set("k", value)
    assert store.get("k") == value
    store.close()
    assert store.get("k") == value


def test_half_a_surrogate_pair_may_be_in_a_key(store: DiskStore) -> None:
    store.set("a\ud800", b"value")
    assert store.get("a\ud800") == b"value"
    assert [record.key for record in store.scan("a")] == ["a\ud800"]
