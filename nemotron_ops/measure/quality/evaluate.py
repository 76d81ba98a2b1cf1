"""`eval`: asks a model all items of the tasks, grades the answers, keeps the scores; compares two models. HTTP, disk.

Two models answer the same items, so their grades are compared item by item. Tool calls are asked twice: as the model
wrote them, and healed by the gateway. A server that knows no healing answers the same both times.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nemotron_ops.files import write_json
from nemotron_ops.installation import Installation
from nemotron_ops.measure.bench import Subject
from nemotron_ops.measure.generator import calibrate
from nemotron_ops.measure.quality import scores, task_sets
from nemotron_ops.measure.quality.asking import ask_all
from nemotron_ops.measure.quality.grading import is_right
from nemotron_ops.measure.quality.item import Answer, Item
from nemotron_ops.measure.quality.scores import Difference, Score

WORDS_SHARE = 0.9  # of the tokens that needles may have; the rest is for facts and question


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What to ask: tasks, items of each, and how."""

    tasks: tuple[str, ...]
    items: int = 200
    seed: int = 1
    context_tokens: int = 2000  # length of the texts of needles
    concurrency: int = 4
    thinking: bool | None = None
    max_tokens: int = 2048

    @property
    def fields(self) -> dict[str, Any]:
        """Fields of each request: greedy, so that the same model says the same again."""
        found: dict[str, Any] = {"temperature": 0, "seed": self.seed, "max_tokens": self.max_tokens}
        if self.thinking is not None:
            found["chat_template_kwargs"] = {"enable_thinking": self.thinking}
        return found


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """One model's grades by task and item, and its answers."""

    label: str
    made_by: Mapping[str, Any]
    grades: Mapping[str, tuple[bool, ...]]
    errors: Mapping[str, int]
    answers: Mapping[str, tuple[Answer, ...]] = field(default_factory=dict)

    @property
    def scores(self) -> tuple[Score, ...]:
        return tuple(Score(task=t, right=sum(g), asked=len(g), errors=self.errors[t]) for t, g in self.grades.items())


def evaluate(subject: Subject, asked: Asked, here: Installation) -> Evaluated:
    """Ask and grade. Raises EngineError where nothing answers."""
    words = 0
    if "needles" in asked.tasks:
        words = calibrate(subject.target).words_for(round(asked.context_tokens * WORDS_SHARE))
    grades: dict[str, tuple[bool, ...]] = {}
    answers: dict[str, tuple[Answer, ...]] = {}
    for task in asked.tasks:
        items = task_sets.items_of(task, asked.items, asked.seed, words=words)
        for name, heal in (
            (("tool-use, raw", "off"), ("tool-use, healed", "safe")) if task == "tool-use" else ((task, ""),)
        ):
            what = f"{subject.label} · {name}"
            answers[name] = ask_all(
                subject.target, items, concurrency=asked.concurrency, fields=asked.fields, heal=heal,
                report=here.report, what=what,
            )  # fmt: skip
            grades[name] = graded(items, answers[name])
    errors = {name: sum(bool(a.error) for a in found) for name, found in answers.items()}
    return Evaluated(label=subject.label, made_by=subject.made_by, grades=grades, errors=errors, answers=answers)


def graded(items: Sequence[Item], answers: Sequence[Answer]) -> tuple[bool, ...]:
    return tuple(is_right(item, answer) for item, answer in zip(items, answers, strict=True))


def compared(one: Evaluated, reference: Evaluated, *, margin: float = scores.MARGIN) -> tuple[Difference, ...]:
    """`one` against the `reference`, task by task; last all tasks together, tool calls as they are healed."""
    tasks = [t for t in one.grades if t in reference.grades]
    found = [scores.difference(t, one.grades[t], reference.grades[t], margin=margin) for t in tasks]
    counted = [t for t in tasks if t != "tool-use, raw"]
    if len(counted) > 1:
        all_of = [[g for t in counted for g in e.grades[t]] for e in (one, reference)]
        found.append(scores.difference("all", *all_of, margin=margin))
    return tuple(found)


def keep(here: Installation, asked: Asked, found: Sequence[Evaluated], more: Mapping[str, Any]) -> Path:
    """Write grades, wrong answers and what made them to `state/measure/eval/TIME.json`; returns the file."""
    at_s = time.time()
    name = time.strftime("%Y%m%d-%H%M%S", time.localtime(at_s))
    path = here.layout.state / "measure" / "eval" / f"{name}.json"
    n = 1
    while path.exists():
        n += 1
        path = path.with_name(f"{name}.{n}.json")
    write_json(path, {"at_s": at_s, "asked": asdict(asked), "models": [value_of(e) for e in found], **more}, mode=0o600)
    return path


def value_of(found: Evaluated) -> dict[str, Any]:
    """Scores, intervals and grades as plain values."""
    return {
        "label": found.label,
        "made_by": json.loads(json.dumps(found.made_by, default=str)),
        "scores": [{**asdict(s), "share": s.share, "interval": list(s.interval)} for s in found.scores],
        "grades": {task: "".join("x" if g else "." for g in grades) for task, grades in found.grades.items()},
        "wrong": {
            task: [
                {"item": n, "content": a.content[:500], "calls": [asdict(c) for c in a.calls], "error": a.error,
                 "finish_reason": a.finish_reason}
                for n, (a, g) in enumerate(zip(found.answers[task], grades, strict=True)) if not g
            ][:20]
            for task, grades in found.grades.items() if task in found.answers
        },
    }  # fmt: skip
