"""A whole `optimize`: candidates, rungs, the final, and the text of the recipe. Processes, disk."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemotron_ops.errors import FitError, UsageError
from nemotron_ops.files import write_json
from nemotron_ops.installation import Installation
from nemotron_ops.measure.identity import made_by
from nemotron_ops.measure.tuning import space, written
from nemotron_ops.measure.tuning.halving import Found, halve
from nemotron_ops.measure.tuning.space import Candidate, Goal, Use
from nemotron_ops.measure.tuning.trial import Trials, composed_with, said
from nemotron_ops.progress import Step

MOST = 32  # candidates


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to optimise. `more` are values of further flags that may be tried, by name."""

    recipe: str
    use: Use = Use.CHAT
    minutes: float = 30.0
    more: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    most: int = MOST
    rounds: int = 6


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The candidates for one recipe on this machine, and the goal."""

    candidates: tuple[Candidate, ...]
    goal: Goal
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was found; `comment` is what the recipe says of it."""

    chosen: Candidate
    found: Found
    comment: str
    candidates: tuple[Candidate, ...]
    log: Sequence[Mapping[str, Any]]
    kept: Path


def prepare(wanted: Wanted, here: Installation) -> Prepared:
    """The candidates that fit into memory. Raises what serving raises, UsageError for a target that is no recipe."""
    from nemotron_ops.recipes.load import recipe_files

    if wanted.recipe not in recipe_files(here.layout):
        hint = "write one first, into config/recipes; `nemotron-ops recipes list` shows those that exist"
        raise UsageError(f"cannot optimise {wanted.recipe}: it is no recipe by name", hint=hint)
    composed = composed_with(wanted.recipe, {}, here)
    settings = composed.plans[0].server
    slots = int(settings.get("parallel") or 1)
    goal = space.goal_of(wanted.use, slots=slots, ctx_tokens=composed.config.instances[0].ctx_tokens)
    dims = space.dimensions(here.machine, wanted.use, settings, layers=64)
    named = space.candidates({**dims, **wanted.more}, settings, most=wanted.most)
    fitting = tuple(c for c in named if not c or _fits(wanted.recipe, c, here))
    return Prepared(candidates=fitting, goal=goal, settings=settings)


def optimize(wanted: Wanted, here: Installation) -> Outcome:
    """Measure until the best is found or the minutes are over; changes nothing but the kept log."""
    ready = prepare(wanted, here)
    began = time.monotonic()
    trials = Trials(recipe=wanted.recipe, goal=ready.goal, here=here)
    total = _trials(len(ready.candidates), wanted.rounds)

    def measure(candidate: int, budget: int) -> float | None:
        score = trials.score(ready.candidates[candidate], budget)
        done = len(trials.log)
        here.report(Step(what="trials", done=min(done, total - 1), total=total))
        return score

    rung_s = 60 * wanted.minutes * 0.7  # the rest is for the final
    found = halve(
        len(ready.candidates), measure, rounds=wanted.rounds, enough=lambda: time.monotonic() - began > rung_s
    )
    here.report(Step(what="trials", done=total, total=total))
    chosen = ready.candidates[found.chosen]
    comment = f"optimize {time.strftime('%Y-%m-%d')}, {wanted.use}: {found.gain:+.1%} together, p {found.p:.2g}"
    kept = _keep(wanted, ready, found, trials, here)
    return Outcome(chosen=chosen, found=found, comment=comment, candidates=ready.candidates, log=trials.log, kept=kept)


def write(wanted: Wanted, outcome: Outcome, here: Installation) -> Path | None:
    """Write the user recipe, unless the recipe as it is was best."""
    if not outcome.chosen:
        return None
    return written.write(wanted.recipe, outcome.chosen, outcome.comment, here.layout)


def _fits(recipe: str, candidate: Candidate, here: Installation) -> bool:
    try:
        composed_with(recipe, candidate, here)
    except FitError:
        return False
    return True


def _trials(candidates: int, rounds: int) -> int:
    """How many trials halving makes, about: for progress."""
    total, alive = 0, candidates - 1
    while alive > 2:
        total, alive = total + alive + 3, max(2, -(-alive // 2))
    return total + 3 * rounds


def _keep(wanted: Wanted, ready: Prepared, found: Found, trials: Trials, here: Installation) -> Path:
    name = time.strftime("%Y%m%d-%H%M%S")
    path = here.layout.state / "measure" / "optimize" / "runs" / f"{name}-{wanted.recipe}.json"
    instance = composed_with(wanted.recipe, {}, here).config.instances[0]
    value = {
        "recipe": wanted.recipe, "use": str(wanted.use), "made_by": made_by(instance, here),
        "goal": {"figure": ready.goal.figure, "load": ready.goal.load.as_json()},
        "chosen": dict(ready.candidates[found.chosen]), "gain": found.gain, "p": found.p,
        "final": {said(ready.candidates[c]): s for c, s in found.scores.items()}, "trials": trials.log,
    }  # fmt: skip
    write_json(path, value, mode=0o600)
    return path
