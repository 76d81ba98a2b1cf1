"""What can be wrong with one row. Pure.

Each check costs little for a row that is right: 50,000 rows a second with all of them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from nemotron_ops.tune.findings import Found
from nemotron_ops.tune.shapes import CLOSE, OPEN, Message, Sample

CONTROL = re.compile(
    r"<\|[a-z0-9_]{2,30}\|>|<SPECIAL_\d+>|</?s>(?=\s|$)|\[/?INST\]|\[/?AVAILABLE_TOOLS\]|\[/?TOOL_(?:CALLS|RESULTS)\]"
    r"|</?tool_(?:call|response)>"
)
SECRET = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|AKIA[A-Z0-9]{16}"
    r"|xox[abprs]-[A-Za-z0-9-]{10,}|glpat-[\w-]{20,}|AIza[\w-]{35}|nvapi-[\w-]{40,})"
    r"|-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----"
)
SECRET_MARK = re.compile(r"hf_|sk-|gh[pousr]_|hub_pat_|AKIA|xox|glpat-|AIza|nvapi-|PRIVATE KEY")  # quick to rule out
LETTERS_PER_TOKEN = 4.0  # of English text; only for estimates


def found_in(sample: Sample) -> Iterator[Found]:
    """Every finding that the row shows by itself."""
    messages = sample.messages
    if sample.shape != "gym" and messages[-1].role != "assistant":
        yield Found("no-answer-at-end", messages[-1].role)
    before = ""
    for message in messages:
        if message.role == before and before != "tool":
            yield Found("repeated-role", before)
        before = message.role
        if message.role == "assistant":
            yield from _in_answer(message, sample)
        text = message.content
        if ("<" in text or "[" in text) and (token := CONTROL.search(text)):
            yield Found("control-tokens", token[0])
        if SECRET_MARK.search(text) and SECRET.search(text):
            yield Found("secret", message.role)


def _in_answer(message: Message, sample: Sample) -> Iterator[Found]:
    text = message.content
    if not message.calls and (not text or text.isspace()):
        yield Found("empty-answer", "reasoning without an answer" if message.reasoning else "")
    if "think>" in text and (OPEN in text or CLOSE in text):
        yield Found("half-think-block", OPEN if OPEN in text else CLOSE)
    if message.reasoning and "think>" in message.reasoning:
        yield Found("half-think-block", "inside the reasoning")
    if message.calls and sample.tools is not None:
        for name in message.calls:
            if name not in sample.tools:
                yield Found("unknown-tool", name)


def folded(text: str) -> str:
    """`text` without differences of case, width and space: what counts as the same."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def question_of(sample: Sample) -> str:
    """All that is asked before the last answer, folded."""
    asked = sample.messages[:-1] if sample.messages[-1].role == "assistant" else sample.messages
    return folded("\n".join([m.content for m in asked if m.role != "system"]))


def letters_of(sample: Sample) -> tuple[int, int]:
    """Letters before the last answer, and of it with its reasoning."""
    *asked, last = sample.messages
    before = sum(len(m.content) + 12 for m in asked)
    return before, len(last.content) + len(last.reasoning) + 12


def reasons(sample: Sample) -> bool:
    """Whether the last answer reasons first."""
    return bool(sample.messages[-1].reasoning.strip())
