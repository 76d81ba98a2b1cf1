"""Bounds of one sandbox. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
CODE_BYTES = MIB  # longest program of one call
FLOOD_BYTES = 16 * MIB  # output after which a call is ended


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of one sandbox; each is held by the kernel or by a watch every 20 ms."""

    memory_bytes: int = 512 * MIB  # of all processes together
    processes: int = 64
    work_bytes: int = 1024 * MIB  # of the work folder, with /tmp
    files: int = 20_000  # in the work folder
    open_files: int = 256  # per process
    call_s: float = 30.0
    first_call_s: float = 60.0  # packages are imported cold
    output_bytes: int = 64 * 1024  # of each of stdout and stderr: head and tail
    artifacts: int = 20
    artifact_bytes: int = 10 * MIB
    idle_s: float = 600.0


class Limit:
    """Names of limits, as outcomes give them."""

    MEMORY = "memory"
    PROCESSES = "processes"
    DISK = "disk"
    FILES = "files"
    TIME = "time"
    OUTPUT = "output"
    ARTIFACTS = "artifacts"


def in_words(name: str, limits: Limits, call_s: float) -> str:
    """`memory (512 MiB)`: a limit with its value."""
    value = {
        Limit.MEMORY: f"{limits.memory_bytes // MIB} MiB",
        Limit.PROCESSES: f"{limits.processes}",
        Limit.DISK: f"{limits.work_bytes // MIB} MiB",
        Limit.FILES: f"{limits.files}",
        Limit.TIME: f"{call_s:g} s",
        Limit.OUTPUT: f"{FLOOD_BYTES // MIB} MiB",
        Limit.ARTIFACTS: f"{limits.artifacts} files of {limits.artifact_bytes // MIB} MiB",
    }[name]
    return f"{name} ({value})"
