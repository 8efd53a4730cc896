"""The error tree: what can go wrong before a vendor is asked, and in the cache.

    RejoinderError
    ├── ConfigurationError (ValueError)      a setting has a wrong value
    │   └── WrongType (TypeError)            … or a wrong type
    ├── UnknownProvider (ValueError)         no such provider, or a model name without one
    ├── UnknownModel (LookupError)           no price or limit is known of this model
    ├── NotJSON (ValueError)                 an argument that JSON cannot say (forms.py); from a call, InvalidRequest
    ├── MissingPackage (ImportError)         an optional package is not installed
    ├── Misshapen (ValueError)               an answer that is none; raised only past a replay (in shape.py)
    ├── CacheError
    │   ├── CacheKeyError                    a key function raised, or gave something that is not text
    │   └── CacheMiss                        replay_only, and there is nothing to replay
    ├── (in api_errors.py, which needs the openai package, each also a subclass of its namesake there)
    ├── InvalidRequest (BadRequestError, ValueError)   the arguments make no request; nothing was sent
    ├── MissingAPIKey (AuthenticationError)            no key was given or found; nothing was sent
    ├── BadRequestError                      400, 413
    │   ├── ContextWindowExceeded            the prompt is too long for the model
    │   └── ContentPolicyViolation           the vendor's filter refused the prompt
    ├── AuthenticationError 401 · PermissionDeniedError 403 · NotFoundError 404
    ├── ConflictError 409 · UnprocessableEntityError 422
    ├── RateLimitError 429 · InternalServerError 5xx
    └── APIConnectionError                   no answer
        └── APITimeoutError                  no answer in time

Vendor errors subclass the openai package's, so that existing `except openai.RateLimitError` clauses hold.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RejoinderError(Exception):
    """Everything this library raises on purpose."""


class ConfigurationError(RejoinderError, ValueError):
    """A setting has a value that cannot work."""


class WrongType(ConfigurationError, TypeError):
    """A setting has a value of the wrong type."""


class UnknownProvider(RejoinderError, ValueError):
    """No provider of that name, or a model name that does not say which provider."""


class UnknownModel(RejoinderError, LookupError):
    """Nothing of what was asked (a price, a limit) is known of this model. It may well be called."""


class MissingPackage(RejoinderError, ImportError):
    """A feature needs a package that is not installed."""

    def __init__(self, what: str, package: str, install: str) -> None:
        super().__init__(f"{what} needs {package!r}: pip install {install!r}.")


class CacheError(RejoinderError):
    """The cache was asked for something it cannot do. A failing store never raises this; it is counted."""


class CacheKeyError(CacheError):
    """A caller's key function raised, or returned something that is not text."""


class CacheMiss(CacheError, LookupError):
    """Mode replay_only found no stored answer. Nothing was sent."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """ " Did you mean 'x'?", or nothing where no known name is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
