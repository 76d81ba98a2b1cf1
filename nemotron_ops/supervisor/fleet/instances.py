"""Decides which instances are wanted: start order, memory budget, idle time. asyncio.

Keepers own the processes. Every change anywhere calls `changed`, and one loop then reviews the fleet: which instances
may start (`seats`), and what the gateway sees (a new Snapshot).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from nemotron_ops.errors import ControlError
from nemotron_ops.supervisor.fleet.seats import Seat, admit, shortage
from nemotron_ops.supervisor.instance.context import Context
from nemotron_ops.supervisor.instance.keeper import Keeper
from nemotron_ops.supervisor.instance.state import Event
from nemotron_ops.supervisor.records import adopt, record
from nemotron_ops.supervisor.records.record import Record
from nemotron_ops.supervisor.snapshot import ModelView, Snapshot, State
from nemotron_ops.supervisor.spec import Config, InstanceSpec

REST = (State.STOPPED, State.FAILED)
GATHER_S = 0.005  # one review for many changes at once
FREE_WAIT_S = 30.0  # longest delay until a device reports freed memory


class Fleet:
    """Keepers by id, and the configuration they come from."""

    def __init__(
        self,
        context: Context,
        *,
        publish: Callable[[Snapshot], None],
        free_bytes: Callable[[], Mapping[str, int]] | None = None,
    ) -> None:
        self._publish, self._free_bytes = publish, free_bytes
        self.context = replace(context, changed=self.changed, exited=self._note_exit)
        self.config = Config(models=(), instances=())
        self.keepers: dict[str, Keeper] = {}
        self.snapshot = Snapshot()
        self.stopping = False
        self.forced = asyncio.Event()  # set: no stop waits for requests in flight
        self.showing = False  # until adoption and configuration, the gateway keeps its last snapshot
        self.pending: dict[str, bool] = {}  # id -> pressing; wanted, without a seat yet
        self.held: dict[str, bool] = record.read_held(context.layout)
        self._reasons: dict[str, str] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._dirty = asyncio.Event()
        self._waiters: list[asyncio.Future[None]] = []
        self._last_exit = float("-inf")
        self._last_turn_at = time.monotonic()

    # ---- the loop

    def changed(self) -> None:
        self._dirty.set()

    async def run(self) -> None:
        """Reviews after every change and every `review_s`, since idle time passes without a change."""
        try:
            while True:
                try:
                    async with asyncio.timeout(self.context.timing.review_s):
                        await self._dirty.wait()
                except TimeoutError:
                    pass
                await asyncio.sleep(GATHER_S)
                self._dirty.clear()
                await self.review()
                self._last_turn_at = time.monotonic()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def last_turns(self) -> dict[str, float]:
        """When the loop of each task here last came round."""
        return {"fleet": self._last_turn_at, **{k.id: k.last_turn_at for k in self.keepers.values()}}

    async def review(self) -> None:
        for keeper in self.keepers.values():
            keeper.note_use()
        self._age()
        await self._admit()
        self._show()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, true: Callable[[], bool]) -> None:
        """Waits until `true()`, which is evaluated after every review."""
        while not true():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    # ---- instances come and go

    def add(self, instance_id: str, spec: InstanceSpec, *, published: bool = True) -> Keeper:
        """A keeper for `spec`, at rest."""
        keeper = Keeper(instance_id, spec, self.context, published=published)
        self.keepers[instance_id] = keeper
        self._tasks[instance_id] = asyncio.create_task(keeper.run(), name=f"keeper of {instance_id}")
        self.changed()
        return keeper

    async def adopt(self, found: Sequence[Record]) -> None:
        """Keepers for living processes of an earlier supervisor."""
        answers = await asyncio.gather(*(adopt.is_ready(old) for old in found))
        for old, ready in zip(found, answers, strict=True):
            if old.spec is None:
                continue
            keeper = self.add(old.id, old.spec)
            keeper.adopt(old, ready=ready)
            how = "adopted" if ready else "adopted while it loads"
            self.context.journal.add("found", f"pid {old.pid} {how}", instance=old.id)
        await self.until(lambda: not any(k.status.state is State.STOPPED and k.record for k in self.keepers.values()))

    async def remove(self, keeper: Keeper) -> None:
        """Stop it, wait for the end of its process, and forget it."""
        self.pending.pop(keeper.id, None)
        keeper.tell(Event.STOP, "removed")
        await self.until(lambda: keeper.at_rest)
        task = self._tasks.pop(keeper.id, None)
        self.keepers.pop(keeper.id, None)
        if task:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self.changed()

    # ---- verbs and requests

    def start(self, keeper: Keeper, *, pressing: bool = True) -> None:
        """Wanted from now on; it starts when there is room."""
        keeper.undrain()
        if keeper.status.state in REST:
            self.pending[keeper.id] = pressing or self.pending.get(keeper.id, False)
        else:
            keeper.tell(Event.START)
        self.changed()

    def stop(self, keeper: Keeper, reason: str = "") -> None:
        self.pending.pop(keeper.id, None)
        self._reasons.pop(keeper.id, None)
        keeper.tell(Event.STOP, reason)
        self.changed()

    def restart(self, keeper: Keeper) -> None:
        keeper.undrain()
        if keeper.status.state in REST:
            self.start(keeper)
        else:
            keeper.tell(Event.RESTART, "restart asked for")

    def want(self, model: str) -> list[Keeper]:
        """Start an instance of `model`, for which a request waits, unless one is starting. Raises ControlError."""
        own = [k for k in self.keepers.values() if k.spec.model == model]
        if not own:
            raise ControlError(f"cannot start {model!r}: there is no such model")
        coming = [k for k in own if k.id in self.pending or k.status.state not in REST]
        if coming:
            for k in coming:
                if k.id in self.pending:
                    self.pending[k.id] = True
            self.changed()
            return coming
        rested = [k for k in own if k.status.state is State.STOPPED and self.held.get(k.spec.name, True)]
        if not rested:
            states = ", ".join(f"{k.id}: {k.status.reason or k.status.state}" for k in own)
            raise ControlError(f"cannot start {model!r}: {states}", hint="`nemotron-ops restart` tries again")
        self.context.journal.add("wanted", "by a request", instance=rested[0].id)
        self.start(rested[0])
        return [rested[0]]

    def hold(self, names: Sequence[str], wanted: bool) -> None:
        """Record starts and stops by hand, which outlast the supervisor."""
        self.held.update(dict.fromkeys(names, wanted))
        if not record.write_held(self.context.layout, self.held):
            self.context.journal.add("not-recorded", "starts and stops by hand: the disk is full?", level="warning")

    def forget_holds(self, names: Sequence[str]) -> None:
        """Forget stops by hand of instances that are added anew."""
        if any(self.held.pop(name, None) is not None for name in list(names)):
            self.hold((), True)

    def named(self, names: Sequence[str]) -> list[Keeper]:
        """The keepers with these ids, instance names or model names (all for none). Raises ControlError."""
        if not names:
            return list(self.keepers.values())
        found: list[Keeper] = []
        for name in names:
            hits = [k for k in self.keepers.values() if name in (k.id, k.spec.name, k.spec.model)]
            if not hits:
                known = ", ".join(sorted(self.keepers)) or "none"
                raise ControlError(f"cannot find instance {name!r}", hint=f"instances: {known}")
            found += [k for k in hits if k not in found]
        return found

    async def stop_all(self) -> None:
        """Stop all instances; those with the highest start order first."""
        self.stopping = True
        self.changed()
        self.pending.clear()
        for order in sorted({k.spec.lifecycle.start_order for k in self.keepers.values()}, reverse=True):
            group = [k for k in self.keepers.values() if k.spec.lifecycle.start_order == order]
            for keeper in group:
                self.stop(keeper)
                if self.forced.is_set():
                    keeper.tell(Event.FORCE)
            await self.until(lambda: all(k.at_rest and not k.record for k in group))  # noqa: B023 - awaited here

    def force_stop(self) -> None:
        """End every drain now: requests in flight are cut."""
        self.forced.set()
        for keeper in self.keepers.values():
            keeper.tell(Event.FORCE)

    def reason(self, keeper: Keeper) -> str:
        """Why it is not ready: what it waits for, or how it ended."""
        return self._reasons.get(keeper.id) or keeper.status.reason

    def fits_beside(self, spec: InstanceSpec) -> bool:
        """Whether `spec` has room beside all running instances."""
        seats = [self._seat(k) for k in self.keepers.values() if not k.at_rest]
        return not shortage(Seat(id="new", memory_bytes=spec.memory_bytes), seats, self.config.capacity_bytes)

    # ---- the review's parts

    def _age(self) -> None:
        """Unload instances without a request for `ttl_s`, counted from readiness or the last request."""
        for k in self.keepers.values():
            ttl_s = k.spec.lifecycle.ttl_s
            if ttl_s is None or k.spec.lifecycle.pinned or not k.idle:
                continue
            if time.monotonic() - k.last_used >= ttl_s:
                self.context.journal.add("unloading", f"idle for {ttl_s:g} s", instance=k.id)
                self.stop(k, f"unloaded: idle for {ttl_s:g} s")

    async def _admit(self) -> None:
        if not self.pending or self.stopping:
            return
        waiting = [
            replace(self._seat(self.keepers[i]), pressing=pressing, settled=False)
            for i, pressing in self.pending.items()
            if i in self.keepers
        ]
        seated = [self._seat(k) for k in self.keepers.values() if not k.at_rest and k.id not in self.pending]
        plan = admit(waiting, seated, self.config.capacity_bytes)
        self._reasons = dict(plan.wait)
        for instance_id, reason in plan.refuse.items():
            self.pending.pop(instance_id, None)
            self.keepers[instance_id].tell(Event.REFUSED, f"does not fit: {reason}")
        for instance_id in plan.evict:
            self.context.journal.add("unloading", "to make room", instance=instance_id)
            self.stop(self.keepers[instance_id], "unloaded to make room")
        for instance_id in plan.start:
            if await self._really_free(self.keepers[instance_id].spec):
                self.pending.pop(instance_id, None)
                self.keepers[instance_id].tell(Event.START)
            else:
                self._reasons[instance_id] = "waits until the memory of an unloaded model is free"

    async def _really_free(self, spec: InstanceSpec) -> bool:
        """Whether the devices report enough free memory; queried only for `FREE_WAIT_S` after an exit."""
        if self._free_bytes is None or time.monotonic() - self._last_exit > FREE_WAIT_S:
            return True
        free = await asyncio.to_thread(self._free_bytes)
        return all(free.get(d, need) >= need for d, need in spec.memory_bytes.items())

    def _note_exit(self) -> None:
        self._last_exit = time.monotonic()

    def _seat(self, k: Keeper) -> Seat:
        lifecycle = k.spec.lifecycle
        return Seat(
            id=k.id, order=lifecycle.start_order, memory_bytes=k.spec.memory_bytes, pinned=lifecycle.pinned,
            idle=k.idle, settled=k.status.state is not State.STARTING, last_used=k.last_used,
        )  # fmt: skip

    def _show(self) -> None:
        """Publish a new Snapshot if it differs from the last one."""
        instances = tuple(replace(k.view(), reason=self.reason(k)) for k in self.keepers.values())
        new = replace(
            self.snapshot, models=tuple(self._model(m) for m in self.config.models), instances=instances,
            stopping=self.stopping, default_model=self.config.default_model,
        )  # fmt: skip
        if self.showing and (new != self.snapshot or not self.snapshot.serial):
            self.snapshot = replace(new, serial=self.snapshot.serial + 1)
            self._publish(self.snapshot)

    def _model(self, model: ModelView) -> ModelView:
        """`on_demand` is also true for a model that was unloaded: its next request starts it."""
        own = [k for k in self.keepers.values() if k.spec.model == model.name]
        unloaded = any(k.status.state is State.STOPPED and self.held.get(k.spec.name, True) for k in own)
        return replace(model, on_demand=model.on_demand or unloaded)
