"""Waits for the end of one llama-server and finds the cause of death. asyncio, /proc, logs, subprocess."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from nemotron_ops.engine.death_table import Cause
from nemotron_ops.engine.deaths import Death, explain
from nemotron_ops.engine.flags import Flags, parse_help
from nemotron_ops.proc import run
from nemotron_ops.processes import logfiles, oom, process
from nemotron_ops.supervisor.records.record import Record

LINES = 400
KILLED = (-9, 137, None)  # exit codes of a SIGKILL, and of a process that was not our child


async def await_death(of: Record, *, binary: str, oom_kills: int, served: Callable[[], bool]) -> Death:
    """The cause of the exit, once the process has ended. `oom_kills` was the kernel's count at its start.

    `served` says at the end whether the process had been ready. The log is read and searched in a thread: its size is
    the engine's choice, and the supervisor answers meanwhile.
    """
    code = await process.ended(of.pid, of.started)
    killed = code in KILLED and (oom.oom_kills() > oom_kills or await asyncio.to_thread(oom.in_kernel_log, of.pid))
    return await asyncio.to_thread(_read, of, code, binary, oom_killed=killed and code != 0, served=served())


def _read(of: Record, code: int | None, binary: str, *, oom_killed: bool, served: bool) -> Death:
    try:
        lines = logfiles.tail(Path(of.log), lines=LINES, offset=of.log_offset)
    except OSError:
        lines = []
    death = explain(code, lines, oom_killed=oom_killed, served=served)
    if death.cause is Cause.BAD_FLAG:
        return explain(code, lines, flags=flags_of(binary))
    return death


def flags_of(binary: str) -> Flags:
    """The flags that `binary` knows; none if it does not run."""
    return parse_help(run([binary, "--help"], timeout_s=20).stdout)
