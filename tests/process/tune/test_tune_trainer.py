"""The trainer outlives its starter and is found by its lock, with a stand-in for the trainer. Costs 2 s."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nemotron_ops.errors import UsageError
from nemotron_ops.tune import jobs, trainer
from nemotron_ops.tune.jobs import Asked, Job, State

pytestmark = pytest.mark.process
# tells its pid, waits for SIGTERM, tells its exit code
STAND_IN = """
import json, os, signal, sys
fd = int(sys.argv[2])
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
os.pwrite(fd, json.dumps({"pid": os.getpid()}).encode(), 0)
signal.sigwait({signal.SIGTERM})
os.pwrite(fd, json.dumps({"pid": os.getpid(), "end": 10}).encode(), 0)
sys.exit(10)
"""
STARTER = """
import os, sys
from pathlib import Path
from nemotron_ops.tune import trainer
trainer.start([sys.executable, "-c", sys.argv[2]], Path(sys.argv[1]), os.environ)
os.kill(os.getpid(), 9)
"""
JOB = Job(name="one", recipe="tiny", asked=Asked(target="tiny", data=()), state=State.TRAINING)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A job at work, whose starter was killed right after it had started the trainer."""
    jobs.write(tmp_path, JOB)
    folder = jobs.folder_of(tmp_path, "one")
    assert subprocess.run([sys.executable, "-c", STARTER, folder, STAND_IN], check=False).returncode == -9
    yield folder
    if pid := trainer.pid_of(folder):
        os.kill(pid, signal.SIGKILL)


def test_a_trainer_goes_on_when_its_starter_is_killed_and_is_adopted(
    folder: Path, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    found = trainer.at_work(folder)
    assert found is not None
    assert jobs.read(tmp_path, "one").state is State.TRAINING
    with pytest.raises(UsageError, match="a trainer is at work"):
        trainer.start([sys.executable, "-c", STAND_IN], folder, os.environ)
    with pytest.raises(UsageError, match="cannot remove one"):
        jobs.remove(tmp_path, "one")
    eventually(lambda: found.pid)
    jobs.pause(tmp_path, "one")
    eventually(lambda: found.end() is not None)
    assert found.end() == 10
    assert trainer.at_work(folder) is None
    assert jobs.read(tmp_path, "one").state is State.STOPPED


def test_an_adopted_trainer_without_an_end_was_killed(folder: Path, eventually: Callable[..., None]) -> None:
    found = trainer.at_work(folder)
    assert found is not None
    eventually(lambda: found.pid)
    found.signal(signal.SIGKILL)
    eventually(lambda: found.end() is not None)
    assert found.end() == -9
    again = trainer.start([sys.executable, "-c", STAND_IN], folder, os.environ)  # its lock ended with it
    eventually(lambda: trainer.pid_of(folder) == again.pid)
    again.signal(signal.SIGTERM)
    eventually(lambda: again.end() == 10)
