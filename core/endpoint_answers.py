"""What callers of the endpoints beside chat get: openai's own types, which also read as mappings.

Loaded on first use, when such an answer is first made. Embeddings and completions, which come in numbers, are
validated; the others are built as the openai package itself builds them, which takes what a vendor adds or leaves out
as it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import httpx2
import openai
import orjson
from openai.types import Completion as OpenAITextCompletion
from openai.types import (
    CompletionChoice,
    CreateEmbeddingResponse,
    Embedding,
    ImageGenStreamEvent,
    ImagesResponse,
    ModerationCreateResponse,
)
from openai.types.audio import Transcription as OpenAITranscription
from openai.types.audio import (
    TranscriptionDiarizedSegment,
    TranscriptionSegment,
    TranscriptionStreamEvent,
    TranscriptionWord,
)
from openai.types.audio import Translation as OpenAITranslation
from openai.types.create_embedding_response import Usage as OpenAIEmbeddingUsage
from openai.types.responses import Response as OpenAIResponse
from openai.types.responses import ResponseStreamEvent
from pydantic import Field, ValidationError

from .answers import NOT_CACHED, CacheInfo, Mapped, Usage, hidden_params
from .endpoint_folds import sound
from .shape import Misshapen, parsed

Json = dict[str, Any]

LINK_LIFETIME = 50 * 60.0
"""Seconds for which a link to a generated image is kept: the vendor's own dies after an hour.

https://platform.openai.com/docs/api-reference/images/object
"""


class BatchInfo(NamedTuple):
    """Where the items of one `embedding` call come from; the first five fields are those of a `CacheInfo`."""

    hit: bool
    """True if no item was asked for."""
    kind: str
    """"exact" (all stored), "shared" (all stored, or answered by another call under way), "stale" (all stored, some
    past their time), "partial" or "none"."""
    key: str | None
    """The key of the first item."""
    store: str | None
    age: float | None
    """Seconds since the oldest of the stored items was first given."""
    items: int
    """How many different items there are."""
    hits: int
    """How many of them were not asked for."""
    paid_tokens: int
    """What the vendor counted for those that were."""
    late: int = 0
    """How many of the hits are past their time (`stale-while-revalidate`, `stale-if-error`)."""


class Answer(Mapped):
    """What all answers have: marks of where they come from, and equality of what the vendor said."""

    __slots__ = ()

    @property
    def cache_info(self) -> CacheInfo | BatchInfo:
        """Where this answer comes from: the kind of hit, its key, store and age."""
        return getattr(self, "_cache_info", NOT_CACHED)

    _hidden_params = property(hidden_params)

    @property
    def may_be_kept(self) -> bool:
        """Whether the cache may keep this answer."""
        return True

    @property
    def lifetime(self) -> float | None:
        """Seconds after which this answer is of no use any more; None: never."""
        return None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, openai.BaseModel):
            return NotImplemented
        return self.model_dump(exclude={"cache"}) == other.model_dump(exclude={"cache"})  # type: ignore[attr-defined,no-any-return]

    __hash__ = None  # type: ignore[assignment]

    def __iter__(self) -> Any:
        return iter(self.keys())


class EmbeddingItem(Mapped, Embedding):
    """One vector: numbers, or text where `encoding_format="base64"` was asked for."""

    embedding: list[float] | str  # type: ignore[assignment]
    index: int = 0
    object: str = "embedding"  # type: ignore[assignment]


class EmbeddingUsage(Mapped, OpenAIEmbeddingUsage):
    """Tokens of all items, stored ones too; `cache_info.paid_tokens` says how many this call paid for."""


class Embeddings(Answer, CreateEmbeddingResponse):
    """Vectors, in the order of the inputs."""

    __slots__ = ("_cache_info",)

    data: list[EmbeddingItem]  # type: ignore[assignment]
    model: str = ""
    object: str = "list"  # type: ignore[assignment]
    usage: EmbeddingUsage
    cache: bool = False
    """True if no item was asked for by this call."""


class TextChoice(Mapped, CompletionChoice):
    finish_reason: str | None = None  # type: ignore[assignment]
    index: int = 0


class TextCompletion(Answer, OpenAITextCompletion):
    """An answer, or a piece of one, of the older completions endpoint."""

    __slots__ = ("_cache_info",)

    choices: list[TextChoice]  # type: ignore[assignment]
    usage: Usage | None = None
    cache: bool = False


class Response(Answer, OpenAIResponse):
    """An answer of the Responses API."""

    __slots__ = ("_cache_info", "_format")

    cache: bool = False

    @property
    def output_parsed(self) -> Any:
        """The first text of the answer as an object of the pydantic class that was given as `text_format`.

        None if no class was given, or the model refused or said nothing. Raises pydantic's `ValidationError` where the
        text does not fit, as that of an incomplete answer seldom does.
        """
        kind = getattr(self, "_format", None)
        if kind is None:
            return None
        messages = (item for item in self.output or () if getattr(item, "type", None) == "message")
        parts = (part for message in messages for part in getattr(message, "content", None) or ())
        text = next((part.text for part in parts if getattr(part, "type", None) == "output_text"), None)
        return kind.model_validate_json(text) if text else None

    @property
    def may_be_kept(self) -> bool:
        """Only a completed answer that refuses nothing and calls tools with whole arguments."""
        return self.status in (None, "completed") and all(map(_is_sound, self.output or ()))


class Images(Answer, ImagesResponse):
    __slots__ = ("_cache_info",)

    created: int = 0
    cache: bool = False

    @property
    def lifetime(self) -> float | None:
        """Links to images die; the images themselves do not."""
        return LINK_LIFETIME if any(image.url and not image.b64_json for image in self.data or ()) else None


class Transcription(Answer, OpenAITranscription):
    """What was said, in whichever `response_format`: those with times have `segments`, `words`, `duration`."""

    __slots__ = ("_cache_info",)

    task: str | None = None
    language: str | None = None
    duration: float | None = None
    segments: list[TranscriptionSegment | TranscriptionDiarizedSegment] | None = None
    words: list[TranscriptionWord] | None = None
    cache: bool = False


class Translation(Answer, OpenAITranslation):
    """What was said, in English."""

    __slots__ = ("_cache_info",)

    task: str | None = None
    language: str | None = None
    duration: float | None = None
    segments: list[TranscriptionSegment] | None = None
    cache: bool = False


class Moderation(Answer, ModerationCreateResponse):
    __slots__ = ("_cache_info",)

    cache: bool = False


class RankedDocument(Mapped, openai.BaseModel):
    index: int
    """Its place among the documents that were given."""
    relevance_score: float
    document: Any = None
    """The document itself, where `return_documents=True` was asked for."""


class Ranking(Answer, openai.BaseModel):
    """Documents by relevance, the most relevant first: Cohere's shape, which the others follow."""

    __slots__ = ("_cache_info",)

    id: str | None = None
    model: str | None = None
    results: list[RankedDocument] = Field(default_factory=list)
    usage: Any = None
    meta: Any = None
    cache: bool = False


class CountedTokens(Answer, openai.BaseModel):
    """How many tokens a conversation has, as the vendor counts them."""

    __slots__ = ("_cache_info",)

    input_tokens: int
    model: str | None = None
    cache: bool = False

    @property
    def total_tokens(self) -> int:
        """The same: a conversation that is not answered yet has no others."""
        return self.input_tokens


class RecognizedPage(Mapped, openai.BaseModel):
    index: int
    markdown: str = ""
    """What is on the page."""
    images: Any = None
    dimensions: Any = None


class Recognition(Answer, openai.BaseModel):
    """What is written in a document, page by page: Mistral's shape."""

    __slots__ = ("_cache_info",)

    pages: list[RecognizedPage] = Field(default_factory=list)
    model: str | None = None
    document_annotation: Any = None
    usage_info: Any = None
    cache: bool = False


class Speech(openai.HttpxBinaryResponseContent):
    """Spoken text: `content`, `read()`, `iter_bytes()` and `write_to_file(path)` as the openai package has them."""

    cache: bool = False
    may_be_kept, lifetime = True, None

    def __init__(self, data: bytes) -> None:
        super().__init__(httpx2.Response(200, content=data))

    cache_info = Answer.cache_info

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, openai.HttpxBinaryResponseContent):
            return NotImplemented
        return self.content == other.content

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Speech of {len(self.content)} bytes, cache={self.cache}>"


class SpeechAudioDelta(Mapped, openai.BaseModel):
    """A piece of spoken text; the openai package has no type for it.

    https://platform.openai.com/docs/api-reference/audio/speech-audio-delta-event (2026-11)
    """

    type: str = "speech.audio.delta"
    audio: str
    """The sound, in base64."""


class SpeechAudioDone(Mapped, openai.BaseModel):
    """The end of a spoken text."""

    type: str = "speech.audio.done"
    usage: Any = None
    """Tokens; None where the vendor told none: it sent the sound itself, and not events."""


class OtherEvent(Mapped, openai.BaseModel):
    """An event of a kind that the openai package does not know."""

    type: str


def _is_sound(item: Any) -> bool:
    """Whether an item of a response's output is no refusal, and no tool call with broken arguments."""
    if getattr(item, "type", None) == "function_call":
        try:
            return not item.arguments or isinstance(orjson.loads(item.arguments), dict)
        except orjson.JSONDecodeError:
            return False
    return not any(getattr(part, "type", None) == "refusal" for part in getattr(item, "content", None) or ())


# Bytes to answers.


def _built(kind: Any) -> Callable[[bytes], Any]:
    return lambda data: kind.model_construct(**_theirs(parsed(data)))


def _theirs(data: Json) -> Json:
    """`data` without a field of ours, which only we may set."""
    if "cache" in data:
        data["vendor_cache"] = data.pop("cache")
    return data


def embeddings(data: bytes) -> Embeddings:
    """Vectors out of OpenAI-shaped JSON; what is nearly so is mended. Raises `Misshapen` if it is none."""
    try:
        answer = Embeddings.model_validate_json(data)
    except ValidationError:
        try:
            answer = Embeddings.model_validate(mend_embeddings(parsed(data)))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise Misshapen(f"The vectors do not fit OpenAI's shape at {where!r}: {first['msg']}.") from None
    answer.__dict__["cache"] = False
    return answer


def mend_embeddings(data: Json) -> Json:
    """Vectors as OpenAI has them, out of what its followers leave out: Voyage, Copilot, llama.cpp (recorded)."""
    items = data.get("data")
    if not isinstance(items, list):
        raise Misshapen("The answer has no vectors.")
    given = data.get("usage")
    usage: Json = given if isinstance(given, dict) else {}
    total = usage.get("total_tokens") or usage.get("prompt_tokens") or 0
    prompt = usage.get("prompt_tokens")
    mended = {name: value for name, value in data.items() if value is not None}
    mended["usage"] = {**usage, "prompt_tokens": total if prompt is None else prompt, "total_tokens": total}
    mended["data"] = [
        {**item, "index": item["index"] if isinstance(item.get("index"), int) else place, "object": "embedding"}
        for place, item in enumerate(items)
        if isinstance(item, dict)
    ]
    return mended


def text_completion(data: bytes) -> TextCompletion:
    try:
        answer = TextCompletion.model_validate_json(data)
    except ValidationError:
        answer = TextCompletion.model_construct(**_theirs(parsed(data)))
    answer.__dict__["cache"] = False
    return answer


def event(data: bytes) -> Any:
    """A streamed event, as the openai package types it."""
    fields = parsed(data)
    kind = _event_kinds().get(fields.get("type", ""), OtherEvent)
    return kind.model_construct(**fields)


@functools.cache
def _event_kinds() -> dict[str, Any]:
    """The classes of events by their types, read off the package's own unions of them."""
    kinds: dict[str, Any] = {"speech.audio.delta": SpeechAudioDelta, "speech.audio.done": SpeechAudioDone}
    for union in (ImageGenStreamEvent, ResponseStreamEvent, TranscriptionStreamEvent):
        for kind in get_args(get_args(union)[0]):
            kinds.update(dict.fromkeys(get_args(kind.model_fields["type"].annotation), kind))
    return kinds


READERS: dict[str, Callable[[bytes], Any]] = {
    "count_tokens": _built(CountedTokens),
    "embedding": embeddings,
    "image_generation": _built(Images),
    "moderation": _built(Moderation),
    "ocr": _built(Recognition),
    "rerank": _built(Ranking),
    "responses": _built(Response),
    "speech": Speech,
    "text_completion": text_completion,
    "transcription": _built(Transcription),
    "translation": _built(Translation),
}
"""What makes an answer of each endpoint out of its JSON; of speech, out of its sound."""

PIECES: dict[str, Callable[[bytes], Any]] = {
    "image_generation": event,
    "responses": event,
    "speech": sound,
    "speech_events": event,
    "text_completion": text_completion,
    "transcription": event,
}
"""What makes a piece of a streamed answer, where there are streams. Speech comes in two forms: sound, and events."""
