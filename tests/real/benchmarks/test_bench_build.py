"""The comparison of build times, on a source tree that compiles in a second."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.llama_cpp_tree import write_tree

pytestmark = pytest.mark.real


def test_plain_cmake_and_ours_are_timed_side_by_side(tmp_path: Path, llama_bin: Path) -> None:
    tree = write_tree(tmp_path / "src", real=llama_bin, ledger=tmp_path / "ledger")
    root = Path(__file__).parents[3]
    argv = [sys.executable, "benchmarks/build.py", "--source", str(tree), "--jobs", "1", "--quick"]
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(argv, cwd=root, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["case"] for row in rows] == ["cold", "again"]
    for row in rows:
        assert row["plain"]["wall_s"] > 0
        assert row["ours"]["cpu_s"] > 0
        assert row["ratio"]["wall"] == pytest.approx(row["plain"]["wall_s"] / row["ours"]["wall_s"], abs=0.01)
    built = (tmp_path / "ledger").read_text().split()
    assert built.count("llama-server") == 2  # once by each side: the repeated build compiles nothing
