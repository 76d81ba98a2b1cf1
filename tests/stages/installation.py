"""A private installation of nemotron-ops for tests: its own NEMOTRON_OPS_HOME, this machine's builds. Processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Installation:
    """NEMOTRON_OPS_HOME in a temporary folder, with this machine's builds."""

    home: Path
    env: dict[str, str]

    def run(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; fails unless its exit code is `code`."""
        argv = [sys.executable, "-m", "nemotron_ops", *words]
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == code, f"{words} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *words: str) -> Any:
        """The value that a command prints with `--json`."""
        cut = words.index("--") if "--" in words else len(words)
        return json.loads(self.run(*words[:cut], "--json", *words[cut:]).stdout)

    def with_env(self, env: Mapping[str, str]) -> Installation:
        """The same installation with `env` added to its environment."""
        return Installation(home=self.home, env={**self.env, **env})

    @contextmanager
    def started(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Run a command in the background, in its own process group; it is stopped at the end of the block."""
        argv = [sys.executable, "-m", "nemotron_ops", *words]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            argv, env=self.env, stdout=pipe, stderr=subprocess.STDOUT, text=True, process_group=0
        ) as p:
            try:
                yield p
            finally:
                end(p)


@dataclass(frozen=True, kw_only=True)
class Served:
    """A detached supervisor and its endpoint."""

    installation: Installation
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


def installation_in(home: Path, llama_bin: Path) -> Installation:
    """A private installation whose only and current build is the one of `llama_bin`."""
    build = llama_bin.parent
    builds = home / "data" / "builds"
    builds.mkdir(parents=True)
    (builds / build.name).symlink_to(build)
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("NEMOTRON_OPS", "XDG_"))}
    installation = Installation(home=home, env={**keep, "NEMOTRON_OPS_HOME": str(home)})
    installation.run("builds", "use", build.name)
    return installation


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for_line(child: subprocess.Popen[str], start: str) -> str:
    """Read the output of `child` up to a line that starts with `start`; fails if the output ends before."""
    assert child.stdout is not None
    seen = []
    for line in child.stdout:
        if line.startswith(start):
            return line
        seen.append(line)
    raise AssertionError(f"no line {start!r} in:\n{''.join(seen)}")


def end(child: subprocess.Popen[str]) -> None:
    """Stop a supervisor and its children. A second SIGTERM skips the drain; SIGKILL ends a supervisor that hangs."""
    for sig in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        if child.poll() is None:
            child.send_signal(sig)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(15)


def interrupt(child: subprocess.Popen[str]) -> int:
    """Send SIGINT, wait for the end, return the exit code."""
    child.send_signal(signal.SIGINT)
    return child.wait(60)
