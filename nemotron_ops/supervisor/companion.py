"""The gateway's process: started on a socket that is already open, and started again when it dies. asyncio, sockets.

The supervisor opens the listening socket and keeps it, so that connections queue in the kernel while a gateway is
being replaced, and none is refused. A supervisor that was killed has lost the socket, but the gateway it left behind
has it still: the next supervisor takes a copy from there (`pidfd_getfd`), or, where that is not allowed, lets that
gateway go on and binds anew when it ends.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nemotron_ops import __version__, addresses
from nemotron_ops.errors import GatewayError, NemotronOpsError
from nemotron_ops.files import read_json, write_json
from nemotron_ops.paths import Layout
from nemotron_ops.processes import logfiles, process
from nemotron_ops.supervisor.journal import Journal
from nemotron_ops.supervisor.records import record
from nemotron_ops.supervisor.records.record import Record

BACKLOG = 1024
BACKOFF_S = (0.05, 5.0)  # first and longest wait before the gateway is started again
STABLE_S = 30.0
PIDFD_GETFD = 438  # the same number on every Linux architecture
SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN")


@dataclass(frozen=True, kw_only=True)
class Address:
    host: str
    port: int


@dataclass(frozen=True, kw_only=True)
class Probe:
    """When a gateway that no longer answers is ended: after so many unanswered `GET /health` in a row."""

    period_s: float = 5.0
    timeout_s: float = 10.0
    failures: int = 3


def listen(at: Address) -> socket.socket:
    """A listening socket at `at`. Raises GatewayError if it cannot be had."""
    family = socket.AF_INET6 if ":" in at.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((at.host, at.port))
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        hint = f"another program uses port {at.port}; choose another one with --port" if at.port else None
        raise GatewayError(f"cannot listen on {at.host}:{at.port}: {exc.strerror or exc}", hint=hint) from exc
    sock.setblocking(False)
    return sock


def passed(env: Mapping[str, str], pid: int) -> bool:
    """Whether somebody else opened the listening socket for process `pid` (LISTEN_FDS) and may hold it after us."""
    count = env.get("LISTEN_FDS", "")
    return env.get("LISTEN_PID") == str(pid) and count.isdigit() and int(count) > 0


def given(env: Mapping[str, str], pid: int) -> socket.socket | None:
    """The socket that systemd passed to process `pid` (LISTEN_FDS), if any."""
    if not passed(env, pid):
        return None
    sock = socket.socket(fileno=3)
    sock.setblocking(False)
    return sock


def record_path(layout: Layout) -> Path:
    return layout.state / "gateway.json"


class Gateway:
    """Keeps one gateway process on the listening socket."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        at: Address,
        layout: Layout,
        env: Mapping[str, str],
        journal: Journal,
        probe: Probe | None = None,
    ) -> None:
        self.argv, self.layout, self.journal, self.probe = tuple(argv), layout, journal, probe or Probe()
        self.env = {k: v for k, v in env.items() if k not in SECRETS and not k.startswith("LISTEN_")}
        self.at = at
        self.sock: socket.socket | None = None
        self.record: Record | None = None
        self.restarts = 0
        self.on_change: Callable[[], None] = lambda: None
        self.relieved: list[Record] = []  # older ones, which finish what they have
        self.turned = time.monotonic()  # when its watcher last came round
        self._stopping = asyncio.Event()
        self._replacing = asyncio.Event()

    @property
    def log(self) -> Path:
        return self.layout.logs / "gateway.log"

    def open(self, inherited: socket.socket | None) -> None:
        """Find the gateway that may still run, and get the listening socket. Raises GatewayError."""
        self.record = self._find()
        if inherited is not None:
            self.sock = inherited
        elif self.record and self._serves_here(self.record):
            self.sock = copy_socket(self.record.pid, int(self.record.extra.get("fd", -1)))
        else:
            self.sock = listen(self.at)
        if self.sock is not None:
            host, port = self.sock.getsockname()[:2]
            self.at = Address(host=self.at.host or str(host), port=int(port))

    async def run(self) -> None:
        """Until cancelled: a gateway runs. A living one of the same version is kept; another one is relieved."""
        wait_s = BACKOFF_S[0]
        while not self._stopping.is_set():
            self.turned = time.monotonic()
            if self.record is None:
                if not self._spawn():
                    await asyncio.sleep(wait_s)
                    wait_s = min(BACKOFF_S[1], wait_s * 2)
                    continue
            elif self._outdated(self.record):
                self._relieve()
                await asyncio.sleep(wait_s)
                continue
            self.on_change()
            began, current = time.monotonic(), self.record
            assert current
            code = await self._until_ended_or_replaced(current)
            if self._stopping.is_set() or self._replacing.is_set():
                self._replacing.clear()
                continue
            self.journal.add("gateway-died", self._last_words(code), instance="gateway", level="error")
            record_path(self.layout).unlink(missing_ok=True)
            self.record, self.restarts = None, self.restarts + 1
            wait_s = BACKOFF_S[0] if time.monotonic() - began > STABLE_S else min(BACKOFF_S[1], wait_s * 2)
            self.on_change()
            await asyncio.sleep(wait_s)

    def relieve(self) -> None:
        """Start a new gateway on the same socket; the old one drains and ends."""
        if self.record is not None:
            self._relieve()
            self._replacing.set()

    async def drain(self, *, within_s: float, hurried: asyncio.Event) -> None:
        """Have the gateways answer what they have accepted, accept nothing more, and end.

        Returns when they have, after `within_s`, or once `hurried` is set; `stop` ends what is left. The caller has
        ended `run`.
        """
        self._stopping.set()
        gateways = [r for r in (self.record, *self.relieved) if r is not None]
        for old in gateways:
            process.send(old.pid, old.started, signal.SIGTERM)
        self.journal.add("gateway-draining", "new clients wait for the next start", instance="gateway")
        hurry = asyncio.create_task(hurried.wait())
        try:
            async with asyncio.timeout(within_s):
                for old in gateways:
                    end = asyncio.create_task(process.ended(old.pid, old.started))
                    await asyncio.wait((end, hurry), return_when=asyncio.FIRST_COMPLETED)
                    end.cancel()
        except TimeoutError:
            pass
        finally:
            hurry.cancel()

    async def stop(self, *, within_s: float) -> None:
        """SIGTERM, then SIGKILL: by now every request is answered or was cut."""
        self._stopping.set()
        for old in filter(None, (self.record, *self.relieved)):
            process.send(old.pid, old.started, signal.SIGTERM)
            try:
                async with asyncio.timeout(within_s):
                    await process.ended(old.pid, old.started)
            except TimeoutError:
                process.send(old.pid, old.started, signal.SIGKILL, group=True)
                await process.ended(old.pid, old.started)
        self.record = None
        record_path(self.layout).unlink(missing_ok=True)
        if self.sock:
            self.sock.close()
            self.sock = None

    def _spawn(self) -> bool:
        launch = secrets.token_hex(8)
        try:
            if self.sock is None:
                self.sock = listen(self.at)
            fd = self.sock.fileno()
            argv = (*self.argv, "--listen-fd", str(fd), "--control", str(self.layout.control_socket))
            new = Record(
                id="gateway",
                launch=launch,
                log=str(self.log),
                wall_s=time.time(),
                extra={"fd": fd, "host": self.at.host, "port": self.at.port, **self._kind()},
            )
            self._write(new)
            logfiles.rotate_between(self.log)
            env = {**self.env, record.LAUNCH_VARIABLE: launch, "PYTHONUNBUFFERED": "1"}
            pid = process.spawn(argv, env=env, log=self.log, pass_fds=(fd,))
        except (OSError, NemotronOpsError) as exc:
            self.journal.add("gateway-failed", str(exc), instance="gateway", level="error")
            return False
        self.record = replace(new, pid=pid, started=process.started(pid) or "")
        self._write(self.record)
        self.journal.add("gateway-started", f"pid {pid}", instance="gateway")
        return True

    def _relieve(self) -> None:
        """The new one accepts from the same socket before the old one is told to finish what it has."""
        old = self.record
        assert old
        if self.sock is None and self._serves_here(old):
            return  # the socket is the old one's alone: it has to stay
        self.record = None
        if self._spawn():
            process.send(old.pid, old.started, signal.SIGTERM)
            self.relieved.append(old)
            self.journal.add("gateway-relieved", f"pid {old.pid} drains and ends", instance="gateway")
        else:
            self.record = old
            self._write(old)

    async def _until_ended_or_replaced(self, current: Record) -> int | None:
        ended = asyncio.ensure_future(process.ended(current.pid, current.started))
        replaced = asyncio.ensure_future(self._replacing.wait())
        probing = asyncio.ensure_future(self._end_when_silent(current))
        try:
            await asyncio.wait({ended, replaced}, return_when=asyncio.FIRST_COMPLETED)
            return ended.result() if ended.done() else None
        finally:
            for task in (ended, replaced, probing):
                task.cancel()
            await asyncio.gather(ended, replaced, probing, return_exceptions=True)

    async def _end_when_silent(self, current: Record) -> None:
        """Kill a gateway that takes connections (the kernel does) but no longer answers any."""
        silent = 0
        while silent < self.probe.failures:
            self.turned = time.monotonic()
            await asyncio.sleep(self.probe.period_s)
            silent = 0 if await answers(self.at, self.probe.timeout_s) else silent + 1
        self.journal.add("gateway-stuck", f"{silent} probes without an answer", instance="gateway", level="error")
        process.send(current.pid, current.started, signal.SIGKILL, group=True)

    def _outdated(self, old: Record) -> bool:
        """An adopted gateway of another version, command or address; only if its socket can be shared or need not."""
        same = all(old.extra.get(k) == v for k, v in self._kind().items())
        return not (same and self._serves_here(old)) and (self.sock is not None or not self._serves_here(old))

    def _serves_here(self, old: Record) -> bool:
        port = old.extra.get("port")
        return old.extra.get("host") == self.at.host and (port == self.at.port or self.at.port == 0)

    def _kind(self) -> dict[str, Any]:
        return {"version": __version__, "argv": list(self.argv)}

    def _find(self) -> Record | None:
        try:
            value = read_json(record_path(self.layout))
            found = record.from_json(value) if value else None
        except (NemotronOpsError, KeyError, TypeError, ValueError):
            return None
        if found is None:
            return None
        if found.pid == 0:
            pid = process.find_launched(record.LAUNCH_VARIABLE).get(found.launch, 0)
            found = replace(found, pid=pid, started=process.started(pid) or "") if pid else found
        if not process.same(found.pid, found.started):
            return None
        if self.at.port == 0:
            self.at = Address(host=self.at.host, port=int(found.extra.get("port", 0)))
        return found

    def _write(self, new: Record) -> None:
        write_json(record_path(self.layout), record.to_json(new), mode=0o600)

    def _last_words(self, code: int | None) -> str:
        last = [line for line in logfiles.tail(self.log, lines=5) if line.strip()]
        return f"exit code {code}" + (f": {last[-1][:200]}" if last else "")


async def answers(at: Address, timeout_s: float) -> bool:
    """Whether the gateway reacts at all. A refusal counts, and so does a closed connection, which is what one that
    speaks TLS may give: only a loop that no longer turns leaves us waiting."""
    host = addresses.near(at.host)
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, at.port)
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            await reader.read(1)
            return True
    except ConnectionResetError:
        return True
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.close()


def copy_socket(pid: int, fd: int) -> socket.socket | None:
    """A copy of descriptor `fd` of process `pid`, if the kernel allows it and it is a listening socket."""
    if fd < 0 or not sys.platform.startswith("linux"):
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        copy = int(ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, pidfd, fd, 0))
    finally:
        os.close(pidfd)
    if copy < 0:
        return None
    try:
        sock = socket.socket(fileno=copy)
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.close()
            return None
    except OSError:
        os.close(copy)
        return None
    sock.setblocking(False)
    return sock
