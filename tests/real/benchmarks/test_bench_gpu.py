"""The script of the full run on a GPU, tested on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stages.installation import Installation

pytestmark = pytest.mark.real


def test_the_full_run_makes_its_table_on_the_cpu_too(installation: Installation, free_port: Callable[[], int]) -> None:
    argv = [sys.executable, "-m", "benchmarks.gpu", "--backend", "cpu", "--shape", "tiny", "--port", str(free_port())]
    root = Path(__file__).parents[3]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=200, cwd=root, env=installation.env, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = dict(line.strip("| ").split(" | ", 1) for line in done.stdout.splitlines() if line.startswith("|"))
    checks = json.loads(next(installation.home.glob("data/builds/*/manifest.json")).read_text())["selftest"]["passed"]
    assert rows["self-test"] == f"{len(checks)} checks on cpu"
    assert {"memory planned", "time to ready", "llama-bench prompt", "llama-bench answer"} <= rows.keys()
    assert rows["answer of 256 tokens"].endswith("tokens/s")
