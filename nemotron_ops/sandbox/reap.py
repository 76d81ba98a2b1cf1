"""Lists and ends the processes of one sandbox. Signals, /proc."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress

END_S = 5.0


def children(pid: int) -> list[int]:
    """Direct children of a process, of all its threads."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as f:
                found += map(int, f.read().split())
        except FileNotFoundError:
            if not os.path.exists("/proc/self/task/" + str(os.getpid()) + "/children"):
                return _children_by_scan(pid)  # a kernel without CONFIG_PROC_CHILDREN
        except OSError:
            continue
    return found


def _children_by_scan(pid: int) -> list[int]:
    return [p for p in _all_pids() if (stat := _stat(p)) and int(stat[1]) == pid]


def tree(pid: int) -> list[int]:
    """All descendants of a process, nearest first."""
    found: list[int] = []
    level = children(pid)
    while level:
        found += level
        level = [grandchild for child in level for grandchild in children(child)]
    return found


def tasks_of_user(uid: int) -> int:
    """Threads of all processes of a user: what RLIMIT_NPROC counts."""
    total = 0
    for pid in _all_pids():
        with suppress(OSError):
            if os.stat(f"/proc/{pid}").st_uid == uid:
                total += len(os.listdir(f"/proc/{pid}/task"))
    return total


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    return (stat := _stat(pid)) is not None and stat[0] not in ("Z", "X")


def kill(pids: Iterable[int], sig: signal.Signals = signal.SIGKILL) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, sig)


def kill_group(pgid: int, sig: signal.Signals = signal.SIGKILL) -> None:
    """Signal a whole process group, if it still exists."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pgid, sig)


def end_namespace(child: subprocess.Popen[bytes], init_fd: int | None) -> None:
    """End bubblewrap and, by its first process, all others of the namespace; returns when they are gone.

    `init_fd` is a pidfd: bubblewrap may have ended before its namespace has, and a number could be another's by then.
    """
    if init_fd is None:
        kill(tree(child.pid))  # it ended before it was ready
    else:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(init_fd, signal.SIGKILL)
        poll = select.poll()
        poll.register(init_fd, select.POLLIN)
        poll.poll(END_S * 1000)  # the kernel ends a namespace's first process last
    with suppress(subprocess.TimeoutExpired):
        child.wait(0.5)  # bubblewrap ends by itself once its namespace is empty
    child.kill()
    child.wait()


def end_group(child: subprocess.Popen[bytes], pgid: int | None) -> None:
    """End the guard and the group that it guards: before and after the guard is reaped."""
    pids = tree(child.pid)
    if pgid is not None:
        kill_group(pgid)
    kill(pids)
    child.kill()
    child.wait()
    if pgid is not None:
        kill_group(pgid)
    until_gone(pids)


def until_gone(pids: Iterable[int]) -> None:
    """Wait until processes that have been killed are gone or zombies."""
    deadline = time.monotonic() + END_S
    for pid in pids:
        while time.monotonic() < deadline and alive(pid):
            time.sleep(0.001)


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat(pid: int) -> list[str] | None:
    """State, parent, group, … of a process, or None if there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            return f.read().rpartition(")")[2].split()
    except OSError:
        return None
