"""`supervise`: the supervisor from its lock to its exit code. asyncio, signals.

SIGTERM, SIGINT    drain, stop everything, end with 0; a second one stops waiting for requests in flight
                   (where the service manager keeps the listening socket for the next start, the gateway ends first:
                   it answers what it has accepted, and who comes later waits in the socket's backlog)
SIGHUP             reload
(SIGKILL, crash)   engines and gateway go on; the next supervisor finds and adopts them
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from nemotron_ops.errors import EngineError
from nemotron_ops.paths import Layout
from nemotron_ops.processes import logfiles
from nemotron_ops.supervisor import watchdog
from nemotron_ops.supervisor.companion import Address, Gateway, Probe, given, passed
from nemotron_ops.supervisor.control.server import ControlServer
from nemotron_ops.supervisor.control.verbs import Verbs
from nemotron_ops.supervisor.fleet import rollout
from nemotron_ops.supervisor.fleet.changes import Changes, check, diff
from nemotron_ops.supervisor.fleet.instances import Fleet
from nemotron_ops.supervisor.instance.keeper import Ground
from nemotron_ops.supervisor.journal import Entry, Journal
from nemotron_ops.supervisor.records import adopt, lock, record
from nemotron_ops.supervisor.snapshot import Snapshot, State
from nemotron_ops.supervisor.spec import Config

RESUME = "NEMOTRON_OPS_RESUME"  # descriptors handed to the next version by `reload --exec`
GATEWAY_STOP_S = 5.0
GATEWAY_DRAIN_S = 60.0  # its own limit is 30 s (gateway.options); this is for one that hangs
ROTATE_PERIOD_S = 5.0
TICK_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """How one supervisor runs.

    `gateway_argv` is the gateway's complete command; `--listen-fd N --control PATH` are added. `exit_on_failed`: end
    with the error's exit code once every instance has failed. `free_bytes` says what each device has free now.
    `on_tick` is called each second (a watchdog's heartbeat), as long as each of the supervisor's tasks has come round
    within `silence_s`; `on_progress` at each sign that a load goes on; `on_reload` with True when a reload begins and
    with False when it has ended, well or not. `socket_stays` says, at the end, whether whoever
    passed us the listening socket (LISTEN_FDS) will go on listening: if not, new requests are refused while we drain.
    """

    gateway_argv: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8001
    scheme: str = "http"  # what the gateway speaks, for status
    exit_on_failed: bool = False
    gateway_probe: Probe = field(default_factory=Probe)
    free_bytes: Callable[[], Mapping[str, int]] | None = None
    on_tick: Callable[[], None] = lambda: None
    on_progress: Callable[[], None] = lambda: None
    silence_s: float = watchdog.SILENCE_S
    on_reload: Callable[[bool], None] = lambda begins: None
    socket_stays: Callable[[], bool] = lambda: True


def supervise(
    options: Options,
    *,
    layout: Layout,
    load_config: Callable[[], Config],
    env: Mapping[str, str],
    on_snapshot: Callable[[Snapshot], None] = lambda snapshot: None,
    on_event: Callable[[Entry], None] | None = None,
) -> int:
    """Run until stopped; returns the exit code.

    Raises ControlError if another supervisor holds this state directory, GatewayError if the address cannot be had,
    and whatever `load_config` raises: nothing has been started then.
    """
    resumed = json.loads(env.get(RESUME, "{}"))
    held = lock.take(layout, inherited_fd=resumed.get("lock_fd"))
    supervisor = Supervisor(options, layout, load_config, env, on_snapshot, on_event)
    try:
        code = asyncio.run(supervisor.main(resumed.get("listen_fd")))
    except BaseExceptionGroup as group:
        raise only(group) from None
    finally:
        if not supervisor.executing:
            os.close(held)
    if supervisor.executing:
        execute(held, supervisor.gateway.sock)
    return code


class Supervisor:
    """Puts the parts together, and takes them apart again in the right order."""

    def __init__(
        self,
        options: Options,
        layout: Layout,
        load_config: Callable[[], Config],
        env: Mapping[str, str],
        on_snapshot: Callable[[Snapshot], None],
        on_event: Callable[[Entry], None] | None,
    ) -> None:
        self.options, self.layout, self.load_config = options, layout, load_config
        self.env = {k: v for k, v in env.items() if k != RESUME}
        self.on_snapshot = on_snapshot
        self.executing = False
        self.code = 0
        self.journal = Journal(layout.logs / "events.jsonl", on_event)
        self.verbs = Verbs(self)
        self.control = ControlServer(layout, self.verbs.table(), changed=self._changed)
        ground = Ground(
            layout=layout, env=self.env, journal=self.journal, changed=self._changed, inflight=self.control.inflight,
            random=random.random, exited=self._exited, moved=options.on_progress,
        )  # fmt: skip
        self.fleet = Fleet(ground, publish=self._published, free_bytes=options.free_bytes)
        at = Address(host=options.host, port=options.port)
        self.gateway = Gateway(
            options.gateway_argv, at=at, layout=layout, env=self.env, journal=self.journal, probe=options.gateway_probe
        )
        self.configured = asyncio.Event()  # until then nothing may be started, stopped or changed
        self.refused: dict[str, str] = {}  # instance -> why the last change of it failed: it runs what it ran before
        self._end = asyncio.Event()
        self._change = asyncio.Lock()
        self._signals = 0

    async def main(self, listen_fd: int | None) -> int:
        config = await asyncio.to_thread(self.load_config)
        found = await asyncio.to_thread(adopt.find, self.layout)
        inherited = socket.socket(fileno=listen_fd) if listen_fd is not None else given(self.env, os.getpid())
        self.gateway.open(inherited)
        kept = frozenset(("gateway", "supervisor", *(s.name for s in config.instances), *(r.id for r in found.alive)))
        await asyncio.to_thread(logfiles.prune, self.layout.logs, kept)
        await self.control.start()
        self._on_signals()
        self.journal.add("supervisor-started", f"pid {os.getpid()}")
        for name in found.cleaned:
            self.journal.add("cleaned", "its process was gone", instance=name)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.fleet.run(), name="fleet")]
            tasks += [group.create_task(self.gateway.run(), name="gateway")]
            tasks += [group.create_task(self._housekeeping(), name="housekeeping")]
            await self.fleet.adopt(found.alive)
            tasks += [group.create_task(self._first(config), name="first configuration")]
            await self._end.wait()
            if not self.executing:
                await self._shut_down(tasks[0], tasks[1])
            for task in tasks:
                task.cancel()
        await self.control.close(unlink=not self.executing)
        return self.code

    # ---- asked by verbs and signals

    def end(self) -> None:
        """Stop everything and return."""
        self._end.set()

    def end_for_exec(self) -> None:
        """Return with every child running, for the next version to adopt."""
        self.executing = True
        self._end.set()

    async def reload(self, *, strict: bool = False) -> rollout.Outcome:
        """Read the configuration again and make it true. Raises what `load_config` raises; nothing changed then."""
        await self.configured.wait()
        async with self._change:
            self.options.on_reload(True)
            try:
                return await self._apply(await asyncio.to_thread(self.load_config), strict=strict)
            finally:
                self.options.on_reload(False)

    async def preview(self) -> Changes:
        """What a reload would do. Raises what `load_config` raises, and RecipeError."""
        config = await asyncio.to_thread(self.load_config)
        check(config)
        return diff(rollout.running(self.fleet, config), config)

    async def apply(self, config: Config) -> rollout.Outcome:
        await self.configured.wait()
        async with self._change:
            return await self._apply(config)

    @property
    def changing(self) -> bool:
        """Whether what runs is on its way to what is configured."""
        return not self.configured.is_set() or self._change.locked()

    # ---- the course of things

    async def _first(self, config: Config) -> None:
        async with self._change:
            self.configured.set()
            await self._apply(config)

    async def _apply(self, config: Config, *, strict: bool = False) -> rollout.Outcome:
        outcome = await rollout.apply(self.fleet, config, strict=strict)
        self.refused = outcome.failed
        return outcome

    async def _shut_down(self, fleet: asyncio.Task[None], gateway: asyncio.Task[None]) -> None:
        if passed(self.env, os.getpid()) and await asyncio.to_thread(self.options.socket_stays):
            gateway.cancel()
            await asyncio.gather(gateway, return_exceptions=True)
            await self.gateway.drain(within_s=GATEWAY_DRAIN_S, hurried=self.fleet.hurried)
        await self.fleet.stop_all()
        gateway.cancel()
        await asyncio.gather(gateway, return_exceptions=True)
        await self.gateway.stop(within_s=GATEWAY_STOP_S)
        record.write_held(self.layout, {})  # after an orderly end, the next start begins afresh
        self.journal.add("supervisor-stopped", f"exit code {self.code}")
        fleet.cancel()

    async def _housekeeping(self) -> None:
        """Logs kept in bounds, and the heartbeat: it stops with any of the tasks that matter."""
        loop = asyncio.get_running_loop()
        rotated = loop.time()
        stuck: tuple[str, ...] = ()
        while True:
            stuck, before = self._stuck(), stuck
            if stuck and stuck != before:
                self.journal.add("stuck", f"no sign of life from: {', '.join(stuck)}", level="error")
            if not stuck:
                self.options.on_tick()
            if loop.time() - rotated >= ROTATE_PERIOD_S:
                rotated = loop.time()
                logs = [k.log for k in self.fleet.keepers.values() if k.record] + [self.gateway.log]
                for log in logs:
                    with contextlib.suppress(OSError):
                        await asyncio.to_thread(logfiles.rotate, log)
            await asyncio.sleep(TICK_S)

    def _stuck(self) -> tuple[str, ...]:
        """Which of our own tasks have not come round for too long. At the end the gateway's watcher goes first."""
        turned = self.fleet.turned()
        if not self._end.is_set():
            turned["gateway"] = self.gateway.turned
        return watchdog.late(turned, now=time.monotonic(), silence_s=self.options.silence_s)

    def _changed(self) -> None:
        self.fleet.changed()

    def _exited(self) -> None:
        self.fleet.note_exit()

    def _published(self, snapshot: Snapshot) -> None:
        self.control.publish(snapshot)
        self.on_snapshot(snapshot)
        states = {i.state for i in snapshot.instances}
        if self.options.exit_on_failed and states == {State.FAILED} and not self._end.is_set():
            self.code = EngineError.exit_code
            self.journal.add("giving-up", "every instance has failed", level="error")
            self.end()

    def _on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for sig in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sig, self._asked_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._asked_to_reload)

    def _asked_to_stop(self) -> None:
        self._signals += 1
        if self._signals == 1:
            self.end()
        else:
            self.fleet.hurry()

    def _asked_to_reload(self) -> None:
        self.verbs.background(self.verbs.reload_quietly())


def execute(lock_fd: int, sock: socket.socket | None) -> NoReturn:
    """Become the program anew, which may be another version by now, with the same pid, lock and listening socket."""
    resume = {"lock_fd": lock_fd}
    os.set_inheritable(lock_fd, True)
    if sock is not None:
        os.set_inheritable(sock.fileno(), True)
        resume["listen_fd"] = sock.fileno()
    os.environ[RESUME] = json.dumps(resume)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group, however deep: one cause is what people can act on."""
    first = group.exceptions[0]
    return only(first) if isinstance(first, BaseExceptionGroup) else first
