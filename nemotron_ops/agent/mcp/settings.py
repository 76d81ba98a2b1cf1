"""mcp.toml: MCP servers of the operator, and what models may use of each. mcp.json of other programs is read too. Disk.

[servers.notes]
command = ["/usr/bin/python3", "/opt/notes/server.py"]   # or url = "https://tools.lan/mcp"
allow = ["search", "add"]       # tools by name; none until named
sends = ["add"]                 # of these, tools that send or change something; without the key, all
approve = "always"              # or once (a key's first time), never
sandbox = "work"                # or net (with the network), off (as this user, without a wall)
read = ["/opt/notes"]           # what the sandbox sees of this machine, at the same paths
write = ["/srv/notes"]
env = { LEVEL = "info" }
env_files = { NOTES_TOKEN = "notes.token" }        # a variable from a file with one line
header_files = { Authorization = "bearer.txt" }    # with url: a header from such a file
timeout_s = 60.0                # of one call
start_s = 30.0                  # until the server has listed its tools

A server of mcp.json (`{"mcpServers": {…}}`) may have a table here too, which says what that file cannot.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nemotron_ops.errors import RecipeError, conceal
from nemotron_ops.recipes.check import check

NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9-]|_(?!_)){0,30}")  # `__` parts a server from its tool
MOST_SECRET_BYTES = 8192
OF_JSON = ("command", "args", "env", "url", "headers")  # keys of a server in mcp.json; others are left alone


class Approve(StrEnum):
    """When a call of a server's tool asks."""

    NEVER = "never"
    ONCE = "once"
    ALWAYS = "always"


class Wall(StrEnum):
    """Where a stdio server runs."""

    WORK = "work"  # no network, nothing of this machine but programs
    NET = "net"  # with the network
    OFF = "off"


@dataclass(frozen=True, kw_only=True)
class McpServer:
    """One table of mcp.toml."""

    command: tuple[str, ...] = ()
    url: str = ""
    allow: tuple[str, ...] = ()
    sends: tuple[str, ...] | None = None
    approve: Approve = Approve.ALWAYS
    sandbox: Wall = Wall.WORK
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    env_files: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    header_files: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 60.0
    start_s: float = 30.0


@dataclass(frozen=True, kw_only=True)
class _File:
    servers: Mapping[str, McpServer] = field(default_factory=dict)


def settings_path(config: Path) -> Path:
    """The file below the configuration folder."""
    return config / "mcp.toml"


def load(config: Path) -> Mapping[str, McpServer]:
    """All servers by name, those of mcp.json first. Secrets are not read yet. Raises RecipeError."""
    path = settings_path(config)
    try:
        value = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        value = {}
    except (OSError, ValueError, RecursionError) as exc:
        raise RecipeError(f"cannot read {path}: {exc}") from exc
    tables = value.get("servers", {})
    if isinstance(tables, dict):
        for name, base in _of_json(config / "mcp.json").items():
            given = tables.get(name, {})
            tables = {**tables, name: {**base, **given} if isinstance(given, dict) else given}
        value = {**value, "servers": tables}
    servers = check(_File, value, file=str(path)).servers
    for name, server in servers.items():
        _check(name, server, path)
    return servers


def with_secrets(server: McpServer, config: Path) -> McpServer:
    """The server with `env_files` and `header_files` read. Raises RecipeError."""
    env = {name: _secret(config / file) for name, file in server.env_files.items()}
    headers = {name: _secret(config / file) for name, file in server.header_files.items()}
    return replace(server, env={**server.env, **env}, headers={**server.headers, **headers})


def _of_json(path: Path) -> dict[str, dict[str, Any]]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as exc:
        raise RecipeError(f"cannot read {path}: {exc}") from exc
    servers = value.get("mcpServers") if isinstance(value, dict) else None
    if not isinstance(servers, dict) or not all(isinstance(one, dict) for one in servers.values()):
        raise RecipeError(f'cannot read {path}: expected {{"mcpServers": {{name: {{…}}}}}}')
    return {name: _table(one) for name, one in servers.items()}


def _table(one: dict[str, Any]) -> dict[str, Any]:
    """A server of mcp.json as a table of ours."""
    kept = {key: one[key] for key in OF_JSON if key in one}
    args = kept.pop("args", [])
    if isinstance(kept.get("command"), str) and isinstance(args, list):
        kept["command"] = [kept["command"], *args]
    return kept


def _check(name: str, server: McpServer, path: Path) -> None:
    where = f"{path}: servers.{name}"
    if not NAME.fullmatch(name):
        raise RecipeError(f"{where}: expected a name of up to 31 letters, digits, - and single _")
    if bool(server.command) == bool(server.url):
        raise RecipeError(f"{where}: expected either command or url")
    if server.url and urlsplit(server.url).scheme not in ("http", "https"):
        raise RecipeError(f"{where}.url: expected an http or https address, found {server.url!r}")
    for key in ("headers", "header_files") if server.command else ("env", "env_files", "read", "write"):
        if getattr(server, key):
            raise RecipeError(f"{where}.{key}: is for servers with {'url' if server.command else 'command'}")
    for shown in (*server.read, *server.write):
        if not shown.startswith("/") or ".." in Path(shown).parts or Path(shown) == Path("/"):
            raise RecipeError(f"{where}: expected an absolute path below /, found {shown!r}")
    for key in ("timeout_s", "start_s"):
        if not 0 < getattr(server, key) <= 3600:
            raise RecipeError(f"{where}.{key}: expected a number above 0, up to 3600")


def _secret(file: Path) -> str:
    try:
        if not file.is_file():
            raise RecipeError(f"cannot read the secret in {file}: it is not a file")
        with file.open("rb") as f:
            text = f.read(MOST_SECRET_BYTES).decode().strip()
    except (OSError, UnicodeError) as exc:
        raise RecipeError(f"cannot read the secret in {file}: {exc}") from exc
    if not text or not text.isprintable():
        raise RecipeError(f"cannot use the secret in {file}: expected one line")
    conceal(text)
    return text
