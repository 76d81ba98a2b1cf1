"""Whether one run is slower than another beyond the noise: a rank test over their repeats. Pure.

One number cannot tell noise from a change, so a run has repeats, and each repeat counts as one value: requests of one
repeat share the machine's mood and are not independent. A change counts where the rank test is significant, shared
among all figures that are compared (Bonferroni), and the shift is larger than what differs between two runs of the
same build (`LEAST`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from nemotron_ops.measure.ranks import p_greater, ratio_of
from nemotron_ops.measure.summary import FIGURES, number

ALPHA = 0.02  # share of comparisons in which noise alone would be called a change
LEAST = 0.03
COMPARED = ("ttft_s", "token_time_s", "tokens_per_s")


class Verdict(StrEnum):
    SAME = "same"
    FASTER = "faster"
    SLOWER = "slower"
    UNKNOWN = "too few repeats"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One figure of one load in two runs. `ratio` is after / before, as the median of all pairs of repeats."""

    load: str
    figure: str
    before: float
    after: float
    ratio: float
    p: float  # one-sided, for the direction in which it moved
    verdict: Verdict


Repeats = Mapping[str, Sequence[Mapping[str, Any]]]  # load -> the summary of each repeat


def compare(before: Repeats, after: Repeats, *, alpha: float = ALPHA, least: float = LEAST) -> tuple[Change, ...]:
    """Every figure of `COMPARED`, for the loads that both runs have, in order of `before`."""
    loads = [name for name in before if name in after]
    share = alpha / max(1, len(loads) * len(COMPARED))
    changes = [
        _change(load, figure, before[load], after[load], alpha=share, least=least)
        for load in loads
        for figure in COMPARED
    ]
    return tuple(c for c in changes if c is not None)


def least_repeats(alpha: float, loads: int) -> int:
    """How many repeats both runs need for a change to become significant at all."""
    n = 1
    while 1 / math.comb(2 * n, n) > alpha / (loads * len(COMPARED)):
        n += 1
    return n


def slower(changes: Sequence[Change]) -> tuple[Change, ...]:
    """The changes for the worse."""
    return tuple(c for c in changes if c.verdict is Verdict.SLOWER)


def _change(
    load: str,
    figure: str,
    before: Sequence[Mapping[str, Any]],
    after: Sequence[Mapping[str, Any]],
    *,
    alpha: float,
    least: float,
) -> Change | None:
    a, b = ([n for s in runs if not math.isnan(n := number(s, figure))] for runs in (before, after))
    ratio = ratio_of(a, b)
    if math.isnan(ratio):
        return None
    more_is_better = FIGURES[figure][1]
    p = p_greater(b, a) if ratio >= 1 else p_greater(a, b)
    if 1 / math.comb(len(a) + len(b), len(a)) > alpha:
        verdict = Verdict.UNKNOWN
    elif p > alpha or max(ratio, 1 / ratio) - 1 < least:
        verdict = Verdict.SAME
    else:
        verdict = Verdict.FASTER if (ratio > 1) is more_is_better else Verdict.SLOWER
    mid = len(a) // 2, len(b) // 2
    return Change(
        load=load, figure=figure, before=sorted(a)[mid[0]], after=sorted(b)[mid[1]], ratio=ratio, p=p, verdict=verdict
    )
