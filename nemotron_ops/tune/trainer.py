"""The trainer as a process that outlives its starter: found again by the lock that it inherits. Processes, disk.

    JOB/trainer.lock   locked from before the trainer's first instruction to its end; its content is {"pid", "end"}

The starter takes the lock and passes its descriptor on, so there is no moment at which a second trainer could start.
The pid appears once the trainer has its modules, `end` is its exit code: without one it was killed.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nemotron_ops.errors import NemotronOpsError, UsageError
from nemotron_ops.files import flock, read_json

LOCK = "trainer.lock"
KILLED = -int(signal.SIGKILL)


@dataclass(kw_only=True)
class Trainer:
    """A trainer of the job in `folder`: a child of this process, or one that another process has started."""

    folder: Path
    child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its pid; 0 while another's trainer loads its modules."""
        return self.child.pid if self.child else pid_of(self.folder)

    def end(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        if self.child:
            return self.child.poll()
        if held(self.folder):
            return None
        value = _content(self.folder).get("end")
        return KILLED if value is None else value

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs and its pid is known."""
        if self.end() is None and (pid := self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def start(argv: Sequence[str], folder: Path, env: Mapping[str, str]) -> Trainer:
    """Start a trainer in a session of its own; its output is added to JOB/trainer.log.

    Raises UsageError if one is at work.
    """
    fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, folder / LOCK)
        except BlockingIOError:
            raise UsageError(f"cannot train {folder.name}: a trainer is at work") from None
        os.ftruncate(fd, 0)
        with (folder / "trainer.log").open("ab") as out:
            child = subprocess.Popen(
                [*argv, str(folder), str(fd)], env=dict(env), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True, pass_fds=(fd,),
            )  # fmt: skip
    finally:
        os.close(fd)
    return Trainer(folder=folder, child=child)


def at_work(folder: Path) -> Trainer | None:
    """The trainer that another process has started, if it runs."""
    return Trainer(folder=folder) if held(folder) else None


def held(folder: Path) -> bool:
    """Whether a trainer of the job runs."""
    try:
        fd = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, folder / LOCK)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def pid_of(folder: Path) -> int:
    """The pid of the job's trainer; 0 where none runs, or it has not told its pid yet."""
    return (_content(folder).get("pid") or 0) if held(folder) else 0


def _content(folder: Path) -> dict[str, int]:
    try:
        value = read_json(folder / LOCK)
    except NemotronOpsError:  # as it is written
        return {}
    return value if isinstance(value, dict) else {}
