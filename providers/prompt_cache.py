"""Vendors' prompt caches: where the marks go that ask for them. Pure functions on the body of a request.

A caller wishes for it with `cache_prompt="auto"` or True, and `cache_ttl="5m"` or "1h"; else nothing is added.
The places are those of Inspect's algorithm as of 2026 (inspect_ai 0.3.206 and later), for models of Anthropic:

- the last block of the system text, and the last tool;
- the whole request (`cache_control` at the top level, which marks the last block), or the last block itself where a
  host refuses that;
- the second block from the end that can be marked: when the last one changes, the vendor, which looks 20 blocks back
  for what it knows, finds this.

That is four at most, as many as the vendor allows. Marks that the caller has set replace all of these.
https://platform.claude.com/docs/en/build-with-claude/prompt-caching
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..core.types import Request
from .base import Provider

Block = dict[str, Any]

WISHES = frozenset({"cache_prompt", "cache_ttl"})
"""Arguments of a call that say what is wished, and are never sent as they are."""

LIFETIMES = ("5m", "1h")
MOST = 4
"""Marks that one request may have."""

OBEYED = frozenset({"top_level", "blocks", "points"})
"""Of `Provider.prompt_cache`: those to whom a wish is passed on. The others cache by themselves, or not at all."""

UNMARKABLE = frozenset({"thinking", "redacted_thinking"})
WITHOUT_CACHE = re.compile(r"claude-(2|instant|3-sonnet)|claude-v2")
"""Models that have no prompt cache."""

CLAUDE, NOVA = re.compile("claude"), re.compile(r"\bnova-")
MARK, POINT = "cache_control", "cachePoint"


class Wish(NamedTuple):
    """What to put at each place."""

    ttl: str | None = None

    @property
    def mark(self) -> dict[str, str]:
        return {"type": "ephemeral", "ttl": self.ttl} if self.ttl else {"type": "ephemeral"}

    @property
    def point(self) -> dict[str, Any]:
        return {POINT: {"type": "default", "ttl": self.ttl} if self.ttl else {"type": "default"}}


def wish_of(parameters: Mapping[str, Any], model: str) -> Wish | None:
    """What the caller wishes; None: nothing is to be added. Raises `InvalidRequest` for a wish that has no meaning.

    `cache_ttl` alone is a wish too: who says how long wants it at all.
    """
    if WISHES.isdisjoint(parameters):
        return None
    wanted, ttl = parameters.get("cache_prompt"), parameters.get("cache_ttl")
    if wanted not in (None, "auto", True, False):
        raise _invalid(f"cache_prompt={wanted!r} must be 'auto', True or False.", model)
    if ttl is not None and ttl not in LIFETIMES:
        raise _invalid(f"cache_ttl={ttl!r} must be '5m' or '1h'.", model)
    if wanted is False or WITHOUT_CACHE.search(model):
        return None
    return Wish(ttl)


def fitted_wish(request: Request, provider: Provider) -> Request:
    """The request without its wish, if the provider's codec has no use for it. A wrong one raises `InvalidRequest`."""
    is_obeyed = provider.prompt_cache in OBEYED and request.endpoint == "chat"
    if WISHES.isdisjoint(request.parameters) or is_obeyed:
        return request
    wish_of(request.parameters, request.model)
    kept = {name: value for name, value in request.parameters.items() if name not in WISHES}
    return request._replace(parameters=kept)


# Anthropic's Messages


def mark_messages(body: dict[str, Any], wish: Wish, *, top_level: bool) -> dict[str, Any]:
    """A body of the Messages protocol with marks; the same if it has some already."""
    if count_marks(body):
        return body
    marked = dict(body)
    if body.get("system"):
        marked["system"] = _last_marked(body["system"], wish)
    if body.get("tools"):
        marked["tools"] = _tool_marked(body["tools"], wish)
    turns = [dict(turn) for turn in body["messages"]]
    places = _markable(turns)
    if top_level:
        marked[MARK] = wish.mark
        next(places, None)
    else:
        _mark_at(turns, next(places, None), wish)
    _mark_at(turns, next(places, None), wish)
    return {**marked, "messages": turns}


def count_marks(body: Mapping[str, Any]) -> int:
    """How many marks a body has: on itself, its tools, its messages, their blocks and what those hold."""
    marks = int(bool(body.get(MARK)))
    held: list[Any] = [body.get("tools"), body.get("system"), body.get("messages")]
    while held:
        content = held.pop()
        for block in content if isinstance(content, (list, tuple)) else ():
            if isinstance(block, Mapping):
                marks += bool(block.get(MARK))
                held.append(block.get("content"))
    return marks


def check_marks(body: Mapping[str, Any], model: str) -> None:
    """Raise `InvalidRequest` if there are more marks than the vendor takes."""
    marks = count_marks(body)
    if marks > MOST:
        raise _invalid(f"The request has {marks} marks (cache_control); Anthropic takes {MOST} at most.", model)


def _markable(turns: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, int]]:
    """Places (turn, block) that can be marked, from the end. A turn that is a bare text has one."""
    for turn in range(len(turns) - 1, -1, -1):
        content = turns[turn]["content"]
        if turns[turn]["role"] == "system":
            continue
        if isinstance(content, str):
            yield turn, 0
            continue
        for place in range(len(content) - 1, -1, -1):
            if content[place].get("type") not in UNMARKABLE:
                yield turn, place


def _mark_at(turns: list[dict[str, Any]], place: tuple[int, int] | None, wish: Wish) -> None:
    if place is None:
        return
    turn, index = place
    blocks = _as_blocks(turns[turn]["content"])
    blocks[index] = {**blocks[index], MARK: wish.mark}
    turns[turn]["content"] = blocks


def _as_blocks(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _last_marked(content: Any, wish: Wish) -> list[Any]:
    blocks = _as_blocks(content)
    blocks[-1] = {**blocks[-1], MARK: wish.mark}
    return blocks


def _tool_marked(tools: Sequence[Any], wish: Wish) -> list[Any]:
    """The last tool that is there from the start: one whose loading is deferred may have no mark."""
    marked = [tool if isinstance(tool, Mapping) else tool.model_dump(mode="json", exclude_none=True) for tool in tools]
    for place in range(len(marked) - 1, -1, -1):
        if not marked[place].get("defer_loading"):
            marked[place] = {**marked[place], MARK: wish.mark}
            break
    return marked


# Models of Anthropic's behind OpenAI's chat


def mark_chat(body: dict[str, Any], wish: Wish) -> dict[str, Any]:
    """A body of OpenAI's chat with marks on its parts, as OpenRouter takes them; the same if it has some already.

    Only for models of Anthropic's; that of a tool stands beside its `function`.
    https://openrouter.ai/docs/features/prompt-caching
    """
    if not CLAUDE.search(str(body.get("model"))) or count_marks(body):
        return body
    messages = [message if isinstance(message, dict) else dict(message) for message in body["messages"]]
    system = [place for place, message in enumerate(messages) if message.get("role") in ("system", "developer")]
    others = (place for place in range(len(messages) - 1, -1, -1) if place not in system)
    spots = ((place, part) for place in others for part in _texts(messages[place]))
    wanted = [next(spots, None), next(spots, None)]
    if system:
        wanted.append(next(((system[-1], part) for part in _texts(messages[system[-1]])), None))
    for spot in wanted:
        if spot is not None:
            place, part = spot
            parts = _as_blocks(messages[place]["content"])
            parts[part] = {**parts[part], MARK: wish.mark}
            messages[place] = {**messages[place], "content": parts}
    marked = {**body, "messages": messages}
    if body.get("tools"):
        marked["tools"] = _tool_marked(body["tools"], wish)
    return marked


def _texts(message: Mapping[str, Any]) -> list[int]:
    """Places of a message's text parts, from the end. Others cannot be marked everywhere."""
    content = message.get("content")
    if isinstance(content, str):
        return [0] if content else []
    parts = content or ()
    return [place for place in range(len(parts) - 1, -1, -1) if _is_text(parts[place])]


def _is_text(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and bool(part.get("text"))


# Bedrock's Converse


def add_points(body: dict[str, Any], wish: Wish | None, model: str) -> dict[str, Any]:
    """A body of Bedrock's Converse with `cachePoint` blocks; the same if it has some already.

    They end the system text (or, where there is none, the tools, but not for Nova) and, of two messages or more, the
    last but one and the last: three of the four that are allowed. Only for models of Anthropic's and Nova.
    `wish` is what `wish_of(request.parameters, request.model)` gives.
    https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
    """
    is_nova = NOVA.search(model) is not None
    if wish is None or not (is_nova or CLAUDE.search(model)) or _has_points(body):
        return body
    pointed = dict(body)
    tools = body.get("toolConfig") or {}
    if body.get("system"):
        pointed["system"] = [*body["system"], wish.point]
    elif tools.get("tools") and not is_nova:
        pointed["toolConfig"] = {**tools, "tools": [*tools["tools"], wish.point]}
    messages = list(body["messages"])
    for place in (-2, -1) if len(messages) > 1 else ():
        messages[place] = {**messages[place], "content": [*messages[place]["content"], wish.point]}
    return {**pointed, "messages": messages}


def _has_points(body: Mapping[str, Any]) -> bool:
    tools = (body.get("toolConfig") or {}).get("tools") or ()
    contents = [block for message in body["messages"] for block in message["content"]]
    return any(POINT in block for block in [*(body.get("system") or ()), *tools, *contents])


def _invalid(message: str, model: str) -> Exception:
    from ..core.api_errors import invalid

    return invalid(message, model=model)
