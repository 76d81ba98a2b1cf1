"""No process of ours runs a file of the folder in which a command is given. About three seconds.

The folder holds a file for every module that the program imports: each leaves a mark when it is run.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.planted import imported_names, plant
from tests.stages.installation import Installation

pytestmark = pytest.mark.real
PROGRAM = Path(sys.executable).parent / "nemotron-ops"


def run(installation: Installation, folder: Path, *words: str) -> None:
    """Give a command in `folder`, as a user does."""
    done = subprocess.run(
        [PROGRAM, *words], cwd=folder, env=installation.env, capture_output=True, text=True, timeout=120
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_no_command_runs_a_module_of_the_folder_it_is_given_in(
    installation: Installation, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    planted = tmp_path / "planted"
    mark = plant(planted)
    assert {"click", "httpx", "psutil", "uvloop", "msgspec", "nemotron_ops", "json"} <= imported_names()
    run(installation, planted, "serve", "tiny", "--detach", "--port", str(free_port()))
    try:
        run(installation, planted, "reload", "--exec")
        run(installation, planted, "status")
    finally:
        run(installation, planted, "stop")
    run(installation, planted, "demo", "--port", str(free_port()))
    assert not mark.exists(), mark.read_text()
