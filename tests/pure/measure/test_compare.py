"""A planted regression of 10 % is found, noise of 5 % is not; the rates are printed (`pytest -s`)."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest

from nemotron_ops.measure.compare import ALPHA, Verdict, compare, least_repeats, slower

ROUNDS = 400


def run(draws: random.Random, factor: float, *, noise: float, repeats: int) -> dict[str, list[Mapping[str, Any]]]:
    """The repeats of one load: every repeat is slow or fast as a whole, its figures are noisy by themselves, too."""

    def one() -> Mapping[str, Any]:
        of_repeat = draws.gauss(1, noise)
        return {
            "ttft_s": {"p50": 0.2 * factor * of_repeat},
            "token_time_s": {"p50": 0.02 * factor * of_repeat * draws.gauss(1, 0.005)},
            "tokens_per_s": 50 / (factor * of_repeat * draws.gauss(1, 0.005)),
        }

    return {"closed 1": [one() for _ in range(repeats)]}


def rate_of_alarms(factor: float, *, noise: float, repeats: int) -> float:
    draws = random.Random(7)
    alarms = 0
    for _ in range(ROUNDS):
        before = run(draws, 1.0, noise=noise, repeats=repeats)
        alarms += bool(slower(compare(before, run(draws, factor, noise=noise, repeats=repeats))))
    print(f"factor {factor}, noise {noise:.0%}, {repeats} repeats: an alarm in {alarms / ROUNDS:.1%} of {ROUNDS}")
    return alarms / ROUNDS


def test_a_regression_of_ten_percent_is_found() -> None:
    assert rate_of_alarms(1.1, noise=0.02, repeats=6) >= 0.95
    assert rate_of_alarms(1.1, noise=0.05, repeats=16) >= 0.95


@pytest.mark.parametrize("repeats", [5, 6, 16])
def test_noise_of_five_percent_raises_no_alarm(repeats: int) -> None:
    assert rate_of_alarms(1.0, noise=0.05, repeats=repeats) <= ALPHA


def test_a_gain_is_no_alarm() -> None:
    draws = random.Random(1)
    found = compare(run(draws, 1.0, noise=0.01, repeats=8), run(draws, 0.8, noise=0.01, repeats=8))
    assert {c.verdict for c in found} == {Verdict.FASTER}
    assert not slower(found)


def test_too_few_repeats_are_told() -> None:
    draws = random.Random(1)
    found = compare(run(draws, 1.0, noise=0.0, repeats=3), run(draws, 2.0, noise=0.0, repeats=3))
    assert {c.verdict for c in found} == {Verdict.UNKNOWN}
    needed = least_repeats(ALPHA, 1)
    found = compare(run(draws, 1.0, noise=0.001, repeats=needed), run(draws, 2.0, noise=0.001, repeats=needed))
    assert {c.verdict for c in found} == {Verdict.SLOWER}


def test_a_significant_shift_that_is_tiny_is_the_same() -> None:
    draws = random.Random(1)
    found = compare(run(draws, 1.0, noise=0.0001, repeats=9), run(draws, 1.01, noise=0.0001, repeats=9))
    assert {c.verdict for c in found} == {Verdict.SAME}


def test_loads_that_only_one_run_has_are_left_out() -> None:
    draws = random.Random(1)
    one = run(draws, 1.0, noise=0.01, repeats=6)
    assert compare(one, {}) == ()
