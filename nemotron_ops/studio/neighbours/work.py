"""Children of our own command line, with their progress: search, fetch, plan. Processes.

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
from typing import Any

MOST_OUTPUT = 16 << 20
MOST_LINES = 200
MOST_JOBS = 100


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
            "command": " ".join(("nemotron-ops", *self.argv)),
        }


class Work:
    """Runs `command` with further words."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = tuple(command)
        self.jobs: dict[str, Job] = {}

    async def json(self, *argv: str, timeout_s: float = 60.0) -> tuple[Any, str]:
        """The JSON that a command prints, and its error's text where it fails."""
        child = await self._spawn(argv)
        try:
            out, err = await asyncio.wait_for(child.communicate(), timeout_s)
        except TimeoutError:
            return None, f"no answer within {timeout_s:g} s"
        finally:
            _end(child, signal.SIGKILL)
        try:
            return json.loads(out[:MOST_OUTPUT]), "" if child.returncode == 0 else _said(err)
        except ValueError:
            return None, _said(err) or "the command printed no JSON"

    async def begin(self, title: str, *argv: str) -> Job:
        """Start a job; one that runs with the same words is that job."""
        for job in self.jobs.values():
            if job.argv == argv and job.state == "running":
                return job
        job = Job(secrets.token_hex(6), title, argv)
        self.jobs[job.id] = job
        for old in [j.id for j in self.jobs.values() if j.state != "running"][: max(0, len(self.jobs) - MOST_JOBS)]:
            del self.jobs[old]
        job.process = await self._spawn(argv)
        job.task = asyncio.create_task(self._follow(job))
        return job

    def stop(self, id: str) -> bool:
        """End a job; what it has done stays, and the same job goes on from there."""
        job = self.jobs.get(id)
        if job is None or job.state != "running" or job.process is None:
            return False
        job.state = "stopped"
        _end(job.process, signal.SIGINT)
        return True

    async def close(self) -> None:
        """End all children."""
        for job in self.jobs.values():
            if job.process is not None and job.state == "running":
                self.stop(job.id)
        await asyncio.gather(*(job.task for job in self.jobs.values() if job.task), return_exceptions=True)

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

    async def _read(self, job: Job, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            text = line.decode(errors="replace").rstrip()
            step = _step(text)
            if step is not None:
                job.step = step
            elif text:
                job.lines = [*job.lines[-MOST_LINES:], text]


def _step(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) and ("done" in value or "state" in value) else None


def _said(err: bytes) -> str:
    lines = [line for line in err.decode(errors="replace").splitlines() if line.strip()]
    wanted = [line for line in lines if line.startswith(("error:", "hint:"))]
    return " ".join(wanted or lines[-2:])[:500]


def _end(child: asyncio.subprocess.Process, sig: signal.Signals) -> None:
    if child.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, sig)
