"""Rank tests and intervals against known values: those of scipy 1.16, and of published tables."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotron_ops.measure.figures import quantile, spread, wilson
from nemotron_ops.measure.ranks import p_different, p_greater, ratio_of, u_of

LONG = [float(i) for i in range(30)]
# samples, U, one-sided p, two-sided p: scipy.stats.mannwhitneyu, exact without ties, else asymptotic
KNOWN = [
    ([1.1, 2.2, 3.3], [0.5, 0.6, 0.7], 9.0, 0.05, 0.1),
    ([1, 4, 6, 7.5, 9], [2, 3, 5, 8, 10], 12.0, 0.5793650793650793, 1.0),
    ([1, 2, 2, 3, 5], [2, 3, 4, 4, 6], 6.5, 0.9166963029858367, 0.2418443040494631),
    (LONG, [x + 3.5 for x in LONG], 351.0, 0.9293612467797542, 0.14531912724086543),
    ([19, 22, 16, 29, 24], [20, 11, 17, 12], 17.0, 0.05555555555555555, 0.1111111111111111),
]


@pytest.mark.parametrize(("a", "b", "u", "greater", "different"), KNOWN)
def test_the_rank_test_agrees_with_scipy(
    a: list[float], b: list[float], u: float, greater: float, different: float
) -> None:
    assert u_of(a, b) == u
    assert p_greater(a, b) == pytest.approx(greater, rel=1e-9)
    assert p_different(a, b) == pytest.approx(different, rel=1e-9)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=9), st.lists(st.integers(0, 9), min_size=1, max_size=9))
def test_u_of_both_samples_is_the_number_of_pairs(a: list[int], b: list[int]) -> None:
    assert u_of(a, b) + u_of(b, a) == len(a) * len(b)
    assert 0 <= p_greater(a, b) <= 1


def test_p_values_of_equal_distributions_are_uniform() -> None:
    draws = random.Random(5)
    found = []
    for _ in range(1000):
        a, b = ([draws.gauss(0, 1) for _ in range(8)] for _ in range(2))
        found.append(p_greater(a, b))
    for level in (0.05, 0.2, 0.5):
        assert sum(p <= level for p in found) / len(found) == pytest.approx(level, abs=0.03)


def test_the_shift_is_found_as_a_ratio() -> None:
    assert ratio_of([10, 11, 12], [11, 12.1, 13.2]) == pytest.approx(1.1)
    assert math.isnan(ratio_of([], [1]))
    assert math.isnan(ratio_of([0.0], [1.0]))


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.27753279986288926),
        (7, 10, 0.39677814746114526, 0.892208732593699),
        (81, 263, 0.2552885198782742, 0.36620957698280004),
        (10, 10, 0.7224672001371109, 1.0),
    ],
)
def test_the_interval_of_a_share_agrees_with_scipy(k: int, n: int, low: float, high: float) -> None:
    assert wilson(k, n) == pytest.approx((low, high), rel=1e-9, abs=1e-12)


def test_quantiles_are_linear_between_neighbours() -> None:
    assert quantile([4, 1, 3, 2], 0.5) == 2.5
    assert quantile(range(101), 0.99) == 99
    assert math.isnan(quantile([], 0.5))
    found = spread([1.0, 2.0, 3.0, 10.0])
    assert (found.p50, found.mean) == (2.5, 4.0)


def test_quantiles_of_an_exponential_distribution_are_its_logarithms() -> None:
    draws = random.Random(1)
    values = [draws.expovariate(1) for _ in range(50_000)]
    assert quantile(values, 0.5) == pytest.approx(math.log(2), rel=0.02)
    assert quantile(values, 0.95) == pytest.approx(-math.log(0.05), rel=0.02)
