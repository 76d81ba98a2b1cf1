"""One llama-server during a `with` block: it never outlives the process that started it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from nemotron_ops.engine.once import started
from nemotron_ops.errors import EngineError

pytestmark = pytest.mark.process

STARTS = """
import sys
from pathlib import Path
from nemotron_ops.engine.once import started

with started(binary=Path(sys.argv[1]), model=Path("m"), workdir=Path(sys.argv[2])):
    pass
"""


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_server_dies_with_whoever_started_it_and_was_killed(tmp_path: Path, eventually: Callable[..., None]) -> None:
    note = tmp_path / "pid"
    server = program(tmp_path / "llama-server", f"echo $$ > {note}.new; mv {note}.new {note}; exec sleep 600")
    argv = [sys.executable, "-c", STARTS, str(server), str(tmp_path)]
    parent = subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": os.getcwd()})
    eventually(note.exists)
    pid = int(note.read_text())
    assert runs(pid)
    parent.kill()
    parent.wait()
    eventually(lambda: not runs(pid))


def test_a_server_is_itself_and_gets_its_signals_as_from_a_shell(tmp_path: Path) -> None:
    """The words of its command line, a session of its own, and no signal ignored that Python ignores."""
    say = 'echo "args: $0 $*"; grep SigIgn /proc/self/status; exit 3'
    server = program(tmp_path / "llama-server", say)
    with (
        pytest.raises(EngineError, match="cannot run llama-server"),
        started(binary=server, model=Path("m"), workdir=tmp_path, extra=("--verbosity", "4")),
    ):
        pass
    log = (tmp_path / "llama-server.log").read_text()
    assert f"args: {server} --model m" in log
    assert "--verbosity 4" in log
    if sys.platform == "linux":
        ignored = int(log.partition("SigIgn:")[2].split()[0], 16)
        assert ignored & (1 << 12 | 1 << 24) == 0  # SIGPIPE, SIGXFSZ


@pytest.mark.parametrize(("mode", "cause"), [(None, "no such file"), (0o644, "permission denied")])
def test_what_cannot_be_started_is_said_at_once(tmp_path: Path, mode: int | None, cause: str) -> None:
    server = tmp_path / "llama-server"
    if mode:
        server.write_text("x")
        server.chmod(mode)
    with (
        pytest.raises(EngineError, match=f"cannot start .*{cause}"),
        started(binary=server, model=Path("m"), workdir=tmp_path / "run"),
    ):
        pass
