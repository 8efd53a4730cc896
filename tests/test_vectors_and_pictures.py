"""Vectors of Bedrock's and Vertex AI's models, and pictures by Imagen: what is sent, what is read, damage."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import struct
from pathlib import Path
from typing import Any

import pytest

import rejoinder
from rejoinder.core import endpoint_answers
from rejoinder.core.shape import Misshapen
from rejoinder.core.types import Request
from rejoinder.providers.base import ProviderFault
from rejoinder.providers.table import PROVIDERS, codec
from rejoinder.providers.vertex_predict import ratio_of
from tests.fixtures.damage import change
from tests.fixtures.endpoint_server import EndpointServer, Reply

Json = dict[str, Any]
FOLDER = Path(os.environ.get("REJOINDER_WIRE_DIR") or Path(__file__).resolve().parents[2] / "shared" / "wire")
TITAN, COHERE, NOVA = (
    "amazon.titan-embed-text-v2:0",
    "cohere.embed-english-v3",
    "amazon.nova-2-multimodal-embeddings-v1:0",
)
PICTURES = "amazon.titan-embed-image-v1"


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def call(mode: str, name: str, **given: Any) -> Any:
    if mode == "sync":
        return getattr(rejoinder, name)(**given)
    return asyncio.run(getattr(rejoinder, f"a{name}")(**given))


def where(model: str, server: EndpointServer) -> Json:
    place = {"vertex_project": "p", "vertex_location": "l"} if model.startswith("vertex") else {}
    return {"model": model, "api_base": server.url, "api_key": "sk-mock", "num_retries": 0, **place}


def amazon(asked: Any) -> Reply:
    """What Bedrock's models answer: each text's vector is its length."""
    said = asked.json
    if "texts" in said:
        vectors: Any = [[float(len(text))] for text in said["texts"]]
        vectors = {"float": vectors, "int8": [[1]] * len(vectors)} if "embedding_types" in said else vectors
        counted = {"X-Amzn-Bedrock-Input-Token-Count": "5"}
        return Reply(json={"id": "i", "response_type": "embeddings_floats", "embeddings": vectors}, headers=counted)
    if "singleEmbeddingParams" in said:
        text = said["singleEmbeddingParams"]["text"]["value"]
        return Reply(json={"embeddings": [{"embeddingType": "TEXT", "embedding": [float(len(text))]}]})
    vector = [float(len(said.get("inputText", "")))]
    return Reply(json={"embedding": vector, "inputTextTokenCount": 3, "embeddingsByType": {"float": vector}})


@pytest.mark.parametrize("row", ["bedrock", "bedrock_invoke", "bedrock/invoke"])
@pytest.mark.parametrize(("model", "calls", "tokens"), [(TITAN, 2, 6), (COHERE, 1, 5), (NOVA, 2, 0)])
def test_bedrocks_vectors_come_in_order_and_from_the_cache(
    row: str, model: str, calls: int, tokens: int, mode: str
) -> None:
    with EndpointServer(amazon) as server, rejoinder.Cache.memory():
        given = where(f"{row}/{model}", server)
        first = call(mode, "embedding", **given, input=["a", "bb"])
        mixed = call(mode, "embedding", **given, input=["bb", "ccc"])
        assert server.calls == calls + 1
        assert server.requests[0].path == f"/v1/model/{model}/invoke"
    assert [item.embedding for item in first.data] == [[1.0], [2.0]]
    assert [item.embedding for item in mixed.data] == [[2.0], [3.0]]
    assert (first.usage.prompt_tokens, mixed.cache_info.hits) == (tokens, 1)


def sent(model: str, given: Any, **parameters: Any) -> Json:
    with EndpointServer(amazon) as server:
        rejoinder.embedding(**where(f"bedrock/{model}", server), input=given, **parameters)
        body: Json = server.requests[0].json
    return body


def test_each_of_bedrocks_models_is_asked_in_its_own_words() -> None:
    assert sent(TITAN, "a", dimensions=256, normalize=False) == {
        "inputText": "a",
        "dimensions": 256,
        "normalize": False,
    }
    assert sent(PICTURES, "a", dimensions=256) == {"inputText": "a", "embeddingConfig": {"outputEmbeddingLength": 256}}
    assert sent(PICTURES, {"inputImage": "eA=="}) == {"inputImage": "eA=="}
    assert sent(COHERE, "a", input_type="search_query", truncate="END") == {
        "texts": ["a"],
        "input_type": "search_query",
        "truncate": "END",
    }
    assert sent(COHERE, ["a"], dimensions=64, embedding_types=["float", "int8"])["output_dimension"] == 64
    assert sent(NOVA, "a", dimensions=384) == {
        "taskType": "SINGLE_EMBEDDING",
        "singleEmbeddingParams": {
            "embeddingPurpose": "GENERIC_INDEX",
            "embeddingDimension": 384,
            "text": {"truncationMode": "END", "value": "a"},
        },
    }
    for model in (TITAN, COHERE):
        with pytest.raises(rejoinder.InvalidRequest, match="tokens"):
            sent(model, [1, 2])


def test_vectors_are_text_where_that_is_asked_for() -> None:
    with EndpointServer(amazon) as server:
        for model in (TITAN, COHERE, NOVA):
            answer = rejoinder.embedding(**where(f"bedrock/{model}", server), input="ab", encoding_format="base64")
            assert struct.unpack("<f", base64.b64decode(str(answer.data[0].embedding))) == (2.0,)
            assert "encoding_format" not in server.requests[-1].json


# Vertex AI


def google(asked: Any) -> Reply:
    def prediction(item: Json) -> Json:
        if "content" not in item:
            return {"textEmbedding": [float(len(item["text"]))]}
        statistics = {"truncated": False, "token_count": 4}
        return {"embeddings": {"values": [float(len(item["content"]))], "statistics": statistics}}

    return Reply(json={"predictions": [prediction(item) for item in asked.json["instances"]]})


@pytest.mark.parametrize(("model", "calls"), [("gemini-embedding-001", 2), ("text-embedding-005", 1)])
def test_vertexs_vectors_are_as_many_at_once_as_the_model_takes(model: str, calls: int, mode: str) -> None:
    with EndpointServer(google) as server, rejoinder.Cache.memory():
        given = {**where(f"vertex_ai/{model}", server), "task_type": "RETRIEVAL_QUERY", "dimensions": 8}
        answer = call(mode, "embedding", **given, input=["a", "bb"])
        assert server.calls == calls
        assert server.requests[0].path == f"/v1/projects/p/locations/l/publishers/google/models/{model}:predict"
        assert server.requests[0].json["instances"][0]["task_type"] == "RETRIEVAL_QUERY"
        assert server.requests[0].json["parameters"] == {"outputDimensionality": 8}
    assert [item.embedding for item in answer.data] == [[1.0], [2.0]]
    assert answer.usage.prompt_tokens == 8


def test_pictures_and_texts_are_embedded_by_one_model() -> None:
    with EndpointServer(google) as server:
        given = where("vertex_ai/multimodalembedding@001", server)
        assert rejoinder.embedding(**given, input="abc", dimensions=128).data[0].embedding == [3.0]
        assert server.requests[0].json == {"instances": [{"text": "abc"}], "parameters": {"dimension": 128}}
        with pytest.raises(rejoinder.InvalidRequest, match="not tokens"):
            rejoinder.embedding(**given, input=[1])


def recorded() -> list[Any]:
    file = FOLDER / "vertex.jsonl"
    if not file.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no recordings in {FOLDER}"))]
    items = map(json.loads, file.read_text("utf-8").splitlines())
    return [pytest.param(item, id=item["id"]) for item in items if item["wire"] == "vertex_predict"]


@pytest.mark.parametrize("item", recorded())
def test_recorded_vectors_are_asked_for_and_read(item: Json, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VERTEXAI_PROJECT", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION"):
        monkeypatch.delenv(name, raising=False)
    response, asked = item["response"], item["request"]["json"]
    reply = Reply(body=response["body"].encode(), status=response["status"])
    (instance,) = asked["instances"]
    place = {"vertex_project": "PROJECT", "vertex_location": "us-central1"} if response["status"] == 200 else {}
    with EndpointServer(lambda _: reply) as server:
        base = server.url.removesuffix("/v1") + "/v1beta1"
        given: Any = {
            "model": f"vertex_ai/{item['model']}",
            "api_base": base,
            "api_key": "k",
            "num_retries": 0,
            **place,
        }
        given.update(input=instance["content"], task_type=instance["task_type"])
        if response["status"] == 200:
            answer = call(mode, "embedding", **given)
            told = json.loads(response["body"])["predictions"]
            assert [each.embedding for each in answer.data] == [each["embeddings"]["values"] for each in told]
            statistics = told[0]["embeddings"].get("statistics", {})
            assert answer.usage.prompt_tokens == statistics.get("token_count", 0)
        else:
            with pytest.raises(rejoinder.AuthenticationError, match="API keys are not supported"):
                call(mode, "embedding", **given)
        assert server.requests[0].json == asked
        assert server.requests[0].path == item["request"]["path"]


# Imagen

PICTURE = {"mimeType": "image/png", "bytesBase64Encoded": "aGVsbG8=", "prompt": "a red lighthouse"}


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gemini/imagen-4.0-generate-001", "/v1/models/imagen-4.0-generate-001:predict"),
        (
            "vertex_ai/imagen-4.0-generate-001",
            "/v1/projects/p/locations/l/publishers/google/models/imagen-4.0-generate-001:predict",
        ),
    ],
)
def test_pictures_are_asked_for_and_kept(model: str, path: str, mode: str) -> None:
    with EndpointServer(lambda _: Reply(json={"predictions": [PICTURE, PICTURE]})) as server, rejoinder.Cache.memory():
        given = {**where(model, server), "prompt": "a lighthouse", "n": 2, "size": "1792x1024", "output_format": "jpeg"}
        first, second = call(mode, "image_generation", **given), call(mode, "image_generation", **given)
        assert (server.calls, server.requests[0].path) == (1, path)
        assert server.requests[0].json == {
            "instances": [{"prompt": "a lighthouse"}],
            "parameters": {"sampleCount": 2, "aspectRatio": "16:9", "outputOptions": {"mimeType": "image/jpeg"}},
        }
    assert [picture.b64_json for picture in first.data] == ["aGVsbG8="] * 2
    assert first.data[0].revised_prompt == "a red lighthouse"
    assert (second.cache, second) == (True, first)


def test_pictures_that_are_withheld_are_an_error(mode: str) -> None:
    told: list[Json] = [{"predictions": [{"raiFilteredReason": "No people, please."}]}, {"predictions": []}, {}]
    for said in told:
        with (
            EndpointServer(lambda _, said=said: Reply(json=said)) as server,
            pytest.raises(rejoinder.ContentPolicyViolation, match=r"No people|left them out"),
        ):
            call(mode, "image_generation", **where("vertex_ai/imagen-4", server), prompt="people")


def test_sizes_are_ratios() -> None:
    sizes = {"1024x1024": "1:1", "1792x1024": "16:9", "1024x1792": "9:16", "1280x896": "4:3", "3:4": "3:4"}
    assert {size: ratio_of(size) for size in sizes} == sizes
    for size in ("1536x512", "auto", 5, "0x0", "0x5", "1024x", "1536x1024"):
        with pytest.raises(rejoinder.InvalidRequest, match="aspect_ratio"):
            ratio_of(size)
    with pytest.raises(rejoinder.InvalidRequest, match="b64_json"):
        rejoinder.image_generation("a", "gemini/imagen-4", response_format="url", api_key="k")


# Damage

TOLD: dict[tuple[str, str], Json] = {
    ("bedrock", "embedding"): {"embedding": [1.0, 2.0], "inputTextTokenCount": 3, "embeddingsByType": {"float": [1.0]}},
    ("bedrock_invoke", "embedding"): {"id": "i", "embeddings": {"float": [[1.0, 2.0]]}},
    ("vertex_ai", "embedding"): {
        "predictions": [{"embeddings": {"values": [1.0, 2.0], "statistics": {"token_count": 4}}}],
        "metadata": {"billableCharacterCount": 1},
    },
    ("vertex_ai", "image_generation"): {"predictions": [PICTURE]},
    ("gemini", "image_generation"): {"predictions": [PICTURE]},
}


@pytest.mark.parametrize(("protocol", "endpoint"), TOLD)
def test_damaged_answers_are_faults_and_nothing_else(protocol: str, endpoint: str) -> None:
    speaker, chance, faults = codec(protocol, endpoint), random.Random(protocol), 0
    assert speaker is not None
    row = next(row for row in PROVIDERS.values() if row.codec == protocol)
    for _ in range(200):
        body = json.dumps(change(TOLD[protocol, endpoint], chance)).encode()
        body = body if chance.random() < 0.9 else chance.randbytes(20)
        form = {"encoding_format": "base64"} if chance.random() < 0.5 else {}
        asked = Request(endpoint, row.name, "m", "http://x.test", (), {"input": "a", **form})
        try:
            endpoint_answers.READERS[endpoint](speaker.decode(body, asked))
        except (ProviderFault, Misshapen):
            faults += 1
        assert speaker.failure(500, body).message
    assert faults
