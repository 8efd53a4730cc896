"""The values that travel between the parts. OpenAI's field names throughout; nothing here imports an SDK."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Message = Mapping[str, Any]

BEARER = "Bearer "
"""How a key starts that is an access token of Azure's."""


class Request(NamedTuple):
    """What is asked of a model: everything that can change the answer, and nothing that cannot.

    Credentials, timeouts and retries are in `Options`. Each field's place in the cache key is declared in
    `caching/keys.py`; a test fails until a new field has one.
    """

    endpoint: str
    """What is called: "chat"."""
    provider: str
    """The provider's name in the table, e.g. "anthropic"."""
    model: str
    """The vendor's own name of the model, without the provider."""
    api_base: str
    """The base URL that answers, without a trailing slash; empty where there is no network."""
    messages: Sequence[Message]
    parameters: Mapping[str, Any]
    """OpenAI chat parameters and vendor parameters that reach the wire; none is None."""
    extra_body: Mapping[str, Any] | None = None
    extra_headers: Mapping[str, str] | None = None
    api_version: str | None = None
    stream: bool = False
    stream_options: Mapping[str, Any] | None = None

    @property
    def full_model(self) -> str:
        """The name callers use: "provider/model"."""
        return f"{self.provider}/{self.model}"


class Options(NamedTuple):
    """How a request is sent. None of it can change what a model answers, so none of it is in the key."""

    api_key: Any = None
    """The key, or a callable that gives one."""
    identity: Mapping[str, str] = {}
    """Credentials that are more than one key, by the argument's name: "aws_access_key_id" and its like."""
    timeout: Any = None
    """Seconds for each attempt; or an httpx or httpx2 `Timeout`. None: the default of `settings`."""
    num_retries: int = 2
    """Further attempts after the first."""
    deadline: float | None = None
    """Seconds for all attempts together, waits included; None: no bound of its own."""
    drop_params: bool = False
    """Leave out parameters that the provider does not know, instead of raising."""
    client: Any = None
    """The caller's own SDK client, or an `Echo`; None: ours."""

    @property
    def patience(self) -> float | None:
        """Seconds that this caller waits for the answer of another who asks the same: what its own call could take."""
        if self.deadline is not None or not isinstance(self.timeout, (int, float)):
            return self.deadline
        return self.timeout * (self.num_retries + 1)

    @property
    def terms(self) -> tuple[Any, ...]:
        """On what terms this caller calls. Only callers on equal terms share a failure (see `caching/flights.py`)."""
        return (
            self.api_key,
            *sorted(self.identity.items()),
            str(self.timeout),
            self.num_retries,
            self.deadline,
            id(self.client),
        )


class Attempt(NamedTuple):
    """One try at one deployment, kept on the error that ends a call."""

    deployment: str
    status: int | None
    error: str
    seconds: float
