"""`proc.python_argv`: a child of ours imports nothing from the folder in which it is started. One subprocess, 0.3 s."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from nemotron_ops.proc import SAFE_PATH, python_argv

IMPORTED = ("click", "httpx", "psutil", "msgspec", "filelock", "json", "socket", "asyncio", "nemotron_ops", "tomllib")


def test_a_child_imports_nothing_from_the_folder_it_is_started_in(tmp_path: Path) -> None:
    for name in IMPORTED:
        (tmp_path / f"{name}.py").write_text("raise SystemExit(f'{__file__} of the user was run')\n")
    env = {**os.environ, **SAFE_PATH}
    done = subprocess.run(
        python_argv("nemotron_ops", "--version"), cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
