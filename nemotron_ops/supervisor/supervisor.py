"""Starts journal, control socket, gateway and fleet, and stops them in the right order. asyncio, signals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nemotron_ops.errors import EngineError, NemotronOpsError
from nemotron_ops.paths import Layout
from nemotron_ops.policy import Health, Restart
from nemotron_ops.processes import logfiles
from nemotron_ops.processes.sockets import Address, passed_socket, was_passed
from nemotron_ops.supervisor import watchdog
from nemotron_ops.supervisor.companion import Companion, CompanionSpec
from nemotron_ops.supervisor.control.server import ControlServer, Verb
from nemotron_ops.supervisor.fleet import rollout
from nemotron_ops.supervisor.fleet.changes import Changes, check, diff
from nemotron_ops.supervisor.fleet.instances import Fleet
from nemotron_ops.supervisor.instance.context import Context
from nemotron_ops.supervisor.instance.state import Rules
from nemotron_ops.supervisor.journal import Entry, Journal
from nemotron_ops.supervisor.on_demand import OnDemand, OnDemandSpec
from nemotron_ops.supervisor.probe import Probe
from nemotron_ops.supervisor.records import adopt, record
from nemotron_ops.supervisor.snapshot import Snapshot, State
from nemotron_ops.supervisor.spec import Config
from nemotron_ops.supervisor.watchdog import Timing
from nemotron_ops.supervisor.wishes import RESUME, NoWishes, Proposal, Wishes

ENDLESS = 1 << 30
# The gateway is the only way in for clients, so it is started again for ever: a process that comes back by itself after
# a repair (a key file, a certificate) serves them better than one that waits for a restart by hand. With waits of at
# most 5 s, 60 s hold enough deaths to keep the wait there. The gateway drains for up to 30 s by itself
# (gateway.options); 60 s are for one that hangs.
GATEWAY_RULES = Rules(
    restart=Restart(max_restarts=ENDLESS, window_s=60.0, backoff_initial_s=0.05, backoff_max_s=5.0, stable_s=30.0),
    health=Health(drain_s=60.0, stop_s=5.0),
    cut_s=0.0,
    second_term_s=0.0,
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """How one supervisor runs.

    `gateway_argv` is the gateway's complete command, but for `--listen-fd N --control PATH`. `exit_on_failed`: end with
    the error's exit code once every instance has failed.
    """

    gateway_argv: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8001
    scheme: str = "http"  # of the gateway's URL in `status`
    exit_on_failed: bool = False
    gateway_probe: Probe = field(default_factory=Probe)
    gateway_rules: Rules = GATEWAY_RULES
    companions: tuple[CompanionSpec, ...] = ()  # further ones, beside the gateway
    on_demand: tuple[OnDemandSpec, ...] = ()  # processes that run while their socket is used
    timing: Timing = field(default_factory=Timing)


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """Callables between the supervisor and its surroundings.

    `on_tick` is called each second (the service manager's heartbeat) while all tasks of the supervisor come round;
    `on_progress` at each sign of progress of a load; `on_reload` with True when a reload or a change of the wish begins
    and with False when it has ended, well or not. `socket_stays` says, at the end, whether the service manager, which
    passed the listening socket (LISTEN_FDS), keeps it open: if not, new requests are refused during the drain.
    `free_bytes` is the free memory by device. `wishes` keeps what is to be served.
    """

    on_snapshot: Callable[[Snapshot], None] = lambda snapshot: None
    on_event: Callable[[Entry], None] | None = None
    on_tick: Callable[[], None] = lambda: None
    on_progress: Callable[[], None] = lambda: None
    on_reload: Callable[[bool], None] = lambda begins: None
    socket_stays: Callable[[], bool] = lambda: True
    free_bytes: Callable[[], Mapping[str, int]] | None = None
    wishes: Wishes = field(default_factory=NoWishes)


class Supervisor:
    """The parts of one supervisor, from the first configuration to the exit code."""

    def __init__(
        self,
        options: Options,
        hooks: Hooks,
        layout: Layout,
        load_config: Callable[[], Config],
        env: Mapping[str, str],
    ) -> None:
        self.options, self.hooks, self.layout, self.load_config = options, hooks, layout, load_config
        self.env = {k: v for k, v in env.items() if k != RESUME}
        self.executing = False
        self.code = 0
        self.exit_on_failed = options.exit_on_failed
        self.journal = Journal(layout.logs / "events.jsonl", hooks.on_event)
        self.control = ControlServer(layout, changed=lambda: self.fleet.changed())
        context = Context(
            layout=layout, env=self.env, journal=self.journal, inflight=self.control.inflight,
            acknowledged=self.control.acknowledged,
            progressed=hooks.on_progress, timing=options.timing,
        )  # fmt: skip
        self.fleet = Fleet(context, publish=self._publish, free_bytes=hooks.free_bytes)
        at = Address(host=options.host, port=options.port)
        gateway = CompanionSpec(
            id="gateway", argv=options.gateway_argv, at=at, rules=options.gateway_rules, probe=options.gateway_probe
        )
        self.gateway = Companion(
            gateway, layout=layout, env=self.env, journal=self.journal, beat_s=options.timing.beat_s
        )
        self.companions = [
            Companion(spec, layout=layout, env=self.env, journal=self.journal, beat_s=options.timing.beat_s)
            for spec in options.companions
        ]
        self.on_demand = [
            OnDemand(spec, layout=layout, env=self.env, journal=self.journal) for spec in options.on_demand
        ]
        self.beside: list[Companion | OnDemand] = [*self.companions, *self.on_demand]
        self.configured = asyncio.Event()  # set: instances may be started, stopped and changed
        self.refused: dict[str, str] = {}  # instance -> why its last change failed and the old process runs on
        self._end = asyncio.Event()
        self._change = asyncio.Lock()
        self._signals = 0
        self._unhealed = ""

    async def main(self, verbs: Mapping[str, Verb], *, on_hup: Callable[[], None], listen_fd: int | None) -> int:
        """From the first configuration to the exit code; `listen_fd` is the socket of `reload --exec`."""
        config = await asyncio.to_thread(self.load_config)
        found = await asyncio.to_thread(adopt.find, self.layout)
        inherited = socket.socket(fileno=listen_fd) if listen_fd is not None else passed_socket(self.env, os.getpid())
        await asyncio.to_thread(adopt.end_strays, found)
        self.gateway.open(inherited)
        for companion in self.companions:
            companion.open(None)
        for one in self.on_demand:
            one.open()
        named = ("gateway", "supervisor", *(c.spec.id for c in self.beside))
        kept = frozenset((*named, *(s.name for s in config.instances), *(r.id for r in found.alive)))
        await asyncio.to_thread(logfiles.prune, self.layout.logs, kept)
        await self.control.start(verbs)
        self._on_signals(on_hup)
        self.journal.add("supervisor-started", f"pid {os.getpid()}")
        for name in found.cleaned:
            self.journal.add("cleaned", "its process had ended", instance=name)
        for name in found.damaged:
            self.journal.add("damaged", "its record was set aside", instance=name, level="warning")
        for stray in found.strays:
            self.journal.add("ended", f"pid {stray.pid}: no record named it", instance=stray.id, level="warning")
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.fleet.run(), name="fleet")]
            tasks += [group.create_task(self.gateway.run(), name="gateway")]
            tasks += [group.create_task(c.run(), name=c.spec.id) for c in self.beside]
            tasks += [group.create_task(self._housekeeping(), name="housekeeping")]
            await self.fleet.adopt(found.alive)
            tasks += [group.create_task(self._apply_first(config), name="first configuration")]
            await self._end.wait()
            if not self.executing:
                await self._shut_down()
            for task in tasks:
                task.cancel()
        await self.control.close(unlink=not self.executing)
        return self.code

    # ---- called by verbs and signals

    def end(self) -> None:
        """Stop everything and return."""
        self._end.set()

    def end_for_exec(self) -> None:
        """Return with every child running; the next version adopts them."""
        self.executing = True
        self._end.set()

    async def reload(self, *, strict: bool = False) -> rollout.Outcome:
        """Read the configuration again and run it. Raises the errors of `load_config`, with nothing changed."""
        await self.configured.wait()
        async with self._change:
            self.hooks.on_reload(True)
            try:
                return await self._apply(await asyncio.to_thread(self.load_config), strict=strict)
            finally:
                self.hooks.on_reload(False)

    async def preview(self) -> Changes:
        """The changes of a reload. Raises the errors of `load_config`, and RecipeError."""
        return self._changes(await asyncio.to_thread(self.load_config))

    async def change_wish(self, change: Mapping[str, Any], *, strict: bool = False) -> rollout.Outcome:
        """Change what is to be served, and serve it. Raises the errors of `Wishes`, with nothing changed.

        The changed wish is kept once it runs; where a replacement failed, everything goes on as it was.
        """
        await self.configured.wait()
        async with self._change:
            self.hooks.on_reload(True)
            try:
                outcome = await self._change_wish(await asyncio.to_thread(self.hooks.wishes.propose, change), strict)
                await self.fleet.until(self._published)
                return outcome
            finally:
                self.hooks.on_reload(False)

    async def preview_wish(self, change: Mapping[str, Any]) -> Changes:
        """What `change_wish` would do. Raises the errors of `Wishes`, and RecipeError."""
        await self.configured.wait()
        async with self._change:
            proposal = await asyncio.to_thread(self.hooks.wishes.propose, change)
        return self._changes(proposal.config)

    async def go_back(self, config: Config, models: list[dict[str, Any]]) -> rollout.Outcome:
        """Run an earlier configuration, of the wish `models`."""
        await self.configured.wait()
        async with self._change:
            await asyncio.to_thread(self.hooks.wishes.prepare, models)
            outcome = await self._apply(config)
            await asyncio.to_thread(self.hooks.wishes.keep, models)
            return outcome

    @property
    def changing(self) -> bool:
        """Whether a configuration is being applied."""
        return not self.configured.is_set() or self._change.locked()

    # ---- from start to end

    async def _apply_first(self, config: Config) -> None:
        async with self._change:
            self.configured.set()
            try:
                await asyncio.to_thread(self.hooks.wishes.begin)
            except NemotronOpsError as exc:  # a full disk must not keep models from being served
                self.journal.add("not-recorded", exc.message, level="warning")
            await self._apply(config)

    async def _change_wish(self, proposal: Proposal, strict: bool) -> rollout.Outcome:
        wishes, before = self.hooks.wishes, self.fleet.config
        check(proposal.config)
        await asyncio.to_thread(wishes.prepare, proposal.models)
        self.exit_on_failed = False  # an added model that cannot run must not end the endpoint
        self.fleet.forget_holds(self._changes(proposal.config).add)
        outcome = await self._apply(proposal.config, strict=strict)
        try:
            if not outcome.failed:
                await asyncio.to_thread(wishes.keep, proposal.models)
                return outcome
        except NemotronOpsError:
            await rollout.apply(self.fleet, before)
            raise
        await rollout.apply(self.fleet, before)
        return outcome

    def _published(self) -> bool:
        """Whether the snapshot, by which gateways route, has the models of the configuration."""
        return [m.name for m in self.fleet.snapshot.models] == [m.name for m in self.fleet.config.models]

    def _changes(self, config: Config) -> Changes:
        check(config)
        return diff(rollout.running(self.fleet, config), config)

    async def _apply(self, config: Config, *, strict: bool = False) -> rollout.Outcome:
        outcome = await rollout.apply(self.fleet, config, strict=strict)
        self.refused = outcome.failed
        return outcome

    async def _shut_down(self) -> None:
        if was_passed(self.env, os.getpid()) and await asyncio.to_thread(self.hooks.socket_stays):
            await self.gateway.drain(forced=self.fleet.forced)
        await asyncio.gather(*(c.stop() for c in self.beside))
        await self.fleet.stop_all()
        await self.gateway.stop()
        record.write_held(self.layout, {})  # an orderly end forgets starts and stops by hand
        self.journal.add("supervisor-stopped", f"exit code {self.code}")

    async def _housekeeping(self) -> None:
        """Rotates logs, and sends the heartbeat while all tasks come round."""
        timing = self.options.timing
        rotated = time.monotonic()
        stuck: tuple[str, ...] = ()
        while True:
            stuck, before = self._stuck(), stuck
            if stuck and stuck != before:
                self.journal.add("stuck", f"no sign of life from: {', '.join(stuck)}", level="error")
            if not stuck:
                self.hooks.on_tick()
            if not self._end.is_set():
                await self._heal_control()
            if time.monotonic() - rotated >= timing.rotate_s:
                rotated = time.monotonic()
                logs = [k.log for k in self.fleet.keepers.values() if k.record]
                logs += [c.log for c in (self.gateway, *self.beside)]
                for log in logs:
                    with contextlib.suppress(OSError):
                        await asyncio.to_thread(logfiles.rotate, log)
            await asyncio.sleep(timing.tick_s)

    async def _heal_control(self) -> None:
        try:
            if await self.control.restore():
                self.journal.add("restored", "the control socket had vanished", level="warning")
        except (OSError, NemotronOpsError) as exc:
            if str(exc) != self._unhealed:  # said once, tried again at each tick
                self.journal.add("not-restored", f"the control socket: {exc}", level="error")
            self._unhealed = str(exc)

    def _stuck(self) -> tuple[str, ...]:
        """The tasks that have not come round for too long. At the end, the gateway's task ends first."""
        turns = self.fleet.last_turns()
        if not self._end.is_set():
            turns |= {c.spec.id: c.last_turn_at for c in (self.gateway, *self.companions)}
        return watchdog.late(turns, now=time.monotonic(), silence_s=self.options.timing.silence_s)

    def _publish(self, snapshot: Snapshot) -> None:
        self.control.publish(snapshot)
        self.hooks.on_snapshot(snapshot)
        states = {i.state for i in snapshot.instances}
        if self.exit_on_failed and states == {State.FAILED} and not self._end.is_set():
            self.code = EngineError.exit_code
            self.journal.add("giving-up", "every instance has failed", level="error")
            self.end()

    def _on_signals(self, on_hup: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        for sig in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sig, self._on_stop_signal)
        loop.add_signal_handler(signal.SIGHUP, on_hup)

    def _on_stop_signal(self) -> None:
        self._signals += 1
        if self._signals == 1:
            self.end()
        else:
            self.fleet.force_stop()
