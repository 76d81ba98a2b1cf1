"""Compilers in wheels, pinned by hash. Reads its own data files, `data/*_wheels.toml`."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

ASSEMBLY = 2  # grows when the assembly of the same files changes


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """One wheel for one kind of machine."""

    package: str
    version: str
    file: str
    sha256: str
    size: int
    machine: str
    system: str = "Linux"


@dataclass(frozen=True, kw_only=True)
class Deb:
    """A package of Debian for one kind of machine; `path` is below a mirror's root."""

    package: str
    version: str
    path: str
    sha256: str
    size: int
    machine: str

    @property
    def file(self) -> str:
        return self.path.rpartition("/")[2]


@cache
def _pinned(what: str) -> dict[str, Any]:
    return tomllib.loads(files("nemotron_ops.builds").joinpath(f"data/{what}_wheels.toml").read_text())


def wheels_for(what: str, system: str, machine: str) -> tuple[Wheel, ...]:
    """The wheels of "cuda13", "cuda12" or "zig" for this kind of machine; none where none are published."""
    wheels = (Wheel(**entry) for entry in _pinned(what)["wheel"])
    return tuple(wheel for wheel in wheels if (wheel.system, wheel.machine) == (system, machine))


def debs_for(what: str, machine: str) -> tuple[Deb, ...]:
    """Debian's packages that `what` needs beside its wheels."""
    return tuple(deb for entry in _pinned(what).get("deb", ()) if (deb := Deb(**entry)).machine == machine)


def cuda_part(version: str) -> str:
    """The name of the data file for toolkit `version`: "cuda13" for "13.0.2"."""
    return f"cuda{version.partition('.')[0]}"


def cuda_folder(version: str, machine: str) -> str:
    """The folder name of the assembled toolkit, by its content: `cuda-13.0.2-1a2b3c4d`."""
    what = cuda_part(version)
    parts: tuple[Wheel | Deb, ...] = (*wheels_for(what, "Linux", machine), *debs_for(what, machine))
    content = "\n".join([str(ASSEMBLY), *sorted(part.sha256 for part in parts)])
    return f"cuda-{version}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def zig_folder(wheel: Wheel) -> str:
    return f"zig-{wheel.version}-{wheel.sha256[:8]}"
