"""Slows down guesses of the password: a pause that doubles, per address and for all. Pure: time is an argument."""

from __future__ import annotations

from collections import OrderedDict

FREE = 5  # wrong passwords of one address without a pause
FREE_ALL = 50  # of all addresses together
LONGEST_S = 300.0
FORGET_S = 900.0
MOST_ADDRESSES = 4096


class Attempts:
    """Counts wrong passwords."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()  # address -> how many, when the last

    def wait_s(self, address: str, now: float) -> float:
        """Seconds until `address` may try again."""
        return max(self._pause(address, FREE, now), self._pause("", FREE_ALL, now))

    def failed(self, address: str, now: float) -> None:
        """Count a wrong password."""
        for name in (address, ""):
            count, at = self._wrong.pop(name, (0, now))
            self._wrong[name] = (1 if now - at > FORGET_S else count + 1, now)
        while len(self._wrong) > MOST_ADDRESSES:
            self._wrong.popitem(last=False)

    def succeeded(self, address: str) -> None:
        """Forget the wrong passwords of `address`."""
        self._wrong.pop(address, None)

    def _pause(self, name: str, free: int, now: float) -> float:
        count, at = self._wrong.get(name, (0, 0.0))
        if count < free or now - at > FORGET_S:
            return 0.0
        return max(0.0, at + min(LONGEST_S, 2.0 ** (count - free)) - now)
