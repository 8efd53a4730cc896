"""A call as it is typed on a command line, and an answer as it is shown there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from ...core.errors import ConfigurationError
from .command import Options

if TYPE_CHECKING:
    from ...caching.entry import Entry


def call_of(options: Options) -> dict[str, Any]:
    """The arguments of `completion` that the options describe. Raises `ConfigurationError`."""
    call = _read(options.call) if options.call else {}
    if options.model:
        call["model"] = options.model
    said = [{"role": "system", "content": options.system}] if options.system is not None else []
    said += [{"role": "user", "content": text} for text in options.message or ()]
    if said:
        call["messages"] = said
    for given in options.param or ():
        name, equals, value = given.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigurationError(f"--param {given!r}: write NAME=VALUE, for example temperature=0.")
        call[name] = _value(value)
    if not call.get("model") or not call.get("messages"):
        raise ConfigurationError("Say which call: --model and --message, or --call FILE with both in it.")
    return call


def _read(name: str) -> dict[str, Any]:
    data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    try:
        call = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ConfigurationError(f"--call {name}: no JSON: {error}") from None
    if not isinstance(call, dict):
        raise ConfigurationError(f"--call {name}: it must be a JSON object with 'model' and 'messages'.")
    return call


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def told(entry: Entry) -> dict[str, Any]:
    """What a stored answer says: its text, usage and end. What cannot be read that way is shown as JSON."""
    from ..usage import usage_line

    try:
        body = orjson.loads(entry.body)
    except orjson.JSONDecodeError:
        body = None
    choice = _first_choice(body)
    usage = body.get("usage") if isinstance(body, dict) else None
    return {
        "chunks": len(entry.chunks),
        "usage": usage,
        "usage_line": usage_line(usage) if isinstance(usage, dict) else None,
        "finish_reason": choice.get("finish_reason"),
        "tags": list(entry.tags),
        "answer": _text(choice) or _error(body) or entry.body.decode(errors="replace"),
    }


def _error(body: Any) -> str:
    """What is told of an error that was kept."""
    kept = body.get("kept_error") if isinstance(body, dict) else None
    return f"{kept.get('class')}: {kept.get('message')}" if isinstance(kept, dict) else ""


def _first_choice(body: Any) -> dict[str, Any]:
    choices = body.get("choices") if isinstance(body, dict) else None
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def _text(choice: dict[str, Any]) -> str:
    """The text of a chat answer or of a text completion, then its tool calls."""
    message = choice.get("message")
    if not isinstance(message, dict):
        text = choice.get("text")
        return text if isinstance(text, str) else ""
    content = message.get("content")
    lines = [content] if isinstance(content, str) and content else []
    for call in message.get("tool_calls") or ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            lines.append(f"{function.get('name')}({function.get('arguments')})")
    return "\n".join(lines)
