"""Keeps a unix socket open, and runs a process for it while it is used: the agent. asyncio, sockets.

The process starts with the first connection and ends by itself when idle. The supervisor holds the socket, so that
connections wait in its backlog while there is no process. A process that a killed supervisor has left is found by its
command line, like an engine without a record, and ended by the next one.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nemotron_ops.errors import GatewayError
from nemotron_ops.paths import Layout
from nemotron_ops.proc import SAFE_PATH
from nemotron_ops.processes import logfiles, process
from nemotron_ops.supervisor.companion import without_secrets
from nemotron_ops.supervisor.journal import Journal
from nemotron_ops.supervisor.records.record import LAUNCH_VARIABLE

BACKLOG = 64
BACKOFF_S = (0.1, 5.0)  # after a process that failed: at first, at most
SETTLED_S = 30.0  # a process that lived longer has not failed at its start
STOP_S = 5.0


@dataclass(frozen=True, kw_only=True)
class OnDemandSpec:
    """One process. `--listen-fd N --socket PATH` are added to `argv`; the socket is `PATH` in the runtime folder."""

    id: str
    argv: tuple[str, ...]


def socket_path(layout: Layout, name: str) -> Path:
    """Where the socket of the process `name` is."""
    return layout.runtime / f"{name}.sock"


class OnDemand:
    """Owns one socket and the process behind it: the only writer of its state."""

    def __init__(self, spec: OnDemandSpec, *, layout: Layout, env: Mapping[str, str], journal: Journal) -> None:
        self.spec, self.layout = spec, layout
        self.env = without_secrets(env)
        self.log = layout.logs / f"{spec.id}.log"
        self._journal = journal
        self._sock: socket.socket | None = None
        self._process: tuple[int, str] | None = None  # pid and start
        self._stopping = asyncio.Event()
        self._wake = asyncio.Event()  # set: the socket is asked, or a stop is wanted

    def open(self) -> None:
        """Listen. Raises GatewayError where that is not possible."""
        path = socket_path(self.layout, self.spec.id)
        sock = socket.socket(socket.AF_UNIX)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.unlink(missing_ok=True)
            sock.bind(str(path))
            path.chmod(0o600)
            sock.listen(BACKLOG)
        except OSError as exc:
            sock.close()
            raise GatewayError(f"cannot listen on {path}: {exc.strerror or exc}") from exc
        sock.setblocking(False)
        self._sock = sock

    async def run(self) -> None:
        """Start the process whenever the socket is asked and there is none, until stopped or cancelled."""
        try:
            await self._keep()
        finally:
            if self._sock is not None:
                self._sock.close()
                self._sock = None

    async def _keep(self) -> None:
        wait_s = BACKOFF_S[0]
        while not self._stopping.is_set():
            await self._asked()
            began = time.monotonic()
            code = None if self._stopping.is_set() else await self._one()
            if self._stopping.is_set():
                return
            if code == 0 or time.monotonic() - began > SETTLED_S:
                wait_s = BACKOFF_S[0]
                continue
            self._note("died", f"exit code {code}" if code is not None else "it could not be started", level="error")
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, BACKOFF_S[1])

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL; nothing is started any more."""
        self._stopping.set()
        self._wake.set()
        with suppress(OSError):
            socket_path(self.layout, self.spec.id).unlink(missing_ok=True)
        if self._process is not None:
            pid, started = self._process
            process.send(pid, started, signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_S):
                    await process.ended(pid, started)
            except TimeoutError:
                process.send(pid, started, signal.SIGKILL, group=True)
                await process.ended(pid, started)

    async def _asked(self) -> None:
        """Wait for a connection, which stays in the backlog for the process, or for a stop."""
        loop = asyncio.get_running_loop()
        assert self._sock is not None
        fd = self._sock.fileno()
        if not self._stopping.is_set():
            self._wake.clear()
        loop.add_reader(fd, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            loop.remove_reader(fd)

    async def _one(self) -> int | None:
        """One process from start to end; its exit code, or None if it could not be started."""
        assert self._sock is not None
        fd, path = self._sock.fileno(), socket_path(self.layout, self.spec.id)
        argv = (*self.spec.argv, "--listen-fd", str(fd), "--socket", str(path))
        env = {**self.env, **SAFE_PATH, LAUNCH_VARIABLE: secrets.token_hex(8), "PYTHONUNBUFFERED": "1"}
        try:
            with suppress(OSError):  # a full disk: the log goes on in its file
                logfiles.rotate_between(self.log)
            pid = process.spawn(argv, env=env, log=self.log, pass_fds=(fd,))
        except OSError as exc:
            self._note("failed", str(exc), level="error")
            return None
        started = process.started(pid) or ""
        self._process = (pid, started)
        self._note("started", f"pid {pid}")
        code = await process.ended(pid, started)
        self._process = None
        return code if code is not None else 1

    def _note(self, kind: str, message: str, *, level: str = "info") -> None:
        self._journal.add(f"{self.spec.id}-{kind}", message, instance=self.spec.id, level=level)
