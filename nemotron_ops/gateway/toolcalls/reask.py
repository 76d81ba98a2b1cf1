"""Asks once more for a call that came out wrong, and puts both answers together. Pure.

Not a new question: the answer so far, up to the broken call, is given as the beginning of the assistant's message, and
behind it the opening of a call, so that the engine's grammar makes a right one and the prompt's cache holds. Asked for
again are whole answers alone, of which the client has received nothing: with one call that its schema refuses, with
markup of a call that could not be promoted, or that end in closing tags of a call that never began.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.toolcalls.heal import Answer, Ladder, Level, Outcome, ToolCall
from nemotron_ops.gateway.toolcalls.scan import MOST_LETTERS

CLOSERS = re.compile(r"(?:\s{0,64}</(?:parameter|function|tool_call)>){1,16}\s{0,64}\Z")


class Kept(NamedTuple):
    """What an answer keeps when its call is asked for again."""

    reasoning: str
    content: str


class AskAgain(Exception):
    """A whole answer is to be asked for again; `kept` is its beginning."""

    def __init__(self, kept: Kept) -> None:
        super().__init__()
        self.kept = kept


def kept_of(answer: Answer, ladder: Ladder) -> Kept | None:
    """What stays of a healed answer whose call is to be asked for again; None if it is right, or cannot be mended."""
    if answer.length or ladder.level is Level.OFF or not ladder.offered.tools:
        return None
    if answer.calls:
        wrong = len(answer.calls) == 1 and answer.calls[0].fault
        return Kept(answer.reasoning, answer.content) if wrong else None
    text = answer.content
    if not text or len(text) > MOST_LETTERS:
        return None
    scanner = ladder.scanner()
    out = scanner.feed(text)
    _, leaks = scanner.end()
    if leaks and all(ladder.names.find(leak.name) for leak in leaks):
        return Kept(answer.reasoning, out.rstrip())
    if closers := CLOSERS.search(text[-1024:]):
        return Kept(answer.reasoning, text[: len(text) - len(closers[0])].rstrip())
    return None


def together(api: Api, first: dict[str, Any], second: dict[str, Any], kept: Kept) -> dict[str, Any]:
    """The first answer with the call of the second; `second` is healed."""
    made = {k: v for k, v in first.items() if k != "invalid_tool_calls"}
    if api is Api.MESSAGES:
        others = [b for b in first["content"] if b.get("type") not in ("text", "tool_use")]
        said = [{"type": "text", "text": kept.content}] if kept.content else []
        called = [b for b in second["content"] if b.get("type") == "tool_use"]
        made |= {"content": [*others, *said, *called], "stop_reason": "tool_use"}
        names: tuple[str, ...] = ("output_tokens",)
    else:
        choice = dict(first["choices"][0])
        calls = second["choices"][0]["message"]["tool_calls"]
        choice["message"] = {**choice["message"], "content": kept.content, "tool_calls": calls}
        choice["finish_reason"] = "tool_calls"
        made["choices"] = [choice]
        names = ("completion_tokens", "total_tokens")
    made["usage"] = _sum(first.get("usage"), second.get("usage"), names)
    return made


def is_better(answer: Answer | None) -> bool:
    """Whether the second answer has calls, all of them right."""
    return answer is not None and bool(answer.calls) and not answer.length and not any(c.fault for c in answer.calls)


def reasked(calls: list[ToolCall]) -> list[ToolCall]:
    """The calls, noted as asked for again."""
    for call in calls:
        call.outcome = Outcome.REASKED
    return calls


def _sum(first: Any, second: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """The first answer's usage, with what the second has made."""
    made: dict[str, Any] = dict(first) if isinstance(first, dict) else {}
    more = second if isinstance(second, dict) else {}
    extra = next((more[n] for n in ("completion_tokens", "output_tokens") if isinstance(more.get(n), int)), 0)
    return {**made, **{name: made[name] + extra for name in names if isinstance(made.get(name), int)}}
