"""OpenAI's messages as those of Bedrock's Converse: system blocks, and turns made of blocks.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html (read 2026-11)

What is decided here, because the two protocols differ:

- System and developer messages become `system`, wherever they stand. Without any other message they are what the user
  says: the vendor answers nobody else.
- Neighbours of one role become one turn, so the results of parallel calls are together, as the vendor wants it.
- A mark for the prompt cache (`cache_control`) becomes a `cachePoint` block behind what is marked.
- Parts without a `type` are the vendor's own blocks ({"guardContent": …}) and pass as they are, and so does
  `converse_blocks` of an earlier answer, which then stands for the whole message.
- Reasoning goes back only with its signature: without one, models refuse it.
- Nothing is fetched: an image or a file is base64, a data URL, or an s3:// URL. Empty texts are left out; they are
  refused.
- Documents must have names that differ, without dots: "report.pdf" is sent as "report", the next one as "report 2", one
  without a name as "Document 1".
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..core.types import Message
from .given import arguments_of, data_url, plain

Block = dict[str, Any]

NOT_IN_ID = re.compile(r"[^a-zA-Z0-9_.:-]")
NOT_IN_NAME = re.compile(r"[^a-zA-Z0-9()\[\]-]+")
LONGEST_NAME = 180
"""200 are allowed, with what tells it from others."""

IMAGES = frozenset({"png", "jpeg", "gif", "webp"})
DOCUMENTS = {
    "application/msword": "doc",
    "application/pdf": "pdf",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "text/csv": "csv",
    "text/html": "html",
    "text/markdown": "md",
    "text/plain": "txt",
}
"""Formats of documents, by media type. Other texts are "txt"."""

TEXT_LIKE = frozenset({"application/json", "application/xml", "application/yaml", "application/x-yaml"})
VIDEOS = {"video/3gpp": "three_gp", "video/quicktime": "mov", "video/x-matroska": "mkv", "video/x-ms-wmv": "wmv"}
"""Formats of videos, where it is not the second half of the media type. Those of `AUDIO` likewise."""
AUDIO = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "pcm16": "pcm", "x-m4a": "m4a"}


def conversation(messages: Iterable[Message]) -> tuple[list[Block], list[dict[str, Any]]]:
    """What to send as `system` and as `messages`. Raises `InvalidRequest` for what the protocol cannot say."""
    say = Sayer()
    system: list[Block] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        role, blocks = say.turn(message)
        if role == "system":
            system += blocks
        elif turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if not turns:
        turns, system = [{"role": "user", "content": system}], []
    if not turns[0]["content"]:
        raise invalid("The messages say nothing: each is empty.")
    if turns[-1]["role"] == "assistant":
        _trim_prefill(turns[-1]["content"])
    return system, turns


def _trim_prefill(blocks: list[Block]) -> None:
    """A last assistant's turn is continued, and refused if it ends in white space."""
    if "text" in blocks[-1]:
        blocks[-1] = {**blocks[-1], "text": str(blocks[-1]["text"]).rstrip()}


class Sayer:
    """Says one message after the other. It remembers the names of documents: they must differ."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def turn(self, message: Message) -> tuple[str, list[Block]]:
        """Whose turn a message belongs to, and its blocks."""
        role = message["role"]
        if role in ("system", "developer"):
            blocks = self._parts(message.get("content"))
            role = "system"
        elif role == "user":
            blocks = self._parts(message.get("content"))
        elif role == "assistant":
            blocks = self._answer(message)
        elif role == "tool":
            blocks, role = self._result(message), "user"
        else:
            raise invalid(f"Bedrock has no messages of the role {role!r}. For a tool's result use 'tool'.")
        return role, [*blocks, *_point(message)] if blocks else blocks

    def _answer(self, message: Message) -> list[Block]:
        """An assistant's message: its reasoning, what it said, the tools it called."""
        whole = message.get("converse_blocks")
        if whole:
            return [dict(block) for block in whole]
        if message.get("function_call"):
            raise invalid("'function_call' is OpenAI's old form, without the id that Bedrock needs. Use 'tool_calls'.")
        thought = [block for given in message.get("thinking_blocks") or () if (block := _reasoning(given))]
        said = self._parts(message.get("content") or message.get("refusal"))
        calls = [block for call in message.get("tool_calls") or () for block in _call(plain(call))]
        return [*thought, *said, *calls]

    def _result(self, message: Message) -> list[Block]:
        """A tool's message."""
        identity = message.get("tool_call_id")
        if not identity:
            raise invalid("A message of the role 'tool' needs the tool_call_id of the call that it answers.")
        result = {"toolUseId": _identity(identity), "content": self._parts(message.get("content"))}
        if "is_error" in message:
            result["status"] = "error" if message["is_error"] else "success"
        return [{"toolResult": result}]

    def _parts(self, content: Any) -> list[Block]:
        """Content as blocks, each mark behind its own."""
        if isinstance(content, str):
            content = (content,)
        blocks: list[Block] = []
        for given in content or ():
            part = {"type": "text", "text": given} if isinstance(given, str) else plain(given)
            block = self._part(part)
            if block:
                blocks += [block, *_point(part)]
        return blocks

    def _part(self, part: Mapping[str, Any]) -> Block | None:
        kind = part.get("type")
        if kind is None:
            return {name: value for name, value in part.items() if name != "cache_control"}
        if kind in ("text", "refusal"):
            return _text(part)
        if kind == "file":
            return self._file(part)
        read = MEDIA.get(kind)
        if read is None:
            raise invalid(f"Bedrock takes no {kind!r} parts. Send text, images, audio, video or files.")
        return read(part)

    def _file(self, part: Mapping[str, Any]) -> Block:
        given = part.get("file")
        file = given if isinstance(given, Mapping) else {}
        name, where = file.get("filename") or "", file.get("file_data") or file.get("file_id")
        if not isinstance(where, str):
            raise invalid("A file part needs file_data (base64, or a data or s3 URL).")
        if not file.get("file_data") and not where.startswith("s3://"):
            raise invalid(f"Bedrock knows no uploaded files such as {where[:60]!r}; give file_data, or an s3 URL.")
        media_type = file.get("format") or mimetypes.guess_type(name or where[:500])[0] or "application/pdf"
        media_type, source = _source(where, media_type)
        if media_type.startswith("image/"):
            return {"image": {"format": _image_format(media_type), "source": source}}
        return {"document": {"format": _document_format(media_type), "name": self._named(name), "source": source}}

    def _named(self, filename: str) -> str:
        """A name for a document, as the vendor takes it, that no other has."""
        stem = filename.rpartition(".")[0] or filename
        stem = NOT_IN_NAME.sub(" ", stem).strip()[:LONGEST_NAME]
        name, number = stem or "Document 1", 1
        while name in self._names:
            number += 1
            name = f"{stem or 'Document'} {number}"
        self._names.add(name)
        return name


def point(mark: Any) -> Block:
    """A cache point, for a mark in Anthropic's form."""
    ttl = mark.get("ttl") if isinstance(mark, Mapping) else None
    return {"cachePoint": {"type": "default", "ttl": ttl} if ttl else {"type": "default"}}


def _point(holder: Mapping[str, Any]) -> list[Block]:
    mark = holder.get("cache_control")
    return [point(mark)] if mark else []


def _text(part: Mapping[str, Any]) -> Block | None:
    text = part.get(part["type"])
    if not isinstance(text, str):
        raise invalid(f"A text part's text is {text!r}; it must be a string.")
    return {"text": text} if text and not text.isspace() else None


def _reasoning(given: Any) -> Block | None:
    """A block of reasoning; None for one that nobody signed."""
    block = plain(given)
    if block.get("type") == "redacted_thinking":
        return {"reasoningContent": {"redactedContent": block.get("data")}}
    if not block.get("signature"):
        return None
    return {"reasoningContent": {"reasoningText": {"text": block.get("thinking"), "signature": block["signature"]}}}


def _call(call: Mapping[str, Any]) -> list[Block]:
    function = call.get("function")
    if not isinstance(function, Mapping) or not function.get("name"):
        raise invalid(f"The tool call {call.get('id')!r} has no function with a name; Bedrock knows no other calls.")
    use = {"toolUseId": _identity(call.get("id")), "name": function["name"], "input": arguments_of(function)}
    return [{"toolUse": use}, *_point(call)]


def _identity(value: Any) -> str:
    return NOT_IN_ID.sub("_", str(value or ""))[:64]


def _image(part: Mapping[str, Any]) -> Block:
    media_type, source = _source(*_url(part, "image/jpeg"))
    return {"image": {"format": _image_format(media_type), "source": source}}


def _video(part: Mapping[str, Any]) -> Block:
    media_type, source = _source(*_url(part, "video/mp4"))
    return {"video": {"format": VIDEOS.get(media_type, media_type.partition("/")[2]), "source": source}}


def _audio(part: Mapping[str, Any]) -> Block:
    audio = part.get("input_audio")
    if not isinstance(audio, Mapping) or not isinstance(audio.get("data"), str):
        raise invalid("An input_audio part needs data (base64) and a format.")
    form = str(audio.get("format") or "wav")
    return {"audio": {"format": AUDIO.get(form, form), "source": {"bytes": audio["data"]}}}


MEDIA = {"image_url": _image, "video_url": _video, "input_audio": _audio}


def _url(part: Mapping[str, Any], usual: str) -> tuple[str, str]:
    """The URL of an image or a video, and its media type as far as the URL or the caller says."""
    given = part.get(part["type"])
    fields = given if isinstance(given, Mapping) else {"url": given}
    url = fields.get("url")
    if not isinstance(url, str):
        raise invalid(f"The part of the type {part['type']!r} has no URL: {str(given)[:100]!r}.")
    if not url.startswith(("data:", "s3://")):
        raise invalid(f"Bedrock fetches nothing but s3:// URLs. Send {url[:60]!r} as a data URL.")
    said = None if url.startswith("data:") else mimetypes.guess_type(url)[0]
    return url, fields.get("format") or said or usual


def _source(where: str, media_type: str) -> tuple[str, Block]:
    """The media type and the `source` of base64 data, a data URL or an s3 URL."""
    if where.startswith("s3://"):
        return media_type, {"s3Location": {"uri": where}}
    if where.startswith(("http://", "https://")):
        raise invalid(f"Bedrock fetches nothing but s3:// URLs. Send {where[:60]!r} as data.")
    if not where.startswith("data:"):
        return media_type, {"bytes": where}
    said, data = data_url(where)
    return said, {"bytes": data}


def _image_format(media_type: str) -> str:
    form = media_type.partition("/")[2]
    form = "jpeg" if form == "jpg" else form
    if form not in IMAGES:
        raise invalid(f"Bedrock takes images as {', '.join(sorted(IMAGES))}, not as {media_type!r}.")
    return form


def _document_format(media_type: str) -> str:
    form = DOCUMENTS.get(media_type)
    if form is None and (media_type.startswith("text/") or media_type in TEXT_LIKE):
        form = "txt"
    if form is None:
        raise invalid(f"Bedrock takes documents as {', '.join(sorted(DOCUMENTS.values()))}, not as {media_type!r}.")
    return form


def invalid(message: str, model: str | None = None) -> Exception:
    from ..core import api_errors

    return api_errors.invalid(message, provider="bedrock", model=model)
