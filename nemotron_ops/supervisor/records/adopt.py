"""Finds the processes that an earlier supervisor left running. Disk, /proc, HTTP to the engine.

A process is ours only if pid, start time and command line all match its record. Any other process is left alone; a
record without its process is removed together with its socket and key.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from nemotron_ops.engine.health import Health
from nemotron_ops.paths import Layout
from nemotron_ops.processes import process
from nemotron_ops.supervisor.records import record, strays
from nemotron_ops.supervisor.records.record import Record

STRAYS_END_S = 10.0  # until the kernel has freed their memory
POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Found:
    """Records of living processes, the ids of dead ones that were cleaned up, and what no valid record names."""

    alive: tuple[Record, ...] = ()
    cleaned: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    strays: tuple[Record, ...] = ()  # engines of ours that no record names


def find(layout: Layout) -> Found:
    """Check every record. Needs the lock of the state directory."""
    alive: list[Record] = []
    cleaned: list[str] = []
    damaged: list[str] = []
    pids = strays.launched()
    for found in record.read_all(layout, damaged):
        living = identify(found, pids)
        if living and reachable(living):
            record.write(layout, living)
            alive.append(living)
        else:
            if living:  # ours, but without its socket or key it can never be reached again
                process.send(living.pid, living.started, signal.SIGKILL, group=True)
            clean(layout, found)
            cleaned.append(found.id)
    lost = strays.engines(layout, pids, known=[a.launch for a in alive])
    return Found(
        alive=tuple(alive), cleaned=tuple(cleaned), damaged=tuple(damaged),
        strays=tuple(s for s in lost if process.same(s.pid, s.started)),
    )  # fmt: skip


def end_strays(found: Found, *, within_s: float = STRAYS_END_S) -> None:
    """Ends them and waits: each holds the memory of the engine that will be started in its place."""
    for stray in found.strays:
        process.send(stray.pid, stray.started, signal.SIGKILL, group=True)
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and any(process.same(s.pid, s.started) for s in found.strays):
        time.sleep(POLL_S)


def identify(found: Record, pids: Mapping[str, int]) -> Record | None:
    """`found` with its pid, if its process lives and is ours; None otherwise.

    By its launch in `pids` where the recorded pid is not the process: the supervisor died between its start and the
    record of its pid, or the record is damaged.
    """
    if not process.same(found.pid, found.started):
        pid = pids.get(found.launch, 0)
        if not pid:
            return None
        found = replace(found, pid=pid, started=process.started(pid) or "")
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
            with suppress(OSError):
                Path(name).unlink(missing_ok=True)
    record.remove(layout, found.id)


async def is_ready(found: Record) -> bool:
    """Whether an adopted engine has loaded; one that does not answer is left to the liveness probe."""
    from nemotron_ops.engine.client import AsyncClient  # takes 100 ms: not before the socket is open

    async with AsyncClient(Path(found.socket)) as client:  # /health asks for no key
        return await client.health() is not Health.LOADING
