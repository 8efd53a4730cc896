"""Claude on Vertex AI: Anthropic's Messages at Google's address, with Google Cloud's credentials.

https://platform.claude.com/docs/en/build-with-claude/claude-on-vertex-ai (read 2026-11). The model is in the URL, the
version in the body. Project, location and credentials are found as in `vertex.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ..core.types import Request
from .anthropic import AnthropicCodec, packed
from .base import Call, Provider
from .vertex import OURS, VertexCodec, project_path

VERSION = "vertex-2023-10-16"
PUBLISHER = "publishers/anthropic/models/"


class VertexAnthropicCodec(AnthropicCodec):
    """Messages in, messages out."""

    _place = VertexCodec()

    def parameters(self, provider: Provider) -> frozenset[str]:
        return super().parameters(provider) | OURS

    def encode(self, request: Request, provider: Provider) -> Call:
        betas = request.parameters.get("betas")
        body = {"anthropic_version": VERSION, **self.body(without(request, OURS), provider)}
        del body["model"]
        headers = {"anthropic-beta": betas if isinstance(betas, str) else ",".join(betas)} if betas else {}
        path = f"{project_path(request)}/{self._model(request)}"
        path += ":streamRawPredict" if request.stream else ":rawPredict"
        return Call(path, packed(body, request.model), headers, self._place.base(request) + path)

    def _model(self, request: Request) -> str:
        """The model below the location; a base URL may go as far as the publisher."""
        name = quote(request.model.removeprefix(PUBLISHER), safe="@:-._~")
        return f"models/{name}" if "/publishers/" in request.api_base else f"{PUBLISHER}{name}"

    def template(self, provider: Provider, request: Request, api_key: str | None) -> tuple[str, dict[str, str]]:
        return self._place.template(provider, request, api_key)


def without(request: Request, names: frozenset[str]) -> Request:
    """The request without these parameters, which are not for the body."""
    if names.isdisjoint(request.parameters):
        return request
    kept: Mapping[str, Any] = {name: value for name, value in request.parameters.items() if name not in names}
    return request._replace(parameters=kept)
