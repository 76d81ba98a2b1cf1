"""Processes as the kernel knows them: start, identify, await, signal. Subprocess, /proc, psutil, signals.

The kernel reuses pids: only pid and start time together identify a process. Children get their own session and process
group, so neither Ctrl-C nor a logout reaches them, and a kill of the group includes grandchildren.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

LINUX = sys.platform.startswith("linux")
POLL_S = 0.2  # on kernels without pidfd
OOM_SCORE = 500  # the kernel should kill the model before the supervisor

_children: dict[int, subprocess.Popen[bytes]] = {}  # kept: Python reaps a Popen that is garbage


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Counters of a process; any growth is a sign of life."""

    read_bytes: int = 0
    rss_bytes: int = 0
    cpu_s: float = 0.0


def spawn(
    argv: Sequence[str], *, env: Mapping[str, str], log: Path, pass_fds: Sequence[int] = (), cwd: Path | None = None
) -> int:
    """Start `argv` in a session of its own, its output appended to `log`; returns its pid. Raises OSError."""
    log.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        child = subprocess.Popen(
            list(argv), stdin=subprocess.DEVNULL, stdout=fd, stderr=fd, env=dict(env), cwd=cwd or "/",
            start_new_session=True, pass_fds=tuple(pass_fds),
        )  # fmt: skip
    finally:
        os.close(fd)
    _children[child.pid] = child
    return child.pid


def prefer_for_oom(pid: int) -> None:
    """Make the OOM killer choose this process before our others. Raising the score is always permitted."""
    try:
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(OOM_SCORE))
    except OSError:
        return  # no /proc, or the process has ended


def started(pid: int) -> str | None:
    """The start time of a living `pid` as an opaque word; None if it has ended (a zombie has)."""
    if LINUX:
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return None
        fields = text[text.rindex(")") + 2 :].split()
        return None if fields[0] in "ZX" else f"{boot_id()}-{fields[19]}"
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.3f}"
    except psutil.Error:
        return None


def boot_id() -> str:
    """The first letters of the id of this boot; "" if the kernel has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        return ""


def same(pid: int, started_then: str) -> bool:
    """Whether `pid` is still the process with that start time."""
    return pid > 0 and bool(started_then) and started(pid) == started_then


def argv_of(pid: int) -> tuple[str, ...]:
    try:
        return tuple(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ()


def find_launched(variable: str) -> dict[str, int]:
    """Value of the environment variable -> pid, for all session leaders of this user that have it."""
    if LINUX:
        return _find_in_proc(f"{variable}=".encode())
    found: dict[str, int] = {}
    for process in psutil.process_iter():
        try:
            if process.uids().real != os.getuid() or os.getsid(process.pid) != process.pid:
                continue
            value = process.environ().get(variable)
        except (psutil.Error, OSError):
            continue
        if value:
            found[value] = process.pid
    return found


def _find_in_proc(start: bytes) -> dict[str, int]:
    """`find_launched` without psutil, which takes ten times as long on a machine with many processes."""
    found: dict[str, int] = {}
    for entry in os.scandir("/proc"):
        try:
            if not entry.name.isdigit() or entry.stat().st_uid != os.geteuid():
                continue
            pid = int(entry.name)
            if os.getsid(pid) != pid:
                continue
            words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if value := next((w[len(start) :] for w in words if w.startswith(start)), b""):
            found[value.decode(errors="replace")] = pid
    return found


def usage(pid: int) -> Usage:
    """Bytes read, resident size and CPU time of `pid`; zeros if the system does not report them."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            rss = process.memory_info().rss
        io = process.io_counters() if hasattr(process, "io_counters") else None
    except (psutil.Error, OSError):
        return Usage()
    read = getattr(io, "read_chars", 0) or getattr(io, "read_bytes", 0) if io else 0
    return Usage(read_bytes=int(read), rss_bytes=int(rss), cpu_s=float(times.user + times.system))


async def ended(pid: int, started_then: str) -> int | None:
    """Waits for the end of the process. Its exit code if it was our child (negative for a signal), else None."""
    if hasattr(os, "pidfd_open"):
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return reap(pid)
        except OSError:
            fd = -1  # an old kernel
        if fd >= 0 and same_or_zombie(pid, started_then):
            return await _readable(fd, pid)
        if fd >= 0:
            os.close(fd)
            return None
    while True:
        code = reap(pid)
        if code is not None or not same(pid, started_then):
            return code
        await asyncio.sleep(POLL_S)


async def _readable(fd: int, pid: int) -> int | None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(fd, ended.set)
    try:
        await ended.wait()
        return reap(pid)
    finally:
        loop.remove_reader(fd)
        os.close(fd)


def same_or_zombie(pid: int, started_then: str) -> bool:
    """`same`, or a zombie that its parent has not reaped."""
    now = started(pid)
    return now == started_then or now is None


def reap(pid: int) -> int | None:
    """The exit code of our ended child `pid`; None if it runs or is not our child."""
    if child := _children.get(pid):
        if child.poll() is not None:
            del _children[pid]
        return child.returncode
    try:
        got, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if got else None


def send(pid: int, started_then: str, sig: signal.Signals, *, group: bool = False) -> bool:
    """Signal the process or its whole group, never another process with the same pid; False if it has ended."""
    if not group and not same(pid, started_then):
        return False
    if group and (now := started(pid)) is not None and now != started_then:
        return False
    try:
        (os.killpg if group else os.kill)(pid, sig)
    except ProcessLookupError:
        return False
    return True
