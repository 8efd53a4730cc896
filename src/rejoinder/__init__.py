"""One `completion()` to any LLM provider, and never pay for the same answer twice.

>>> import rejoinder
>>> rejoinder.cache = rejoinder.Cache(type="redis", host="localhost", port=6379)  # doctest: +SKIP
>>> rejoinder.completion("openai/gpt-4o", [{"role": "user", "content": "Hi"}], caching=True)  # doctest: +SKIP

Importing this loads nothing else: each name is fetched from its module on first use (PEP 562).
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from .caching.bundle import BundleError as BundleError
    from .caching.bundle import export_bundle as export_bundle
    from .caching.bundle import import_bundle as import_bundle
    from .caching.cache import Cache as Cache
    from .caching.entry import Entry as Entry
    from .caching.explain import Explanation as Explanation
    from .caching.inspection import CacheItem as CacheItem
    from .caching.inspection import cache_clear as cache_clear
    from .caching.inspection import cache_list as cache_list
    from .caching.inspection import cache_list_expired as cache_list_expired
    from .caching.inspection import cache_path as cache_path
    from .caching.inspection import cache_prune as cache_prune
    from .caching.inspection import cache_size as cache_size
    from .caching.ledger import Amount as Amount
    from .caching.ledger import Ledger as Ledger
    from .caching.ledger import Summary as Summary
    from .caching.policy import CachePolicy as CachePolicy
    from .caching.runs import Run as Run
    from .caching.runs import run as run
    from .caching.samples import samples as samples
    from .caching.stores.base import Record as Record
    from .caching.stores.base import Store as Store
    from .core.answers import CacheInfo as CacheInfo
    from .core.answers import Chunk as Chunk
    from .core.answers import Completion as Completion
    from .core.answers import Usage as Usage
    from .core.api_errors import APIConnectionError as APIConnectionError
    from .core.api_errors import APIError as APIError
    from .core.api_errors import APIStatusError as APIStatusError
    from .core.api_errors import APITimeoutError as APITimeoutError
    from .core.api_errors import AuthenticationError as AuthenticationError
    from .core.api_errors import BadRequestError as BadRequestError
    from .core.api_errors import ConflictError as ConflictError
    from .core.api_errors import ContentPolicyViolation as ContentPolicyViolation
    from .core.api_errors import ContentPolicyViolationError as ContentPolicyViolationError
    from .core.api_errors import ContextWindowExceeded as ContextWindowExceeded
    from .core.api_errors import ContextWindowExceededError as ContextWindowExceededError
    from .core.api_errors import InternalServerError as InternalServerError
    from .core.api_errors import InvalidRequest as InvalidRequest
    from .core.api_errors import MissingAPIKey as MissingAPIKey
    from .core.api_errors import NotFoundError as NotFoundError
    from .core.api_errors import PermissionDeniedError as PermissionDeniedError
    from .core.api_errors import RateLimitError as RateLimitError
    from .core.api_errors import UnprocessableEntityError as UnprocessableEntityError
    from .core.endpoint_answers import BatchInfo as BatchInfo
    from .core.endpoint_answers import CountedTokens as CountedTokens
    from .core.endpoint_answers import Embeddings as Embeddings
    from .core.endpoint_answers import Images as Images
    from .core.endpoint_answers import Moderation as Moderation
    from .core.endpoint_answers import RankedDocument as RankedDocument
    from .core.endpoint_answers import Ranking as Ranking
    from .core.endpoint_answers import Recognition as Recognition
    from .core.endpoint_answers import RecognizedPage as RecognizedPage
    from .core.endpoint_answers import Response as Response
    from .core.endpoint_answers import Speech as Speech
    from .core.endpoint_answers import TextCompletion as TextCompletion
    from .core.endpoint_answers import Transcription as Transcription
    from .core.endpoint_answers import Translation as Translation
    from .core.errors import CacheError as CacheError
    from .core.errors import CacheKeyError as CacheKeyError
    from .core.errors import CacheMiss as CacheMiss
    from .core.errors import ConfigurationError as ConfigurationError
    from .core.errors import MissingPackage as MissingPackage
    from .core.errors import RejoinderError as RejoinderError
    from .core.errors import UnknownModel as UnknownModel
    from .core.errors import UnknownProvider as UnknownProvider
    from .core.errors import WrongType as WrongType
    from .providers import Package as _Providers
    from .providers.echo import Echo as Echo
    from .providers.listing import ProviderInfo as ProviderInfo
    from .router.ambient import disable_cache as disable_cache
    from .router.ambient import enable_cache as enable_cache
    from .router.ambient import epoch as epoch
    from .router.ambient import in_mode as in_mode
    from .router.ambient import update_cache as update_cache
    from .router.ambient import warm_up as warm_up
    from .router.api import acompletion as acompletion
    from .router.api import completion as completion
    from .router.batch import abatch_completion as abatch_completion
    from .router.batch import abatch_completion_models as abatch_completion_models
    from .router.batch import batch_completion as batch_completion
    from .router.batch import batch_completion_models as batch_completion_models
    from .router.client import Client as Client
    from .router.client import OpenAIWrapper as OpenAIWrapper
    from .router.cost import completion_cost as completion_cost
    from .router.cost import cost_per_token as cost_per_token
    from .router.endpoints import acount_tokens as acount_tokens
    from .router.endpoints import aembedding as aembedding
    from .router.endpoints import aimage_generation as aimage_generation
    from .router.endpoints import amoderation as amoderation
    from .router.endpoints import aocr as aocr
    from .router.endpoints import arerank as arerank
    from .router.endpoints import aresponses as aresponses
    from .router.endpoints import aspeech as aspeech
    from .router.endpoints import atext_completion as atext_completion
    from .router.endpoints import atranscription as atranscription
    from .router.endpoints import atranslation as atranslation
    from .router.endpoints import count_tokens as count_tokens
    from .router.endpoints import embedding as embedding
    from .router.endpoints import image_generation as image_generation
    from .router.endpoints import moderation as moderation
    from .router.endpoints import ocr as ocr
    from .router.endpoints import rerank as rerank
    from .router.endpoints import responses as responses
    from .router.endpoints import speech as speech
    from .router.endpoints import text_completion as text_completion
    from .router.endpoints import transcription as transcription
    from .router.endpoints import translation as translation
    from .router.models import get_max_tokens as get_max_tokens
    from .router.models import get_model_info as get_model_info
    from .router.models import model_list as model_list
    from .router.models import register_model as register_model
    from .router.models import supports_function_calling as supports_function_calling
    from .router.models import supports_parallel_function_calling as supports_parallel_function_calling
    from .router.models import supports_prompt_caching as supports_prompt_caching
    from .router.models import supports_reasoning as supports_reasoning
    from .router.models import supports_response_schema as supports_response_schema
    from .router.models import supports_vision as supports_vision
    from .router.models import validate_environment as validate_environment
    from .router.rebuild import stream_chunk_builder as stream_chunk_builder
    from .router.stream import AsyncStream as AsyncStream
    from .router.stream import Stream as Stream
    from .router.tokens import DecodedText as DecodedText
    from .router.tokens import TokenCount as TokenCount
    from .router.tokens import TokenIds as TokenIds
    from .router.tokens import decode as decode
    from .router.tokens import encode as encode
    from .router.tokens import token_counter as token_counter
    from .router.trim import trim_messages as trim_messages
    from .router.usage import usage_line as usage_line

    cache: Cache | None
    cache_mode: str | None
    ledger: Ledger | None
    num_retries: int
    request_timeout: float
    drop_params: bool
    providers: _Providers

_MODULES = {
    "caching.bundle": ("BundleError", "export_bundle", "import_bundle"),
    "caching.cache": ("Cache",),
    "caching.entry": ("Entry",),
    "caching.explain": ("Explanation",),
    "caching.inspection": (
        "CacheItem",
        "cache_clear",
        "cache_list",
        "cache_list_expired",
        "cache_path",
        "cache_prune",
        "cache_size",
    ),
    "caching.ledger": ("Amount", "Ledger", "Summary"),
    "caching.policy": ("CachePolicy",),
    "caching.runs": ("Run", "run"),
    "caching.samples": ("samples",),
    "caching.stores.base": ("Record", "Store"),
    "core.answers": ("CacheInfo", "Chunk", "Completion", "Usage"),
    "core.api_errors": (
        "APIConnectionError",
        "APIError",
        "APIStatusError",
        "APITimeoutError",
        "AuthenticationError",
        "BadRequestError",
        "ConflictError",
        "ContentPolicyViolation",
        "ContentPolicyViolationError",
        "ContextWindowExceeded",
        "ContextWindowExceededError",
        "InternalServerError",
        "InvalidRequest",
        "MissingAPIKey",
        "NotFoundError",
        "PermissionDeniedError",
        "RateLimitError",
        "UnprocessableEntityError",
    ),
    "core.endpoint_answers": (
        "BatchInfo",
        "CountedTokens",
        "Embeddings",
        "Images",
        "Moderation",
        "RankedDocument",
        "Ranking",
        "Recognition",
        "RecognizedPage",
        "Response",
        "Speech",
        "TextCompletion",
        "Transcription",
        "Translation",
    ),
    "core.errors": (
        "CacheError",
        "CacheKeyError",
        "CacheMiss",
        "ConfigurationError",
        "MissingPackage",
        "RejoinderError",
        "UnknownModel",
        "UnknownProvider",
        "WrongType",
    ),
    "providers.echo": ("Echo",),
    "providers.listing": ("ProviderInfo",),
    "router.ambient": ("disable_cache", "enable_cache", "epoch", "in_mode", "update_cache", "warm_up"),
    "router.api": ("acompletion", "completion"),
    "router.batch": ("abatch_completion", "abatch_completion_models", "batch_completion", "batch_completion_models"),
    "router.client": ("Client", "OpenAIWrapper"),
    "router.cost": ("completion_cost", "cost_per_token"),
    "router.endpoints": (
        "acount_tokens",
        "aembedding",
        "aimage_generation",
        "amoderation",
        "aocr",
        "arerank",
        "aresponses",
        "aspeech",
        "atext_completion",
        "atranscription",
        "atranslation",
        "count_tokens",
        "embedding",
        "image_generation",
        "moderation",
        "ocr",
        "rerank",
        "responses",
        "speech",
        "text_completion",
        "transcription",
        "translation",
    ),
    "router.models": (
        "get_max_tokens",
        "get_model_info",
        "model_list",
        "register_model",
        "supports_function_calling",
        "supports_parallel_function_calling",
        "supports_prompt_caching",
        "supports_reasoning",
        "supports_response_schema",
        "supports_vision",
        "validate_environment",
    ),
    "router.rebuild": ("stream_chunk_builder",),
    "router.stream": ("AsyncStream", "Stream"),
    "router.tokens": ("DecodedText", "TokenCount", "TokenIds", "decode", "encode", "token_counter"),
    "router.trim": ("trim_messages",),
    "router.usage": ("usage_line",),
}
_PARTS = ("providers",)
"""Folders that are also called: `rejoinder.providers()`."""
_HOME = {name: module for module, names in _MODULES.items() for name in names}
_SETTINGS = ("cache", "cache_mode", "drop_params", "ledger", "num_retries", "request_timeout")

__all__ = sorted([*_HOME, *_PARTS, *_SETTINGS, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return import_module(f".{name}", __name__)
    if name not in _HOME:
        raise AttributeError(f"module 'rejoinder' has no attribute {name!r}")
    if name == "Cache":
        import_module(".router.shape", __name__)  # which tells caches how the arguments of a call make its key
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)


class _Face(ModuleType):
    """The module's class: its settings are checked when they are assigned, and read when a call is made."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in __all__ and not name.startswith("_") and not isinstance(value, ModuleType):
            from .core.errors import suggestion

            raise AttributeError(
                f"rejoinder has no setting {name!r}.{suggestion(name, _SETTINGS)} There are {', '.join(_SETTINGS)}."
            )
        super().__setattr__(name, value)


def _setting(name: str) -> property:
    def read(module: _Face) -> Any:
        return getattr(import_module(".core.settings", __name__), name)

    def write(module: _Face, value: Any) -> None:
        checks = import_module(".router.ambient", __name__)
        setattr(import_module(".core.settings", __name__), name, checks.checked(name, value))

    def reset(module: _Face) -> None:
        checks = import_module(".router.ambient", __name__)
        setattr(import_module(".core.settings", __name__), name, checks.DEFAULTS[name])

    return property(read, write, reset)


for _name in _SETTINGS:
    setattr(_Face, _name, _setting(_name))
sys.modules[__name__].__class__ = _Face
if os.environ.get("REJOINDER_LEDGER"):
    setattr(sys.modules[__name__], "ledger", os.environ["REJOINDER_LEDGER"])  # noqa: B010 - a name's type is not a file's
