"""When a ready instance counts as stuck: liveness is progress, not an open port. Pure.

Each probe goes through llama-server's task queue. A sign of life is an answer with no work, or with work and a mark
that moved (any token made, any batch of a prompt evaluated). Without one for half of `wedge_s` the instance is
suspect and gets a canary prompt, whose answer is a sign of life too; without one for all of `wedge_s` it is stuck.
Streams' keep-alive comments play no part, and a prompt that takes half an hour lives as long as its counter moves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from nemotron_ops.engine.health import Activity
from nemotron_ops.policy import Health


class Verdict(StrEnum):
    ALIVE = "alive"
    QUIET = "quiet"  # no sign of life this time; too early to worry
    SUSPECT = "suspect"  # send a canary
    STUCK = "stuck"


@dataclass(frozen=True, kw_only=True)
class Pulse:
    """The last sign of life, in monotonic seconds, and the mark seen then. `why` describes the silence since."""

    at: float
    mark: tuple[float, ...] = ()
    why: str = ""


def judge(pulse: Pulse, seen: Activity | None, *, now: float, health: Health) -> tuple[Pulse, Verdict]:
    """What a probe's answer (None: no answer in time) means."""
    if seen is not None:
        working = seen.busy > 0 or seen.deferred > 0
        if not working or seen.mark != pulse.mark:
            return Pulse(at=now, mark=seen.mark), Verdict.ALIVE
        pulse = replace(pulse, why=f"{seen.busy} busy slots, but no token moved for {now - pulse.at:.0f} s")
    else:
        pulse = replace(pulse, why=f"the task queue has not answered for {now - pulse.at:.0f} s")
    silent_s = now - pulse.at
    if silent_s >= health.wedge_s:
        return pulse, Verdict.STUCK
    return pulse, Verdict.SUSPECT if silent_s >= health.wedge_s / 2 else Verdict.QUIET


def answered(pulse: Pulse, *, now: float) -> Pulse:
    """`pulse` after a canary was answered: the mark stays, so that what was stuck is still seen not to move."""
    return replace(pulse, at=now, why="")
