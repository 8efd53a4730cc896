"""Signed and encrypted entries."""

from __future__ import annotations

from typing import Any

import pytest

import rejoinder
from rejoinder.caching.stores.memory import MemoryStore

pytest.importorskip("cryptography", reason="encryption of entries needs the extra: pip install 'rejoinder[encrypt]'")

KEY, OTHER = "a key of sixteen characters or more", "another key of sixteen characters"
MESSAGES = [{"role": "user", "content": "the secret plan"}]
SEALS = ["sign_with", "encrypt_with"]


def ask(cache: rejoinder.Cache, **more: Any) -> Any:
    return rejoinder.completion("echo/m", MESSAGES, cache=cache, **more)


@pytest.mark.parametrize("seal", SEALS)
def test_sealed_answer_is_a_hit_for_holders_of_the_key(seal: str) -> None:
    store = MemoryStore()
    ask(rejoinder.Cache(store=store, **{seal: KEY}))
    assert ask(rejoinder.Cache(store=store, **{seal: KEY})).cache


@pytest.mark.parametrize("seal", SEALS)
def test_entry_of_another_key_is_a_counted_miss(seal: str) -> None:
    store = MemoryStore()
    ask(rejoinder.Cache(store=store, **{seal: OTHER}))
    cache = rejoinder.Cache(store=store, **{seal: KEY})
    assert not ask(cache).cache
    assert cache.stats()["corrupt"] == 1


@pytest.mark.parametrize("seal", SEALS)
def test_unsealed_entry_is_a_counted_miss(seal: str) -> None:
    store = MemoryStore()
    ask(rejoinder.Cache(store=store))
    cache = rejoinder.Cache(store=store, **{seal: KEY})
    assert not ask(cache).cache
    assert cache.stats()["corrupt"] == 1


@pytest.mark.parametrize("seal", SEALS)
def test_flipped_bit_anywhere_is_a_miss(seal: str) -> None:
    store = MemoryStore()
    cache = rejoinder.Cache(store=store, **{seal: KEY})
    ask(cache)
    (record,) = store.scan()
    data = store.get(record.key)
    assert data is not None
    for place in range(0, len(data), 7):
        store.set(record.key, data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert not ask(cache).cache
        store.set(record.key, data)
    assert ask(cache).cache


@pytest.mark.parametrize("seal", SEALS)
def test_entry_moved_to_another_place_is_a_miss(seal: str) -> None:
    store = MemoryStore()
    cache = rejoinder.Cache(store=store, **{seal: KEY})
    ask(cache)
    (record,) = store.scan()
    data = store.get(record.key)
    assert data is not None
    ask(cache, temperature=1)
    (other,) = [each for each in store.scan() if each.key != record.key]
    store.set(other.key, data)
    assert not ask(cache, temperature=1).cache


@pytest.mark.parametrize("seal", SEALS)
def test_old_key_still_opens_after_rotation_and_the_new_one_seals(seal: str) -> None:
    store = MemoryStore()
    ask(rejoinder.Cache(store=store, **{seal: OTHER}))
    rotated = rejoinder.Cache(store=store, **{seal: [KEY, OTHER]})
    assert ask(rotated).cache
    ask(rotated, temperature=1)
    assert ask(rejoinder.Cache(store=store, **{seal: KEY}), temperature=1).cache


def test_encrypted_entry_shows_nothing() -> None:
    store = MemoryStore()
    ask(rejoinder.Cache(store=store, encrypt_with=KEY, keep_requests=True))
    (record,) = store.scan()
    assert b"secret plan" not in (store.get(record.key) or b"")


def test_dropping_a_namespaces_key_shreds_its_entries_and_no_others() -> None:
    store = MemoryStore()
    keys = {"a": KEY, "b": OTHER}
    for name in keys:
        ask(rejoinder.Cache(store=store, namespace=name, encrypt_with=keys))
    del keys["a"]
    assert not ask(rejoinder.Cache(store=store, namespace="a", encrypt_with=keys)).cache
    assert ask(rejoinder.Cache(store=store, namespace="b", encrypt_with=keys)).cache


@pytest.mark.parametrize("key", ["short", "", [], 5])
def test_unusable_key_is_refused_without_being_shown(key: Any) -> None:
    with pytest.raises(rejoinder.ConfigurationError) as caught:
        rejoinder.Cache(sign_with=key)
    assert "short'" not in str(caught.value)


def test_both_seals_at_once_are_refused() -> None:
    with pytest.raises(rejoinder.ConfigurationError, match="not both"):
        rejoinder.Cache(sign_with=KEY, encrypt_with=KEY)
