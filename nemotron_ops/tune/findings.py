"""Every finding by name: whether it stops training, what it means, and what to do. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of finding. An error stops training."""

    level: Level
    means: str
    remedy: str


KINDS: dict[str, Kind] = {
    "unreadable-row": Kind(level="error", means="the row is no JSON object", remedy="mend or remove the row"),
    "unknown-shape": Kind(
        level="error",
        means="the row has none of the known shapes",
        remedy="give messages, conversations, instruction and output, or prompt and completion",
    ),
    "no-answer-at-end": Kind(
        level="error", means="the last turn is not the assistant's", remedy="end the row with the answer to learn"
    ),
    "repeated-role": Kind(
        level="warning", means="two turns of one role follow each other", remedy="join them, or check the order"
    ),
    "empty-answer": Kind(level="error", means="an answer is empty", remedy="remove the row, or write the answer"),
    "half-think-block": Kind(
        level="error",
        means="a think block opens without closing, closes without opening, or stands inside an answer",
        remedy="put <think>…</think> at the head of the answer, or use reasoning_content",
    ),
    "control-tokens": Kind(
        level="error",
        means="a text holds control tokens of the chat template",
        remedy="remove them: the template writes them",
    ),
    "duplicate": Kind(level="warning", means="the row repeats an earlier one", remedy="remove one of them"),
    "contradiction": Kind(
        level="warning", means="the same question has another answer in an earlier row", remedy="keep the right one"
    ),
    "contaminated": Kind(
        level="error", means="the question is in the test data", remedy="remove it: a test would measure memory"
    ),
    "too-long": Kind(
        level="error", means="the row is longer than --max-length", remedy="shorten or remove it: it is never cut"
    ),
    "no-label": Kind(
        level="error", means="nothing of the row is left to learn", remedy="shorten its prompt, or raise --max-length"
    ),
    "few-reasoning": Kind(
        level="warning",
        means="fewer than 75 % of the answers reason first",
        remedy="add answers with reasoning, or the model unlearns it",
    ),
    "unknown-tool": Kind(
        level="error", means="an answer calls a tool that the row does not offer", remedy="name it in the row's tools"
    ),
    "dominating-answer": Kind(
        level="warning", means="one answer makes up a large part of the data", remedy="thin it out"
    ),
    "secret": Kind(level="warning", means="a text looks like a password, key or token", remedy="remove it"),
}


@dataclass(frozen=True, slots=True)
class Found:
    """One finding in one row of one file; `said` names the part."""

    name: str
    said: str = ""
