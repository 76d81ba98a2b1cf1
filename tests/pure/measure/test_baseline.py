"""Which kept run a new one is held against, and when that raises an alarm."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.measure import baseline, runs
from nemotron_ops.measure.runs import Result, Run
from nemotron_ops.paths import Layout, user_layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return user_layout({"NEMOTRON_OPS_HOME": str(tmp_path)}, uid=os.getuid())


def made(build: str, *, file: str = "tiny.gguf", cpu: str = "one") -> dict[str, Any]:
    return {
        "machine": {"cpu": cpu, "cores": 2, "gpus": [], "driver": build}, "build": {"id": build},
        "model": {"name": "tiny", "files": [{"name": file}]},
    }  # fmt: skip


def kept(layout: Layout, name: str, at_s: float, made_by: Mapping[str, Any], *, slower: float = 1.0) -> Run:
    """A run of eight repeats with noise of 1 %, written as `bench` does."""
    draws = random.Random(name)

    def one() -> Mapping[str, Any]:
        mood = slower * draws.gauss(1, 0.01)
        return {"ttft_s": {"p50": 0.1 * mood}, "token_time_s": {"p50": 0.01 * mood}, "tokens_per_s": 90 / mood}

    result = Result(
        run=name, at_s=at_s, label="tiny", load={}, load_name="closed 1", limit={}, summary={},
        repeats=tuple(one() for _ in range(8)), made_by=made_by,
    )  # fmt: skip
    runs.append(layout, result)
    return Run(id=name, results=(result,))


def test_the_newest_earlier_run_of_the_same_is_the_baseline(layout: Layout) -> None:
    kept(layout, "old", 1, made("a"))
    kept(layout, "other-quant", 2, made("a", file="tiny-Q4_0.gguf"))
    kept(layout, "other-machine", 3, made("a", cpu="two"))
    kept(layout, "before", 4, made("b"))
    now = kept(layout, "now", 5, made("c"), slower=1.1)
    found = baseline.held(layout, now)
    assert found is not None
    assert (found.baseline.id, found.is_set) == ("before", False)
    assert {c.figure for c in found.slower} == {"ttft_s", "token_time_s", "tokens_per_s"}


def test_nothing_comparable_is_no_baseline(layout: Layout) -> None:
    now = kept(layout, "now", 5, made("c"))
    kept(layout, "later", 6, made("c"))
    assert baseline.held(layout, now) is None


def test_runs_of_the_same_command_are_no_baseline(layout: Layout) -> None:
    a = kept(layout, "a", 1, made("a"))
    b = kept(layout, "b", 2, made("b"))
    assert baseline.held(layout, b, beside=(a, b)) is None


def test_a_loss_in_small_steps_shows_against_the_run_that_was_set(layout: Layout) -> None:
    first = kept(layout, "first", 0, made("0"))
    baseline.set_baseline(layout, first)
    steps = [kept(layout, f"step-{n}", n, made(str(n)), slower=1.02**n) for n in range(1, 6)]
    last = baseline.held(layout, steps[-1])
    assert last is not None
    assert (last.baseline.id, last.is_set) == ("first", True)
    assert last.slower
    baseline.forget(layout, steps[0])  # names what was measured, as the run that was set does
    last = baseline.held(layout, steps[-1])
    assert last is not None
    assert (last.baseline.id, last.is_set) == ("step-4", False)
    assert not last.slower  # each step is below what counts as a change


def test_one_baseline_for_each_of_what_is_measured(layout: Layout) -> None:
    one, two = kept(layout, "one", 1, made("a")), kept(layout, "two", 2, made("b"))
    other = kept(layout, "other", 3, made("a", file="other.gguf"))
    for run in (one, other, two):
        baseline.set_baseline(layout, run)
    assert [r.id for r in baseline.set_runs(layout)] == ["two", "other"]


def test_a_file_that_cannot_be_read_sets_nothing(layout: Layout) -> None:
    first, now = kept(layout, "first", 1, made("a")), kept(layout, "now", 2, made("b"))
    baseline.set_baseline(layout, first)
    (layout.state / "measure" / "baselines.json").write_text("{")
    found = baseline.held(layout, now)
    assert found is not None
    assert not found.is_set
