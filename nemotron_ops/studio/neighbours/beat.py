"""The beat of the page: when streams are read, and when what is new is shown. Pure but for the clock.

All turns share the beat, so that the process wakes for all of them at once.
"""

from __future__ import annotations

import time

TICK_S = 0.09
AHEAD_S = 0.005  # streams are read so much before the tick that shows what they brought


def until_tick_s() -> float:
    """Seconds until the next tick."""
    return TICK_S - time.monotonic() % TICK_S


def until_reading_s() -> float:
    """Seconds until streams are read again."""
    return TICK_S - (time.monotonic() + AHEAD_S) % TICK_S
