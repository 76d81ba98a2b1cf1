"""No process of ours runs a file of the folder in which a command is given. About three seconds.

The folder holds a file for every module that the program imports: each leaves a mark when it is run.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import nemotron_ops
from tests.stages.installation import Installation

pytestmark = pytest.mark.real
PROGRAM = Path(sys.executable).parent / "nemotron-ops"


def imported_names() -> set[str]:
    """The first part of every name that any file of the program imports."""
    names: set[str] = set()
    for path in Path(nemotron_ops.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    return names - {"__future__"}


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A folder with a module of each name; whichever runs is named in `ran`."""
    folder = tmp_path / "planted"
    folder.mkdir()
    for name in imported_names():
        (folder / f"{name}.py").write_text(f"open({str(folder / 'ran')!r}, 'a').write('{name} ')\nraise ImportError\n")
    return folder


def run(installation: Installation, folder: Path, *words: str) -> None:
    """Give a command in `folder`, as a user does."""
    done = subprocess.run(
        [PROGRAM, *words], cwd=folder, env=installation.env, capture_output=True, text=True, timeout=120
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_no_command_runs_a_module_of_the_folder_it_is_given_in(
    installation: Installation, planted: Path, free_port: Callable[[], int]
) -> None:
    assert {"click", "httpx", "psutil", "uvloop", "msgspec", "nemotron_ops", "json"} <= imported_names()
    run(installation, planted, "serve", "tiny", "--detach", "--port", str(free_port()))
    try:
        run(installation, planted, "reload", "--exec")
        run(installation, planted, "status")
    finally:
        run(installation, planted, "stop")
    run(installation, planted, "demo", "--port", str(free_port()))
    assert not (planted / "ran").exists(), (planted / "ran").read_text()
