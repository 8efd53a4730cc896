"""OpenAI's messages as Gemini's: a system instruction, and turns made of parts.

https://ai.google.dev/api/caching#Content (read 2026-11)

What is decided here, because the two protocols differ:

- System and developer messages become `systemInstruction`, wherever they stand. Without any other message they are what
  the user says: the vendor answers nobody else.
- Neighbours of one role become one turn.
- Thought signatures travel as in Google's own OpenAI layer: `extra_content.google.thought_signature`, on a tool call or
  on the message. Thoughts themselves (`reasoning_content`) are not sent back: they may be another vendor's.
- `content_parts`, where an answer has it, is that answer in the vendor's own parts, and is sent instead of the rest.
- From Gemini 3 on the vendor refuses tool calls without a signature. Those of another vendor's answer get the one that
  it names for this case.
- A tool's result is the object that its text holds as JSON; any other text is {"output": text}, or {"error": text} with
  `is_error`.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson

from ..core.types import Message
from .given import arguments_of, data_url, plain

Part = dict[str, Any]

WITH_LEVELS = re.compile(r"gemini-([3-9]|[1-9]\d)|gemini-[a-z-]+-latest$")
NO_SIGNATURE = "skip_thought_signature_validator"
"""https://ai.google.dev/gemini-api/docs/thought-signatures#faqs (2026-11)"""

AUDIO_TYPES = {"mp3": "audio/mpeg", "pcm16": "audio/pcm"}
"""By OpenAI's name of the format, where it is not audio/<format>."""


def has_levels(model: str) -> bool:
    """Whether a model thinks in levels and signs its thoughts (Gemini 3 and later); else it has a thinking budget."""
    return bool(WITH_LEVELS.search(model))


def conversation(messages: Iterable[Message], model: str) -> tuple[list[Part], list[dict[str, Any]]]:
    """The parts of the system instruction, and the turns. Raises `InvalidRequest` for what the protocol cannot say."""
    system: list[Part] = []
    contents: list[dict[str, Any]] = []
    said = Sayer(has_levels(model))
    for message in messages:
        role, parts = said.turn(message)
        if role == "system":
            system += parts
        elif contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts
        elif parts:
            contents.append({"role": role, "parts": parts})
    if not contents:
        contents, system = [{"role": "user", "parts": system}], []
    if not contents[0]["parts"]:
        raise invalid("The messages say nothing: each is empty.", model)
    return system, contents


class Sayer:
    """Says one message after the other. It remembers the names of the tools that were called: results have only ids."""

    def __init__(self, is_signed: bool) -> None:
        self._is_signed = is_signed
        """Whether tool calls need a signature, and results may hold images."""
        self._names: dict[str, str] = {}

    def turn(self, message: Message) -> tuple[str, list[Part]]:
        """Whose turn a message belongs to, and its parts."""
        role = message["role"]
        if role in ("system", "developer"):
            return "system", _parts(message.get("content"))
        if role == "user":
            return "user", _parts(message.get("content"))
        if role == "assistant":
            return "model", self._answer(message)
        if role in ("tool", "function"):
            return "user", self._result(message)
        raise invalid(f"Gemini has no messages of the role {role!r}. For a tool's result use 'tool'.")

    def _answer(self, message: Message) -> list[Part]:
        calls = [_call(plain(call)) for call in message.get("tool_calls") or ()]
        if message.get("function_call"):
            calls.append(_call({"function": message["function_call"]}))
        for part in calls:
            call = part["functionCall"]
            self._names[call.get("id") or ""] = call["name"]
        whole = message.get("content_parts")
        if whole:
            return [dict(part) for part in whole]
        if self._is_signed and calls and not any("thoughtSignature" in part for part in calls):
            calls[0]["thoughtSignature"] = NO_SIGNATURE
        said = _parts(message.get("content") or message.get("refusal"))
        signature = _signature(message)
        if signature:
            said = [*said[:-1], {**(said[-1] if said else {"text": ""}), "thoughtSignature": signature}]
        images = [_signed(_media(plain(image)), plain(image)) for image in message.get("images") or ()]
        return [*said, *images, *calls]

    def _result(self, message: Message) -> list[Part]:
        """A tool's message. What is no text in it goes into the response, on models that take that, else beside it."""
        identity = message.get("tool_call_id") or ""
        name = self._names.get(identity) or message.get("name")
        if not name:
            raise invalid(f"The tool result {identity!r} answers no call in the messages before it, and has no 'name'.")
        parts = _parts(message.get("content"))
        text = "".join(part["text"] for part in parts if "text" in part)
        media = [part for part in parts if "text" not in part]
        response: Part = {"name": name, "response": _response(text, is_error=bool(message.get("is_error")))}
        if identity:
            response["id"] = identity
        if media and self._is_signed:
            response["parts"], media = media, []
        return [{"functionResponse": response}, *media]


def _response(text: str, *, is_error: bool) -> Any:
    if is_error:
        return {"error": text}
    if text.lstrip().startswith("{"):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return {"output": text}
    return {"output": text}


def _call(call: Mapping[str, Any]) -> Part:
    function = call.get("function")
    if not isinstance(function, Mapping) or not function.get("name"):
        raise invalid(f"The tool call {call.get('id')!r} has no function with a name; Gemini knows no other calls.")
    said = {"name": function["name"], "args": arguments_of(function)}
    if call.get("id"):
        said["id"] = call["id"]
    return _signed({"functionCall": said}, call)


def _signature(holder: Mapping[str, Any]) -> str | None:
    """The thought signature of a message, call or image; also where litellm keeps that of a call."""
    extra = holder.get("extra_content")
    places = (extra.get("google") if isinstance(extra, Mapping) else None, holder.get("provider_specific_fields"))
    for place in places:
        signature = place.get("thought_signature") if isinstance(place, Mapping) else None
        if isinstance(signature, str) and signature:
            return signature
    return None


def _signed(part: Part, holder: Mapping[str, Any]) -> Part:
    signature = _signature(holder)
    return {**part, "thoughtSignature": signature} if signature else part


def _parts(content: Any) -> list[Part]:
    """Content as parts. A part without a `type` is the vendor's own."""
    if isinstance(content, str):
        content = (content,)
    parts = []
    for item in content or ():
        given = {"type": "text", "text": item} if isinstance(item, str) else plain(item)
        if "type" not in given:
            parts.append(dict(given))
            continue
        read = PARTS.get(given["type"])
        if read is None:
            raise invalid(f"Gemini takes no {given['type']!r} parts. Send text, images, audio, video or files.")
        part = read(given)
        if part:
            parts.append(part)
    return parts


def _text(part: Mapping[str, Any]) -> Part | None:
    """None for an empty text: the vendor refuses it."""
    text = part.get("refusal") if part["type"] == "refusal" else part.get("text")
    if not isinstance(text, str):
        raise invalid(f"A text part's text is {text!r}; it must be a string.")
    return {"text": text} if text else None


def _media(part: Mapping[str, Any]) -> Part:
    """An image or a video, by its URL."""
    name = part["type"]
    given = part.get(name)
    fields = given if isinstance(given, Mapping) else {"url": given}
    url = fields.get("url")
    if not isinstance(url, str):
        raise invalid(f"The part of the type {name!r} has no URL: {str(given)[:100]!r}.")
    usual = "video/mp4" if name == "video_url" else "image/jpeg"
    return _located(url, fields.get("format") or fields.get("mime_type"), usual)


def _located(url: str, media_type: str | None, usual: str | None) -> Part:
    """What is at `url`. An uploaded file has a media type already; of others the vendor wants to be told."""
    if url.startswith("data:"):
        media_type, data = data_url(url)
        return {"inlineData": {"mimeType": media_type, "data": data}}
    place = urlsplit(url)
    if place.scheme not in ("http", "https", "gs"):
        raise invalid(f"A part must be a data, http(s) or gs URL, not {url[:60]!r}.")
    is_uploaded = place.netloc.endswith("googleapis.com") and "/files/" in place.path
    media_type = media_type or mimetypes.guess_type(place.path)[0] or (None if is_uploaded else usual)
    file = {"fileUri": url}
    return {"fileData": {"mimeType": media_type, **file} if media_type else file}


def _audio(part: Mapping[str, Any]) -> Part:
    audio = part.get("input_audio")
    if not isinstance(audio, Mapping) or not isinstance(audio.get("data"), str):
        raise invalid("An input_audio part needs data (base64) and a format.")
    form = str(audio.get("format") or "wav")
    return {"inlineData": {"mimeType": AUDIO_TYPES.get(form, f"audio/{form}"), "data": audio["data"]}}


def _file(part: Mapping[str, Any]) -> Part:
    file = part.get("file")
    file = file if isinstance(file, Mapping) else {}
    media_type = file.get("format") or mimetypes.guess_type(file.get("filename") or "")[0]
    where = file.get("file_data") or file.get("file_id")
    if not isinstance(where, str):
        raise invalid("A file part needs file_data (base64, or a data, http(s) or gs URL) or file_id (a URI).")
    if where.startswith(("data:", "http://", "https://", "gs://")):
        return _located(where, media_type, None)
    if not file.get("file_data"):
        raise invalid(f"Gemini knows files by their URI, not by an id such as {where[:60]!r}.")
    return {"inlineData": {"mimeType": media_type or "application/pdf", "data": where}}


def invalid(message: str, model: str | None = None) -> Exception:
    from ..core import api_errors

    return api_errors.invalid(message, provider="gemini", model=model)


PARTS = {
    "text": _text,
    "input_text": _text,
    "output_text": _text,
    "refusal": _text,
    "image_url": _media,
    "video_url": _media,
    "input_audio": _audio,
    "file": _file,
}
