"""`tune --detach`: a job goes on in a session of its own, without terminal. Processes, disk."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from nemotron_ops.errors import HostError
from nemotron_ops.installation import Installation
from nemotron_ops.operations.detach import tail
from nemotron_ops.proc import SAFE_PATH, python_argv
from nemotron_ops.tune import jobs

POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Detached:
    """The process that works on the job, and where it writes."""

    pid: int
    log: Path


def go_on_detached(name: str, here: Installation) -> Detached:
    """Start `tune resume NAME` in a session of its own; return once it works on the job.

    Raises UsageError where there is no such job, HostError with the last lines of its log if it ends before that.
    """
    state = here.layout.state
    jobs.read(state, name)
    with jobs.working_on(state, name):  # another process at work is told here, not in a log
        pass
    log = jobs.folder_of(state, name) / "worker.log"
    before = log.stat().st_size if log.exists() else 0
    with log.open("ab") as sink:
        child = subprocess.Popen(
            python_argv("nemotron_ops", "tune", "resume", name), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
            start_new_session=True, env={**here.env, **SAFE_PATH},
        )  # fmt: skip
    while jobs.read(state, name).worker[0] != child.pid:
        if child.poll() is not None:
            raise HostError(
                f"cannot go on with {name}: its process ended with {child.returncode}", log_tail=tail(log, since=before)
            )
        time.sleep(POLL_S)
    return Detached(pid=child.pid, log=log)
