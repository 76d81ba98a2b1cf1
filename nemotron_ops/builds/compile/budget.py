"""One budget of jobs for all builds of a store: a GNU make job server that ninja takes its jobs from. Disk.

    builds/.jobs/fifo     as many bytes as there are jobs to give, less the one that each build has of its own
    builds/.jobs/lock     held, shared, by every build that takes part, and, if it is killed, by its compilers

Whoever comes first makes the pipe anew and fills it; whoever comes later takes from it. Bytes that a killed build had
taken are lost to those beside it, never to those after it: each of them can always go on with its own one.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nemotron_ops.files import locked
from nemotron_ops.host.facts import Tool

NINJA = (1, 13)  # the first that is a client of a job server


@dataclass(frozen=True, kw_only=True)
class Share:
    """A part in the budget: what ninja finds it by, and the descriptor that says we take part."""

    makeflags: str
    lock: int


def understands(ninja: Tool) -> bool:
    """Whether this ninja takes its jobs from a job server."""
    return ninja.version >= NINJA


@contextmanager
def shared(folder: Path, jobs: int) -> Iterator[Share | None]:
    """Take part in the budget in `folder`; `jobs` is its size if nobody takes part yet.

    None where the file system has no pipes: then each build must keep to a number of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fifo, lock = folder / "fifo", os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    pipe = -1
    try:
        with locked(folder / "entering"):
            alone = _is_alone(lock)
            pipe = _opened(fifo, anew=alone)
            if alone and pipe >= 0:
                os.write(pipe, b"+" * (jobs - 1))
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield Share(makeflags=f"--jobserver-auth=fifo:{fifo}", lock=lock) if pipe >= 0 else None
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)  # also for what still has it, such as a compiler cache's server
        if pipe >= 0:
            os.close(pipe)
        os.close(lock)


def _opened(fifo: Path, *, anew: bool) -> int:
    """The pipe, open as long as a build is at work (else it would lose what is in it); -1 if there can be none."""
    try:
        if anew or not fifo.exists():
            fifo.unlink(missing_ok=True)
            os.mkfifo(fifo, 0o600)
        return os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return -1


def _is_alone(lock: int) -> bool:
    """Whether nobody else takes part."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
