"""The facts of a target, where its releases live, and whether a release can run there. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from nemotron_ops.errors import DeployError
from nemotron_ops.service.spec import Scope

OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where releases live on a target, for one scope."""

    scope: Scope
    root: PurePosixPath  # /opt/nemotron-ops, or ~/.local/lib/nemotron-ops
    data: PurePosixPath  # builds and models

    @property
    def releases(self) -> PurePosixPath:
        return self.root / "releases"

    @property
    def incoming(self) -> PurePosixPath:
        return self.root / "incoming"

    @property
    def current(self) -> PurePosixPath:
        return self.root / "current"

    @property
    def previous(self) -> PurePosixPath:
        return self.root / "previous"

    @property
    def program(self) -> PurePosixPath:
        """The program as units name it: through `current`."""
        return self.current / "venv/bin/nemotron-ops"

    def release(self, release: str) -> PurePosixPath:
        return self.releases / release

    def release_program(self, release: str) -> PurePosixPath:
        return self.release(release) / "venv/bin/nemotron-ops"


@dataclass(frozen=True, kw_only=True)
class MachineFacts:
    """The machine, and the account that deploys to it."""

    user: str
    uid: int
    home: str
    hostname: str
    machine: str
    glibc: tuple[int, int] = (0, 0)
    cpu_features: frozenset[str] = frozenset()
    ram_available_bytes: int = 0
    systemd: int = 0  # version, 0 where systemd does not run the machine
    sudo: bool = False  # sudo without a password


@dataclass(frozen=True, kw_only=True)
class PythonFacts:
    """The newest Python that is new enough, or the newest of all."""

    python: str = ""  # its path, "" where there is none
    python_version: tuple[int, int] = (0, 0)


@dataclass(frozen=True, kw_only=True)
class DiskFacts:
    """Free space, and what is stored already."""

    free_bytes: int = 0  # where releases are kept
    data_free_bytes: int = 0  # where builds and models are kept
    one_disk: bool = True  # whether both are on the same file system
    incoming_bytes: int = 0  # received by an interrupted deploy: not sent again
    builds: tuple[str, ...] = ()  # ids of the llama.cpp builds
    models: frozenset[tuple[str, int]] = frozenset()  # name and bytes of each GGUF file


@dataclass(frozen=True, kw_only=True)
class GpuFacts:
    """GPUs, driver and compiler for them."""

    gpus: int = 0  # NVIDIA device nodes
    compute: tuple[int, ...] = ()  # compute capabilities of the NVIDIA GPUs: 90 for 9.0
    driver_cuda: tuple[int, int] = (0, 0)  # newest CUDA that the driver runs
    hip: bool = False  # an AMD GPU, and the compiler for it

    @property
    def backend(self) -> str:
        """What `build` would build for on the target (builds/backends.py: default_backend)."""
        return "cuda" if self.gpus or self.compute else "hip" if self.hip else "cpu"


@dataclass(frozen=True, kw_only=True)
class ReleaseFacts:
    """Names of releases, oldest first."""

    current: str = ""  # the one that `current` points to
    previous: str = ""
    releases: tuple[str, ...] = ()
    good: tuple[str, ...] = ()  # marked good
    bad: tuple[str, ...] = ()  # marked bad


@dataclass(frozen=True, kw_only=True)
class LockFacts:
    """The two locks of a target, as JSON: of a deploy, and of an operator (`deploy lock`)."""

    lock: str = ""  # of the deploy that runs, or was interrupted
    lock_alive: bool = False  # whether its session still exists
    hold: str = ""  # of the operator


@dataclass(frozen=True, kw_only=True)
class TargetFacts(LockFacts, ReleaseFacts, GpuFacts, DiskFacts, PythonFacts, MachineFacts):
    """A target as its facts script found it: one flat record, as `deploy --dry-run --json` prints it."""


def site_for(scope: Scope, *, home: str) -> Site:
    if scope is Scope.SYSTEM:
        return Site(scope=scope, root=PurePosixPath("/opt/nemotron-ops"), data=PurePosixPath("/var/lib/nemotron-ops"))
    base = PurePosixPath(home)
    return Site(scope=scope, root=base / ".local/lib/nemotron-ops", data=base / ".local/share/nemotron-ops")


def check_target(name: str, facts: TargetFacts, scope: Scope) -> None:
    """Raise DeployError, with a hint, where a release cannot run on this target."""
    if facts.python_version < OLDEST_PYTHON:
        found = f"{facts.python} is {dotted(facts.python_version)}" if facts.python else "there is none"
        raise DeployError(
            f"cannot deploy to {name}: Python {dotted(OLDEST_PYTHON)} or newer is needed there, and {found}",
            hint="install a newer one beside it: python3.11 on Debian 12 and RHEL 9, `uv python install` without root",
        )
    if not facts.systemd:
        raise DeployError(f"cannot deploy to {name}: systemd does not run that machine")
    if scope is Scope.SYSTEM and facts.uid != 0 and not facts.sudo:
        raise DeployError(
            f"cannot deploy to {name}: a system service needs root, and {facts.user} has no sudo without a password",
            hint=f"deploy a user service (leave out --system), or deploy to root@{name}",
        )


def dotted(value: tuple[int, int]) -> str:
    return f"{value[0]}.{value[1]}"
