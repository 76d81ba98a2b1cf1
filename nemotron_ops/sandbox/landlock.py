"""Rules of the Landlock wall, by the version that the kernel has. Pure.

`rules` gives numbers for `landlock_create_ruleset(2)` and `landlock_add_rule(2)`; the kernel process applies them to
itself before it runs code. Landlock does not hide names: `stat` and `readlink` work on every path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nemotron_ops.sandbox.filter import Strict

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_CHAR, MAKE_DIR = 1 << 4, 1 << 5, 1 << 6, 1 << 7
MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK = 1 << 8, 1 << 9, 1 << 10, 1 << 11
MAKE_SYM, REFER, TRUNCATE, IOCTL_DEV = 1 << 12, 1 << 13, 1 << 14, 1 << 15
BIND_TCP, CONNECT_TCP = 1 << 0, 1 << 1
ABSTRACT_SOCKETS, SIGNALS = 1 << 0, 1 << 1

SCOPED_SINCE = 6  # signals and abstract sockets stay inside
TRUNCATION_SINCE = 3
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Arguments of the system calls; `paths` are pairs of a path and the rights below it."""

    handled_fs: int
    handled_net: int
    scoped: int
    paths: tuple[tuple[str, int], ...]


def rules(abi: int, *, readable: Sequence[str], work: str) -> Rules:
    """Read and execute below `readable`, all ordinary rights below `work`, nothing else."""
    handled = (1 << 13) - 1
    handled |= REFER if abi >= 2 else 0
    handled |= TRUNCATE if abi >= TRUNCATION_SINCE else 0
    handled |= IOCTL_DEV if abi >= 5 else 0
    inside = handled & ~(MAKE_CHAR | MAKE_BLOCK | MAKE_SOCK | IOCTL_DEV)
    devices = READ_FILE | WRITE_FILE | (TRUNCATE & handled)
    return Rules(
        handled_fs=handled,
        handled_net=BIND_TCP | CONNECT_TCP if abi >= 4 else 0,
        scoped=ABSTRACT_SOCKETS | SIGNALS if abi >= SCOPED_SINCE else 0,
        paths=(
            *((path, EXECUTE | READ_FILE | READ_DIR) for path in readable),
            (work, inside),
            *((path, devices) for path in DEVICES),
        ),
    )


def strict(abi: int) -> Strict:
    """What the seccomp filter has to add to this version."""
    return Strict(signals=abi < SCOPED_SINCE, truncation=abi < TRUNCATION_SINCE)
