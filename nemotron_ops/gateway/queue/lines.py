"""The waiting requests of one model: one line per key, served by start-time fair queueing. Pure.

The line whose key has had the least service for its weight goes first, so that neither many requests of one key nor a
steady stream of them starve another. A key that was away comes back at the present, without credit for its absence.

A request is charged to its key by the time that it holds its slots: the average of such requests when it is granted,
corrected to the real time when it is over. So long answers are no cheaper than many short ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from nemotron_ops.gateway.queue.ticket import Ticket

SMOOTHING = 0.2
LOOK_BEHIND = 32  # requests that may be backfilled while the head of the line does not fit
FIRST_COST_S = 1.0  # of a request, until the first one is over
LEAST_COST_S = 0.001
MOST_COST_S = 60.0  # bounds how long a key waits for the others to catch up after a very long answer


@dataclass(slots=True)
class Lines:
    """The lines of one model, with `priority` before all others: requests whose instance was lost."""

    lines: dict[str, deque[Ticket]] = field(default_factory=dict)
    virtual_time: dict[str, float] = field(default_factory=dict)  # key -> virtual start time of its next request
    clock: float = 0.0  # virtual start time of the last granted request
    length: int = 0
    bytes: int = 0
    service_s: float = 0.0  # average time that a request takes
    priority: deque[Ticket] = field(default_factory=deque)
    head: Ticket | None = None  # the head-of-line request, if it does not fit; then it has reserved an instance
    reserved: str = ""  # the name of that instance
    backfilled: set[Ticket] = field(default_factory=set)  # granted there since
    widest: int = 0  # the largest shared context; no request counts as more than this
    round: int = 1  # fairness round: a new one begins whenever no request waits
    wide: int = 0  # waiting requests that need several slots

    def append(self, ticket: Ticket) -> None:
        """Put a request at the end of its key's line."""
        if ticket.key not in self.lines:
            self.virtual_time[ticket.key] = max(self.virtual_time.get(ticket.key, 0.0), self.clock)
            self.lines[ticket.key] = deque()
        self.lines[ticket.key].append(ticket)

    def pop(self) -> Ticket:
        """Take out the next request, and charge it to its key."""
        if self.priority:
            return self.priority.popleft()
        key = min(self.lines, key=lambda k: self.virtual_time[k])
        ticket = self.lines[key].popleft()
        self.clock = max(self.clock, self.virtual_time[key])
        if self.length > 1:  # a single waiting request competes with none
            self.charge(ticket)
        if not self.lines[key]:
            del self.lines[key]
        return ticket

    def discard(self, ticket: Ticket) -> bool:
        """Take a request out of its line; returns whether it was there."""
        if ticket in self.priority:
            self.priority.remove(ticket)
            return True
        line = self.lines.get(ticket.key)
        if line is None or ticket not in line:
            return False
        line.remove(ticket)
        if not line:
            del self.lines[ticket.key]
        return True

    def behind(self) -> Iterator[tuple[Ticket, bool]]:
        """A bounded number of requests behind the head, least served key first; and whether each is to be charged."""
        found = [(ticket, False) for ticket in self.priority]
        for key in sorted(self.lines, key=lambda k: self.virtual_time[k]):
            if len(found) >= LOOK_BEHIND:
                break
            found += [(ticket, True) for ticket in islice(self.lines[key], LOOK_BEHIND)]
        return islice(found, LOOK_BEHIND)

    def count(self, ticket: Ticket, step: int) -> None:
        """A request has entered the lines (1) or left them (-1)."""
        self.length += step
        self.bytes += step * ticket.bytes
        self.wide += step * (ticket.answers > 1)

    def charge(self, ticket: Ticket) -> None:
        """Charge a granted request to its key, for now by the average time."""
        ticket.charged = _cost(ticket, self.service_s or FIRST_COST_S, ticket.answers)
        ticket.round = self.round
        self.virtual_time[ticket.key] += ticket.charged

    def settle(self, ticket: Ticket, took_s: float) -> None:
        """Correct the charge of a request that is over to the time that it took."""
        if ticket.key in self.virtual_time and ticket.round == self.round:
            self.virtual_time[ticket.key] += _cost(ticket, took_s, ticket.slots) - ticket.charged
            ticket.charged = 0.0

    def learn(self, service_s: float) -> None:
        """A request ran to its end in `service_s`."""
        old = self.service_s or service_s
        self.service_s = old + SMOOTHING * (service_s - old)

    def unreserve(self) -> None:
        """The head of the line has left, or was granted: its instance is reserved no longer."""
        self.head = None
        self.reserved = ""
        self.backfilled.clear()

    def forget_idle(self) -> None:
        """Begin a new fairness round if no request waits; else drop keys that neither wait nor are ahead."""
        if self.length == 0:
            self.virtual_time.clear()
            self.clock = 0.0
            self.round += 1
        elif len(self.virtual_time) > 64 + 2 * len(self.lines):
            self.virtual_time = {k: v for k, v in self.virtual_time.items() if k in self.lines or v > self.clock}

    def position(self, ticket: Ticket) -> int:
        """How many requests would be granted before `ticket` if all lines moved at the same pace, plus one."""
        if ticket is self.head:
            return 1
        if ticket in self.priority:
            return self.priority.index(ticket) + 1
        own = self.lines.get(ticket.key, deque())
        before = own.index(ticket) if ticket in own else len(own)
        others = sum(min(len(line), before + 1) for key, line in self.lines.items() if key != ticket.key)
        return len(self.priority) + (self.head is not None) + before + others + 1


def _cost(ticket: Ticket, took_s: float, slots: int) -> float:
    """The virtual time of a request that holds `slots` for `took_s`."""
    return min(MOST_COST_S, max(LEAST_COST_S, took_s * slots)) / max(ticket.weight, 0.001)
