"""Which tool call a piece of a stream belongs to, where a server does not number its calls as OpenAI does.

Callers put the pieces together by their `index`. There are servers that leave it out, that say 0 for each of several
calls (Gemini's OpenAI layer: https://github.com/NousResearch/hermes-agent/issues/62940; older vLLM and SGLang:
https://github.com/InternLM/lmdeploy/issues/3412), and that give one call a new id with each piece (seen in
https://github.com/vllm-project/vllm/pull/23522, all of 2026-11).
"""

from __future__ import annotations

import re
from typing import Any

import orjson

Json = dict[str, Any]

CALLS = re.compile(rb'"tool_calls"\s*:\s*\[\s*\{')


class Call:
    """A call, as far as it has come."""

    def __init__(self, index: int, given: Any, piece: Json) -> None:
        self.index, self.given = index, given
        """Its place as we tell it, and as the server does."""
        self.id, self.name, self.arguments = piece.get("id") or None, "", ""

    def take(self, function: Json) -> None:
        self.name = function.get("name") or self.name
        text = function.get("arguments")
        if text:
            self.arguments += text if isinstance(text, str) else orjson.dumps(text).decode()

    @property
    def is_complete(self) -> bool:
        try:
            orjson.loads(self.arguments)
        except orjson.JSONDecodeError:
            return False
        return True


class CallPlaces:
    """The calls of one stream."""

    def __init__(self) -> None:
        self._calls: dict[Any, list[Call]] = {}
        """Of each choice, by its index."""

    def settle(self, chunk: bytes) -> bytes:
        """The chunk with each piece at its call's place; the bytes themselves where it was right."""
        if not CALLS.search(chunk):
            return chunk
        try:
            data = orjson.loads(chunk)
            settled = [self._settle(choice) for choice in data["choices"]]
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
            return chunk  # what it is instead, others will say
        return orjson.dumps(data) if any(settled) else chunk

    def _settle(self, choice: Json) -> bool:
        """Puts the pieces of one choice right. Says whether there was something to do."""
        pieces = (choice.get("delta") or {}).get("tool_calls") or ()
        calls = self._calls.setdefault(choice.get("index"), []) if pieces else []
        changed = False
        for piece in pieces:
            function = piece.get("function") or {}
            call = self._call_of(piece, function, calls)
            if call is None:
                call = Call(_free(piece.get("index"), calls), piece.get("index"), piece)
                calls.append(call)
            call.take(function)
            if piece.get("index") != call.index:
                piece["index"], changed = call.index, True
            if piece.get("id") and call.id and piece["id"] != call.id:
                piece["id"], changed = call.id, True
            call.id = call.id or piece.get("id")
        return changed

    def _call_of(self, piece: Json, function: Json, calls: list[Call]) -> Call | None:
        """The call that a piece goes on with; None if it begins one."""
        given, identity, name = piece.get("index"), piece.get("id"), function.get("name")
        if identity and (known := next((call for call in calls if call.id == identity), None)):
            return known
        if given is None and identity:
            return None
        last = next((call for call in reversed(calls) if given is None or call.given == given), None)
        if last is None or not (name or identity):
            return last
        if identity and last.id is None:
            return last if not last.is_complete else None
        begins = last.is_complete and (identity or function.get("arguments"))
        return None if begins or (name and last.name and name != last.name) else last


def _free(index: Any, calls: list[Call]) -> int:
    """The place of a new call: the server's, if no other call has it."""
    taken = {call.index for call in calls}
    if type(index) is int and index not in taken:
        return index
    return max(taken, default=-1) + 1
