"""Numbered marks of an answer, like `[2]`, as annotations of each API. Pure.

Only sources that were shown to the model count: a number that was never given is text. Marks inside code are text too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MARK = re.compile(r"\[(\d{1,4})\](?!\()")
CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A page or a hit that the model was shown."""

    url: str
    title: str
    passage: str = ""


@dataclass(frozen=True, kw_only=True)
class Citation:
    """One mark of an answer: `[start, end)` in letters of the text, and its source."""

    start: int
    end: int
    number: int
    source: Source


def cited(text: str, sources: Mapping[int, Source]) -> list[Citation]:
    """The marks of `text` that name one of `sources`, in order."""
    code = [m.span() for m in CODE.finditer(text)]
    return [
        Citation(start=m.start(), end=m.end(), number=int(m[1]), source=sources[int(m[1])])
        for m in MARK.finditer(text)
        if int(m[1]) in sources and not any(a <= m.start() < b for a, b in code)
    ]


def responses_annotation(it: Citation) -> dict[str, Any]:
    """An annotation of Responses' `output_text`."""
    return {
        "type": "url_citation",
        "start_index": it.start,
        "end_index": it.end,
        "url": it.source.url,
        "title": it.source.title,
    }


def chat_annotation(it: Citation) -> dict[str, Any]:
    """An annotation of a chat message."""
    inner = {k: v for k, v in responses_annotation(it).items() if k != "type"}
    return {"type": "url_citation", "url_citation": inner}


def messages_citation(it: Citation) -> dict[str, Any]:
    """A citation of a text block of Messages."""
    return {
        "type": "web_search_result_location",
        "url": it.source.url,
        "title": it.source.title,
        "encrypted_index": str(it.number),
        "cited_text": it.source.passage[:150],
    }
