"""When a ready instance counts as stuck: liveness is progress, not an open port. Pure.

Each probe goes through llama-server's task queue. A sign of life is an answer that shows no work, or work and a new
mark (any token made, any batch of a prompt evaluated). After half of `wedge_s` without one the instance is suspect and
gets a canary prompt, whose answer is a sign of life too; after all of `wedge_s` it is stuck. Keep-alive comments of
streams do not count, and a prompt that takes half an hour is alive as long as its counter grows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from nemotron_ops.engine.health import Activity
from nemotron_ops.policy import Health


class Verdict(StrEnum):
    ALIVE = "alive"
    QUIET = "quiet"  # no sign of life in this probe; too early to act
    SUSPECT = "suspect"  # send a canary
    STUCK = "stuck"


@dataclass(frozen=True, kw_only=True)
class Pulse:
    """The last sign of life, in monotonic seconds, and the mark seen then. `why` describes the silence since."""

    at: float
    mark: tuple[float, ...] = ()
    why: str = ""


def judge(pulse: Pulse, seen: Activity | None, *, now: float, health: Health) -> tuple[Pulse, Verdict]:
    """The verdict on a probe's answer (None: no answer in time)."""
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
    """`pulse` after an answered canary: the mark stays, so a stuck slot is still seen not to move."""
    return replace(pulse, at=now, why="")
