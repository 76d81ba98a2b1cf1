"""An MCP server of the official SDK behind a real wall, as mcp.toml configures it. Disk."""

from __future__ import annotations

import json
import os
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemotron_ops.sandbox.interpreter import present

SCRIPT = Path(__file__).parents[1] / "fakes" / "notes_server.py"


def notes(folder: Path, **keys: Any) -> dict[str, Any]:
    """The table of a server `notes`, whose script lies in `folder`, where every user may read it."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / SCRIPT.name
    script.write_bytes(SCRIPT.read_bytes())
    packages = sysconfig.get_paths()["purelib"]
    env = {"PYTHONPATH": packages, **keys.pop("env", {})}
    table = {"command": [python(), str(script)], "read": [packages, str(folder)], "env": env}
    return {**table, "allow": ["add"], "approve": "never", **keys}


def python() -> str:
    """The Python that a sandbox sees."""
    return present(open_to_all=os.geteuid() == 0).python


def written(config: Path, servers: Mapping[str, Mapping[str, Any]]) -> None:
    """Write mcp.toml."""
    config.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, table in servers.items():
        lines.append(f"[servers.{name}]")
        lines += [f"{key} = {toml(value)}" for key, value in table.items()]
    (config / "mcp.toml").write_text("\n".join(lines) + "\n")


def toml(value: Any) -> str:
    """A value as TOML: JSON but for tables."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(v)}" for key, v in value.items()) + " }"
    return json.dumps(value)
