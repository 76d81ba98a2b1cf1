"""A server of mcp.toml as one request uses it: allowed and confirmed tools, results as text. asyncio, disk.

The SDK is imported at the first request that asks for such a server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemotron_ops.agent.here import Here
from nemotron_ops.agent.mcp import pins, settings
from nemotron_ops.agent.mcp.settings import McpServer
from nemotron_ops.errors import HostError

if TYPE_CHECKING:
    from nemotron_ops.agent.mcp.host import Connection


@dataclass(frozen=True, kw_only=True)
class RemoteServer:
    """A connection, with the tools that a request may use by their names at the server."""

    label: str
    tools: Mapping[str, Mapping[str, Any]]
    approve: str
    sends: frozenset[str]
    connection: Connection

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> tuple[str, bool]:
        """The text of a result, and whether the tool failed. Raises HostError."""
        from nemotron_ops.agent.mcp.result_text import text_of

        result = await self.connection.call(tool, arguments)
        return text_of(result), result.is_error

    async def close(self) -> None:
        """End the server that was started."""
        await self.connection.close()


async def connected(here: Here, label: str) -> RemoteServer:
    """The server named `label`. Raises HostError or RecipeError if it cannot be used as it was confirmed."""
    server, kept = await asyncio.to_thread(_looked_up, here, label)
    try:
        from nemotron_ops.agent.mcp.host import Connection
    except ImportError as exc:
        hint = "pip install 'nemotron-ops[tools]'"
        raise HostError(f"cannot use MCP servers: the package {exc.name} is not installed", hint=hint) from exc
    connection = Connection(label, server, here.bubblewrap)
    try:
        there = await connection.open()
        if why := pins.refusal(label, server.allow, there, kept):
            raise HostError(why)
    except BaseException:
        await connection.close()
        raise
    tools = {tool.name: tool.definition for tool in there if tool.name in server.allow}
    sends = frozenset(tools if server.sends is None else server.sends)
    return RemoteServer(label=label, tools=tools, approve=server.approve, sends=sends, connection=connection)


def _looked_up(here: Here, label: str) -> tuple[McpServer, pins.Pins | None]:
    config = here.layout.config
    found = settings.load(config)
    if label not in found:
        raise HostError(
            f"there is no MCP server {label[:100]!r}: servers are named in {settings.settings_path(config)}"
        )
    if not found[label].allow:
        raise HostError(f"no tool of the MCP server {label} is allowed", hint="name its tools in `allow` of mcp.toml")
    return settings.with_secrets(found[label], config), pins.load(here.layout.state).get(label)
