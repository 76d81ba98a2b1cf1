"""The seccomp filter of a sandbox as BPF bytes, without a library. Pure.

`program` gives the bytes that `prctl(PR_SET_SECCOMP)` and `bwrap --seccomp` take: 8 per instruction. Calls that are
not named are allowed: the filter closes what namespaces and Landlock leave open. That is every family of sockets but
AF_UNIX (no network namespace covers AF_VSOCK), keyrings, handles of files, io_uring, new namespaces, and memory that
belongs to no process. `strict` is for Landlock, which leaves the host's processes and the owner's rights on files in
view.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, StrEnum

from nemotron_ops.sandbox.syscalls import NUMBERS


class Machine(StrEnum):
    X86_64 = "x86_64"
    ARM64 = "aarch64"


AUDIT = {Machine.X86_64: 0xC000003E, Machine.ARM64: 0xC00000B7}
X32 = 0x40000000  # x86-64 numbers from here on are the x32 ABI: the same calls under other numbers

EPERM, EACCES, ENOSYS, EAFNOSUPPORT = 1, 13, 38, 97
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
LD, JEQ, JGE, JSET, RET = 0x20, 0x15, 0x35, 0x45, 0x06
NR, ARCH, ARGS = 0, 4, 16  # offsets in struct seccomp_data

AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
NEW_NAMESPACES = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
TIOCSTI, TIOCLINUX, FIOSETOWN, SIOCSPGRP = 0x5412, 0x541C, 0x8901, 0x8902
F_SETOWN, F_SETOWN_EX = 8, 15
O_ACCMODE, O_TRUNC = 3, 0x200

# libc falls back from clone3 to clone, whose flags a filter can read, and from memfd_create to a file
MISSING = (
    *("clone3", "io_uring_setup", "io_uring_enter", "io_uring_register", "memfd_create", "memfd_secret"),
    *("shmget", "msgget", "semget", "userfaultfd", "bpf", "perf_event_open"),
)
REFUSED = (
    *("add_key", "request_key", "keyctl", "open_by_handle_at", "name_to_handle_at"),
    *("ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd", "process_madvise", "process_mrelease"),
    *("unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "open_tree_attr"),
    *("fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "fanotify_init", "fanotify_mark"),
    *("kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "create_module"),
    *("get_kernel_syms", "query_module", "reboot", "swapon", "swapoff", "acct", "quotactl", "quotactl_fd"),
    *("settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "syslog", "sethostname", "setdomainname"),
    *("iopl", "ioperm", "modify_ldt", "vhangup", "lookup_dcookie", "nfsservctl", "uselib", "ustat", "sysfs"),
    *("_sysctl", "mbind", "set_mempolicy", "migrate_pages", "move_pages", "listns"),
)
# Landlock does not govern owners' rights (chmod, chown, times, attributes), watches, queues and mount tables; without
# new sessions and groups, one signal to the group reaches every process of the sandbox
STRICT_REFUSED = (
    *("setsid", "setpgid", "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat"),
    *("utime", "utimes", "futimesat", "utimensat", "setxattr", "lsetxattr", "fsetxattr", "setxattrat", "removexattr"),
    *("lremovexattr", "fremovexattr", "removexattrat", "file_setattr", "inotify_init", "inotify_init1"),
    *("inotify_add_watch", "mq_open", "mq_unlink", "shmat", "shmctl", "msgsnd", "msgrcv", "msgctl", "semop"),
    *("semtimedop", "semctl", "statmount", "listmount", "ioprio_set", "socket"),
)
SIGNALS = ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal")
OWN_ONLY = ("prlimit64", "sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr")


@dataclass(frozen=True, kw_only=True)
class Strict:
    """What Landlock of this kernel lacks: signals before version 6, truncation before version 3."""

    signals: bool  # refuse all signals to other processes
    truncation: bool  # refuse truncation by path


class Sockets(Enum):
    """Families of sockets that a sandbox may make. With the host's network, AF_UNIX reaches its abstract sockets."""

    LOCAL = (AF_UNIX,)
    INTERNET = (AF_INET, AF_INET6)


Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant


def program(machine: Machine, strict: Strict | None = None, *, sockets: Sockets = Sockets.LOCAL) -> bytes:
    """The filter for one architecture. `strict` adds the rules that Landlock needs beside it."""
    return b"".join(struct.pack("<HBBI", *i) for i in instructions(machine, strict, sockets=sockets))


def instructions(
    machine: Machine, strict: Strict | None = None, *, sockets: Sockets = Sockets.LOCAL
) -> list[Instruction]:
    """The filter's instructions, in order; the first rule that fits a call decides it."""
    code: list[Instruction] = [(LD, 0, 0, ARCH), (JEQ, 1, 0, AUDIT[machine]), _error(ENOSYS), (LD, 0, 0, NR)]
    if machine is Machine.X86_64:
        code += [(JGE, 0, 1, X32), _error(ENOSYS)]
    code += _all(machine, MISSING, ENOSYS)
    code += _all(machine, REFUSED, EPERM)
    code += _when(machine, "clone", [(LD, 0, 0, _low(0)), (JSET, 0, 1, NEW_NAMESPACES), _error(EPERM)])
    if strict:
        code += _strict(machine, strict)
    code += _when(machine, "socketpair", _only(0, AF_UNIX, EAFNOSUPPORT))
    code += _when(machine, "socket", _one_of(0, sockets.value, EAFNOSUPPORT))
    code += _when(machine, "ioctl", _none(1, (TIOCSTI, TIOCLINUX, *((FIOSETOWN, SIOCSPGRP) if strict else ()))))
    return [*code, (RET, 0, 0, ALLOW)]


def _strict(machine: Machine, strict: Strict) -> Iterator[Instruction]:
    yield from _all(machine, STRICT_REFUSED, EPERM)
    if strict.signals:
        yield from _all(machine, SIGNALS, EPERM)
    if strict.truncation:
        yield from _all(machine, ("truncate",), EPERM)
        yield from _all(machine, ("openat2",), ENOSYS)  # its flags are in memory, where a filter cannot read
        yield from _when(machine, "openat", _truncating(2))
        yield from _when(machine, "open", _truncating(1))
    for name in OWN_ONLY:
        yield from _when(machine, name, _only(0, 0, EPERM))
    yield from _when(machine, "setpriority", [*_only(0, 0, EPERM), *_only(1, 0, EPERM)])
    yield from _when(machine, "fcntl", _none(1, (F_SETOWN, F_SETOWN_EX)))


def _all(machine: Machine, names: Iterable[str], errno: int) -> Iterator[Instruction]:
    """Each of these calls answers `errno`."""
    for name in names:
        if (number := _number(machine, name)) is not None:
            yield from ((JEQ, 0, 1, number), _error(errno))


def _when(machine: Machine, name: str, rule: list[Instruction]) -> list[Instruction]:
    """`rule` for one call only; what it does not decide goes on to the next rule."""
    number = _number(machine, name)
    if number is None:
        return []
    body = [*rule, (LD, 0, 0, NR)]
    return [(JEQ, 0, len(body), number), *body]


def _only(argument: int, value: int, errno: int) -> list[Instruction]:
    """The low half of `argument` must be `value`."""
    return [(LD, 0, 0, _low(argument)), (JEQ, 1, 0, value), _error(errno)]


def _one_of(argument: int, values: tuple[int, ...], errno: int) -> list[Instruction]:
    """The low half of `argument` must be one of `values`."""
    tests = [(JEQ, len(values) - place, 0, value) for place, value in enumerate(values)]
    return [(LD, 0, 0, _low(argument)), *tests, _error(errno)]


def _none(argument: int, values: tuple[int, ...]) -> list[Instruction]:
    """The low half of `argument` must be none of `values`: the kernel reads these as 32 bits."""
    tests: list[Instruction] = [i for value in values for i in ((JEQ, 0, 1, value), _error(EPERM))]
    return [(LD, 0, 0, _low(argument)), *tests]


def _truncating(argument: int) -> list[Instruction]:
    """Open for reading with O_TRUNC, which Landlock before version 3 takes for reading alone."""
    return [(LD, 0, 0, _low(argument)), (JSET, 2, 0, O_ACCMODE), (JSET, 0, 1, O_TRUNC), _error(EPERM)]


def _low(argument: int) -> int:
    return ARGS + 8 * argument  # both architectures are little-endian


def _error(errno: int) -> Instruction:
    return (RET, 0, 0, ERRNO | errno)


def _number(machine: Machine, name: str) -> int | None:
    x86_64, arm64 = NUMBERS[name]
    return x86_64 if machine is Machine.X86_64 else arm64
