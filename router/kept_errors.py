"""Errors that are kept: what the vendor refuses for what it is need not be sent again.

Only on request (`error_ttl`), and only what the same request would meet again: a prompt that is too long, a model that
there is not, a request that is understood and not accepted. Not a wrong key, a limit or trouble at the vendor's; nor
a plain 400, by which some vendors say that an account is empty.
"""

from __future__ import annotations

from typing import Any

import orjson

from ..caching.entry import BadEntry, Entry
from ..core.types import Request
from .faults import located

LASTING = ("ContextWindowExceeded", "NotFoundError", "UnprocessableEntityError")
"""The classes of `core/api_errors.py` that are kept."""


def is_lasting(error: BaseException) -> bool:
    """Whether the same request would meet this error again. One that was kept is not kept anew."""
    return type(error).__name__ in LASTING and not getattr(error, "was_kept", False)


def body_of(error: Any) -> bytes:
    """The body of an entry that keeps `error`. It has been cleaned of credentials when it was made."""
    told = {
        "class": type(error).__name__,
        "message": str(error),
        "status": error.status_code,
        "body": error.body,
        "request_id": error.request_id,
    }
    return orjson.dumps({"kept_error": told}, default=str)


def is_kept(entry: Entry) -> bool:
    """Whether `entry` is an error and no answer."""
    return entry.is_error


def restored(entry: Entry, request: Request, age: float) -> Exception:
    """The error that `entry` keeps, to be raised again. Raises `BadEntry` if it is none, checksum or not."""
    import httpx2

    from ..core import api_errors

    try:
        told = orjson.loads(entry.body)["kept_error"]
        name = told["class"] if told["class"] in LASTING else "APIStatusError"
        message, status, body, request_id = (told[part] for part in ("message", "status", "body", "request_id"))
        if not isinstance(message, str) or not isinstance(status, int) or not 400 <= status < 600:
            raise ValueError("its message is no text, or its status no error's")
        response = httpx2.Response(status, request=httpx2.Request("POST", "about:blank"))
        message = f"{message} (Kept for {age:.0f} s; nothing was sent.)"
        error = getattr(api_errors, name)(message, response=response, body=body)
    except (ValueError, LookupError, TypeError) as fault:
        raise BadEntry(f"it does not read as an error ({type(fault).__name__}: {fault})") from None
    error.request_id, error.was_kept = request_id, True
    return located(error, request)
