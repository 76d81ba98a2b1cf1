"""Served models are drained or stopped while a job trains, and always put back: also after a kill. Costs 20 s."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.errors import UsageError
from nemotron_ops.installation import Installation as Here
from nemotron_ops.operations.tune_lend import Lent, lent, read, wait_for_room
from nemotron_ops.paths import user_layout
from nemotron_ops.tune import jobs, trainer
from tests.stages.installation import Installation, installation_in

pytestmark = pytest.mark.real
# works on a job: takes the instances, starts a trainer that sleeps, and is killed
WORKER = """
import os, sys, time
from nemotron_ops.installation import Installation
from nemotron_ops.operations.tune_lend import lent
from nemotron_ops.paths import user_layout
from nemotron_ops.tune import jobs, trainer
here = Installation(layout=user_layout(dict(os.environ), uid=os.getuid()), env=dict(os.environ))
folder = jobs.folder_of(here.layout.state, "one")
folder.mkdir(parents=True)
code = "import os, sys, time; os.pwrite(int(sys.argv[2]), b'{\\"pid\\": %d}' % os.getpid(), 0); time.sleep(300)"
with lent("one", sys.argv[1], here):
    trainer.start([sys.executable, "-c", code], folder, os.environ)
    print("taken", flush=True)
    time.sleep(300)
"""


@pytest.fixture
def serving(tmp_path: Path, llama_bin: Path, free_port: Callable[[], int]) -> Iterator[Installation]:
    installation = installation_in(tmp_path / "home", llama_bin)
    installation.run("serve", "tiny", "--detach", "--port", str(free_port()))
    yield installation
    installation.run("stop", "--now")


def here_of(installation: Installation) -> Here:
    return Here(layout=user_layout(installation.env, uid=os.getuid()), env=installation.env)


def tiny(installation: Installation) -> dict[str, Any]:
    (instance,) = installation.json("status")["instances"]
    return dict(instance)


def fails_while_it_has_the_machine(serving: Installation, here: Here) -> None:
    with lent("one", "stop", here):
        assert (tiny(serving)["state"], tiny(serving)["wanted"]) == ("stopped", False)
        with pytest.raises(UsageError, match="one has it"), lent("two", "stop", here):
            pass
        raise RuntimeError


def test_stopped_while_a_job_trains_and_back_afterwards_also_after_an_error(
    serving: Installation, eventually: Callable[..., None]
) -> None:
    here = here_of(serving)
    with pytest.raises(RuntimeError):
        fails_while_it_has_the_machine(serving, here)
    eventually(lambda: tiny(serving)["state"] == "ready")
    assert read(here.layout.state) is None


def test_drained_while_a_job_trains_and_loaded_all_the_time(serving: Installation) -> None:
    before = tiny(serving)["pid"]
    with lent("one", "hold", here_of(serving)):
        assert tiny(serving)["draining"]
    assert (tiny(serving)["draining"], tiny(serving)["pid"]) == (False, before)
    wait_for_room(lambda: True, here_of(serving))  # nothing is in flight
    assert serving.json("chat", "tiny", "--once", "Hello")["content"]


def killed(serving: Installation) -> Path:
    """The job's folder, after its worker took the instances and was killed; its trainer goes on."""
    argv = [sys.executable, "-c", WORKER, "stop"]
    with subprocess.Popen(argv, env=serving.env, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "taken\n"
        worker.kill()
    return jobs.folder_of(serving.home / "state", "one")


def test_a_killed_job_gives_back_what_it_had_once_its_trainer_ends(
    serving: Installation, eventually: Callable[..., None]
) -> None:
    folder = killed(serving)
    eventually(lambda: trainer.pid_of(folder))
    assert tiny(serving)["state"] == "stopped"
    os.kill(trainer.pid_of(folder), signal.SIGKILL)
    eventually(lambda: tiny(serving)["state"] == "ready")
    eventually(lambda: read(serving.home / "state") is None)


def test_without_its_supervisor_the_next_one_starts_what_was_lent(
    serving: Installation, free_port: Callable[[], int], eventually: Callable[..., None]
) -> None:
    folder = killed(serving)
    eventually(lambda: trainer.pid_of(folder))
    serving.run("stop", "--now")
    found = read(serving.home / "state")
    assert isinstance(found, Lent)
    os.kill(trainer.pid_of(folder), signal.SIGKILL)
    eventually(lambda: read(serving.home / "state") is None)
    serving.run("serve", "tiny", "--detach", "--port", str(free_port()))
    assert tiny(serving)["state"] == "ready"
