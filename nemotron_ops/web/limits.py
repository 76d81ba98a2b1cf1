"""Searches per minute and key; when a provider may be asked again. Pure: the time is an argument, in seconds."""

from __future__ import annotations

from collections import OrderedDict, deque

WINDOW_S = 60.0
MOST_KEYS = 4096  # keys that are counted at once; the one that searched longest ago is forgotten first
FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 600.0


class Limits:
    """Counts searches per key in a sliding window of one minute."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._asked: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, key: str, now: float) -> float:
        """Seconds until `key` may search again; 0 takes one search at `now`."""
        asked = self._asked.setdefault(key, deque())
        self._asked.move_to_end(key)
        while asked and asked[0] <= now - WINDOW_S:
            asked.popleft()
        if len(asked) >= self._per_minute:
            return asked[0] + WINDOW_S - now
        asked.append(now)
        if len(self._asked) > MOST_KEYS:
            self._asked.popitem(last=False)
        return 0.0


class Backoff:
    """When a provider that throttles may be asked again: its own advice, or a pause that doubles."""

    def __init__(self) -> None:
        self._until = 0.0
        self._pause_s = FIRST_PAUSE_S

    def wait_s(self, now: float) -> float:
        """Seconds until the provider may be asked; 0 when it may be asked now."""
        return max(0.0, self._until - now)

    def throttled(self, now: float, advice_s: float | None) -> None:
        """Note that the provider refused; `advice_s` is its own advice in seconds."""
        self._until = now + min(LONGEST_PAUSE_S, max(advice_s or 0.0, self._pause_s))
        self._pause_s = min(LONGEST_PAUSE_S, self._pause_s * 2)

    def answered(self) -> None:
        """Note that the provider answered: the next pause is the first one again."""
        self._until, self._pause_s = 0.0, FIRST_PAUSE_S
