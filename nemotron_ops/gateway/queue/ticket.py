"""A request's place in the queue, and an instance's capacity: what admission compares. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

ALL_SLOTS = 1 << 20  # answers of a request that must have all slots of its instance
ALONE = 1 << 40  # tokens of a request that must run without any other


class Growing(Protocol):
    """An answer in progress; `events` is about the number of its tokens so far."""

    events: int


class Ticket(msgspec.Struct, eq=False):
    """One request's place in the queue. `prefixes` are looked up for affinity, longest first."""

    model: str
    key: str
    weight: float = 1.0
    answers: int = 1  # choices times prompts: each takes a slot
    bytes: int = 0
    since: float = 0.0
    prefixes: tuple[int, ...] = ()
    light: bool = False  # needs no slot
    avoid: str = ""  # an instance that has just failed this request
    tokens: int = 0  # reserved for it in a shared context; 0 if the context is not shared
    prompt_tokens: int = 0  # the prompt's part of `tokens`
    prompt_bytes: int = 0  # what `prompt_tokens` was estimated from
    answer: Growing | None = None
    instance: str = ""  # set when granted
    slots: int = 0  # taken at `instance`
    charged: float = 0.0  # virtual time charged to its key so far
    round: int = 0  # the fairness round that it was charged in
    granted: Callable[[], None] | None = None

    def held_tokens(self) -> int:
        """Tokens of a shared context that the running request takes: its reservation, or more once it outgrew that."""
        if self.answer is None:
            return self.tokens
        return max(self.tokens, self.prompt_tokens + self.answer.events)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """An instance that may be given requests, and how many it can work on at once."""

    name: str
    slots: int
    tokens: int = 0  # context that its slots share; 0 if each slot has its own


Choose = Callable[[Ticket, list[Place]], Place]


def widest(places: Sequence[Place]) -> int:
    """The largest context that the slots of one of `places` share."""
    return places[0].tokens if len(places) == 1 else max((p.tokens for p in places), default=0)


def least_loaded(inflight: dict[str, int], places: list[Place]) -> Place:
    """The place with the smallest share of its slots in use."""
    if len(places) == 1:
        return places[0]
    return min(places, key=lambda p: inflight.get(p.name, 0) / p.slots)
