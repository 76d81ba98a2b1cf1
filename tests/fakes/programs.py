"""Programs that a test runs and that a machine may lack. Looks at the PATH."""

from __future__ import annotations

import os
import shutil

import pytest


def need(*programs: str, root: bool = False) -> None:
    """Skip the test where a program, or root, is missing; fail it in CI, where `tests/setup.sh` has installed all."""
    missing = [program for program in programs if not shutil.which(program)]
    if root and os.geteuid():
        missing.append("root")
    if not missing:
        return
    message = f"needs {', '.join(missing)}; tests/setup.sh installs programs"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
