"""What a watcher reads of its instance (`Watched`), and what it reports to the owner (`Seen`). Types only.

A watcher writes nothing: it sends events and observations to the owner's inbox, and the owner decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nemotron_ops.supervisor.instance.state import Event
from nemotron_ops.supervisor.journal import Journal
from nemotron_ops.supervisor.records.record import Record
from nemotron_ops.supervisor.spec import InstanceSpec

if TYPE_CHECKING:
    from nemotron_ops.engine.client import AsyncClient


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One observation of the process that `launch` names; None: not looked at.

    The owner drops an observation of an earlier process.
    """

    launch: str
    busy: int | None = None  # slots at work
    progress: float | None = None  # share of the model that is loaded, 0..1
    rss_bytes: int | None = None


class Watched(Protocol):
    """One instance, as its watchers see it."""

    @property
    def id(self) -> str: ...
    @property
    def spec(self) -> InstanceSpec: ...
    @property
    def record(self) -> Record | None: ...
    @property
    def client(self) -> AsyncClient: ...
    @property
    def log(self) -> Path: ...
    @property
    def slots_dir(self) -> Path: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def restarting(self) -> bool: ...
    def inflight(self) -> int | None: ...
    def out_of_traffic(self) -> bool: ...
    def clock(self) -> float: ...
    def tell(self, event: Event, reason: str = "") -> None: ...
    def report(self, seen: Seen) -> None: ...
