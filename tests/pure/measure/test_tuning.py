"""Candidates, successive halving on landscapes that are known, and the text of the recipe."""

from __future__ import annotations

import os
import random
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from nemotron_ops.errors import RecipeError, UsageError
from nemotron_ops.host.facts import Facts, Gpu
from nemotron_ops.measure.tuning import written
from nemotron_ops.measure.tuning.edit import with_server
from nemotron_ops.measure.tuning.halving import halve
from nemotron_ops.measure.tuning.space import Use, candidates, dimensions, goal_of
from nemotron_ops.paths import Layout
from nemotron_ops.recipes.load import load_recipe

CPU = Facts(system="Linux", machine="x86_64", cores=8)
GPU = Facts(system="Linux", machine="x86_64", cores=16, gpus=(Gpu(index=0, kind="cuda", name="H200"),))


def test_the_recipe_as_it_is_comes_first_and_single_changes_before_combinations() -> None:
    found = candidates(dimensions(CPU, Use.CHAT, {}, layers=52), {}, most=500)
    assert found[0] == {}
    assert [len(c) for c in found] == sorted(len(c) for c in found)
    assert {"threads": 4} in found
    assert {"threads": 4, "ubatch_size": 256, "flash_attn": "off", "threads_batch": 8} in found
    assert len(found) == len({tuple(sorted(c.items())) for c in found})


def test_a_value_that_is_in_force_already_is_no_candidate() -> None:
    dims = {"threads": [1, 2], "ubatch_size": [256, 512]}
    assert candidates(dims, {"threads": 1}, most=99) == (
        {}, {"ubatch_size": 256}, {"threads": 2}, {"threads": 2, "ubatch_size": 256},
    )  # fmt: skip


def test_what_is_tried_depends_on_the_machine_and_on_the_use() -> None:
    assert "threads" not in dimensions(GPU, Use.CHAT, {}, layers=52)
    assert dimensions(GPU, Use.CHAT, {"n_cpu_moe": 10}, layers=52)["n_cpu_moe"] == [8, 9, 10, 11]
    assert dimensions(CPU, Use.BATCH, {"parallel": 4}, layers=52)["parallel"] == [4, 8]
    assert not any(k.startswith("cache_type") for use in Use for k in dimensions(GPU, use, {}, layers=52))


@pytest.mark.parametrize("use", Use)
@pytest.mark.parametrize("ctx", [256, 4096, 262_144])
def test_the_load_of_a_use_fits_the_context(use: Use, ctx: int) -> None:
    goal = goal_of(use, slots=4, ctx_tokens=ctx)
    at_once = goal.load.concurrency if use is Use.BATCH else 1
    assert at_once * (goal.load.prompt_tokens + goal.load.answer_tokens) <= ctx
    assert goal.score(2.0) > goal.score(1.0) if goal.more_is_better else goal.score(1.0) > goal.score(2.0)


def landscape(
    draws: random.Random, count: int, *, noise: float, drift: float
) -> tuple[list[float], Callable[..., float]]:
    """True scores of candidates, and their measurement: noisy, on a machine that grows slower."""
    true = [100 * draws.gauss(1, 0.15) for _ in range(count)]
    asked = [0]

    def measure(candidate: int, budget: int) -> float:
        asked[0] += 1
        return true[candidate] * draws.gauss(1, noise / budget**0.5) * (1 - drift * asked[0])

    return true, measure


def test_the_choice_is_within_three_percent_of_the_best_of_the_grid() -> None:
    draws = random.Random(1)
    near = 0
    for _ in range(200):
        true, measure = landscape(draws, 24, noise=0.03, drift=0.001)
        near += true[halve(24, measure).chosen] >= 0.97 * max(true)
    print(f"within 3 % of the best: {near / 200:.1%}")
    assert near >= 190


def test_noise_alone_seldom_replaces_the_recipe_and_never_by_much() -> None:
    draws = random.Random(2)
    replaced = 0
    for _ in range(200):
        found = halve(24, lambda c, b: 100 * draws.gauss(1, 0.03 / b**0.5))
        replaced += found.chosen != 0
    print(f"replaced although nothing is faster: {replaced / 200:.1%}")
    assert replaced <= 20


def test_the_choice_is_never_slower_than_the_recipe() -> None:
    draws = random.Random(3)
    for _ in range(200):
        true, measure = landscape(draws, 12, noise=0.02, drift=0.0)
        assert true[halve(12, measure).chosen] >= 0.99 * true[0]


def test_candidates_that_do_not_run_are_out_and_named() -> None:
    def measure(candidate: int, budget: int) -> float | None:
        return None if candidate in (3, 5) else 100 + candidate * 10

    found = halve(7, measure)
    assert found.failed == (3, 5)
    assert found.chosen == 6
    assert found.gain == pytest.approx(0.6)


def test_when_time_is_up_the_final_is_held_with_the_first_ones() -> None:
    asked = []

    def measure(candidate: int, budget: int) -> float:
        asked.append(candidate)
        return 1.0

    found = halve(50, measure, enough=lambda: True)
    assert set(asked) == {0, 1, 2}
    assert found.chosen == 0


RECIPE = """title = "x"  # a comment
[model]
synthetic = "moe"

[server]
threads = 1                                        # 1 MB of weights
parallel = 4

[profiles.chat.server]
threads = 9
"""


def test_keys_of_the_server_table_change_and_all_else_stays() -> None:
    text = with_server(RECIPE, {"threads": 2, "flash_attn": "off"}, "optimize: +10 %")
    assert tomllib.loads(text)["server"] == {"threads": 2, "parallel": 4, "flash_attn": "off"}
    assert tomllib.loads(text)["profiles"]["chat"]["server"] == {"threads": 9}
    assert "# optimize: +10 %; was 1" in text
    assert set(RECIPE.splitlines()) - set(text.splitlines()) == {RECIPE.splitlines()[5]}


def test_a_recipe_without_the_table_gets_one() -> None:
    assert tomllib.loads(with_server('title = "x"\n', {"threads": 2}, "y"))["server"] == {"threads": 2}


def test_undo_puts_back_what_was_before_the_first_optimize(layout: Layout) -> None:
    path = layout.user_recipes / "tiny.toml"
    written.write("tiny", {"threads": 2}, "one", layout)
    written.write("tiny", {"threads": 3}, "two", layout)
    assert load_recipe("tiny", layout).server.threads == 3
    assert written.undo("tiny", layout) is None  # the shipped one
    assert not path.exists()
    with pytest.raises(UsageError, match="has written no recipe tiny"):
        written.undo("tiny", layout)


def test_undo_restores_a_users_own_recipe_to_the_byte(layout: Layout) -> None:
    path = layout.user_recipes / "mine.toml"
    path.parent.mkdir(parents=True)
    path.write_text(RECIPE)
    assert written.write("mine", {"threads": 2}, "one", layout) == path
    assert written.undo("mine", layout) == path
    assert path.read_text() == RECIPE


def test_undo_refuses_a_recipe_that_was_changed_by_hand(layout: Layout) -> None:
    path = written.write("tiny", {"threads": 2}, "one", layout)
    path.write_text(path.read_text() + "# mine\n")
    with pytest.raises(RecipeError, match="was changed since"):
        written.undo("tiny", layout)
    assert path.exists()


def test_a_kill_between_both_writes_loses_nothing(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path, text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(written, "write_atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        written.write("tiny", {"threads": 2}, "one", layout)
    monkeypatch.undo()
    assert load_recipe("tiny", layout).server.threads == 1
    assert written.undo("tiny", layout) is None
    assert os.listdir(layout.state / "measure" / "optimize") == []
