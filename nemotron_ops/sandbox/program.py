"""A program that keeps its own stdin and stdout, behind bubblewrap's wall: an MCP server. Processes, pipes.

The program's parent starts `words(...)`: this file as a process, which replaces itself by bubblewrap. It hands over
what a caller of another package cannot: descriptors with the seccomp filter and `/etc/passwd`, and exactly the
environment that the sandbox shows as `/proc/1/environ`. Secrets come in that environment, never in arguments.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

from nemotron_ops.proc import python_argv
from nemotron_ops.sandbox import bwrap, filter
from nemotron_ops.sandbox.choose import Backend
from nemotron_ops.sandbox.interpreter import present, view
from nemotron_ops.sandbox.launch import others_of_user, unused_uid
from nemotron_ops.sandbox.limits import MIB

VARIABLES = "NEMOTRON_OPS_PROGRAM_VARIABLES"
PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, kw_only=True)
class Program:
    """One program to be started. `read` and `write` are folders or files of the host, at their own paths."""

    bwrap: str
    command: tuple[str, ...]
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    network: bool = False
    memory_bytes: int = 2048 * MIB  # of each process
    processes: int = 128
    work_bytes: int = 256 * MIB
    open_files: int = 1024


def words(program: Program) -> tuple[str, ...]:
    """The command line that starts `program` behind its wall."""
    return python_argv("nemotron_ops.sandbox.program", json.dumps(asdict(program)))


def handed(variables: Mapping[str, str]) -> dict[str, str]:
    """The program's variables as one of the launcher's, which must not obey them: PYTHONPATH, LD_PRELOAD."""
    return {VARIABLES: json.dumps(dict(variables))}


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """All variables that exist inside, with those that were handed over."""
    own = {"PATH": PATH, "HOME": bwrap.WORK, "TMPDIR": f"{bwrap.WORK}/.tmp", "LANG": "C.UTF-8", "USER": "sandbox"}
    handed_over: dict[str, str] = json.loads(given.get(VARIABLES, "{}"))
    return own | handed_over


def wall_argv(program: Program, *, filter_fd: int, passwd_fd: int, uid: int | None) -> tuple[str, ...]:
    """bubblewrap with all its flags, and the program with its limits."""
    python = present(open_to_all=uid is not None)
    wall = bwrap.Wall(
        program=program.bwrap, view=view(python), work_bytes=program.work_bytes, filter_fd=filter_fd,
        passwd_fd=passwd_fd, as_root=uid is not None, network=program.network, read=program.read, write=program.write,
    )  # fmt: skip
    rlimits = {
        "DATA": program.memory_bytes, "FSIZE": program.work_bytes, "NOFILE": program.open_files, "CORE": 0,
        "MSGQUEUE": 0, "NPROC": program.processes + others_of_user(Backend.BUBBLEWRAP),
    }  # fmt: skip
    inside: dict[str, Any] = {"rlimits": rlimits, "uid": uid, "command": list(program.command)}
    return bwrap.argv(wall, (python.python, "-I", "-c", inside_source(), json.dumps(inside)))


def inside_source() -> str:
    return resources.files("nemotron_ops.sandbox").joinpath("program_inside.py").read_text()


def _filled(content: bytes) -> int:
    """A descriptor, kept over an exec, that gives `content`, which fits a pipe."""
    read, write = os.pipe()
    os.write(write, content)
    os.close(write)
    os.set_inheritable(read, True)
    return read


def main(argv: Sequence[str]) -> None:
    """Replace this process by bubblewrap."""
    value = json.loads(argv[0])
    lists = {name: tuple(value[name]) for name in ("command", "read", "write")}
    program = Program(**{**value, **lists})
    uid = unused_uid() if os.geteuid() == 0 else None
    sockets = filter.Sockets.INTERNET if program.network else filter.Sockets.LOCAL
    bpf = filter.program(filter.Machine(platform.machine()), sockets=sockets)
    fds = {"filter_fd": _filled(bpf), "passwd_fd": _filled(bwrap.passwd(uid or bwrap.INSIDE_UID))}
    os.chdir("/")
    os.execve(program.bwrap, wall_argv(program, uid=uid, **fds), environment(os.environ))


if __name__ == "__main__":
    main(sys.argv[1:])
