"""A client object that holds configurations, a cache seed and two usage summaries, as AutoGen's `OpenAIWrapper` does.

Which cache a call uses, in this order: its own `cache=`; the innermost `with Cache…` block; the `cache` of the
configuration, of the client; the `cache_seed` of the call, of the configuration, of the client; else seed 41. A seed of
None switches caching off, but not a cache given to the call. Caches are never closed by a call: they belong to whoever
made them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from ..caching.blocks import innermost
from ..caching.cache import Cache
from ..core.errors import ConfigurationError, WrongType, suggestion
from ..providers import table
from .api import acompletion, completion
from .cost import completion_cost

Config = dict[str, Any]

DEFAULT_SEED = 41
"""The seed that AutoGen's clients use unless told otherwise."""

PROVIDER_OF_TYPE = {"open_ai": "openai", "google": "gemini", "together": "together_ai", "client": "openai"}
OWN = frozenset(
    {"agent", "allow_format_str_template", "api_type", "cache", "cache_path_root", "cache_seed", "config_list"}
    | {"context", "filter_func", "price", "tags"}
)
"""Words of a configuration that are not arguments of a completion."""
MODES = ("actual", "total", "both")
"""Which summaries there are to print."""

_seeded: dict[tuple[str, str], Cache] = {}
_making = threading.Lock()


def seeded(seed: object, root: str | Path) -> Cache:
    """The cache on disk of one seed below `root`, one per process."""
    place = (str(Path(root).absolute()), str(seed))
    with _making:
        if place not in _seeded:
            _seeded[place] = Cache.disk(cache_seed=str(seed), cache_path_root=root)
        return _seeded[place]


class Client:
    """Tries its configurations in turn until one answers.

    >>> import rejoinder
    >>> client = rejoinder.Client(config_list=[{"model": "echo/m"}], cache_seed=None)
    >>> client.create(messages=[{"role": "user", "content": "Hello"}]).choices[0].message.content
    'Hello'

    Each configuration has a "model" and any arguments of `completion`; `base` is what all share, and `create`'s own
    arguments count before both.
    """

    def __init__(self, config_list: Sequence[Mapping[str, Any]] | None = None, **base: Any) -> None:
        if config_list is not None and not config_list:
            raise ConfigurationError("config_list is empty: give at least one {'model': …}.")
        self.configs = [{**base, **config} for config in config_list or [{}]]
        for config in self.configs:
            checked(config)
        self._lock = threading.Lock()
        self.total_usage_summary: dict[str, Any] | None = None
        """Tokens and cost by model, answers from the cache included."""
        self.actual_usage_summary: dict[str, Any] | None = None
        """The same without them: what was paid for."""

    def create(self, messages: Any, *, cache: Cache | Literal[False] | None = None, **config: Any) -> Any:
        """One answer. Raises the last configuration's error if none has answered."""
        last: Exception | None = None
        for full, model, arguments in self._candidates(config, cache):
            try:
                answer = completion(model, filled(messages, full), **arguments)
            except Exception as error:
                last = error
                continue
            if self._took(answer, model, full):
                return answer
        raise last if last is not None else ConfigurationError("filter_func has refused every answer.")

    async def acreate(self, messages: Any, *, cache: Cache | Literal[False] | None = None, **config: Any) -> Any:
        """`create` for a running event loop."""
        last: Exception | None = None
        for full, model, arguments in self._candidates(config, cache):
            try:
                answer = await acompletion(model, filled(messages, full), **arguments)
            except Exception as error:
                last = error
                continue
            if self._took(answer, model, full):
                return answer
        raise last if last is not None else ConfigurationError("filter_func has refused every answer.")

    def _candidates(
        self, config: Mapping[str, Any], cache: Cache | Literal[False] | None
    ) -> Iterable[tuple[Config, str, Config]]:
        """Each configuration with the call's own words, its model, and the arguments of the completion."""
        checked(config if cache is None or cache is False else {**config, "cache": cache})
        for own in self.configs:
            full = {**own, **config}
            if not full.get("model"):
                raise ConfigurationError("No model: give model= to create, or {'model': …} in config_list.")
            arguments = {name: value for name, value in full.items() if name not in OWN and name != "model"}
            chosen = cache if cache is not None else self._cache(full)
            arguments["cache"] = chosen if chosen is not None else False
            yield full, model_of(full), arguments

    def _cache(self, full: Mapping[str, Any]) -> Cache | None:
        around = innermost()
        if around is not None:
            return around
        if full.get("cache") is not None:
            return cast(Cache, full["cache"])
        seed = full.get("cache_seed", DEFAULT_SEED)
        return None if seed is None else seeded(seed, full.get("cache_path_root") or ".cache")

    def _took(self, answer: Any, model: str, full: Config) -> bool:
        """Count an answer, and say whether the caller's filter takes it."""
        if getattr(answer, "usage", None) is not None:
            price = full.get("price")
            cost = completion_cost(answer, model) or 0.0 if price is None else cost_at(price, answer.usage)
            with self._lock:
                self.total_usage_summary = counted(self.total_usage_summary, answer, cost)
                if not answer.cache:
                    self.actual_usage_summary = counted(self.actual_usage_summary, answer, cost)
        keep = full.get("filter_func")
        return keep is None or bool(keep(context=full.get("context"), response=answer))

    def clear_usage_summary(self) -> None:
        """Start both summaries anew."""
        self.total_usage_summary = self.actual_usage_summary = None

    def usage_summary(self, mode: str | Sequence[str] = ("actual", "total")) -> str:
        """Both summaries ("both", or `["actual", "total"]`), or one, as text."""
        modes = [mode] if isinstance(mode, str) else list(mode)
        for name in modes:
            if name not in MODES:
                raise ConfigurationError(f"mode={name!r}: there are {', '.join(MODES)}.{suggestion(str(name), MODES)}")
        if "both" in modes:
            modes = ["actual", "total"]
        if self.total_usage_summary is None:
            return "No usage: nothing has been asked yet."
        lines = []
        if "total" in modes:
            lines += summary_lines("Usage summary including cached usage:", self.total_usage_summary)
        if "actual" in modes:
            if self.actual_usage_summary is None:
                lines.append("No actual cost incurred: every answer came from the cache.")
            else:
                lines += summary_lines("Usage summary excluding cached usage:", self.actual_usage_summary)
        return "\n".join(lines)

    def print_usage_summary(self, mode: str | Sequence[str] = ("actual", "total")) -> None:
        """Print `usage_summary`."""
        print(self.usage_summary(mode))

    @staticmethod
    def extract_text_or_completion_object(answer: Any) -> list[Any]:
        """The text of each choice; of one that calls tools or a function, its message."""
        messages = [choice.message for choice in answer.choices]
        return [
            message if message.tool_calls or message.function_call else message.content or "" for message in messages
        ]

    def __repr__(self) -> str:
        models = ", ".join(str(config.get("model")) for config in self.configs)
        return f"<Client {models} cache_seed={self.configs[0].get('cache_seed', DEFAULT_SEED)!r}>"


OpenAIWrapper = Client


def checked(config: Mapping[str, Any]) -> None:
    """Raises `WrongType` for a cache or a price that is none: where it is given, and not where it is first used."""
    cache, price = config.get("cache"), config.get("price")
    if cache is not None and not isinstance(cache, Cache):
        raise WrongType(f"cache={cache!r} of a client must be a Cache, not {type(cache).__name__}.")
    pair = price if isinstance(price, (list, tuple)) else (price, price)
    if price is not None and (len(pair) != 2 or not all(isinstance(one, (int, float)) for one in pair)):
        raise WrongType(
            f"price={price!r} must be dollars for 1,000 tokens, of the prompt and of the answer: [0.01, 0.03]."
        )


def cost_at(price: Any, usage: Any) -> float:
    """What a usage costs at a price of the caller's own: dollars for 1,000 tokens, one number or (prompt, answer)."""
    asked, answered = price if isinstance(price, (list, tuple)) else (price, price)
    return float(usage.prompt_tokens * asked + usage.completion_tokens * answered) / 1000


def filled(messages: Any, full: Config) -> Any:
    """The messages with `context` put in: where a content is a function of it or, if the configuration has
    `allow_format_str_template`, a text with names in braces."""
    context = full.get("context")
    if not context:
        return messages

    def content(given: Any) -> Any:
        if isinstance(given, str):
            return given.format(**context) if full.get("allow_format_str_template") else given
        return given(context) if callable(given) else given

    return [{**message, "content": content(message.get("content"))} for message in messages]


def model_of(config: Mapping[str, Any]) -> str:
    """The model of a configuration as "provider/model"; `api_type` names the provider of a bare name."""
    model = str(config["model"])
    if config.get("api_type"):
        kind = str(config["api_type"]).lower()
        return f"{PROVIDER_OF_TYPE.get(kind, kind)}/{model}"
    if model.partition("/")[0] in table.PROVIDERS:
        return model
    known = any(model.startswith(prefixes) for prefixes, _ in table.BARE_NAMES)
    return model if known else f"openai/{model}"


def counted(summary: dict[str, Any] | None, answer: Any, cost: float) -> dict[str, Any]:
    """`summary` with one answer more."""
    summary = dict(summary or {"total_cost": 0.0})
    before = summary.get(answer.model, {"cost": 0.0, "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0})
    usage = answer.usage
    summary["total_cost"] += cost
    summary[answer.model] = {
        "cost": before["cost"] + cost,
        "prompt_tokens": before["prompt_tokens"] + usage.prompt_tokens,
        "completion_tokens": before["completion_tokens"] + usage.completion_tokens,
        "total_tokens": before["total_tokens"] + usage.total_tokens,
    }
    return summary


def summary_lines(title: str, summary: Mapping[str, Any]) -> list[str]:
    lines = [title, f"  total cost: ${summary['total_cost']:.5f}"]
    for model, used in summary.items():
        if model != "total_cost":
            lines.append(
                f"  {model}: ${used['cost']:.5f}, {used['total_tokens']:,} tokens "
                f"({used['prompt_tokens']:,} in, {used['completion_tokens']:,} out)"
            )
    return lines
