"""Finds the processes that an earlier supervisor left running. Disk, /proc, HTTP to the engine.

A process is ours only if pid, start time and command line all match its record. Any other process is left alone; a
record without its process is removed together with its socket and key.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from pathlib import Path

from nemotron_ops.engine.health import Health
from nemotron_ops.paths import Layout
from nemotron_ops.processes import process
from nemotron_ops.supervisor.records import record
from nemotron_ops.supervisor.records.record import Record


@dataclass(frozen=True, kw_only=True)
class Found:
    """Records of living processes, and the ids of dead ones that were cleaned up."""

    alive: tuple[Record, ...] = ()
    cleaned: tuple[str, ...] = ()


def find(layout: Layout) -> Found:
    """Check every record. Needs the lock of the state directory."""
    alive: list[Record] = []
    cleaned: list[str] = []
    for found in record.read_all(layout):
        living = identify(found)
        if living and reachable(living):
            record.write(layout, living)
            alive.append(living)
        else:
            if living:  # ours, but without its socket or key it can never be reached again
                process.send(living.pid, living.started, signal.SIGKILL, group=True)
            clean(layout, found)
            cleaned.append(found.id)
    return Found(alive=tuple(alive), cleaned=tuple(cleaned))


def identify(found: Record) -> Record | None:
    """`found` with its pid, if its process lives and is ours; None otherwise."""
    if found.pid == 0:  # the supervisor died between its start and the record of its pid
        pid = process.find_launched(record.LAUNCH_VARIABLE).get(found.launch, 0)
        return replace(found, pid=pid, started=process.started(pid) or "") if pid else None
    if not process.same(found.pid, found.started):
        return None
    return found if ours(process.argv_of(found.pid), found) else None


def ours(argv: tuple[str, ...], found: Record) -> bool:
    """Whether a living process has the recorded command line: its private socket identifies it."""
    return found.socket in argv if found.socket else bool(argv)


def reachable(found: Record) -> bool:
    """Whether the key file still exists. It is made before the process is started."""
    return not found.key_file or Path(found.key_file).exists()


def clean(layout: Layout, found: Record) -> None:
    for name in (found.socket, found.key_file):
        if name and Path(name).parent == layout.runtime:
            Path(name).unlink(missing_ok=True)
    record.remove(layout, found.id)


async def is_ready(found: Record) -> bool:
    """Whether an adopted engine has loaded; one that does not answer is left to the liveness probe."""
    from nemotron_ops.engine.client import AsyncClient  # takes 100 ms: not before the socket is open

    async with AsyncClient(Path(found.socket)) as client:  # /health asks for no key
        return await client.health() is not Health.LOADING
