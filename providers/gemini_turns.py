"""What a candidate of Gemini's says, collected part by part: for whole answers and for streams alike.

https://ai.google.dev/api/generate-content#candidate (read 2026-11). What is decided, `gemini_answers.py` tells.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any

import orjson

from .annotations import of_gemini

Json = dict[str, Any]

FINISH_REASONS = {
    "STOP": "stop",
    "FINISH_REASON_UNSPECIFIED": "stop",
    "FUNCTION_CALL": "stop",  # imitations of the vendor say so; as with STOP, the calls make it "tool_calls"
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    **dict.fromkeys(
        (
            "BLOCKLIST",
            "ESCALATION",
            "IMAGE_PROHIBITED_CONTENT",
            "IMAGE_RECITATION",
            "IMAGE_SAFETY",
            "LANGUAGE",
            "MODEL_ARMOR",
            "PROHIBITED_CONTENT",
            "PUP_LIMITED_DISABLED",
            "RECITATION",
            "SAFETY",
            "SPII",
        ),
        "content_filter",
    ),
}

NUMBERED_REASONS = ("FINISH_REASON_UNSPECIFIED", "STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "OTHER")
"""By number, as answers to `$alt=json;enum-encoding=int` have them; from 6 on Vertex AI counts differently."""

BESIDE = {
    "avgLogprobs": "avg_logprobs",
    "citationMetadata": "citation_metadata",
    "continuationToken": "continuation_token",
    "finishMessage": "finish_message",
    "groundingMetadata": "grounding_metadata",
    "safetyRatings": "safety_ratings",
    "urlContextMetadata": "url_context_metadata",
}
"""Fields of a candidate that are kept as they are, and their names in a choice."""

MERGEABLE = frozenset({"text", "thought"})
PART_FIELDS = frozenset({"functionCall", "inlineData", "text", "thought", "thoughtSignature"})
THOUGHT, TEXT, IMAGE, CALL = range(4)
"""In which order OpenAI's shape gives parts back."""

PATH_STEP = re.compile(r"""\.([^.\[\]]+)|\[(\d+)\]|\['((?:[^'\\]|\\.)*)'\]|\["((?:[^"\\]|\\.)*)"\]""")
VALUES = ("stringValue", "numberValue", "boolValue", "nullValue")
LONGEST_NAME = 24
"""Of an answer's id in a call's id: OpenAI takes no more than 40 characters for the whole."""


def text_of(value: Any) -> str:
    """A text, or none. Raises `TypeError` for anything else."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value or ""


def count_of(value: Any) -> int:
    """A number of tokens. Raises `TypeError` for anything else."""
    if value is not None and type(value) is not int:
        raise TypeError(f"{value!r} is no count")
    return value or 0


class Turns(dict[int, "Turn"]):
    """The candidates of one answer, by their index, and what is said of them together."""

    def __init__(self) -> None:
        super().__init__()
        self.usage: Json = {}
        self.feedback: Json = {}

    def take(self, answer: Mapping[str, Any]) -> list[tuple[int, Json, Any]]:
        """Collects an answer, or a piece of one. Gives what it adds: a choice's index, a delta, its logprobs."""
        self.usage.update(answer.get("usageMetadata") or {})
        self.feedback.update(answer.get("promptFeedback") or {})
        name = text_of(answer.get("responseId"))[:LONGEST_NAME]
        added = []
        for place, candidate in enumerate(answer.get("candidates") or ()):
            index = count_of(candidate.get("index", place))
            turn = self.get(index) or self.setdefault(index, Turn(f"call_{name}_{index}" if name else f"call_{index}"))
            added += [(index, *addition) for addition in turn.take(candidate)]
        if not self and self.feedback.get("blockReason"):
            turn = self[0] = Turn("call_0")
            added += [(0, *addition) for addition in turn.block(self.feedback)]
        return added

    @property
    def finished(self) -> bool:
        return bool(self) and all(turn.reason for turn in self.values())


class Turn:
    """What one candidate says, collected part by part."""

    def __init__(self, name: str) -> None:
        self._name = name
        """How the ids begin of calls that have none."""
        self.reason: str | None = None
        self._beside: Json = {}
        self._logprobs: list[Json] = []
        self._parts: list[Json] = []
        self._said: dict[str, list[str]] = {}
        """The pieces of its texts, by their field of the message."""
        self._calls: list[Json] = []
        self._images: list[Json] = []
        self._signature: str | None = None
        self._rank = THOUGHT
        self._fits = True
        """Whether OpenAI's shape loses nothing that the vendor wants back."""
        self._open: Json | None = None
        """A call whose arguments are still coming."""

    def take(self, candidate: Mapping[str, Any]) -> list[tuple[Json, Any]]:
        """Collects a candidate, or a piece of one. Gives the deltas that it adds, and their logprobs."""
        parts = (candidate.get("content") or {}).get("parts") or ()
        deltas = [delta for part in parts if (delta := self._take_part(part))]
        for field, name in BESIDE.items():
            held, new = self._beside.get(name), candidate.get(field)
            if new:  # of the grounding, a stream may tell the pages and what rests on them apart
                self._beside[name] = {**held, **new} if isinstance(held, dict) and isinstance(new, dict) else new
        reason = candidate.get("finishReason")
        if reason is not None:
            known = type(reason) is int and 0 <= reason < len(NUMBERED_REASONS)
            self.reason = NUMBERED_REASONS[reason] if known else str(reason)
        tokens = logprobs_of(candidate.get("logprobsResult") or {})
        self._logprobs += tokens
        if tokens and not deltas:
            deltas = [{}]
        return [(delta, {"content": tokens} if tokens and not place else None) for place, delta in enumerate(deltas)]

    def block(self, feedback: Mapping[str, Any]) -> list[tuple[Json, Any]]:
        """The prompt was blocked, and nobody speaks."""
        self.reason = text_of(feedback["blockReason"])
        refusal = text_of(feedback.get("blockReasonMessage")) or f"The prompt was blocked: {self.reason}."
        self._said["refusal"] = [refusal]
        return [({"refusal": refusal}, None)]

    def message(self) -> Json:
        """The whole message."""
        closing = self.closing()
        texts = {name: "".join(pieces) for name, pieces in self._said.items()}
        message: Json = {"role": "assistant", "content": None, **texts, **closing}
        if self._calls:
            message["tool_calls"] = [
                {name: value for name, value in call.items() if name != "index"} for call in self._calls
            ]
        if self._images:
            message["images"] = self._images
        return message

    def closing(self) -> Json:
        """What can be said of the message only at its end."""
        delta: Json = {}
        if self._open is not None:
            delta.update(self._finish_call(self._open))
        if "content" not in self._said and not self._calls and "refusal" not in self._said:
            delta["content"] = ""
        if not self._fits:
            delta["content_parts"] = joined_texts(self._parts)
        elif self._signature:
            delta["extra_content"] = {"google": {"thought_signature": self._signature}}
        grounding = self._beside.get("grounding_metadata")
        if grounding and (notes := of_gemini(grounding, "".join(self._said.get("content", ())))):
            delta["annotations"] = notes
        return delta

    def ending(self) -> Json:
        """A choice's fields on why it ends, and what is kept beside."""
        reason = self.reason
        word = FINISH_REASONS.get(reason or "STOP", (reason or "").lower())
        if "refusal" in self._said:
            word = "content_filter"
        elif word == "stop" and self._calls:
            word = "tool_calls"
        ending = {"finish_reason": word, "native_finish_reason": reason, **self._beside}
        return {**ending, "logprobs": {"content": self._logprobs}} if self._logprobs else ending

    def _take_part(self, part: Json) -> Json:
        """Collects a part and gives the delta that it is; an empty one if it has no place in OpenAI's shape."""
        signature = text_of(part.get("thoughtSignature"))
        if "functionCall" in part:
            return self._take_call(part, signature)
        if "text" in part:
            return self._take_text(part, signature)
        data = part.get("inlineData") or {}
        if text_of(data.get("mimeType")).startswith("image/") and not part.get("thought"):
            self._keep(part, IMAGE)
            url = f"data:{data['mimeType']};base64,{text_of(data['data'])}"
            image = signed({"type": "image_url", "image_url": {"url": url}}, signature)
            self._images.append(image)
            return {"images": [image]}
        if part:
            self._keep(part, None)
        return {}

    def _keep(self, part: Json, rank: int | None) -> None:
        """Notes the part, and whether it still is where OpenAI's shape would put it."""
        self._fits = self._fits and rank is not None and rank >= self._rank and part.keys() <= PART_FIELDS
        self._rank = self._rank if rank is None else rank
        self._parts.append(part)

    def _take_text(self, part: Json, signature: str) -> Json:
        text, thought = text_of(part["text"]), bool(part.get("thought"))
        if not text and not signature:
            return {}
        self._keep(part, THOUGHT if thought else TEXT)
        if signature:
            self._fits = self._fits and not thought and self._signature is None
            self._signature = signature
        if not text:
            return {}
        name = "reasoning_content" if thought else "content"
        self._said.setdefault(name, []).append(text)
        return {name: text}

    def _take_call(self, part: Json, signature: str) -> Json:
        """A call, whole; or the beginning, a piece or the end of one (Vertex AI's `streamFunctionCallArguments`)."""
        piece = part["functionCall"]
        if piece.get("name"):
            delta = self._finish_call(self._open) if self._open is not None else {}
            args = piece.get("args")
            call = {**piece, "name": text_of(piece["name"]), "args": {} if args is None else args}
            call["id"] = text_of(piece.get("id")) or f"{self._name}_{len(self._calls)}"
            kept = {**part, "functionCall": call}
            self._open = kept
        elif self._open is not None:
            delta, call = {}, self._open["functionCall"]
        else:
            raise ValueError("a function call without a name continues none")
        for partial in piece.get("partialArgs") or ():
            set_at(call["args"], partial)
        if signature:
            self._open["thoughtSignature"] = signature
        if piece.get("willContinue"):
            return delta
        closed = self._finish_call(self._open)
        return {"tool_calls": [*delta.get("tool_calls", ()), *closed["tool_calls"]]}

    def _finish_call(self, part: Json) -> Json:
        """The call that is open has all its arguments."""
        self._open = None
        call = {name: value for name, value in part["functionCall"].items() if name in ("id", "name", "args")}
        if not isinstance(call["args"], dict):
            raise TypeError(f"{call['args']!r} is no object with arguments")
        self._keep({**part, "functionCall": call}, CALL)
        arguments = orjson.dumps(call["args"]).decode()
        said = {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": arguments}}
        said = signed({"index": len(self._calls), **said}, text_of(part.get("thoughtSignature")))
        self._calls.append(said)
        return {"tool_calls": [said]}


def joined_texts(parts: list[Json]) -> list[Json]:
    """`parts` with neighbouring texts of one kind, where none is signed, made one."""
    joined: list[Json] = []
    for _, group in itertools.groupby(parts, _kind):
        first, *rest = group
        joined.append({**first, "text": "".join(part["text"] for part in (first, *rest))} if rest else first)
    return joined


def _kind(part: Json) -> Any:
    """What parts that may be joined have in common; no other part has it."""
    return bool(part.get("thought")) if "text" in part and part.keys() <= MERGEABLE else id(part)


def signed(holder: Json, signature: str) -> Json:
    return {**holder, "extra_content": {"google": {"thought_signature": signature}}} if signature else holder


def set_at(arguments: Any, partial: Mapping[str, Any]) -> None:
    """Put a piece of an argument where its JSON path ($.places[0].name) says. Texts come in pieces, and are joined."""
    value = next((partial[name] for name in VALUES if name in partial), None)
    if "nullValue" in partial:
        value = None
    steps: list[Any] = [
        int(place) if place else name or quoted or double
        for name, place, quoted, double in PATH_STEP.findall(partial["jsonPath"])
    ]
    if not steps:
        raise ValueError(f"{partial['jsonPath']!r} is no path to an argument")
    holder = arguments
    for step, following in itertools.pairwise(steps):
        new: Any = [] if isinstance(following, int) else {}
        held = held_at(holder, step)
        if held is None:
            put_at(holder, step, new)
        holder = new if held is None else held
    held = held_at(holder, steps[-1])
    joined = isinstance(held, str) and isinstance(value, str)
    put_at(holder, steps[-1], held + value if joined else value)


def held_at(holder: Any, step: Any) -> Any:
    """What a list or an object has there; None where there is nothing yet."""
    if isinstance(step, int):
        return holder[step] if step < len(holder) else None
    return holder.get(step)


def put_at(holder: Any, step: Any, value: Any) -> None:
    """Put it there. A list grows by one at a time."""
    if isinstance(step, int) and step == len(holder):
        holder.append(value)
    else:
        holder[step] = value


def logprobs_of(result: Mapping[str, Any]) -> list[Json]:
    """The tokens and their probabilities, in OpenAI's form."""
    tops = [top.get("candidates") or () for top in result.get("topCandidates") or ()]
    tokens = []
    for place, chosen in enumerate(result.get("chosenCandidates") or ()):
        others = tops[place] if place < len(tops) else ()
        tokens.append({**token_of(chosen), "top_logprobs": [token_of(other) for other in others]})
    return tokens


def token_of(candidate: Mapping[str, Any]) -> Json:
    token = text_of(candidate.get("token"))
    return {"token": token, "logprob": float(candidate.get("logProbability") or 0.0), "bytes": list(token.encode())}
