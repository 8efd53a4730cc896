"""OpenAI's messages as Anthropic's: a system text, and turns made of blocks.

https://platform.claude.com/docs/en/build-with-claude/working-with-messages (read 2026-11)

What is decided here, because the two protocols differ:

- System and developer messages at the start become `system`. A later one stays where it is on models that take that
  (an answered instruction keeps its place, and the vendor's prompt cache its prefix), else it joins `system` too.
- Without any other message the system text is what the user says: the vendor answers nobody else.
- Neighbours of one role become one turn; tool results come first in theirs, as the vendor wants it.
- Blocks that are Anthropic's own already pass as they are, and so does `content_blocks` of an earlier answer, which
  then stands for the whole message.
- Thinking goes back only with its signature: text alone (`reasoning_content`) is refused by the vendor, so it is left
  out. So are empty texts and the `name` of a message.
"""

from __future__ import annotations

import base64
import binascii
import mimetypes
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..core.types import Message
from .given import arguments_of, data_url, plain

Block = dict[str, Any]

NOT_IN_ID = re.compile(r"[^a-zA-Z0-9_-]")
"""Other vendors' call ids may hold what Anthropic refuses (^[a-zA-Z0-9_-]+$)."""

PLAIN_TEXT = {"type", "text"}
THINKING = frozenset({"thinking", "redacted_thinking"})
TEXT_LIKE = frozenset({"application/json", "application/xml", "application/yaml", "application/x-yaml"})
"""Media types beside text/* that can be sent as a plain-text document."""


class Turn(NamedTuple):
    role: str
    blocks: list[Block]


def conversation(
    messages: Iterable[Message], *, system_in_place: bool = False
) -> tuple[str | list[Block] | None, list[dict[str, Any]]]:
    """What to send as `system` and as `messages`. Raises `InvalidRequest` for what the protocol cannot say."""
    turns = _joined(Turn(message["role"], _blocks(message)) for message in messages)
    system: list[Block] = []
    kept: list[Turn] = []
    for place, turn in enumerate(turns):
        if turn.role != "system" or (system_in_place and _may_stand(turns, place)):
            kept.append(turn)
        else:
            system += turn.blocks
    kept = _joined(kept)
    if not kept:
        kept, system = _joined([Turn("user", system)]), []
    if not kept:
        raise _invalid("The messages say nothing: each is empty.")
    if kept[-1].role == "assistant":
        _trim_prefill(kept)
    return _system(system), [{"role": turn.role, "content": _content(turn)} for turn in kept]


def with_instruction(system: str | list[Block] | None, text: str) -> str | list[Block]:
    """`system` with one more text at its end."""
    if isinstance(system, list):
        return [*system, {"type": "text", "text": text}]
    return f"{system}\n\n{text}" if system else text


def _joined(turns: Iterable[Turn]) -> list[Turn]:
    """Turns with neighbours of one role made one; empty ones left out."""
    joined: list[Turn] = []
    for role, blocks in turns:
        role = ROLES.get(role, role)
        if joined and joined[-1].role == role:
            joined[-1].blocks.extend(blocks)
        elif blocks:
            joined.append(Turn(role, list(blocks)))
    return joined


def _may_stand(turns: Sequence[Turn], place: int) -> bool:
    """Where a system message may be: after a user's turn, and before the assistant's or at the end."""
    follows_user = place > 0 and turns[place - 1].role == "user"
    return follows_user and (place + 1 == len(turns) or turns[place + 1].role == "assistant")


def _trim_prefill(turns: list[Turn]) -> None:
    """The vendor continues a last assistant's turn, and refuses one that ends in white space."""
    blocks = turns[-1].blocks
    if blocks[-1].get("type") == "text":
        blocks[-1] = {**blocks[-1], "text": str(blocks[-1].get("text")).rstrip()}


def _system(blocks: list[Block]) -> str | list[Block] | None:
    if not blocks:
        return None
    if all(block.keys() == PLAIN_TEXT for block in blocks):
        return "\n\n".join(block["text"] for block in blocks)
    return blocks


def _content(turn: Turn) -> str | list[Block]:
    blocks = turn.blocks
    if len(blocks) == 1 and blocks[0].keys() == PLAIN_TEXT:
        text: str = blocks[0]["text"]
        return text
    if turn.role == "user" and len(blocks) > 1:
        return sorted(blocks, key=lambda block: block.get("type") != "tool_result")
    return blocks


def _blocks(message: Message) -> list[Block]:
    """One message's blocks, with its own cache mark on the last."""
    read = READERS.get(message["role"])
    if read is None:
        raise _invalid(f"Anthropic has no messages of the role {message['role']!r}. For a tool's result use 'tool'.")
    blocks = read(message)
    mark = message.get("cache_control")
    if mark and blocks:
        blocks[-1] = {**blocks[-1], "cache_control": mark}
    return blocks


def _said(message: Message) -> list[Block]:
    return _parts(message.get("content"))


def _answered(message: Message) -> list[Block]:
    """An assistant's message: its thinking, what it said, the tools it called."""
    whole = message.get("content_blocks")
    if whole:
        return [dict(block) for block in whole]
    if message.get("function_call"):
        raise _invalid("'function_call' is OpenAI's old form, without the id that Anthropic needs. Use 'tool_calls'.")
    said = _parts(message.get("content") or message.get("refusal"))
    thought: list[Block] = []
    if not any(block.get("type") in THINKING for block in said):
        thought = [dict(block) for block in message.get("thinking_blocks") or () if _is_signed(block)]
    called = {block.get("id") for block in said}
    calls = [_call(plain(call)) for call in message.get("tool_calls") or ()]
    return [*thought, *said, *(call for call in calls if call["id"] not in called)]


def _is_signed(block: Mapping[str, Any]) -> bool:
    return bool(block.get("signature")) or block.get("type") == "redacted_thinking"


def _call(call: Mapping[str, Any]) -> Block:
    function = call.get("function")
    if not isinstance(function, Mapping) or not function.get("name"):
        raise _invalid(f"The tool call {call.get('id')!r} has no function with a name; Anthropic knows no other calls.")
    block = {
        "type": "tool_use",
        "id": _identity(call.get("id")),
        "name": function["name"],
        "input": arguments_of(function),
    }
    return _marked(block, call)


def _result(message: Message) -> list[Block]:
    """A tool's message."""
    identity = message.get("tool_call_id")
    if not identity:
        raise _invalid("A message of the role 'tool' needs the tool_call_id of the call that it answers.")
    content = message.get("content")
    block: Block = {
        "type": "tool_result",
        "tool_use_id": _identity(identity),
        "content": content if isinstance(content, str) else _parts(content),
    }
    if "is_error" in message:
        block["is_error"] = message["is_error"]
    return [block]


def _identity(value: Any) -> str:
    return NOT_IN_ID.sub("_", str(value or ""))


def _parts(content: Any) -> list[Block]:
    """Content as blocks. A part of a type that OpenAI does not know is Anthropic's own."""
    if isinstance(content, str):
        content = (content,)
    blocks = []
    for part in content or ():
        part = {"type": "text", "text": part} if isinstance(part, str) else plain(part)
        read = PARTS.get(part.get("type"), dict)
        block = read(part)
        if block:
            blocks.append(block)
    return blocks


def _text(part: Mapping[str, Any]) -> Block | None:
    """None for a text that is empty or white space: the vendor refuses both."""
    text = part.get("text")
    if not isinstance(text, str):
        raise _invalid(f"A text part's text is {text!r}; it must be a string.")
    if not text or text.isspace():
        return None
    block = {"type": "text", "text": text}
    if part.get("citations"):
        block["citations"] = part["citations"]
    return _marked(block, part)


def _refusal(part: Mapping[str, Any]) -> Block | None:
    return _text({**part, "text": part.get("refusal")})


def _image(part: Mapping[str, Any]) -> Block:
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, Mapping) else image
    if not isinstance(url, str):
        raise _invalid(f"An image_url part has no URL: {str(image)[:100]!r}.")
    if url.startswith(("https://", "http://")):
        return _marked({"type": "image", "source": {"type": "url", "url": url}}, part)
    if not url.startswith("data:"):
        raise _invalid(f"An image must be an http(s) or data URL, not {url[:60]!r}.")
    return _marked(_attachment(*data_url(url)), part)


def _file(part: Mapping[str, Any]) -> Block:
    file = part.get("file")
    file = file if isinstance(file, Mapping) else {}
    name, data, identity = file.get("filename"), file.get("file_data"), file.get("file_id")
    media_type = file.get("format") or mimetypes.guess_type(name or "")[0] or "application/pdf"
    where = data or identity
    if not isinstance(where, str):
        raise _invalid("A file part needs file_data (base64, or a data or http(s) URL) or file_id.")
    if where.startswith(("https://", "http://")):
        block = _referred(media_type, {"type": "url", "url": where})
    elif not data:
        block = _referred(media_type, {"type": "file", "file_id": where})
    elif where.startswith("data:"):
        block = _attachment(*data_url(where))
    else:
        block = _attachment(media_type, where)
    if name and block["type"] == "document":
        block["title"] = name
    return _marked(block, part)


def _referred(media_type: str, source: Block) -> Block:
    return {"type": "image" if media_type.startswith("image/") else "document", "source": source}


def _attachment(media_type: str, data: str) -> Block:
    """A block for base64 data, by its media type."""
    if media_type.startswith("image/"):
        return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}
    if media_type == "application/pdf":
        return {"type": "document", "source": {"type": "base64", "media_type": media_type, "data": data}}
    if media_type.startswith("text/") or media_type in TEXT_LIKE:
        text = _decoded(data).decode("utf-8", "replace")
        return {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": text}}
    raise _invalid(f"Anthropic takes images, PDFs and texts, not {media_type!r}.")


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data)
    except (binascii.Error, ValueError) as error:
        raise _invalid(f"A file's data is not base64: {error}.") from None


def _refused(part: Mapping[str, Any]) -> Block:
    raise _invalid(f"Anthropic takes no {part['type']!r} parts. Send text, images or documents.")


def _marked(block: Block, part: Mapping[str, Any]) -> Block:
    """`block` with the caller's cache mark, if the part had one."""
    if part.get("cache_control"):
        block["cache_control"] = part["cache_control"]
    return block


def _invalid(message: str) -> Exception:
    from ..core.api_errors import invalid

    return invalid(message, provider="anthropic")


ROLES = {"developer": "system", "tool": "user"}
"""Whose turn a message belongs to, where that is not its role."""

READERS: dict[str, Callable[[Message], list[Block]]] = {
    "system": _said,
    "developer": _said,
    "user": _said,
    "assistant": _answered,
    "tool": _result,
}

PARTS: dict[Any, Callable[[Mapping[str, Any]], Block | None]] = {
    "text": _text,
    "refusal": _refusal,
    "image_url": _image,
    "file": _file,
    "input_audio": _refused,
    "audio": _refused,
    "audio_url": _refused,
    "video_url": _refused,
}
