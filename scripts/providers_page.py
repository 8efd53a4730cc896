"""Writes docs/providers.md from the table of providers: `python scripts/providers_page.py`."""

from __future__ import annotations

from pathlib import Path

import rejoinder
from rejoinder.providers.listing import ProviderInfo

PAGE = Path(__file__).resolve().parents[1] / "docs" / "providers.md"

HEAD = """\
# Providers

<!-- Written by scripts/providers_page.py from providers/table.py. Change the table, then run it again. -->

What stands before the slash of a model: `completion("groq/llama-3.3-70b-versatile", …)`. The same as a list of rows:
`rejoinder.providers()`; on the command line: `rejoinder providers`. A vendor that is missing is a row away: see
[add-a-provider.md](add-a-provider.md); and any server that speaks OpenAI's protocol can be called at once as
`openai_compatible/<model>` with `api_base=`.

- **Key**: the environment variables that may hold it; the first that is set counts. `api_key=` comes before them.
- **Base URL**: where it answers. `api_base=` and the variable in brackets come before it. Bedrock's follows from the
  region; see [bedrock.md](bedrock.md).
- **Prompt cache**: *automatic* is done by the vendor unasked; *marks* is asked for with `cache_prompt=` (see
  [prompt-caching.md](prompt-caching.md)); where there is nothing, nothing is known.
- **Parameters**: *any* are passed on as they are; else unknown ones are refused with an error that names them. After
  *not*: what OpenAI's chat has and this vendor has not; after *also*: what it has beside.

| provider | key | base URL | prompt cache | parameters | page |
|---|---|---|---|---|---|
"""

ENDPOINTS = """
## Endpoints

What can be called beside chat (`completion`), by protocol. A vendor that speaks OpenAI's protocol has the path, and
may still answer that it lacks the endpoint.

"""


def page() -> str:
    """The whole page."""
    rows = rejoinder.providers()
    return HEAD + "".join(map(line, rows)) + ENDPOINTS + endpoints(rows)


def line(row: ProviderInfo) -> str:
    """One provider."""
    names = f"`{row.name}`" + (f" ({', '.join(row.other_names)})" if row.other_names else "")
    key = ", ".join(f"`{name}`" for name in row.key_env) + ("" if row.needs_key else " (not needed)")
    base = f"`{row.base_url}`" if row.base_url else "say it"
    base += f" [`{row.base_env[0]}`]" if row.base_env else ""
    parameters = "any" if row.takes_any_parameter else "OpenAI's" if row.protocol == "openai" else "its protocol's"
    parameters += f"; not {', '.join(sorted(row.refused))}" if row.refused else ""
    parameters += f"; also {', '.join(sorted(row.extra))}" if row.extra else ""
    docs = f"[page]({row.docs})" if row.docs else ""
    return f"| {names} | {key.strip()} | {base} | {row.prompt_cache} | {parameters} | {docs} |\n"


def endpoints(rows: list[ProviderInfo]) -> str:
    """Which providers have which endpoints."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        groups.setdefault(row.endpoints, []).append(row.name)
    lines = []
    for names, served in sorted(groups.items(), key=lambda group: (-len(group[1]), group[1])):
        beside = ", ".join(name for name in names if name != "chat") or "none"
        lines.append(f"- {beside}: {', '.join(served)}\n")
    return "".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
