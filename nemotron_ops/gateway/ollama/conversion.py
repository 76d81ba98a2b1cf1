"""What becomes of an engine's answer for a client of Ollama's API: lines of a stream, or one object. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from nemotron_ops.gateway.ollama.answer import Turn, calls_of, embeddings, ended, part, whole_answer
from nemotron_ops.gateway.streams import sse
from nemotron_ops.gateway.streams.fold import ChatFold, Fold
from nemotron_ops.gateway.streams.relay import Outlet


class OllamaConversion:
    """Converts the answer to one request. `now` is Unix time in seconds; `old` is that of `/api/embeddings`."""

    stream = None  # its lines take no comments and no events
    lines = True  # the answer streams as lines of JSON

    def __init__(self, turn: Turn, *, now: Callable[[], float], embeds: bool = False, old: bool = False) -> None:
        self.turn = turn
        self._now = now
        self._embeds = embeds
        self._old = old

    def outlet(self, outlet: Outlet) -> Outlet:
        """Where a chat's events go: to `outlet`, as lines."""
        return OllamaLines(self.turn, outlet, now=self._now)

    def fold(self) -> Fold:
        """Where a chat's events go if the client gets them as one object."""
        return OllamaFold(self.turn, now=self._now)

    def whole(self, body: bytes) -> bytes:
        """The object for a whole answer of the engine."""
        if self._embeds:
            return msgspec.json.encode(embeddings(self.turn, body, self._now(), one=self._old))
        return msgspec.json.encode(whole_answer(self.turn, msgspec.json.decode(body), self._now()))


class OllamaFold(ChatFold):
    """A chat's events, folded and told as one object."""

    def __init__(self, turn: Turn, *, now: Callable[[], float]) -> None:
        super().__init__()
        self._turn = turn
        self._now = now

    def result(self) -> dict[str, Any] | None:
        chat = super().result()
        return None if chat is None else whole_answer(self._turn, chat, self._now())


class OllamaLines(ChatFold):
    """An outlet for a chat's events that passes lines of JSON on to `outlet`. Calls come whole, before the end."""

    def __init__(self, turn: Turn, outlet: Outlet, *, now: Callable[[], float]) -> None:
        super().__init__()
        self._turn = turn
        self._outlet = outlet
        self._now = now

    def send(self, data: bytes, *, last: bool = False) -> None:
        """Pass on whole events of a chat."""
        out: list[bytes] = []
        for value in sse.events(data):
            if isinstance(value, dict):
                self._say(value, out)
        if data.endswith(sse.DONE):
            self._end(out)
        self._outlet.send(b"".join(out), last=last)

    def _say(self, value: dict[str, Any], out: list[bytes]) -> None:
        self._usage = value.get("usage") or self._usage
        self._timings = value.get("timings") or self._timings
        for choice in value.get("choices", ()):
            delta = choice.get("delta") or {}
            text, thinking = delta.get("content") or "", delta.get("reasoning_content") or ""
            if text or thinking:
                self._line(part(self._turn, self._now(), text=text, thinking=thinking), out)
            for call in delta.get("tool_calls") or ():
                self._take_call(call)
            self._finish = choice.get("finish_reason") or self._finish

    def _end(self, out: list[bytes]) -> None:
        now = self._now()
        calls, whole = calls_of(self._calls)
        if calls and not self._turn.generates:
            told = part(self._turn, now)
            told["message"]["tool_calls"] = calls
            self._line(told, out)
        chat = {"usage": self._usage, "timings": self._timings}
        finish = str(self._finish or "") if whole else "length"
        self._line(ended(part(self._turn, now), self._turn, chat, finish, now), out)

    def _line(self, told: dict[str, Any], out: list[bytes]) -> None:
        out.append(msgspec.json.encode(told) + b"\n")
