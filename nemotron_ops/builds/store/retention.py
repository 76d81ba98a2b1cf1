"""Which builds stay and which may go, and why. Pure.

What is never removed by a rule: the current build, the one that `rollback` goes back to, pinned ones, those that were
imported from another machine (they may not be buildable here), and those that a process or a supervisor uses. Beside
these the newest few stay.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from nemotron_ops.builds.store.store import Build


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Ids of builds that something needs."""

    current: str = ""
    previous: str = ""
    pinned: Collection[str] = field(default_factory=frozenset)
    in_use: Collection[str] = field(default_factory=frozenset)


def reason_to_stay(build: Build, needs: Needs) -> str:
    """Why `build` must stay however old it is; empty if nothing needs it."""
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
