"""A vendor that sends elsewhere: nothing is followed, since headers with keys would be."""

from __future__ import annotations

import pytest

import rejoinder
from tests.fixtures.upstream import Upstream

MESSAGES = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
async def test_redirect_is_an_error_that_names_the_place(is_async: bool, stream: bool) -> None:
    with Upstream() as elsewhere, Upstream() as upstream:
        upstream.configure(status=307, headers={"location": elsewhere.url})
        call = {
            "model": "openai/m",
            "messages": MESSAGES,
            "api_base": upstream.url,
            "api_key": "sk-x",
            "stream": stream,
        }

        async def ask() -> None:
            if is_async:
                await rejoinder.acompletion(**call, num_retries=0)
            else:
                rejoinder.completion(**call, num_retries=0)

        with pytest.raises(rejoinder.APIStatusError, match=f"redirects to '{elsewhere.url}'"):
            await ask()
        assert elsewhere.calls == 0
