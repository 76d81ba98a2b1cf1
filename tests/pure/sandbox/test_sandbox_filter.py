"""The seccomp filter, decided by an interpreter of BPF: what each call answers, on both architectures."""

from __future__ import annotations

import errno
import struct

import pytest

from nemotron_ops.sandbox import filter, landlock
from nemotron_ops.sandbox.filter import Machine, Strict
from nemotron_ops.sandbox.syscalls import NUMBERS

STRICT = landlock.strict(7)
OLD_STRICT = landlock.strict(1)
BOTH = pytest.mark.parametrize("machine", list(Machine))
CLONE_NEWUSER, CLONE_THREAD_FLAGS = 0x10000000, 0x3D0F00


def answer(machine: Machine, nr: int, *args: int, strict: Strict | None = None, arch: int | None = None) -> int:
    """Run the program on one call: 0 if it is allowed, else the errno."""
    data = struct.pack("<IIQ6Q", nr, arch or filter.AUDIT[machine], 0, *(args + (0,) * 6)[:6])
    code = filter.program(machine, strict)
    program = [struct.unpack_from("<HBBI", code, at) for at in range(0, len(code), 8)]
    at = value = 0
    while True:
        op, yes, no, k = program[at]
        at += 1
        match op:
            case filter.LD:
                (value,) = struct.unpack_from("<I", data, k)
            case filter.JEQ:
                at += yes if value == k else no
            case filter.JGE:
                at += yes if value >= k else no
            case filter.JSET:
                at += yes if value & k else no
            case filter.RET:
                return 0 if k == filter.ALLOW else k & 0xFFFF
            case _:
                raise AssertionError(f"unknown instruction {op:#x}")


def call(machine: Machine, name: str, *args: int, strict: Strict | None = None) -> int | None:
    """The answer to a call by name; None where the architecture does not have it."""
    number = NUMBERS[name][machine is Machine.ARM64]
    return None if number is None else answer(machine, number, *args, strict=strict)


@BOTH
@pytest.mark.parametrize("name", [*filter.REFUSED, *filter.MISSING])
def test_calls_that_reach_the_kernels_other_doors_are_refused(machine: Machine, name: str) -> None:
    wanted = errno.ENOSYS if name in filter.MISSING else errno.EPERM
    assert call(machine, name) in (wanted, None)
    assert call(machine, name, strict=STRICT) in (wanted, None)


@BOTH
def test_ordinary_calls_pass(machine: Machine) -> None:
    for number in (0, 1, 3, 9, 12, 59, 60, 61, 217, 221, 222, 228, 231):  # read, write, mmap, exec and others
        if number not in {pair[machine is Machine.ARM64] for pair in NUMBERS.values()}:
            assert answer(machine, number) == 0


@BOTH
@pytest.mark.parametrize("family", [2, 10, 16, 17, 38, 40])
def test_no_family_of_sockets_but_unix_is_made(machine: Machine, family: int) -> None:
    assert call(machine, "socket", family, 1) == errno.EAFNOSUPPORT
    assert call(machine, "socket", 1 << 32 | family, 1) == errno.EAFNOSUPPORT
    assert call(machine, "socketpair", family, 1) == errno.EAFNOSUPPORT


@BOTH
def test_unix_sockets_exist_behind_namespaces_and_only_as_pairs_behind_landlock(machine: Machine) -> None:
    assert call(machine, "socket", filter.AF_UNIX, 1) == 0
    assert call(machine, "socketpair", filter.AF_UNIX, 1) == 0
    assert call(machine, "socket", filter.AF_UNIX, 1, strict=STRICT) == errno.EPERM
    assert call(machine, "socketpair", filter.AF_UNIX, 1, strict=STRICT) == 0


@BOTH
@pytest.mark.parametrize("bit", [17, 25, 26, 27, 28, 29, 30])
def test_clone_makes_threads_and_no_namespace(machine: Machine, bit: int) -> None:
    assert call(machine, "clone", 1 << bit | 17) == errno.EPERM
    assert call(machine, "clone", CLONE_THREAD_FLAGS) == 0
    assert call(machine, "clone3") == errno.ENOSYS


def test_x32_numbers_and_other_architectures_are_no_way_round() -> None:
    assert answer(Machine.X86_64, 0x40000000 | 41, 2, 1) == errno.ENOSYS
    assert answer(Machine.X86_64, 0x40000000) == errno.ENOSYS
    assert answer(Machine.X86_64, 102, arch=0x40000003) == errno.ENOSYS
    assert answer(Machine.ARM64, 281, arch=0x40000028) == errno.ENOSYS


@BOTH
@pytest.mark.parametrize("request_", [filter.TIOCSTI, filter.TIOCLINUX])
def test_no_key_strokes_are_put_into_a_terminal(machine: Machine, request_: int) -> None:
    assert call(machine, "ioctl", 0, request_) == errno.EPERM
    assert call(machine, "ioctl", 0, 1 << 32 | request_) == errno.EPERM  # the kernel reads 32 bits
    assert call(machine, "ioctl", 0, 0x5401) == 0


@BOTH
def test_landlock_gets_what_it_does_not_govern_refused(machine: Machine) -> None:
    for name in filter.STRICT_REFUSED:
        assert call(machine, name, strict=STRICT) in (errno.EPERM, None), name
    for name in filter.OWN_ONLY:
        assert call(machine, name, 0, strict=STRICT) == 0
        assert call(machine, name, 4711, strict=STRICT) == errno.EPERM
    assert call(machine, "setpriority", 0, 4711, strict=STRICT) == errno.EPERM
    assert call(machine, "setpriority", 2, 0, strict=STRICT) == errno.EPERM
    assert call(machine, "setpriority", 0, 0, strict=STRICT) == 0
    assert call(machine, "fcntl", 3, filter.F_SETOWN, strict=STRICT) == errno.EPERM
    assert call(machine, "fcntl", 3, 1, strict=STRICT) == 0


@BOTH
def test_signals_are_refused_only_where_landlock_does_not_scope_them(machine: Machine) -> None:
    for name in filter.SIGNALS:
        assert call(machine, name, strict=STRICT) == 0
        assert call(machine, name, strict=OLD_STRICT) == errno.EPERM
        assert call(machine, name) == 0


@BOTH
def test_truncation_is_refused_where_landlock_does_not_know_it(machine: Machine) -> None:
    assert call(machine, "truncate", strict=STRICT) == 0
    assert call(machine, "truncate", strict=OLD_STRICT) == errno.EPERM
    assert call(machine, "openat2", strict=OLD_STRICT) == errno.ENOSYS
    assert call(machine, "openat", 0, 0, 0o1000, strict=OLD_STRICT) == errno.EPERM  # O_RDONLY | O_TRUNC
    assert call(machine, "openat", 0, 0, 0o1001, strict=OLD_STRICT) == 0  # for writing: Landlock decides
    assert call(machine, "openat", 0, 0, 0, strict=OLD_STRICT) == 0


@BOTH
def test_the_filter_fits_a_pipe_and_the_kernels_limit(machine: Machine) -> None:
    for strict in (None, STRICT, OLD_STRICT):
        code = filter.program(machine, strict)
        assert len(code) % 8 == 0
        assert len(code) // 8 < 4096  # BPF_MAXINSNS
        assert len(code) < 4096
