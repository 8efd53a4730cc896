"""Tokens are counted with the model's own encoding if it is at hand, else estimated, and the network is never asked."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rejoinder
from rejoinder.router import tokens

Json = dict[str, Any]

FILE = hashlib.sha1(b"https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken").hexdigest()
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells it.",
        "parameters": {
            "type": "object",
            "properties": {"unit": {"type": "string", "description": "Which.", "enum": ["C", "F"]}},
        },
    },
}


@pytest.fixture(autouse=True)
def _no_encodings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a machine that has never fetched one."""
    from tiktoken import registry

    monkeypatch.setattr(registry, "ENCODINGS", {})
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))


@pytest.fixture
def bytewise() -> None:
    """gpt-4o's encoding, but one in which each byte is a token: what it counts can be counted by hand."""
    import tiktoken
    from tiktoken import registry

    ranks = {bytes([value]): value for value in range(256)}
    registry.ENCODINGS["o200k_base"] = tiktoken.Encoding(
        "o200k_base", pat_str=r"(?s:.)", mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 256}
    )


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The vendor's files, as some packages bring them."""
    folders = [Path(os.environ["REJOINDER_TIKTOKEN_DIR"])] if "REJOINDER_TIKTOKEN_DIR" in os.environ else []
    for package, below in (
        ("litellm", "litellm_core_utils/tokenizers"),
        ("llama_index.core", "_static/tiktoken_cache"),
    ):
        if importlib.util.find_spec(package.partition(".")[0]) and (spec := importlib.util.find_spec(package)):
            folders.append(Path(str(spec.origin)).parent / below)
    found = [folder for folder in folders if (folder / FILE).exists()]
    if not found:
        pytest.skip("no tiktoken files here; name a folder that has them in REJOINDER_TIKTOKEN_DIR")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(found[0]))
    return


# The model's own encoding


@pytest.mark.usefixtures("bytewise")
def test_a_text_is_counted_with_the_model_s_own_encoding() -> None:
    count = rejoinder.token_counter("openai/gpt-4o", text="hello")
    assert (count, count.is_estimate) == (5, False)


@pytest.mark.usefixtures("bytewise")
def test_a_chat_has_openai_s_overhead() -> None:
    # A message: 3 + role + content, + 1 + name; and 3 for the answer to come.
    messages = [{"role": "user", "content": "hello", "name": "ann"}, {"role": "assistant", "content": [{"text": "hi"}]}]
    count = rejoinder.token_counter("gpt-4o", messages=messages)
    assert (count, count.is_estimate) == (3 + 4 + 5 + 1 + 3 + 3 + 9 + 2 + 3, False)


@pytest.mark.usefixtures("bytewise")
def test_tools_have_openai_s_overhead() -> None:
    plain = rejoinder.token_counter("gpt-4o", messages=[])
    count = rejoinder.token_counter("gpt-4o", messages=[], tools=[TOOL])
    function, one_property = len("weather:Tells it"), 3 + len("unit:string:Which")
    assert count - plain == 7 + function + 3 + one_property - 3 + 2 * (3 + 1) + 12
    assert not count.is_estimate


@pytest.mark.usefixtures("bytewise")
@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]},
        {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]},
    ],
)
def test_what_no_page_documents_makes_an_estimate(message: Json) -> None:
    assert rejoinder.token_counter("gpt-4o", messages=[message]).is_estimate


@pytest.mark.usefixtures("bytewise")
def test_overhead_of_a_model_that_no_page_names_is_an_estimate_but_its_text_is_not() -> None:
    assert rejoinder.token_counter("gpt-5", messages=[{"role": "user", "content": "Hi"}]).is_estimate
    assert not rejoinder.token_counter("gpt-5", text="Hi").is_estimate


@pytest.mark.usefixtures("bytewise")
def test_an_image_in_low_detail_counts_less() -> None:
    def image(detail: str) -> int:
        part = {"type": "image_url", "image_url": {"url": "https://x.example/a.png", "detail": detail}}
        return rejoinder.token_counter("gpt-4o", messages=[{"role": "user", "content": [part]}])

    assert image("high") - image("low") == 765 - 85


@pytest.mark.usefixtures("bytewise")
def test_encode_and_decode_are_the_model_s_own() -> None:
    ids = rejoinder.encode("gpt-4o", "né<|endoftext|>")
    assert list(ids) == list("né<|endoftext|>".encode())
    assert not ids.is_estimate
    assert rejoinder.decode("gpt-4o", ids) == "né<|endoftext|>"


@pytest.mark.usefixtures("real")
def test_counts_of_the_vendor_s_own_file() -> None:
    # https://github.com/openai/openai-cookbook/blob/main/examples/How_to_count_tokens_with_tiktoken.ipynb
    assert rejoinder.encode("gpt-4o", "tiktoken is great!") == [83, 8251, 2488, 382, 2212, 0]
    count = rejoinder.token_counter("gpt-4o", messages=[{"role": "user", "content": "tiktoken is great!"}])
    assert (count, count.is_estimate) == (3 + 1 + 6 + 3, False)


# Without it


@pytest.mark.parametrize("model", ["gpt-4o", "claude-sonnet-4-5", "vllm/some/model", ""])
def test_without_the_encoding_the_count_is_an_estimate(model: str) -> None:
    count = rejoinder.token_counter(model, text="The quick brown fox jumps over the lazy dog.")
    assert count.is_estimate
    assert 8 <= count <= 13


def test_a_count_is_a_number() -> None:
    count = rejoinder.token_counter("x", text="one two")
    assert isinstance(count, int)
    assert json.dumps({"n": count}) == '{"n": 2}'
    assert type(count + 1) is int


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_estimated_tokens_give_the_text_back(text: str) -> None:
    ids = rejoinder.encode("claude-sonnet-4-5", text)
    assert ids.is_estimate
    assert len(ids) == rejoinder.token_counter("claude-sonnet-4-5", text=text)
    decoded = rejoinder.decode("claude-sonnet-4-5", ids)
    assert decoded == text.encode("utf-8", "replace").decode()
    assert decoded.is_estimate


@pytest.mark.usefixtures("bytewise")
def test_estimated_tokens_are_read_as_such_once_the_encoding_is_there() -> None:
    estimated = rejoinder.encode("claude-sonnet-4-5", "hello")
    assert rejoinder.decode("gpt-4o", estimated) == "hello"


def test_own_tokens_without_the_encoding_are_marked_as_unreadable() -> None:
    decoded = rejoinder.decode("gpt-4o", [83, 8251])
    assert (decoded, decoded.is_estimate) == ("\ufffd\ufffd", True)


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"role": "user", "content": None},
        {"role": "user", "content": [None, 3, {"type": "file", "file": {"file_data": "x" * 10_000}}]},
        {"role": "assistant", "content": "\ud800", "tool_calls": [{}, {"function": None}]},
    ],
)
def test_odd_messages_are_counted(message: Json) -> None:
    assert 3 < rejoinder.token_counter("gpt-4o", messages=[message], tools=[{}, {"function": {}}]) < 3_000


def test_an_answer_counts_as_a_message() -> None:
    answer = rejoinder.completion("echo/x", [{"role": "user", "content": "Hi"}], client=rejoinder.Echo(["Hello."]))
    message = answer.choices[0].message
    said = {"role": "assistant", "content": "Hello."}
    assert rejoinder.token_counter("x", messages=[message]) == rejoinder.token_counter("x", messages=[said])


def test_a_damaged_file_is_neither_used_nor_deleted_nor_fetched_again(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"IQ== 0\n")
    assert rejoinder.token_counter("gpt-4o", text="!").is_estimate
    assert (tmp_path / FILE).read_bytes() == b"IQ== 0\n"


@pytest.mark.parametrize("folder", ["missing", ""])
def test_the_network_is_never_asked(folder: str, tmp_path: Path) -> None:
    program = """
import sys
def hook(event, args):
    if event.startswith("socket."):
        print(event); sys.stdout.flush(); import os; os._exit(3)
sys.addaudithook(hook)
import rejoinder
for model in ("gpt-4o", "gpt-4", "gpt2", "gpt-oss-120b", "davinci", "text-davinci-003", "claude-x"):
    assert rejoinder.token_counter(model, messages=[{"role": "user", "content": "Hi"}]).is_estimate
    assert rejoinder.decode(model, rejoinder.encode(model, "Hi")) == "Hi"
"""
    environment = {**os.environ, "TIKTOKEN_CACHE_DIR": folder and str(tmp_path / folder)}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout) == (0, ""), run.stderr


# Trimming

SYSTEM = {"role": "system", "content": "Be brief."}
CALL = {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]}
RESULT = {"role": "tool", "tool_call_id": "a", "content": "sunny"}


def said(text: str, role: str = "user") -> Json:
    return {"role": role, "content": text}


def room_for(*messages: Json) -> int:
    return rejoinder.token_counter("x", messages=list(messages))


def test_a_conversation_that_fits_is_not_trimmed() -> None:
    messages = [SYSTEM, said("one"), said("two", "assistant"), said("three")]
    assert rejoinder.trim_messages(messages, "x", max_tokens=room_for(*messages)) == messages


def test_the_oldest_go_first_and_the_system_message_stays() -> None:
    messages = [SYSTEM, said("one"), said("two", "assistant"), said("three")]
    trimmed = rejoinder.trim_messages(messages, "x", max_tokens=room_for(*messages) - 1)
    assert trimmed == [SYSTEM, *messages[2:]]


def test_the_newest_stays_even_if_it_does_not_fit() -> None:
    assert rejoinder.trim_messages([SYSTEM, said("one"), said("two")], "x", max_tokens=1) == [SYSTEM, said("two")]


def test_nothing_older_than_what_was_left_out_is_kept() -> None:
    messages = [said("a"), said("long " * 50), said("b")]
    assert rejoinder.trim_messages(messages, "x", max_tokens=room_for(said("a"), said("b"))) == [said("b")]


def test_a_result_is_never_without_its_call() -> None:
    messages = [said("one"), CALL, RESULT, {**RESULT, "tool_call_id": "b"}, said("two", "assistant"), said("three")]
    groups = [[0], [1, 2, 3], [4], [5]]
    for most in range(1, room_for(*messages) + 1):
        trimmed = rejoinder.trim_messages(messages, "x", max_tokens=most)
        assert trimmed in [[messages[i] for group in groups[start:] for i in group] for start in range(len(groups))]


def test_the_newest_result_keeps_its_call() -> None:
    assert rejoinder.trim_messages([said("one"), CALL, RESULT], "x", max_tokens=1) == [CALL, RESULT]


def test_without_a_number_the_model_s_window_counts() -> None:
    messages = [said("word " * 5_000), said("new")]
    assert rejoinder.trim_messages(messages, "openai/gpt-4") == messages
    assert rejoinder.trim_messages(messages, "openai/gpt-4", trim_ratio=0.5) == messages[1:]


def test_a_window_that_is_not_known_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(rejoinder.UnknownModel, match="register_model"):
        rejoinder.trim_messages([said("one")], "vllm/mine")


# Rebuilding


def chunks_of(**params: Any) -> list[Any]:
    stream = rejoinder.completion(
        "echo/x", [said("Hi")], client=rejoinder.Echo(["Hello there."]), stream=True, **params
    )
    return list(stream)


@pytest.mark.parametrize(
    "form", [lambda chunk: chunk, lambda chunk: chunk.model_dump(), lambda chunk: json.loads(chunk.model_dump_json())]
)
def test_chunks_make_the_answer(form: Any) -> None:
    answer = rejoinder.stream_chunk_builder([form(chunk) for chunk in chunks_of()])
    assert answer is not None
    assert answer.choices[0].message.content == "Hello there."
    assert answer.choices[0].finish_reason == "stop"


def test_usage_in_the_chunks_is_the_answer_s() -> None:
    chunks = chunks_of(stream_options={"include_usage": True})
    answer = rejoinder.stream_chunk_builder(chunks, messages=[said("Hi")])
    assert answer is not None
    assert answer.usage == chunks[-1].usage


def test_usage_that_is_missing_is_counted_and_marked() -> None:
    chunks = [chunk for chunk in chunks_of() if chunk.usage is None]
    answer = rejoinder.stream_chunk_builder(chunks, messages=[said("Hi")])
    assert answer is not None
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == rejoinder.token_counter("x", messages=[said("Hi")])
    assert answer.usage.completion_tokens == rejoinder.token_counter("x", text="Hello there.")
    assert answer.usage["is_estimate"] is True
    assert rejoinder.stream_chunk_builder(chunks).usage is None  # type: ignore[union-attr]


def test_no_chunks_make_no_answer() -> None:
    assert rejoinder.stream_chunk_builder([]) is None


def test_hashes_are_those_that_tiktoken_wants() -> None:
    source = Path(str(importlib.util.find_spec("tiktoken_ext.openai_public").origin)).read_text()  # type: ignore[union-attr]
    for file, digest in tokens.FILES.values():
        assert tokens.SOURCE.format(file) in source
        assert digest in source
