"""Holds `optimize` against an exhaustive grid, on a model whose weights do not fit into the CPU's caches. Processes.

Makes a mixture of experts of some hundred MB (its weights are zeros: they cost the same time), lets `optimize` choose,
then measures every candidate in interleaved rounds and prints how far the choice is from the best of them.

    python -m benchmarks.optimize --part choose     writes what was chosen to FOLDER/chosen.json
    python -m benchmarks.optimize --part grid       measures the grid, a row per candidate
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path

from benchmarks.heavy_model import heavy_recipe
from nemotron_ops.installation import Installation
from nemotron_ops.measure.tuning import optimize as optimising
from nemotron_ops.measure.tuning.trial import Trials, said
from nemotron_ops.paths import user_layout
from nemotron_ops.ui import Ui


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["choose", "grid"], required=True)
    parser.add_argument("--folder", type=Path, default=Path("build/optimize"))
    parser.add_argument("--most", type=int, default=16, help="candidates")
    parser.add_argument("--rounds", type=int, default=3, help="of the grid")
    given = parser.parse_args()
    folder: Path = given.folder.absolute()
    env = dict(os.environ)
    layout = user_layout({**env, "NEMOTRON_OPS_STATE": str(folder / "state")}, uid=os.getuid())
    with heavy_recipe("zeros-of-a-benchmark", folder, layout) as name:
        here = Installation(layout=layout, env=env, report=Ui().report)
        wanted = optimising.Wanted(recipe=name, most=given.most, minutes=4, rounds=5)
        choose(wanted, here, folder) if given.part == "choose" else grid(wanted, here, folder, given.rounds)


def choose(wanted: optimising.Wanted, here: Installation, folder: Path) -> None:
    outcome = optimising.optimize(wanted, here)
    chosen = {"chosen": dict(outcome.chosen), "gain": outcome.found.gain, "p": outcome.found.p}
    (folder / "chosen.json").write_text(json.dumps(chosen))
    trials = len(outcome.log)
    sys.stdout.write(f"chosen after {trials} trials: {said(outcome.chosen)}, {outcome.found.gain:+.1%}\n")


def grid(wanted: optimising.Wanted, here: Installation, folder: Path, rounds: int) -> None:
    chosen = json.loads((folder / "chosen.json").read_text())["chosen"]
    ready = optimising.prepare(wanted, here)
    trials = Trials(recipe=wanted.recipe, goal=ready.goal, here=here)
    scores: dict[int, list[float]] = {i: [] for i in range(len(ready.candidates))}
    for _ in range(rounds):
        for i, candidate in enumerate(ready.candidates):  # interleaved
            if (score := trials.score(candidate, 2)) is not None:
                scores[i].append(score)
    medians = {i: statistics.median(s) for i, s in scores.items() if s}
    best = max(medians, key=lambda i: medians[i])
    for i in sorted(medians, key=lambda i: -medians[i]):
        mark = "*" if dict(ready.candidates[i]) == chosen else " "
        sys.stdout.write(f"{mark} {1000 / medians[i]:7.1f} ms  {said(ready.candidates[i])}\n")
    own = next(i for i, c in enumerate(ready.candidates) if dict(c) == chosen)
    sys.stdout.write(f"the choice is {1 - medians[own] / medians[best]:.1%} below the best of the grid\n")
    sys.stdout.write(f"the recipe as it is: {1 - medians[0] / medians[best]:.1%} below\n")


if __name__ == "__main__":
    main()
