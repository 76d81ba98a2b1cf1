"""What a search finds, and why it finds nothing. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["throttled", "key", "empty", "broken"]


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One result: its address, title and a passage; `text` is the page's own text where the provider sends it."""

    url: str
    title: str
    passage: str = ""
    date: str = ""
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A search without results. `said` is for people; `retry_after_s` is the provider's own advice, in seconds."""

    kind: Kind
    said: str
    hint: str = ""
    retry_after_s: float | None = None
