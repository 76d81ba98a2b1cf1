"""Who goes next, and to which instance: a fair, bounded queue per model in front of real slots. Pure.

llama-server's own queue is unbounded and never says no, so no request is sent before a slot is free for it. Per
model, requests wait in one line per key; the line whose key has had the least service for its weight goes first
(start-time fair queueing), so that neither many requests of one key nor a steady stream of them starve another.
A key that was away comes back at the present, not with credit for its absence.

Where an instance's slots share one context, a request also needs its tokens free there (`reservation`). One that is
next and does not fit claims the instance: others may pass it as long as they leave it the tokens and the slot that it
will have once those that run now are done, so nothing that passes makes it wait longer. A request larger than the
whole context runs alone, and gets the engine's own answer. The same holds for slots: a request with several answers
(choices, prompts) takes one for each, and all that there are if it has more answers than that.

What a request costs its key is the time that it holds its slots: what such requests take on average when it goes, and
what it really took when it is over. So long answers are no cheaper than many short ones.

The caller brings the time and the instances, and acts on what `grants` returns.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import msgspec

from nemotron_ops.gateway.api.errors import Refusal

MIN_RETRY_S = 1.0
MAX_RETRY_S = 120.0
SMOOTHING = 0.2
ALONE = 1 << 40  # tokens of a request that is to run without any other
LOOK_BEHIND = 32  # requests that are asked whether they fit where the first one does not
FIRST_COST_S = 1.0  # of a request, while nothing is known
LEAST_COST_S = 0.001
MOST_COST_S = 60.0  # so that after a very long answer a key waits no longer than this for the others to catch up


class Growing(Protocol):
    """An answer in progress; `events` is about the number of its tokens so far."""

    events: int


class Ticket(msgspec.Struct, eq=False):
    """One request's place in the line. `prefixes` are what affinity looks for, longest first."""

    model: str
    key: str
    weight: float = 1.0
    answers: int = 1  # choices times prompts: each takes a slot
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
    slots: int = 0  # taken there
    charged: float = 0.0  # to its key, for its weight,
    round: int = 0  # in this one
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
    round: int = 1  # begins anew whenever nobody waits
    wide: int = 0  # of those that wait, how many need several slots


Choose = Callable[[Ticket, list[Place]], Place]


class Admission:
    """The lines of all models, and how many slots of each instance are taken."""

    def __init__(self) -> None:
        self.inflight: dict[str, int] = {}
        self.waiting = 0  # requests in all lines
        self._holders: defaultdict[str, set[Ticket]] = defaultdict(set)  # instance -> who holds tokens there
        self._models: defaultdict[str, _Lines] = defaultdict(_Lines)

    def offer(self, ticket: Ticket, *, now: float, length: int, max_bytes: int, slots: int) -> int:
        """Put a request into its line; returns its position, from 1. Raises Refusal if the line is full."""
        lines = self._models[ticket.model]
        if lines.length >= max(1, length) or lines.bytes + ticket.bytes > max_bytes:
            raise self.full(ticket.model, slots)
        ticket.since = ticket.since or now
        if ticket.key not in lines.lines:
            lines.served[ticket.key] = max(lines.served.get(ticket.key, 0.0), lines.clock)
            lines.lines[ticket.key] = deque()
        lines.lines[ticket.key].append(ticket)
        self._count(lines, ticket, 1)
        return lines.length

    def go(self, ticket: Ticket, places: Sequence[Place], choose: Choose) -> bool:
        """Grant a new request for which there need be no line: nobody waits, and there is room for it."""
        lines = self._models[ticket.model]
        if lines.length:
            return False
        lines.widest = widest(places)
        free = [p for p in places if self._fits(lines, ticket, p)]
        if not free:
            return False
        if lines.served:
            self._forget_idle(lines)
        self._take(ticket, choose(ticket, free))
        self._hold(lines, ticket)
        return True

    def full(self, model: str, slots: int) -> Refusal:
        """What a request is told that finds no place in the line. With a line of length 0 none may wait at all."""
        waiting, retry = self.length(model), self.wait_s(model, slots)
        return Refusal(
            status=503, code="queue_full", retry_after_s=retry,
            message=f"{waiting} requests are waiting for {model!r} already",
            detail={"queue_position": waiting + 1, "estimated_wait_s": round(retry, 1)},
        )  # fmt: skip

    def retry(self, ticket: Ticket) -> None:
        """Put a request whose instance was lost before all others: it has waited its turn already."""
        lines = self._models[ticket.model]
        ticket.instance = ""
        lines.priority.append(ticket)
        self._count(lines, ticket, 1)

    def leave(self, ticket: Ticket) -> None:
        """Take a request out of its line: its client is gone or has waited long enough."""
        lines = self._models.get(ticket.model)
        if lines is None:
            return
        if ticket is lines.first:
            self._unclaim(lines)
            self._count(lines, ticket, -1)
            return
        for key, line in [(None, lines.priority), (ticket.key, lines.lines.get(ticket.key, deque()))]:
            if ticket in line:
                line.remove(ticket)
                self._count(lines, ticket, -1)
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
        lines.widest = widest(found)
        shared = lines.widest > 0 or lines.wide > 0 or lines.first is not None
        while lines.length:
            free = self._free(found)
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
        self._forget_idle(lines)
        return granted

    def release(self, ticket: Ticket, *, service_s: float | None = None, took_s: float | None = None) -> None:
        """A granted request is over. `service_s`, if it ran to its end, trains the estimates; `took_s` is its time."""
        left = self.inflight.get(ticket.instance, 0) - ticket.slots
        if left > 0:
            self.inflight[ticket.instance] = left
        else:
            self.inflight.pop(ticket.instance, None)
        lines = self._models.get(ticket.model)
        if lines is None:
            return
        if ticket.tokens or lines.passing:
            self._let_go(lines, ticket)
        if took_s is not None and ticket.key in lines.served and ticket.round == lines.round:
            lines.served[ticket.key] += _cost(ticket, took_s, ticket.slots) - ticket.charged
            ticket.charged = 0.0
        if service_s is not None:
            old = lines.service_s or service_s
            lines.service_s = old + SMOOTHING * (service_s - old)

    def held_tokens(self, instance: str) -> int:
        """Tokens of a shared context that the requests at `instance` hold or have outgrown to."""
        return sum(map(_hold_of, self._holders[instance]))

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
        if lines.priority:
            ticket = lines.priority.popleft()
        else:
            key = min(lines.lines, key=lambda k: lines.served[k])
            ticket = lines.lines[key].popleft()
            lines.clock = max(lines.clock, lines.served[key])
            if lines.length > 1:  # else nobody is left to whom that could matter
                _charge(lines, ticket)
            if not lines.lines[key]:
                del lines.lines[key]
        self._count(lines, ticket, -1)
        return ticket

    def _next_fitting(self, lines: _Lines, found: list[Place], free: list[Place]) -> Ticket | None:
        """Takes the next request that has a place with tokens for it. The very first claims one if it has none."""
        if lines.first is None:
            first = self._pop(lines)
            if any(self._fits(lines, first, p) for p in free):
                return first
            lines.first = first
            self._count(lines, first, 1)  # it still waits
        first = lines.first
        if lines.claimed not in [p.name for p in found]:
            need = min(first.tokens, lines.widest)
            large = [p for p in found if p.tokens >= need]
            lines.claimed = min(large, key=lambda p: (self.held_tokens(p.name) - p.tokens, self._taken(p), p.name)).name
            lines.passing.clear()
        if any(self._fits(lines, first, p) for p in free):
            self._unclaim(lines)
            self._count(lines, first, -1)
            return first
        for key, line, ticket in _behind(lines):
            if any(self._fits(lines, ticket, p) for p in free):
                line.remove(ticket)
                if key is not None:
                    _charge(lines, ticket)
                    if not line:
                        del lines.lines[key]
                self._count(lines, ticket, -1)
                return ticket
        return None

    def _fits(self, lines: _Lines, ticket: Ticket, place: Place) -> bool:
        """Whether `place` has what `ticket` needs, and then still what the first in line was promised there."""
        slots = ticket.answers if ticket.answers < place.slots else place.slots
        if self._taken(place) + slots > place.slots:
            return False
        need = ticket.tokens if place.tokens else 0
        if need > lines.widest:
            need = lines.widest
        if need and self.held_tokens(place.name) + need > place.tokens:
            return False
        first = lines.first
        if first is None or first is ticket or lines.claimed != place.name:
            return True
        slots += sum(passed.slots for passed in lines.passing) + min(first.answers, place.slots)
        promised = min(first.tokens, lines.widest) + sum(map(_hold_of, lines.passing))
        return slots <= place.slots and (not need or promised + need <= place.tokens)

    def _take(self, ticket: Ticket, place: Place) -> None:
        ticket.instance, ticket.slots = place.name, min(ticket.answers, place.slots)
        self.inflight[place.name] = self._taken(place) + ticket.slots

    def _free(self, places: Iterable[Place]) -> list[Place]:
        return [p for p in places if self._taken(p) < p.slots]

    def _taken(self, place: Place) -> int:
        return self.inflight.get(place.name, 0)

    def _hold(self, lines: _Lines, ticket: Ticket) -> None:
        if ticket.tokens:
            self._holders[ticket.instance].add(ticket)
        if lines.first is not None and ticket.instance == lines.claimed:
            lines.passing.add(ticket)

    def _let_go(self, lines: _Lines, ticket: Ticket) -> None:
        lines.passing.discard(ticket)
        self._holders[ticket.instance].discard(ticket)

    def _unclaim(self, lines: _Lines) -> None:
        lines.first = None
        lines.claimed = ""
        lines.passing.clear()

    def _count(self, lines: _Lines, ticket: Ticket, way: int) -> None:
        """A request has come into the line (1) or left it (-1)."""
        self.waiting += way
        lines.length += way
        lines.bytes += way * ticket.bytes
        lines.wide += way * (ticket.answers > 1)

    def _forget_idle(self, lines: _Lines) -> None:
        """Where nobody waits, nobody is ahead; else keys that don't wait and aren't ahead need no memory."""
        if lines.length == 0:
            lines.served.clear()
            lines.clock = 0.0
            lines.round += 1
        elif len(lines.served) > 64 + 2 * len(lines.lines):
            lines.served = {k: v for k, v in lines.served.items() if k in lines.lines or v > lines.clock}


def _charge(lines: _Lines, ticket: Ticket) -> None:
    """A key pays for a request that goes: for now, what such requests take."""
    ticket.charged = _cost(ticket, lines.service_s or FIRST_COST_S, ticket.answers)
    ticket.round = lines.round
    lines.served[ticket.key] += ticket.charged


def _cost(ticket: Ticket, took_s: float, slots: int) -> float:
    """What a request that holds `slots` for `took_s` costs its key."""
    return min(MOST_COST_S, max(LEAST_COST_S, took_s * slots)) / max(ticket.weight, 0.001)


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


def widest(places: Sequence[Place]) -> int:
    """The largest context that the slots of one of `places` share."""
    return places[0].tokens if len(places) == 1 else max((p.tokens for p in places), default=0)


def least_loaded(inflight: dict[str, int], places: list[Place]) -> Place:
    """The place with the smallest share of its slots in use."""
    if len(places) == 1:
        return places[0]
    return min(places, key=lambda p: inflight.get(p.name, 0) / p.slots)
