"""What becomes of a chat answer for a client of the responses API: whole, folded or as a stream. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from nemotron_ops.gateway.responses.fold import ResponseFold
from nemotron_ops.gateway.responses.response import whole_response
from nemotron_ops.gateway.responses.stream import ResponsesStream
from nemotron_ops.gateway.responses.turn import Turn
from nemotron_ops.gateway.streams.fold import Fold
from nemotron_ops.gateway.streams.relay import Outlet


class Conversion:
    """Converts the answers to one request. `keep` stores a whole response, `now` is Unix time in seconds."""

    lines = False  # the answer streams as events

    def __init__(self, turn: Turn, *, keep: Callable[[Turn, dict[str, Any]], None], now: Callable[[], float]) -> None:
        self.turn = turn
        self._keep = keep
        self._now = now
        self.stream: ResponsesStream | None = None  # if the client asks for one

    def outlet(self, outlet: Outlet) -> Outlet:
        """Where a chat's events go: to `outlet`, as those of a response."""
        self.stream = ResponsesStream(self.turn, outlet, now=self._now, ended=self._ended)
        return self.stream

    def fold(self) -> Fold:
        """Where a chat's events go if the client gets them as one response."""
        return ResponseFold(self.turn, now=self._now, ended=self._ended)

    def whole(self, body: bytes) -> bytes:
        """The response for a whole chat answer."""
        chat = msgspec.json.decode(body)
        message = chat["choices"][0].get("message") or {}
        thoughts, words = len(message.get("reasoning_content") or ""), len(message.get("content") or "")
        tokens = int((chat.get("usage") or {}).get("completion_tokens") or 0)
        told = whole_response(
            self.turn, chat, ended_at=int(self._now()), reasoning_tokens=tokens * thoughts // max(1, thoughts + words)
        )  # fmt: skip
        self._ended(told)
        return msgspec.json.encode(told)

    def _ended(self, response: dict[str, Any]) -> None:
        if self.turn.stored:
            self._keep(self.turn, response)
