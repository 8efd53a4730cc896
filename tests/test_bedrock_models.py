"""Bedrock's models in their makers' protocols, by InvokeModel: what each is asked, whole and streamed answers, damage.

Shapes of answers are those of AWS's pages (https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html).
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import struct
from binascii import crc32
from pathlib import Path
from typing import Any

import pytest

import rejoinder
from rejoinder.core import answers, endpoint_answers
from rejoinder.core.shape import Misshapen
from rejoinder.core.types import Request
from rejoinder.providers.base import ProviderFault, Reply
from rejoinder.providers.bedrock_invoke import BedrockInvokeCodec, BedrockTextCodec
from rejoinder.providers.table import PROVIDERS, codec, resolve
from rejoinder.router.fold import fold
from rejoinder.router.shape import shape
from tests.fixtures.damage import change
from tests.fixtures.endpoint_server import EndpointServer
from tests.fixtures.endpoint_server import Reply as Served

Json = dict[str, Any]
FOLDER = Path(os.environ.get("REJOINDER_WIRE_DIR") or Path(__file__).resolve().parents[2] / "shared" / "wire")
CODEC, TEXT, ROW = BedrockInvokeCodec(), BedrockTextCodec(), PROVIDERS["bedrock_invoke"]
METRICS = {"inputTokenCount": 7, "outputTokenCount": 3, "invocationLatency": 9, "firstByteLatency": 5}
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": [{"type": "text", "text": "Who?"}]},
]

LLAMA3, LLAMA2, LLAMA4 = "us.meta.llama3-3-70b-instruct-v1:0", "meta.llama2-13b-chat-v1", "us.meta.llama4-scout-17b"
MISTRAL, LARGE = "mistral.mistral-7b-instruct-v0:2", "mistral.mistral-large-2407-v1:0"
TITAN, COMMAND, R = "amazon.titan-text-express-v1", "cohere.command-text-v14", "cohere.command-r-plus-v1:0"
JURASSIC, R1, OSS = "ai21.j2-mid-v1", "us.deepseek.r1-v1:0", "openai.gpt-oss-120b-1:0"
JAMBA, CLAUDE2 = "ai21.jamba-1-5-large-v1:0", "anthropic.claude-v2"

WHOLE: dict[str, Json] = {
    LLAMA3: {"generation": "I am.", "prompt_token_count": 7, "generation_token_count": 3, "stop_reason": "stop"},
    MISTRAL: {"outputs": [{"text": "I am.", "stop_reason": "stop"}]},
    LARGE: {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "I am."}, "stop_reason": "stop"}],
    },
    TITAN: {
        "inputTextTokenCount": 7,
        "results": [{"tokenCount": 3, "outputText": "I am.", "completionReason": "FINISH"}],
    },
    COMMAND: {"generations": [{"finish_reason": "COMPLETE", "id": "g", "text": "I am."}], "id": "i", "prompt": "Hi"},
    R: {
        "response_id": "r",
        "text": "I am.",
        "generation_id": "g",
        "chat_history": [],
        "finish_reason": "COMPLETE",
    },
    JURASSIC: {
        "id": 1234,
        "prompt": {"text": "Hi", "tokens": [{}] * 7},
        "completions": [{"data": {"text": "I am.", "tokens": [{}] * 3}, "finishReason": {"reason": "endoftext"}}],
    },
    R1: {"choices": [{"text": "I am.", "stop_reason": "stop"}]},
    OSS: {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": OSS,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "I am.", "reasoning": "Hm."},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    },
    JAMBA: {
        "id": "chat-1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "I am."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    },
}
STREAMED: dict[str, list[Json]] = {
    LLAMA3: [
        {"generation": "I", "prompt_token_count": 7, "generation_token_count": 1, "stop_reason": None},
        {"generation": " am.", "prompt_token_count": None, "generation_token_count": 2, "stop_reason": None},
        {"generation": "", "prompt_token_count": None, "generation_token_count": 3, "stop_reason": "stop"},
    ],
    MISTRAL: [
        {"outputs": [{"text": "I", "stop_reason": None}]},
        {"outputs": [{"text": " am.", "stop_reason": "stop"}]},
    ],
    LARGE: [
        {"choices": [{"index": 0, "message": {"role": "assistant", "content": "I"}, "stop_reason": None}]},
        {"choices": [{"index": 0, "message": {"role": "assistant", "content": " am."}, "stop_reason": "stop"}]},
    ],
    TITAN: [
        {"outputText": "I", "index": 0, "totalOutputTextTokenCount": None, "completionReason": None},
        {"outputText": " am.", "index": 0, "totalOutputTextTokenCount": 3, "completionReason": "FINISH"},
    ],
    COMMAND: [
        {"is_finished": False, "text": "I"},
        {"is_finished": False, "text": " am."},
        {"is_finished": True, "finish_reason": "COMPLETE"},
    ],
    R: [
        {"event_type": "stream-start", "is_finished": False, "generation_id": "g"},
        {"event_type": "text-generation", "is_finished": False, "text": "I"},
        {"event_type": "text-generation", "is_finished": False, "text": " am."},
        {"event_type": "stream-end", "is_finished": True, "finish_reason": "COMPLETE", "response": WHOLE[R]},
    ],
    R1: [
        {"choices": [{"text": "I", "stop_reason": None}]},
        {"choices": [{"text": " am.", "stop_reason": "stop"}]},
    ],
    OSS: [
        {"id": "c", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]},
        {"id": "c", "choices": [{"index": 0, "delta": {"content": "I"}, "finish_reason": None}]},
        {"id": "c", "choices": [{"index": 0, "delta": {"content": " am."}, "finish_reason": None}]},
        {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    ],
}


def request(model: str, messages: Any = (), endpoint: str = "chat", **fields: Any) -> Request:
    base = {"api_base": "https://bedrock.test", "parameters": {}, **fields}
    return Request(endpoint, "bedrock_invoke", model, messages=messages, **base)


def sent(model: str, messages: Any = (), **parameters: Any) -> Json:
    asked = request(model, messages or TALK, parameters=parameters)
    body: Json = json.loads(CODEC.encode(asked, ROW).body)
    return body


def frame(payload: Json) -> bytes:
    """A message of an event stream."""
    headers = b"".join(
        struct.pack("B", len(name)) + name + b"\x07" + struct.pack(">H", len(value)) + value
        for name, value in ((b":event-type", b"chunk"), (b":message-type", b"event"))
    )
    data = json.dumps(payload).encode()
    prelude = struct.pack(">II", len(headers) + len(data) + 16, len(headers))
    packed = prelude + struct.pack(">I", crc32(prelude)) + headers + data
    return packed + struct.pack(">I", crc32(packed))


def chunk(event: Any) -> bytes:
    return frame({"bytes": base64.b64encode(json.dumps(event).encode()).decode()})


def stream_of(events: list[Json]) -> bytes:
    *first, last = events
    return b"".join(map(chunk, [*first, {**last, "amazon-bedrock-invocationMetrics": METRICS}]))


def read(data: bytes, model: str, size: int = 10_000, **fields: Any) -> list[bytes]:
    decoder = CODEC.decoder(request(model, stream=True, **fields))
    chunks = []
    for start in range(0, len(data), size):
        chunks += decoder.feed(data[start : start + size])
    return chunks + decoder.end()


# What is asked


def test_llama_reads_metas_prompt() -> None:
    assert sent(LLAMA3, max_tokens=9, temperature=0.5) == {
        "prompt": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWho?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "max_gen_len": 9,
        "temperature": 0.5,
    }
    assert sent(LLAMA4)["prompt"].endswith(
        "<|header_start|>user<|header_end|>\n\nWho?<|eot|><|header_start|>assistant<|header_end|>\n\n"
    )
    assert sent(LLAMA2)["prompt"] == (
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello. </s><s>[INST] Who? [/INST]"
    )


def test_mistral_reads_a_prompt_and_its_large_models_messages() -> None:
    said = sent(MISTRAL, max_tokens=9, top_k=3, stop="|")
    assert said == {
        "prompt": "<s>[INST] Be brief.\n\nHi [/INST] Hello.</s>[INST] Who? [/INST]",
        "max_tokens": 9,
        "top_k": 3,
        "stop": ["|"],
    }
    large = sent(LARGE, max_completion_tokens=9, tool_choice="required", tools=[{"type": "function"}])
    assert large == {"messages": TALK, "max_tokens": 9, "tool_choice": "any", "tools": [{"type": "function"}]}


def test_the_others_read_what_their_makers_say() -> None:
    assert sent(TITAN, max_tokens=9, top_p=0.5, stop=["x"]) == {
        "inputText": "Be brief.\nUser: Hi\nBot: Hello.\nUser: Who?\nBot:",
        "textGenerationConfig": {"maxTokenCount": 9, "topP": 0.5, "stopSequences": ["x"]},
    }
    assert sent(TITAN, [TALK[1]]) == {"inputText": "User: Hi\nBot:"}
    assert sent(COMMAND, [TALK[1]], n=2, top_p=0.1) == {"prompt": "Hi", "num_generations": 2, "p": 0.1}
    assert sent(JURASSIC, [TALK[1]], max_tokens=9) == {"prompt": "Hi", "maxTokens": 9}
    assert sent(R1)["prompt"] == (
        "<｜begin▁of▁sentence｜>Be brief.<｜User｜>Hi<｜Assistant｜>Hello.<｜end▁of▁sentence｜>"
        "<｜User｜>Who?<｜Assistant｜>"
    )
    assert sent(OSS, max_tokens=9) == {"messages": TALK, "max_completion_tokens": 9}
    assert sent(JAMBA, max_tokens=9) == {"messages": TALK, "max_tokens": 9}
    assert sent(R, max_tokens=9, top_k=1) == {
        "message": "Who?",
        "chat_history": [{"role": "USER", "message": "Hi"}, {"role": "CHATBOT", "message": "Hello."}],
        "preamble": "Be brief.",
        "max_tokens": 9,
        "k": 1,
    }


def test_cohere_is_told_in_the_body_that_it_is_to_stream() -> None:
    call = CODEC.encode(request(COMMAND, [TALK[1]], stream=True), ROW)
    assert json.loads(call.body) == {"prompt": "Hi", "stream": True}
    assert call.path == f"/model/{COMMAND}/invoke-with-response-stream"


def test_what_a_prompt_cannot_say_is_an_error() -> None:
    picture = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,eA=="}}]}
    for message in (picture, {"role": "tool", "tool_call_id": "1", "content": "x"}):
        with pytest.raises(rejoinder.InvalidRequest, match="bedrock/…"):
            sent(LLAMA3, [message])
    with pytest.raises(rejoinder.InvalidRequest, match="has no parameter 'tools'"):
        rejoinder.completion(f"bedrock/invoke/{LLAMA3}", TALK, tools=[{}], api_base="http://x.test", api_key="k")


# Where it goes


def test_a_route_before_the_model_says_which_protocol() -> None:
    for name, row in (("converse", "bedrock"), ("invoke", "bedrock_invoke")):
        for model in (LLAMA3, f"eu.{MISTRAL}", "arn:aws:bedrock:eu-west-3:1:inference-profile/global.anthropic.claude"):
            assert resolve(f"bedrock/{name}/{model}") == (PROVIDERS[row], model)
    assert resolve(f"bedrock/{LLAMA3}")[0].name == "bedrock"


def test_an_imported_model_is_named_by_what_it_is() -> None:
    arn = "arn:aws:bedrock:eu-west-3:123456789012:imported-model/abc"
    asked = shape(f"bedrock/invoke/llama/{arn}", TALK)
    call = CODEC.encode(asked, ROW)
    assert asked.api_base == "https://bedrock-runtime.eu-west-3.amazonaws.com"
    assert call.path == "/model/arn:aws:bedrock:eu-west-3:123456789012:imported-model%2Fabc/invoke"
    assert json.loads(call.body)["prompt"].startswith("<|begin_of_text|>")
    assert "anthropic_version" in json.loads(CODEC.encode(request(arn, TALK), ROW).body)


# What is answered


@pytest.mark.parametrize("model", WHOLE)
def test_whole_answers_are_read(model: str) -> None:
    headers = {"X-Amzn-Bedrock-Input-Token-Count": "7", "X-Amzn-Bedrock-Output-Token-Count": "3"}
    data = CODEC.decode_reply(Reply(200, headers, json.dumps(WHOLE[model]).encode()), request(model))
    answer = answers.completion(data)
    choice = answer.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("I am.", "stop")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 3, 10)
    if model == OSS:
        assert choice.message.reasoning_content == "Hm."  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("model", STREAMED)
def test_streams_are_read_however_they_are_cut(model: str, size: int) -> None:
    chunks = read(stream_of(STREAMED[model]), model, size)
    for each in chunks:
        answers.chunk(each)
    answer = answers.completion(fold(chunks))
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("I am.", "stop")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 3)


@pytest.mark.parametrize("model", STREAMED)
def test_streams_that_break_off_are_faults(model: str) -> None:
    data = b"".join(map(chunk, STREAMED[model][:-1]))
    for short in (data, data[:-5], b""):
        with pytest.raises(ProviderFault) as caught:
            read(short, model)
        assert caught.value.failure.code == "incomplete_stream"


@pytest.mark.parametrize("model", WHOLE)
def test_an_answer_that_does_not_stream_is_read_all_the_same(model: str) -> None:
    answer = answers.completion(fold(read(json.dumps(WHOLE[model]).encode(), model)))
    assert answer.choices[0].message.content == "I am."


def test_tool_calls_of_messages_are_read() -> None:
    call = {"id": "c1", "function": {"name": "f", "arguments": "{}"}}
    said = {"choices": [{"index": 0, "message": {"content": "", "tool_calls": [call]}, "stop_reason": "tool_calls"}]}
    whole = answers.completion(CODEC.decode(json.dumps(said).encode(), request(LARGE)))
    streamed = answers.completion(fold(read(stream_of([said]), LARGE)))
    for answer in (whole, streamed):
        assert answer.choices[0].finish_reason == "tool_calls"
        (made,) = answer.choices[0].message.tool_calls or ()
        assert (made.id, made.type, made.function.name) == ("c1", "function", "f")  # type: ignore[union-attr]


def test_reasons_are_in_openais_words() -> None:
    for theirs, ours in (("LENGTH", "length"), ("CONTENT_FILTERED", "content_filter"), ("FINISH", "stop")):
        body = {"results": [{"tokenCount": 1, "outputText": "x", "completionReason": theirs}], "inputTextTokenCount": 1}
        answer = answers.completion(CODEC.decode(json.dumps(body).encode(), request(TITAN)))
        assert answer.choices[0].finish_reason == ours
        assert answer.choices[0].native_finish_reason == theirs  # type: ignore[attr-defined]


# As texts


def test_a_text_is_sent_as_it_is() -> None:
    asked = request(MISTRAL, endpoint="text_completion", parameters={"prompt": "Say", "max_tokens": 9})
    assert json.loads(TEXT.encode(asked, ROW).body) == {"prompt": "Say", "max_tokens": 9}
    claude = request(CLAUDE2, endpoint="text_completion", parameters={"prompt": "\n\nHuman: Hi\n\nAssistant:"})
    assert json.loads(TEXT.encode(claude, ROW).body)["max_tokens_to_sample"] == 4096
    with pytest.raises(rejoinder.InvalidRequest, match="takes messages"):
        TEXT.encode(request(OSS, endpoint="text_completion", parameters={"prompt": "x"}), ROW)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_text_goes_on_whole_and_streamed(mode: str) -> None:
    def answer(asked: Any) -> Served:
        if asked.path.endswith("stream"):
            return Served(content_type="application/vnd.amazon.eventstream", events=[stream_of(STREAMED[MISTRAL])])
        return Served(json=WHOLE[MISTRAL])

    async def asked(**more: Any) -> Any:
        made = await rejoinder.atext_completion(**given, **more)
        return [piece async for piece in made] if more else made

    with EndpointServer(answer) as server:
        given: Any = {"model": f"bedrock_invoke/{MISTRAL}", "prompt": "Who", "api_base": server.url, "api_key": "k"}
        if mode == "sync":
            whole, pieces = rejoinder.text_completion(**given), list(rejoinder.text_completion(**given, stream=True))
        else:
            whole, pieces = asyncio.run(asked()), asyncio.run(asked(stream=True))
    assert whole.choices[0].text == "I am."
    assert "".join(choice.text for piece in pieces for choice in piece.choices) == "I am."


# Recorded traffic


def recorded(model: str) -> list[Any]:
    file = FOLDER / "bedrock.jsonl"
    if not file.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no recordings in {FOLDER}"))]
    items = map(json.loads, file.read_text("utf-8").splitlines())
    return [
        pytest.param(item, id=item["id"])
        for item in items
        if item["wire"] == "bedrock_invoke" and model in item["model"]
    ]


@pytest.mark.parametrize("item", [*recorded("mistral."), *recorded("meta.")])
def test_recorded_prompts_are_sent_and_answered_as_they_were(item: Json) -> None:
    asked = dict(item["request"]["json"])
    if "max_gen_len" in asked:
        asked["max_tokens"] = asked.pop("max_gen_len")
    response = item["response"]
    reply = Served(body=response["body"].encode(), status=response["status"], headers=response["headers"])
    with EndpointServer(lambda _: reply) as server:
        given: Any = {**asked, "model": f"bedrock_invoke/{item['model']}", "api_base": server.url, "api_key": "k"}
        if response["status"] == 200:
            answer = rejoinder.text_completion(**given)
            (output,) = json.loads(response["body"])["outputs"]
            assert (answer.choices[0].text, answer.choices[0].finish_reason) == (output["text"], output["stop_reason"])
        else:
            with pytest.raises(rejoinder.AuthenticationError, match="expired"):
                rejoinder.text_completion(**given)
        assert server.requests[0].json == item["request"]["json"]
        assert server.requests[0].path.endswith(item["request"]["path"].replace("%3A", ":"))


# Damage


@pytest.mark.parametrize("model", WHOLE)
def test_damaged_answers_are_faults_and_nothing_else(model: str) -> None:
    chance = random.Random(model)
    faults = 0
    for _ in range(150):
        body = json.dumps(change(WHOLE[model], chance)).encode()
        faults += is_fault(lambda body=body: answers.completion(CODEC.decode(body, request(model))))
        faults += is_fault(
            lambda body=body: endpoint_answers.text_completion(
                CODEC.decode(body, request(model, endpoint="text_completion"))
            )
        )
        events = [change(event, chance) for event in STREAMED.get(model, ())]
        data = b"".join(map(chunk, events)) or body
        faults += is_fault(lambda data=data: [answers.chunk(each) for each in read(data, model)])
    assert faults


def is_fault(attempt: Any) -> bool:
    try:
        attempt()
    except (ProviderFault, Misshapen):
        return True
    return False


def test_texts_have_one_codec_whichever_the_row() -> None:
    for protocol in ("bedrock", "bedrock_invoke"):
        assert isinstance(codec(protocol, "text_completion"), BedrockTextCodec)
