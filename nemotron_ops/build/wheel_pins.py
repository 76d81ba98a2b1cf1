"""Compilers that come as wheels, each pinned by its hash. Reads its own data files, `data/*_wheels.toml`."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


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


@cache
def _pinned(what: str) -> tuple[Wheel, ...]:
    data = tomllib.loads(files("nemotron_ops.build").joinpath(f"data/{what}_wheels.toml").read_text())
    return tuple(Wheel(**entry) for entry in data["wheel"])


def wheels_for(what: str, system: str, machine: str) -> tuple[Wheel, ...]:
    """The wheels of "cuda" or "zig" for this kind of machine; none where none are published."""
    return tuple(wheel for wheel in _pinned(what) if (wheel.system, wheel.machine) == (system, machine))


def cuda_folder(version: str, machine: str) -> str:
    """The folder of the assembled toolkit, named by its content: `cuda-13.0.2-1a2b3c4d`."""
    hashes = "\n".join(sorted(wheel.sha256 for wheel in wheels_for("cuda", "Linux", machine)))
    return f"cuda-{version}-{hashlib.sha256(hashes.encode()).hexdigest()[:8]}"


def zig_folder(wheel: Wheel) -> str:
    return f"zig-{wheel.version}-{wheel.sha256[:8]}"
