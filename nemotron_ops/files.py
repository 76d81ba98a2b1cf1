"""Reads and writes small files atomically, locks them, and hashes files. Disk.

A reader never sees half a file: content is written to a temporary file in the same folder, flushed to disk and renamed
over the old file; then the folder is flushed, so that a power cut leaves either the old file or the new one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from nemotron_ops.errors import HostError, NemotronOpsError

# what flock answers on file systems without working locks: NFS without lockd, Lustre mounted without -o flock
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EBADF, errno.EINVAL})


def write_atomic(path: Path, content: bytes | str, *, mode: int = 0o644) -> None:
    """Write `content` to `path` by temp-fsync-rename; parents are made. Raises OSError as the disk does."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(fd, "wb") as f:
            os.fchmod(f.fileno(), mode)
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_dir(path.parent)


def write_json(path: Path, value: Any, *, mode: int = 0o644) -> None:
    """`write_atomic` of `value` as indented JSON with a final newline."""
    write_atomic(path, json.dumps(value, indent=2, sort_keys=False) + "\n", mode=mode)


def read_plain(path: Path) -> bytes:
    """The content of a file that a user named. Raises OSError, also for pipes and devices: those wait, or never end."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a named pipe would wait for its writer
    with os.fdopen(fd, "rb") as f:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
            raise OSError(number, os.strerror(number) if stat.S_ISDIR(mode) else "it is no ordinary file", str(path))
        return f.read()


def read_json(path: Path) -> Any | None:
    """The JSON in `path`, or None if there is no such file. Raises NemotronOpsError if it is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as exc:
        raise NemotronOpsError(
            f"cannot read {path}: not valid JSON ({exc})", hint="move the file away and try again"
        ) from exc


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal. Raises OSError as the disk does."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def sync_dir(path: Path) -> None:
    """Flush a folder's entries to disk (a rename is durable only after this)."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def locked(path: Path, *, timeout_s: float = -1) -> Iterator[None]:
    """Hold an exclusive lock on `path` (made if needed); -1 waits for ever. Raises filelock.Timeout,
    HostError.

    The file is for its owner only: any user who may open it may hold the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    check_locks(path)
    with filelock.FileLock(path, timeout=timeout_s, mode=0o600):
        if path.stat().st_uid == os.geteuid():
            path.chmod(0o600)  # made by an earlier version
        yield


def flock(fd: int, operation: int, path: Path) -> None:
    """`fcntl.flock` of `fd`, an open file at `path`. Raises BlockingIOError if it is taken.

    Raises HostError where the file system has no locks.
    """
    import fcntl  # here, so that `--help` works on Windows, which has none

    try:
        fcntl.flock(fd, operation)
    except BlockingIOError:
        raise
    except OSError as exc:
        if exc.errno not in NO_LOCKS:
            raise
        raise HostError(
            f"cannot lock {path}: {exc.strerror}: its file system has no working locks",
            hint="set NEMOTRON_OPS_HOME to a folder of a local disk, or NEMOTRON_OPS_STATE if only the state is on "
            "such a file system (NFS, Lustre); `nemotron-ops doctor` checks both",
        ) from exc


def check_locks(path: Path) -> None:
    """Raises HostError where the file system of the lock file `path` has no locks; filelock would work on without."""
    import fcntl

    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, path)
    except BlockingIOError:
        return
    finally:
        os.close(fd)
