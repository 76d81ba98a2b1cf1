"""Who goes next, and to which instance: a fair, bounded queue per model in front of real slots. Pure.

llama-server's own queue is unbounded and never says no, so no request is sent before a slot is free for it. Per
model, requests wait in one line per key; the line whose key has had the least service for its weight goes first
(start-time fair queueing), so that neither many requests of one key nor a steady stream of them starve another.
A key that was away comes back at the present, not with credit for its absence.

Where an instance's slots share one context, a request also needs its tokens free there (`reservation`). One that is
next and does not fit claims the instance: others may pass it as long as they leave it the tokens and the slot that it
will have once those that run now are done, so nothing that passes makes it wait longer. A request larger than the
whole context runs alone, and gets the engine's own answer.

The caller brings the time and the instances, and acts on what `grants` returns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from nemotron_ops.gateway.replies import Refusal

MIN_RETRY_S = 1.0
MAX_RETRY_S = 120.0
SMOOTHING = 0.2
ALONE = 1 << 40  # tokens of a request that is to run without any other
LOOK_BEHIND = 32  # requests that are asked whether they fit where the first one does not


class Growing(Protocol):
    """An answer in progress; `events` is about the number of its tokens so far."""

    events: int


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
    tokens: int = 0  # to be kept free for it in a shared context; 0 where none is shared
    prompt_tokens: int = 0  # the prompt's part of them
    prompt_bytes: int = 0  # what `prompt_tokens` was estimated from
    answer: Growing | None = None
    instance: str = ""  # set when granted
    granted: Callable[[], None] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """An instance that may be given requests, and how many it can work on at once."""

    name: str
    slots: int
    tokens: int = 0  # context that its slots share; 0 where each has its own


@dataclass(slots=True)
class _Lines:
    lines: dict[str, deque[Ticket]] = field(default_factory=dict)
    served: dict[str, float] = field(default_factory=dict)  # key -> virtual time of its next request
    clock: float = 0.0
    length: int = 0
    bytes: int = 0
    service_s: float = 0.0  # how long one request takes, smoothed
    priority: deque[Ticket] = field(default_factory=deque)  # those that an instance has lost
    first: Ticket | None = None  # is next, does not fit, and has claimed an instance
    claimed: str = ""
    widest: int = 0  # the largest shared context; no request is counted as more than this
    passing: set[Ticket] = field(default_factory=set)  # given that instance since


Choose = Callable[[Ticket, list[Place]], Place]


class Admission:
    """The lines of all models, and how many requests each instance works on."""

    def __init__(self) -> None:
        self.inflight: dict[str, int] = {}
        self._holders: dict[str, set[Ticket]] = {}  # instance -> who holds tokens there
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
        if ticket is lines.first:
            self._unclaim(lines)
            lines.length -= 1
            lines.bytes -= ticket.bytes
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
        lines.widest = max((p.tokens for p in found), default=0)
        shared = lines.widest > 0 or lines.first is not None
        while lines.length:
            free = [p for p in found if self.inflight.get(p.name, 0) < p.slots]
            if not free:
                break
            ticket = self._next_fitting(lines, found, free) if shared else self._pop(lines)
            if ticket is None:
                break
            if shared:
                free = [p for p in free if self._fits(lines, ticket, p)]
            elsewhere = [p for p in free if p.name != ticket.avoid]
            ticket.instance = choose(ticket, elsewhere or free).name
            self.inflight[ticket.instance] = self.inflight.get(ticket.instance, 0) + 1
            if shared:
                self._hold(lines, ticket)
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
        if ticket.tokens and lines is not None:
            self._let_go(lines, ticket)
        if lines is not None and service_s is not None:
            old = lines.service_s or service_s
            lines.service_s = old + SMOOTHING * (service_s - old)

    def held_tokens(self, instance: str) -> int:
        """Tokens of a shared context that the requests at `instance` hold or have outgrown to."""
        return sum(map(_hold_of, self._holders.get(instance, ())))

    def length(self, model: str) -> int:
        """How many requests wait for `model`."""
        lines = self._models.get(model)
        return lines.length if lines else 0

    def position(self, ticket: Ticket) -> int:
        """How many of its model's requests would go before `ticket` if all lines moved at the same pace, plus one."""
        lines = self._models[ticket.model]
        ahead = len(lines.priority) + (lines.first is not None and lines.first is not ticket)
        if ticket is lines.first or ticket in lines.priority:
            return lines.priority.index(ticket) + 1 if ticket in lines.priority else 1
        own = list(lines.lines.get(ticket.key, ()))
        before = own.index(ticket) if ticket in own else len(own)
        others = sum(min(len(line), before + 1) for key, line in lines.lines.items() if key != ticket.key)
        return ahead + before + others + 1

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

    def _next_fitting(self, lines: _Lines, found: list[Place], free: list[Place]) -> Ticket | None:
        """Takes the next request that has a place with tokens for it. The very first claims one if it has none."""
        if lines.first is None:
            first = self._pop(lines)
            if any(self._fits(lines, first, p) for p in free):
                return first
            lines.first = first
            lines.length += 1  # it still waits
            lines.bytes += first.bytes
        first = lines.first
        if lines.claimed not in [p.name for p in found]:
            need = min(first.tokens, lines.widest)
            large = [p for p in found if p.tokens >= need]
            lines.claimed = min(large, key=lambda p: (self.held_tokens(p.name) - p.tokens, p.name)).name
            lines.passing.clear()
        if any(self._fits(lines, first, p) for p in free):
            self._unclaim(lines)
            lines.length -= 1
            lines.bytes -= first.bytes
            return first
        for key, line, ticket in _behind(lines):
            if any(self._fits(lines, ticket, p) for p in free):
                line.remove(ticket)
                if key is not None:
                    lines.served[key] += ticket.cost / max(ticket.weight, 0.001)
                    if not line:
                        del lines.lines[key]
                lines.length -= 1
                lines.bytes -= ticket.bytes
                return ticket
        return None

    def _fits(self, lines: _Lines, ticket: Ticket, place: Place) -> bool:
        """Whether `place` has the tokens for `ticket`, and then still what the first in line was promised there."""
        if not (place.tokens and ticket.tokens):
            return True
        need = min(ticket.tokens, lines.widest)
        if self.held_tokens(place.name) + need > place.tokens:
            return False
        first = lines.first
        if first is None or first is ticket or lines.claimed != place.name:
            return True
        promised = min(first.tokens, lines.widest) + sum(map(_hold_of, lines.passing))
        return promised + need <= place.tokens and len(lines.passing) + 1 < place.slots

    def _hold(self, lines: _Lines, ticket: Ticket) -> None:
        if ticket.tokens:
            self._holders.setdefault(ticket.instance, set()).add(ticket)
            if lines.first is not None and ticket.instance == lines.claimed:
                lines.passing.add(ticket)

    def _let_go(self, lines: _Lines, ticket: Ticket) -> None:
        lines.passing.discard(ticket)
        holders = self._holders.get(ticket.instance, set())
        holders.discard(ticket)
        if not holders:
            self._holders.pop(ticket.instance, None)

    def _unclaim(self, lines: _Lines) -> None:
        lines.first = None
        lines.claimed = ""
        lines.passing.clear()

    def _forget_idle(self, lines: _Lines) -> None:
        """Where nobody waits, nobody is ahead; else keys that don't wait and aren't ahead need no memory."""
        if lines.length == 0:
            lines.served.clear()
            lines.clock = 0.0
        elif len(lines.served) > 64 + 2 * len(lines.lines):
            lines.served = {k: v for k, v in lines.served.items() if k in lines.lines or v > lines.clock}


def _behind(lines: _Lines) -> list[tuple[str | None, deque[Ticket], Ticket]]:
    """Who comes after the first in line, the least served key first; a bounded number."""
    found: list[tuple[str | None, deque[Ticket], Ticket]] = [(None, lines.priority, t) for t in lines.priority]
    for key in sorted(lines.lines, key=lambda k: lines.served[k]):
        if len(found) >= LOOK_BEHIND:
            break
        line = lines.lines[key]
        found += [(key, line, ticket) for ticket in islice(line, LOOK_BEHIND)]
    return found[:LOOK_BEHIND]


def _hold_of(ticket: Ticket) -> int:
    """What a running request takes of a shared context: what was kept free for it, or more if it has outgrown that."""
    if ticket.answer is None:
        return ticket.tokens
    return max(ticket.tokens, ticket.prompt_tokens + ticket.answer.events)


def least_loaded(inflight: dict[str, int], places: list[Place]) -> Place:
    """The place with the smallest share of its slots in use."""
    return min(places, key=lambda p: inflight.get(p.name, 0) / p.slots)
