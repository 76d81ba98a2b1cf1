"""A build whose source is known exactly, and its plan on this machine. Disk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from nemotron_ops.builds.plan import BuildPlan, plan
from nemotron_ops.builds.source import source
from nemotron_ops.builds.source.source import Sources
from nemotron_ops.builds.spec import BuildOptions, Source
from nemotron_ops.builds.store import build_lock, store
from nemotron_ops.installation import Installation


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A plan whose source is known exactly.

    `notes` name the sources that failed before, and why; `known_bugs` are those of this llama.cpp on this machine.
    """

    plan: BuildPlan
    installation: Installation
    notes: tuple[str, ...] = ()
    known_bugs: tuple[str, ...] = ()

    @property
    def tree(self) -> Path:
        """The folder of the source's files."""
        return source.tree_path(self.plan.source, Sources(installation=self.installation))


def planned(options: BuildOptions, exact: Source, installation: Installation) -> BuildPlan:
    """The plan for `options`, with the fixes that earlier self-tests on this machine have requested."""
    layout, facts, env = installation.layout, installation.facts, installation.env
    busy = build_lock.count_building(layout)

    def with_options(options: BuildOptions) -> BuildPlan:
        return plan(options, facts=facts, source=exact, toolchains=layout.toolchains, env=env, busy=busy)

    first = with_options(options)
    needed = store.fixes_needed(layout, first.id)
    return with_options(replace(options, fixes=options.fixes | needed)) if needed else first
