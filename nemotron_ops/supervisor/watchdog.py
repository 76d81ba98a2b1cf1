"""When the supervisor's own tasks count as alive: the condition for the heartbeat to the service manager. Pure.

A watchdog that is fed by a timer proves only that the timer runs. Here each task that matters (the fleet's review, the
owner of each instance, the owner of the gateway's process) notes when its loop last came round, and the heartbeat is
sent only while all of them have done so lately. A task that hangs or has ended stops it; systemd then starts a new
supervisor, which adopts the running processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How often the supervisor's tasks come round, in seconds."""

    beat_s: float = 5.0  # longest wait of an owner's loop for a message
    review_s: float = 0.5  # between two reviews of the fleet without a change
    tick_s: float = 1.0  # between two heartbeats
    silence_s: float = 30.0  # longest silence of a task; longer than any single step of one
    rotate_s: float = 1.0  # between two looks at the sizes of logs


def late(last_turn_at: Mapping[str, float], *, now: float, silence_s: float) -> tuple[str, ...]:
    """The names of tasks whose last turn is more than `silence_s` ago; times are monotonic seconds."""
    return tuple(sorted(name for name, at in last_turn_at.items() if now - at > silence_s))
