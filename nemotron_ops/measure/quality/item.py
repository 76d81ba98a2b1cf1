"""One question with what is right, and an answer to it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Call:
    """One tool call; `arguments` is the text that the model wrote."""

    name: str
    arguments: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model said: content without reasoning, and calls. `error` is "" unless no whole answer came."""

    content: str = ""
    calls: tuple[Call, ...] = ()
    finish_reason: str = ""
    tokens: int = 0
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question. `check` names a function of `grading`, `expected` is what it needs, `solution` a right answer."""

    id: str  # unique in its task: "arithmetic-17"
    prompt: str
    check: str
    expected: Mapping[str, Any]
    solution: Answer
    tools: tuple[Mapping[str, Any], ...] = field(default=())
