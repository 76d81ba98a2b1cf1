"""Children of ours import nothing from the folder in which they are started. One subprocess, 0.3 s."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import nemotron_ops
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


STARTS_PYTHON = re.compile(r'"-m", "(?:nemotron_ops|pip|venv)\b|\} -m [a-z]|python\)\} -c ')


def test_every_python_that_is_started_has_a_safe_path() -> None:
    """Neither an argv nor a script of a deploy runs a module or code without `-P`."""
    wrong = []
    for path in sorted(Path(nemotron_ops.__file__).parent.rglob("*.py")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if STARTS_PYTHON.search(line.replace('"-P", "-m"', "").replace("-P -", "")):
                wrong.append(f"{path.name}:{number}: {line.strip()}")
    assert wrong == []
