"""Every way in which a vendor can fail, as an exception of its class. This is the one place where errors are mapped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.shape import Misshapen
from ..core.types import Options, Request
from ..providers.base import Failure, ProviderFault, Reply
from ..providers.deployment import Deployment
from .retry import retry_after


def status_error(
    status: int, headers: Mapping[str, str], body: bytes, request: Request, place: Deployment
) -> Exception:
    """An error answer as an exception of its class, with where it came from and how long the vendor asks to wait."""
    return failure_error(place.codec.failed(Reply(status, headers, body)), status, headers, body, request, place)


def failure_error(
    failure: Failure, status: int, headers: Mapping[str, str], body: bytes, request: Request, place: Deployment
) -> Exception:
    import httpx2

    from ..core import api_errors

    kind = api_errors.class_for(status)
    if failure.kind == "authentication":
        kind = api_errors.DeadKey if status == 403 else api_errors.AuthenticationError
    elif 400 <= status < 500 and status not in (401, 403, 429):
        if failure.kind == "context_window":
            kind = api_errors.ContextWindowExceeded
        elif failure.kind == "content_policy":
            kind = api_errors.ContentPolicyViolation
    kept = {name: value for name, value in headers.items() if "cookie" not in name.lower()}
    for name in ("content-encoding", "content-length", "transfer-encoding"):
        kept.pop(name, None)
    sent = httpx2.Request("POST", getattr(place.wire, "url", "about:blank"))
    message = scrubbed(failure.message, place, request.extra_headers or {})
    if 300 <= status < 400:
        # Not followed: only the Authorization header would be kept from another host, not the other headers with keys.
        message = f"it redirects to {headers.get('location', 'somewhere else')!r}; pass that place as api_base="
    if message != failure.message and status >= 400:
        body = b""  # it repeats the key
    response = httpx2.Response(status, headers=kept, content=body, request=sent)
    wait = retry_after(headers)
    if wait is None:
        wait = failure.retry_after
    asked = f"; retry after {wait:g} s" if wait is not None else ""
    error = kind(
        f"{place.name!r} answered {status}{asked}: {message.rstrip('.')}.",
        response=response,
        body={"message": message, "code": failure.code, "type": failure.code},
    )
    error.retry_after = wait
    error.request_id = headers.get("x-request-id") or headers.get("request-id") or headers.get("x-amzn-requestid")
    return located(error, request)


def translated(error: Exception, request: Request, place: Deployment) -> Exception:
    """Any exception of an attempt as one of ours. What is neither the vendor's nor the network's fault is raised."""
    from ..core.api_errors import APIError

    if isinstance(error, ProviderFault):
        failure = error.failure
        return failure_error(failure, failure.status or 500, {}, error.body, request, place)
    if isinstance(error, Misshapen):
        failure = Failure(str(error), "misshapen_answer")
        return failure_error(failure, 502, {}, b"", request, place)
    if isinstance(error, APIError):
        return located(error, request)
    if isinstance(error, OSError):
        import httpx2

        from ..core.api_errors import APIConnectionError

        sent = httpx2.Request("POST", getattr(place.wire, "url", "about:blank"))
        return located(
            APIConnectionError(message=f"The stream of {place.name!r} broke: {error}.", request=sent), request
        )
    raise error


def located(error: Any, request: Request) -> Exception:
    """`error`, saying which provider and model it is about."""
    if error.provider is None:
        error.provider = error.llm_provider = request.provider
        error.model = request.model
    return error  # type: ignore[no-any-return]


SECRET = ("auth", "key", "token", "secret", "cookie")
"""What is in the names of headers whose values nobody else may read."""


def scrubbed(text: str, place: Deployment, headers: Mapping[str, Any]) -> str:
    """`text` without this deployment's and this call's credentials: vendors like to repeat a wrong key."""
    secrets = list(getattr(getattr(place.wire, "sign", None), "secrets", ()))
    for name, value in (*getattr(place.wire, "headers", {}).items(), *headers.items()):
        if any(word in name.lower() for word in SECRET):
            secrets.append(str(value).removeprefix("Bearer ").strip())
    for secret in secrets:
        if len(secret) >= 6:
            text = text.replace(secret, "***")
    return text


def late(request: Request, options: Options) -> Exception:
    import httpx2

    from ..core.api_errors import APITimeoutError

    error = APITimeoutError(request=httpx2.Request("POST", "about:blank"))
    bound = "the deadline of" if options.deadline is not None else "the time of all attempts,"
    error.message = f"{request.full_model!r} did not answer within {bound} {options.patience or 0:g} s."
    error.args = (error.message,)
    return located(error, request)


def invalid(message: str, request: Request) -> Exception:
    """An `InvalidRequest` about this request."""
    from ..core import api_errors

    return api_errors.invalid(message, provider=request.provider, model=request.model)


def twin_of(error: Exception) -> Exception:
    """The leader's error for a follower: a copy, so that no two callers share one traceback."""
    # Not copy.copy: it calls the class again, and the openai package's classes want more than an exception keeps.
    twin = error.__class__.__new__(error.__class__, *error.args)
    twin.__dict__.update(error.__dict__)
    twin.args, twin.__cause__ = error.args, error.__cause__
    return twin
