"""Entries that only holders of a key can make (HMAC-SHA-256), or also read (AES-256-GCM).

A shared cache is a way to plant answers, tool calls among them, in other people's programs. A sealed entry is bound to
its place: copied under another key, or into another namespace, it no longer opens. What does not open is a
counted miss.

    signed     "RJS1"  8 bytes: which key  32 bytes: HMAC(key, place ‖ entry)   the entry
    encrypted  "RJX1"  8 bytes: which key  12 bytes: nonce                      AES-GCM(key, entry; place)
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence

from ..core.errors import ConfigurationError, MissingPackage, WrongType
from .entry import BadEntry

SIGNED, ENCRYPTED = b"RJS1", b"RJX1"

Keys = str | bytes | Sequence[str | bytes]
"""One key, or several: the first seals, all open. To rotate, put the new one first and drop the old one later."""


def secrets_of(keys: Keys, what: str) -> tuple[bytes, ...]:
    """The keys as 32 bytes each, whatever the length of their text. Raises for none, or for ones that are too short."""
    if isinstance(keys, (str, bytes)):
        keys = [keys]
    if not isinstance(keys, Sequence):
        raise WrongType(f"{what} must be a key or several, not {type(keys).__name__}.")
    given: list[str | bytes] = list(keys)  # type: ignore[arg-type]  # bytes are a sequence too, of numbers
    if not given:
        raise ConfigurationError(f"{what} is empty: give a key, or None.")
    for key in given:
        if not isinstance(key, (str, bytes)):
            raise WrongType(f"{what}: a key must be text or bytes, not {type(key).__name__}.")
        if len(key) < 16:
            raise ConfigurationError(f"{what}: a key of {len(key)} characters is too short; give 16 or more.")
    return tuple(hashlib.sha256(key.encode() if isinstance(key, str) else key).digest() for key in given)


def name_of(secret: bytes) -> bytes:
    """Which key it is, without saying the key."""
    return hashlib.sha256(b"rejoinder key name" + secret).digest()[:8]


class Signer:
    """Signs entries; reads only signed ones."""

    def __init__(self, keys: Keys) -> None:
        self._secrets = {name_of(secret): secret for secret in secrets_of(keys, "sign_with")}

    def close(self, place: str, data: bytes) -> bytes:
        name, secret = next(iter(self._secrets.items()))
        return SIGNED + name + self._mac(secret, place, data) + data

    def open(self, place: str, data: bytes) -> bytes:
        """The entry. Raises `BadEntry`."""
        secret = self._secrets.get(data[4:12])
        if data[:4] != SIGNED or secret is None:
            raise BadEntry("it is not signed with a key of ours")
        if not hmac.compare_digest(data[12:44], self._mac(secret, place, data[44:])):
            raise BadEntry("its signature does not fit")
        return data[44:]

    def _mac(self, secret: bytes, place: str, data: bytes) -> bytes:
        mac = hmac.new(secret, len(place.encode()).to_bytes(8, "little") + place.encode(), "sha256")
        mac.update(data)
        return mac.digest()


class Encrypter:
    """Encrypts entries, with a key for all namespaces or one for each; reads only encrypted ones.

    Dropping a namespace's key from the mapping makes its entries unreadable for good, wherever copies of them are.
    """

    def __init__(self, keys: Keys | Mapping[str, Keys]) -> None:
        by_namespace = keys if isinstance(keys, Mapping) else {"": keys}
        self._is_shared = not isinstance(keys, Mapping)
        self._secrets = {name: secrets_of(own, "encrypt_with") for name, own in by_namespace.items()}
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise MissingPackage("Encryption of entries", "cryptography", "rejoinder[encrypt]") from None
        self._cipher, self._invalid = AESGCM, InvalidTag

    def _of(self, place: str) -> tuple[bytes, ...]:
        return self._secrets.get("" if self._is_shared else place.partition(":")[0], ())

    def close(self, place: str, data: bytes) -> bytes:
        secrets = self._of(place)
        if not secrets:
            raise ConfigurationError(f"encrypt_with has no key for the namespace {place.partition(':')[0]!r}.")
        nonce = os.urandom(12)
        return ENCRYPTED + name_of(secrets[0]) + nonce + self._cipher(secrets[0]).encrypt(nonce, data, place.encode())

    def open(self, place: str, data: bytes) -> bytes:
        """The entry. Raises `BadEntry`."""
        for secret in self._of(place):
            if data[:4] == ENCRYPTED and data[4:12] == name_of(secret):
                try:
                    return self._cipher(secret).decrypt(data[12:24], data[24:], place.encode())
                except self._invalid:
                    raise BadEntry("it does not decrypt: forged, or moved from another place") from None
        raise BadEntry("it is not encrypted with a key of ours")


def sealer(sign_with: Keys | None, encrypt_with: Keys | Mapping[str, Keys] | None) -> Signer | Encrypter | None:
    """What seals entries. Encryption (AES-GCM) proves who made an entry as a signature does: one is enough."""
    if sign_with is not None and encrypt_with is not None:
        raise ConfigurationError(
            "Give sign_with= or encrypt_with=, not both: encrypted entries cannot be forged either."
        )
    if sign_with is not None:
        return Signer(sign_with)
    return None if encrypt_with is None else Encrypter(encrypt_with)
