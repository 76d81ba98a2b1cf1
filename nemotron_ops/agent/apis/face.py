"""What the loop needs of an API: one request read, its turns asked for, and its answer written. Pure.

asked_for   hosted tools of the request           offer      their functions, once they are made
turn_body   the request of the next turn          passed     what the client gets for an event of a turn
turn_said   calls of a turn that has ended        began, ended   what the client sees of a hosted call
approval    an approval that the API can ask for  finished, whole, failed   the end
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from nemotron_ops.agent.loop import Said
from nemotron_ops.agent.tools.tool import Call, Ran, Tool
from nemotron_ops.agent.tools.web import Web


@dataclass(frozen=True, kw_only=True)
class History:
    """What a request's earlier turns leave: texts of the person's, addresses read or found, sources by number."""

    texts: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    tainted: bool = False
    waiting: tuple[Call, ...] = ()  # calls to run before the first turn
    refused: tuple[Call, ...] = ()  # calls that the person refused


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn that has ended: calls of hosted tools, and what the loop needs to know."""

    calls: tuple[Call, ...] = ()
    said: Said = field(default_factory=Said)


class Face(Protocol):
    """One request in the shapes of its API."""

    name: str
    path: str  # of its turns, below the endpoint
    stream: bool
    most_calls: int  # the client's own bound; 0: none

    def asked_for(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Hosted tools of the request, each with its place in it."""

    def offer(self, tools: Sequence[Tool], web: Web) -> History:
        """Take the functions of the hosted tools; returns what the history leaves. Raises InvalidError."""

    def turn_body(self) -> dict[str, Any]:
        """The request of the next turn."""

    def passed(self, event: Mapping[str, Any]) -> bytes:
        """What the client gets for an event of a turn. Raises TurnFailedError for an error event."""

    def turn_said(self) -> Turn | None:
        """The turn that has just ended; None if its last event is missing."""

    def began(self, call: Call, tool: Tool) -> bytes:
        """What the client sees of a hosted call that begins."""

    def ended(self, call: Call, tool: Tool, ran: Ran) -> bytes:
        """What the client sees of its end; the next turn has its result."""

    def left(self, call: Call, tool: Tool) -> bytes:
        """What the client sees of a hosted call that is not run, because a budget has ended."""

    def told(self, call: Call, text: str) -> None:
        """A result for the next turn only: the client sees nothing of the call."""

    def approval(self, call: Call, tool: Tool) -> bytes | None:
        """Ask the client to approve a call: the answer ends with that. None if the API has no such thing."""

    def finished(self, reason: str) -> bytes:
        """The end of the stream; `reason` says why it is incomplete."""

    def whole(self, reason: str) -> bytes:
        """The whole answer."""

    def failed(self, error: Mapping[str, Any]) -> bytes:
        """The end of a stream that failed."""

    def failure(self, error: Mapping[str, Any]) -> bytes:
        """The body of an error that a turn ended with."""

    def refusal(self, message: str, code: str) -> bytes:
        """The body of an error."""


class TurnFailedError(Exception):
    """A turn ended with an error; `error` is what the engine or the gateway said."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("message", "")))
        self.error = dict(error)
