r"""Holds `bench` against two independent load generators, llama-benchy and guidellm, on one endpoint. Processes, HTTP.

All measure the same endpoint in turns, one request at a time, with prompts and answers of the same number of tokens and
no prompt cache: a model of some hundred MB through the whole product (`--heavy`), another recipe, or with `--timed` an
engine that streams at known moments and needs hardly any processor. Prints a table: medians over the turns, by how much
`bench` differs, and the 95 % interval of that from the turns.

    python -m venv /tmp/benchy && /tmp/benchy/bin/pip install llama-benchy
    python -m venv /tmp/guide && /tmp/guide/bin/pip install guidellm
    nice -n -15 python -m benchmarks.agreement --heavy \
        --llama-benchy /tmp/benchy/bin/llama-benchy --guidellm /tmp/guide/bin/guidellm
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import httpx

from benchmarks.heavy_model import heavy_recipe
from benchmarks.other_generators import PROMPT, SPEED, TTFT, Figures, Turn, guidellm, llama_benchy
from nemotron_ops.installation import Installation
from nemotron_ops.measure import load as loads
from nemotron_ops.measure.endpoint import started
from nemotron_ops.measure.generator import calibrate, measure
from nemotron_ops.measure.load import Load, Tokenizer
from nemotron_ops.measure.request import Target
from nemotron_ops.measure.summary import summarise
from nemotron_ops.paths import user_layout
from nemotron_ops.ui import Ui

COUNTER = "nemotron_ops_tokens_total{"
NO_CACHE = 'extra_args = ["--no-cache-prompt"]\n'
Run = Callable[[Turn], Figures]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-benchy", type=Path)
    parser.add_argument("--guidellm", type=Path)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--recipe")
    what.add_argument("--heavy", action="store_true", help="a model of 250 MB that is made in --folder")
    what.add_argument("--timed", action="store_true", help="the engine of the tests instead of a recipe")
    parser.add_argument("--folder", type=Path, default=Path("build/agreement"))
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--answer", type=int, default=64)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--requests", type=int, default=8, help="in each turn")
    given = parser.parse_args()
    if given.timed and given.guidellm:
        parser.error("guidellm does not come to its end with the engine of --timed, which only answers chat requests")
    others: dict[str, Run] = {}
    if given.llama_benchy:
        others["llama-benchy"] = partial(llama_benchy, given.llama_benchy)
    if given.guidellm:
        others["guidellm"] = partial(guidellm, given.guidellm)
    with tempfile.TemporaryDirectory() as name, endpoint(given, Path(name)) as target:
        show(measured(given, target, others, Path(name)))


@contextmanager
def endpoint(given: argparse.Namespace, folder: Path) -> Iterator[Target]:
    """The endpoint that is measured, ready."""
    env = dict(os.environ)
    here = Installation(layout=user_layout(env, uid=os.getuid()), env=env, report=Ui().report)
    with ExitStack() as stack:
        if given.timed:
            yield timed(folder, stack)
            return
        recipe = given.recipe
        if given.heavy:
            made = heavy_recipe(
                "zeros-of-agreement", given.folder.absolute(), here.layout, context=1024, extra=NO_CACHE
            )
            recipe = stack.enter_context(made)
        found = stack.enter_context(started((recipe,), here))
        yield Target(url=found.url, model=found.composed.plans[0].name)


def timed(folder: Path, stack: ExitStack) -> Target:
    """An engine that sends the first token after 50 ms and one each 10 ms from then on."""
    argv = [sys.executable, "-m", "tests.fakes.timed_engine", str(folder), "0.05", "0.01", "64"]
    child = stack.enter_context(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
    stack.callback(child.kill)
    assert child.stdout is not None
    port = child.stdout.readline().split()[1]
    return Target(url=f"http://127.0.0.1:{port}/v1", model="timed")


def measured(
    given: argparse.Namespace, target: Target, others: dict[str, Run], folder: Path
) -> dict[str, list[Figures]]:
    """The figures of all generators, turn by turn; who begins changes with the turn."""
    tokenizer = calibrate(target)
    length = given.prompt
    if "llama-benchy" in others and not given.timed:  # its prompts have other lengths than it was asked for
        turn = turn_of(given, target, tokenizer, given.prompt, folder, 0)
        length = round(counted(others["llama-benchy"], turn)[PROMPT])
    sides: dict[str, Run] = {"bench": partial(ours, tokenizer), **others}
    found: dict[str, list[Figures]] = {name: [] for name in sides}
    for number in range(1, given.turns + 1):
        names = list(sides)
        names = names[number % len(names) :] + names[: number % len(names)]
        for name in names:
            asked = given.prompt if name == "llama-benchy" else length
            turn = turn_of(given, target, tokenizer, asked, folder, number)
            found[name].append(sides[name](turn) if given.timed else counted(sides[name], turn))
    return found


def turn_of(
    given: argparse.Namespace, target: Target, tokenizer: Tokenizer, length: int, folder: Path, number: int
) -> Turn:
    load = Load(requests=given.requests, prompt_tokens=length, answer_tokens=given.answer)
    prompts = [loads.prompt(load, n, tokenizer, f"turn {number}") for n in range(given.requests)]
    return Turn(target=target, prompts=prompts, prompt_tokens=length, answer_tokens=given.answer, folder=folder)


def ours(tokenizer: Tokenizer, turn: Turn) -> Figures:
    """`bench`'s figures, as medians over the requests."""
    load = Load(requests=len(turn.prompts), prompt_tokens=turn.prompt_tokens, answer_tokens=turn.answer_tokens)
    done = measure(turn.target, load, tokenizer=tokenizer, salt=os.urandom(8).hex())
    found = summarise(done.samples, done.wall_s)
    return {TTFT: 1000 * found["ttft_s"]["p50"], SPEED: found["request_tokens_per_s"]["p50"]}


def counted(run: Run, turn: Turn) -> Figures:
    """The figures of a run, with the prompt tokens of a request as the gateway has counted them."""
    before = prompt_tokens(turn.target.url)
    found = run(turn)
    return {**found, PROMPT: (prompt_tokens(turn.target.url) - before) / len(turn.prompts)}


def prompt_tokens(url: str) -> float:
    """All prompt tokens that the gateway has counted so far."""
    text = httpx.get(url.removesuffix("/v1") + "/metrics", trust_env=False).text
    lines = [line for line in text.splitlines() if line.startswith(COUNTER) and 'kind="prompt"' in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def show(found: dict[str, list[Figures]]) -> None:
    """A row for each figure and other generator."""
    sys.stdout.write(
        "| figure | bench | other | its value | bench differs by | 95 % interval |\n|---|---|---|---|---|---|\n"
    )
    own = found.pop("bench")
    for figure in (TTFT, SPEED, PROMPT):
        for name, turns in found.items():
            a, b = ([t[figure] for t in side if figure in t] for side in (own, turns))
            if a and b:
                shift, half = difference(a, b)
                row = [figure, f"{statistics.median(a):.2f}", name, f"{statistics.median(b):.2f}"]
                row += [f"{shift:+.1%}", f"{shift - half:+.1%} to {shift + half:+.1%}"]
                sys.stdout.write(f"| {' | '.join(row)} |\n")


def difference(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """The mean difference of turns that follow each other, relative, and half its 95 % interval (normal)."""
    ratios = [math.log(x / y) for x, y in zip(a, b, strict=True)]
    half = 1.96 * statistics.stdev(ratios) / math.sqrt(len(ratios)) if len(ratios) > 1 else math.nan
    return math.expm1(statistics.median(ratios)), half


if __name__ == "__main__":
    main()
