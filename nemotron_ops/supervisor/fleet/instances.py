"""All instances together: starting, making room, ageing, changing. asyncio.

Keepers own their processes; the fleet decides who is wanted. Whatever changes anywhere calls `changed`, and one loop
then reviews the whole picture: who may start (`admission`), and what the gateway should see (a new Snapshot).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from nemotron_ops.errors import ControlError
from nemotron_ops.supervisor.fleet.seats import Seat, admit, shortage
from nemotron_ops.supervisor.instance.keeper import Ground, Keeper
from nemotron_ops.supervisor.instance.state import Event
from nemotron_ops.supervisor.records import adopt, record
from nemotron_ops.supervisor.records.record import Record
from nemotron_ops.supervisor.snapshot import ModelView, Snapshot, State
from nemotron_ops.supervisor.spec import Config, InstanceSpec

REST = (State.STOPPED, State.FAILED)
TICK_S = 0.5
GATHER_S = 0.005
FREE_WAIT_S = 30.0  # how long freed memory may take to show


class Fleet:
    """Keepers by id, and the configuration they come from."""

    def __init__(
        self, ground: Ground, *, publish: Callable[[Snapshot], None], free_bytes: Callable[[], Mapping[str, int]] | None
    ) -> None:
        self.ground, self._publish, self._free_bytes = ground, publish, free_bytes
        self.config = Config(models=(), instances=())
        self.keepers: dict[str, Keeper] = {}
        self.snapshot = Snapshot()
        self.stopping = False
        self.hurried = asyncio.Event()  # set: no stop waits for requests in flight
        self.showing = False  # not before adoption and configuration: a gateway goes on with what it knows
        self.pending: dict[str, bool] = {}  # id -> pressing; wants to start and has no seat yet
        self.held: dict[str, bool] = record.read_held(ground.layout)
        self._reasons: dict[str, str] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._dirty = asyncio.Event()
        self._waiters: list[asyncio.Future[None]] = []
        self._last_exit = float("-inf")
        self._turned = ground.clock()  # when the loop last came round

    # ---- the loop

    def changed(self) -> None:
        self._dirty.set()

    async def run(self) -> None:
        """Reviews after every change, and now and then by itself, since idle time passes without one."""
        try:
            while True:
                try:
                    async with asyncio.timeout(TICK_S):
                        await self._dirty.wait()
                except TimeoutError:
                    pass
                await asyncio.sleep(GATHER_S)  # lets keepers act, and makes one review of many changes
                self._dirty.clear()
                await self.review()
                self._turned = self.ground.clock()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def turned(self) -> dict[str, float]:
        """When each task here last came round."""
        return {"fleet": self._turned, **{k.id: k.turned for k in self.keepers.values()}}

    async def review(self) -> None:
        self._note_use()
        self._age()
        await self._admit()
        self._show()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, true: Callable[[], bool]) -> None:
        """Waits until `true()`; looked at after every review."""
        while not true():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    # ---- instances come and go

    def add(self, instance_id: str, spec: InstanceSpec, *, published: bool = True) -> Keeper:
        """A keeper for `spec`, at rest."""
        keeper = Keeper(instance_id, spec, self.ground, published=published)
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
            keeper.life = replace(keeper.life, wanted=True)
            keeper.adopt(old, ready=ready)
            how = "adopted" if ready else "adopted while it loads"
            self.ground.journal.add("found", f"pid {old.pid} {how}", instance=old.id)
        await self.until(lambda: not any(k.life.state is State.STOPPED and k.record for k in self.keepers.values()))

    async def remove(self, keeper: Keeper) -> None:
        """Stops it, waits until its process is gone, and forgets it."""
        self.pending.pop(keeper.id, None)
        keeper.tell(Event.STOP, "removed")
        await self.until(lambda: keeper.at_rest)
        task = self._tasks.pop(keeper.id, None)
        self.keepers.pop(keeper.id, None)
        if task:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self.changed()

    # ---- what people and requests ask for

    def start(self, keeper: Keeper, *, pressing: bool = True) -> None:
        """Wanted from now on; it starts when there is room."""
        keeper.held_back = False
        if keeper.life.state in REST:
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
        keeper.held_back = False
        if keeper.life.state in REST:
            self.start(keeper)
        else:
            keeper.tell(Event.RESTART, "restart asked for")

    def want(self, model: str) -> list[Keeper]:
        """A request for `model` is waiting: start one of its instances if none is on its way. Raises ControlError."""
        own = [k for k in self.keepers.values() if k.spec.model == model]
        if not own:
            raise ControlError(f"cannot start {model!r}: there is no such model")
        coming = [k for k in own if k.id in self.pending or k.life.state not in REST]
        if coming:
            for k in coming:
                if k.id in self.pending:
                    self.pending[k.id] = True
            self.changed()
            return coming
        rested = [k for k in own if k.life.state is State.STOPPED and self.held.get(k.spec.name, True)]
        if not rested:
            states = ", ".join(f"{k.id}: {k.life.reason or k.life.state}" for k in own)
            raise ControlError(f"cannot start {model!r}: {states}", hint="`nemotron-ops restart` tries again")
        self.ground.journal.add("wanted", "by a request", instance=rested[0].id)
        self.start(rested[0])
        return [rested[0]]

    def hold(self, names: Sequence[str], wanted: bool) -> None:
        """Remember what people decided, so that a restart of the supervisor does not forget it."""
        self.held.update(dict.fromkeys(names, wanted))
        record.write_held(self.ground.layout, self.held)

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
        """Last come, first go: the instances with the highest start order stop first."""
        self.stopping = True
        self.changed()
        self.pending.clear()
        for order in sorted({k.spec.lifecycle.start_order for k in self.keepers.values()}, reverse=True):
            group = [k for k in self.keepers.values() if k.spec.lifecycle.start_order == order]
            for keeper in group:
                self.stop(keeper)
                if self.hurried.is_set():
                    keeper.tell(Event.HURRY)
            await self.until(lambda: all(k.at_rest and not k.record for k in group))  # noqa: B023 - awaited here

    def hurry(self) -> None:
        """Do not wait for requests in flight any longer."""
        self.hurried.set()
        for keeper in self.keepers.values():
            keeper.tell(Event.HURRY)

    def reason(self, keeper: Keeper) -> str:
        """Why it is not ready: what it waits for, or what became of it."""
        return self._reasons.get(keeper.id) or keeper.life.reason

    def fits_beside(self, spec: InstanceSpec) -> bool:
        """Whether `spec` has room beside everything that runs now."""
        seats = [self._seat(k) for k in self.keepers.values() if not k.at_rest]
        return not shortage(Seat(id="new", memory_bytes=spec.memory_bytes), seats, self.config.capacity_bytes)

    # ---- the review's parts

    def _note_use(self) -> None:
        now = self.ground.clock()
        for k in self.keepers.values():
            if self.ground.inflight(k.id) or k.busy:
                k.last_used = now

    def _age(self) -> None:
        """Unload what nobody has used for its `ttl_s`, counted from readiness or the last request."""
        for k in self.keepers.values():
            ttl_s = k.spec.lifecycle.ttl_s
            if ttl_s is None or k.spec.lifecycle.pinned or not self._idle(k):
                continue
            if self.ground.clock() - k.last_used >= ttl_s:
                self.ground.journal.add("unloading", f"idle for {ttl_s:g} s", instance=k.id)
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
            self.ground.journal.add("unloading", "to make room", instance=instance_id)
            self.stop(self.keepers[instance_id], "unloaded to make room")
        for instance_id in plan.start:
            if await self._really_free(self.keepers[instance_id].spec):
                self.pending.pop(instance_id, None)
                self.keepers[instance_id].tell(Event.START)
            else:
                self._reasons[instance_id] = "waits until the memory of an unloaded model is free"

    async def _really_free(self, spec: InstanceSpec) -> bool:
        """Whether the devices agree that there is room; asked only for a while after an exit, then taken on trust."""
        if self._free_bytes is None or self.ground.clock() - self._last_exit > FREE_WAIT_S:
            return True
        free = await asyncio.to_thread(self._free_bytes)
        return all(free.get(d, need) >= need for d, need in spec.memory_bytes.items())

    def note_exit(self) -> None:
        self._last_exit = self.ground.clock()

    def _seat(self, k: Keeper) -> Seat:
        lifecycle = k.spec.lifecycle
        return Seat(
            id=k.id, order=lifecycle.start_order, memory_bytes=k.spec.memory_bytes, pinned=lifecycle.pinned,
            idle=self._idle(k), settled=k.life.state is not State.STARTING, last_used=k.last_used,
        )  # fmt: skip

    def _idle(self, k: Keeper) -> bool:
        return k.life.state is State.READY and not k.told and not k.busy and not self.ground.inflight(k.id)

    def _show(self) -> None:
        """Publish a new Snapshot if anything in it differs."""
        instances = tuple(replace(k.view(), reason=self.reason(k)) for k in self.keepers.values())
        new = replace(
            self.snapshot, models=tuple(self._model(m) for m in self.config.models), instances=instances,
            stopping=self.stopping, default_model=self.config.default_model,
        )  # fmt: skip
        if self.showing and new != self.snapshot:
            self.snapshot = replace(new, serial=self.snapshot.serial + 1)
            self._publish(self.snapshot)

    def _model(self, model: ModelView) -> ModelView:
        """`on_demand` as things are now: also what was unloaded to make room comes back by request."""
        own = [k for k in self.keepers.values() if k.spec.model == model.name]
        asleep = any(k.life.state is State.STOPPED and self.held.get(k.spec.name, True) for k in own)
        return replace(model, on_demand=model.on_demand or asleep)
