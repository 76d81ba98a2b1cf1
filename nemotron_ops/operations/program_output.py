"""Runs a program that writes one file, with the file's size as the progress. Processes, disk.

On Linux the program dies with this process, however that ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nemotron_ops.engine.once import DIES_WITH_US
from nemotron_ops.errors import HostError
from nemotron_ops.installation import Installation
from nemotron_ops.progress import Step

POLL_S = 0.1
TAIL_LINES = 8
QUIET = {"GGML_NO_BACKTRACE": "1"}  # a failed assert of ggml would run gdb, whose stack hides the message


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A program that writes one file of about `total` bytes; its words go to a log beside the file."""

    argv: Sequence[str | Path]
    what: str
    out: Path
    total: int
    env: Mapping[str, str] | None = None


def write_by(tool: Tool, here: Installation) -> None:
    """Run the program to its end. Raises HostError with its last lines."""
    log = tool.out.with_suffix(".log")
    words = [str(word) for word in tool.argv]
    if sys.platform == "linux":
        words = [sys.executable, "-IS", "-c", DIES_WITH_US, str(os.getpid()), *words]
    with log.open("wb") as sink:
        env = {**(here.env if tool.env is None else tool.env), **QUIET}
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=env)
    try:
        while child.poll() is None:
            done = tool.out.stat().st_size if tool.out.exists() else 0
            here.report(Step(what=tool.what, done=min(done, tool.total), total=tool.total, unit="B"))
            time.sleep(POLL_S)
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    if child.returncode or not tool.out.is_file():
        tail = tuple(log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
        raise HostError(f"cannot {tool.what}: {Path(tool.argv[0]).name} ended with {child.returncode}", log_tail=tail)
    here.report(Step(what=tool.what, done=tool.total, total=tool.total, unit="B"))
