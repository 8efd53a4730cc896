"""Where an answer got it from, in OpenAI's form: `message.annotations`, a list of `url_citation`s.

https://platform.openai.com/docs/guides/tools-web-search (read 2026-11). Each names a page and the characters of the
text that rest on it. What has no URL (a document of the caller's, say) has no place there; it stays where each vendor
puts it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Json = dict[str, Any]

MARKER = re.compile(r"\[(\d{1,3})\]")
"""Perplexity's reference to the n-th of its citations."""

SOURCES = ("web", "retrievedContext", "maps")
"""Kinds of Gemini's grounding chunks that have an address."""


def url_citation(url: str, title: Any, start: int, end: int) -> Json:
    """One annotation. A page without a title is called by its address: OpenAI's type wants a text."""
    title = title if isinstance(title, str) and title else url
    return {
        "type": "url_citation",
        "url_citation": {"start_index": start, "end_index": end, "title": title, "url": url},
    }


def of_anthropic(blocks: Iterable[Mapping[str, Any]]) -> list[Json]:
    """Those of Claude's text blocks: a citation is about the whole block."""
    notes, end = [], 0
    for block in blocks:
        if block["type"] != "text":
            continue
        start, end = end, end + len(block["text"])
        for citation in block.get("citations") or ():
            # A search result of the caller's has a `source`, which may be an address.
            url = _address(citation.get("url")) or _address(citation.get("source"))
            if url:
                notes.append(url_citation(url, citation.get("title"), start, end))
    return notes


def of_gemini(metadata: Mapping[str, Any], text: str) -> list[Json]:
    """Those of Gemini's grounding. It counts in bytes."""
    octets, chunks = text.encode(), metadata.get("groundingChunks") or ()
    notes = []
    for support in metadata.get("groundingSupports") or ():
        segment = support.get("segment") or {}
        first, last = segment.get("startIndex") or 0, segment.get("endIndex") or 0
        start, end = (len(octets[:place].decode("utf-8", "ignore")) for place in (first, last))
        said = segment.get("text")
        if said and text[start:end] != said and said in text:  # it counts in a part of several
            start = text.index(said)
            end = start + len(said)
        for place in support.get("groundingChunkIndices") or ():
            chunk = chunks[place] if place < len(chunks) else {}
            source: Any = next((chunk[kind] for kind in SOURCES if chunk.get(kind)), {})
            if url := _address(source.get("uri")):
                notes.append(url_citation(url, source.get("title"), start, end))
    return notes


def of_cohere(citations: Iterable[Mapping[str, Any]]) -> list[Json]:
    """Those of Cohere's citations of its text whose document or tool's result says where it is from."""
    notes = []
    for citation in citations:
        if citation.get("type") not in (None, "TEXT_CONTENT"):  # of its plan or its thinking
            continue
        for source in citation.get("sources") or ():
            held = source.get("document") or source.get("tool_output")
            held = held if isinstance(held, dict) else {}
            if url := _address(held.get("url")):
                notes.append(url_citation(url, held.get("title"), citation["start"], citation["end"]))
    return notes


def of_bedrock(blocks: Iterable[Mapping[str, Any]]) -> list[Json]:
    """Those of Converse's blocks. A citation is about the text in its block; without one, about the text before it."""
    notes, start, end = [], 0, 0
    for block in blocks:
        cited = block.get("citationsContent") or {}
        pieces = [piece["text"] for piece in cited.get("content") or () if "text" in piece]
        said = block["text"] if "text" in block else "".join(pieces)
        if said:
            start, end = end, end + len(said)
        for citation in cited.get("citations") or ():
            web = (citation.get("location") or {}).get("web") or {}
            url = _address(web.get("url")) or _address(citation.get("source"))
            if url:
                notes.append(url_citation(url, citation.get("title") or web.get("domain"), start, end))
    return notes


def of_perplexity(text: str, citations: Iterable[Any], results: Iterable[Any]) -> list[Json]:
    """Those that Perplexity's markers stand for: "[2]" is the second of its citations."""
    urls = [_address(url) for url in citations]
    titles = {result.get("url"): result.get("title") for result in results if isinstance(result, dict)}
    return [
        url_citation(url, titles.get(url), *marker.span()) for marker, url in _marked(text, urls) if url is not None
    ]


def _marked(text: str, urls: list[str | None]) -> Iterator[tuple[re.Match[str], str | None]]:
    for marker in MARKER.finditer(text):
        place = int(marker[1]) - 1
        if 0 <= place < len(urls):
            yield marker, urls[place]


def _address(value: Any) -> str | None:
    return value if isinstance(value, str) and value.startswith(("https://", "http://")) else None
