"""The states of a turn, and what changes them. Pure."""

from __future__ import annotations

from enum import StrEnum


class TurnState(StrEnum):
    """Where a turn is. The first three are running; the others are ends."""

    QUEUED = "queued"
    THINKING = "thinking"
    ANSWERING = "answering"
    DONE = "done"
    LENGTH = "length"  # cut by the limit of tokens
    STOPPED = "stopped"  # by the person
    CUT = "cut"  # the server ended in the middle of it
    FAILED = "failed"


class Happened(StrEnum):
    """What may happen to a turn."""

    THOUGHT = "thought"
    SAID = "said"
    ENDED = "ended"
    RAN_OUT = "ran_out"
    STOP = "stop"
    LOST = "lost"  # found unfinished at the start
    ERROR = "error"


RUNNING = frozenset({TurnState.QUEUED, TurnState.THINKING, TurnState.ANSWERING})
MAY_CONTINUE = frozenset({TurnState.LENGTH, TurnState.STOPPED, TurnState.CUT, TurnState.FAILED})
ENDS = {
    Happened.ENDED: TurnState.DONE,
    Happened.RAN_OUT: TurnState.LENGTH,
    Happened.STOP: TurnState.STOPPED,
    Happened.LOST: TurnState.CUT,
    Happened.ERROR: TurnState.FAILED,
}


def after(state: TurnState, happened: Happened) -> TurnState:
    """The state that follows; an end is never left."""
    if state not in RUNNING:
        return state
    if happened is Happened.THOUGHT:
        return TurnState.THINKING if state is TurnState.QUEUED else state
    if happened is Happened.SAID:
        return TurnState.ANSWERING
    return ENDS[happened]
