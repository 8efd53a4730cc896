"""What every call may be given, whatever its endpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypedDict


class CallParams(TypedDict, total=False):
    """Where a call goes, how, and what the cache does."""

    # where and how
    api_key: Any
    """The provider's key, or a callable that gives it. None: its environment variable."""
    api_base: str | None
    base_url: str | None
    """The same as `api_base`."""
    api_version: str | None
    azure_ad_token: str | None
    """An Entra token, for Azure, instead of a key."""
    azure_ad_token_provider: Callable[[], str] | None
    """Gives an Entra token before each call: azure-identity's `get_bearer_token_provider(…)`."""
    aws_access_key_id: str | None
    aws_profile_name: str | None
    aws_region_name: str | None
    aws_secret_access_key: str | None
    aws_session_token: str | None
    vertex_location: str | None
    vertex_project: str | None
    client: Any
    """An SDK client of your own, or an `Echo`."""
    extra_body: Mapping[str, Any] | None
    """Merged into the request's body last; in the key."""
    extra_headers: Mapping[str, str] | None
    timeout: Any
    """Seconds for one attempt, or an httpx `Timeout`."""
    request_timeout: float | None
    deadline: float | None
    """Seconds for all attempts together, waits included."""
    num_retries: int | None
    """Further attempts after the first; 2 unless `rejoinder.num_retries` says otherwise."""
    max_retries: int | None
    """The same as `num_retries`."""
    fallbacks: Any
    """Models to try in turn when this one fails: names, or dicts with "model" and arguments of their own."""
    drop_params: bool | None
    """Leave out parameters that the provider does not know, instead of raising."""
    mock_response: Any
    """Answer with this (a text, a dict or an exception) without asking anybody."""
    metadata: Mapping[str, Any] | None
    """For your own logs; neither sent nor in the key."""

    # the cache
    caching: bool | None
    """True: use the cache; False: do not. None: use it if one is set and its mode is not "default_off"."""
    cache: Any
    """A `Cache`, a `CachePolicy`, True or False, or `{"ttl", "s-maxage", "no-cache", "no-store", "namespace"}`."""
