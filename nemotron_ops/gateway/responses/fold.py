"""Turns a chat stream into one whole response. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nemotron_ops.gateway.responses.response import MARKS, whole_response
from nemotron_ops.gateway.responses.turn import Turn
from nemotron_ops.gateway.streams.fold import ChatFold


class ResponseFold(ChatFold):
    """A chat's events, folded and told as a response. `now` is Unix time in seconds; `ended` gets the response."""

    def __init__(self, turn: Turn, *, now: Callable[[], float], ended: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._turn = turn
        self._now = now
        self._ended = ended
        self._marks: dict[str, Any] = {}

    def take(self, value: dict[str, Any]) -> None:
        self._marks |= {name: value[name] for name in MARKS if name in value}
        super().take(value)

    def result(self) -> dict[str, Any] | None:
        chat = super().result()
        if chat is None:
            return None
        thoughts = len(self._reasoning)
        told = whole_response(self._turn, self._marks | chat, ended_at=int(self._now()), reasoning_tokens=thoughts)
        self._ended(told)
        return told
