"""Whether the kernel's OOM killer ended a process: cgroup counters and the kernel's log. /sys, /dev/kmsg."""

from __future__ import annotations

import os
import re
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def oom_kills() -> int:
    """How many processes of our cgroup the OOM killer has ended so far; 0 if the system does not report it."""
    try:
        own = re.search(r"^0::(.*)$", Path("/proc/self/cgroup").read_text(), re.M)
        text = (CGROUPS / (own.group(1).lstrip("/") if own else "") / "memory.events").read_text()
    except OSError:
        return 0
    found = re.search(r"^oom_kill (\d+)$", text, re.M)
    return int(found.group(1)) if found else 0


def in_kernel_log(pid: int) -> bool:
    """Whether the kernel's log says that it killed `pid` for lack of memory. False if the log is not readable."""
    try:
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return any(kills(line, pid) for line in _records(fd))
    finally:
        os.close(fd)


def kills(line: str, pid: int) -> bool:
    """`Out of memory: Killed process 4711 (llama-server) …`, also for a memory cgroup."""
    return bool(re.search(rf"(?:Out of memory|Memory cgroup out of memory).*: Killed process {pid} ", line))


def _records(fd: int) -> list[str]:
    lines: list[str] = []
    while True:
        try:
            lines.append(os.read(fd, 8192).decode(errors="replace"))
        except BrokenPipeError:
            continue  # records were overwritten during the read; the next read continues after them
        except OSError:
            return lines  # the end (EAGAIN), or not permitted
