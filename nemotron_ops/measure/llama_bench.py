"""The same model and flags by llama.cpp's own llama-bench: the engine without server, queue and chat. Subprocess.

It reads a prompt of random tokens, and generates after one: one sequence at a time, whatever the load's concurrency.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from nemotron_ops import proc
from nemotron_ops.builds.store import store
from nemotron_ops.engine.env import child_env
from nemotron_ops.errors import EngineError
from nemotron_ops.installation import Installation
from nemotron_ops.measure.load import Load
from nemotron_ops.operations.compose import compose
from nemotron_ops.operations.further_programs import have_program
from nemotron_ops.operations.wish import ModelWish, Wish
from nemotron_ops.progress import remark

SAME = {
    *("--threads", "--batch-size", "--ubatch-size", "--cache-type-k", "--cache-type-v", "--n-cpu-moe"),
    *("--split-mode", "--main-gpu", "--flash-attn", "--prio"),
}
LISTS = {"--device", "--tensor-split"}  # llama-server's commas are slashes here: a comma makes two tests
PROMPT, ANSWER = "llama_bench_prompt_per_s", "llama_bench_tokens_per_s"


@dataclass(frozen=True, kw_only=True)
class Alone:
    """One model file with llama-bench of its build, and the flags that are llama-server's, too."""

    program: Path
    model: Path
    flags: tuple[str, ...]


def of_recipe(recipe: str, build: str, here: Installation) -> Alone:
    """What `serve` would run, for llama-bench, which is compiled if the build lacks it. Raises what serving raises."""
    composed = compose(Wish(models=(ModelWish(target=recipe),)), here)
    instance = composed.config.instances[0]
    program = have_program(store.find(here.layout, build or instance.build), "llama-bench", here)
    return Alone(program=program, model=Path(instance.files[0]), flags=flags_of(instance.argv))


def flags_of(argv: Sequence[str]) -> tuple[str, ...]:
    """Those of llama-server's flags that llama-bench has, as it spells them."""
    found: list[str] = []
    for name, value in pairwise(argv):
        if name in SAME:
            found += [name, value]
        elif name in LISTS:
            found += [name, value.replace(",", "/")]
        elif name == "--n-gpu-layers" and value.isdigit():  # `all` is its default
            found += [name, value]
    return tuple(found)


def speeds(alone: Alone, loads: Sequence[Load], repeats: int, here: Installation) -> dict[str, dict[str, float]]:
    """Prompt and generation speed for each load, by its name: tokens per second, means of the repeats. EngineError."""
    found: dict[str, dict[str, float]] = {}
    known: dict[tuple[int, int], dict[str, float]] = {}
    for load in loads:
        lengths = (load.prompt_tokens, load.answer_tokens)
        if lengths not in known:
            remark(here.report, f"llama-bench: {alone.model.name}, {lengths[0]} tokens and {lengths[1]} after them")
            known[lengths] = _speeds(alone, *lengths, repeats=repeats, here=here)
        found[load.name] = known[lengths]
    return found


def _speeds(alone: Alone, prompt: int, answer: int, *, repeats: int, here: Installation) -> dict[str, float]:
    common = [str(alone.program), "--model", str(alone.model), *alone.flags, "-r", str(repeats), "-o", "json"]
    with tempfile.TemporaryDirectory(prefix="nemotron-ops-bench-") as folder:
        env = child_env(here.env, home=Path(folder))
        read = _run([*common, "-p", str(prompt), "-n", "0"], env)
        wrote = _run([*common, "-p", "0", "-n", str(answer), "-d", str(prompt)], env)
    return {PROMPT: read, ANSWER: wrote}


def _run(argv: Sequence[str], env: Mapping[str, str]) -> float:
    done = proc.run(argv, env=env)
    try:
        rows: list[Mapping[str, Any]] = json.loads(done.stdout) if done.ok else []
        return float(f"{float(rows[0]['avg_ts']):.6g}")
    except (ValueError, KeyError, IndexError, TypeError) as exc:
        tail = tuple((done.stderr or done.stdout).strip().splitlines()[-12:])
        raise EngineError(f"cannot measure with llama-bench: it ended with {done.returncode}", log_tail=tail) from exc
