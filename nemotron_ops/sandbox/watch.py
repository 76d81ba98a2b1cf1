"""Memory, processes and disk of a running sandbox, seen from outside. /proc, disk.

The kernel bounds one process exactly (RLIMIT_DATA, RLIMIT_FSIZE, the size of a tmpfs). What is left for a watch is
what several processes have together, files of no size, and a work folder that is one of the host's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from nemotron_ops.sandbox.limits import Limit, Limits

PERIOD_S = 0.02
OWN_PROCESSES = 3  # bubblewrap's two, and the kernel process
BLOCK = 512  # unit of st_blocks

DEEPEST = 200  # folders within folders; a walk of more would end with the interpreter's stack


def exceeded(pids: Sequence[int], work_fd: int, limits: Limits, *, on_host: bool) -> str | None:
    """The name of a limit that the sandbox has passed, or None."""
    if len(pids) > limits.processes + OWN_PROCESSES:
        return Limit.PROCESSES
    if memory_over(pids, limits.memory_bytes):
        return Limit.MEMORY
    if on_host:
        return folder_over(work_fd, pids, limits)
    full = os.fstatvfs(work_fd)
    return Limit.FILES if full.f_files - full.f_ffree > limits.files else None


def memory_over(pids: Sequence[int], most: int) -> bool:
    """Whether all processes together have more than `most` bytes that are no files.

    Resident bytes count pages that forked processes share once for each: they only decide whether to look closely.
    """
    return sum(map(resident_bytes, pids)) > most and sum(map(proportional_bytes, pids)) > most


def resident_bytes(pid: int) -> int:
    return _kilobytes(f"/proc/{pid}/status", (b"RssAnon:", b"RssShmem:")) * 1024


def proportional_bytes(pid: int) -> int:
    return _kilobytes(f"/proc/{pid}/smaps_rollup", (b"Pss_Anon:", b"Pss_Shmem:")) * 1024


def _kilobytes(path: str, names: tuple[bytes, ...]) -> int:
    total = 0
    with suppress(OSError, ValueError, IndexError), open(path, "rb") as f:
        for line in f.read().splitlines():
            if line.startswith(names):
                total += int(line.split()[1])
    return total


def folder_over(work_fd: int, pids: Sequence[int], limits: Limits) -> str | None:
    """Bytes and files of a work folder without a size of its own, with files that are deleted but open."""
    used = files = 0
    for folder, _, names, fd in os.fwalk(".", dir_fd=work_fd, onerror=None, follow_symlinks=False):
        if folder.count("/") > DEEPEST:
            return Limit.FILES
        for name in names:
            with suppress(OSError):
                used += os.stat(name, dir_fd=fd, follow_symlinks=False).st_blocks * BLOCK
        files += len(names) + 1
        if used > limits.work_bytes or files > limits.files:
            break
    if files > limits.files:
        return Limit.FILES
    return Limit.DISK if used + deleted_bytes(pids) > limits.work_bytes else None


def deleted_bytes(pids: Sequence[int]) -> int:
    """Bytes of files that are open and have no name any more."""
    seen: dict[tuple[int, int], int] = {}
    for pid in pids:
        with suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    found = link.stat()
                    if found.st_nlink == 0:
                        seen[found.st_dev, found.st_ino] = found.st_blocks * BLOCK
    return sum(seen.values())


def nearly_full(work_fd: int) -> bool:
    """Whether a sized work folder has no room left."""
    full = os.fstatvfs(work_fd)
    return full.f_bavail * full.f_frsize < 4096 * 4
