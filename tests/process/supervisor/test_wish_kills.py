"""A kill at each line that writes a wish leaves the one before or the one after it. About 3 s."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.fakes.killed_lines import SURVIVED

ROOT = Path(__file__).parents[3]


def test_a_kill_at_any_line_leaves_the_wish_before_or_the_one_after(tmp_path: Path) -> None:
    argv = [sys.executable, str(ROOT / "tests/fakes/killed_lines.py"), str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r for r in rows if r["problem"]] == []
    found = [r["targets"] for r in rows]
    turn = found.index(["after"])
    assert (turn > 10, rows[-1]["code"]) == (True, SURVIVED)
    assert found == [["before"]] * turn + [["after"]] * (len(found) - turn)  # one line decides, and no line is lost
