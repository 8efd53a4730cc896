"""What a caller gives, read alike by every codec that says it in another protocol's words.

Raises `InvalidRequest`; where it was to be sent is put on the error by whoever asked for the call.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson


def invalid(message: str) -> Exception:
    from ..core import api_errors

    return api_errors.invalid(message)


def plain(value: Any) -> Mapping[str, Any]:
    """A part, a tool or a call as a mapping: those of earlier answers may be objects."""
    if isinstance(value, Mapping):
        return value
    if hasattr(value, "model_dump"):
        dumped: dict[str, Any] = value.model_dump(mode="json", exclude_none=True)
        return dumped
    raise invalid(f"{str(value)[:100]!r} is a {type(value).__name__}; it must be a dict.")


def arguments_of(function: Mapping[str, Any]) -> Mapping[str, Any]:
    """A call's arguments as an object. No text is no arguments."""
    arguments, name = function.get("arguments"), function.get("name")
    if isinstance(arguments, Mapping):
        return arguments
    if arguments is None or not arguments.strip():
        return {}
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError as error:
        raise invalid(f"The arguments of the call of {name!r} are not JSON ({error}): {arguments[:200]!r}.") from None
    if not isinstance(value, dict):
        raise invalid(f"The arguments of the call of {name!r} are no JSON object: {arguments[:200]!r}.")
    return value


def data_url(url: str) -> tuple[str, str]:
    """The media type and the base64 text of a data URL (RFC 2397)."""
    head, comma, data = url[len("data:") :].partition(",")
    if not comma:
        raise invalid(f"This data URL has no comma, so no data: {url[:60]!r}.")
    media_type, *options = head.split(";")
    if "base64" not in options:
        data = base64.b64encode(unquote_to_bytes(data)).decode()
    media_type = media_type.strip().lower() or "text/plain"
    return "image/jpeg" if media_type == "image/jpg" else media_type, data


def tools_and_choice(asked: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], Any]:
    """`tools` and `tool_choice`. A choice of `allowed_tools` leaves only these tools, with its mode as the choice.

    https://platform.openai.com/docs/guides/function-calling#tool-choice (read 2026-11). The other vendors have no word
    for it, and a tool that is not sent is not called.
    """
    tools, choice = [plain(tool) for tool in asked.get("tools") or ()], asked.get("tool_choice")
    if not isinstance(choice, Mapping) or choice.get("type") != "allowed_tools":
        return tools, choice
    named = choice.get("allowed_tools") or choice  # the Responses API has it without the inner object
    allowed = {name_of(plain(tool)) for tool in named.get("tools") or ()}
    unknown = allowed - {name_of(tool) for tool in tools}
    if unknown or not allowed:
        raise invalid(f"tool_choice allows {', '.join(map(repr, sorted(map(str, unknown)))) or 'no tool'}; see tools.")
    return [tool for tool in tools if name_of(tool) in allowed], named.get("mode") or "auto"


def name_of(tool: Mapping[str, Any]) -> Any:
    """A tool's name: that of its function, or its own."""
    function = tool.get("function")
    return function.get("name") if isinstance(function, Mapping) else tool.get("name")
