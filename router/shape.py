"""From a caller's arguments to a `Request` and its `Options`. Pure, but for the environment variables of base URLs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..core import settings
from ..core.types import BEARER, Options, Request
from ..providers import table

new = tuple.__new__  # half the time of the class's own call; the test of shapes holds the order of the fields

IDENTITY = frozenset(
    {"aws_access_key_id", "aws_profile_name", "aws_region_name", "aws_secret_access_key", "aws_session_token"}
)
"""Credentials of more than one part, under the names that litellm has for them. The region is part of the base URL."""

OURS = IDENTITY | frozenset(
    {
        "api_base",
        "api_key",
        "api_version",
        "azure_ad_token",
        "azure_ad_token_provider",
        "base_url",
        "cache",
        "caching",
        "client",
        "deadline",
        "drop_params",
        "extra_body",
        "extra_headers",
        "fallbacks",
        "max_retries",
        "messages",
        "metadata",
        "mock_response",
        "model",
        "num_retries",
        "replay_timing",
        "request_timeout",
        "stream",
        "stream_options",
        "timeout",
    }
)
"""Arguments of a call that are not chat parameters of the vendor."""

RARE = frozenset({"api_version", "extra_body", "extra_headers", "stream", "stream_options"})
"""Those of them that are a request's own fields, and seldom given."""

PLAIN = frozenset({str, int, float, bool, list, dict})
ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def shape(model: str, messages: Any = None, **params: Any) -> Request:
    """The request that `completion` with these arguments makes. Raises `UnknownProvider` and `InvalidRequest`."""
    return shape_request(model, messages, params)


def shape_request(model: str, messages: Any, params: Mapping[str, Any]) -> Request:
    """The same, from a dict."""
    if type(model) is not str or not model:
        raise _invalid(f"model={model!r} must be text such as 'openai/gpt-4o'.")
    messages = conversation(messages)
    provider, name = table.resolve(model)
    parameters: dict[str, Any] = {}
    for key, value in params.items():
        if key not in OURS and value is not None and (type(value) in PLAIN or not _is_absent(value)):
            parameters[key] = value
    if "response_format" in parameters and isinstance(parameters["response_format"], type):
        from ..core.schema import response_format

        parameters["response_format"] = response_format(parameters["response_format"])
    get = params.get
    given = get("api_base") or get("base_url") or (base_of(params["client"]) if "client" in params else None)
    base = table.api_base(provider, given, params, name)
    if params.keys().isdisjoint(RARE) and not provider.version_env:
        return new(Request, ("chat", provider.name, name, base, messages, parameters, None, None, None, False, None))
    return Request(
        "chat",
        provider.name,
        name,
        base,
        messages,
        parameters,
        present(get("extra_body")),
        present(get("extra_headers")),
        table.api_version(provider, get("api_version")),
        bool(present(get("stream"))),
        present(get("stream_options")),
    )


def conversation(messages: Any) -> list[Any]:
    """`messages` as a list of dicts. Raises `InvalidRequest` for what is no such thing."""
    if type(messages) is not list:
        messages = _message_list(messages)
    for message in messages:
        if type(message) is not dict:
            return [_message_dict(item, index) for index, item in enumerate(messages)]
    return messages  # type: ignore[no-any-return]


def base_of(client: Any) -> str | None:
    """The base URL of a caller's own client."""
    base = None if client is None else getattr(client, "base_url", None)
    return None if base is None else str(base)


def present(value: Any) -> Any:
    """`value`, or None where it is a word for "not given"."""
    return None if value is None or _is_absent(value) else value


def snapshot(request: Request) -> Request:
    """The request as it is now. Its key is made, and its owner may change the lists while an answer is awaited."""
    return request._replace(messages=_copied(request.messages), parameters=_copied(request.parameters))


def _copied(value: Any) -> Any:
    """`value` with lists and dicts of its own, all the way down; texts and numbers do not change."""
    if type(value) is dict:
        return {name: _copied(item) for name, item in value.items()}
    if type(value) is list:
        return [_copied(item) for item in value]
    return value


def options_of(params: Mapping[str, Any]) -> Options:
    """How the request is to be sent. Raises `InvalidRequest` for numbers that make no sense."""
    get = params.get
    retries = get("num_retries")
    if retries is None:
        retries = get("max_retries")
    if retries is None:
        retries = settings.num_retries
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise _invalid(f"num_retries={retries!r} must be a whole number, 0 or more.")
    timeout = get("timeout") if get("timeout") is not None else get("request_timeout")
    if isinstance(timeout, (int, float)) and not timeout > 0:
        raise _invalid(f"timeout={timeout!r} must be more than 0 seconds.")
    if timeout is not None and not isinstance(timeout, (int, float)) and not hasattr(timeout, "connect"):
        raise _invalid(f"timeout={timeout!r} must be a number of seconds, or an httpx Timeout.")
    deadline = get("deadline")
    if deadline is not None and (not isinstance(deadline, (int, float)) or not deadline > 0):
        raise _invalid(f"deadline={deadline!r} must be a number of seconds, more than 0.")
    drop = get("drop_params")
    return Options(
        api_key=_credential(params),
        identity={} if IDENTITY.isdisjoint(params) else _identity(params),
        timeout=timeout,
        num_retries=retries,
        deadline=deadline,
        drop_params=settings.drop_params if drop is None else bool(drop),
        client=get("client"),
    )


def _credential(params: Mapping[str, Any]) -> Any:
    """The caller's key, or Entra token as one: "Bearer …". A provider of tokens is asked before each call."""
    key, token = params.get("api_key"), params.get("azure_ad_token")
    provider = params.get("azure_ad_token_provider")
    if sum(value is not None for value in (key, token, provider)) > 1:
        raise _invalid("Give one of api_key, azure_ad_token and azure_ad_token_provider; each is a credential.")
    if token is not None:
        return f"{BEARER}{token}"
    return key if provider is None else TokenProvider(provider)


def _identity(params: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(params[name]) for name in IDENTITY if present(params.get(name))}


class TokenProvider(NamedTuple):
    """Gives Azure's access tokens as keys. Equal to another over the same function."""

    give: Callable[[], Any]

    def __call__(self) -> str:
        token = self.give()
        if not isinstance(token, str) or not token:
            close = getattr(token, "close", None)
            if close is not None:
                close()  # a coroutine that nobody will wait for
            raise _invalid(
                f"azure_ad_token_provider gave a {type(token).__name__}; it must give text that is not empty. "
                "Of azure-identity take get_bearer_token_provider from azure.identity, not from azure.identity.aio."
            )
        return f"{BEARER}{token}"


def check(request: Request) -> None:
    """Raise `InvalidRequest` for messages that no vendor would take, before anything is sent."""
    if not request.messages:
        raise _invalid("messages is empty. Give at least one: [{'role': 'user', 'content': 'Hello'}].", request)
    for index, message in enumerate(request.messages):
        _check_message(message, index, request)
    for name in ("extra_body", "extra_headers", "stream_options"):
        value = getattr(request, name)
        if value is not None and not isinstance(value, Mapping):
            raise _invalid(f"{name} must be a dict, not {type(value).__name__}.", request)  # it may hold a key


def _check_message(message: Mapping[str, Any], index: int, request: Request) -> None:
    role = message.get("role")
    if role not in ROLES:
        said = "has no role" if role is None else f"has the role {role!r}"
        raise _invalid(f"messages[{index}] {said}; write one of {', '.join(ROLES)}.", request)
    content = message.get("content")
    if content is not None and not isinstance(content, (str, list, tuple)):
        raise _invalid(
            f"messages[{index}]['content'] is {_short(content)}; it must be text or a list of parts.", request
        )
    if content is None and role in ("system", "developer", "user", "tool"):
        raise _invalid(f"messages[{index}] (role {role!r}) has no content.", request)
    if isinstance(content, str):
        return
    for place, part in enumerate(content or ()):
        if not isinstance(part, (Mapping, str)) and not hasattr(part, "model_dump"):
            raise _invalid(f"messages[{index}]['content'][{place}] is {_short(part)}; a part must be a dict.", request)


def without(request: Request, names: set[str]) -> Request:
    """The request without these parameters."""
    kept = {name: value for name, value in request.parameters.items() if name not in names}
    return request._replace(parameters=kept)


def _message_list(messages: Any) -> list[Any]:
    if isinstance(messages, str) or not isinstance(messages, Sequence):
        said = "is missing" if messages is None else f"is {_short(messages)}"
        raise _invalid(f"messages {said}; it must be a list: [{{'role': 'user', 'content': 'Hello'}}].")
    return list(messages)


def _message_dict(message: Any, index: int) -> Any:
    """A message as a dict: answers of earlier calls may be put into `messages` as they are."""
    if type(message) is dict:
        return message
    if hasattr(message, "model_dump"):
        return message.model_dump(mode="json", exclude_none=True)
    if isinstance(message, Mapping):
        return dict(message)
    raise _invalid(f"messages[{index}] is {_short(message)}; it must be a dict with 'role' and 'content'.")


def _is_absent(value: Any) -> bool:
    """Whether a value is the openai or anthropic package's word for "not given"."""
    return type(value).__name__ in ("NotGiven", "Omit")


def _short(value: Any) -> str:
    text = f"{value!r} ({type(value).__name__})"
    return text if len(text) <= 100 else text[:97] + "…"


def _invalid(message: str, request: Request | None = None) -> Exception:
    from ..core.api_errors import invalid

    if request is None:
        return invalid(message)
    return invalid(message, provider=request.provider, model=request.model)


settings.shape = shape
