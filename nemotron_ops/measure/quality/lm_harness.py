"""lm-eval (EleutherAI's harness) against an endpoint, in an environment of its own made on demand. pip, subprocess.

The environment lies in the cache and is whole once its marker exists. Data sets come from the hub as the user's
settings say; `include` names a folder with tasks of one's own.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemotron_ops import proc
from nemotron_ops.errors import EngineError, HostError
from nemotron_ops.files import locked, write_atomic
from nemotron_ops.installation import Installation
from nemotron_ops.measure.request import Target
from nemotron_ops.progress import Report, Step, remark

REQUIREMENT = "lm-eval[api]>=0.4.9,<0.5"
STALL_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class HarnessScore:
    """One metric of one task, with its standard error where lm-eval gives one."""

    task: str
    metric: str
    value: float
    error: float | None


def run_tasks(
    target: Target, tasks: Sequence[str], here: Installation, *, limit: int, seed: int, include: Path | None = None
) -> tuple[HarnessScore, ...]:
    """Run lm-eval's generative tasks by chat requests; `limit` items of each, 0 for all. Raises EngineError, HostError.

    The key goes by environment, never in the command line.
    """
    python = have_environment(here)
    with tempfile.TemporaryDirectory(prefix="nemotron-ops-lm-eval-") as folder:
        argv = harness_argv(python, target, tasks, limit=limit, seed=seed, out=Path(folder), include=include)
        env = {**here.env, "OPENAI_API_KEY": target.api_key or "none"}
        done = proc.run_lines(argv, on_line=_progress(here.report), env=env, stall_s=STALL_S, cwd=Path(folder))
        if not done.ok:
            raise EngineError(
                f"cannot run {', '.join(tasks)}: lm-eval ended with {done.returncode}",
                hint="data sets come from the hub: HF_ENDPOINT and HF_TOKEN say which and with what right",
                log_tail=tuple(done.stdout.strip().splitlines()[-8:]),
            )
        files = sorted(Path(folder).rglob("results_*.json"))
        if not files:
            raise EngineError("cannot read lm-eval's results: it wrote none")
        return read_scores(json.loads(files[-1].read_text()))


def harness_argv(
    python: Path, target: Target, tasks: Sequence[str], *, limit: int, seed: int, out: Path, include: Path | None = None
) -> list[str]:
    """lm-eval's command line."""
    where = f"model={target.model},base_url={target.url}/chat/completions,num_concurrent=4,max_retries=2"
    argv = [str(python), "-P", "-m", "lm_eval", "--model", "local-chat-completions", "--apply_chat_template"]
    argv += ["--model_args", f"{where},tokenized_requests=False,tokenizer_backend=None"]
    argv += ["--tasks", ",".join(tasks), "--seed", str(seed), "--output_path", str(out)]
    argv += ["--limit", str(limit)] if limit else []
    return argv + (["--include_path", str(include)] if include else [])


def read_scores(value: Mapping[str, Any]) -> tuple[HarnessScore, ...]:
    """The metrics in lm-eval's results file."""
    found = []
    for task, metrics in value.get("results", {}).items():
        for key, number in metrics.items():
            name, _, _ = key.partition(",")
            if isinstance(number, int | float) and "_stderr" not in name and key != "sample_len" and "," in key:
                error = metrics.get(key.replace(name, f"{name}_stderr", 1))
                error = float(error) if isinstance(error, int | float) else None
                found.append(HarnessScore(task=task, metric=key, value=float(number), error=error))
    return tuple(found)


def have_environment(here: Installation) -> Path:
    """The Python of the environment with lm-eval, made if it is not whole. Raises HostError."""
    folder = here.layout.cache / "environments" / "lm-eval"
    python, whole = folder / "bin/python", folder / "complete"
    with locked(folder.with_suffix(".lock")):
        if whole.exists() and whole.read_text() == REQUIREMENT:
            return python
        remark(here.report, f"making an environment with {REQUIREMENT} in {folder}, once")
        shutil.rmtree(folder, ignore_errors=True)
        for argv in (
            [*proc.python_argv("venv"), str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", REQUIREMENT],
        ):
            done = proc.run(argv, env=here.env, timeout_s=STALL_S)
            if not done.ok:
                raise HostError(
                    f"cannot make an environment for lm-eval: {' '.join(argv[1:4])} ended with {done.returncode}",
                    log_tail=tuple(done.stderr.strip().splitlines()[-8:]),
                )
        write_atomic(whole, REQUIREMENT)
    return python


def _progress(report: Report) -> Callable[[str], None]:
    def on_line(line: str) -> None:
        if "Requesting API:" in line and "%|" in line:
            percent = line.partition("Requesting API:")[2].strip().partition("%")[0]
            if percent.strip().isdigit():
                report(Step(what="lm-eval", done=float(percent), total=100, unit="%"))

    return on_line
