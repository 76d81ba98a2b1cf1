"""Starts the processes of one sandbox. Subprocess, pipes.

A child gets exactly the environment of the sandbox: bubblewrap's own is readable inside as `/proc/1/environ`. One
thread starts all children, because Linux sends a child's parent-death signal when the thread that started it ends.
"""

from __future__ import annotations

import json
import os
import platform
import random
import secrets
import stat
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from nemotron_ops.errors import HostError
from nemotron_ops.sandbox import bwrap, filter, landlock, seatbelt
from nemotron_ops.sandbox.choose import Backend, Candidate
from nemotron_ops.sandbox.interpreter import Interpreter, view
from nemotron_ops.sandbox.limits import Limits
from nemotron_ops.sandbox.reap import tasks_of_user
from nemotron_ops.sandbox.remove import remove_tree

LANDLOCK_RULESET_BYTES = ((6, 24), (4, 16), (1, 8))  # size of the attribute, by version
HIGH_UIDS = (0x7000_0000, 0x7FFF_FFFF)  # neither users nor containers are given these (systemd's UIDS-GIDS.md)
LOW_UIDS = (61184, 65519)  # where a container's own users end at 65535
PER_NAMESPACE = (5, 14)  # from this kernel on, RLIMIT_NPROC counts each user namespace by itself
MEMLOCK_BYTES = 64 * 1024
NICE = 10

_starter = ThreadPoolExecutor(1, thread_name_prefix="sandbox-starter")


@dataclass(frozen=True, kw_only=True)
class Order:
    """One sandbox to be started."""

    candidate: Candidate
    interpreter: Interpreter
    limits: Limits
    scratch: Path  # of the host: work folders of walls that have no tmpfs


@dataclass(frozen=True, kw_only=True)
class Inside:
    """What the kernel process is told, as JSON in its first argument."""

    requests: int
    reports: int
    work: str
    rlimits: dict[str, int]
    site: str
    nice: int = NICE
    uid: int | None = None
    landlock: dict[str, Any] | None = None
    filter: str = ""
    guard: int | None = None
    remove: str = ""
    tag: str = ""  # in the command line of the kernel process and its forks: finds what outlived a session


@dataclass(frozen=True, kw_only=True)
class Started:
    """A child and our ends of its pipes. `work` is its work folder on the host, where it has one there."""

    process: subprocess.Popen[bytes]
    requests: int
    reports: int
    stdout: int
    stderr: int
    lifeline: int | None = None
    work: Path | None = None
    tag: str = ""


@dataclass
class _Pipes:
    ours: dict[str, int] = field(default_factory=dict)
    theirs: dict[str, int] = field(default_factory=dict)

    def make(self, name: str, *, we_write: bool) -> None:
        read, write = os.pipe()
        self.ours[name], self.theirs[name] = (write, read) if we_write else (read, write)

    def filled(self, name: str, content: bytes) -> int:
        """A descriptor for the child that gives `content`, which fits a pipe."""
        read, write = os.pipe()
        os.write(write, content)
        os.close(write)
        self.theirs[name] = read
        return read

    def close(self, *, ours: bool) -> None:
        for fd in (*self.theirs.values(), *(self.ours.values() if ours else ())):
            with suppress(OSError):
                os.close(fd)


def start(order: Order) -> Started:
    """Start one sandbox. Raises HostError if a program cannot be started."""
    pipes = _Pipes()
    for name, we_write in (("requests", True), ("reports", False), ("stdout", False), ("stderr", False)):
        pipes.make(name, we_write=we_write)
    try:
        if order.candidate.backend in (Backend.BUBBLEWRAP, Backend.BUBBLEWRAP_WHEEL):
            return _bubblewrap(order, pipes)
        return _in_a_folder(order, pipes)
    except OSError as exc:
        pipes.close(ours=True)
        raise HostError(f"cannot start a sandbox: {exc}") from exc
    except BaseException:
        pipes.close(ours=True)
        raise


def _bubblewrap(order: Order, pipes: _Pipes) -> Started:
    as_root = os.geteuid() == 0
    uid = unused_uid() if as_root else None
    program = filter.program(filter.Machine(platform.machine()))
    wall = bwrap.Wall(
        program=order.candidate.program,
        view=view(order.interpreter),
        work_bytes=order.limits.work_bytes,
        filter_fd=pipes.filled("filter", program),
        passwd_fd=pipes.filled("passwd", bwrap.passwd(uid or bwrap.INSIDE_UID)),
        as_root=as_root,
    )
    inside = replace(_inside(order, pipes, work=bwrap.WORK, toolbox=bwrap.TOOLBOX), uid=uid)
    return _spawn(bwrap.argv(wall, kernel_argv(order.interpreter, inside)), order, pipes, inside)


def _in_a_folder(order: Order, pipes: _Pipes) -> Started:
    """Landlock and Seatbelt: the work folder is one of the host's, and a guard ends what the code started."""
    uid = unused_uid() if os.geteuid() == 0 else None
    own_folder(order.scratch)
    work = Path(tempfile.mkdtemp(prefix="work-", dir=order.scratch)).resolve()
    if uid is not None:
        order.scratch.chmod(0o1777)  # the guard, which has this user id, removes its own folder and no other
        os.chown(work, uid, uid)
    pipes.make("lifeline", we_write=True)
    inside = replace(
        _inside(order, pipes, work=str(work), toolbox=order.interpreter.toolbox),
        guard=pipes.theirs["lifeline"],
        remove=str(work),
    )
    seen = view(order.interpreter)
    toolbox = (seen.toolbox,) if seen.toolbox else ()
    readable = (*seen.folders, *toolbox, *(link for link, _ in seen.links), *bwrap.SYSTEM_FILES)
    if order.candidate.backend is Backend.SEATBELT:
        argv = seatbelt.argv(readable=readable, work=str(work), command=kernel_argv(order.interpreter, inside))
    else:
        inside = replace(inside, **_landlock(order.candidate.landlock_abi, readable, str(work)))
        argv = kernel_argv(order.interpreter, inside)
    return _spawn(argv, order, pipes, inside, work=work, uid=uid)


def _landlock(abi: int, readable: Sequence[str], work: str) -> dict[str, Any]:
    size = next(size for version, size in LANDLOCK_RULESET_BYTES if abi >= version)
    on_files = landlock.EXECUTE | landlock.WRITE_FILE | landlock.READ_FILE | landlock.TRUNCATE | landlock.IOCTL_DEV
    rules = asdict(landlock.rules(abi, readable=readable, work=work)) | {"size": size, "file_rights": on_files}
    program = filter.program(filter.Machine(platform.machine()), landlock.strict(abi))
    return {"landlock": rules, "filter": program.hex()}


def _inside(order: Order, pipes: _Pipes, *, work: str, toolbox: str) -> Inside:
    limits = order.limits
    rlimits = {
        "DATA": limits.memory_bytes, "FSIZE": limits.work_bytes, "NOFILE": limits.open_files, "CORE": 0,
        "MEMLOCK": MEMLOCK_BYTES, "MSGQUEUE": 0, "NPROC": limits.processes + others_of_user(order.candidate.backend),
    }  # fmt: skip
    return Inside(
        requests=pipes.theirs["requests"], reports=pipes.theirs["reports"], work=work, rlimits=rlimits,
        site=order.interpreter.site_below(toolbox),
        tag=secrets.token_hex(8),
    )  # fmt: skip


def others_of_user(backend: Backend) -> int:
    """Processes of this user that the kernel counts together with the sandbox's."""
    release = platform.release().split(".")
    version = (int(release[0]), int("".join(c for c in release[1] if c.isdigit()) or 0))
    namespaced = backend in (Backend.BUBBLEWRAP, Backend.BUBBLEWRAP_WHEEL) and version >= PER_NAMESPACE
    return 2 if namespaced or os.geteuid() == 0 else tasks_of_user(os.geteuid()) + 2


def _spawn(
    argv: Sequence[str],
    order: Order,
    pipes: _Pipes,
    inside: Inside,
    *,
    work: Path | None = None,
    uid: int | None = None,
) -> Started:
    as_user: dict[str, Any] = {} if uid is None else {"user": uid, "group": uid, "extra_groups": []}
    fds = [fd for name, fd in pipes.theirs.items() if name not in ("stdout", "stderr")]
    child = _starter.submit(
        _popen, tuple(argv), env=environment(inside), cwd="/",
        stdin=subprocess.DEVNULL, stdout=pipes.theirs["stdout"], stderr=pipes.theirs["stderr"], pass_fds=fds,
        start_new_session=True, **as_user,
    ).result()  # fmt: skip
    pipes.close(ours=False)
    return Started(process=child, work=work, tag=inside.tag, **pipes.ours)


def _popen(argv: tuple[str, ...], **settings: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, **settings)


def environment(inside: Inside) -> dict[str, str]:
    """All variables that exist inside."""
    work = inside.work
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": work,
        "TMPDIR": f"{work}/.tmp",
        "LANG": "C.UTF-8",
        "USER": "sandbox",
        "TERM": "dumb",
        "MPLBACKEND": "agg",
        "MPLCONFIGDIR": f"{work}/.tmp/matplotlib",
        "OPENBLAS_NUM_THREADS": str(min(os.cpu_count() or 1, 4)),
        "PYTHONDONTWRITEBYTECODE": "1",
        **({"PYTHONPATH": inside.site} if inside.site else {}),  # for a Python that the code starts
    }


def kernel_argv(interpreter: Interpreter, inside: Inside) -> tuple[str, ...]:
    """Python in isolated mode with the kernel's source: `json.py` in the work folder is not the one imported."""
    return (interpreter.python, "-I", "-X", "utf8", "-c", kernel_source(), json.dumps(asdict(inside)))


@cache
def kernel_source() -> str:
    return resources.files("nemotron_ops.sandbox").joinpath("kernel.py").read_text()


def own_folder(path: Path) -> Path:
    """`path`, made if needed. Raises HostError if it is another user's: its owner could exchange what is in it."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise HostError(
            f"cannot use {path}: it is another user's, or a link", hint="remove it, or set NEMOTRON_OPS_RUNTIME"
        )
    return path


def unused_uid() -> int:
    """A user id for one sandbox that nothing else on this machine has."""
    for low, high in (HIGH_UIDS, LOW_UIDS):
        if _mapped(low, high):
            return random.SystemRandom().randint(low, high)
    raise HostError(
        "cannot start a sandbox as root: no unused user id is mapped here",
        hint="run nemotron-ops as an ordinary user",
    )


def _mapped(low: int, high: int) -> bool:
    """Whether these ids exist in our own user namespace."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/uid_map").read_text().splitlines():
            first, _, count = (int(word) for word in line.split())
            if first <= low and high < first + count:
                return True
    return False


def sweep(scratch: Path, *, older_than_s: float = 3600.0) -> None:
    """Remove work folders whose session and guard were both killed."""
    for path in scratch.glob("work-*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > older_than_s:
                remove_tree(path)
