"""A private installation of nemotron-ops for tests: its own NEMOTRON_OPS_HOME, this machine's builds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemotron_ops.paths import user_layout


@dataclass(frozen=True, kw_only=True)
class Installation:
    """NEMOTRON_OPS_HOME in a temporary folder, with this machine's builds."""

    home: Path
    env: dict[str, str]

    def run(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; fails unless it ends with `code`."""
        argv = [sys.executable, "-m", "nemotron_ops", *words]
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == code, f"{words} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json").stdout)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command in a process group of its own."""
        argv = [sys.executable, "-m", "nemotron_ops", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(argv, env=self.env, stdout=pipe, stderr=subprocess.STDOUT, text=True, process_group=0)


@dataclass(frozen=True, kw_only=True)
class Served:
    """A detached supervisor and its endpoint."""

    installation: Installation
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


def installation_in(home: Path, llama_bin: Path) -> Installation:
    shared = user_layout(os.environ, uid=os.getuid()).builds
    builds = home / "data" / "builds"
    builds.parent.mkdir(parents=True)
    builds.symlink_to(shared)
    assert llama_bin.is_relative_to(shared), f"{llama_bin} is not in {shared}"
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("NEMOTRON_OPS", "XDG_"))}
    return Installation(home=home, env={**keep, "NEMOTRON_OPS_HOME": str(home)})


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def stop_group(child: subprocess.Popen[str], sig: signal.Signals = signal.SIGINT) -> int:
    """Send `sig` to a started command and wait for its end."""
    if child.poll() is None:
        child.send_signal(sig)
    return child.wait(60)
