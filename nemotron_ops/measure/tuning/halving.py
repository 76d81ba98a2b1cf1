"""Successive halving: many candidates measured briefly, the better half longer, until few are left. Pure.

The first candidate, the recipe as it is, is measured in each rung and never dropped; the machine's mood is taken out by
dividing each score by the first candidate's of the same rung. The last ones and the first meet in a final of
interleaved rounds, and the best replaces the first only if the rank test and a least gain say so.
Source: Jamieson and Talwalkar 2016, arXiv 1502.07943.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nemotron_ops.measure.figures import median
from nemotron_ops.measure.ranks import p_greater

ALPHA = 0.05
LEAST = 0.02
FINALISTS = 3
MOST_BUDGET = 8
Measure = Callable[[int, int], float | None]  # (candidate, budget) -> score, more is better; None: it does not run


@dataclass(frozen=True, kw_only=True)
class Found:
    """The chosen candidate and why. `gain` is its score / that of the first, minus one, in the final."""

    chosen: int
    gain: float
    p: float
    scores: dict[int, list[float]]  # of the final
    failed: tuple[int, ...] = ()  # candidates that did not run
    rungs: tuple[tuple[int, ...], ...] = field(default=())


def halve(count: int, measure: Measure, *, rounds: int = 6, enough: Callable[[], bool] = lambda: False) -> Found:
    """Choose among candidates 0 … `count` - 1. `enough()` ends the rungs early: time is up."""
    alive, failed, rungs, budget = list(range(1, count)), set[int](), [], 1
    relative: dict[int, float] = {}
    while len(alive) > FINALISTS - 1 and not enough():
        rungs.append(tuple(alive))
        relative = _rung(alive, measure, budget, failed)
        alive = sorted(relative, key=lambda c: -relative[c])[: max(FINALISTS - 1, math.ceil(len(relative) / 2))]
        if len(alive) <= FINALISTS - 1:
            break
        budget = min(2 * budget, MOST_BUDGET)
    return _final([0, *alive[: FINALISTS - 1]], measure, rounds, budget, failed, tuple(rungs))


def _rung(alive: Sequence[int], measure: Measure, budget: int, failed: set[int]) -> dict[int, float]:
    """Scores relative to the first candidate's, which is measured before, in the middle and after."""
    first = [measure(0, budget)]
    scores: dict[int, float] = {}
    for i, candidate in enumerate(alive):
        if i == len(alive) // 2:
            first.append(measure(0, budget))
        score = measure(candidate, budget)
        if score is None:
            failed.add(candidate)
        else:
            scores[candidate] = score
    first.append(measure(0, budget))
    base = median([s for s in first if s is not None])
    return {c: s / base for c, s in scores.items()}


def _final(
    finalists: Sequence[int], measure: Measure, rounds: int, budget: int, failed: set[int],
    rungs: tuple[tuple[int, ...], ...],
) -> Found:  # fmt: skip
    scores: dict[int, list[float]] = {c: [] for c in finalists}
    for _ in range(rounds):
        for candidate in finalists:
            if (score := measure(candidate, budget)) is None:
                failed.add(candidate)
            else:
                scores[candidate].append(score)
    others = {c: s for c, s in scores.items() if c and c not in failed and s}
    out = tuple(sorted(failed))
    if not others or not scores[0]:
        return Found(chosen=0, gain=0.0, p=1.0, scores=scores, failed=out, rungs=rungs)
    best = max(others, key=lambda c: median(others[c]))
    gain, p = median(others[best]) / median(scores[0]) - 1, p_greater(others[best], scores[0])
    if p > ALPHA or gain < LEAST:
        return Found(chosen=0, gain=0.0, p=p, scores=scores, failed=out, rungs=rungs)
    return Found(chosen=best, gain=gain, p=p, scores=scores, failed=out, rungs=rungs)
