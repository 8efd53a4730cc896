"""How Bedrock's models that read one text are asked: a conversation as a prompt, in the form that each was trained on.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html (its pages of Meta, Mistral AI, Amazon Titan,
Cohere Command, AI21 Jurassic-2, Anthropic's text completions and DeepSeek; read 2026-11). The forms of prompts are
https://www.llama.com/docs/model-cards-and-prompt-formats/, Mistral's `[INST]` and DeepSeek's own template.

A `Family` says how one of them is asked. How they answer is in `bedrock_choices.py`, which goes by the answer itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.types import Message
from .bedrock_messages import invalid
from .given import plain

Json = dict[str, Any]
Turns = list[tuple[str, str]]
"""Who speaks ("system", "user", "assistant"), and what is said."""

LISTS = frozenset({"stop", "stop_sequences", "stopSequences"})
"""Fields that are lists, where a caller may give one text."""


@dataclass(frozen=True, slots=True)
class Family:
    """Models that are asked alike."""

    prompt: Callable[[Turns], str]
    """The conversation as one text."""
    takes: Mapping[str, str]
    """Parameters, and the vendor's names for them."""
    text: str = "prompt"
    """The field that holds the prompt."""
    config: str = ""
    """The field that holds the parameters, if they are not beside the prompt."""
    when_streamed: Mapping[str, Any] | None = None
    always: Mapping[str, Any] | None = None

    def body(self, prompt: str, asked: Mapping[str, Any], *, stream: bool) -> Json:
        """What to send."""
        fields: Json = {}
        for name, theirs in self.takes.items():
            if name in asked:
                value = asked[name]
                fields[theirs] = [value] if theirs in LISTS and isinstance(value, str) else value
        if self.config:
            fields = {self.config: fields} if fields else {}
        return {self.text: prompt, **(self.always or {}), **fields, **((self.when_streamed or {}) if stream else {})}


def turns_of(messages: Iterable[Message]) -> Turns:
    """The conversation, each role's consecutive messages as one. Raises `InvalidRequest` for what is no text."""
    turns: Turns = []
    for message in messages:
        role = "system" if message["role"] == "developer" else message["role"]
        if role not in ("system", "user", "assistant") or message.get("tool_calls"):
            raise invalid("This model reads one text, and knows no tools there. Call it as 'bedrock/…', by Converse.")
        text = _text(message.get("content"))
        if turns and turns[-1][0] == role:
            text = f"{turns.pop()[1]}\n{text}"
        turns.append((role, text))
    return turns


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    parts = [{"type": "text", "text": part} if isinstance(part, str) else plain(part) for part in content]
    other = next((part.get("type") for part in parts if part.get("type") != "text"), None)
    if other is not None:
        raise invalid(f"This model reads one text, and takes no {other!r} parts. Call it as 'bedrock/…', by Converse.")
    return "\n".join(str(part.get("text") or "") for part in parts)


# The forms of prompts


def _headed(start: str, end: str, stop: str) -> Callable[[Turns], str]:
    """Meta's form since Llama 3: who speaks is between two marks, and each turn ends with a third."""

    def prompt(turns: Turns) -> str:
        said = "".join(f"{start}{role}{end}\n\n{text.strip()}{stop}" for role, text in turns)
        return f"<|begin_of_text|>{said}{start}assistant{end}\n\n"

    return prompt


def _llama2(turns: Turns) -> str:
    """`[INST]` around what the user says, the system's text inside the first of them."""
    said, system = "", ""
    for role, text in turns:
        if role == "system":
            system = f"<<SYS>>\n{text.strip()}\n<</SYS>>\n\n"
        elif role == "user":
            said += f"<s>[INST] {system}{text.strip()} [/INST]"
            system = ""
        else:
            said += f" {text.strip()} </s>"
    return said + (f"<s>[INST] {system}[/INST]" if system else "")


def _mistral(turns: Turns) -> str:
    """`[INST]` too; there is one `<s>`, and no place for a system's text but before the user's."""
    said, system = "<s>", ""
    for role, text in turns:
        if role == "system":
            system += f"{text}\n\n"
        elif role == "user":
            said += f"[INST] {system}{text} [/INST]"
            system = ""
        else:
            said += f" {text}</s>"
    return said + (f"[INST] {system.strip()} [/INST]" if system else "")


def _deepseek(turns: Turns) -> str:
    marks = {"system": "", "user": "<｜User｜>", "assistant": "<｜Assistant｜>"}
    ends = {"system": "", "user": "", "assistant": "<｜end▁of▁sentence｜>"}
    said = "".join(f"{marks[role]}{text}{ends[role]}" for role, text in turns)
    return f"<｜begin▁of▁sentence｜>{said}<｜Assistant｜>"


def _spoken(user: str, assistant: str, between: str = "\n", start: str = "") -> Callable[[Turns], str]:
    """`User: …` and `Bot: …`, each on lines of its own; the last is left to be written."""
    names = {"system": "", "user": f"{user}: ", "assistant": f"{assistant}: "}

    def prompt(turns: Turns) -> str:
        said = [f"{names[role]}{text}" for role, text in turns]
        return start + between.join([*said, f"{assistant}:"])

    return prompt


def _bare(turns: Turns) -> str:
    """A lone question as it is; more as a dialogue. These models have no form of their own for one."""
    return turns[0][1] if len(turns) == 1 else _spoken("User", "Chatbot")(turns)


# Who is asked how

SAMPLING = {"temperature": "temperature", "top_p": "top_p"}
LENGTH = {"max_completion_tokens": "max_tokens", "max_tokens": "max_tokens"}
LLAMA = {"max_completion_tokens": "max_gen_len", "max_tokens": "max_gen_len", "max_gen_len": "max_gen_len"}
IMAGES = {"images": "images"}

FAMILIES: Sequence[tuple[re.Pattern[str], Family]] = (
    (re.compile("llama-?2"), Family(_llama2, {**SAMPLING, **LLAMA})),
    (
        re.compile("llama-?4"),
        Family(_headed("<|header_start|>", "<|header_end|>", "<|eot|>"), {**SAMPLING, **LLAMA, **IMAGES}),
    ),
    (
        re.compile("llama"),
        Family(_headed("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), {**SAMPLING, **LLAMA, **IMAGES}),
    ),
    (
        re.compile("mistral-7b|mixtral-8x7b|mistral-small-2402"),
        Family(_mistral, {**SAMPLING, **LENGTH, "top_k": "top_k", "stop": "stop"}),
    ),
    (re.compile(r"deepseek[._]r1"), Family(_deepseek, {**SAMPLING, **LENGTH, "stop": "stop"})),
    (
        re.compile("titan-(text|tg1)"),
        Family(
            _spoken("User", "Bot"),
            {
                "max_completion_tokens": "maxTokenCount",
                "max_tokens": "maxTokenCount",
                "temperature": "temperature",
                "top_p": "topP",
                "stop": "stopSequences",
            },
            text="inputText",
            config="textGenerationConfig",
        ),
    ),
    (
        re.compile("command-(light-)?text"),
        Family(
            _bare,
            {
                **LENGTH,
                "temperature": "temperature",
                "top_p": "p",
                "top_k": "k",
                "p": "p",
                "k": "k",
                "n": "num_generations",
                "stop": "stop_sequences",
                "logit_bias": "logit_bias",
                "return_likelihoods": "return_likelihoods",
                "truncate": "truncate",
            },
            when_streamed={"stream": True},
        ),
    ),
    (
        re.compile(r"\bj2-"),
        Family(
            _bare,
            {
                "max_completion_tokens": "maxTokens",
                "max_tokens": "maxTokens",
                "temperature": "temperature",
                "top_p": "topP",
                "n": "numResults",
                "stop": "stopSequences",
                "countPenalty": "countPenalty",
                "frequencyPenalty": "frequencyPenalty",
                "presencePenalty": "presencePenalty",
            },
        ),
    ),
)
"""The first whose pattern is in the model's name. Names are AWS's, or the word before an ARN ("llama/arn:…")."""

CLAUDE_TEXT = Family(
    _spoken("Human", "Assistant", "\n\n", start="\n\n"),
    {
        "max_completion_tokens": "max_tokens_to_sample",
        "max_tokens": "max_tokens_to_sample",
        "temperature": "temperature",
        "top_p": "top_p",
        "top_k": "top_k",
        "stop": "stop_sequences",
    },
    always={"max_tokens_to_sample": 4_096},
)
"""Claude 2's older way, which must be told how much it may write. Only text completions go it."""


def family_of(model: str) -> Family | None:
    """How `model` is prompted; None if it takes messages."""
    return next((family for pattern, family in FAMILIES if pattern.search(model)), None)
