"""Counts requests, tokens and times as they happen. Pure.

Plain counters and histograms, cheap enough for the path of a request; `exposition` renders them in Prometheus' format
on demand.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field

LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
GAP_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0)


class Histogram:
    """Counts observations in buckets by upper bound; the last bucket has no bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Add `value`, `times` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times


def _latency() -> Histogram:
    return Histogram(LATENCY_S)


def _gap() -> Histogram:
    return Histogram(GAP_S)


Labels = tuple[str, ...]


@dataclass
class Metrics:
    """All metrics since the start. Keys are label values, in the order of the labels in `exposition`."""

    requests: defaultdict[Labels, int] = field(default_factory=lambda: defaultdict(int))  # model, route, status
    errors: defaultdict[Labels, int] = field(default_factory=lambda: defaultdict(int))  # model, instance, cause
    retries: defaultdict[Labels, int] = field(default_factory=lambda: defaultdict(int))  # model, instance
    resumed: defaultdict[Labels, int] = field(default_factory=lambda: defaultdict(int))  # model
    tokens: defaultdict[Labels, int] = field(default_factory=lambda: defaultdict(int))  # model, instance, kind
    key_requests: defaultdict[Labels, int] = field(default_factory=lambda: defaultdict(int))  # key
    key_tokens: defaultdict[Labels, int] = field(default_factory=lambda: defaultdict(int))  # key, kind
    tool_calls: defaultdict[Labels, int] = field(default_factory=lambda: defaultdict(int))  # model, outcome
    tool_call_heals: defaultdict[Labels, int] = field(default_factory=lambda: defaultdict(int))  # model, step
    affinity: defaultdict[Labels, int] = field(default_factory=lambda: defaultdict(int))  # model, result
    queue_s: defaultdict[Labels, Histogram] = field(default_factory=lambda: defaultdict(_latency))  # model
    first_token_s: defaultdict[Labels, Histogram] = field(default_factory=lambda: defaultdict(_latency))  # and instance
    between_tokens_s: defaultdict[Labels, Histogram] = field(default_factory=lambda: defaultdict(_gap))  # and instance
    duration_s: defaultdict[Labels, Histogram] = field(default_factory=lambda: defaultdict(_latency))  # and instance
