"""A circuit breaker per instance: pauses one that has just failed a request, longer each time. Pure."""

from __future__ import annotations

from typing import NamedTuple

PAUSE_S = 0.25
MAX_PAUSE_S = 4.0


class Pause(NamedTuple):
    """An instance gets no request before `until`, after this many failures in a row."""

    until: float
    failures: int


class Suspects:
    """The instances that have failed their last request; the snapshot may not show it yet."""

    __slots__ = ("paused",)

    def __init__(self) -> None:
        self.paused: dict[str, Pause] = {}

    def failed(self, instance: str, now: float) -> float:
        """Pause `instance`; returns for how long, in seconds."""
        failures = self.paused[instance].failures if instance in self.paused else 0
        pause_s: float = min(MAX_PAUSE_S, PAUSE_S * 2**failures)
        self.paused[instance] = Pause(now + pause_s, failures + 1)
        return pause_s

    def trust(self, instance: str) -> None:
        """`instance` has answered, or is a new process."""
        self.paused.pop(instance, None)

    def is_paused(self, instance: str, now: float) -> bool:
        """Whether `instance` gets no request yet."""
        return instance in self.paused and self.paused[instance].until > now
