"""Judges a new build or quant before it takes over: `bench` and `eval` beside the old one. Processes, HTTP, disk.

Speed: both are measured in turns, and the new one fails where a rank test says that it is slower, or slower than the
baseline that was set by hand while the old one still keeps up with it. Quality: both answer the same items, and the new
one fails where it is worse. Both judgements are those of the commands `bench` and `eval`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from nemotron_ops.installation import Installation
from nemotron_ops.measure import baseline, compare
from nemotron_ops.measure import bench as benching
from nemotron_ops.measure.compare import Change, Verdict
from nemotron_ops.measure.load import Load
from nemotron_ops.measure.quality import run as evaluating
from nemotron_ops.measure.quality import task_sets
from nemotron_ops.measure.quality.evaluate import Asked
from nemotron_ops.measure.quality.scores import Judgement
from nemotron_ops.measure.runs import Run
from nemotron_ops.progress import remark


class Kind(StrEnum):
    BENCH = "bench"
    EVAL = "eval"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What would take over: `recipe` with `build`, in place of `old_recipe` with `old_build`; "" is the current one."""

    recipe: str
    old_recipe: str
    build: str = ""
    old_build: str = ""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How much is measured."""

    load: Load = field(default_factory=lambda: Load(requests=4))
    repeats: int = 8
    items: int = 100
    max_tokens: int = 2048
    context_tokens: int = 2000


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One judgement. `failures` is empty where the candidate may take over; `kept` names what was kept of it."""

    kind: Kind
    recipe: str
    finding: str  # for people, in a line
    failures: tuple[str, ...]
    kept: tuple[str, ...]


def judge(
    kinds: Sequence[Kind], candidates: Sequence[Candidate], trial: Trial, here: Installation
) -> tuple[Judged, ...]:
    """All judgements, up to the first that fails. Raises what `bench` and `eval` raise."""
    found: list[Judged] = []
    for candidate in candidates:
        for kind in kinds:
            judging = of_speed if kind is Kind.BENCH else of_quality
            found.append(judging(candidate, trial, here))
            remark(here.report, f"canary {kind} of {candidate.recipe}: {found[-1].finding}")
            if found[-1].failures:
                return tuple(found)
    return tuple(found)


def of_speed(candidate: Candidate, trial: Trial, here: Installation) -> Judged:
    """Whether the candidate is slower, over interleaved repeats."""
    recipes = tuple(dict.fromkeys((candidate.recipe, candidate.old_recipe)))
    builds = tuple(dict.fromkeys(filter(None, (candidate.build, candidate.old_build))))
    asked = benching.Asked(recipes=recipes, builds=builds, loads=(trial.load,), repeats=trial.repeats)
    new, old = benching.bench(asked, here)
    changes = compare.compare(old.repeats, new.repeats)
    failures = [_words(c, "the old one") for c in compare.slower(changes)]
    failures += _against_baseline(new, old, here)
    if all(c.verdict is Verdict.UNKNOWN for c in changes):
        finding = f"{trial.repeats} repeats are too few for a verdict"
    else:
        finding = "; ".join(failures) or "as fast as the old one, or faster"
    return Judged(
        kind=Kind.BENCH, recipe=candidate.recipe, finding=finding, failures=tuple(failures), kept=(new.id, old.id)
    )


def of_quality(candidate: Candidate, trial: Trial, here: Installation) -> Judged:
    """Whether the candidate answers worse, item by item."""
    asked = Asked(
        tasks=tuple(task_sets.TASKS), items=trial.items, max_tokens=trial.max_tokens,
        context_tokens=trial.context_tokens,
    )  # fmt: skip
    against = candidate.old_build or candidate.old_recipe
    wanted = evaluating.Wanted(recipe=candidate.recipe, build=candidate.build, against=against, asked=asked)
    outcome = evaluating.run(wanted, here)
    worse = [d for d in outcome.differences if d.judgement is Judgement.WORSE]
    failures = tuple(f"{d.task}: {d.difference:+.1%} right answers (p {d.p:.2g})" for d in worse)
    return Judged(
        kind=Kind.EVAL, recipe=candidate.recipe, finding=outcome.recommendation, failures=failures,
        kept=(str(outcome.kept),),
    )  # fmt: skip


def _against_baseline(new: Run, old: Run, here: Installation) -> list[str]:
    """Where the new run is slower than the baseline set by hand and the old run, measured in turns with it, is not."""
    before, now = (baseline.held(here.layout, r, beside=(new, old)) for r in (old, new))
    if now is None or not now.is_set or (before is not None and before.slower):
        return []
    return [_words(c, f"the baseline {now.baseline.id}") for c in now.slower]


def _words(change: Change, than: str) -> str:
    return f"{change.figure} {change.ratio - 1:+.1%} of {than} ({change.load}, p {change.p:.2g})"
