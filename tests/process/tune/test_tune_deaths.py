"""Every end of the trainer has its own error, with a program in its place that ends in that way. Costs 1 s."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.errors import FitError, HostError, ModelError, NemotronOpsError
from nemotron_ops.installation import Installation
from nemotron_ops.operations.tuning import train_to_its_end
from nemotron_ops.paths import user_layout
from nemotron_ops.tune import jobs
from nemotron_ops.tune.jobs import Asked, Job, State

pytestmark = pytest.mark.process
JOB = Job(name="one", recipe="tiny", asked=Asked(target="tiny", data=()), state=State.TRAINING)


def trained(tmp_path: Path, ends: str, said: dict[str, Any] | None = None) -> Job | None:
    """The job after a trainer that ends with the shell command `ends`."""
    here = Installation(layout=user_layout({"NEMOTRON_OPS_HOME": str(tmp_path)}, uid=os.getuid()), env=dict(os.environ))
    jobs.write(here.layout.state, JOB)
    folder = jobs.folder_of(here.layout.state, "one")
    if said:
        (folder / "progress.jsonl").write_text(json.dumps(said) + "\n")
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho its last words\n{ends}\n")
    program.chmod(0o700)
    return train_to_its_end(replace(JOB, worker=jobs.myself()), program, 10, here)


@pytest.mark.parametrize(
    ("ends", "said", "kind", "message", "hint"),
    [
        (
            "exit 11",
            "the loss of step 3 is no number",
            ModelError,
            "step 3 is no number; the last checkpoint",
            "--rate",
        ),
        ("exit 12", "out of memory on the device", FitError, "out of memory on the device", "--max-length"),
        ("kill -9 $$", "", HostError, "the trainer was killed", "tune resume one"),
        ("exit 1", "", HostError, "the trainer ended with 1", ""),
    ],
)
def test_an_end_of_the_trainer_is_told_with_the_setting_to_change(
    tmp_path: Path, ends: str, said: str, kind: type[NemotronOpsError], message: str, hint: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        trained(tmp_path, ends, {"error": said} if said else None)
    assert hint in (caught.value.hint or "")
    if not hint:
        assert "its last words" in caught.value.log_tail


def test_a_trainer_that_saved_leaves_a_paused_job_and_one_that_ended_its_peak(tmp_path: Path) -> None:
    paused = trained(tmp_path, "exit 10")
    assert paused is not None
    assert paused.state is State.PAUSED
    assert trained(tmp_path, "exit 0") is None
    assert "peak_bytes" in jobs.read(tmp_path / "state", "one").about
