"""Arguments that their owner changes while a call is under way."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import rejoinder


async def test_answer_is_stored_for_the_messages_as_they_were(tmp_path: Path) -> None:
    cache, echo = rejoinder.Cache.disk(cache_path_root=tmp_path), rejoinder.Echo(latency=0.02)
    messages: list[dict[str, Any]] = [{"role": "user", "content": "question A"}]
    call = asyncio.create_task(rejoinder.acompletion("echo/m", messages, cache=cache, client=echo))
    await asyncio.sleep(0)
    messages[0]["content"] = "question B"
    assert (await call).choices[0].message.content == "question A"
    again = await rejoinder.acompletion("echo/m", [{"role": "user", "content": "question A"}], cache=cache, client=echo)
    assert (again.choices[0].message.content, again.cache) == ("question A", True)


def test_clients_of_different_servers_do_not_share_answers() -> None:
    import openai

    cache = rejoinder.Cache.memory()
    keys = {
        cache.explain(
            "openai/m",
            [{"role": "user", "content": "Hi"}],
            client=openai.OpenAI(api_key="k", base_url=f"http://127.0.0.1:{port}/v1"),
        ).key
        for port in (1, 2)
    }
    assert len(keys) == 2
