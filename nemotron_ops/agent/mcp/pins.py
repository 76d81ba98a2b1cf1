"""Tools of MCP servers as a person has confirmed them: hashes in the state. Disk.

A server may change what its tools claim to do after they were looked at. A tool is offered to models only while its
name, description and schemas are those that were confirmed; one changed tool stops all tools of its server.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemotron_ops import files
from nemotron_ops.errors import HostError

FILE = "mcp-pins.json"
PINNED = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")

Pins = Mapping[str, str]  # tool -> hash


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A tool as its server describes it. `definition` is its JSON, with the names of the protocol."""

    name: str
    definition: Mapping[str, Any]

    @property
    def description(self) -> str:
        return str(self.definition.get("description") or "")

    @property
    def digest(self) -> str:
        """A hash of all that the server says of the tool."""
        said = {key: self.definition.get(key) for key in PINNED}
        text = json.dumps(said, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def path(state: Path) -> Path:
    """The file below the state folder."""
    return state / "agent" / FILE


def load(state: Path) -> Mapping[str, Pins]:
    """Pins by server. Raises HostError if the file is wrong."""
    value = files.read_json(path(state))
    if value is None:
        return {}
    try:
        return {str(name): {str(k): str(v) for k, v in pins.items()} for name, pins in value["servers"].items()}
    except (TypeError, KeyError, AttributeError) as exc:
        raise HostError(f"cannot read {path(state)}: {exc}", hint=f"remove it: rm {path(state)}") from exc


def keep(state: Path, server: str, tools: Iterable[Listed]) -> None:
    """Confirm these tools of a server, and no others of it."""
    place = path(state)
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with files.locked(place.parent / f".{FILE}.lock"):
        after = {**load(state), server: {tool.name: tool.digest for tool in tools}}
        files.write_json(place, {"servers": after}, mode=0o600)


def refusal(server: str, allowed: Iterable[str], there: Iterable[Listed], pins: Pins | None) -> str:
    """Why no tool of a server is offered, or an empty text."""
    look = f"look at it with: nemotron-ops tools mcp pin {server}"
    found = {tool.name: tool for tool in there}
    for name in allowed:
        if name not in found:
            return f"MCP server {server}: it has no tool {name!r}; nemotron-ops tools mcp list shows what it has"
        if pins is None or name not in pins:
            return f"MCP server {server}: its tool {name!r} was not confirmed yet; {look}"
        if pins[name] != found[name].digest:
            return f"MCP server {server}: its tool {name!r} has changed since it was confirmed; {look}"
    return ""
