"""A deployment: one place where a model is served, with all that is needed to call it."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..core import settings
from ..core.errors import CacheMiss
from ..core.locks import new_lock
from ..core.types import Options, Request
from . import table
from .base import Codec, Provider, Wire


class Deployment(NamedTuple):
    provider: Provider
    codec: Codec
    wire: Wire
    name: str
    """For messages; never has a key in it."""


NO_CREDENTIALS = frozenset({"aws_region_name"})
"""Of an identity, what says nothing of who calls: beside it a key of the environment counts."""

MOST = 512
_wires: OrderedDict[tuple[Any, ...], Wire] = OrderedDict()
_lock = new_lock()


def deployment(request: Request, options: Options) -> Deployment:
    """Where `request` goes. Raises `MissingAPIKey`, and `InvalidRequest` where it cannot go anywhere."""
    if request.api_base and "://" not in request.api_base:
        from ..core.api_errors import invalid

        message = f"api_base={request.api_base!r} is no URL. Write 'http://{request.api_base}' or 'https://…'."
        raise invalid(message, provider=request.provider, model=request.model)
    if settings.offline:
        raise CacheMiss(f"Nothing may be sent here, and there is no recording of this call of {request.full_model!r}.")
    provider = table.PROVIDERS[request.provider]
    codec = table.codec(provider.codec, request.endpoint)
    if codec is None or not table.serves(provider, request.endpoint):
        from ..core.api_errors import invalid

        message = f"{provider.name!r} has no endpoint {request.endpoint!r}."
        raise invalid(message, provider=provider.name, model=request.model)
    return Deployment(provider, codec, wire(request, options, provider, codec), request.full_model)


def wire(request: Request, options: Options, provider: Provider, codec: Codec) -> Wire:
    if provider.name == "echo" or hasattr(options.client, "answers"):
        from .echo import wire_for

        return wire_for(options.client)
    if options.client is not None:
        from .sdk import ClientWire

        return ClientWire(options.client, request.full_model)
    return _http_wire(request, api_key(provider, options, request), options.identity, provider, codec)


def _http_wire(
    request: Request, key: str | None, identity: Mapping[str, str], provider: Provider, codec: Codec
) -> Wire:
    """The wire of this place, made with the vendor's SDK on first use and kept."""
    place: tuple[Any, ...] = (provider.name, request.endpoint, request.api_base, request.api_version, key)
    signer = provider.signer if key is None else None
    if signer is not None:
        place += tuple(sorted(identity.items()))
    found = _wires.get(place)
    if found is not None:
        return found
    from .http import HttpWire

    url, headers = codec.template(provider, request, key)
    new = HttpWire(url, headers, None if signer is None else signer(identity))
    with _lock:
        _wires[place] = new
        while len(_wires) > MOST:
            _wires.popitem(last=False)
    return new


def usable(key: str, provider: Provider) -> str:
    """`key` without the white space that files end in. Raises `InvalidRequest` if no header can carry it."""
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        from ..core.api_errors import invalid

        message = f"The API key for {provider.name!r} has a character that no header can carry. Copy it once more."
        raise invalid(message, provider=provider.name)
    return key


def api_key(provider: Provider, options: Options, request: Request) -> str | None:
    """The caller's key, or the environment's. Raises `MissingAPIKey` where one is needed."""
    key = options.api_key() if callable(options.api_key) else options.api_key
    if key:
        return usable(str(key), provider)
    if provider.signer is not None and options.identity.keys() - NO_CREDENTIALS:
        return None
    for name in provider.key_env:
        if os.environ.get(name):
            return usable(os.environ[name], provider)
    if provider.credential is not None:
        return provider.credential()
    if provider.signer is not None:
        return None
    if not request.api_base:
        from ..core.api_errors import invalid

        said = " or set " + " or ".join(provider.base_env) if provider.base_env else ""
        raise invalid(f"{provider.name!r} has no base URL of its own. Pass api_base={said}.", provider=provider.name)
    if provider.needs_key:
        from ..core.api_errors import MissingAPIKey, local_error

        said = " or set " + " or ".join(provider.key_env) if provider.key_env else ""
        message = f"No API key for {provider.name!r}. Pass api_key={said}."
        raise local_error(MissingAPIKey, message, provider=provider.name, model=request.model)
    return None
