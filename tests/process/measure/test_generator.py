"""The load generator against an engine that logs when it wrote each token. Costs 6 s; alone, because it measures.

The engine's own log is the truth, not its timetable: a busy machine delays both in the same way.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nemotron_ops.errors import EngineError
from nemotron_ops.measure.generator import calibrate, measure
from nemotron_ops.measure.load import Load, Tokenizer, arrivals_s
from nemotron_ops.measure.request import Target
from nemotron_ops.measure.summary import summarise
from tests.fakes.timed_engine import Script, log_of, timed_engine

pytestmark = [pytest.mark.process, pytest.mark.serial]

WORDS = Tokenizer(of_template=0, per_word=1)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nemotron-ops-test-") as name:  # a socket's path has 107 bytes at most
        yield Path(name)


def target(folder: Path) -> Target:
    return Target(url="http://engine/v1", model="m", socket=folder / "s", timeout_s=30)


def close(found: float, true: float) -> bool:
    """Within 2 % or 1 ms."""
    return abs(found - true) <= max(0.02 * true, 0.001)


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_closed_loop_reports_the_times_that_the_engine_wrote(folder: Path, concurrency: int) -> None:
    load = Load(requests=16, concurrency=concurrency, prompt_tokens=40, answer_tokens=30)
    with timed_engine(folder, Script(first_s=0.05, gap_s=0.01)):
        measured = measure(target(folder), load, tokenizer=WORDS)
    wrote = log_of(folder)
    times = [w["tokens"] for w in wrote]
    ttft = [w["tokens"][0] - w["read"] for w in wrote]
    gaps = [(t[-1] - t[0]) / (len(t) - 1) for t in times]
    found = summarise(measured.samples, measured.wall_s)
    assert found["errors"] == 0
    assert close(found["ttft_s"]["p50"], statistics.median(ttft))
    assert close(found["ttft_s"]["mean"], statistics.mean(ttft))
    assert close(found["token_time_s"]["p50"], statistics.median(gaps))
    assert close(found["itl_s"]["mean"], statistics.mean(gaps))
    took_s = max(t[-1] for t in times) - min(w["read"] for w in wrote)
    assert found["tokens_per_s"] == pytest.approx(16 * 30 / took_s, rel=0.02)


def test_an_open_loop_counts_the_wait_for_a_slot_from_the_arrival(folder: Path) -> None:
    load = Load(requests=16, rate_per_s=10, prompt_tokens=10, answer_tokens=6, seed=3)
    with timed_engine(folder, Script(first_s=0.1, gap_s=0.01, slots=1)):
        measured = measure(target(folder), load, tokenizer=WORDS)
    firsts = sorted(w["tokens"][0] for w in log_of(folder))
    begin = firsts[0] - measured.samples[0].ttft_s  # when the first request was due
    true = [first - begin - at for first, at in zip(firsts, arrivals_s(load), strict=True)]
    found = [s.ttft_s for s in measured.samples]
    assert max(true) > 0.3  # a queue has formed
    assert all(close(f, t) for f, t in zip(found, true, strict=True))


def test_calibration_finds_how_many_tokens_a_word_has(folder: Path) -> None:
    with timed_engine(folder, Script(first_s=0, gap_s=0.001)):
        tokenizer = calibrate(target(folder))
    assert tokenizer.per_word == pytest.approx(1)
    assert tokenizer.of_template == pytest.approx(0, abs=1e-9)


def test_an_endpoint_that_is_not_there_is_an_error(folder: Path) -> None:
    with pytest.raises(EngineError, match="cannot measure m: cannot connect"):
        measure(replace(target(folder), socket=folder / "none"), Load(requests=2), tokenizer=WORDS)
