"""Heals one request's answers: whole ones and chat streams. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import msgspec

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.toolcalls.chat_shape import heal_chat, heal_message
from nemotron_ops.gateway.toolcalls.chat_stream import ChatStream
from nemotron_ops.gateway.toolcalls.heal import Answer, Ladder, Level, Outcome
from nemotron_ops.gateway.toolcalls.messages_stream import MessagesStream
from nemotron_ops.gateway.toolcalls.offered import offered
from nemotron_ops.gateway.toolcalls.outlet import Outlet
from nemotron_ops.gateway.toolcalls.read_json import NOT_JSON
from nemotron_ops.gateway.toolcalls.reask import AskAgain, Kept, is_better, kept_of, reasked, together


class Counts(Protocol):
    """Metrics of tool calls."""

    tool_calls: defaultdict[tuple[str, ...], int]
    tool_call_heals: defaultdict[tuple[str, ...], int]


STREAMS: dict[Api, type[ChatStream | MessagesStream]] = {Api.CHAT: ChatStream, Api.MESSAGES: MessagesStream}
HEADER = b"x-heal-tool-calls"


class Healing:
    """What one request's tools make of its answers.

    `most` limits the calls of an answer, 0 does not; `reasks` is how often a wrong call is asked for again.
    """

    def __init__(
        self, api: Api, fields: Mapping[str, msgspec.Raw], level: Level, most: int = 0, reasks: int = 0
    ) -> None:
        self._api = api
        self.reasks = reasks
        self.folds = True  # whole answers are healed once they are whole; else event by event
        self.first: dict[str, Any] | None = None  # the answer whose call is asked for again
        self._kept: Kept | None = None
        found = offered(fields)
        self.ladder = Ladder(replace(found, most=most) if most else found, level)
        self._stream: ChatStream | MessagesStream | None = None
        self._answer: Answer | None = None

    @property
    def answer(self) -> Answer | None:
        """What was found in the answer; None before its end."""
        return self._stream.answer if self._stream is not None else self._answer

    def stream(self, outlet: Outlet) -> Outlet:
        """An outlet that heals events on their way to `outlet`."""
        kind = STREAMS.get(self._api)
        if kind is None or self.ladder.passes:
            return outlet
        self._stream = kind(self.ladder, outlet)
        return self._stream

    @staticmethod
    def behind(outlet: Any) -> Any:
        """The outlet that gets what a stream's healing lets go."""
        return outlet.outlet if isinstance(outlet, ChatStream | MessagesStream) else outlet

    @property
    def steps(self) -> list[str]:
        """The steps that changed the answer."""
        return self.answer.steps if self.answer is not None else []

    def count(self, model: str, metrics: Counts) -> None:
        """Count the calls of the answer by how they ended, and the steps."""
        found = self.answer
        if found is None:
            return
        for call in found.calls:
            metrics.tool_calls[(model, str(call.outcome))] += 1
        if found.truncated_call:
            metrics.tool_calls[(model, str(Outcome.TRUNCATED))] += 1
        for step in found.steps:
            metrics.tool_call_heals[(model, step)] += 1

    def whole(self, body: bytes) -> bytes:
        """A whole answer, healed; the same bytes if nothing changed."""
        try:
            value = msgspec.json.decode(body)
        except NOT_JSON:
            return body
        return body if not isinstance(value, dict) or not self.value(value) else msgspec.json.encode(value)

    def folded(self, result: dict[str, Any]) -> dict[str, Any]:
        """A whole answer of which the client has received nothing, healed. Raises AskAgain where that is not enough."""
        before = self._answer
        self.value(result)
        if self.first is not None and self._kept is not None:
            return self._together(self.first, result, self._kept, before)
        if self.reasks and self._answer is not None and (kept := kept_of(self._answer, self.ladder)) is not None:
            self.reasks, self.first, self._kept = 0, result, kept
            raise AskAgain(kept)
        return result

    def _together(
        self, first: dict[str, Any], second: dict[str, Any], kept: Kept, before: Answer | None
    ) -> dict[str, Any]:
        found, self._answer, self._kept = self._answer, before, None
        if found is None or before is None or not is_better(found):
            return first
        before.calls = reasked(found.calls)
        before.note({"reask", *found.steps})
        return together(self._api, first, second, kept)

    def value(self, body: dict[str, Any]) -> bool:
        """Heal a whole answer in place; returns whether it changed."""
        heal = {Api.CHAT: heal_chat, Api.MESSAGES: heal_message}.get(self._api)
        self._answer = answer = heal(body, self.ladder) if heal is not None else None
        return answer is not None and bool(answer.steps or answer.truncated_call or "invalid_tool_calls" in body)


def level_of(headers: Mapping[bytes, bytes], default: str) -> Level:
    """The level that a request asks for by its header, or the model's own."""
    asked = headers.get(HEADER, b"").strip().lower().decode("latin-1")
    return Level(asked if asked in tuple(Level) else default)
