"""A gateway's events as parts of an answer: thinking, text, calls, usage, end. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

MOST_LINE = 4 << 20  # bytes of one event


@dataclass(frozen=True, slots=True)
class Delta:
    """One event. `reason` is set in the last one that carries text; `error` ends the answer."""

    id: str = ""
    thinking: str = ""
    text: str = ""
    reason: str = ""
    error: str = ""
    usage: dict[str, Any] | None = None
    timings: dict[str, Any] | None = None
    calls: list[dict[str, Any]] | None = None
    lost_in_thought: bool = False


@dataclass
class Events:
    """Splits the bytes of a stream of server-sent events; keeps what is not a whole event yet."""

    _rest: bytearray = field(default_factory=bytearray)
    ended: bool = False  # the stream's own end has come

    def feed(self, chunk: bytes) -> Iterator[Delta]:
        """The events that are complete with `chunk`."""
        self._rest += chunk
        *lines, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest)
        if len(rest) > MOST_LINE:
            yield Delta(error="an event of the answer is too long")
            self._rest.clear()
        for line in lines:
            if line.startswith(b"data: "):
                data = line[6:].strip()
                if data == b"[DONE]":
                    self.ended = True
                elif delta := delta_of(data):
                    yield delta


def delta_of(data: bytes) -> Delta | None:
    """The parts that one event's data carries; None where it is no event of a chat."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    if error := value.get("error"):
        return Delta(error=str(error.get("message", error) if isinstance(error, dict) else error))
    choice: dict[str, Any] = next(iter(value.get("choices") or []), {})
    said = choice.get("delta") or {}
    return Delta(
        id=str(value.get("id") or ""),
        thinking=said.get("reasoning_content") or "",
        text=said.get("content") or "",
        reason=choice.get("finish_reason") or "",
        usage=value.get("usage"),
        timings=value.get("timings"),
        calls=said.get("tool_calls"),
        lost_in_thought=bool(choice.get("lost_in_thought") or value.get("lost_in_thought")),
    )
