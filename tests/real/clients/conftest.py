"""The clients of this folder, in an environment of their own. Disk, package registries on the first use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def installed() -> Path:
    """The folder with the clients; `tests/setup.sh` has filled it, where it ran."""
    done = subprocess.run([str(HERE / "install.sh"), sys.executable], capture_output=True, text=True, timeout=600)
    if done.returncode:
        if os.environ.get("CI") == "true":
            pytest.fail(f"cannot install the clients: {done.stderr[-2000:]}")
        pytest.skip(f"cannot install the clients: {done.stderr[-300:]}")
    return Path(done.stdout.strip())
