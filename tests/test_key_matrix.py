"""The key matrix, through the front door: is the second call of a pair a hit, a miss or an error, as it should be?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

import rejoinder
from rejoinder import Cache, CachePolicy, Echo
from rejoinder.caching.stores.memory import MemoryStore

from .key_matrix import BASE, PAGE, REFUSED, SAME, UPSTREAM, Case, cases, name_of, page


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{UPSTREAM}/v1")
    yield
    rejoinder.cache = None


class Asker:
    """Makes the calls of a pair, against one store and one vendor."""

    def __init__(self) -> None:
        self.echo, self.store = Echo(["Hello."]), MemoryStore()

    def prepared(self, arguments: dict[str, Any], around: Mapping[str, Any]) -> dict[str, Any]:
        rejoinder.cache = Cache(store=self.store, cache_seed=around.get("seed"))
        call = {**BASE, "client": self.echo, **arguments}
        if "scopes" in around:
            call["cache"] = CachePolicy(scopes=around["scopes"])
        return call

    def ask(self, arguments: dict[str, Any], around: Mapping[str, Any]) -> bool:
        """Whether it was a hit."""
        with round_of(around):
            answer = rejoinder.completion(**self.prepared(arguments, around))
            if arguments.get("stream"):
                assert list(answer)
            return bool(answer.cache)

    async def aask(self, arguments: dict[str, Any], around: Mapping[str, Any]) -> bool:
        with round_of(around):
            answer = await rejoinder.acompletion(**self.prepared(arguments, around))
            if arguments.get("stream"):
                assert [chunk async for chunk in answer]
            return bool(answer.cache)


def round_of(around: Mapping[str, Any]) -> contextlib.AbstractContextManager[None]:
    return rejoinder.epoch(around["epoch"]) if "epoch" in around else contextlib.nullcontext()


pairs = pytest.mark.parametrize("case", [pytest.param(case, id=name_of(section, case)) for section, case in cases()])


@pairs
def test_second_call_of_a_pair_is_answered_rightly(case: Case) -> None:
    asker = Asker()
    assert asker.ask(case.one, case.around_one) is False
    if case.verdict == REFUSED:
        with pytest.raises(rejoinder.InvalidRequest):
            asker.ask(case.other, case.around_other)
        assert (asker.echo.calls, len(list(asker.store.scan("")))) == (1, 1)
        return
    assert asker.ask(case.other, case.around_other) is (case.verdict == SAME)
    assert asker.echo.calls == (1 if case.verdict == SAME else 2)


@pairs
async def test_second_call_of_a_pair_is_answered_rightly_in_a_loop(case: Case) -> None:
    asker = Asker()
    assert await asker.aask(case.one, case.around_one) is False
    if case.verdict == REFUSED:
        with pytest.raises(rejoinder.InvalidRequest):
            await asker.aask(case.other, case.around_other)
        assert asker.echo.calls == 1
        return
    assert await asker.aask(case.other, case.around_other) is (case.verdict == SAME)


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=name_of(section, case)) for section, case in cases() if case.verdict != REFUSED]
)
def test_pairs_are_judged_alike_from_both_sides(case: Case) -> None:
    asker = Asker()
    asker.ask(case.other, case.around_other)
    assert asker.ask(case.one, case.around_one) is (case.verdict == SAME)


def test_matrix_has_no_two_cases_of_one_name() -> None:
    names = [name_of(section, case) for section, case in cases()]
    assert len(names) == len(set(names)) >= 60


def test_page_shows_the_matrix_as_it_is() -> None:
    current = PAGE.read_text()
    assert page(current) == current, "docs/keys.md is stale: run `python -m tests.key_matrix`"
