"""No command of ours runs a module of the folder it is called in: `proc.python_argv` starts every child.

`test_planted_modules_are_not_run` starts three commands, about 2 s.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from nemotron_ops.proc import python_argv
from tests.fakes.planted import PACKAGE, plant

ROOT = PACKAGE.parent
SOURCES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])


def words_of(path: Path) -> list[list[str]]:
    """The constant words of each list and tuple in the file, in order."""
    nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.List | ast.Tuple)]
    return [[e.value for e in n.elts if isinstance(e, ast.Constant) and isinstance(e.value, str)] for n in nodes]


def test_only_proc_spells_the_command_that_runs_a_module() -> None:
    spelled = {
        str(path.relative_to(ROOT))
        for path in SOURCES
        for words in words_of(path)
        for one, two in pairwise(words)
        if one == "-m" and two.startswith("nemotron_ops")
    }
    # the gateway's bench runs a second working tree by its folder: that folder has to be on the path
    assert spelled <= {"benchmarks/gateway/planes.py"}
    assert python_argv("nemotron_ops", "x") == (sys.executable, "-P", "-m", "nemotron_ops", "x")


def test_scripts_for_other_machines_run_modules_without_their_folder() -> None:
    for path in (PACKAGE / "deploy").rglob("*.py"):
        for line in path.read_text().splitlines():
            if re.search(r"\} .*-m nemotron_ops", line):
                assert "-P -m nemotron_ops" in line, path
    for script in (ROOT / "tests/golden/deploy").rglob("*.sh"):
        assert not re.search(r"(?<!-P )-m nemotron_ops", script.read_text()), script


@pytest.mark.parametrize("unit", sorted((ROOT / "tests/golden/service").rglob("nemotron-ops.service")), ids=str)
def test_units_keep_the_folder_off_the_path(unit: Path) -> None:
    assert "PYTHONSAFEPATH=1" in unit.read_text()


def test_planted_modules_are_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    mark = plant(folder)
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
    env = {**kept, "NEMOTRON_OPS_HOME": str(tmp_path / "home")}
    for words in (("--version",), ("serve", "--help"), ("demo", "--help")):
        done = subprocess.run(python_argv("nemotron_ops", *words), cwd=folder, env=env, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr.decode()
    assert not mark.exists(), mark.read_text()
