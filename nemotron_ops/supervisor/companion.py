"""Keeps one companion running: a child process that serves a socket which the supervisor opened. asyncio, sockets.

The gateway is one companion, the page another. Its lifecycle is the table of instances (`instance/state`) with `Rules`
of its own; it is ready as soon as it is started, because connections queue in the kernel on the socket that the
supervisor holds, and none is refused while one process replaces another.

A supervisor that was killed has lost the socket, but the companion it left behind still has it: the next supervisor
copies it from there (`pidfd_getfd`), or, where that is not allowed, keeps that process and listens again when it ends.
A process of another version, command or address is replaced: the new one accepts from the same socket before the old
one is told to answer its requests and end.
"""

from __future__ import annotations

import asyncio
import random
import re
import secrets
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from nemotron_ops import __version__
from nemotron_ops.errors import NemotronOpsError
from nemotron_ops.paths import Layout
from nemotron_ops.proc import SAFE_PATH
from nemotron_ops.processes import logfiles, process
from nemotron_ops.processes.sockets import Address, copy_socket, listen
from nemotron_ops.supervisor.instance.inbox import Inbox
from nemotron_ops.supervisor.instance.state import DEADLINE, Action, Event, Message, Rules, Status, step
from nemotron_ops.supervisor.journal import Journal
from nemotron_ops.supervisor.probe import Probe, answers
from nemotron_ops.supervisor.records import adopt, record, strays
from nemotron_ops.supervisor.records.record import Record
from nemotron_ops.supervisor.snapshot import State

# A companion faces the network and needs no secret, except in the headers of its traces (OTEL_...).
SECRETS = re.compile("TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|(API|ACCESS|PRIVATE|SSH|AUTH)_?(KEY|SOCK)|^AWS_|^AZURE_")


@dataclass(frozen=True, kw_only=True)
class CompanionSpec:
    """One companion. `--listen-fd N --control PATH` are added to `argv`; `rules` say when it has failed."""

    id: str
    argv: tuple[str, ...]
    at: Address
    rules: Rules
    probe: Probe = field(default_factory=Probe)

    @property
    def module(self) -> str:
        """The Python module that it runs; empty for another program."""
        return self.argv[self.argv.index("-m") + 1] if "-m" in self.argv[:-1] else ""


def without_secrets(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a companion."""
    kept = {k: v for k, v in env.items() if k.startswith("OTEL_") or not SECRETS.search(k.upper())}
    return {k: v for k, v in kept.items() if not k.startswith("LISTEN_")}


class Companion:
    """Owns one companion: the only writer of its state."""

    def __init__(
        self, spec: CompanionSpec, *, layout: Layout, env: Mapping[str, str], journal: Journal, beat_s: float
    ) -> None:
        self.spec, self.layout = spec, layout
        self.env = without_secrets(env)
        self.at = spec.at
        self.sock: socket.socket | None = None
        self.status = Status(since=time.monotonic())
        self.record: Record | None = None
        self.replaced: list[Record] = []  # earlier processes that still answer their requests
        self.last_turn_at = time.monotonic()
        self._journal = journal
        self._rules = replace(spec.rules, ready_at_once=True)
        self._inbox: Inbox[Message] = Inbox(beat_s=beat_s)
        self._stopped = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []  # await the end of the process, and probe it

    @property
    def log(self) -> Path:
        return self.layout.logs / f"{self.spec.id}.log"

    @property
    def at_rest(self) -> bool:
        return self.status.state is State.STOPPED and not self.status.wanted

    def open(self, inherited: socket.socket | None) -> None:
        """Find the process that may still run, and get the listening socket. Raises GatewayError."""
        self.record = self._find()
        if inherited is not None:
            self.sock = inherited
        elif self.record and self._serves_here(self.record):
            self.sock = copy_socket(self.record.pid, _whole(self.record.extra.get("fd")))
        else:
            self.sock = listen(self.at)
        if self.sock is not None:
            host, port = self.sock.getsockname()[:2]
            self.at = Address(host=self.at.host or str(host), port=int(port))

    def tell(self, event: Event, reason: str = "") -> None:
        """Put an event into the inbox: START for one that has failed, STOP, FORCE."""
        self._inbox.put(Message(event=event, reason=reason))

    async def run(self) -> None:
        """Keeps a process running until it is stopped. Cancelled, it leaves the process running."""
        if self.record is None:
            self._take(Message(event=Event.START))
        else:
            self._watch(self.record)
            self._take(Message(event=Event.ADOPTED_READY))
        try:
            while not self.at_rest:
                self.last_turn_at = time.monotonic()
                if self.status.state is State.READY and self._inbox.empty and self._outdated():
                    self._replace()
                self._take(await self._inbox.next(until=self.status.deadline) or DEADLINE)
            self._stopped.set()
        finally:
            self._unwatch()

    async def drain(self, *, forced: asyncio.Event) -> None:
        """Have all processes answer the requests that they have accepted, accept no more, and end.

        Returns when they have ended, after the rules' `drain_s`, or once `forced` is set; `stop` ends the rest.
        """
        self.tell(Event.STOP)
        self._note("draining", "new clients wait for the next start")
        tasks = [asyncio.create_task(self._all_ended()), asyncio.create_task(forced.wait())]
        wait_s = self.spec.rules.health.drain_s
        _, waiting = await asyncio.wait(tasks, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL: by now every request is answered or was cut. Needs `run`; closes the socket."""
        self.tell(Event.STOP)
        self.tell(Event.FORCE)
        await self._stopped.wait()
        for old in self.replaced:
            process.send(old.pid, old.started, signal.SIGTERM)
            try:
                async with asyncio.timeout(self.spec.rules.health.stop_s):
                    await process.ended(old.pid, old.started)
            except TimeoutError:
                process.send(old.pid, old.started, signal.SIGKILL, group=True)
                await process.ended(old.pid, old.started)
        if self.sock:
            self.sock.close()
            self.sock = None

    async def _all_ended(self) -> None:
        await self._stopped.wait()
        for old in self.replaced:
            await process.ended(old.pid, old.started)

    # ---- the owner's loop

    def _take(self, what: Message) -> None:
        before, now = self.status, time.monotonic()
        self.status, actions = step(before, what, now=now, rules=self._rules, jitter=random.random())
        for action in actions:
            self._do(action)
        state = self.status.state
        if state is before.state:
            return
        if state is State.FAILED or (state is State.BACKOFF and what.event is Event.EXITED):
            kind = "failed" if state is State.FAILED else "died"
            self._note(kind, self.status.reason, level="error")

    def _do(self, action: Action) -> None:
        match action:
            case Action.SPAWN:
                if reason := self._spawn():
                    self.tell(Event.SPAWN_FAILED, reason)
                else:
                    self.tell(Event.SPAWNED)
                    self.tell(Event.READY)
            case Action.CUT:
                return  # a companion closes its own connections
            case Action.DRAIN | Action.TERM:
                self._send(signal.SIGTERM)
            case Action.KILL:
                self._send(signal.SIGKILL)
            case Action.CLEAN:
                self._unwatch()
                record.remove_companion(self.layout, self.spec.id)
                self.record = None

    def _send(self, sig: signal.Signals) -> None:
        for one in filter(None, (self.record, *self.replaced)):
            process.send(one.pid, one.started, sig, group=sig is signal.SIGKILL)

    def _note(self, kind: str, message: str, *, level: str = "info") -> None:
        self._journal.add(f"{self.spec.id}-{kind}", message, instance=self.spec.id, level=level)

    # ---- the process

    def _spawn(self) -> str:
        """Start the process; returns the reason if that failed."""
        launch = secrets.token_hex(8)
        try:
            if self.sock is None:
                self.sock = listen(self.at)
            fd = self.sock.fileno()
            argv = (*self.spec.argv, "--listen-fd", str(fd), "--control", str(self.layout.control_socket))
            where = {"fd": fd, "host": self.at.host, "port": self.at.port}
            new = Record(
                id=self.spec.id, launch=launch, log=str(self.log), wall_s=time.time(), extra={**where, **self._kind()}
            )
            record.write_companion(self.layout, new)
            with suppress(OSError):  # a full disk: the log goes on in its file
                logfiles.rotate_between(self.log)
            env = {**self.env, **SAFE_PATH, record.LAUNCH_VARIABLE: launch, "PYTHONUNBUFFERED": "1"}
            pid = process.spawn(argv, env=env, log=self.log, pass_fds=(fd,))
        except (OSError, NemotronOpsError) as exc:
            self._note("failed", str(exc), level="error")
            return str(exc)
        self.record = replace(new, pid=pid, started=process.started(pid) or "")
        record.write_companion(self.layout, self.record)
        self._note("started", f"pid {pid}")
        self._watch(self.record)
        return ""

    def _replace(self) -> None:
        """Start a process of this version on the same socket; the old one answers its requests and ends."""
        old = self.record
        assert old
        self._unwatch()
        if self._spawn():
            record.write_companion(self.layout, old)
            self._watch(old)
            return
        process.send(old.pid, old.started, signal.SIGTERM)
        self.replaced.append(old)
        self._note("relieved", f"pid {old.pid} drains and ends")

    def _outdated(self) -> bool:
        """Whether the process has another version, command or address, and its socket is shared or not needed."""
        old = self.record
        if old is None:
            return False
        here = self._serves_here(old)
        same = here and all(old.extra.get(k) == v for k, v in self._kind().items())
        return not same and (self.sock is not None or not here)

    def _serves_here(self, old: Record) -> bool:
        port = old.extra.get("port")
        return old.extra.get("host") == self.at.host and (port == self.at.port or self.at.port == 0)

    def _kind(self) -> dict[str, Any]:
        return {"version": __version__, "argv": list(self.spec.argv)}

    def _find(self) -> Record | None:
        """The process that still serves: the recorded one, or one that the record, damaged or lost, does not name."""
        kept = record.companion_path(self.layout, self.spec.id).exists()
        found = record.read_companion(self.layout, self.spec.id)
        if kept and found is None:
            self._note("damaged", "its record was set aside", level="warning")
        if found is None or not process.same(found.pid, found.started):
            found = self._serving(strays.launched(), found)
        if found is None:
            return None
        found = replace(found, extra={**found.extra, **strays.listens(found.pid)})
        if self.at.port == 0:
            port = found.extra.get("port", 0)
            self.at = Address(host=self.at.host, port=port if isinstance(port, int) else 0)
        return found

    def _serving(self, pids: Mapping[str, int], recorded: Record | None) -> Record | None:
        """The process of `recorded` by its launch, or the one that listens at our port."""
        if recorded and (living := adopt.identify(recorded, pids)):
            return living
        ports = (self.at.port,) if self.at.port else ()
        found = strays.companions(self.layout, pids, module=self.spec.module, name=self.spec.id)
        here = [g for g in found if not ports or g.extra["port"] in ports]
        return replace(here[0], extra={**here[0].extra, "host": self.at.host}) if here else None

    # ---- watching

    def _watch(self, current: Record) -> None:
        work = {"exit": partial(self._await_exit, current), "probe": partial(self._kill_when_silent, current)}
        self._tasks = [asyncio.create_task(self._guarded(w), name=f"{n} of {self.spec.id}") for n, w in work.items()]

    def _unwatch(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks = []

    async def _guarded(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs a watcher; after a bug in it the process is replaced, since no other task would notice its end."""
        if not await self._journal.guard(work, self.spec.id) and self.record is not None:
            process.send(self.record.pid, self.record.started, signal.SIGKILL, group=True)
            self.tell(Event.EXITED, "a bug in nemotron-ops ended its watcher")

    async def _await_exit(self, current: Record) -> None:
        code = await process.ended(current.pid, current.started)
        lines = await asyncio.to_thread(logfiles.tail, self.log, lines=5)
        last = [line for line in lines if line.strip()]
        self.tell(Event.EXITED, f"exit code {code}" + (f": {last[-1][:200]}" if last else ""))

    async def _kill_when_silent(self, current: Record) -> None:
        """Kills a process that holds the socket (so the kernel accepts) but answers no connection.

        Its exit is a death like any other. The steps of a stop would only lengthen the outage.
        """
        silent, probe = 0, self.spec.probe
        while silent < probe.failures:
            await asyncio.sleep(probe.period_s)
            silent = 0 if await answers(self.at, probe.timeout_s) else silent + 1
        self._note("stuck", f"{silent} probes without an answer", level="error")
        process.send(current.pid, current.started, signal.SIGKILL, group=True)


def _whole(value: object) -> int:
    """A descriptor out of a record; -1 is none."""
    return value if isinstance(value, int) else -1
