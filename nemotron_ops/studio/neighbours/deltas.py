"""A gateway's events as parts of an answer: thinking, text, calls, usage, end. Pure.

Texts that come together are one part: most of an answer is one token after the other, read at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

MOST_LINE = 4 << 20  # bytes of one event


class Delta(msgspec.Struct, kw_only=True):
    """One part, of `tokens` events. `reason` is set in the last one that carries text; `error` ends the answer."""

    id: str = ""
    thinking: str = ""
    text: str = ""
    tokens: int = 0  # events that carried thinking or text
    reason: str = ""
    error: str = ""
    usage: dict[str, Any] | None = None
    timings: dict[str, Any] | None = None
    calls: list[dict[str, Any]] | None = None
    lost_in_thought: bool = False

    @property
    def is_text(self) -> bool:
        """Whether it says nothing but text, or nothing but thinking."""
        return bool(self.text) != bool(self.thinking) and not (self.reason or self.calls or self.timings)


class _Said(msgspec.Struct):
    reasoning_content: str | None = None
    content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class _Choice(msgspec.Struct):
    delta: _Said | None = None
    finish_reason: str | None = None
    lost_in_thought: Any = None


class _Event(msgspec.Struct):
    id: str = ""
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    timings: dict[str, Any] | None = None
    lost_in_thought: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode


class Events:
    """Splits the bytes of a stream of server-sent events; keeps what is not a whole event yet."""

    def __init__(self) -> None:
        self._rest = b""
        self.ended = False  # the stream's own end has come

    def feed(self, chunk: bytes) -> Iterator[Delta]:
        """The parts that are complete with `chunk`."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MOST_LINE:
            yield Delta(error="an event of the answer is too long")
            self._rest = b""
        open_part: Delta | None = None
        for line in lines:
            if not line.startswith(b"data: "):
                continue
            if line.startswith(b"data: [DONE]"):
                self.ended = True
                continue
            delta = delta_of(line[6:])
            if delta is None:
                continue
            if open_part is not None and delta.is_text and bool(delta.text) == bool(open_part.text):
                open_part.text += delta.text
                open_part.thinking += delta.thinking
                open_part.tokens += 1
                continue
            if open_part is not None:
                yield open_part
            open_part = delta if delta.is_text else None
            if open_part is None:
                yield delta
        if open_part is not None:
            yield open_part


def delta_of(data: bytes) -> Delta | None:
    """The parts that one event's data carries; None where it is no event of a chat."""
    try:
        event = _decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        return None
    if error := event.error:
        return Delta(error=str(error.get("message", error) if isinstance(error, dict) else error))
    choice = event.choices[0] if event.choices else _Choice()
    said = choice.delta or _Said()
    thinking, text = said.reasoning_content or "", said.content or ""
    return Delta(
        id=event.id, thinking=thinking, text=text, tokens=1 if thinking or text else 0,
        reason=choice.finish_reason or "", usage=event.usage, timings=event.timings, calls=said.tool_calls,
        lost_in_thought=bool(choice.lost_in_thought or event.lost_in_thought),
    )  # fmt: skip
