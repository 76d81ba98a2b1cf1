"""`eval` against an oracle that is right a known share of the time: shares, intervals, comparisons. Costs 8 s."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nemotron_ops.errors import EngineError
from nemotron_ops.installation import Installation
from nemotron_ops.measure.bench import Subject
from nemotron_ops.measure.figures import wilson
from nemotron_ops.measure.quality import task_sets
from nemotron_ops.measure.quality.evaluate import Asked, Evaluated, compared, evaluate
from nemotron_ops.measure.quality.item import Item
from nemotron_ops.measure.quality.scores import Judgement
from nemotron_ops.measure.request import Target
from nemotron_ops.paths import user_layout
from tests.fakes.oracle import is_lucky, oracle

pytestmark = pytest.mark.process
WORDS = 300
ASKED = Asked(tasks=tuple(task_sets.TASKS), items=300, seed=4, context_tokens=round(WORDS / 0.9), concurrency=8)


@pytest.fixture(scope="module")
def items() -> dict[str, Item]:
    """All items by prompt; their number of words is what calibration finds, one token per word."""
    found = [i for t in ASKED.tasks for i in task_sets.items_of(t, ASKED.items, ASKED.seed, words=WORDS)]
    return {i.prompt: i for i in found}


def here(folder: Path) -> Installation:
    env = {"NEMOTRON_OPS_HOME": str(folder)}
    return Installation(layout=user_layout(env, uid=os.getuid()), env=env)


def asked_of(items: dict[str, Item], share: float, folder: Path, *, luck: str = "", label: str = "one") -> Evaluated:
    with oracle(items, share, luck=luck) as url:
        return evaluate(Subject(label=label, target=Target(url=url, model="m"), made_by={}), ASKED, here(folder))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_the_share_of_an_oracle_is_found(items: dict[str, Item], share: float, tmp_path: Path) -> None:
    found = asked_of(items, share, tmp_path)
    assert [s.task for s in found.scores] == [
        "arithmetic",
        "tool-use, raw",
        "tool-use, healed",
        "instructions",
        "needles",
    ]
    for score in found.scores:
        task = score.task.partition(",")[0]
        right = sum(is_lucky(i, share) for i in items.values() if i.id.startswith(task))
        assert (score.right, score.asked, score.errors) == (right, 300, 0)
        assert abs(score.share - share) < 0.08


@pytest.mark.parametrize("share", [0.3, 0.8, 0.97])
def test_nineteen_of_twenty_intervals_hold_the_share(items: dict[str, Item], share: float) -> None:
    some = [i for i in items.values() if i.id.startswith("arithmetic")][:200]
    held = 0
    for n in range(400):
        low, high = wilson(sum(is_lucky(i, share, luck=str(n)) for i in some), len(some))
        held += low <= share <= high
    assert held / 400 == pytest.approx(0.95, abs=0.03)


def test_a_model_that_lost_ten_points_is_worse_and_the_same_model_is_not(
    items: dict[str, Item], tmp_path: Path
) -> None:
    good, same, bad = (
        asked_of(items, share, tmp_path, luck="x") for share in (0.9, 0.9, 0.78)  # the coin of an item is the same
    )  # fmt: skip
    assert {d.judgement for d in compared(same, good)} == {Judgement.NO_WORSE}
    worse = {d.task: d for d in compared(bad, good)}
    assert worse["all"].judgement is Judgement.WORSE
    assert worse["all"].low < -0.12 < worse["all"].high
    assert {d.judgement for d in compared(good, bad)} == {Judgement.BETTER}


def test_an_endpoint_that_refuses_is_an_error(tmp_path: Path) -> None:
    subject = Subject(label="one", target=Target(url="http://127.0.0.1:9/v1", model="m"), made_by={})
    asked = Asked(tasks=("arithmetic",), items=3)
    with pytest.raises(EngineError, match="cannot ask m: cannot connect"):
        evaluate(subject, asked, here(tmp_path))
