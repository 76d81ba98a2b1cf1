"""MCP's TypeScript client and `nemotron-ops mcp`, over stdio and HTTP: code in a real sandbox. About 4 s."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.stages.mcp_server import installation, over_http

pytestmark = [pytest.mark.real, pytest.mark.skipif(sys.platform != "linux", reason="walls of Linux")]
SCRIPT = Path(__file__).parent / "mcp_round_trip.mjs"


def asked(installed: Path, folder: Path, env: dict[str, str], *words: str) -> Any:
    """What the client came to."""
    (folder / "node_modules").symlink_to(installed / "js/node_modules")
    script = folder / SCRIPT.name
    script.write_bytes(SCRIPT.read_bytes())
    done = subprocess.run(["node", str(script), *words], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_the_typescript_client_runs_code_over_stdio(installed: Path, tmp_path: Path) -> None:
    env = installation(tmp_path / "home", "python")
    found = asked(installed, tmp_path, env, "stdio", sys.executable)
    assert found == {"tools": ["run_python"], "first": ["42", False], "second": ["42", False]}


def test_the_typescript_client_runs_code_over_http_where_each_call_has_a_sandbox(
    installed: Path, tmp_path: Path
) -> None:
    env = installation(tmp_path / "home", "python")
    with over_http(env) as (address, token, _):
        found = asked(installed, tmp_path, env, "http", address, token)
    assert found["first"] == ["42", False]
    text, failed = found["second"]
    assert failed
    assert "NameError" in text
