"""Fixtures of all rings: a private installation, the llama.cpp that this project built, waiting. Disk, builds."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nemotron_ops.builds.run import ensure_build
from nemotron_ops.builds.spec import Backend, BuildOptions, BuildRequest
from nemotron_ops.installation import Installation
from nemotron_ops.paths import Layout, user_layout

for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    # A shell starts background jobs (`&`) with these signals ignored, and children of the tests would inherit that.
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start files with the `long` mark first, so that no worker is left with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty folder for NEMOTRON_OPS_HOME."""
    return tmp_path / "home"


@pytest.fixture
def layout(home: Path) -> Layout:
    """The layout of a private, empty installation."""
    return user_layout({"NEMOTRON_OPS_HOME": str(home)}, uid=os.getuid())


@pytest.fixture(scope="session")
def llama_bin() -> Path:
    """The folder with the llama-server that this project built; built once per machine."""
    env = dict(os.environ)
    request = BuildRequest(options=BuildOptions(backend=Backend.CPU), activate=False)
    installation = Installation(layout=user_layout(env, uid=os.getuid()), env=env)
    return ensure_build(request, installation).path / "bin"


@pytest.fixture
def eventually() -> Callable[..., None]:
    """`eventually(check, within_s=30)` waits until `check()` is true; fails with its last answer."""

    def wait(check: Callable[[], object], *, within_s: float = 30.0) -> None:
        deadline = time.monotonic() + within_s
        while True:
            answer = check()
            if answer:
                return
            assert time.monotonic() < deadline, f"still {answer!r} after {within_s} s"
            time.sleep(0.02)

    return wait
