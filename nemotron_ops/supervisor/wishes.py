"""What is to be served, as the supervisor's surroundings keep it: it changes while the supervisor runs. Pure.

The supervisor decides when a change counts; its surroundings know what a model is, and where the wish is kept. Models
are plain JSON here: the supervisor passes them on and reads none of their fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from nemotron_ops.errors import ControlError
from nemotron_ops.supervisor.spec import Config

RESUME = "NEMOTRON_OPS_RESUME"  # descriptors handed to the next version by `reload --exec`
Models = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A changed wish: its models, and the configuration that serves them."""

    config: Config
    models: Models


class Wishes(Protocol):
    """Keeps the wish. All methods but `show` may take seconds and are called in a thread, one at a time."""

    def begin(self) -> None:
        """Keep the wish of this start. Raises HostError."""

    def show(self) -> Models:
        """The models that are to be served."""

    def propose(self, change: Mapping[str, Any]) -> Proposal:
        """What a change makes of the wish. Raises any error of ours for one that cannot be, with nothing changed."""

    def prepare(self, models: Models) -> None:
        """Write what `keep` needs. Raises HostError."""

    def keep(self, models: Models) -> None:
        """Make the prepared models the wish, also for the next start. Raises HostError, with the old one kept."""


class NoWishes:
    """A supervisor whose configuration is its surroundings' alone: every change is refused."""

    def begin(self) -> None:
        return

    def show(self) -> Models:
        return []

    def propose(self, change: Mapping[str, Any]) -> Proposal:
        raise ControlError("cannot change what is served: this supervisor keeps no wish")

    def prepare(self, models: Models) -> None:
        return

    def keep(self, models: Models) -> None:
        return
