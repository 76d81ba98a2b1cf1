"""Decides which builds are kept and which may be removed, and why. Pure.

Kept always: the current build, the target of `rollback`, pinned builds, builds imported from another machine (this one
may not be able to build them), and builds that a process or a supervisor uses. Besides these the newest few are kept.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from nemotron_ops.builds.store.store import Build


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Ids of builds in need."""

    current: str = ""
    previous: str = ""
    pinned: Collection[str] = field(default_factory=frozenset)
    in_use: Collection[str] = field(default_factory=frozenset)


def reason_to_stay(build: Build, needs: Needs) -> str:
    """Why `build` is kept at any age; empty if nothing needs it."""
    if build.id == needs.current:
        return "current"
    if build.id == needs.previous:
        return "rollback goes back to it"
    if build.id in needs.pinned:
        return "pinned"
    if build.id in needs.in_use:
        return "in use"
    return "imported" if build.imported else ""


def prunable(builds: Sequence[Build], needs: Needs, *, keep: int) -> tuple[Build, ...]:
    """Of `builds` (newest first), those beyond the newest `keep` that nothing needs; none if `keep` is below 0."""
    if keep < 0:
        return ()
    return tuple(b for b in builds[keep:] if not reason_to_stay(b, needs))
