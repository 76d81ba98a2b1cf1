"""The owner of one instance: the only one who starts, signals and forgets its process. asyncio, subprocess.

Everything that happens arrives in one inbox and goes through `state.step`; what `step` orders is done here. Beside
the inbox run at most two tasks: one that waits for the process to end, and one attendant for the present state, which
watches loading, health or draining and only ever reports to the inbox.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemotron_ops.engine.death_table import Cause
from nemotron_ops.engine.deaths import Death, explain
from nemotron_ops.engine.env import child_env
from nemotron_ops.paths import Layout
from nemotron_ops.processes import logfiles, oom, process
from nemotron_ops.supervisor.instance import watchers
from nemotron_ops.supervisor.instance.shrink import can_shrink, context, shrunk
from nemotron_ops.supervisor.instance.state import Action, Event, Happening, Life, Rules, Rung, step
from nemotron_ops.supervisor.journal import Journal
from nemotron_ops.supervisor.records import record
from nemotron_ops.supervisor.records.record import Record
from nemotron_ops.supervisor.snapshot import InstanceView, State
from nemotron_ops.supervisor.spec import InstanceSpec
from nemotron_ops.supervisor.watchdog import BEAT_S

if TYPE_CHECKING:
    from nemotron_ops.engine.client import AsyncClient


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What all keepers stand on.

    `inflight` says how many requests the gateway has at an instance (None: no gateway is connected). `moved` is called
    at each sign that a load goes on.
    """

    layout: Layout
    env: Mapping[str, str]
    journal: Journal
    changed: Callable[[], None]
    inflight: Callable[[str], int | None]
    random: Callable[[], float]
    exited: Callable[[], None] = lambda: None
    moved: Callable[[], None] = lambda: None
    clock: Callable[[], float] = time.monotonic


class Keeper:
    """One instance and its process, from first start to last clean-up."""

    def __init__(self, instance_id: str, spec: InstanceSpec, ground: Ground, *, published: bool = True) -> None:
        self.id, self.spec, self.ground = instance_id, spec, ground
        self.published = published  # False: not for the gateway yet (it still has to pass its canary)
        self.life = Life(since=ground.clock())
        self.record: Record | None = None
        self.death: Death | None = None
        self.load_progress: float | None = None
        self.last_used = ground.clock()
        self.busy = 0
        self.used_bytes: Mapping[str, int] = {}  # memory that the process was last seen to hold
        self.restart_reasons: Counter[str] = Counter()
        self.shrunk = 0  # how often its context was halved for lack of memory
        self.held_back = False  # drained by hand: loaded, but without traffic
        self.turned = ground.clock()  # when its owner's loop last came round
        self._inbox: asyncio.Queue[Happening] = asyncio.Queue()
        self._client: AsyncClient | None = None
        self._attendant: asyncio.Task[None] | None = None
        self._exit: asyncio.Task[None] | None = None
        self._attended: tuple[State, Rung | None] | None = None
        self._oom_kills = 0

    # ---- asked from outside

    def tell(self, event: Event, reason: str = "", *, failure: bool = True, hopeless: bool = False) -> None:
        """Put an event into the inbox."""
        self._inbox.put_nowait(Happening(event=event, reason=reason, failure=failure, hopeless=hopeless))

    def adopt(self, found: Record, *, ready: bool) -> None:
        """Take over a living process that an earlier supervisor started."""
        self.record = found
        self.shrunk = int(found.extra.get("shrunk", 0))
        self._oom_kills = oom.oom_kills()
        self._watch_exit()
        self.tell(Event.ADOPTED_READY if ready else Event.ADOPTED_LOADING)

    @property
    def log(self) -> Path:
        return Path(self.record.log) if self.record else self.ground.layout.logs / f"{self.id}.log"

    @property
    def client(self) -> AsyncClient:
        """HTTP to the present process."""
        assert self.record, "no process"
        if self._client is None:
            from nemotron_ops.engine.client import AsyncClient  # 100 ms, not before the door is open

            key = Path(self.record.key_file).read_text().strip()
            self._client = AsyncClient(Path(self.record.socket), key, self.spec.health.probe_timeout_s)
        return self._client

    @property
    def told(self) -> bool:
        """Whether something is in the inbox that it has not yet acted on."""
        return not self._inbox.empty()

    @property
    def at_rest(self) -> bool:
        """No process, and none will come by itself."""
        return self.life.state in (State.STOPPED, State.FAILED) and not self.told

    def view(self) -> InstanceView:
        state = self.life.state
        if state is State.READY and not self.published:
            state = State.STARTING
        stopping = state is State.STOPPING
        cut = stopping and self.life.rung is not Rung.DRAIN
        return InstanceView(
            name=self.id, model=self.spec.model, state=state, socket=self.record.socket if self.record else "",
            api_key_file=self.record.key_file if self.record else "", slots=self.spec.slots,
            ctx_tokens=self.spec.ctx_tokens >> self.shrunk, kv_unified=self.spec.kv_unified,
            draining=stopping or self.held_back, cut=cut,
            pid=self.record.pid if self.record else None, restarts=self.life.restarts,
            restart_reasons=dict(self.restart_reasons),
            load_progress=self.load_progress if self.life.state is State.STARTING else None,
            reason=self.life.reason, build=self.spec.build, planned_bytes=self.spec.memory_bytes,
            used_bytes=self.used_bytes if self.record else {},
        )  # fmt: skip

    # ---- the owner's loop

    async def run(self) -> None:
        """Lives by the table until cancelled; its process goes on when this ends."""
        try:
            while True:
                self.turned = self.ground.clock()
                self._take(await self._next())
        finally:
            for task in (self._attendant, self._exit):
                if task:
                    task.cancel()

    async def _next(self) -> Happening:
        """What comes next; where nothing does, a deadline, which changes nothing before its time."""
        left_s = BEAT_S if self.life.deadline is None else self.life.deadline - self.ground.clock()
        try:
            async with asyncio.timeout(min(BEAT_S, max(0.0, left_s))):
                return await self._inbox.get()
        except TimeoutError:
            return Happening(event=Event.DEADLINE)

    def _take(self, what: Happening) -> None:
        before = self.life
        rules = Rules(restart=self.spec.restart, health=self.spec.health)
        self.life, actions = step(before, what, now=self.ground.clock(), rules=rules, jitter=self.ground.random())
        if self.life.restarts > before.restarts:
            self.restart_reasons[self._why_restarted(before)] += 1
        for action in actions:
            self._do(action)
        if self.life.state is not before.state:
            self._note_change(before, what)
        self._attend()
        if self.life != before:
            self.ground.changed()

    def _why_restarted(self, before: Life) -> str:
        """In a word, as metrics have it."""
        if before.fault:
            return "wedged"
        return "asked" if before.asked else self.death.cause.value if self.death else "unknown"

    def _do(self, action: Action) -> None:
        match action:
            case Action.SPAWN:
                self._spawn()
            case Action.DRAIN | Action.CUT:
                return  # both show in the view, which the gateway follows
            case Action.TERM:
                self._signal(signal.SIGTERM)
            case Action.KILL:
                self._signal(signal.SIGKILL)
            case Action.CLEAN:
                self._clean()

    def _spawn(self) -> None:
        """Record, start, record again. Done in one go on the loop: no other event can come between."""
        layout, launch = self.ground.layout, secrets.token_hex(8)
        short = f"{self.id[:20]}-{launch[:8]}"
        log = layout.logs / f"{self.id}.log"
        layout.logs.mkdir(parents=True, exist_ok=True)
        logfiles.rotate_between(log)
        home, slots_dir = layout.state / "home", layout.state / "slots" / self.spec.name
        for folder in (home, slots_dir):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        socket, key_file = layout.runtime / f"{short}.sock", layout.runtime / f"{short}.key"
        new = Record(
            id=self.id, launch=launch, socket=str(socket), key_file=str(key_file), log=str(log),
            log_offset=log.stat().st_size if log.exists() else 0, wall_s=time.time(), spec=self.spec,
            extra={"shrunk": self.shrunk},
        )  # fmt: skip
        self.record, self.death, self.load_progress, self._oom_kills = new, None, None, oom.oom_kills()
        try:
            socket.unlink(missing_ok=True)  # llama-server never removes it and cannot bind over one
            _write_key(key_file)
            record.write(layout, new)
            places = {"{socket}": str(socket), "{api_key_file}": str(key_file), "{slots_dir}": str(slots_dir)}
            env = child_env(self.ground.env, home=home, extra={**self.spec.env, record.LAUNCH_VARIABLE: launch})
            argv = [places.get(word, word) for word in shrunk(self.spec.argv, self.shrunk)]
            pid = process.spawn(argv, env=env, log=log)
            process.prefer_for_oom(pid)
            self.record = replace(new, pid=pid, started=process.started(pid) or "")
            record.write(layout, self.record)
        except OSError as exc:
            text = f"cannot start {self.spec.argv[0]}: {exc.strerror or exc}"
            self.tell(Event.SPAWN_FAILED, text, hopeless=isinstance(exc, FileNotFoundError | PermissionError))
            return
        self._watch_exit()
        self.tell(Event.SPAWNED)

    def _signal(self, sig: signal.Signals) -> None:
        if self.record:
            process.send(self.record.pid, self.record.started, sig, group=sig is signal.SIGKILL)

    def _clean(self) -> None:
        """Remove what a process leaves behind: grandchildren, socket, key, record."""
        if self.record is None:
            return
        if self.record.pid:
            process.send(self.record.pid, self.record.started, signal.SIGKILL, group=True)
        Path(self.record.socket).unlink(missing_ok=True)
        Path(self.record.key_file).unlink(missing_ok=True)
        record.remove(self.ground.layout, self.record.id)
        self.record, self._client = None, None
        self.used_bytes = {}

    # ---- watching

    def _watch_exit(self) -> None:
        assert self.record
        self._exit = asyncio.create_task(self._guarded(self._await_exit(self.record)), name=f"exit of {self.id}")

    async def _await_exit(self, of: Record) -> None:
        code = await process.ended(of.pid, of.started)
        lines = await asyncio.to_thread(logfiles.tail, Path(of.log), lines=400, offset=of.log_offset)
        killed = code in (-9, 137, None) and (
            oom.oom_kills() > self._oom_kills or await asyncio.to_thread(oom.in_kernel_log, of.pid)
        )
        death = explain(code, lines, oom_killed=killed and code != 0)
        if death.cause is Cause.BAD_FLAG:
            flags = await asyncio.to_thread(watchers.flags_of, self.spec.argv[0])
            death = explain(code, lines, flags=flags)
        self.death = death
        if death.memory and self.spec.may_shrink and can_shrink(self.spec.argv, self.shrunk):
            self.shrunk += 1
            tokens = context(shrunk(self.spec.argv, self.shrunk))
            self.ground.journal.add("shrunk", f"to {tokens} tokens of context", instance=self.id, level="warning")
        self.ground.exited()
        self.tell(Event.EXITED, death.line, failure=death.cause is not Cause.STOPPED, hopeless=death.hopeless)

    def _attend(self) -> None:
        """One attendant per state (and per drain): the old one goes when the state does."""
        state = self.life.state
        place = (state, self.life.rung if state is State.STOPPING else None)
        if place == self._attended:
            return
        self._attended = place
        if self._attendant:
            self._attendant.cancel()
            self._attendant = None
        work: Coroutine[Any, Any, None] | None = None
        match place:
            case (State.STARTING, _) if self.record:
                work = watchers.loading(self)
            case (State.READY, _):
                work = watchers.health(self)
            case (State.STOPPING, Rung.DRAIN):
                work = watchers.draining(self)
            case _:
                return
        if work is not None:
            self._attendant = asyncio.create_task(self._guarded(work), name=f"{state} of {self.id}")

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """A bug in a watcher is written down; the instance is not left without a word."""
        try:
            await work
        except Exception as exc:  # noqa: BLE001 - the last line of defence of a task nobody awaits
            self.ground.journal.add("bug", f"{type(exc).__name__}: {exc}", instance=self.id, level="error")

    def _note_change(self, before: Life, what: Happening) -> None:
        """A state's change, in the journal."""
        state, reason = self.life.state, self.life.reason or what.reason
        if state in (State.READY, State.STARTING):
            self.last_used = self.ground.clock()
        pid = f"pid {self.record.pid}" if self.record and self.record.pid else ""
        match state:
            case State.FAILED:
                self.ground.journal.add("failed", reason, instance=self.id, level="error")
            case State.BACKOFF:
                wait_s = (self.life.deadline or 0.0) - self.ground.clock()
                text = f"{reason}; next try in {wait_s:.1f} s"
                self.ground.journal.add("died", text, instance=self.id, level="warning")
            case State.STOPPING if self.life.fault:
                self.ground.journal.add("stuck", self.life.fault, instance=self.id, level="warning")
            case State.KILLING:
                self.ground.journal.add("killing", "it did not end on SIGTERM", instance=self.id, level="warning")
            case State.READY:
                how = "adopted" if what.event is Event.ADOPTED_READY else "ready"
                took = f"after {self.ground.clock() - before.since:.1f} s" if how == "ready" else ""
                self.ground.journal.add(how, " ".join(p for p in (pid, took) if p), instance=self.id)
            case _:
                asked = before.state in (State.STOPPING, State.KILLING)
                self.ground.journal.add(str(state), pid if asked or pid else reason, instance=self.id)


def _write_key(path: Path) -> None:
    """A fresh key for one process, readable by us alone."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(secrets.token_urlsafe(24) + "\n")
