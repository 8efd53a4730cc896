"""Counting tokens without asking anybody.

For models whose encoding tiktoken knows, and whose file it has on disk, the count is that of the model's own encoding.
Else it is an estimate, and says so. Nothing is ever fetched: without a network tiktoken would hang for good.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .usage import field

FILES = {
    "cl100k_base": ("cl100k_base", "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"),
    "o200k_base": ("o200k_base", "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"),
    "o200k_harmony": ("o200k_base", "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"),
    "p50k_base": ("p50k_base", "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069"),
    "p50k_edit": ("p50k_base", "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069"),
    "r50k_base": ("r50k_base", "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"),
}
"""Encodings, which file each is made of, and the SHA-256 that tiktoken wants it to have."""

SOURCE = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
"""Where tiktoken has a file from. It keeps it under the SHA-1 of this."""

PER_MESSAGE, PER_NAME, PER_ANSWER = 3, 1, 3
"""What a chat adds to its texts: https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken, part 6."""

DOCUMENTED = re.compile(r"(gpt-3\.5-turbo|gpt-4(o|-\d|-turbo|$))")
"""Models of which that page says so. For others the same is supposed, and the count marked as an estimate."""

TOOL_INIT, TOOL_END, PROPERTIES_INIT, PROPERTY, ENUM_INIT, ENUM_ITEM = 7, 12, 3, 3, -3, 3
"""What tools add: the same page, part 7, for gpt-4o."""
OLDER_TOOL_INIT = 10
"""The same for gpt-3.5-turbo and gpt-4."""

IMAGE, LOW_IMAGE = 765, 85
"""An image of 1,024 × 1,024 for gpt-4o, and any in low detail: https://platform.openai.com/docs/guides/images-vision.
How large an image is, is not looked up."""

PIECES = re.compile(r" ?[^\W\d_]+|\d{1,3}| ?[^\w\s]{1,3}|_+|\s+(?=\s)|\s+")
"""Where an encoding might cut: before words, in numbers, around signs."""
ASCII_BYTES, OTHER_BYTES = 9, 4
"""How much of a piece may be one token. Compared with o200k_base on a few kilobytes each: 4 to 9 % too many for English
documents, code and JSON; 5 to 15 % off for German, Chinese and Japanese; up to twice too many for Russian, Arabic."""

STAND_IN = b"\x7f\x01"
"""Begins the number of an estimated token, which no vocabulary reaches. The bytes of its text follow."""


class TokenCount(int):
    """A number of tokens. What is computed from it is a plain `int`."""

    is_estimate: bool
    """True if it was not counted with the model's own encoding."""

    def __new__(cls, value: int, is_estimate: bool = False) -> TokenCount:
        self = super().__new__(cls, value)
        self.is_estimate = is_estimate
        return self


class TokenIds(list[int]):
    """Tokens of a text. Those of an estimate are numbers of our own, which only `decode` understands."""

    is_estimate: bool = False


class DecodedText(str):
    """A text out of tokens."""

    is_estimate: bool = False
    """True if the model's own encoding was not there. Numbers of its own tokens are then read as U+FFFD."""


def token_counter(
    model: str = "",
    messages: Sequence[Any] | None = None,
    text: str | Sequence[str] | None = None,
    tools: Sequence[Any] | None = None,
) -> TokenCount:
    """How many tokens a text or a conversation is for `model`. Never asks the network, never fails on what it is given.

    With `messages` it counts what a prompt of them is, with OpenAI's overhead for a chat and for `tools`. The count is
    marked `is_estimate` unless it rests on the model's own encoding and on OpenAI's documented rule throughout.
    """
    encoding = _encoding_of(model)
    count = Counter(encoding, model)
    if text is not None:
        count.text(text if isinstance(text, str) else "".join(text))
    if messages is not None:
        count.messages(messages)
    if tools:
        count.tools(tools)
    return TokenCount(count.total, count.is_estimate)


def encode(model: str = "", text: str = "") -> TokenIds:
    """The tokens of `text`. Where the model's encoding is unknown or not on disk: an estimate, marked `is_estimate`."""
    encoding = _encoding_of(model)
    if encoding is not None:
        return TokenIds(encoding.encode(text, disallowed_special=()))
    ids = TokenIds(int.from_bytes(STAND_IN + piece) for piece in _pieces(text))
    ids.is_estimate = True
    return ids


def decode(model: str = "", tokens: Iterable[int] = ()) -> DecodedText:
    """The text of what `encode` gave for the same model."""
    encoding = None if getattr(tokens, "is_estimate", False) else _encoding_of(model)
    if encoding is not None:
        return DecodedText(encoding.decode(list(tokens)))
    text = DecodedText(b"".join(map(_stood_for, tokens)).decode("utf-8", "replace"))
    text.is_estimate = True
    return text


def _stood_for(token: int) -> bytes:
    data = token.to_bytes((token.bit_length() + 7) // 8)
    return data.removeprefix(STAND_IN) if data.startswith(STAND_IN) else b"\xef\xbf\xbd"


def _pieces(text: str) -> Iterable[bytes]:
    for piece in PIECES.findall(text):
        data = piece.encode("utf-8", "replace")
        size = ASCII_BYTES if piece.isascii() else OTHER_BYTES
        yield from (data[start : start + size] for start in range(0, len(data), size))


class Counter:
    """Adds up a prompt."""

    def __init__(self, encoding: Any, model: str) -> None:
        self.total, self.is_estimate = 0, encoding is None
        self._encoding, self._name = encoding, model.rpartition("/")[2]

    def text(self, text: str) -> None:
        self.total += self._length(text)

    def _length(self, text: str) -> int:
        if self._encoding is None:
            return sum(1 for _ in _pieces(text))
        return len(self._encoding.encode(text, disallowed_special=()))

    def messages(self, messages: Sequence[Any]) -> None:
        self.is_estimate = self.is_estimate or not DOCUMENTED.match(self._name)
        for message in messages:
            self.message(message)
        self.total += PER_ANSWER

    def message(self, message: Any) -> None:
        """One message, without what the chat adds at its end."""
        self.total += PER_MESSAGE
        self.text(str(field(message, "role") or ""))
        content = field(message, "content")
        for part in [content] if isinstance(content, str) else content or ():
            self._part(part)
        if name := field(message, "name"):
            self.total += PER_NAME
            self.text(str(name))
        for call in field(message, "tool_calls") or ():
            self.is_estimate = True  # no page says how calls are written
            function = field(call, "function")
            self.total += PER_MESSAGE
            self.text(f"{field(function, 'name') or ''}{field(function, 'arguments') or ''}")

    def _part(self, part: Any) -> None:
        text = part if isinstance(part, str) else field(part, "text")
        if isinstance(text, str):
            self.text(text)
            return
        self.is_estimate = True
        image = field(part, "image_url")
        low = field(image, "detail") == "low"
        self.total += LOW_IMAGE if low else IMAGE

    def tools(self, tools: Sequence[Any]) -> None:
        older = re.match(r"gpt-(3\.5|4(-|$))", self._name) is not None
        self.is_estimate = self.is_estimate or not DOCUMENTED.match(self._name)
        for tool in tools:
            function = field(tool, "function") or tool
            self.total += OLDER_TOOL_INIT if older else TOOL_INIT
            self.text(f"{field(function, 'name') or ''}:{_description(function)}")
            schema = field(function, "parameters") or field(function, "input_schema")
            self._properties(field(schema, "properties"))
        self.total += TOOL_END

    def _properties(self, properties: Any) -> None:
        if not isinstance(properties, Mapping) or not properties:
            return
        self.total += PROPERTIES_INIT
        for name, schema in properties.items():
            self.total += PROPERTY
            if choices := field(schema, "enum"):
                self.total += ENUM_INIT + sum(ENUM_ITEM + self._length(str(choice)) for choice in choices)
            self.text(f"{name}:{field(schema, 'type') or ''}:{_description(schema)}")
            below = field(schema, "properties") or field(field(schema, "items"), "properties")
            if below:
                self.is_estimate = True  # the page says nothing of objects in objects
                self._properties(below)


def _description(holder: Any) -> str:
    return str(field(holder, "description") or "").removesuffix(".")


def _encoding_of(model: str) -> Any:
    """The model's own encoding; None where tiktoken knows none, or would have to fetch it."""
    try:
        import tiktoken
        from tiktoken import registry
    except ImportError:
        return None
    try:
        name = tiktoken.encoding_name_for_model(model.rpartition("/")[2])
    except KeyError:
        return None
    loaded = registry.ENCODINGS.get(name)
    if loaded is None and _is_on_disk(name):
        loaded = tiktoken.get_encoding(name)
    return loaded


def _is_on_disk(name: str) -> bool:
    """Whether tiktoken will find this encoding's file whole. One that is not, it would delete and fetch again."""
    import hashlib

    file, digest = FILES.get(name, ("", ""))
    folder = _folder()
    if not file or not folder:
        return False
    try:
        with open(os.path.join(folder, hashlib.sha1(SOURCE.format(file).encode()).hexdigest()), "rb") as opened:
            return hashlib.sha256(opened.read()).hexdigest() == digest
    except OSError:
        return False


def _folder() -> str:
    """Where tiktoken keeps its files; empty if it is told to keep none."""
    for name in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if name in os.environ:
            return os.environ[name]
    return os.path.join(tempfile.gettempdir(), "data-gym-cache")


def length_of(model: str) -> Callable[[Any], int]:
    """What counts single messages of one conversation."""
    encoding = _encoding_of(model)

    def length(message: Any) -> int:
        counter = Counter(encoding, model)
        counter.message(message)
        return counter.total

    return length
