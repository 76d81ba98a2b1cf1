"""Admission: a fair, bounded queue per model, and the slots and tokens that granted requests hold. Pure.

llama-server's own queue is unbounded and never refuses, so a request is sent only once a slot is free for it. Requests
wait in `lines`, one per key.

If an instance's slots share one context, a request also needs its tokens free there (`reservation`). A head-of-line
request that fits nowhere reserves an instance; later requests may be backfilled there only if they do not delay it:
they must leave it the slots and tokens that it will have once the running ones are over (EASY backfilling). A request
larger than the whole context runs alone, and gets the engine's own answer. The same holds for slots: a request for
several answers (choices, prompts) takes a slot for each, up to all slots of the instance.

The caller passes the time and the instances, and acts on the result of `grants`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.queue.lines import Lines
from nemotron_ops.gateway.queue.ticket import Choose, Place, Ticket, widest

MIN_RETRY_S = 1.0
MAX_RETRY_S = 120.0


class Admission:
    """The lines of all models, and how many slots of each instance are taken."""

    def __init__(self) -> None:
        self.inflight: dict[str, int] = {}
        self.waiting = 0  # requests in all lines
        self._holders: defaultdict[str, set[Ticket]] = defaultdict(set)  # by instance: those that hold tokens
        self._models: defaultdict[str, Lines] = defaultdict(Lines)

    def offer(self, ticket: Ticket, *, now: float, length: int, max_bytes: int, slots: int) -> int:
        """Queue a request; returns the length of the queue with it. Raises Refusal if the queue is full."""
        lines = self._models[ticket.model]
        if lines.length >= max(1, length) or lines.bytes + ticket.bytes > max_bytes:
            raise self.full(ticket.model, slots)
        ticket.since = ticket.since or now
        lines.append(ticket)
        self._count(lines, ticket, 1)
        return lines.length

    def go(self, ticket: Ticket, places: Sequence[Place], choose: Choose) -> bool:
        """Grant a new request without queueing it, if no other waits and it fits; returns whether it did."""
        lines = self._models[ticket.model]
        if lines.length:
            return False
        lines.widest = widest(places)
        free = [p for p in places if self._fits(lines, ticket, p)]
        if not free:
            return False
        if lines.virtual_time:
            lines.forget_idle()
        self._take(ticket, choose(ticket, free))
        self._hold(lines, ticket)
        return True

    def full(self, model: str, slots: int) -> Refusal:
        """The answer to a request that finds the queue full; if its length is 0, no request may wait at all."""
        waiting, retry = self.length(model), self.wait_s(model, slots)
        return Refusal(
            status=503, code="queue_full", retry_after_s=retry,
            message=f"{waiting} requests are waiting for {model!r} already",
            detail={"queue_position": waiting + 1, "estimated_wait_s": round(retry, 1)},
        )  # fmt: skip

    def retry(self, ticket: Ticket) -> None:
        """Queue a request whose instance was lost before all others: it has already waited once."""
        lines = self._models[ticket.model]
        ticket.instance = ""
        lines.priority.append(ticket)
        self._count(lines, ticket, 1)

    def leave(self, ticket: Ticket) -> None:
        """Take a request out of the queue: its client has left, or it has waited too long."""
        lines = self._models.get(ticket.model)
        if lines is None:
            return
        if ticket is lines.head:
            lines.unreserve()
            self._count(lines, ticket, -1)
        elif lines.discard(ticket):
            self._count(lines, ticket, -1)

    def grants(self, model: str, places: Iterable[Place], choose: Choose) -> list[Ticket]:
        """The requests that can run now, each with its instance; from here on they count as in flight."""
        lines = self._models.get(model)
        if lines is None or lines.length == 0:
            return []
        granted: list[Ticket] = []
        found = list(places)
        lines.widest = widest(found)
        shared = lines.widest > 0 or lines.wide > 0 or lines.head is not None
        while lines.length:
            free = [p for p in found if self._taken(p) < p.slots]
            if not free:
                break
            ticket = self._next_fitting(lines, found, free) if shared else self._pop(lines)
            if ticket is None:
                break
            if shared:
                free = [p for p in free if self._fits(lines, ticket, p)]
            elsewhere = [p for p in free if p.name != ticket.avoid]
            self._take(ticket, choose(ticket, elsewhere or free))
            if shared:
                self._hold(lines, ticket)
            granted.append(ticket)
        lines.forget_idle()
        return granted

    def release(self, ticket: Ticket, *, service_s: float | None = None, took_s: float | None = None) -> None:
        """A granted request is over after `took_s`; `service_s`, if it ran to its end, trains the estimated wait."""
        left = self.inflight.get(ticket.instance, 0) - ticket.slots
        if left > 0:
            self.inflight[ticket.instance] = left
        else:
            self.inflight.pop(ticket.instance, None)
        lines = self._models.get(ticket.model)
        if lines is None:
            return
        if ticket.tokens or lines.backfilled:
            lines.backfilled.discard(ticket)
            self._holders[ticket.instance].discard(ticket)
        if took_s is not None and lines.virtual_time:
            lines.settle(ticket, took_s)
        if service_s is not None:
            lines.learn(service_s)

    def narrow(self, ticket: Ticket) -> None:
        """Return the slots that a granted request has taken beyond those of its answers."""
        spare = ticket.slots - ticket.answers
        if ticket.instance and spare > 0:
            ticket.slots = ticket.answers
            self.inflight[ticket.instance] -= spare

    def held_tokens(self, instance: str) -> int:
        """Tokens of a shared context that the requests at `instance` hold."""
        return sum(map(Ticket.held_tokens, self._holders[instance]))

    def length(self, model: str) -> int:
        """How many requests wait for `model`."""
        lines = self._models.get(model)
        return lines.length if lines else 0

    def position(self, ticket: Ticket) -> int:
        """The position of a waiting request, from 1, if all lines moved at the same pace."""
        return self._models[ticket.model].position(ticket)

    def wait_s(self, model: str, slots: int) -> float:
        """About how long a new request would wait."""
        lines = self._models.get(model)
        if lines is None:
            return MIN_RETRY_S
        wait = (lines.length + 1) * lines.service_s / max(1, slots)
        return min(MAX_RETRY_S, max(MIN_RETRY_S, wait))

    def _pop(self, lines: Lines) -> Ticket:
        ticket = lines.pop()
        self._count(lines, ticket, -1)
        return ticket

    def _next_fitting(self, lines: Lines, found: list[Place], free: list[Place]) -> Ticket | None:
        """Take out the next request that fits somewhere. A head of the line that does not reserves an instance."""
        if lines.head is None:
            head = self._pop(lines)
            if any(self._fits(lines, head, p) for p in free):
                return head
            lines.head = head
            self._count(lines, head, 1)  # it still waits
        head = lines.head
        if lines.reserved not in [p.name for p in found]:
            self._reserve(lines, head, found)
        if any(self._fits(lines, head, p) for p in free):
            lines.unreserve()
            self._count(lines, head, -1)
            return head
        for ticket, charged in lines.behind():
            if any(self._fits(lines, ticket, p) for p in free):
                lines.discard(ticket)
                if charged:
                    lines.charge(ticket)
                self._count(lines, ticket, -1)
                return ticket
        return None

    def _reserve(self, lines: Lines, head: Ticket, found: list[Place]) -> None:
        """Reserve for the head of the line the instance where it will fit soonest."""
        need = min(head.tokens, lines.widest)
        large = [p for p in found if p.tokens >= need]
        best = min(large, key=lambda p: (self.held_tokens(p.name) - p.tokens, self._taken(p), p.name))
        lines.reserved = best.name
        lines.backfilled.clear()

    def _fits(self, lines: Lines, ticket: Ticket, place: Place) -> bool:
        """Whether `place` has the slots and tokens that `ticket` needs, beside those reserved for the head."""
        slots = ticket.answers if ticket.answers < place.slots else place.slots
        if self._taken(place) + slots > place.slots:
            return False
        need = ticket.tokens if place.tokens else 0
        if need > lines.widest:
            need = lines.widest
        if need and self.held_tokens(place.name) + need > place.tokens:
            return False
        head = lines.head
        if head is None or head is ticket or lines.reserved != place.name:
            return True
        slots += sum(backfilled.slots for backfilled in lines.backfilled) + min(head.answers, place.slots)
        promised = min(head.tokens, lines.widest) + sum(map(Ticket.held_tokens, lines.backfilled))
        return slots <= place.slots and (not need or promised + need <= place.tokens)

    def _take(self, ticket: Ticket, place: Place) -> None:
        ticket.instance, ticket.slots = place.name, min(ticket.answers, place.slots)
        self.inflight[place.name] = self._taken(place) + ticket.slots

    def _taken(self, place: Place) -> int:
        return self.inflight.get(place.name, 0)

    def _hold(self, lines: Lines, ticket: Ticket) -> None:
        if ticket.tokens:
            self._holders[ticket.instance].add(ticket)
        if lines.head is not None and ticket.instance == lines.reserved:
            lines.backfilled.add(ticket)

    def _count(self, lines: Lines, ticket: Ticket, step: int) -> None:
        self.waiting += step
        lines.count(ticket, step)
