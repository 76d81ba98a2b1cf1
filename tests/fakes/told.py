"""What a client should be told for an engine's stream, in the client's own API. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nemotron_ops.gateway.responses.stream import ResponsesStream
from nemotron_ops.gateway.responses.turn import Turn
from tests.fakes.stream_reader import put_together

SPOKEN = {"responses": "chat"}  # the API that is spoken with the engine, where it is another


def spoken(api: str) -> str:
    """The API that an engine speaks for a client of `api`."""
    return SPOKEN.get(api, api)


class Sent:
    """Collects what was sent."""

    def __init__(self) -> None:
        self.data = b""

    def send(self, data: bytes, *, last: bool = False) -> None:
        self.data += data


def told(api: str, events: Iterable[bytes]) -> list[Any]:
    """The events that a client of `api` gets if its engine sends `events`, put together."""
    raw = b"".join(events).replace(b'"engine"', b'"org/m"')
    if api in SPOKEN:
        raw = as_response(raw)
    return put_together(raw)


def as_response(raw: bytes) -> bytes:
    """A chat's events as those of a response."""
    sent = Sent()
    turn = Turn(id="resp_1", serial="1", created_at=1, asked="org/m")
    ResponsesStream(turn, sent, now=lambda: 1.0, ended=lambda _: None).send(raw)
    return sent.data
