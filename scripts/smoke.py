"""A short proof that an installed rejoinder works: calls, streams, hits in memory and on disk, without any network."""

import asyncio
import sys
import tempfile

import rejoinder

MESSAGES = [{"role": "user", "content": "Hi"}]


def whole_and_streamed(cache: rejoinder.Cache) -> None:
    """One upstream call serves a whole answer, a replayed stream and a coroutine."""
    echo = rejoinder.Echo("Hello to you.")
    first = rejoinder.completion("echo/any", MESSAGES, client=echo, cache=cache)
    chunks = rejoinder.completion("echo/any", MESSAGES, client=echo, cache=cache, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    again = asyncio.run(rejoinder.acompletion("echo/any", MESSAGES, client=echo, cache=cache))
    assert (first.cache, again.cache, chunks.cache) == (False, True, True)
    assert text == first.choices[0].message.content == again["choices"][0]["message"]["content"] == "Hello to you."
    assert echo.calls == 1, echo.calls


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole_and_streamed(rejoinder.Cache(type="local"))
        disk = rejoinder.Cache.disk(cache_path_root=folder)
        whole_and_streamed(disk)
        disk.close()
    for name in rejoinder.__all__:
        getattr(rejoinder, name)
    print(f"rejoinder {rejoinder.__version__} works on Python {sys.version.split()[0]} from {rejoinder.__file__}")


if __name__ == "__main__":
    main()
