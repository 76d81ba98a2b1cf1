"""`nemotron-ops mcp` as a client starts it: an installation with tools enabled, over stdio or HTTP. Processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from mcp import StdioServerParameters

COMMAND = [sys.executable, "-m", "nemotron_ops", "mcp"]


def installation(home: Path, *enabled: str, web: str = "") -> dict[str, str]:
    """The environment of an installation in `home` that has `enabled` tools, and `web` as web.toml."""
    (home / "config").mkdir(parents=True)
    names = ", ".join(f'"{name}"' for name in enabled)
    (home / "config/tools.json").write_text(f'{{"enabled": [{names}]}}')
    if web:
        (home / "config/web.toml").write_text(web)
    return {"NEMOTRON_OPS_HOME": str(home), "PATH": os.environ["PATH"], "HOME": str(home)}


def stdio(env: dict[str, str]) -> StdioServerParameters:
    """What an MCP client is configured with."""
    return StdioServerParameters(command=COMMAND[0], args=COMMAND[1:], env=env)


@contextlib.contextmanager
def over_http(env: dict[str, str], *words: str) -> Iterator[tuple[str, str, subprocess.Popen[str]]]:
    """A server on a free port: its address, its token and its process."""
    argv = [*COMMAND, "--http", "0", *words]
    with subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as started:
        assert started.stderr is not None
        try:
            address = started.stderr.readline().removeprefix("MCP: ").strip()
            token = "" if words else started.stderr.readline().removeprefix("token: ").strip()
            yield address, token, started
        finally:
            started.terminate()
            started.wait(20)
