"""Lends the machine to a training job: instances are drained or stopped while it trains, and put back. Socket, disk.

    state/tune/lent.json   which instances were taken, for which job, and the process that works on it

The file is written before an instance is taken, and deleted once all are back. A guard, a process in a session of its
own, puts them back where the process that works on the job is killed: once the trainer has ended, too.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from nemotron_ops import files
from nemotron_ops.errors import ControlError, UsageError
from nemotron_ops.installation import Installation
from nemotron_ops.paths import Layout
from nemotron_ops.proc import SAFE_PATH, python_argv
from nemotron_ops.progress import remark
from nemotron_ops.supervisor.control import client
from nemotron_ops.supervisor.records import lock, record
from nemotron_ops.tune import jobs, trainer

POLL_S = 0.1
GONE = frozenset({"stopped", "failed"})


class WhileBusy(StrEnum):
    """What a job does about instances that run: waits for room, takes them out of traffic, or stops them."""

    WAIT = "wait"
    HOLD = "hold"
    STOP = "stop"


@dataclass(frozen=True, kw_only=True)
class Lent:
    """What was taken, and by which process."""

    job: str
    instances: tuple[str, ...]
    worker: tuple[int, float]


@contextmanager
def lent(name: str, how: str, here: Installation) -> Iterator[None]:
    """Lend the machine to the job during the block; instances are put back however the block ends.

    Without a running supervisor nothing is taken. A job that an earlier process has worked on keeps what it has.
    Raises UsageError while another job has them.
    """
    if how not in (WhileBusy.HOLD, WhileBusy.STOP):
        yield
        return
    layout = here.layout
    with _locked(layout):
        before = read(layout.state)
        if before and before.job != name and not left_behind(layout.state):
            raise UsageError(
                f"cannot lend the machine to {name}: {before.job} has it", hint="train one after the other"
            )
        kept = before.instances if before else ()
        status = _status(layout)
        running = [i["instance"] for i in status["instances"] if i["wanted"] and i["state"] not in GONE]
        names = tuple(dict.fromkeys([*kept, *running]))
        if names:
            _write(layout.state, Lent(job=name, instances=names, worker=jobs.myself()))
    guard = _guard(here) if names else None
    try:
        if running:
            _take(name, how, running, here)
        yield
    finally:
        if guard and not trainer.held(jobs.folder_of(layout.state, name)):
            put_back(layout)
            guard.wait()  # it ends once nothing is lent
            remark(here.report, f"back in service: {', '.join(names)}")


def put_back(layout: Layout) -> None:
    """Start what was taken. Without a supervisor, its next start finds these instances wanted."""
    with _locked(layout):
        found = read(layout.state)
        if found is None:
            return
        while not (_asked_to_start(layout, found.instances) or _wanted_at_its_start(layout, found.instances)):
            time.sleep(POLL_S)
        _file(layout.state).unlink()


def left_behind(state: Path) -> bool:
    """Whether instances are lent to a job on which nothing works any more."""
    found = read(state)
    return found is not None and not (jobs.alive(found.worker) or trainer.held(jobs.folder_of(state, found.job)))


def read(state: Path) -> Lent | None:
    """What is lent now."""
    value = files.read_json(_file(state))
    if not isinstance(value, dict):
        return None
    return Lent(job=value["job"], instances=tuple(value["instances"]), worker=tuple(value["worker"]))


def wait_for_room(fits: Callable[[], bool], here: Installation) -> None:
    """Wait until `fits()`, and no instance answers a request."""
    said = False
    while not fits() or _busy(here.layout):
        if not said:
            remark(here.report, "waiting until there is room and no request is answered; Ctrl-C ends the waiting")
        said = True
        time.sleep(POLL_S)


def _take(name: str, how: str, names: list[str], here: Installation) -> None:
    stops = how == WhileBusy.STOP
    remark(here.report, f"{'stopping' if stops else 'draining'} {', '.join(names)} while {name} trains")
    client.request(here.layout, "stop" if stops else "drain", names=names)
    while True:
        own = [i for i in _status(here.layout)["instances"] if i["instance"] in names]
        if all(i["state"] in GONE if stops else not i["inflight"] for i in own):
            return
        time.sleep(POLL_S)


def _asked_to_start(layout: Layout, names: tuple[str, ...]) -> bool:
    """False if no supervisor answers. An instance that is no longer configured is passed over."""
    try:
        known = {i["instance"] for i in client.request(layout, "status")["instances"]}
        if ours := [n for n in names if n in known]:
            client.request(layout, "start", names=ours)
    except ControlError:
        return False
    return True


def _wanted_at_its_start(layout: Layout, names: tuple[str, ...]) -> bool:
    """Forget the stops in the record of a supervisor that does not run. False if one runs, or begins to."""
    try:
        fd = lock.take(layout)
    except ControlError:
        return False
    try:
        held = record.read_held(layout)
        return record.write_held(layout, {n: wanted for n, wanted in held.items() if n not in names})
    finally:
        os.close(fd)


def _status(layout: Layout) -> dict[str, Any]:
    try:
        return client.request(layout, "status")
    except ControlError:
        return {"instances": []}


def _busy(layout: Layout) -> bool:
    return any(i["inflight"] for i in _status(layout)["instances"])


def _guard(here: Installation) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        python_argv("nemotron_ops.operations.tune_guard"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True, env={**here.env, **SAFE_PATH},
    )  # fmt: skip


def _write(state: Path, value: Lent) -> None:
    files.write_json(_file(state), asdict(value), mode=0o600)


def _file(state: Path) -> Path:
    return state / "tune" / "lent.json"


def _locked(layout: Layout) -> Any:
    return files.locked(layout.state / "tune" / ".lent.lock")
