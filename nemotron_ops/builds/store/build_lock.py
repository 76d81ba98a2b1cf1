"""The lock that a process holds while it builds or changes one build. Disk."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nemotron_ops.errors import BuildError
from nemotron_ops.files import flock
from nemotron_ops.paths import Layout

LOCK_POLL_S = 0.1


class Busy(BuildError):
    """Another process works on this build."""


@contextmanager
def building(layout: Layout, build_id: str, *, timeout_s: float = -1) -> Iterator[int]:
    """Hold the lock for building `build_id`. Raises Busy if it is taken after `timeout_s` (-1: wait for ever).

    Yields the lock's file descriptor, which compilers inherit: if this process is killed, the lock is held until the
    last compiler has ended, so that no other build writes into the same folder.
    """
    import fcntl  # here: pure parts that know of this module are also imported on Windows

    path = lock_file(layout, build_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _acquire(fd, path, timeout_s)
        try:
            yield fd
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)  # for all that inherited it, such as a compiler cache's server
    finally:
        os.close(fd)


def _acquire(fd: int, path: Path, timeout_s: float) -> None:
    import fcntl

    deadline = time.monotonic() + timeout_s
    while True:
        try:
            flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, path)
            return
        except BlockingIOError as exc:
            if timeout_s >= 0 and time.monotonic() >= deadline:
                raise Busy(f"cannot work on build {path.stem}: it is being built", hint="wait for it to end") from exc
            time.sleep(LOCK_POLL_S)


def is_building(layout: Layout, build_id: str) -> bool:
    """Whether a process holds the lock of `build_id`."""
    if not lock_file(layout, build_id).exists():
        return False
    try:
        with building(layout, build_id, timeout_s=0):
            return False
    except Busy:
        return True


def count_building(layout: Layout) -> int:
    """The number of builds that run now."""
    locks = layout.builds / ".locks"
    return sum(is_building(layout, p.stem) for p in locks.glob("*.lock")) if locks.is_dir() else 0


def lock_file(layout: Layout, build_id: str) -> Path:
    return layout.builds / ".locks" / f"{build_id}.lock"
