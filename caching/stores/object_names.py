"""What an entry's object is called, and how its key is read off that.

Listing goes by folders, not by characters: "a" does not list "ab". So each part of a key that a colon ends, as a
namespace does, is a folder: "team:9f86" is "team_/9f86". All but a-z, 0-9 and "-" is "_" and two hexadecimal digits,
capitals too, as not every folder tells them from small letters. A folder ends with "_", so none is called like a
file. Of what would be too long, the beginning of the folders is kept, and the rest is "_-" and a hash.
"""

from __future__ import annotations

import hashlib
import re

LONGEST, LONGEST_FOLDER = 200, 120  # characters; S3 allows 1024 bytes, file systems 255 for each part


def name_of(key: str) -> str:
    """The name of a key's object, below the prefix."""
    *folders, leaf = key.split(":")
    name = "".join(f"{_escape(part)}_/" for part in folders) + (_escape(leaf) or "__")
    if len(name) <= LONGEST:
        return name
    return f"{folder_of(key)}_-{hashlib.sha256(encode(key)).hexdigest()}"


def folder_of(prefix: str) -> str:
    """A folder that has all objects whose keys start with `prefix`, and perhaps others."""
    folder = ""
    for part in prefix.split(":")[:-1]:
        longer = f"{folder}{_escape(part)}_/"
        if len(longer) > LONGEST_FOLDER:
            break
        folder = longer
    return folder


def key_of(name: str) -> str:
    """The key of an object by its name, unless that has a hash."""
    *folders, leaf = name.split("/")
    parts = [*(folder[:-1] for folder in folders), "" if leaf == "__" else leaf]
    return ":".join(decode(re.sub(r"_([0-9a-f]{2})", _unescape, part).encode("latin-1")) for part in parts)


def covers(prefix: str) -> bool:
    """Whether all that is in the prefix's folder starts with the prefix."""
    return folder_of(prefix) == "".join(f"{_escape(part)}_/" for part in prefix.split(":")[:-1]) and (
        not prefix or prefix.endswith(":")
    )


def is_hashed(name: str) -> bool:
    return name.rpartition("/")[2].startswith("_-")


def _escape(text: str) -> str:
    return re.sub(rb"[^a-z0-9-]", lambda found: b"_%02x" % found[0][0], encode(text)).decode()


def _unescape(found: re.Match[str]) -> str:
    return chr(int(found[1], 16))


def encode(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


def decode(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")
