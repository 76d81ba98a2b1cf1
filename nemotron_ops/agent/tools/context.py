"""What the tools of one request share: the sandbox's session, what was read of the web, whose key it is. Pure.

Each part ends with the request; `close` ends what it holds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from nemotron_ops.agent.tools.code import Code
from nemotron_ops.agent.tools.web import Web
from nemotron_ops.errors import HostError


class Remote(Protocol):
    """A server of mcp.toml that is connected: definitions of its allowed tools by name, and when they ask."""

    @property
    def label(self) -> str: ...
    @property
    def tools(self) -> Mapping[str, Mapping[str, Any]]: ...
    @property
    def approve(self) -> str: ...
    @property
    def sends(self) -> frozenset[str]: ...
    async def call(self, tool: str, arguments: Mapping[str, Any]) -> tuple[str, bool]: ...
    async def close(self) -> None: ...


async def no_servers(label: str) -> Remote:
    """Stands for an installation without MCP servers. Raises HostError."""
    raise HostError(f"there is no MCP server {label[:100]!r}")


@dataclass(kw_only=True)
class Context:
    """One request's tools. `letters` bounds the text of one result for the model."""

    api: str  # responses, messages or chat
    code: Code
    web: Web
    letters: int
    connect: Callable[[str], Awaitable[Remote]] = no_servers  # a server by its label; raises NemotronOpsError
    closers: list[Callable[[], Awaitable[None]]] = field(default_factory=list)  # of further kinds

    async def close(self) -> None:
        """End all that runs. A cancellation does not shorten it."""
        try:
            for closer in reversed(self.closers):
                await closer()
        finally:
            await self.code.close()
