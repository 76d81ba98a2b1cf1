"""Facts -> backends in order of their strength, with the reason why each cannot be used. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MACHINES = ("x86_64", "aarch64")
INSTALL_BWRAP = "apt-get install bubblewrap (Debian, Ubuntu), dnf install bubblewrap (Fedora)"
INSTALL_TOOLS = "pip install 'nemotron-ops[tools]'"


class Backend(StrEnum):
    BUBBLEWRAP = "bubblewrap"
    BUBBLEWRAP_WHEEL = "bubblewrap-wheel"
    LANDLOCK = "landlock"
    SEATBELT = "seatbelt"
    MONTY = "monty"


ABOUT = {
    Backend.BUBBLEWRAP: "namespaces and seccomp, by the system's bubblewrap",
    Backend.BUBBLEWRAP_WHEEL: "namespaces and seccomp, by the bubblewrap of a Python wheel",
    Backend.LANDLOCK: "Landlock and seccomp, without namespaces; no sockets, no new sessions",
    Backend.SEATBELT: "macOS' Seatbelt",
    Backend.MONTY: "a limited Python interpreter: no bash, no packages, no files",
}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What this machine has for a wall. Paths are "" where there is nothing."""

    system: str = "Linux"
    machine: str = "x86_64"
    release: str = ""
    bwrap: str = ""
    bwrap_version: str = ""
    wheel: str = ""
    wheel_version: str = ""
    landlock_abi: int = 0
    seatbelt: bool = False
    monty: str = ""  # version
    root: bool = False
    uid: int = 0
    boot: str = ""
    userns_limits: tuple[str, ...] = ()  # settings of this kernel that refuse user namespaces, in words


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One backend. `reason` is "" if it may be tried; `identity` names what its verdict is valid for."""

    backend: Backend
    reason: str = ""
    fix: str = ""
    program: str = ""
    landlock_abi: int = 0
    identity: str = ""

    @property
    def usable(self) -> bool:
        return not self.reason


def candidates(facts: Facts) -> tuple[Candidate, ...]:
    """All backends, strongest first; those that cannot be used say why and what would change that."""
    return (
        _bubblewrap(facts, Backend.BUBBLEWRAP, facts.bwrap, facts.bwrap_version, INSTALL_BWRAP),
        _bubblewrap(facts, Backend.BUBBLEWRAP_WHEEL, facts.wheel, facts.wheel_version, INSTALL_TOOLS),
        _landlock(facts),
        _seatbelt(facts),
        _monty(facts),
    )


def refusal(tried: tuple[Candidate, ...]) -> tuple[str, str]:
    """The error's text and its hint, after the last backend has failed."""
    reasons = "; ".join(f"{c.backend}: {c.reason}" for c in tried)
    fixes = list(dict.fromkeys(c.fix for c in tried if c.fix))
    return f"cannot run code: no sandbox works here: {reasons}", "; or ".join(fixes)


def _bubblewrap(facts: Facts, backend: Backend, program: str, version: str, install: str) -> Candidate:
    if facts.system != "Linux":
        return Candidate(backend=backend, reason="needs Linux")
    if facts.machine not in MACHINES:
        return Candidate(backend=backend, reason=f"no seccomp filter for {facts.machine}")
    if not program:
        return Candidate(backend=backend, reason="not installed", fix=install)
    identity = f"{program} {version} {' '.join(facts.userns_limits)}"
    return Candidate(backend=backend, program=program, identity=identity, fix=_userns_fix(facts))


def _userns_fix(facts: Facts) -> str:
    """The command that lets bubblewrap make namespaces, where a setting of the kernel refuses them."""
    fixes = {
        "kernel.apparmor_restrict_unprivileged_userns": "install the AppArmor profile bwrap-userns-restrict "
        "(apt-get install apparmor-profiles)",
        "user.max_user_namespaces": "sysctl -w user.max_user_namespaces=15000",
        "kernel.unprivileged_userns_clone": "sysctl -w kernel.unprivileged_userns_clone=1",
    }
    names = (limit.split("=")[0] for limit in facts.userns_limits)
    return "; ".join(fixes[name] for name in names if name in fixes)


def _landlock(facts: Facts) -> Candidate:
    backend = Backend.LANDLOCK
    if facts.system != "Linux":
        return Candidate(backend=backend, reason="needs Linux")
    if facts.machine not in MACHINES:
        return Candidate(backend=backend, reason=f"no seccomp filter for {facts.machine}")
    if facts.landlock_abi < 1:
        reason = f"this kernel ({facts.release}) has no Landlock, or a filter refuses it"
        return Candidate(
            backend=backend, reason=reason, fix="a kernel from 5.13 on with Landlock enabled (lsm=landlock)"
        )
    abi = facts.landlock_abi
    return Candidate(backend=backend, landlock_abi=abi, identity=f"landlock {abi}")


def _seatbelt(facts: Facts) -> Candidate:
    backend = Backend.SEATBELT
    if facts.system != "Darwin":
        return Candidate(backend=backend, reason="needs macOS")
    if not facts.seatbelt:
        return Candidate(backend=backend, reason="/usr/bin/sandbox-exec is missing")
    return Candidate(backend=backend, program="/usr/bin/sandbox-exec", identity=f"seatbelt {facts.release}")


def _monty(facts: Facts) -> Candidate:
    backend = Backend.MONTY
    if not facts.monty:
        return Candidate(backend=backend, reason="the package pydantic-monty is not installed", fix=INSTALL_TOOLS)
    return Candidate(backend=backend, identity=f"monty {facts.monty}")
