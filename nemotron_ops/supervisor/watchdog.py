"""Whether the supervisor's own tasks come round: what the heartbeat to the service manager depends on. Pure.

A watchdog that is fed by a timer proves that the timer runs. Here each task that matters says when it last came round
(the fleet's review, the owner of each instance, the gateway's watcher), and the heart beats only while all of them
have done so lately. A task that hangs, or has ended without anybody noticing, stops it; systemd then starts a new
supervisor, which adopts what runs.
"""

from __future__ import annotations

from collections.abc import Mapping

BEAT_S = 5.0  # a task with nothing to do comes round this often all the same
SILENCE_S = 30.0  # longer than any single step of a task: a probe of the gateway, a look at the devices' free memory


def late(turned: Mapping[str, float], *, now: float, silence_s: float = SILENCE_S) -> tuple[str, ...]:
    """The tasks that last came round more than `silence_s` ago, by name; times are monotonic seconds."""
    return tuple(sorted(name for name, at in turned.items() if now - at > silence_s))
