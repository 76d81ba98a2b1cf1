"""One supervisor per state directory. flock.

The kernel releases the lock when its holder ends in any way, so a stale lock cannot exist.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from nemotron_ops.errors import ControlError
from nemotron_ops.files import flock
from nemotron_ops.paths import Layout


def lock_path(layout: Layout) -> Path:
    return layout.state / "supervisor.lock"


def take(layout: Layout, *, inherited_fd: int | None = None) -> int:
    """The lock as an open descriptor; closing it releases it. Raises ControlError with the holder's pid."""
    layout.state.mkdir(parents=True, exist_ok=True)
    fd = inherited_fd if inherited_fd is not None else os.open(lock_path(layout), os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(fd, False)
    try:
        flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, lock_path(layout))
    except BlockingIOError as exc:
        pid = os.pread(fd, 32, 0).decode(errors="replace").strip()
        os.close(fd)
        raise ControlError(
            f"cannot start a supervisor: another one is running with pid {pid or 'unknown'}",
            hint="`nemotron-ops status` shows it, `nemotron-ops stop` stops it, `nemotron-ops reload` changes it",
        ) from exc
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def holder(layout: Layout) -> int | None:
    """The pid of the supervisor that holds the lock; None if it is free."""
    try:
        fd = os.open(lock_path(layout), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, lock_path(layout))
    except BlockingIOError:
        text = os.pread(fd, 32, 0).decode(errors="replace").strip()
        return int(text) if text.isdigit() else 0
    else:
        return None
    finally:
        os.close(fd)
