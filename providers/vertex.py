"""Vertex AI: the Gemini protocol at another address, with Google Cloud's credentials.

https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference (read 2026-11)

- The project is `vertex_project`, else VERTEXAI_PROJECT or GOOGLE_CLOUD_PROJECT, else the credentials' own; the
  location is `vertex_location`, else VERTEXAI_LOCATION, GOOGLE_CLOUD_LOCATION or GOOGLE_CLOUD_REGION, else "global".
- `api_key` is an access token, or an API key of Google's; without one the application default credentials are used, for
  which google-auth is needed. They are refreshed before they expire; that one request, each hour, is not asynchronous.
- A base URL of the caller's is used as it is, up to where it ends.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ..core.errors import MissingPackage
from ..core.types import Request
from .base import Call, Provider
from .gemini import GeminiCodec

BASE = "https://aiplatform.googleapis.com/v1beta1"
"""Where the location "global" answers."""

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
MULTI_REGIONS = frozenset({"eu", "us"})
API_KEY_PREFIXES = ("AIza", "AQ.")
PROJECTS = ("VERTEXAI_PROJECT", "GOOGLE_CLOUD_PROJECT")
LOCATIONS = ("VERTEXAI_LOCATION", "GOOGLE_CLOUD_LOCATION", "GOOGLE_CLOUD_REGION")
OURS = frozenset({"vertex_location", "vertex_project"})


class VertexCodec(GeminiCodec):
    """Gemini's contents and candidates; the project and the location are in the URL."""

    version = "v1beta1"

    def parameters(self, provider: Provider) -> frozenset[str]:
        return super().parameters(provider) | OURS

    def base(self, request: Request) -> str:
        base, location = super().base(request), _location(request.parameters)
        if base == BASE and request.api_version:
            base = base.replace("v1beta1", request.api_version)
        if not base.startswith("https://aiplatform.googleapis.com/") or location == "global":
            return base
        host = f"aiplatform.{location}.rep" if location in MULTI_REGIONS else f"{location}-aiplatform"
        return base.replace("aiplatform", host, 1)

    def path(self, request: Request) -> str:
        base, place = request.api_base, project_path(request)
        model = quote(request.model, safe="/@:")
        if not model.startswith(("publishers/", "endpoints/")):
            model = f"models/{model}" if "/publishers/" in base else f"publishers/google/models/{model}"
        return f"{place}/{model}:" + ("streamGenerateContent?alt=sse" if request.stream else "generateContent")

    def template(self, provider: Provider, request: Request, api_key: str | None) -> tuple[str, dict[str, str]]:
        headers = {"content-type": "application/json"}
        if api_key and api_key.startswith(API_KEY_PREFIXES):
            headers["x-goog-api-key"] = api_key
        elif api_key:
            headers["authorization"] = f"Bearer {api_key}"
        return self.base(request), headers

    def encode(self, request: Request, provider: Provider) -> Call:
        if request.model.startswith("claude"):
            raise _invalid(f"Vertex AI serves {request.model!r} in Anthropic's protocol; here it speaks only Gemini's.")
        return super().encode(request, provider)


def project_path(request: Request) -> str:
    """The project and the location as a path; empty if there is no project, or the base URL has one already."""
    project = _project(request.parameters)
    if not project or "/projects/" in request.api_base:
        return ""
    return f"/projects/{quote(project)}/locations/{quote(_location(request.parameters))}"


def _project(asked: Mapping[str, Any]) -> str | None:
    return asked.get("vertex_project") or _first_set(PROJECTS) or (_held[1] if _held else None)


def _location(asked: Mapping[str, Any]) -> str:
    return asked.get("vertex_location") or _first_set(LOCATIONS) or "global"


def _first_set(names: tuple[str, ...]) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)


def _invalid(message: str) -> Exception:
    from ..core import api_errors

    return api_errors.invalid(message, provider="vertex_ai")


_lock = threading.Lock()
_held: tuple[Any, str | None] | None = None
"""The application default credentials, and the project that they belong to."""


def access_token() -> str:
    """A token of the application default credentials that is valid now."""
    global _held
    try:
        auth, exceptions = _package("google.auth"), _package("google.auth.exceptions")
    except ImportError:
        raise MissingPackage("Vertex AI without an api_key", "google-auth", "rejoinder[vertex]") from None
    with _lock:
        try:
            if _held is None:
                _held = auth.default(scopes=[SCOPE])
            credentials = _held[0]
            if not credentials.valid:
                credentials.refresh(_fetch)
        except exceptions.GoogleAuthError as error:
            from ..core.api_errors import AuthenticationError, MissingAPIKey, local_error

            kind = MissingAPIKey if _held is None else AuthenticationError
            message = (
                f"No credentials for 'vertex_ai': {error}. Pass api_key= (an access token), or log in with gcloud."
            )
            raise local_error(kind, message, provider="vertex_ai") from error
        return str(credentials.token)


def _package(name: str) -> Any:
    return importlib.import_module(name)


def _fetch(
    url: str,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | None = 60.0,
    **unused: Any,
) -> Any:
    """google-auth's idea of a transport, over the client that everything else uses."""
    import httpx2

    from .http import client

    try:
        response = client().request(method, url, content=body, headers=headers, timeout=timeout)
    except httpx2.HTTPError as error:
        raise _package("google.auth.exceptions").TransportError(error) from error
    return _Fetched(response.status_code, response.headers, response.content)


class _Fetched:
    def __init__(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        self.status, self.headers, self.data = status, headers, data
