"""One supervisor per state directory, and a runtime folder of its own. flock, disk.

The kernel releases the lock when its holder ends in any way, so a stale lock cannot exist.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path

from nemotron_ops.errors import ControlError
from nemotron_ops.files import flock
from nemotron_ops.paths import Layout


def lock_path(layout: Layout) -> Path:
    return layout.state / "supervisor.lock"


def take(layout: Layout, *, inherited_fd: int | None = None) -> int:
    """The lock as an open descriptor; closing it releases it. Raises ControlError with the holder's pid."""
    layout.state.mkdir(parents=True, exist_ok=True)
    try:
        fd = inherited_fd if inherited_fd is not None else os.open(lock_path(layout), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as exc:
        raise ControlError(
            f"cannot lock {lock_path(layout)}: {exc.strerror}", hint="move it away and try again"
        ) from exc
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
    with suppress(OSError):  # a full disk: the lock holds without the pid in it
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def holder(layout: Layout) -> int | None:
    """The pid of the supervisor that holds the lock; None if it is free."""
    try:
        fd = os.open(lock_path(layout), os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, IsADirectoryError):
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


def make_private(layout: Layout) -> None:
    """Make the runtime folder with mode 0700. Raises ControlError if it is a link or belongs to another user."""
    layout.runtime.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = layout.runtime.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise ControlError(f"cannot use {layout.runtime}: it is a link", hint="set NEMOTRON_OPS_RUNTIME to its target")
    if status.st_uid != os.geteuid():
        raise ControlError(f"cannot use {layout.runtime}: it belongs to user {status.st_uid}")
    if status.st_mode & 0o077:
        layout.runtime.chmod(0o700)
