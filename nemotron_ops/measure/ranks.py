"""Compares two samples by ranks: Mann-Whitney U test, Hodges-Lehmann shift. Pure.

Timings have long tails and drift, so their means mislead; ranks need no shape of the distribution. Small samples
without ties have the exact distribution of U, all others the normal approximation with corrections for ties and
continuity. Source: Mann and Whitney 1947, doi 10.1214/aoms/1177730491; the values agree with scipy's `mannwhitneyu`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache

from nemotron_ops.measure.figures import median

EXACT_LIMIT = 20  # values per sample; above it the normal approximation is right to three digits


def u_of(a: Sequence[float], b: Sequence[float]) -> float:
    """U of `a`: pairs in which the value of `a` is the greater one; ties count a half."""
    return math.fsum(1.0 if x > y else 0.5 if x == y else 0.0 for x in a for y in b)


def p_greater(a: Sequence[float], b: Sequence[float]) -> float:
    """The one-sided p-value of "values of `a` are greater than those of `b`"; 1.0 where a sample is empty."""
    if not a or not b:
        return 1.0
    u = u_of(a, b)
    if max(len(a), len(b)) <= EXACT_LIMIT and len({*a, *b}) == len(a) + len(b):
        return _exact_tail(round(u), len(a), len(b))
    return _normal_tail(u, a, b)


def p_different(a: Sequence[float], b: Sequence[float]) -> float:
    """The two-sided p-value of "the distributions differ"."""
    return min(1.0, 2 * min(p_greater(a, b), p_greater(b, a)))


def ratio_of(a: Sequence[float], b: Sequence[float]) -> float:
    """By which factor values of `b` exceed those of `a`: the median of all ratios (Hodges-Lehmann on logarithms).

    NaN where a sample is empty or holds a value that is not positive.
    """
    if not a or not b or min(*a, *b) <= 0:
        return math.nan
    return math.exp(median([math.log(y / x) for x in a for y in b]))


@cache
def _counts(m: int, n: int) -> tuple[int, ...]:
    """How many orders of m and n distinct values have each U: coefficients of the Gaussian binomial."""
    row = [1]
    for i in range(1, m + 1):  # times (1 - q^(n+i)) / (1 - q^i), in whole numbers
        longer = row + [0] * (n + i)
        for k in range(len(longer) - 1, n + i - 1, -1):
            longer[k] -= longer[k - n - i]
        for k in range(i, len(longer)):
            longer[k] += longer[k - i]
        row = longer[: i * n + 1]
    return tuple(row)


def _exact_tail(u: int, m: int, n: int) -> float:
    counts = _counts(m, n)
    return sum(counts[u:]) / math.comb(m + n, m)


def _normal_tail(u: float, a: Sequence[float], b: Sequence[float]) -> float:
    m, n = len(a), len(b)
    total = m + n
    ties = sum(t**3 - t for t in Counter([*a, *b]).values())
    variance = m * n / 12 * (total + 1 - ties / (total * (total - 1))) if total > 1 else 0.0
    if variance <= 0:
        return 1.0  # all values are equal
    z = (u - m * n / 2 - 0.5) / math.sqrt(variance)
    return 0.5 * math.erfc(z / math.sqrt(2))
