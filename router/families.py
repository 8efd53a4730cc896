"""What models whose names begin alike can do: features, and how many tokens they read and write.

Price lists do not say this. It is kept short on purpose: what is not here is not known, which is not the same as no.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Family(NamedTuple):
    """Models whose names have something in common."""

    pattern: re.Pattern[str]
    window: int | None
    """Tokens that a prompt may have, where the price list does not say; None: not known."""
    output: int | None
    """Tokens that an answer may have."""
    features: frozenset[str]
    """Letters of `LETTERS` for what it can do. The rest it cannot; with "?" the rest is not known."""


LETTERS = {
    "f": "supports_function_calling",
    "p": "supports_parallel_function_calling",
    "r": "supports_reasoning",
    "s": "supports_response_schema",
    "v": "supports_vision",
}


def _family(pattern: str, window: int | None, output: int | None, features: str) -> Family:
    return Family(re.compile(rf"(?:^|[/.@~:])(?:{pattern})"), window, output, frozenset(features))


# By the vendors' model pages (platform.openai.com/docs/models, platform.claude.com/docs/en/about-claude/models,
# ai.google.dev/gemini-api/docs/models, …) as they were known in 2026-11; not all were read again.
FAMILIES = (
    _family(r"(ft:)?gpt-4o(-mini)?(-(search|\d)|$)|chatgpt-4o", 128_000, 16_384, "fpsv"),
    _family(r"(ft:)?gpt-4\.1", 1_047_576, 32_768, "fpsv"),
    _family(r"gpt-4\.5", 128_000, 16_384, "fpsv"),
    _family(r"gpt-5[.\d]*-chat", 128_000, 16_384, "fpsv"),
    _family(r"gpt-5", 400_000, 128_000, "fprsv"),
    _family(r"gpt-oss", 131_072, 131_072, "fr?"),
    _family(r"gpt-4-(turbo|1106|0125)", 128_000, 4_096, "fpv"),
    _family(r"gpt-4(-0[36]\d\d|$)", 8_192, 8_192, "fp"),
    _family(r"gpt-3\.5-turbo(-\d|$)", 16_385, 4_096, "fp"),
    _family(r"o1-mini", 128_000, 65_536, "r"),
    _family(r"o3-mini", 200_000, 100_000, "frs"),
    _family(r"o1(-\d|$)|o1-pro|o3(-\d|-pro|$)|o4-mini", 200_000, 100_000, "frsv"),
    _family(r"claude-(2|instant)", None, 4_096, ""),
    _family(r"claude-3-(opus|sonnet|haiku)", 200_000, 4_096, "fpv"),
    _family(r"claude-3[-.]5", 200_000, 8_192, "fpv"),
    _family(r"claude-3[-.]7", 200_000, 64_000, "fprv"),
    _family(r"claude-(opus-4([-.]1|-2|@|$)|4-opus)", 200_000, 32_000, "fprv"),
    _family(r"claude-(sonnet-4(-2|@|$)|4-sonnet)", 200_000, 64_000, "fprv"),
    _family(r"claude-(opus|sonnet|haiku)-4[-.]5", 200_000, 64_000, "fprsv"),
    _family(r"claude-opus-4[-.][6-9]", None, 128_000, "fprsv"),
    _family(r"claude-[a-z]+-(4[-.][6-9]|[5-9])", None, None, "fprsv"),
    _family(r"gemini-(1\.5|2\.0)", 1_048_576, 8_192, "fpsv"),
    _family(r"gemini-(2\.5|3)(?!.*(image|tts|live|audio))", 1_048_576, 65_536, "fprsv"),
    _family(r"deepseek-(chat|v3)", None, None, "fp?"),
    _family(r"deepseek-(reasoner|r1)", None, None, "r?"),
    _family(r"grok-[34]", None, None, "fps?"),
    _family(r"(mistral-(large|medium|small)|ministral|codestral|devstral)", None, None, "fps?"),
    _family(r"magistral", None, None, "fpr?"),
    _family(r"pixtral", None, None, "fpsv"),
)
"""The first that fits a name counts. A feature is one of the model's; whether each host that serves it has it too is
not known."""


def family_of(name: str) -> Family | None:
    """The family that a vendor's name of a model belongs to."""
    return next((family for family in FAMILIES if family.pattern.search(name.lower())), None)
