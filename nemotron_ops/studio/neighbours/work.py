"""Children of our own command line, with their progress: search, fetch, plan, add. Processes, disk.

What people can do in a shell is what the page does: the same program, in a process group of its own, which can be
ended. The page's process stays small, because what they import is never imported here.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemotron_ops.errors import NemotronOpsError
from nemotron_ops.files import read_json, write_json

MOST_OUTPUT = 16 << 20
MOST_LINES = 200
MOST_JOBS = 100
KEPT_LINES = 20  # of each job, over a restart
PROGRESS = ("--progress", "json")
ENDED_EARLY = "error: the page's process ended in the middle of it"


@dataclass
class Job:
    """One child that goes on while pages come and go."""

    id: str
    title: str
    argv: tuple[str, ...]
    begun_s: float = field(default_factory=time.time)
    state: str = "running"  # running, done, failed, stopped
    step: dict[str, Any] = field(default_factory=dict)  # its last progress
    lines: list[str] = field(default_factory=list)
    process: asyncio.subprocess.Process | None = None
    task: asyncio.Task[None] | None = None

    @property
    def value(self) -> dict[str, Any]:
        """What a page shows of it."""
        return {
            "id": self.id,
            "title": self.title,
            "begun_s": self.begun_s,
            "state": self.state,
            "step": self.step,
            "lines": self.lines[-5:],
            "cause": said(self.lines) if self.state in ("failed", "stopped") else "",
            "command": " ".join(("nemotron-ops", *self.argv)),
        }


class Work:
    """Runs `command` with further words. Jobs are kept in `file`, so that those that ended stay listed."""

    def __init__(self, command: Sequence[str], file: Path | None = None) -> None:
        self._command, self._file = tuple(command), file
        self.jobs = {job.id: job for job in _kept(file)}

    async def json(self, *argv: str, timeout_s: float = 60.0) -> tuple[Any, str]:
        """The JSON that a command prints, and its error's text where it fails."""
        child = await self._spawn(argv)
        try:
            out, err = await asyncio.wait_for(child.communicate(), timeout_s)
        except TimeoutError:
            return None, f"no answer within {timeout_s:g} s"
        finally:
            _end(child, signal.SIGKILL)
        text = "" if child.returncode == 0 else said(err.decode(errors="replace").splitlines())
        try:
            return json.loads(out[:MOST_OUTPUT]), text
        except ValueError:
            return None, text or "the command printed no JSON"

    async def begin(self, title: str, *argv: str) -> Job:
        """Start a job; one that runs with the same words is that job, one that ended is replaced."""
        for job in list(self.jobs.values()):
            if job.argv == argv and job.state == "running":
                return job
            if job.argv == argv:
                del self.jobs[job.id]
        job = Job(secrets.token_hex(6), title, argv)
        self.jobs[job.id] = job
        for old in [j.id for j in self.jobs.values() if j.state != "running"][: max(0, len(self.jobs) - MOST_JOBS)]:
            del self.jobs[old]
        job.process = await self._spawn((*argv, *PROGRESS))
        job.task = asyncio.create_task(self._follow(job))
        self._keep()
        return job

    async def again(self, id: str) -> Job | None:
        """The same job once more; it goes on from where the last one ended. None if there is no such job."""
        job = self.jobs.get(id)
        return await self.begin(job.title, *job.argv) if job else None

    def stop(self, id: str) -> bool:
        """End a job; what it has done stays, and the same job goes on from there."""
        job = self.jobs.get(id)
        if job is None or job.state != "running" or job.process is None:
            return False
        job.state = "stopped"
        _end(job.process, signal.SIGINT)
        self._keep()
        return True

    def forget(self, id: str) -> bool:
        """Take a job that has ended off the list."""
        job = self.jobs.get(id)
        if job is None or job.state == "running":
            return False
        del self.jobs[id]
        self._keep()
        return True

    async def close(self) -> None:
        """End all children."""
        for job in self.jobs.values():
            if job.process is not None and job.state == "running":
                self.stop(job.id)
        await asyncio.gather(*(job.task for job in self.jobs.values() if job.task), return_exceptions=True)

    def _keep(self) -> None:
        """Write the list. A disk that is full costs the list over a restart, and nothing else."""
        if self._file is None:
            return
        value = [
            {"id": j.id, "title": j.title, "argv": j.argv, "begun_s": j.begun_s, "state": j.state, "step": j.step}
            | {"lines": j.lines[-KEPT_LINES:]}
            for j in self.jobs.values()
        ]
        with suppress(OSError):
            write_json(self._file, value, mode=0o600)

    async def _spawn(self, argv: Sequence[str]) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._command,
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=MOST_OUTPUT,
        )

    async def _follow(self, job: Job) -> None:
        child = job.process
        assert child is not None
        assert child.stdout is not None
        assert child.stderr is not None
        await asyncio.gather(self._read(job, child.stdout), self._read(job, child.stderr))
        code = await child.wait()
        if job.state == "running":
            job.state = "done" if code == 0 else "failed"
        if job.state == "failed" and not any(line.startswith("error: ") for line in job.lines):
            job.lines.append(f"error: the command ended with {code}")
        self._keep()

    async def _read(self, job: Job, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            text = line.decode(errors="replace").rstrip()
            step = _step(text)
            if step is not None and "done" in step:
                job.step = step
            elif step is not None:
                text = str(step.get("note", ""))
            if text and (step is None or "note" in step):
                job.lines = [*job.lines[-MOST_LINES:], text]


def _step(text: str) -> dict[str, Any] | None:
    """One line of `--progress json`: a step or a remark."""
    if not text.startswith("{"):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) and ("done" in value or "note" in value) else None


def _kept(file: Path | None) -> list[Job]:
    """The jobs of an earlier process; those that ran ended with it."""
    try:
        rows = read_json(file) if file else None
    except (OSError, NemotronOpsError):
        rows = None
    found = []
    for row in rows if isinstance(rows, list) else []:
        try:
            job = Job(
                row["id"], row["title"], tuple(row["argv"]), row["begun_s"], row["state"], row["step"], row["lines"]
            )
        except (KeyError, TypeError):
            continue
        if job.state == "running":
            job.state, job.lines = "stopped", [*job.lines, ENDED_EARLY]
        found.append(job)
    return found[-MOST_JOBS:]


def said(lines: Sequence[str]) -> str:
    """The error among the lines of a command, with its hint; else their end."""
    lines = [line for line in lines if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    hints = [line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")]
    if errors and hints:
        return f"{' '.join(errors)} ({hints[-1]})"[:500]
    return " ".join(errors or lines[-2:])[:500]


def _end(child: asyncio.subprocess.Process, sig: signal.Signals) -> None:
    if child.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, sig)
