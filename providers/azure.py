"""OpenAI's protocol at Azure: the same requests and answers, at URLs and with credentials of Azure's own.

https://learn.microsoft.com/azure/foundry/openai/api-version-lifecycle (read 2026-11)

The URL names the deployment, which callers write as the model: `azure/<deployment>`. Where that is depends on what is
given as base URL:

| base URL | what is called |
|---|---|
| `https://<resource>.openai.azure.com`, with an API version | `…/openai/deployments/<deployment>/chat/completions` |
| the same without a version, or `…/openai/v1` | `…/openai/v1/chat/completions`; the version-less API |
| `…/openai/deployments/<deployment>`, or the whole URL with `?api-version=`, as the portal shows it | just that |
| `https://<resource>.services.ai.azure.com/models` | `…/models/chat/completions` |

URLs and headers are drawn by the openai package's own client, once for each deployment.

A key that starts with "Bearer " is an Entra token, and so is one from AZURE_OPENAI_AD_TOKEN or AZURE_AD_TOKEN. The
version-less API takes its versions by name ("preview", "latest"): a dated one that comes from the environment is not
sent to it.

What content filters found stays in the answers under Azure's names: `prompt_filter_results`, and
`content_filter_results` in each choice.
"""

from __future__ import annotations

import functools
import os
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from ..core.types import BEARER, Request
from .base import Call, Codec, Failure, Provider, StreamDecoder
from .openai import OpenAICodec
from .openai_endpoints import EndpointCodec

TOKEN_VARIABLES = ("AZURE_OPENAI_AD_TOKEN", "AZURE_AD_TOKEN")
VERSION_LESS = "/openai/v1"
MODELS = "/models"
NAMED_VERSIONS = frozenset({"latest", "preview", "v1"})


class AzureCodec(Codec):
    """An endpoint of OpenAI's protocol, as another codec speaks it."""

    def __init__(self, inner: OpenAICodec) -> None:
        self._inner = inner

    def parameters(self, provider: Provider) -> frozenset[str]:
        return self._inner.parameters(provider)

    def encode(self, request: Request, provider: Provider) -> Call:
        call = self._inner.encode(request, provider)
        if not request.api_base:  # a client of the caller's own knows where
            return call
        return call._replace(url=drawn(where(request, call.path), request.model, "none").url)

    def decode(self, body: bytes, request: Request) -> bytes:
        return self._inner.decode(body, request)

    def decoder(self, request: Request) -> StreamDecoder:
        return self._inner.decoder(request)

    def failure(self, status: int, body: bytes) -> Failure:
        return self._inner.failure(status, body)

    def template(self, provider: Provider, request: Request, api_key: str | None) -> tuple[str, dict[str, str]]:
        place = where(request, self._inner.path)
        url, headers = drawn(place, request.model, api_key or "none")
        return url, dict(headers)


class AzureOcr(EndpointCodec):
    """Mistral's reading of documents, which is below neither `/models` nor `/openai`."""

    endpoint = "ocr"

    def template(self, provider: Provider, request: Request, api_key: str | None) -> tuple[str, dict[str, str]]:
        given = urlsplit(request.api_base)
        path = given.path if given.path.endswith("/ocr") else self.path_at(provider)
        headers = {"content-type": "application/json"}
        if api_key:
            headers["authorization"] = BEARER + api_key.removeprefix(BEARER)
        return f"{given.scheme}://{given.netloc}{path}", headers


class Place(NamedTuple):
    base: str
    path: str
    version: str | None


class Drawn(NamedTuple):
    url: str
    headers: dict[str, str]


def where(request: Request, path: str) -> Place:
    """The base URL and API version of a request."""
    given = urlsplit(request.api_base)
    version = request.api_version or next(iter(parse_qs(given.query).get("api-version", ())), None)
    base = given._replace(query="").geturl().rstrip("/").removesuffix(path)
    if "/deployments/" in base and not version:
        from ..core.api_errors import invalid

        message = f"{base!r} needs an API version. Pass api_version= or set AZURE_API_VERSION."
        raise invalid(message, provider="azure", model=request.model)
    if not version and VERSION_LESS not in base and not base.endswith(MODELS):
        base = base.removesuffix("/openai") + VERSION_LESS
    if VERSION_LESS in base and version not in NAMED_VERSIONS:
        version = None
    return Place(base, path, version)


@functools.lru_cache(maxsize=512)
def drawn(place: Place, model: str, key: str) -> Drawn:
    """The URL and headers of a call, as the openai package's client sends them."""
    from .http import Template

    catch = Template()
    sdk = _client(place, key, catch.client())
    sdk.post(place.path, body={"model": model}, cast_to=object)
    if place.base.endswith(MODELS) and not _token(key):  # where a key has Azure's header, as in AzureOpenAI
        del catch.headers["authorization"]
        catch.headers["api-key"] = key
    return Drawn(catch.url, catch.headers)


def _client(place: Place, key: str, http_client: Any) -> Any:
    import openai

    said: dict[str, Any] = {"max_retries": 0, "http_client": http_client}
    token = _token(key)
    if VERSION_LESS in place.base or place.base.endswith(MODELS):
        if place.version:
            said["default_query"] = {"api-version": place.version}
        return openai.OpenAI(base_url=place.base, api_key=token or key, **said)
    said["azure_ad_token" if token else "api_key"] = token or key
    if "/deployments/" in place.base:
        said["base_url"] = place.base
    else:
        said["azure_endpoint"] = place.base.removesuffix("/openai")
    return openai.AzureOpenAI(api_version=place.version, **said)


def _token(key: str) -> str | None:
    """The Entra token in `key`, if it is one."""
    if key.startswith(BEARER):
        return key.removeprefix(BEARER)
    return key if any(os.environ.get(name) == key for name in TOKEN_VARIABLES) else None
