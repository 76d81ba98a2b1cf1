"""The beat of the page: when streams are read, and when what is new is shown. Pure but for the clock.

All turns share the beat, so that the process wakes for all of them at once. It slows down with their number: nobody
reads three answers at once, and the work of a second stays bounded.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

FASTEST_S, SLOWEST_S = 0.09, 0.25
EACH_S = 0.05  # of a tick, for each running answer
AHEAD_S = 0.005  # streams are read so much before the tick that shows what they brought


@dataclass
class Beat:
    """`running` answers share it."""

    running: int = 0

    @property
    def tick_s(self) -> float:
        """Seconds between two ticks."""
        return min(SLOWEST_S, max(FASTEST_S, self.running * EACH_S))

    def until_tick_s(self) -> float:
        """Seconds until the next tick."""
        return self.tick_s - time.monotonic() % self.tick_s

    def until_reading_s(self) -> float:
        """Seconds until streams are read again."""
        return self.tick_s - (time.monotonic() + AHEAD_S) % self.tick_s
