"""Measures one candidate on a llama-server of its own, inside the memory plan. Processes, HTTP.

A llama-server without gateway and supervisor: they add the same to every candidate.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nemotron_ops.engine.once import started
from nemotron_ops.errors import EngineError, FitError
from nemotron_ops.installation import Installation
from nemotron_ops.measure.generator import calibrate, measure
from nemotron_ops.measure.load import Tokenizer
from nemotron_ops.measure.request import Target
from nemotron_ops.measure.summary import number, summarise
from nemotron_ops.measure.tuning.space import Candidate, Goal
from nemotron_ops.operations.compose import compose
from nemotron_ops.operations.wish import Composed, ModelWish, Wish
from nemotron_ops.progress import remark, silent

LOAD_S = 1800.0  # a large model from a slow disk


@dataclass(kw_only=True)
class Trials:
    """Measures candidates of one recipe; each score is also kept in `log`, with what was measured."""

    recipe: str
    goal: Goal
    here: Installation
    tokenizer: Tokenizer | None = None
    log: list[dict[str, Any]] = field(default_factory=list)

    def score(self, candidate: Candidate, budget: int) -> float | None:
        """The score with `budget` times the goal's requests; None if it does not fit, or does not run."""
        quiet = replace(self.here, report=silent)
        try:
            composed = composed_with(self.recipe, candidate, quiet)
            with target_of(composed) as target:
                self.tokenizer = self.tokenizer or calibrate(target)
                load = replace(self.goal.load, requests=self.goal.load.requests * budget)
                first = replace(load, requests=load.concurrency, answer_tokens=4)
                measure(target, first, tokenizer=self.tokenizer, salt=f"warm {len(self.log)}")  # pages, buffers
                measured = measure(target, load, tokenizer=self.tokenizer, salt=str(len(self.log)))
        except (FitError, EngineError) as exc:
            remark(self.here.report, f"{said(candidate)}: {exc.message}")
            self.log.append({"candidate": dict(candidate), "budget": budget, "error": exc.message})
            return None
        value = number(summarise(measured.samples, measured.wall_s), self.goal.figure)
        self.log.append({"candidate": dict(candidate), "budget": budget, self.goal.figure: value})
        return self.goal.score(value)


def composed_with(recipe: str, candidate: Candidate, here: Installation) -> Composed:
    """What would be served with the candidate's flags. Raises FitError where it does not fit."""
    return compose(Wish(models=(ModelWish(target=recipe, flags=candidate),)), here)


@contextmanager
def target_of(composed: Composed) -> Iterator[Target]:
    """A llama-server with these flags; its log stays with the error."""
    instance, plan = composed.config.instances[0], composed.plans[0]
    settings: Mapping[str, Any] = plan.server
    extra = tuple(settings.get("extra_args", ()))
    own = {k: v for k, v in settings.items() if k != "extra_args"}
    with (
        tempfile.TemporaryDirectory(prefix="nemotron-ops-trial-") as folder,
        started(
            binary=Path(instance.argv[0]), model=Path(instance.files[0]), workdir=Path(folder), settings=own,
            extra=extra, alias=plan.name, ready_timeout_s=LOAD_S,
        ) as client,
    ):  # fmt: skip
        yield Target(url="http://engine/v1", model=plan.name, socket=client.socket, api_key=client.api_key)


def said(candidate: Candidate) -> str:
    """The candidate for people: `threads 2, ubatch_size 256`."""
    return ", ".join(f"{k} {v}" for k, v in candidate.items()) or "the recipe as it is"
