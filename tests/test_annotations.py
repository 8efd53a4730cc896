"""What an answer rests on is said in OpenAI's form, whoever gave it, and the web is searched where OpenAI would."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import rejoinder
from rejoinder.providers.bedrock_answers import message_of as message_of_bedrock
from tests.fixtures.scripted import Scripted, events

Json = dict[str, Any]

USER = {"role": "user", "content": "Hello"}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}
IN_ZURICH = {"type": "approximate", "approximate": {"city": "Zürich", "country": "CH"}}
MODELS = {
    "anthropic": "anthropic/claude-sonnet-4-5",
    "gemini": "gemini/gemini-2.5-flash",
    "cohere": "cohere/command-a-03-2025",
    "perplexity": "perplexity/sonar",
    "nova": "bedrock/us.amazon.nova-2-lite-v1:0",
    "claude": "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0",
}


@pytest.fixture(scope="module")
def vendor() -> Iterator[Scripted]:
    with Scripted() as running:
        yield running


def ask(vendor: Scripted, model: str, **more: Any) -> Any:
    return rejoinder.completion(
        MODELS[model], [USER], api_base=vendor.url, api_key="sk-mock", num_retries=0, caching=False, **more
    )


def said(vendor: Scripted, model: str, body: Any) -> Any:
    vendor.says(body)
    return ask(vendor, model).choices[0].message


def streamed(vendor: Scripted, model: str, *pieces: Json) -> Any:
    vendor.says(events(*pieces), pieces=7, **{"content-type": "text/event-stream"})
    return rejoinder.stream_chunk_builder(list(ask(vendor, model, stream=True))).choices[0].message


def cited(message: Any) -> list[tuple[str, str, str]]:
    """Of each annotation: the text that it is about, the title and the URL."""
    notes = [note.url_citation for note in message.annotations]
    return [(message.content[note.start_index : note.end_index], note.title, note.url) for note in notes]


FOUND = {"type": "web_search_result_location", "url": "https://a.com", "title": "A", "cited_text": "forty-two"}
BLOCKS = [
    {"type": "text", "text": "Zürich: "},
    {"type": "text", "text": "42", "citations": [{**FOUND, "encrypted_index": "E"}]},
    {"type": "text", "text": "."},
]
USAGE = {"input_tokens": 1, "output_tokens": 1}


def test_claude_s_citations_are_annotations_of_their_block(vendor: Scripted) -> None:
    answer = {"type": "message", "content": BLOCKS, "stop_reason": "end_turn", "usage": USAGE}
    message = said(vendor, "anthropic", answer)
    assert cited(message) == [("42", "A", "https://a.com")]
    assert message.content_blocks == BLOCKS


def test_claude_s_streamed_citations_are_too(vendor: Scripted) -> None:
    message = streamed(
        vendor,
        "anthropic",
        {"type": "message_start", "message": {"id": "m", "content": [], "usage": USAGE}},
        {"type": "content_block_start", "index": 0, "content_block": BLOCKS[0]},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": "", "citations": []}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "citations_delta", "citation": FOUND}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "42"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    )
    assert cited(message) == [("42", "A", "https://a.com")]


def test_claude_s_citations_of_documents_are_no_annotations(vendor: Scripted) -> None:
    citation = {"type": "char_location", "cited_text": "Grass", "document_index": 0, "document_title": "D"}
    blocks = [{"type": "text", "text": "Grass", "citations": [citation]}]
    message = said(vendor, "anthropic", {"type": "message", "content": blocks, "stop_reason": "end_turn"})
    assert message.annotations is None
    assert message.content_blocks == blocks


PAGES = [{"web": {"uri": "https://a.com", "title": "A"}}, {"retrievedContext": {"uri": "https://b.com"}}, {"web": {}}]
SUPPORTS = [
    {"segment": {"endIndex": 7, "text": "Zürich"}, "groundingChunkIndices": [0, 1, 2, 9]},
    {"segment": {"startIndex": 8, "endIndex": 10, "text": "is"}, "groundingChunkIndices": [0]},
]


def grounded(text: str, **metadata: Any) -> Json:
    candidate = {"content": {"parts": [{"text": text}]}, "finishReason": "STOP", "index": 0}
    return {"candidates": [{**candidate, "groundingMetadata": metadata}]}


def test_gemini_s_grounding_is_annotations_that_count_characters(vendor: Scripted) -> None:
    message = said(vendor, "gemini", grounded("Zürich is big", groundingChunks=PAGES, groundingSupports=SUPPORTS))
    first = [("Zürich", "A", "https://a.com"), ("Zürich", "https://b.com", "https://b.com")]
    assert cited(message) == [*first, ("is", "A", "https://a.com")]


def test_gemini_s_grounding_may_come_in_two_pieces(vendor: Scripted) -> None:
    first, second = grounded("Zürich", groundingChunks=PAGES), grounded(" is big", groundingSupports=SUPPORTS[1:])
    del first["candidates"][0]["finishReason"]
    message = streamed(vendor, "gemini", first, second)
    assert cited(message) == [("is", "A", "https://a.com")]


def test_gemini_s_grounding_of_a_later_part_is_found_by_its_text(vendor: Scripted) -> None:
    support = {"segment": {"partIndex": 1, "endIndex": 2, "text": "is"}, "groundingChunkIndices": [0]}
    message = said(vendor, "gemini", grounded("Zürich is", groundingChunks=PAGES, groundingSupports=[support]))
    assert cited(message) == [("is", "A", "https://a.com")]


def test_cohere_s_citations_of_pages_are_annotations(vendor: Scripted) -> None:
    page = {"type": "document", "id": "1", "document": {"url": "https://a.com", "title": "A"}}
    result = {"type": "tool", "id": "2", "tool_output": {"url": "https://b.com"}}
    text = {"type": "document", "id": "3", "document": {"text": "…"}}
    citation = {"start": 0, "end": 6, "text": "Zürich", "sources": [page, result, text]}
    content = [{"type": "text", "text": "Zürich is big"}]
    body = {"message": {"content": content, "citations": [citation]}, "finish_reason": "COMPLETE"}
    message = said(vendor, "cohere", body)
    assert cited(message) == [("Zürich", "A", "https://a.com"), ("Zürich", "https://b.com", "https://b.com")]
    assert message.citations == [citation]


def test_nova_s_citations_are_about_the_text_before_them() -> None:
    source = {"citations": [{"location": {"web": {"url": "https://a.com", "domain": "a.com"}}}]}
    blocks = [{"text": "Big. "}, {"text": "Zürich"}, {"citationsContent": source}, {"text": "."}]
    (note,) = message_of_bedrock(blocks)["annotations"]
    citation = {"start_index": 5, "end_index": 11, "title": "a.com", "url": "https://a.com"}
    assert note == {"type": "url_citation", "url_citation": citation}


def sent(vendor: Scripted, model: str, **parameters: Any) -> Json:
    vendor.says({"message": "no"}, status=400)
    with pytest.raises(rejoinder.BadRequestError):
        ask(vendor, model, **parameters)
    return vendor.asked[-1]  # type: ignore[no-any-return]


def test_claude_searches_with_its_own_tool(vendor: Scripted) -> None:
    options = {"search_context_size": "low", "user_location": IN_ZURICH}
    tools = sent(vendor, "anthropic", tools=[WEATHER], web_search_options=options)["tools"]
    place = {"type": "approximate", "city": "Zürich", "country": "CH"}
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 1, "user_location": place}
    assert [tools[0]["name"], tools[1]] == ["weather", search]


def test_a_search_tool_of_the_caller_s_own_is_not_doubled(vendor: Scripted) -> None:
    own = {"type": "web_search_20260209", "name": "web_search"}
    assert sent(vendor, "anthropic", tools=[own], web_search_options={})["tools"] == [own]
    assert sent(vendor, "gemini", tools=[{"googleSearch": {}}], web_search_options={})["tools"] == [
        {"googleSearch": {}}
    ]


def test_nova_searches_with_its_own_tool(vendor: Scripted) -> None:
    assert sent(vendor, "nova", web_search_options={})["toolConfig"] == {
        "tools": [{"systemTool": {"name": "nova_grounding"}}]
    }


def test_a_search_that_cannot_be_had_is_a_clear_error(vendor: Scripted) -> None:
    with pytest.raises(rejoinder.InvalidRequest, match="only Nova has"):
        ask(vendor, "claude", web_search_options={})
    with pytest.raises(rejoinder.InvalidRequest, match="'huge' is none of low, medium, high"):
        ask(vendor, "anthropic", web_search_options={"search_context_size": "huge"})


def allowed(*names: str, mode: str = "auto") -> Json:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def test_tools_that_are_not_allowed_are_not_sent(vendor: Scripted) -> None:
    choice = {"tools": [WEATHER, CLOCK], "tool_choice": allowed("clock", mode="required")}
    body = sent(vendor, "anthropic", **choice)
    assert ([tool["name"] for tool in body["tools"]], body["tool_choice"]) == (["clock"], {"type": "any"})
    body = sent(vendor, "nova", **choice)["toolConfig"]
    assert ([tool["toolSpec"]["name"] for tool in body["tools"]], body["toolChoice"]) == (["clock"], {"any": {}})
    body = sent(vendor, "cohere", **choice)
    assert ([tool["function"]["name"] for tool in body["tools"]], body["tool_choice"]) == (["clock"], "REQUIRED")
    calling = sent(vendor, "gemini", **choice)["toolConfig"]["functionCallingConfig"]
    assert calling == {"mode": "ANY", "allowedFunctionNames": ["clock"]}


def test_an_allowed_tool_that_is_not_among_the_tools_is_a_clear_error(vendor: Scripted) -> None:
    with pytest.raises(rejoinder.InvalidRequest, match="allows 'cook'") as caught:
        ask(vendor, "anthropic", tools=[WEATHER], tool_choice=allowed("weather", "cook"))
    assert (caught.value.provider, caught.value.model) == ("anthropic", "claude-sonnet-4-5")


CITATIONS = ["https://a.com", "https://b.com"]
RESULTS = [{"title": "B", "url": "https://b.com", "date": None}]


def test_perplexity_s_references_are_annotations(vendor: Scripted) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Big[2][1][7]."}, "finish_reason": "stop"}
    message = said(vendor, "perplexity", {"choices": [choice], "citations": CITATIONS, "search_results": RESULTS})
    assert cited(message) == [("[2]", "B", "https://b.com"), ("[1]", "https://a.com", "https://a.com")]


def test_perplexity_s_streamed_references_are_too(vendor: Scripted) -> None:
    def piece(text: str, reason: str | None = None) -> Json:
        choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": reason}
        return {"id": "p", "choices": [choice], "citations": CITATIONS, "search_results": RESULTS}

    message = streamed(vendor, "perplexity", piece("Big["), piece("2]"), piece(".", "stop"))
    assert (message.content, cited(message)) == ("Big[2].", [("[2]", "B", "https://b.com")])
