"""What all keepers share: folders, environment, journal, and the callables that reach the fleet. Types only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nemotron_ops.paths import Layout
from nemotron_ops.supervisor.journal import Journal
from nemotron_ops.supervisor.watchdog import Timing


@dataclass(frozen=True, kw_only=True)
class Context:
    """Dependencies shared by all keepers.

    `inflight` is the number of requests that the gateway has at an instance (None: no gateway is connected).
    `acknowledged`: all gateways know that it takes no requests now.
    `progressed` is called at each sign of progress of a load. The fleet fills in `changed` (asks for a review) and
    `exited` (a process has ended).
    """

    layout: Layout
    env: Mapping[str, str]
    journal: Journal
    inflight: Callable[[str], int | None]
    acknowledged: Callable[[str], bool] = lambda instance: False
    changed: Callable[[], None] = lambda: None
    exited: Callable[[], None] = lambda: None
    progressed: Callable[[], None] = lambda: None
    timing: Timing = field(default_factory=Timing)
