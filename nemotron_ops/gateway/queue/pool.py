"""Routes requests to instances by the latest snapshot; requests wait here for a free one. asyncio.

An instance that has just failed a request is paused (`suspects`), because the snapshot may be behind; it is trusted
again as soon as it is a new process or has answered a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nemotron_ops.gateway.api.catalog import Catalog, index, may_serve, unavailable
from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.loop.read_turns import Turns
from nemotron_ops.gateway.observe.metrics import Metrics
from nemotron_ops.gateway.options import Options
from nemotron_ops.gateway.queue.admission import Admission
from nemotron_ops.gateway.queue.affinity import Affinity
from nemotron_ops.gateway.queue.estimates import Estimates, shared_tokens
from nemotron_ops.gateway.queue.snapshots import Follower
from nemotron_ops.gateway.queue.suspects import Suspects
from nemotron_ops.gateway.queue.ticket import ALONE, Place, Ticket, least_loaded
from nemotron_ops.gateway.upstream.connection import Upstream
from nemotron_ops.supervisor.snapshot import InstanceView, ModelView, Snapshot, State

LIGHT_AT_ONCE = 32  # requests per instance that need no slot, only llama-server's HTTP threads
WANT_AGAIN_S = 5.0
EXPECT_SNAPSHOT_S = 10.0


class Pool:
    """All instances, by the latest snapshot."""

    def __init__(self, options: Options, metrics: Metrics) -> None:
        self.options = options
        self.metrics = metrics
        self.loop = asyncio.get_running_loop()
        self.follower = Follower(options.control, self.apply, self.inflight)
        self.directory: Catalog = index(Snapshot())
        self.upstreams: dict[str, Upstream] = {}
        self.turns = Turns()
        self.slots = Admission()
        self.light = Admission()
        self.affinity = Affinity()
        self.estimates = Estimates()
        self.suspects = Suspects()
        self.stopping = False
        self.known = False  # a snapshot has come
        self._seen: asyncio.Future[None] = self.loop.create_future()
        self._next: asyncio.Future[None] | None = None  # done with the next snapshot
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}
        self._cached_places: dict[str, list[Place]] = {}

    @property
    def snapshot(self) -> Snapshot:
        return self.directory.snapshot

    def apply(self, snapshot: Snapshot) -> None:
        """Route by a new snapshot from here on."""
        before, self.directory = self.directory.by_name, index(snapshot)
        self._cached_places.clear()
        self.estimates.apply(snapshot.instances)
        if not self.known:
            self.known = True
            self._seen.set_result(None)
        if self._next is not None:
            self._next.set_result(None)
            self._next = None
        for view in snapshot.instances:
            self._connect(view, before.get(view.name))
        for name in before.keys() - self.directory.by_name.keys():
            self.upstreams.pop(name).retire()
        for model in snapshot.models:
            self.pump(model.name)
            if refusal := unavailable(model, self.directory.instances.get(model.name, ())):
                self._fail_waiters(model.name, refusal)

    def _connect(self, view: InstanceView, before: InstanceView | None) -> None:
        """Connect anew to an instance that is a new process or has got a key; cut its connections if told to."""
        new_process = before is None or (before.pid, before.socket) != (view.pid, view.socket)
        if new_process:
            self.suspects.trust(view.name)
            self.affinity.forget(view.name)
        upstream = self.upstreams.get(view.name)
        if upstream is None or new_process or (not upstream.key and view.api_key_file):
            if upstream is not None:
                upstream.retire()
            key = _read_key(view.api_key_file)
            self.upstreams[view.name] = Upstream(view.name, view.socket, key, self.turns)
            self.upstreams[view.name].losses = view.restart_reasons
        if view.cut and upstream is not None:
            upstream.wedged = before is not None and is_wedge(before, view)
            upstream.cut()

    def close(self) -> None:
        """Close all connections to instances."""
        for upstream in self.upstreams.values():
            upstream.cut()

    async def know(self) -> None:
        """Wait for the first snapshot. Raises Refusal if none comes in time."""
        await asyncio.wait((self._seen,), timeout=EXPECT_SNAPSHOT_S)
        if not self.known:
            message = "starting: no model list from the supervisor yet"
            raise Refusal(status=503, code="no_supervisor", message=message, retry_after_s=2)

    def next_snapshot(self) -> asyncio.Future[None]:
        """A future that is done when the next snapshot has come."""
        if self._next is None:
            self._next = self.loop.create_future()
        return self._next

    def cause_of_loss(self, upstream: Upstream) -> str:
        """What the process of `upstream` was lost of, in the supervisor's word; empty as long as it has not said."""
        view = self.directory.by_name.get(upstream.name)
        if view is None:
            return ""
        now = view.restart_reasons
        return next((name for name, count in now.items() if count > upstream.losses.get(name, 0)), "")

    def replicated(self, model: str) -> bool:
        """Whether several instances serve `model`."""
        return len(self.directory.instances.get(model, ())) > 1

    def room(self, model: str) -> tuple[int, int, int]:
        """Requests that wait for `model`, slots of its ready instances that are free, and all of them."""
        ready = [v for v in self.directory.instances.get(model, ()) if v.state is State.READY]
        slots = sum(view.slots for view in ready)
        taken = sum(self.slots.inflight.get(view.name, 0) for view in ready)
        return self.slots.length(model), slots - taken, slots

    def overflowed(self, ticket: Ticket) -> None:
        """The shared context at `ticket`'s instance was full, and llama-server dropped it: the retry runs alone."""
        ticket.tokens = ALONE
        self.affinity.forget(ticket.instance)
        self.metrics.retries[(ticket.model, ticket.instance)] += 1

    def lost(self, instance: str, model: str) -> None:
        """An instance has not answered this request, but may well answer others."""
        self.metrics.retries[(model, instance)] += 1

    def failed(self, instance: str, model: str) -> None:
        """Pause an instance that has just failed a request."""
        pause_s = self.suspects.failed(instance, self.loop.time())
        self.affinity.forget(instance)
        self.lost(instance, model)
        self.loop.call_later(pause_s + 0.001, self.pump, model)

    def go(self, ticket: Ticket, model: ModelView) -> bool:
        """Grant a new request an instance at once, if no other waits; returns whether it did."""
        if ticket.light or self.directory.snapshot.stopping:
            return False
        if not self.slots.go(ticket, self._places(model.name), self._choose):
            return False
        self.follower.report()
        return True

    async def admit(
        self, ticket: Ticket, model: ModelView, *, again: bool, deadline: float, waiting: Callable[[], None]
    ) -> None:  # fmt: skip
        """Wait until `ticket` has an instance. Raises Refusal at the deadline, or if none can become free.

        A retry (`again`) goes before all others. `waiting` is called now and then, for keep-alive comments.
        """
        if self.snapshot.stopping:
            raise Refusal(status=503, code="stopping", message="shutting down", retry_after_s=5)
        line = self._line(ticket)
        ticket.since = ticket.since or self.loop.time()
        if again:
            line.retry(ticket)
        else:
            line.offer(
                ticket, now=self.loop.time(), length=model.queue_length,
                max_bytes=self.options.max_queued_mib << 20, slots=self._slot_count(model.name),
            )  # fmt: skip
        self.pump(model.name)
        if ticket.instance:
            return
        future: asyncio.Future[None] = self.loop.create_future()
        ticket.granted = lambda: None if future.done() else future.set_result(None)
        if not model.queue_length and not again:
            line.leave(ticket)
            raise line.full(model.name, self._slot_count(model.name))
        waiters = self._waiters.setdefault(model.name, set())
        waiters.add(future)
        try:
            await self._wait(ticket, model, future, deadline, waiting)
        finally:
            waiters.discard(future)
            if not ticket.instance:
                line.leave(ticket)

    async def _wait(
        self, ticket: Ticket, model: ModelView, future: asyncio.Future[None], deadline: float,
        waiting: Callable[[], None],
    ) -> None:  # fmt: skip
        if refusal := unavailable(model, self.directory.instances.get(model.name, ())):
            raise refusal
        comment_at = self.loop.time() + self.options.keep_alive_s
        while not future.done():
            now = self.loop.time()
            if now >= deadline:
                raise self._timeout(model, ticket, now)
            again_at = deadline
            if model.on_demand and not any(map(may_serve, self.directory.instances.get(model.name, ()))):
                self.follower.want(model.name)
                again_at = now + WANT_AGAIN_S
            await asyncio.wait((future,), timeout=min(deadline, comment_at, again_at) - now)
            if not future.done() and self.loop.time() >= comment_at:
                waiting()
                comment_at = self.loop.time() + self.options.keep_alive_s
        future.result()

    def _timeout(self, model: ModelView, ticket: Ticket, now: float) -> Refusal:
        line = self._line(ticket)
        retry = line.wait_s(model.name, self._slot_count(model.name))
        return Refusal(
            status=503, code="queue_timeout", retry_after_s=retry,
            message=f"no instance of {model.name!r} was free within {now - ticket.since:.0f} s",
            detail={"queue_position": line.position(ticket), "estimated_wait_s": round(retry, 1)},
        )  # fmt: skip

    def release(self, ticket: Ticket, *, took_s: float, answered: bool) -> None:
        """A request is over at its instance, after `took_s`; `answered` if to its end."""
        self._line(ticket).release(ticket, service_s=took_s if answered else None, took_s=took_s)
        if answered and self.suspects.paused:
            self.suspects.trust(ticket.instance)
        self.pump(ticket.model)

    def narrow(self, ticket: Ticket) -> None:
        """A request that had an instance for itself needs only its own slots from here on."""
        self._line(ticket).narrow(ticket)
        self.pump(ticket.model)

    def pump(self, model: str) -> None:
        """Grant all requests for `model` that can run now."""
        granted: list[Ticket] = []
        if self.slots.waiting:
            granted += self.slots.grants(model, self._places(model), self._choose)
        if self.light.waiting:
            wide = [Place(name=p.name, slots=LIGHT_AT_ONCE) for p in self._places(model)]
            granted += self.light.grants(model, wide, lambda _, free: least_loaded(self.light.inflight, free))
        for ticket in granted:
            if ticket.granted is not None:
                ticket.granted()
        self.follower.report()

    def inflight(self) -> dict[str, int]:
        """Requests at each instance."""
        counts = dict(self.slots.inflight)
        for name, count in self.light.inflight.items():
            counts[name] = counts.get(name, 0) + count
        return counts

    def reserved_tokens(self) -> dict[str, int]:
        """Tokens reserved at each instance whose slots share a context."""
        return {
            i.name: min(self.slots.held_tokens(i.name), i.ctx_tokens)
            for i in self.snapshot.instances
            if shared_tokens(i)
        }

    def queue_lengths(self) -> dict[str, int]:
        """Waiting requests, by model."""
        return {m.name: self.slots.length(m.name) + self.light.length(m.name) for m in self.snapshot.models}

    def _choose(self, ticket: Ticket, places: list[Place]) -> Place:
        place = least_loaded(self.slots.inflight, places)
        if ticket.prefixes:
            known = self.affinity.find(ticket.prefixes)
            free = next((p for p in places if p.name == known), None)
            result = "hit" if free else "overloaded" if known else "miss"
            self.metrics.affinity[(ticket.model, result)] += 1
            place = free or place
            self.affinity.remember(ticket.prefixes, place.name)
        return place

    def _line(self, ticket: Ticket) -> Admission:
        return self.light if ticket.light else self.slots

    def _places(self, model: str) -> list[Place]:
        """The instances that may get requests now. Needed twice per request, so cached until something changes."""
        if not self.suspects.paused and (kept := self._cached_places.get(model)) is not None:
            return kept
        now = self.loop.time()
        found = [
            Place(name=i.name, slots=max(1, i.slots), tokens=shared_tokens(i))
            for i in self.directory.instances.get(model, ())
            if may_serve(i) and not self.suspects.is_paused(i.name, now)
        ]
        if not self.suspects.paused:
            self._cached_places[model] = found
        return found

    def _slot_count(self, model: str) -> int:
        return sum(max(1, i.slots) for i in self.directory.instances.get(model, ()) if may_serve(i))

    def _fail_waiters(self, model: str, refusal: Refusal) -> None:
        for future in self._waiters.get(model, set()).copy():
            if not future.done():
                future.set_exception(_copy(refusal))


def is_wedge(before: InstanceView, view: InstanceView) -> bool:
    """Whether the supervisor ends an instance because it is stuck: without a drain, unlike every other stop."""
    return before.state is State.READY and not (before.draining or before.cut) and view.state is State.STOPPING


def _copy(refusal: Refusal) -> Refusal:
    """An exception object per waiter, so that each has its own traceback."""
    return replace(refusal)


def _read_key(path: str) -> str:
    try:
        return Path(path).read_text().strip() if path else ""
    except OSError:
        return ""
