"""What a caller gets: openai's own types, which also read as mappings and say where they come from.

Loaded on first use: it imports the openai package.

A live answer and its replay are both made from the same bytes by the same function, which is why they are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage
from openai.types.chat.chat_completion import Choice as OpenAIChoice
from openai.types.chat.chat_completion_chunk import Choice as OpenAIChunkChoice
from openai.types.chat.chat_completion_chunk import ChoiceDelta
from pydantic import BaseModel, ValidationError

from . import shape
from .types import Request

Model = TypeVar("Model", bound=BaseModel)


class CacheInfo(NamedTuple):
    """Where an answer comes from."""

    hit: bool
    kind: str
    """ "exact", "stale", "shared" (another caller's call answered this one too) or "none" (the vendor gave it)."""
    key: str | None = None
    store: str | None = None
    age: float | None = None
    """Seconds since the answer was first given."""
    repeats: str = ""
    """Of an answer that was paid for although a stored one could have served: in mode "shadow" "same" or "different",
    as the two say; else "duplicate", if a ledger is kept. "" where there was none, and where nobody has looked."""


NOT_CACHED = CacheInfo(hit=False, kind="none")


def hidden_params(answer: Any) -> dict[str, Any]:
    """`cache_info` in litellm's words, for code that comes from there."""
    return {"cache_hit": answer.cache_info.hit, "cache_key": answer.cache_info.key}


class Mapped:
    """Lets a pydantic model be read as a mapping, all the way down: `answer["choices"][0]["message"]["content"]`."""

    __slots__ = ()

    def __getitem__(self, name: str) -> Any:
        try:
            return readable(getattr(self, name))
        except AttributeError:
            raise KeyError(name) from None

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self.keys()

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default  # noqa: SIM401 - this is what that would call

    def keys(self) -> list[str]:
        """The fields, the vendor's own ones last."""
        fields = type(self).model_fields  # type: ignore[attr-defined]
        extra = getattr(self, "model_extra", None) or {}
        return [*fields, *extra]

    def values(self) -> list[Any]:
        return [self[name] for name in self.keys()]

    def items(self) -> list[tuple[str, Any]]:
        return [(name, self[name]) for name in self.keys()]


def readable(value: Any) -> Any:
    """`value` in a form whose parts can be read by subscript."""
    if isinstance(value, Mapped):
        return value
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, list):
        return [readable(item) for item in value]
    return value


class Message(Mapped, ChatCompletionMessage):
    """An assistant's message. `reasoning_content` and `thinking_blocks` are there where a vendor gives them."""


class Choice(Mapped, OpenAIChoice):
    message: Message
    finish_reason: str  # type: ignore[assignment]
    """As the vendor says it, in OpenAI's words where there is one."""


class Usage(Mapped, CompletionUsage):
    """Tokens. `prompt_tokens` includes those read from and written to the vendor's prompt cache."""


class Completion(Mapped, ChatCompletion):
    """An answer: an openai `ChatCompletion` that reads as a mapping and is marked with where it comes from.

    Two answers are equal if what the vendor said is equal, whether fresh or cached.
    """

    # A slot, not a pydantic private attribute: those are set up by a Python call per instance, half the cost of a hit.
    __slots__ = ("_cache_info", "_format")

    choices: list[Choice]  # type: ignore[assignment]
    usage: Usage | None = None
    cache: bool = False
    """True if this answer was not paid for by this call."""

    @property
    def cache_info(self) -> CacheInfo:
        """Where this answer comes from: the kind of hit, its key, store and age."""
        return getattr(self, "_cache_info", NOT_CACHED)

    _hidden_params = property(hidden_params)

    @property
    def parsed(self) -> Any:
        """The first choice's text as an object of the pydantic class that was given as `response_format`.

        None if no class was given, or the model refused or said nothing. Raises pydantic's `ValidationError` where the
        text does not fit.
        """
        kind = getattr(self, "_format", None)
        content = self.choices[0].message.content if self.choices else None
        return None if kind is None or not content else kind.model_validate_json(content)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ChatCompletion):
            return NotImplemented
        return self.model_dump(exclude={"cache"}) == other.model_dump(exclude={"cache"})

    __hash__ = None  # type: ignore[assignment]

    # Where it comes from is in a slot, which pydantic does not know of.

    def __copy__(self) -> Completion:
        return _with_info(super().__copy__(), self.cache_info)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Completion:
        return _with_info(super().__deepcopy__(memo), self.cache_info)

    def __getstate__(self) -> dict[Any, Any]:
        return {**super().__getstate__(), "cache_info": self.cache_info}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        info = state.pop("cache_info")
        super().__setstate__(state)
        _with_info(self, info)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return iter(self.keys())


def expecting(answer: Completion, kind: type) -> Completion:
    """The answer, whose text is to be read as an object of `kind`."""
    object.__setattr__(answer, "_format", kind)
    return answer


def _with_info(answer: Completion, info: CacheInfo) -> Completion:
    object.__setattr__(answer, "_cache_info", info)
    return answer


class Delta(Mapped, ChoiceDelta):
    pass


class ChunkChoice(Mapped, OpenAIChunkChoice):
    delta: Delta
    finish_reason: str | None = None  # type: ignore[assignment]


class Chunk(Mapped, ChatCompletionChunk):
    """A piece of a streamed answer: an openai `ChatCompletionChunk` that reads as a mapping."""

    choices: list[ChunkChoice]  # type: ignore[assignment]
    usage: Usage | None = None


# What `model_validate_json` does in the end. Its Python half checks arguments that we do not give.
Completion.model_rebuild()
Chunk.model_rebuild()
_validate_completion = Completion.__pydantic_validator__.validate_json
_validate_chunk = Chunk.__pydantic_validator__.validate_json


_set_info = Completion._cache_info.__set__  # type: ignore[attr-defined]


def completion(data: bytes) -> Completion:
    """An answer out of OpenAI-shaped JSON; what is nearly so is mended. Raises `shape.Misshapen` if it is none."""
    try:
        return _validate_completion(data)  # type: ignore[no-any-return]
    except ValidationError:
        return _mended(Completion, data, shape.mend_completion)


def hit(data: bytes, info: CacheInfo) -> Completion:
    """The same answer, marked as cached."""
    try:
        answer: Completion = _validate_completion(data)
    except ValidationError:
        answer = completion(data)
    # Past pydantic's __setattr__, which costs more than the rest of a hit's bookkeeping together.
    answer.__dict__["cache"] = info.hit
    _set_info(answer, info)
    return answer


READERS: dict[str, Callable[[bytes], Any]] = {"chat": completion}
"""What makes an answer of each endpoint out of its JSON."""


def reader(request: Request) -> Callable[[bytes], Any]:
    """What makes the answer to `request` out of its JSON."""
    if request.endpoint not in READERS:
        from . import endpoint_answers

        READERS.update(endpoint_answers.READERS)
    return READERS[request.endpoint]


def marked(request: Request, data: bytes, info: CacheInfo) -> Any:
    """A stored answer of any endpoint, marked as cached."""
    answer = reader(request)(data)
    answer.__dict__["cache"] = info.hit
    object.__setattr__(answer, "_cache_info", info)
    return answer


def chunk(data: bytes) -> Chunk:
    """A piece of an answer out of OpenAI-shaped JSON; mended or refused like a whole answer."""
    try:
        return _validate_chunk(data)  # type: ignore[no-any-return]
    except ValidationError:
        return _mended(Chunk, data, shape.mend_chunk)


def _mended(kind: type[Model], data: bytes, mend: Callable[[dict[str, Any]], dict[str, Any]]) -> Model:
    try:
        return kind.model_validate(mend(shape.parsed(data)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise shape.Misshapen(f"The answer does not fit OpenAI's shape at {where!r}: {first['msg']}.") from None
