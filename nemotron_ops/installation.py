"""One installation on one machine: folders, environment, facts, report. Looks at the machine on first use.

What builds, downloads or serves needs all four; they travel as one value. `facts` are looked up when they are first
asked for, because some programs are run for that; `machine` is the quick part of them.
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
    """Folders, environment and report of one installation; `known` are facts that need no look at this machine."""

    layout: Layout
    env: Mapping[str, str]
    report: Report = silent
    known: Facts | None = None

    @cached_property
    def facts(self) -> Facts:
        """What this machine is, with its build tools."""
        return self.known or host.probe(self.env)

    @cached_property
    def machine(self) -> Facts:
        """The same without its build tools: memory, processor, GPUs."""
        return self.known or (self.facts if "facts" in self.__dict__ else host.probe(self.env, tools=False))
