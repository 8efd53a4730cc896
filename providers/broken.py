"""What is no answer in any protocol: one that broke off, one of the wrong shape, a web page in its place."""

from __future__ import annotations

import orjson

from .base import Failure, ProviderFault
from .failures import fault_in_answer

MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)
"""What reading JSON of the wrong shape raises."""

CUT_SHORT = Failure("The stream ended before the answer did.", "incomplete_stream", status=502)


def malformed(protocol: str, error: Exception, body: bytes) -> ProviderFault:
    """The fault that `error`, raised while `body` was read as `protocol`, stands for."""
    if body.lstrip().startswith(b"<"):  # a page of some server in between
        return ProviderFault(fault_in_answer(body), body)
    said = f"The answer does not follow {protocol}'s protocol ({type(error).__name__}: {error})."
    return ProviderFault(Failure(said if body.strip() else "an empty answer", "malformed_answer", status=502), body)


def cut_short(body: bytes) -> ProviderFault:
    """The fault of a stream that is none: it is a web page, or it broke off."""
    is_page = body.lstrip().startswith(b"<")
    return ProviderFault(fault_in_answer(body) if is_page else CUT_SHORT, body)


def is_json(data: bytes) -> bool:
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return True
