"""Owns one instance: the only writer of its state, and the only one that starts and signals its process. asyncio.

Every event and observation arrives in one inbox; `state.step` decides, and the keeper carries out the actions. At most
two tasks run beside the inbox: one awaits the end of the process, one watches it in its present state. Both only
report to the inbox. A test holds that no other module assigns to a keeper.
"""

from __future__ import annotations

import asyncio
import errno
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemotron_ops.engine.death_table import Cause
from nemotron_ops.engine.deaths import Death
from nemotron_ops.errors import ControlError
from nemotron_ops.policy import HOST
from nemotron_ops.processes import oom
from nemotron_ops.supervisor.instance import launch, watchers
from nemotron_ops.supervisor.instance.autopsy import await_death
from nemotron_ops.supervisor.instance.context import Context
from nemotron_ops.supervisor.instance.inbox import Inbox
from nemotron_ops.supervisor.instance.notes import note_change
from nemotron_ops.supervisor.instance.shrink import can_shrink, ctx_tokens, shrunk
from nemotron_ops.supervisor.instance.state import DEADLINE, Action, Event, Message, Rules, Status, StopStep, step
from nemotron_ops.supervisor.instance.watched import Seen
from nemotron_ops.supervisor.records.record import Record
from nemotron_ops.supervisor.snapshot import InstanceView, State
from nemotron_ops.supervisor.spec import InstanceSpec

if TYPE_CHECKING:
    from nemotron_ops.engine.client import AsyncClient

FULL = (errno.ENOSPC, errno.EDQUOT)  # a full disk is no death
NOTICEABLE_BYTES = 4 << 20  # smaller changes of the resident size are not published


class Keeper:
    """One instance and its process, from first start to last clean-up."""

    def __init__(self, instance_id: str, spec: InstanceSpec, context: Context, *, published: bool = True) -> None:
        self.id, self.spec, self.context = instance_id, spec, context
        self.journal = context.journal
        self.published = published  # False: hidden from the gateway until its canary has passed
        self.status = Status(since=self.clock())
        self.record: Record | None = None
        self.death: Death | None = None
        self.load_progress: float | None = None
        self.last_used = self.clock()
        self.busy = 0
        self.used_bytes: Mapping[str, int] = {}  # by device; as last seen
        self.restart_reasons: Counter[str] = Counter()
        self.halvings = 0  # of the context, after deaths for lack of memory
        self.drained = False  # by hand: loaded, without traffic
        self.last_turn_at = self.clock()
        self._inbox: Inbox[Message | Seen] = Inbox(beat_s=context.timing.beat_s)
        self._client: AsyncClient | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._exit: asyncio.Task[None] | None = None
        self._watched: tuple[State, StopStep | None] | None = None
        self._oom_kills = 0
        self._served = False  # the present process was ready: clients may have written into its log

    # ---- messages and calls from outside

    def tell(
        self, event: Event, reason: str = "", *, failure: bool = True, hopeless: bool = False, counts: bool = True
    ) -> None:
        """Put an event into the inbox."""
        self._inbox.put(Message(event=event, reason=reason, failure=failure, hopeless=hopeless, counts=counts))

    def report(self, seen: Seen) -> None:
        """Put an observation into the inbox."""
        self._inbox.put(seen)

    def adopt(self, found: Record, *, ready: bool) -> None:
        """Take over a living process that an earlier supervisor started."""
        self.record = found
        self.halvings = int(found.extra.get("shrunk", 0))
        self._oom_kills = oom.oom_kills()
        self._served = ready
        self._watch_exit()
        self.tell(Event.ADOPTED_READY if ready else Event.ADOPTED_LOADING)

    def change_policies(self, spec: InstanceSpec) -> None:
        """Go on with another spec of the same process: rules of restart, health and lifecycle."""
        assert spec.fingerprint == self.spec.fingerprint
        self.spec = spec

    def publish(self) -> None:
        """Show the instance to the gateway as it is: its canary has passed."""
        self.published = True
        self.context.changed()

    def check_drainable(self) -> None:
        """Raises ControlError unless `drain` is possible now."""
        if self.status.state is not State.READY:
            raise ControlError(f"cannot drain {self.id}: it is {self.status.state}")

    def drain(self) -> None:
        """Take the instance out of traffic while it stays loaded. Raises ControlError unless it is ready."""
        self.check_drainable()
        self.drained = True
        self.journal.add("drained", "by hand: loaded, without traffic", instance=self.id)
        self.context.changed()

    def undrain(self) -> None:
        self.drained = False

    def note_use(self) -> None:
        """Count the instance as used now if the gateway or the engine has a request of it."""
        if self.inflight() or self.busy:
            self.last_used = self.clock()

    # ---- read from outside

    def clock(self) -> float:
        return time.monotonic()

    @property
    def log(self) -> Path:
        return Path(self.record.log) if self.record else launch.log_path(self.context.layout, self.id)

    @property
    def slots_dir(self) -> Path:
        return launch.slots_dir(self.context.layout, self.spec)

    @property
    def client(self) -> AsyncClient:
        """HTTP to the present process."""
        assert self.record, "no process"
        if self._client is None:
            from nemotron_ops.engine.client import AsyncClient  # takes 100 ms: not before the gateway's socket is open

            key = Path(self.record.key_file).read_text().strip()
            self._client = AsyncClient(Path(self.record.socket), key, self.spec.health.probe_timeout_s)
        return self._client

    def inflight(self) -> int | None:
        return self.context.inflight(self.id)

    def out_of_traffic(self) -> bool:
        """Whether the gateway has acknowledged that this instance takes no request."""
        return self.context.acknowledged(self.id)

    @property
    def restarting(self) -> bool:
        """Whether a requested restart waits for the exit."""
        return self.status.asked

    @property
    def has_messages(self) -> bool:
        return not self._inbox.empty

    @property
    def idle(self) -> bool:
        """Ready, without a request and without an unread message."""
        return self.status.state is State.READY and not (self.has_messages or self.busy or self.inflight())

    @property
    def at_rest(self) -> bool:
        """No process, and none will start by itself."""
        return self.status.state in (State.STOPPED, State.FAILED) and not self.has_messages

    def view(self) -> InstanceView:
        """The instance as the gateway and `status` see it."""
        state, record = self.status.state, self.record
        stopping = state is State.STOPPING
        return InstanceView(
            name=self.id, model=self.spec.model,
            state=State.STARTING if state is State.READY and not self.published else state,
            socket=record.socket if record else "", api_key_file=record.key_file if record else "",
            slots=self.spec.slots, ctx_tokens=self.spec.ctx_tokens >> self.halvings, kv_unified=self.spec.kv_unified,
            draining=stopping or self.drained, cut=stopping and self.status.stop_step is not StopStep.DRAIN,
            pid=record.pid if record else None, restarts=self.status.restarts,
            restart_reasons=dict(self.restart_reasons),
            load_progress=self.load_progress if state is State.STARTING else None,
            reason=self.status.reason, build=self.spec.build, planned_bytes=self.spec.memory_bytes,
            used_bytes=self.used_bytes if record else {},
        )  # fmt: skip

    # ---- the owner's loop

    async def run(self) -> None:
        """Handles messages until cancelled; the process outlives this loop."""
        try:
            while True:
                self.last_turn_at = self.clock()
                match await self._inbox.next(until=self.status.deadline) or DEADLINE:
                    case Seen() as seen:
                        self._note_seen(seen)
                    case Message() as what:
                        self._take_or_fail(what)
        finally:
            for task in (self._watcher, self._exit):
                if task:
                    task.cancel()

    def _take_or_fail(self, what: Message) -> None:
        try:
            self._take(what)
        except Exception as exc:  # noqa: BLE001 - a bug must not leave a state that no event ends
            self._fail(f"a bug in nemotron-ops: {type(exc).__name__}: {exc}")

    def _fail(self, reason: str) -> None:
        """Failed until it is started again by hand, without a process: `stop` always ends."""
        self.journal.add("bug", reason, instance=self.id, level="error")
        old, self.record, self._client, self.used_bytes = self.record, None, None, {}
        if self._watcher:
            self._watcher.cancel()
        self._watcher = self._watched = None
        state = State.FAILED if self.status.wanted else State.STOPPED
        self.status = replace(
            self.status, state=state, reason=reason, since=self.clock(), deadline=None, fault="", asked=False
        )  # fmt: skip
        if old is not None:
            with suppress(Exception):  # whatever is wrong with this record is reported already
                launch.clean(self.context.layout, old)
        self.context.changed()

    def _take(self, what: Message) -> None:
        before = self.status
        rules = Rules(restart=self.spec.restart, health=self.spec.health)
        self.status, actions = step(before, what, now=self.clock(), rules=rules, jitter=random.random())
        self._served = self._served or self.status.state is State.READY
        if self.status.restarts > before.restarts:
            self.restart_reasons[self._restart_reason(before)] += 1
        for action in actions:
            self._do(action)
        if self.status.state is not before.state:
            if self.status.state in (State.READY, State.STARTING):
                self.last_used = self.clock()
            pid = self.record.pid if self.record else 0
            note_change(self.journal, self.id, before, self.status, what, pid=pid, now=self.clock())
        if what.event is Event.PROGRESS:
            self.context.progressed()
        self._watch()
        if self.status != before:
            self.context.changed()

    def _note_seen(self, seen: Seen) -> None:
        """Take over an observation; a noticeable change is published."""
        if self.record is None or self.record.launch != seen.launch:
            return
        shown = self.load_progress, self.used_bytes
        if seen.busy is not None:
            self.busy = seen.busy
        if seen.progress is not None:
            self.load_progress = round(seen.progress, 2)
        held = self.used_bytes.get(HOST, 0)
        if seen.rss_bytes and abs(seen.rss_bytes - held) >= max(NOTICEABLE_BYTES, held // 32):
            self.used_bytes = {HOST: seen.rss_bytes}
        if (self.load_progress, self.used_bytes) != shown:
            self.context.changed()

    def _restart_reason(self, before: Status) -> str:
        """One word, as metrics name it."""
        if before.fault:
            return "wedged"
        return "asked" if before.asked else self.death.cause.value if self.death else "unknown"

    def _do(self, action: Action) -> None:
        match action:
            case Action.SPAWN:
                self._spawn()
            case Action.DRAIN | Action.CUT:
                return  # both show in the view, which the gateway follows
            case Action.TERM | Action.KILL:
                if self.record:
                    launch.send(self.record, signal.SIGTERM if action is Action.TERM else signal.SIGKILL)
            case Action.CLEAN:
                if self.record:
                    launch.clean(self.context.layout, self.record)
                self.record, self._client, self.used_bytes = None, None, {}

    def _spawn(self) -> None:
        """Start the process; a failure is a message too."""
        layout = self.context.layout
        self.death, self.load_progress, self._oom_kills, self._served = None, None, oom.oom_kills(), False
        try:
            self.record = new = launch.prepare(layout, self.id, self.spec, halvings=self.halvings)
            self.record = launch.start(layout, new, self.context.env, halvings=self.halvings)
        except OSError as exc:
            text = f"cannot start {self.spec.argv[0]}: {exc.strerror or exc}"
            text += f" ({exc.filename})" if exc.filename and exc.filename != self.spec.argv[0] else ""
            hopeless = isinstance(exc, FileNotFoundError | PermissionError) and exc.filename == self.spec.argv[0]
            self.tell(Event.SPAWN_FAILED, text, hopeless=hopeless, counts=exc.errno not in FULL)
            return
        self._watch_exit()
        self.tell(Event.SPAWNED)

    # ---- watching

    def _watch_exit(self) -> None:
        assert self.record
        self._exit = asyncio.create_task(
            self._guarded(partial(self._await_exit, self.record), Event.EXITED), name=f"exit of {self.id}"
        )

    async def _guarded(self, work: Callable[[], Coroutine[Any, Any, None]], otherwise: Event) -> None:
        """Runs a watcher; after a bug in it, no other task would notice what it watched: `otherwise` ends the state."""
        if not await self.journal.guard(work, self.id):
            self.tell(otherwise, "a bug in nemotron-ops ended its watcher")

    async def _await_exit(self, of: Record) -> None:
        death = await await_death(
            of, binary=self.spec.argv[0], oom_kills=self._oom_kills, served=lambda: self._served
        )  # fmt: skip
        if self.record is None or self.record.launch != of.launch:
            return  # a bug has already ended its story
        self.death = death
        if death.memory and self.spec.may_shrink and can_shrink(self.spec.argv, self.halvings):
            self.halvings += 1
            tokens = ctx_tokens(shrunk(self.spec.argv, self.halvings))
            self.journal.add("shrunk", f"to {tokens} tokens of context", instance=self.id, level="warning")
        self.context.exited()
        self.tell(Event.EXITED, death.line, failure=death.cause is not Cause.STOPPED, hopeless=death.hopeless)

    def _watch(self) -> None:
        """One watcher per state, and one for the drain; it is cancelled when that state ends."""
        state = self.status.state
        place = (state, self.status.stop_step if state is State.STOPPING else None)
        if place == self._watched:
            return
        self._watched = place
        if self._watcher:
            self._watcher.cancel()
            self._watcher = None
        if (work := self._work(*place)) is not None:
            self._watcher = asyncio.create_task(self._guarded(work, Event.WEDGED), name=f"{state} of {self.id}")

    def _work(self, state: State, stop_step: StopStep | None) -> Callable[[], Coroutine[Any, Any, None]] | None:
        match (state, stop_step):
            case (State.STARTING, _) if self.record:
                return partial(watchers.loading, self)
            case (State.READY, _):
                return partial(watchers.health, self)
            case (State.STOPPING, StopStep.DRAIN):
                return partial(watchers.draining, self)
            case _:
                return None
