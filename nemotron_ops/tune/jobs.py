"""Training jobs: one folder each, its record, its progress, and who works on it. Disk, processes.

    state/tune/NAME/job.json         what was asked, the state, the process that works on it
    state/tune/NAME/plan.json        what the trainer reads
    state/tune/NAME/samples.jsonl    token ids, and how many of them are the prompt
    state/tune/NAME/progress.jsonl   a line for each step
    state/tune/NAME/trainer.lock     held by the trainer while it lives, also when its starter is gone
    state/tune/NAME/checkpoints/     a checkpoint counts once it has done.json
    state/tune/NAME/adapter.gguf, card.json

A job whose processes are gone without an end is `stopped`: `resume` goes on from its newest whole checkpoint. Where the
trainer has outlived the process that works on the job, the job is `training`, and `resume` adopts the trainer.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil
from filelock import Timeout

from nemotron_ops import files
from nemotron_ops.errors import NemotronOpsError, UsageError
from nemotron_ops.tune import trainer

STEPS_SHOWN = 60


class State(StrEnum):
    """Where a job is. `stopped` is never written: it is what a working state without a process means."""

    PREPARING = "preparing"
    TRAINING = "training"
    EXPORTING = "exporting"
    PROVING = "proving"
    DONE = "done"
    PAUSED = "paused"
    FAILED = "failed"
    STOPPED = "stopped"


ENDED = frozenset({State.DONE, State.PAUSED, State.FAILED})


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a job was asked for. `steps` 0 and `rate` 0 leave them to the recipe."""

    target: str
    data: tuple[str, ...]
    tests: tuple[str, ...] = ()
    checkpoint: str = ""
    experts: bool = False
    steps: int = 0
    rank: int = 0
    rate: float = 0.0
    max_length: int = 0
    seed: int = 0
    while_busy: str = ""


@dataclass(frozen=True, kw_only=True)
class Job:
    """The record of a job. `worker` is the process that runs it: pid and start time."""

    name: str
    recipe: str
    asked: Asked
    state: State = State.PREPARING
    reason: str = ""
    worker: tuple[int, float] = (0, 0.0)
    created_at: float = 0.0
    about: dict[str, Any] = field(default_factory=dict)  # memory, parameters, versions


def folder_of(state: Path, name: str) -> Path:
    """The job's folder."""
    return state / "tune" / name


def write(state: Path, job: Job) -> None:
    """Keep the record."""
    files.write_json(folder_of(state, job.name) / "job.json", asdict(job), mode=0o600)


def read(state: Path, name: str) -> Job:
    """The job called `name`, `stopped` where its process is gone. Raises UsageError if there is none."""
    value = files.read_json(folder_of(state, name) / "job.json")
    if not isinstance(value, dict):
        known = ", ".join(j.name for j in jobs(state)) or "none"
        raise UsageError(f"cannot find job {name}: there is no such job", hint=f"known: {known}")
    asked: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.pop("asked").items()}
    worker = tuple(value.pop("worker"))
    value.pop("trainer", None)  # of an earlier version
    job = Job(asked=Asked(**asked), state=State(value.pop("state")), worker=worker, **value)
    if job.state in ENDED or alive(job.worker):
        return job
    return replace(job, state=State.TRAINING if trainer.held(folder_of(state, name)) else State.STOPPED)


def jobs(state: Path) -> list[Job]:
    """All jobs, the newest first; a folder without a readable record is left out."""
    found = []
    for path in sorted((state / "tune").glob("*/job.json")):
        try:
            found.append(read(state, path.parent.name))
        except (NemotronOpsError, KeyError, TypeError, ValueError):
            continue
    return sorted(found, key=lambda job: -job.created_at)


def progress(state: Path, name: str) -> list[dict[str, Any]]:
    """The steps so far: one entry for each, the last where a resumed job did one again; and the error, if any."""
    steps: dict[int, dict[str, Any]] = {}
    path = folder_of(state, name) / "progress.jsonl"
    if path.exists():
        for line in path.read_text(errors="replace").splitlines():
            try:
                value = json.loads(line)
            except ValueError:  # cut by a kill
                continue
            if "step" in value:
                steps[int(value["step"])] = value
    return [steps[step] for step in sorted(steps)]


def last_error(state: Path, name: str) -> str:
    """What the trainer said about its end."""
    path = folder_of(state, name) / "progress.jsonl"
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return next((str(json.loads(x)["error"]) for x in reversed(lines) if x.startswith('{"error"')), "")


def pause(state: Path, name: str) -> None:
    """Ask the trainer to save and end. Raises UsageError where none is at work."""
    job = read(state, name)
    if not (pid := trainer.pid_of(folder_of(state, name))):
        raise UsageError(f"cannot pause {name}: it is {job.state}, and nothing trains yet")
    os.kill(pid, signal.SIGTERM)


def remove(state: Path, name: str) -> None:
    """Delete a job that nothing works on. Raises UsageError otherwise. What it published stays."""
    job = read(state, name)
    if alive(job.worker) or trainer.held(folder_of(state, name)):
        raise UsageError(f"cannot remove {name}: it is {job.state}", hint=f"`nemotron-ops tune pause {name}` first")
    folder = folder_of(state, name)
    (folder / "job.json").unlink()
    shutil.rmtree(folder)


@contextmanager
def working_on(state: Path, name: str) -> Iterator[None]:
    """Be the one that works on a job. Raises UsageError where another process does."""
    folder = folder_of(state, name)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with files.locked(state / "tune" / f".{name}.lock", timeout_s=0):
            yield
    except Timeout:
        raise UsageError(
            f"cannot work on {name}: another process does", hint=f"`nemotron-ops tune show {name}`"
        ) from None


def myself() -> tuple[int, float]:
    """This process, by pid and start time."""
    return identity(os.getpid())


def identity(pid: int) -> tuple[int, float]:
    """A process, by pid and start time; zeros where it is gone."""
    try:
        return pid, psutil.Process(pid).create_time()
    except psutil.Error:
        return 0, 0.0


def alive(who: tuple[int, float]) -> bool:
    """Whether this very process lives; another one under its pid is not it."""
    if not who[0]:
        return False
    try:
        process = psutil.Process(who[0])
        return abs(process.create_time() - who[1]) < 0.01 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def now() -> float:
    """Seconds since 1970."""
    return time.time()
