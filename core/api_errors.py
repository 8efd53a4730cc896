"""Errors of calls to vendors, as subclasses of the openai package's own. The tree is drawn in `errors.py`.

Loaded on first use: it imports the openai package.
"""

from __future__ import annotations

from typing import Any

import httpx2
import openai

from .errors import RejoinderError
from .types import Attempt


class APIError(RejoinderError, openai.APIError):
    """A call to a vendor failed. `provider` and `model` say where, `attempts` what was tried."""

    provider: str | None = None
    model: str | None = None
    attempts: tuple[Attempt, ...] = ()
    retry_after: float | None = None
    """Seconds the vendor asks to wait, if it said so."""
    request_id: str | None = None
    llm_provider: str | None = None
    """The provider's name, under the word that litellm uses."""

    def __reduce__(self) -> Any:
        # Exceptions are pickled by calling their class with `args`, and the openai package's classes want more.
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[APIError], args: tuple[Any, ...], state: dict[str, Any]) -> APIError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class APIConnectionError(APIError, openai.APIConnectionError):
    """No answer: refused, reset, cut, or unreadable."""


class APITimeoutError(APIConnectionError, openai.APITimeoutError):
    """No answer in time."""


class APIStatusError(APIError, openai.APIStatusError):
    """The vendor answered with an error."""


class BadRequestError(APIStatusError, openai.BadRequestError):
    """400, 413: the vendor does not accept this request."""


class ContextWindowExceeded(BadRequestError):
    """The prompt does not fit into the model's context window."""


class ContentPolicyViolation(BadRequestError):
    """The vendor's content filter refused the prompt."""


class InvalidRequest(BadRequestError, ValueError):
    """The arguments make no request. Nothing was sent."""


class AuthenticationError(APIStatusError, openai.AuthenticationError):
    """401: the key is wrong."""


class MissingAPIKey(AuthenticationError):
    """No key was given or found. Nothing was sent."""


class PermissionDeniedError(APIStatusError, openai.PermissionDeniedError):
    """403: the key may not do this."""


class DeadKey(AuthenticationError, PermissionDeniedError):  # type: ignore[misc]  # each says its own status there
    """403, or another status, for a key that has expired, was revoked or never was: who catches either catches it."""


class NotFoundError(APIStatusError, openai.NotFoundError):
    """404: no such model or path."""


class ConflictError(APIStatusError, openai.ConflictError):
    """409."""


class UnprocessableEntityError(APIStatusError, openai.UnprocessableEntityError):
    """422: the vendor understands this request, and does not accept it."""


class RateLimitError(APIStatusError, openai.RateLimitError):
    """429: too much, too fast; or the account is empty."""


class InternalServerError(APIStatusError, openai.InternalServerError):
    """5xx: the vendor is in trouble."""


ContextWindowExceededError = ContextWindowExceeded
ContentPolicyViolationError = ContentPolicyViolation

BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    413: BadRequestError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}


def class_for(status: int) -> type[APIStatusError]:
    """The error class for an HTTP status."""
    if status in BY_STATUS:
        return BY_STATUS[status]
    return InternalServerError if status >= 500 else APIStatusError


def local_error(
    kind: type[APIStatusError], message: str, *, provider: str | None = None, model: str | None = None
) -> Any:
    """An error that is known before anything is sent, with the response that a vendor would have given."""
    status = getattr(kind, "status_code", 400)
    response = httpx2.Response(int(status), request=httpx2.Request("POST", "about:blank"))
    error = kind(message, response=response, body=None)
    error.provider = error.llm_provider = provider
    error.model = model
    return error


def invalid(message: str, *, provider: str | None = None, model: str | None = None) -> InvalidRequest:
    """An `InvalidRequest`, ready to be raised."""
    return local_error(InvalidRequest, message, provider=provider, model=model)  # type: ignore[no-any-return]
