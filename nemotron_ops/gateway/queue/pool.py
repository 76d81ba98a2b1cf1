"""The instances that can be given requests, and the requests that wait for one. asyncio.

Routing follows the latest snapshot. An instance that has just failed a request gets nothing for a moment, because
the snapshot may be behind; it is trusted again as soon as it is a new process or has answered something.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from nemotron_ops.gateway.api.catalog import Directory, hopeless, index, may_serve
from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.api.routes import Route
from nemotron_ops.gateway.loop.read_turns import Turns
from nemotron_ops.gateway.observe.metrics import Metrics
from nemotron_ops.gateway.options import Options
from nemotron_ops.gateway.queue.admission import ALONE, Admission, Place, Ticket, least_loaded
from nemotron_ops.gateway.queue.affinity import Affinity
from nemotron_ops.gateway.queue.reservation import MEDIA_TOKENS, Measure, choices, own_limit, prompt_bytes, room
from nemotron_ops.gateway.queue.snapshots import Follower
from nemotron_ops.gateway.request.prepare import Prepared
from nemotron_ops.gateway.upstream.connection import Upstream
from nemotron_ops.supervisor.snapshot import InstanceView, ModelView, Snapshot

LIGHT_AT_ONCE = 32  # requests without a slot per instance; they only need llama-server's HTTP threads
SUSPECT_S = 0.25
MAX_SUSPECT_S = 4.0
WANT_AGAIN_S = 5.0
EXPECT_SNAPSHOT_S = 10.0


class Share(NamedTuple):
    """What a slot of a shared context would have if it were divided, and how many slots share it."""

    tokens: int
    slots: int


class Pool:
    """All instances, by the latest snapshot."""

    def __init__(self, options: Options, metrics: Metrics) -> None:
        self.options = options
        self.metrics = metrics
        self.loop = asyncio.get_running_loop()
        self.follower = Follower(options.control, self.apply, self.inflight)
        self.directory: Directory = index(Snapshot())
        self.upstreams: dict[str, Upstream] = {}
        self.turns = Turns()
        self.slots = Admission()
        self.light = Admission()
        self.affinity = Affinity()
        self.stopping = False
        self.known = False  # a snapshot has come
        self._seen: asyncio.Future[None] = self.loop.create_future()
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}
        self._kept_places: dict[str, list[Place]] = {}
        self._shares: dict[str, Share] = {}  # by model, where slots share a context
        self._measures: defaultdict[str, Measure] = defaultdict(Measure)
        self._suspects: dict[str, tuple[float, int]] = {}  # instance -> until, failures in a row

    @property
    def snapshot(self) -> Snapshot:
        return self.directory.snapshot

    def apply(self, snapshot: Snapshot) -> None:
        """Route by a new snapshot from here on."""
        before = self.directory.by_name
        self._kept_places.clear()
        self.directory = index(snapshot)
        self._shares = _shares(snapshot.instances)
        if not self.known:
            self.known = True
            self._seen.set_result(None)
        for view in snapshot.instances:
            old = before.get(view.name)
            new_process = old is None or (old.pid, old.socket) != (view.pid, view.socket)
            if new_process:
                self._suspects.pop(view.name, None)
                self.affinity.forget(view.name)
            upstream = self.upstreams.get(view.name)
            if upstream is None or new_process or (not upstream.key and view.api_key_file):
                if upstream is not None:
                    upstream.retire()
                key = _read_key(view.api_key_file)
                self.upstreams[view.name] = Upstream(view.name, view.socket, key, self.turns)
            if view.cut and upstream is not None:
                upstream.cut()
        for name in before.keys() - self.directory.by_name.keys():
            self.upstreams.pop(name).retire()
        for model in snapshot.models:
            self.pump(model.name)
            if refusal := hopeless(model, self.directory.instances.get(model.name, ())):
                self._fail_waiters(model.name, refusal)

    def close(self) -> None:
        """Close all connections to instances."""
        for upstream in self.upstreams.values():
            upstream.cut()

    async def know(self) -> None:
        """Wait for the first snapshot. Raises Refusal if it does not come."""
        await asyncio.wait((self._seen,), timeout=EXPECT_SNAPSHOT_S)
        if not self.known:
            message = "the supervisor has not said yet what there is to serve"
            raise Refusal(status=503, code="no_supervisor", message=message, retry_after_s=2)

    def replicated(self, model: str) -> bool:
        """Whether there is a choice of instances for `model`."""
        return len(self.directory.instances.get(model, ())) > 1

    def reserve(self, ticket: Ticket, prepared: Prepared, route: Route) -> None:
        """Say how many tokens a request will need, where it has to share a context with others."""
        share = self._shares.get(ticket.model)
        if share is None or ticket.light:
            return
        if route.form:  # a sound file's bytes say nothing
            ticket.tokens = share.tokens
            return
        ticket.prompt_bytes, media = prompt_bytes(prepared.body)
        ticket.prompt_tokens = self._measures[ticket.model].estimate(ticket.prompt_bytes) + media * MEDIA_TOKENS
        at_once, each = 1, ticket.prompt_tokens
        if (count := prepared.answers) > 1:
            at_once = min(count, share.slots)
            each = each * choices(prepared.fields) // count  # each choice has a copy of the prompt
        ticket.tokens = at_once * each
        if route.generates:
            filled_in = prepared.named.filled_in.get("max_tokens")
            limit = own_limit(prepared.limits, filled_in)
            ticket.tokens = at_once * (each + room(limit, filled_in, prompt_tokens=each, share_tokens=share.tokens))

    def learn(self, ticket: Ticket, prompt_tokens: int) -> None:
        """An answer says how many tokens its prompt had."""
        if ticket.prompt_bytes and ticket.answers == 1:
            self._measures[ticket.model].learn(ticket.prompt_bytes, prompt_tokens)

    def estimate(self, model: str, body: bytes) -> int:
        """About how many tokens the prompts in `body` have."""
        size_bytes, media = prompt_bytes(body)
        return self._measures[model].estimate(size_bytes) + media * MEDIA_TOKENS

    def overflowed(self, ticket: Ticket) -> None:
        """The context at `ticket`'s instance was full, and llama-server forgot all of it: next time it runs alone."""
        ticket.tokens = ALONE
        self.affinity.forget(ticket.instance)
        self.metrics.retries[(ticket.model, ticket.instance)] += 1

    def lost(self, instance: str, model: str) -> None:
        """An instance has not answered a request, which says nothing about others."""
        self.metrics.retries[(model, instance)] += 1

    def failed(self, instance: str, model: str) -> None:
        """Give an instance nothing for a moment: it has just failed a request."""
        _, failures = self._suspects.get(instance, (0.0, 0))
        pause = min(MAX_SUSPECT_S, SUSPECT_S * 2**failures)
        self._suspects[instance] = (self.loop.time() + pause, failures + 1)
        self.affinity.forget(instance)
        self.lost(instance, model)
        self.loop.call_later(pause + 0.001, self.pump, model)

    def go(self, ticket: Ticket, model: ModelView) -> bool:
        """Give a new request an instance at once, if nobody waits and nothing speaks against it."""
        if ticket.light or self.directory.snapshot.stopping:
            return False
        if not self.slots.go(ticket, self._places(model.name), self._choose):
            return False
        self.follower.report()
        return True

    async def admit(
        self, ticket: Ticket, model: ModelView, *, again: bool, deadline: float, waiting: Callable[[], None]
    ) -> None:  # fmt: skip
        """Wait until `ticket` has an instance. Raises Refusal if that takes too long or makes no sense.

        `again` goes before all others. `waiting` is called now and then while it waits.
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
        if refusal := hopeless(model, self.directory.instances.get(model.name, ())):
            raise refusal
        comment_at = self.loop.time() + self.options.keep_alive_s
        while not future.done():
            now = self.loop.time()
            if now >= deadline:
                raise self._too_long(model, ticket, now)
            again_at = deadline
            if model.on_demand and not any(map(may_serve, self.directory.instances.get(model.name, ()))):
                self.follower.want(model.name)
                again_at = now + WANT_AGAIN_S
            await asyncio.wait((future,), timeout=min(deadline, comment_at, again_at) - now)
            if not future.done() and self.loop.time() >= comment_at:
                waiting()
                comment_at = self.loop.time() + self.options.keep_alive_s
        future.result()

    def _too_long(self, model: ModelView, ticket: Ticket, now: float) -> Refusal:
        line = self._line(ticket)
        retry = line.wait_s(model.name, self._slot_count(model.name))
        return Refusal(
            status=503, code="queue_timeout", retry_after_s=retry,
            message=f"no instance of {model.name!r} was free within {now - ticket.since:.0f} s",
            detail={"queue_position": line.position(ticket), "estimated_wait_s": round(retry, 1)},
        )  # fmt: skip

    def release(self, ticket: Ticket, *, took_s: float, answered: bool) -> None:
        """A request has left its instance after `took_s`."""
        self._line(ticket).release(ticket, service_s=took_s if answered else None, took_s=took_s)
        if self._suspects and answered:
            self._suspects.pop(ticket.instance, None)
        self.pump(ticket.model)

    def pump(self, model: str) -> None:
        """Let go who can go."""
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
        """Tokens held at each instance whose slots share a context."""
        return {
            i.name: min(self.slots.held_tokens(i.name), i.ctx_tokens)
            for i in self.snapshot.instances
            if _shared_tokens(i)
        }

    def queue_lengths(self) -> dict[str, int]:
        """Requests that wait, by model."""
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
        """Where requests may go now. Asked twice per request, so kept until something changes."""
        if not self._suspects and (kept := self._kept_places.get(model)) is not None:
            return kept
        now = self.loop.time()
        found = [
            Place(name=i.name, slots=max(1, i.slots), tokens=_shared_tokens(i))
            for i in self.directory.instances.get(model, ())
            if may_serve(i) and (i.name not in self._suspects or self._suspects[i.name][0] <= now)
        ]
        if not self._suspects:
            self._kept_places[model] = found
        return found

    def _slot_count(self, model: str) -> int:
        return sum(max(1, i.slots) for i in self.directory.instances.get(model, ()) if may_serve(i))

    def _fail_waiters(self, model: str, refusal: Refusal) -> None:
        for future in self._waiters.get(model, set()).copy():
            if not future.done():
                future.set_exception(_copy(refusal))


def _shared_tokens(instance: InstanceView) -> int:
    """The context that the slots of `instance` share; 0 where there is nothing to share it with."""
    return instance.ctx_tokens if instance.kv_unified and instance.slots > 1 else 0


def _shares(instances: tuple[InstanceView, ...]) -> dict[str, Share]:
    shares: dict[str, Share] = {}
    for view in instances:
        if _shared_tokens(view):
            tokens, slots = view.ctx_tokens // view.slots, view.slots
            shares[view.model] = Share(tokens, max(slots, shares.get(view.model, Share(0, 0)).slots))
    return shares


def _copy(refusal: Refusal) -> Refusal:
    """One exception object per waiter: each gets a traceback of its own."""
    return replace(refusal)


def _read_key(path: str) -> str:
    try:
        return Path(path).read_text().strip() if path else ""
    except OSError:
        return ""
