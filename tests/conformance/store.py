"""What every store promises. Inherit `StoreConformance` in a test module and give it a `store` fixture."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from rejoinder.caching.stores.base import Record, Store

TTL = 0.04  # seconds; long enough to be seen alive, short enough to wait for

Call = Callable[..., Awaitable[Any]]


async def gone(call: Call, key: str) -> bool:
    """Wait until `key` has expired, or for ten times as long as that may take."""
    deadline = time.monotonic() + max(10 * TTL, 1)
    while await call("get", key) is not None:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(TTL / 4)
    return True


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Do `work(number)` in that many threads at once; an error in one of them is raised here."""
    errors: list[BaseException] = []
    start = threading.Barrier(count)

    def run(number: int) -> None:
        try:
            start.wait(10)
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads)


def in_fork(work: Callable[[], None]) -> None:
    """Do `work` in a forked child, which has thirty seconds."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)  # not the parent's clean-up, which is pytest's
    deadline = time.monotonic() + 30
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the forked child did not end")
        time.sleep(0.005)
    assert os.waitstatus_to_exitcode(status) == 0


class StoreConformance:
    """Give a fixture `store` (and close it there); each test is one promise of `Store`."""

    many = 1203
    """Entries that are more than any medium lists, or removes, in one go. Fewer where each costs a request."""

    has_its_own_clock = False
    """True if a medium counts the seconds of a lease by itself, so that it does not see when a clock is set back."""

    @pytest.fixture(params=["sync", "async"])
    def call(self, request: pytest.FixtureRequest, store: Store) -> Call:
        """`await call("get", key)` is `store.get(key)` in one run and `await store.aget(key)` in the other."""

        async def call(method: str, *args: object) -> Any:
            if request.param == "async":
                return await getattr(store, f"a{method}")(*args)
            return getattr(store, method)(*args)

        return call

    async def test_what_is_set_is_got(self, call: Call) -> None:
        await call("set", "k", b"value")
        assert await call("get", "k") == b"value"

    async def test_a_missing_key_is_none(self, call: Call) -> None:
        assert await call("get", "never set") is None

    async def test_set_replaces(self, call: Call) -> None:
        await call("set", "k", b"a long first value")
        await call("set", "k", b"second")
        assert await call("get", "k") == b"second"

    async def test_delete_removes_and_says_whether_it_was_there(self, call: Call) -> None:
        await call("set", "k", b"value")
        assert await call("delete", "k") is True
        assert await call("get", "k") is None
        assert await call("delete", "k") is False

    async def test_empty_bytes_are_a_value(self, call: Call) -> None:
        await call("set", "k", b"")
        assert await call("get", "k") == b""

    async def test_any_byte_may_be_in_a_value(self, call: Call) -> None:
        value = bytes(range(256)) * 3
        await call("set", "k", value)
        got = await call("get", "k")
        assert type(got) is bytes
        assert got == value

    @pytest.mark.parametrize(
        "key", ["ключ 键 🗝", "x" * 1000, "a/b:c*d?e[f]", " ", "a\nb", "a\0b", "%_'\"\\"], ids=ascii
    )
    async def test_any_text_may_be_a_key(self, call: Call, key: str) -> None:
        await call("set", key, b"this one")
        await call("set", key + "x", b"another")
        assert await call("get", key) == b"this one"
        assert await call("get", key[:-1] + "~") is None
        assert await call("delete", key) is True
        assert await call("get", key) is None

    async def test_keys_differ_in_case_and_in_normal_form(self, call: Call) -> None:
        keys = ["key", "KEY", "\u00e9", "e\u0301"]
        for key in keys:
            await call("set", key, key.encode())
        assert [await call("get", key) for key in keys] == [key.encode() for key in keys]

    async def test_a_large_value_comes_back_whole(self, call: Call) -> None:
        value = os.urandom(1024) * 4096
        await call("set", "large", value)
        assert await call("get", "large") == value

    async def test_an_entry_is_gone_after_its_ttl(self, call: Call) -> None:
        await call("set", "k", b"value", 10)
        assert await call("get", "k") == b"value"
        await call("set", "k", b"value", TTL)
        assert await gone(call, "k")

    async def test_an_expired_entry_is_not_scanned(self, call: Call, store: Store) -> None:
        await call("set", "k", b"value", TTL)
        assert await gone(call, "k")
        assert list(store.scan()) == []

    async def test_an_expired_entry_is_listed_as_such_or_is_gone(self, call: Call, store: Store) -> None:
        await call("set", "alive", b"value", 100)
        await call("set", "k", b"value", TTL)
        assert await gone(call, "k")
        assert list(store.expired("another")) == []
        dead = [record.key for record in store.expired()]
        assert dead in ([], ["k"])  # not every medium keeps what has expired
        assert store.peek(["k", "alive"]) == [b"value" if dead else None, b"value"]
        store.delete("k")
        assert list(store.expired()) == []

    async def test_a_look_gives_what_was_set_in_the_order_of_its_keys(self, call: Call, store: Store) -> None:
        for number in range(250):
            store.set(f"k{number}", b"%d" % number)
        assert store.peek([f"k{number}" for number in reversed(range(251))]) == [
            None,
            *(b"%d" % number for number in reversed(range(250))),
        ]
        assert store.peek([]) == []

    async def test_without_a_ttl_an_entry_stays(self, call: Call, store: Store) -> None:
        await call("set", "k", b"old", TTL)
        await call("set", "k", b"new", None)
        await asyncio.sleep(1.2 * TTL)
        assert await call("get", "k") == b"new"
        assert [record.expires_at for record in store.scan()] == [None]

    async def test_clear_removes_everything_and_counts(self, call: Call, store: Store) -> None:
        for number in range(self.many):
            store.set(f"k{number}", b"value")
        assert await call("clear") == self.many
        assert list(store.scan()) == []
        assert await call("clear") == 0

    async def test_a_tag_is_cleared_and_what_has_another_stays(self, call: Call) -> None:
        for key, tags in {"n:a": ["red"], "n:b": ["red", "blue"], "n:c": ["blue"], "n:d": [], "m:a": ["red"]}.items():
            await call("tag", key, tags)
            await call("set", key, b"value")
        assert await call("clear_tag", "n:", "red") == 2
        left = [key for key in ("n:a", "n:b", "n:c", "n:d", "m:a") if await call("get", key) is not None]
        assert left == ["n:c", "n:d", "m:a"]
        assert await call("clear_tag", "n:", "red") == 0

    @pytest.mark.parametrize("tag", ["a:b", "*", "%", "été 🗝", " ", "a\nb"], ids=ascii)
    async def test_any_text_may_be_a_tag(self, call: Call, tag: str) -> None:
        for key, tags in {"n:a": [tag], "n:b": [tag + "x"], "n:c:d": [tag]}.items():
            await call("tag", key, tags)
            await call("set", key, b"value")
        assert await call("clear_tag", "n:", tag) == 2
        assert await call("get", "n:b") == b"value"

    async def test_a_tag_of_what_is_gone_is_no_trouble(self, call: Call) -> None:
        await call("tag", "n:a", ["red"])
        await call("tag", "n:b", ["red"])
        await call("set", "n:b", b"value")
        await call("delete", "n:b")
        assert await call("clear_tag", "n:", "red") == 0

    async def test_a_key_that_is_set_again_keeps_its_tags(self, call: Call) -> None:
        for tags in (["red"], ["blue"]):
            await call("tag", "n:a", tags)
            await call("set", "n:a", b"value")
        assert await call("clear_tag", "n:", "blue") == 1
        assert await call("get", "n:a") is None

    async def test_a_tag_lasts_as_long_as_what_was_set_a_while_later(self, call: Call) -> None:
        await call("tag", "n:a", ["red"], TTL)
        await asyncio.sleep(1.2 * TTL)
        await call("set", "n:a", b"value", TTL * 25)
        assert await call("clear_tag", "n:", "red") == 1

    async def test_tags_end_with_what_has_them(self, call: Call, store: Store) -> None:
        await call("tag", "n:a", ["red"], TTL)
        await call("set", "n:a", b"value", TTL)
        assert await gone(call, "n:a")
        store.prune()
        await call("delete", "n:a")  # a medium that does not prune still has it
        assert await call("clear_tag", "n:", "red") == 0

    async def test_clear_clears_tags_too(self, call: Call, store: Store) -> None:
        await call("tag", "n:a", ["red"])
        await call("set", "n:a", b"value")
        await call("clear", "n:")
        assert list(store.scan()) == []
        await call("set", "n:a", b"value")
        assert await call("clear_tag", "n:", "red") == 0

    @pytest.mark.parametrize("prefix", ["a%", "a_", "a*", "a?", "a[b]", "a\\", "é", "A", "a\0"], ids=ascii)
    async def test_a_prefix_is_literal(self, call: Call, store: Store, prefix: str) -> None:
        others = ["abc", "a", "axb", "\u00e8", "z"]
        for key in [*others, prefix + "1", prefix]:
            await call("set", key, b"value")
        assert {record.key for record in store.scan(prefix)} == {prefix + "1", prefix}
        assert await call("clear", prefix) == 2
        assert {record.key for record in store.scan()} == set(others)

    async def test_scan_tells_key_size_and_times(self, store: Store) -> None:
        before = time.time()
        store.set("one", b"12345", 100)
        store.set("two", b"")
        after = time.time()
        records = {record.key: record for record in store.scan()}
        assert set(records) == {"one", "two"}
        assert all(isinstance(record, Record) for record in records.values())
        one, two = records["one"], records["two"]
        assert (one.size, two.size) == (5, 0)
        # A second to spare: a medium may keep whole seconds, or its own clock.
        assert before - 1 <= one.stored_at <= after + 1
        assert one.expires_at is not None
        assert before + 99 <= one.expires_at <= after + 101
        assert two.expires_at is None

    async def test_scan_gives_every_entry_once_while_others_write(self, store: Store) -> None:
        keys = {f"k{number}" for number in range(self.many)}
        for key in keys:
            store.set(key, b"value")
        seen = []
        for record in store.scan("k"):
            if len(seen) % 400 == 0:
                store.set(f"other{len(seen)}", b"value")
            seen.append(record.key)
        assert len(seen) == len(set(seen))
        assert set(seen) == keys

    async def test_scan_may_be_left_early(self, store: Store) -> None:
        store.set("a", b"value")
        store.set("b", b"value")
        next(iter(store.scan()))
        store.set("c", b"value")
        assert store.clear() == 3

    async def test_prune_leaves_what_is_alive(self, call: Call, store: Store) -> None:
        await call("set", "dead", b"value", TTL)
        await call("set", "alive", b"value", 100)
        await call("set", "eternal", b"value")
        assert await gone(call, "dead")
        assert store.prune() in (0, 1)  # 0 where the medium removes by itself
        assert {record.key for record in store.scan()} == {"alive", "eternal"}
        assert store.prune() == 0

    async def test_a_closed_store_may_be_used_again(self, call: Call) -> None:
        await call("set", "k", b"before")
        await call("close")
        await call("close")
        await call("set", "k", b"after")
        assert await call("get", "k") == b"after"

    def test_threads_do_not_disturb_each_other(self, store: Store) -> None:
        def work(number: int) -> None:
            for turn in range(20):
                key, value = f"{number}:{turn % 5}", f"{number}:{turn}".encode() * 50
                store.set(key, value)
                assert store.get(key) == value
                shared = b"%d" % number * 1000
                store.set("shared", shared)
                got = store.get("shared")
                assert got is not None
                assert len(got) == 1000
                assert len(set(got)) == 1  # of one writer, whole

        in_threads(8, work)
        assert len(list(store.scan())) == 8 * 5 + 1

    def test_a_store_may_be_closed_while_threads_use_it(self, store: Store) -> None:
        def work(number: int) -> None:
            for turn in range(20):
                if number == 0:
                    store.close()
                else:
                    store.set(f"k{number}", b"%d" % turn)
                    store.get(f"k{number}")

        in_threads(4, work)
        store.set("k", b"value")
        assert store.get("k") == b"value"

    def test_one_store_serves_several_event_loops(self, store: Store) -> None:
        async def work(number: int) -> None:
            for turn in range(5):
                await store.aset(f"{number}", b"%d" % turn, 100)
                assert await store.aget(f"{number}") == b"%d" % turn

        for number in range(3):
            asyncio.run(work(number))
        in_threads(3, lambda number: asyncio.run(work(number)))

    async def test_many_tasks_at_once(self, store: Store) -> None:
        async def work(number: int) -> None:
            await store.aset(f"k{number}", b"%d" % number)
            assert await store.aget(f"k{number}") == b"%d" % number

        await asyncio.gather(*[work(number) for number in range(50)])

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    def test_both_sides_of_a_fork_go_on(self, store: Store) -> None:
        store.set("before", b"value")
        assert store.get("before") == b"value"

        def child() -> None:
            assert store.get("before") == b"value"
            store.set("child", b"value")
            assert store.get("child") == b"value"
            assert asyncio.run(store.aget("child")) == b"value"
            store.close()

        in_fork(child)
        assert store.get("before") == b"value"
        store.set("after", b"value")
        assert store.get("after") == b"value"

    async def test_a_lease_is_held_by_one(self, call: Call, store: Store) -> None:
        needs_leases(store)
        token = await call("lease", "k", 10)
        assert isinstance(token, str)
        assert await call("lease", "k", 10) is None
        assert isinstance(await call("lease", "another", 10), str)

    async def test_a_released_lease_is_free(self, call: Call, store: Store) -> None:
        needs_leases(store)
        first = await call("lease", "k", 10)
        assert await call("release", "k", first) is True
        assert await call("release", "k", first) is False
        second = await call("lease", "k", 10)
        assert isinstance(second, str)
        assert second != first

    async def test_a_lease_expires(self, call: Call, store: Store) -> None:
        needs_leases(store)
        first = await call("lease", "k", TTL)
        await asyncio.sleep(1.2 * TTL)
        assert await call("renew", "k", first, 10) is False
        assert isinstance(await call("lease", "k", 10), str)
        assert await call("release", "k", first) is False
        assert await call("lease", "k", 10) is None

    async def test_a_renewed_lease_lives_on(self, call: Call, store: Store) -> None:
        needs_leases(store)
        token = await call("lease", "k", 10 * TTL)
        assert await call("renew", "k", token, 10) is True
        await asyncio.sleep(1.2 * TTL)
        assert await call("lease", "k", 10) is None
        assert await call("renew", "k", token, TTL) is True
        await asyncio.sleep(1.2 * TTL)
        assert isinstance(await call("lease", "k", 10), str)

    async def test_a_lease_from_before_the_clock_was_set_back_is_nobodys(self, call: Call, store: Store) -> None:
        """Seen from after the step, it ends later than anybody would ask for."""
        needs_leases(store)
        if self.has_its_own_clock:
            pytest.skip(f"the {store.name} store counts the seconds itself")
        first = await call("lease", "k", 3600)
        second = await call("lease", "k", 1)
        assert isinstance(second, str)
        assert await call("release", "k", first) is False
        assert await call("lease", "k", 1) is None

    async def test_a_foreign_token_does_nothing(self, call: Call, store: Store) -> None:
        needs_leases(store)
        token = await call("lease", "k", 10)
        other = await call("lease", "other", 10)
        for foreign in (other, "made up", ""):
            assert await call("renew", "k", foreign, 100) is False
            assert await call("release", "k", foreign) is False
        assert await call("release", "never leased", token) is False
        assert await call("lease", "k", 10) is None
        assert await call("release", "k", token) is True

    @pytest.mark.parametrize("pause", [0, 0.0005, 0.002, 0.01])
    def test_a_lease_whose_taker_ends_with_its_loop_is_free(self, store: Store, pause: float) -> None:
        needs_leases(store)

        async def taken_by_one_who_is_cancelled() -> asyncio.Task[str | None]:
            taking = asyncio.create_task(store.alease("k", 60))
            await asyncio.sleep(pause)
            return taking

        for _ in range(5):
            taking = asyncio.run(taken_by_one_who_is_cancelled())
            if not taking.cancelled() and (token := taking.result()):  # it was quicker
                store.release("k", token)
            deadline = time.monotonic() + 5
            while (token := store.lease("k", 60)) is None and time.monotonic() < deadline:
                time.sleep(0.005)
            assert token is not None
            assert store.release("k", token)

    async def test_leases_and_entries_do_not_meet(self, call: Call, store: Store) -> None:
        needs_leases(store)
        await call("set", "k", b"value")
        token = await call("lease", "k", 10)
        assert await call("get", "k") == b"value"
        assert [record.key for record in store.scan()] == ["k"]
        assert await call("clear") == 1
        assert await call("renew", "k", token, 10) is True
        assert await call("get", "k") is None

    def test_of_many_threads_one_gets_the_lease(self, store: Store) -> None:
        needs_leases(store)
        tokens: list[str | None] = []
        in_threads(8, lambda number: tokens.append(store.lease("k", 10)))
        assert len(tokens) == 8
        assert len([token for token in tokens if token]) == 1

    def test_a_store_without_leases_says_so(self, store: Store) -> None:
        if store.leases:
            pytest.skip("this store has leases")
        for method, args in ((store.lease, ("k", 1.0)), (store.renew, ("k", "t", 1.0)), (store.release, ("k", "t"))):
            with pytest.raises(NotImplementedError):
                method(*args)  # type: ignore[operator]

    def test_the_store_has_a_name_and_a_budget(self, store: Store) -> None:
        assert store.name.isidentifier()
        assert store.budget > 0

    def test_twins_take_the_same_parameters(self, store: Store) -> None:
        for method in ("get", "set", "delete", "clear", "close", "lease", "renew", "release"):
            plain, twin = (inspect.signature(getattr(store, name)) for name in (method, f"a{method}"))
            assert list(plain.parameters) == list(twin.parameters), method


def needs_leases(store: Store) -> None:
    if not store.leases:
        pytest.skip(f"the {store.name} store has no leases")


def closing(store: Store) -> Iterator[Store]:
    """For a fixture: `yield from closing(MyStore())`."""
    with contextlib.closing(store):
        yield store
