"""One installation on one machine: folders, environment, facts, report. Probes the machine on first use.

Building, fetching and serving need all four, so they are one value. `facts` are probed on first use, because that runs
programs; `machine` is the quick part of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from nemotron_ops import host
from nemotron_ops.host import Facts
from nemotron_ops.paths import Layout
from nemotron_ops.progress import Report, silent


@dataclass(frozen=True, kw_only=True)
class Installation:
    """Folders, environment and report of one installation; `known` facts replace the probe."""

    layout: Layout
    env: Mapping[str, str]
    report: Report = silent
    known: Facts | None = None

    @cached_property
    def facts(self) -> Facts:
        """The facts of this machine, with its build tools."""
        return self.known or host.probe(self.env)

    @cached_property
    def machine(self) -> Facts:
        """The facts without build tools: memory, processor, GPUs."""
        return self.known or (self.facts if "facts" in self.__dict__ else host.probe(self.env, tools=False))
