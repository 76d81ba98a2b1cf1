"""Who goes next, and to which instance: a fair, bounded queue per model in front of real slots. Pure.

llama-server's own queue is unbounded and never says no, so no request is sent before a slot is free for it. Per
model, requests wait in one line per key; the line whose key has had the least service for its weight goes first
(start-time fair queueing), so that neither many requests of one key nor a steady stream of them starve another.
A key that was away comes back at the present, not with credit for its absence.

The caller brings the time and the instances, and acts on what `grants` returns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from nemotron_ops.gateway.replies import Refusal

MIN_RETRY_S = 1.0
MAX_RETRY_S = 120.0
SMOOTHING = 0.2


@dataclass(slots=True, eq=False)
class Ticket:
    """One request's place in the line. `prefixes` are what affinity looks for, longest first."""

    model: str
    key: str
    weight: float = 1.0
    cost: float = 1.0
    bytes: int = 0
    since: float = 0.0
    prefixes: tuple[int, ...] = ()
    light: bool = False  # needs no slot
    avoid: str = ""  # an instance that has just failed this request
    instance: str = ""  # set when granted
    granted: Callable[[], None] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """An instance that may be given requests, and how many it can work on at once."""

    name: str
    slots: int


@dataclass(slots=True)
class _Lines:
    lines: dict[str, deque[Ticket]] = field(default_factory=dict)
    served: dict[str, float] = field(default_factory=dict)  # key -> virtual time of its next request
    clock: float = 0.0
    length: int = 0
    bytes: int = 0
    service_s: float = 0.0  # how long one request takes, smoothed
    priority: deque[Ticket] = field(default_factory=deque)  # those that an instance has lost


Choose = Callable[[Ticket, list[Place]], Place]


class Admission:
    """The lines of all models, and how many requests each instance works on."""

    def __init__(self) -> None:
        self.inflight: dict[str, int] = {}
        self._models: dict[str, _Lines] = {}

    def offer(self, ticket: Ticket, *, now: float, length: int, max_bytes: int, slots: int) -> int:
        """Put a request into its line; returns its position, from 1. Raises Refusal if the line is full."""
        lines = self._models.setdefault(ticket.model, _Lines())
        if lines.length >= length or lines.bytes + ticket.bytes > max_bytes:
            retry = self.wait_s(ticket.model, slots)
            raise Refusal(
                status=503, code="queue_full", retry_after_s=retry,
                message=f"{lines.length} requests are waiting for {ticket.model!r} already",
                detail={"queue_position": lines.length + 1, "estimated_wait_s": round(retry, 1)},
            )  # fmt: skip
        ticket.since = ticket.since or now
        if ticket.key not in lines.lines:
            lines.served[ticket.key] = max(lines.served.get(ticket.key, 0.0), lines.clock)
            lines.lines[ticket.key] = deque()
        lines.lines[ticket.key].append(ticket)
        lines.length += 1
        lines.bytes += ticket.bytes
        return lines.length

    def retry(self, ticket: Ticket) -> None:
        """Put a request whose instance was lost before all others: it has waited its turn already."""
        lines = self._models.setdefault(ticket.model, _Lines())
        ticket.instance = ""
        lines.priority.append(ticket)
        lines.length += 1
        lines.bytes += ticket.bytes

    def leave(self, ticket: Ticket) -> None:
        """Take a request out of its line: its client is gone or has waited long enough."""
        lines = self._models.get(ticket.model)
        if lines is None:
            return
        for key, line in [(None, lines.priority), (ticket.key, lines.lines.get(ticket.key, deque()))]:
            if ticket in line:
                line.remove(ticket)
                lines.length -= 1
                lines.bytes -= ticket.bytes
                if key is not None and not line:
                    del lines.lines[key]
                return

    def grants(self, model: str, places: Iterable[Place], choose: Choose) -> list[Ticket]:
        """Requests that can go now, each with its instance; they count as in flight from here on."""
        lines = self._models.get(model)
        if lines is None or lines.length == 0:
            return []
        granted: list[Ticket] = []
        found = list(places)
        while lines.length:
            free = [p for p in found if self.inflight.get(p.name, 0) < p.slots]
            if not free:
                break
            ticket = self._pop(lines)
            elsewhere = [p for p in free if p.name != ticket.avoid]
            ticket.instance = choose(ticket, elsewhere or free).name
            self.inflight[ticket.instance] = self.inflight.get(ticket.instance, 0) + 1
            granted.append(ticket)
        self._forget_idle(lines)
        return granted

    def release(self, ticket: Ticket, *, service_s: float | None = None) -> None:
        """A granted request is over. `service_s`, if it ran to its end, trains the estimates."""
        left = self.inflight.get(ticket.instance, 0) - 1
        if left > 0:
            self.inflight[ticket.instance] = left
        else:
            self.inflight.pop(ticket.instance, None)
        lines = self._models.get(ticket.model)
        if lines is not None and service_s is not None:
            old = lines.service_s or service_s
            lines.service_s = old + SMOOTHING * (service_s - old)

    def length(self, model: str) -> int:
        """How many requests wait for `model`."""
        lines = self._models.get(model)
        return lines.length if lines else 0

    def wait_s(self, model: str, slots: int) -> float:
        """About how long a new request would wait."""
        lines = self._models.get(model)
        if lines is None:
            return MIN_RETRY_S
        wait = (lines.length + 1) * lines.service_s / max(1, slots)
        return min(MAX_RETRY_S, max(MIN_RETRY_S, wait))

    def _pop(self, lines: _Lines) -> Ticket:
        lines.length -= 1
        if lines.priority:
            ticket = lines.priority.popleft()
        else:
            key = min(lines.lines, key=lambda k: lines.served[k])
            ticket = lines.lines[key].popleft()
            lines.clock = lines.served[key]
            lines.served[key] += ticket.cost / max(ticket.weight, 0.001)
            if not lines.lines[key]:
                del lines.lines[key]
        lines.bytes -= ticket.bytes
        return ticket

    def _forget_idle(self, lines: _Lines) -> None:
        """Where nobody waits, nobody is ahead; else keys that don't wait and aren't ahead need no memory."""
        if lines.length == 0:
            lines.served.clear()
            lines.clock = 0.0
        elif len(lines.served) > 64 + 2 * len(lines.lines):
            lines.served = {k: v for k, v in lines.served.items() if k in lines.lines or v > lines.clock}


def least_loaded(inflight: dict[str, int], places: list[Place]) -> Place:
    """The place with the smallest share of its slots in use."""
    return min(places, key=lambda p: inflight.get(p.name, 0) / p.slots)
