"""One budget of jobs for all builds of a store: a GNU make job server for ninja. Disk.

    builds/.jobs/fifo     one byte per free job; each build has one further job of its own
    builds/.jobs/lock     a shared lock, held by every participating build and, if it is killed, by its compilers

The first build makes a new pipe and fills it; later builds take jobs from it. Jobs that a killed build had taken are
lost to the builds beside it, not to later ones; every build can always continue with its own job.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nemotron_ops.files import flock, locked
from nemotron_ops.host.facts import Tool

NINJA = (1, 13)  # the first version that is a job server client


@dataclass(frozen=True, kw_only=True)
class Share:
    """Participation in the budget: ninja's MAKEFLAGS, and the descriptor of the shared lock."""

    makeflags: str
    lock: int


def understands(ninja: Tool) -> bool:
    """Whether this ninja takes its jobs from a job server."""
    return ninja.version >= NINJA


@contextmanager
def shared(folder: Path, jobs: int) -> Iterator[Share | None]:
    """Take part in the budget in `folder`; the first participant makes it of size `jobs`.

    Yields None where the file system has no pipes: then each build uses its own number of jobs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fifo, path = folder / "fifo", folder / "lock"
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    pipe = -1
    try:
        with locked(folder / "entering"):
            alone = _is_alone(lock, path)
            pipe = _opened(fifo, fresh=alone)
            if alone and pipe >= 0:
                os.write(pipe, b"+" * (jobs - 1))
            flock(lock, fcntl.LOCK_SH, path)
        yield Share(makeflags=f"--jobserver-auth=fifo:{fifo}", lock=lock) if pipe >= 0 else None
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)  # for all that inherited it, such as a compiler cache's server
        if pipe >= 0:
            os.close(pipe)
        os.close(lock)


def _opened(fifo: Path, *, fresh: bool) -> int:
    """The pipe, which keeps its bytes while a build has it open; -1 if the file system has no pipes."""
    try:
        if fresh or not fifo.exists():
            fifo.unlink(missing_ok=True)
            os.mkfifo(fifo, 0o600)
        return os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return -1


def _is_alone(lock: int, path: Path) -> bool:
    """Whether no other process takes part."""
    try:
        flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, path)
    except BlockingIOError:
        return False
    return True
