"""Shares with intervals, and what two models' answers to the same items say together. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from nemotron_ops.measure.figures import Z_95, wilson

MARGIN = 0.03  # a loss of so much in share of right answers is taken for no loss


@dataclass(frozen=True, kw_only=True)
class Score:
    """Right answers of one task, with Wilson's 95 % interval of the share."""

    task: str
    right: int
    asked: int
    errors: int = 0  # no whole answer came; they count as wrong

    @property
    def share(self) -> float:
        return self.right / self.asked if self.asked else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.right, self.asked)


class Judgement(StrEnum):
    NO_WORSE = "no worse"
    WORSE = "worse"
    BETTER = "better"
    OPEN = "not settled"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Share of right answers of the one minus that of the other, on the same items, with its 95 % interval.

    `needed` is how many items would settle a judgement that is open, about; 0 where it is settled.
    """

    task: str
    difference: float
    low: float
    high: float
    p: float  # exact McNemar test, two-sided
    judgement: Judgement
    needed: int = 0


def difference(task: str, one: Sequence[bool], other: Sequence[bool], *, margin: float = MARGIN) -> Difference:
    """Compare the grades of the same items. "No worse" means that a loss of more than `margin` is ruled out."""
    n = len(one)
    gained = sum(a and not b for a, b in zip(one, other, strict=True))
    lost = sum(b and not a for a, b in zip(one, other, strict=True))
    d = (gained - lost) / n if n else 0.0
    half = _half_width(gained, lost, n)
    low, high, p = max(-1.0, d - half), min(1.0, d + half), mcnemar(gained, lost)
    if high < 0 and p < 0.05:
        judgement = Judgement.WORSE
    elif low > 0 and p < 0.05:
        judgement = Judgement.BETTER
    else:
        judgement = Judgement.NO_WORSE if low > -margin else Judgement.OPEN
    needed = _needed(d, half, n, margin) if judgement is Judgement.OPEN else 0
    return Difference(task=task, difference=d, low=low, high=high, p=p, judgement=judgement, needed=needed)


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided p-value of "both are right equally often", from the items on which they differ."""
    n, k = gained + lost, min(gained, lost)
    tail = sum(math.comb(n, i) for i in range(k + 1))
    return min(1.0, 2.0 * tail / (1 << n))


def _half_width(gained: int, lost: int, n: int) -> float:
    """Half the 95 % interval of the paired difference: Agresti and Min 2005, with half an item added to each cell."""
    if not n:
        return 1.0
    b, c, total = gained + 0.5, lost + 0.5, n + 2
    return Z_95 * math.sqrt(b + c - (b - c) ** 2 / total) / total


def _needed(d: float, half: float, n: int, margin: float) -> int:
    """Items with which the interval would be as narrow as the distance to the margin, rounded up to 50."""
    distance = abs(d + margin)
    if distance < 0.002:
        distance = 0.002
    return math.ceil(n * (half / distance) ** 2 / 50) * 50
