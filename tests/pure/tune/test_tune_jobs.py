"""Jobs as records, their progress after a kill, batches of a resumed run, the loss curve. Writes small files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nemotron_ops.cli.tune_jobs import curve
from nemotron_ops.errors import UsageError
from nemotron_ops.tune import jobs
from nemotron_ops.tune.child.batches import IGNORED, indices, padded, rate
from nemotron_ops.tune.jobs import Asked, Job, State

JOB = Job(name="one", recipe="tiny", asked=Asked(target="tiny", data=("/x.jsonl",)), state=State.TRAINING)


def test_a_job_without_its_process_is_stopped_and_an_ended_one_is_not(tmp_path: Path) -> None:
    jobs.write(tmp_path, replace(JOB, worker=jobs.myself()))
    assert jobs.read(tmp_path, "one").state is State.TRAINING
    pid, started = jobs.myself()
    jobs.write(tmp_path, replace(JOB, worker=(pid, started - 100)))  # another process under this pid
    assert jobs.read(tmp_path, "one").state is State.STOPPED
    jobs.write(tmp_path, replace(JOB, state=State.DONE))
    assert jobs.read(tmp_path, "one") == replace(JOB, state=State.DONE)
    with pytest.raises(UsageError, match="no such job"):
        jobs.read(tmp_path, "two")


def test_progress_passes_over_a_cut_line_and_keeps_a_repeated_step_once(tmp_path: Path) -> None:
    jobs.write(tmp_path, JOB)
    lines = [
        '{"start": 0}',
        '{"step": 1, "loss": 3}',
        '{"step": 2, "lo',
        '{"step": 2, "loss": 2}',
        '{"step": 1, "loss": 4}',
    ]
    (tmp_path / "tune" / "one" / "progress.jsonl").write_text("\n".join(lines))
    assert jobs.progress(tmp_path, "one") == [{"step": 1, "loss": 4}, {"step": 2, "loss": 2}]


def test_one_process_works_on_a_job_and_a_job_at_work_is_not_removed(tmp_path: Path) -> None:
    jobs.write(tmp_path, replace(JOB, worker=jobs.myself()))
    with pytest.raises(UsageError, match="cannot remove one"):
        jobs.remove(tmp_path, "one")
    with pytest.raises(UsageError, match="cannot pause one"):
        jobs.pause(tmp_path, "one")
    jobs.write(tmp_path, replace(JOB, state=State.PAUSED))
    jobs.remove(tmp_path, "one")
    assert jobs.jobs(tmp_path) == []


def test_a_steps_samples_follow_from_seed_and_step_and_each_epoch_has_all() -> None:
    whole = [indices(s, count=5, batch=2, seed=1) for s in range(10)]
    assert [indices(s, count=5, batch=2, seed=1) for s in range(4, 10)] == whole[4:]
    flat = [i for step in whole for i in step]
    assert all(sorted(flat[at : at + 5]) == [0, 1, 2, 3, 4] for at in range(0, 20, 5))
    assert whole != [indices(s, count=5, batch=2, seed=2) for s in range(10)]


def test_only_the_answer_is_learnt_and_padding_is_masked() -> None:
    rows, labels, masks = padded([([1, 2, 3], 1), ([4, 5, 6, 7, 8], 4)])
    assert rows == [[1, 2, 3, 0, 0], [4, 5, 6, 7, 8]]
    assert labels == [[IGNORED, 2, 3, IGNORED, IGNORED], [IGNORED] * 4 + [8]]
    assert masks == [[1, 1, 1, 0, 0], [1] * 5]


def test_the_rate_rises_then_falls_to_a_tenth() -> None:
    rates = [rate(s, steps=100, peak=1.0) for s in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == 1.0
    assert rates[-1] == pytest.approx(0.11, abs=0.01)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_the_curve_falls_with_the_losses() -> None:
    assert curve([8, 7, 6, 5, 4, 3, 2, 1]) == "█▇▆▅▄▃▂▁"
    assert curve([1.0]) == "▁"
    assert len(curve([float(i) for i in range(1000)])) == 60
