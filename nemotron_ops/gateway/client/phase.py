"""The phases of a client's connection: their order, and what a passed deadline means in each. Pure.

    phase       bytes from the client        at its deadline
    idle        begin a head                 the connection closes
    head        are read                     the request is refused: 408
    body        are read and counted         the request is refused: 408
    answering   are held, bounded            nothing: answers take as long as they take
    lingering   are dropped                  the connection is aborted
    closing     are dropped                  the connection closes

Whether a further request is promised is a fact of its own (`ClientConnection.retiring`), not a phase.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Phase(StrEnum):
    """What a connection is doing."""

    IDLE = "idle"  # no byte of a request has come
    HEAD = "head"
    BODY = "body"  # the head was accepted, its body is being received
    ANSWERING = "answering"
    LINGERING = "lingering"  # the last answer is out, the client may still be sending a refused request
    CLOSING = "closing"


class AtDeadline(StrEnum):
    """What is done with a connection whose deadline has passed."""

    WAIT = "wait"
    CLOSE = "close"
    REFUSE = "refuse"
    ABORT = "abort"


FOLLOWS: Mapping[Phase, frozenset[Phase]] = {
    Phase.IDLE: frozenset({Phase.HEAD, Phase.ANSWERING, Phase.CLOSING}),  # answering: a pipelined or refused request
    Phase.HEAD: frozenset({Phase.BODY, Phase.ANSWERING, Phase.CLOSING}),
    Phase.BODY: frozenset({Phase.ANSWERING, Phase.CLOSING}),
    Phase.ANSWERING: frozenset({Phase.IDLE, Phase.HEAD, Phase.LINGERING, Phase.CLOSING}),
    Phase.LINGERING: frozenset({Phase.CLOSING}),
    Phase.CLOSING: frozenset(),
}
AT_DEADLINE: Mapping[Phase, AtDeadline] = {
    Phase.IDLE: AtDeadline.CLOSE,
    Phase.HEAD: AtDeadline.REFUSE,
    Phase.BODY: AtDeadline.REFUSE,
    Phase.ANSWERING: AtDeadline.WAIT,
    Phase.LINGERING: AtDeadline.ABORT,
    Phase.CLOSING: AtDeadline.CLOSE,
}
