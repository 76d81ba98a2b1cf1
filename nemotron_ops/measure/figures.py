"""Quantiles, medians, and confidence intervals of shares. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z_95 = 1.959963984540054  # quantile 0.975 of the normal distribution


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Quantiles of one quantity, in its own unit; all NaN for no values."""

    p50: float
    p95: float
    p99: float
    mean: float


def quantile(values: Sequence[float], q: float) -> float:
    """The quantile `q` in [0, 1], linear between neighbours (R's type 7); NaN for no values."""
    if not values:
        return math.nan
    ordered = sorted(values)
    at = q * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def median(values: Sequence[float]) -> float:
    """The middle of `values`, NaN for none."""
    return quantile(values, 0.5)


def spread(values: Sequence[float]) -> Spread:
    """p50, p95, p99 and mean of `values`."""
    mean = math.fsum(values) / len(values) if values else math.nan
    return Spread(p50=median(values), p95=quantile(values, 0.95), p99=quantile(values, 0.99), mean=mean)


def wilson(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval of a share: (low, high); (0, 1) for no trials.

    Unlike the normal interval it stays inside [0, 1] and is not empty at 0 or `trials` successes.
    Source: Wilson 1927, doi 10.1080/01621459.1927.10502953.
    """
    if trials <= 0:
        return 0.0, 1.0
    share, n = successes / trials, float(trials)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else middle - half  # rounding leaves 1e-17 there
    high = 1.0 if successes == trials else middle + half
    return low, high
