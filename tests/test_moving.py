"""What users of litellm, AutoGen and Inspect write out of habit: it works, or says at once what to write instead."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import rejoinder
from rejoinder import Cache, CachePolicy, ConfigurationError, WrongType
from tests.fixtures.servers import redis_server

MESSAGES = [{"role": "user", "content": "Tell me a joke."}]


def ask(**more: Any) -> Any:
    return rejoinder.completion("echo/m", MESSAGES, **more)


# ── litellm ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_hidden_params_say_hit_and_key() -> None:
    cache = Cache.memory()
    fresh, again = ask(cache=cache), ask(cache=cache)
    assert [answer._hidden_params["cache_hit"] for answer in (fresh, again)] == [False, True]
    assert again._hidden_params["cache_key"] == again.cache_info.key
    assert cache.delete(again._hidden_params["cache_key"])
    assert ask(stream=True, cache=cache)._hidden_params["cache_hit"] is False
    assert rejoinder.embedding("echo/m", input="text", cache=cache)._hidden_params["cache_hit"] is False


def test_ping_says_what_is_wrong_with_a_store_that_calls_pass_by() -> None:
    with redis_server("--requirepass", "right") as server:
        address: dict[str, Any] = {"type": "redis", "host": "127.0.0.1", "port": server.port, "budget": 5}
        assert Cache(**address, password="right").ping()
        assert asyncio.run(Cache(**address, password="right").aping())
        with pytest.raises(Exception, match="invalid username-password"):
            Cache(**address, password="wrong").ping()


def test_adelete_removes_one_answer() -> None:
    cache = Cache.memory()
    ask(cache=cache)
    key = cache.get_cache_key(model="echo/m", messages=MESSAGES)
    assert asyncio.run(cache.adelete(key))
    assert not asyncio.run(cache.adelete(key))
    assert not ask(cache=cache).cache


def test_s_max_age_is_s_maxage() -> None:
    cache = Cache.memory()
    with cache:
        ask()
        time.sleep(0.01)
        assert ask(cache={"s-max-age": 60}).cache
        assert not ask(cache={"s-max-age": 0.001}).cache


@pytest.mark.parametrize("name", ["no-cache", "no-store", "use-cache"])
def test_text_is_no_flag(name: str) -> None:
    with Cache.memory(), pytest.raises(WrongType, match=f"{name}.*must be True or False"):
        ask(cache={name: "false"})


def test_stream_shows_whether_it_is_a_replay() -> None:
    with Cache.memory():
        list(ask(stream=True))
        assert repr(ask(stream=True)) == "<Stream cache=True>"


@pytest.mark.parametrize("given", ["completion", ["completions"]])
def test_call_types_that_there_are_not_are_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="supported_call_types"):
        Cache(supported_call_types=given)


def test_litellms_list_of_call_types_is_taken() -> None:
    assert Cache(supported_call_types=["completion", "acompletion", "anthropic_messages"])


def test_wrong_mode_of_a_cache_names_the_default_modes() -> None:
    with pytest.raises(ConfigurationError, match=r"default_on, default_off, on.*Did you mean 'default_off'"):
        Cache(mode="defalt_off")


@pytest.mark.parametrize(("name", "value"), [("ttl", 60), ("namespace", "n"), ("mode", "off"), ("cache", object())])
def test_settings_that_a_cache_would_not_notice_cannot_be_assigned(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"Cache\("):
        setattr(Cache.memory(), name, value)


def test_key_function_that_is_none_is_refused_where_it_is_assigned() -> None:
    with pytest.raises(WrongType, match="function"):
        Cache.memory().get_cache_key = "model"  # type: ignore[assignment]


def test_setting_that_there_is_not_is_refused_where_it_is_assigned() -> None:
    with pytest.raises(AttributeError, match=r"no setting 'cahce'. Did you mean 'cache'?"):
        rejoinder.cahce = Cache.memory()  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"no setting 'set_verbose'. There are cache,"):
        rejoinder.set_verbose = True  # type: ignore[attr-defined]


def test_redis_url_of_the_environment_is_where_redis_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_HOST", "REDIS_PORT", "REDIS_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere:6399/2")
    assert "elsewhere:6399, db=2" in repr(Cache(type="redis"))
    assert "here:6379" in repr(Cache(type="redis", host="here"))
    monkeypatch.setenv("REDIS_HOST", "there")
    assert "there:6379" in repr(Cache(type="redis"))


@pytest.mark.parametrize("wrong", [{"db": "x"}, {"port": "x"}, {"ssl": "false"}])
def test_redis_options_of_wrong_types_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(WrongType, match=f"{next(iter(wrong))}='"):
        Cache(type="redis", **wrong)
    assert "db=1" in repr(Cache(type="redis", host="here", port="6380", db="1"))  # type: ignore[arg-type]


def test_answer_of_the_callers_own_is_stored_by_way_of_echo() -> None:
    cache = Cache.memory()
    rejoinder.completion("openai/gpt-4o", MESSAGES, client=rejoinder.Echo("Mine."), cache=cache)
    with cache, rejoinder.in_mode("replay_only"):
        answer = rejoinder.completion("openai/gpt-4o", MESSAGES)
        assert (answer.cache, answer.choices[0].message.content) == (True, "Mine.")
        with pytest.raises(rejoinder.CacheMiss):
            rejoinder.completion("openai/gpt-4o", [{"role": "user", "content": "Another."}])


# ── AutoGen ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_seed_by_position_is_told_from_a_url() -> None:
    with pytest.raises(WrongType, match="Seeds are cache_seed="):
        Cache.redis(42, "redis://localhost:6379/0")  # type: ignore[arg-type]


# ── Inspect ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("written", "meant"), [("3d", "'3D'"), ("2w", "'2W'"), ("3 h", "'3h'"), ("1H", "'1h'"), ("60", "60")]
)
def test_expiry_that_is_nearly_one_says_what_was_meant(written: str, meant: str) -> None:
    with pytest.raises(ConfigurationError, match=f"Did you mean {meant}"):
        CachePolicy(expiry=written)


@pytest.mark.parametrize("wrong", [{"scopes": ["red"]}, {"per_epoch": "no"}])
def test_policy_of_wrong_types_is_refused_where_it_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(WrongType, match=next(iter(wrong))):
        CachePolicy(**wrong)


@pytest.mark.parametrize("wrong", ["2", None, True])
def test_epoch_that_is_no_number_is_refused(wrong: Any) -> None:
    with pytest.raises(WrongType, match="whole number"), rejoinder.epoch(wrong):
        pass


def test_lists_of_entries_are_no_models() -> None:
    cache = Cache.memory()
    ask(cache=cache)
    with pytest.raises(WrongType, match="no model"):
        rejoinder.cache_prune(list(rejoinder.cache_list(cache=cache)), cache=cache)  # type: ignore[arg-type]
    with pytest.raises(WrongType, match="no model"):
        rejoinder.cache_clear("", cache=cache)
    assert ask(cache=cache).cache


def test_hits_and_misses_are_in_the_log_for_those_who_want_to_know(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "rejoinder")
    cache = Cache.memory()
    ask(cache=cache)
    ask(cache=cache)
    assert [record.message.partition(":")[0] for record in caplog.records] == ["Miss", "Stored", "Hit"]
    assert "echo/m" in caplog.text


# ── anybody ───────────────────────────────────────────────────────────────────────────────────────────────────────────


BATCHES: dict[str, Callable[..., Any]] = {
    "batch": lambda **more: rejoinder.batch_completion("echo/m", [MESSAGES] * 20, max_workers=2, **more),
    "models": lambda **more: rejoinder.batch_completion_models(models=["echo/m"], messages=MESSAGES, **more),
}


@pytest.mark.parametrize("many", BATCHES)
def test_interrupt_of_a_batch_waits_for_no_call(many: str) -> None:
    echo = rejoinder.Echo(latency=3)
    main = threading.main_thread().ident
    assert main is not None
    threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT)).start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        BATCHES[many](client=echo, caching=False)
    assert time.monotonic() - begun < 2
    assert echo.calls <= 2
