"""What comes after a turn: a table with budgets. Pure.

    the turn said                    then
    nothing whole (cut)              end, incomplete
    calls of hosted tools            run them; then ask again, unless the client has calls of its own to run
    calls of the client's only       end
    no call                          end

A budget that ends makes the response incomplete: it never looks finished.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """Bounds of one request."""

    turns: int = 12
    calls: int = 24
    total_s: float = 600.0
    at_once: int = 4  # calls that run at the same time
    result_share: float = 0.125  # of the context, for one result
    approval_s: float = 120.0  # how long a call waits to be approved


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What one request has used."""

    turns: int = 0
    calls: int = 0


@dataclass(frozen=True, kw_only=True)
class Said:
    """What one turn brought: how many calls of each kind, and why it was cut, if it was."""

    hosted: int = 0
    own: int = 0
    cut: str = ""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What to do: run the hosted calls, then ask again or end. `reason` is set where the end is incomplete."""

    run: bool = False
    ask: bool = False
    reason: str = ""


def after_turn(progress: Progress, said: Said, budgets: Budgets) -> tuple[Progress, Step]:
    """The progress after a turn, and the next step."""
    now = replace(progress, turns=progress.turns + 1)
    if said.cut:
        return now, Step(reason=said.cut)
    if not said.hosted:
        return now, Step()
    if now.calls + said.hosted > budgets.calls:
        return now, Step(reason="max_tool_calls")
    now = replace(now, calls=now.calls + said.hosted)
    if said.own:
        return now, Step(run=True)
    if now.turns >= budgets.turns:
        return now, Step(run=True, reason="max_turns")
    return now, Step(run=True, ask=True)
