"""A whole `eval`: recipe and reference one after the other, each on an endpoint of its own; then what both mean.

One after the other, because quality does not depend on the moment and two models may not fit together. Processes, disk.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from nemotron_ops.engine.env import child_env
from nemotron_ops.errors import BuildError, UsageError
from nemotron_ops.installation import Installation
from nemotron_ops.measure import bench
from nemotron_ops.measure.pictures.chart import Bar, Bars, Panel
from nemotron_ops.measure.quality import evaluate as evaluating
from nemotron_ops.measure.quality import perplexity as perplexing
from nemotron_ops.measure.quality import scores
from nemotron_ops.measure.quality.evaluate import Asked, Evaluated
from nemotron_ops.measure.quality.lm_harness import HarnessScore, run_tasks
from nemotron_ops.measure.quality.perplexity import Divergence, Perplexity
from nemotron_ops.measure.quality.scores import Difference, Judgement

HARD = 0.05  # share of right answers below which a task cannot show a loss


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What `eval` was asked for. `against` is a recipe or a build; `text` None is the text that Python carries.

    `build` serves the recipe in place of the current one.
    """

    recipe: str = ""
    build: str = ""
    against: str = ""
    url: str = ""
    model: str = ""
    api_key: str = field(default="", repr=False)
    asked: Asked
    margin: float = scores.MARGIN
    perplexity: bool = False
    text: Path | None = None
    chunks: int = 8
    context: int = 512
    harness: tuple[str, ...] = ()
    harness_include: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The models in order (recipe, reference), what separates them, and texts' numbers where they were asked for."""

    models: tuple[Evaluated, ...]
    differences: tuple[Difference, ...]
    perplexities: tuple[Perplexity, ...]
    divergence: Divergence | None
    harness: tuple[tuple[HarnessScore, ...], ...]
    kept: Path

    @property
    def recommendation(self) -> str:
        """Whether the first model can take the place of the reference, in a sentence; "" without a reference."""
        return recommendation(self.models, self.differences, self.divergence) if self.differences else ""


def run(wanted: Wanted, here: Installation) -> Outcome:
    """Evaluate, compare, keep. Raises what serving raises, and EngineError."""
    sides = sides_of(wanted, here)
    if wanted.perplexity and wanted.url:
        raise UsageError("cannot measure perplexity at --url: llama-perplexity reads the model's file")
    models, harness = [], []
    for side in sides:
        with ExitStack() as stack:
            (subject,) = bench.subjects_of(side, here, stack)[:1]
            models.append(evaluating.evaluate(subject, wanted.asked, here))
            if wanted.harness:
                limit, seed = wanted.asked.items, wanted.asked.seed
                found = run_tasks(subject.target, wanted.harness, here, limit=limit, seed=seed,
                                  include=wanted.harness_include)  # fmt: skip
                harness.append(found)
    differences = evaluating.compared(models[0], models[1], margin=wanted.margin) if len(models) > 1 else ()
    perplexities, divergence = _texts(wanted, sides, here) if wanted.perplexity else ((), None)
    more: dict[str, Any] = {
        "perplexity": [p.as_json() for p in perplexities],
        "divergence": divergence.as_json() if divergence else None,
        "harness": [[vars(s) for s in found] for found in harness],
        "differences": [vars(d) for d in differences],
    }
    kept = evaluating.keep(here, wanted.asked, models, more)
    return Outcome(
        models=tuple(models), differences=differences, perplexities=perplexities, divergence=divergence,
        harness=tuple(harness), kept=kept,
    )  # fmt: skip


def sides_of(wanted: Wanted, here: Installation) -> tuple[bench.Asked, ...]:
    """The recipe, and the reference if there is one: another recipe, or the same with another build."""
    if not wanted.recipe:
        if wanted.against:
            raise UsageError("cannot compare: name the recipe that is compared with --against")
        return (bench.Asked(url=wanted.url, model=wanted.model, api_key=wanted.api_key),)
    builds = (wanted.build,) if wanted.build else ()
    one = bench.Asked(recipes=(wanted.recipe,), builds=builds, url=wanted.url)
    if not wanted.against:
        return (one,)
    if is_build(wanted.against, here):
        return (one, bench.Asked(recipes=(wanted.recipe,), builds=(wanted.against,)))
    return (one, bench.Asked(recipes=(wanted.against,)))


def is_build(name: str, here: Installation) -> bool:
    """Whether the store has a build of this name, rather than there being a recipe of it."""
    from nemotron_ops.builds.store import store
    from nemotron_ops.recipes.load import recipe_files

    if name in recipe_files(here.layout):
        return False
    try:
        store.find(here.layout, name)
    except BuildError:
        return False
    return True


def recommendation(
    models: Sequence[Evaluated], differences: Sequence[Difference], divergence: Divergence | None
) -> str:
    """In a sentence, whether the first model is good enough in place of the second."""
    one, other = models[0].label, models[1].label
    worse = [d for d in differences if d.judgement is Judgement.WORSE]
    opened = [d for d in differences if d.judgement is Judgement.OPEN]
    tokens = f"; both have the same likeliest token at {divergence.same_top:.1%} of positions" if divergence else ""
    if all(s.share < HARD for s in models[1].scores):
        return f"these tasks tell nothing: {other} solves hardly any of them{tokens}"
    if worse:
        least = min(worse, key=lambda d: d.difference)
        return f"{one} is worse than {other}: {least.task} {least.difference:+.1%}{tokens}"
    if opened:
        needed = max(d.needed for d in opened)
        return f"not settled between {one} and {other}: about {needed} items of each task would do (--items){tokens}"
    return f"{one} is good enough in place of {other} for these tasks{tokens}"


def chart(models: Sequence[Evaluated]) -> Bars:
    """Share of right answers per task, a bar for each model, with its interval."""
    tasks = list(dict.fromkeys(t for m in models for t in m.grades))
    panels = []
    for task in tasks:
        bars = []
        for model in models:
            for score in model.scores:
                if score.task == task:
                    low, high = score.interval
                    bars.append(Bar(name=model.label, value=score.share, low=low, high=high))
        panels.append(Panel(title=task, bars=tuple(bars)))
    return Bars(name="quality", title="Share of right answers, with 95 % intervals", panels=tuple(panels), largest=1.0)


def _texts(
    wanted: Wanted, sides: Sequence[bench.Asked], here: Installation
) -> tuple[tuple[Perplexity, ...], Divergence | None]:
    """Perplexity of each side, and the divergence of the first from the second."""
    subjects = [_subject(side, here) for side in sides]
    with tempfile.TemporaryDirectory(prefix="nemotron-ops-text-") as folder:
        text = wanted.text or _python_text(Path(folder))
        settings: dict[str, Any] = {
            "chunks": wanted.chunks,
            "context": wanted.context,
            "env": child_env(here.env, home=Path(folder)),
            "report": here.report,
        }
        perplexities = tuple(perplexing.perplexity(s, text, **settings) for s in subjects)
        divergence = perplexing.divergence(subjects[0], subjects[1], text, **settings) if len(subjects) > 1 else None
    return perplexities, divergence


def _subject(side: bench.Asked, here: Installation) -> perplexing.Subject:
    from nemotron_ops.builds.store import store
    from nemotron_ops.operations.compose import compose
    from nemotron_ops.operations.further_programs import have_program
    from nemotron_ops.operations.wish import ModelWish, Wish

    composed = compose(Wish(models=(ModelWish(target=side.recipes[0]),)), here)
    instance = composed.config.instances[0]
    build = store.find(here.layout, side.builds[0] if side.builds else instance.build)
    keep = {"--threads", "--n-gpu-layers", "--n-cpu-moe", "--device", "--split-mode", "--tensor-split", "--main-gpu"}
    words = list(instance.argv)
    flags = [w for name, value in pairwise(words) if name in keep for w in (name, value)]
    return perplexing.Subject(
        program=have_program(build, "llama-perplexity", here), model=Path(instance.files[0]), flags=flags
    )


def _python_text(folder: Path) -> Path:
    """700 kB of English prose that every Python carries: the pages of its language reference."""
    from pydoc_data.topics import topics

    path = folder / "text.txt"
    path.write_text("\n".join(topics[name] for name in sorted(topics)), encoding="utf-8")
    assert os.path.getsize(path) > 100_000
    return path
