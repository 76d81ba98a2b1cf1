"""The table of hosted tools: what a request may ask for, what the operator enables for it, and what makes it. Pure.

A further kind of tool is a row here, a `ToolKind`, and its shape in each API (`apis`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nemotron_ops.agent.tools import code_tools, mcp_tools, web_tools
from nemotron_ops.agent.tools.context import Context
from nemotron_ops.agent.tools.tool import Tool

Make = Callable[[Mapping[str, Any], str, Context], Awaitable[list[Tool]]]  # the tool as asked for, its place


@dataclass(frozen=True, kw_only=True)
class Hosted:
    """A hosted tool of one API: how its type begins, and what it needs (python, web or mcp)."""

    begins: str
    needs: str
    make: Make


RESPONSES = (
    Hosted(begins="code_interpreter", needs="python", make=code_tools.interpreter),
    Hosted(begins="web_search", needs="web", make=web_tools.search_and_pages),
    Hosted(begins="mcp", needs="mcp", make=mcp_tools.servers),
)
MESSAGES = (
    Hosted(begins="code_execution_20250522", needs="python", make=code_tools.execution),
    Hosted(begins="code_execution_", needs="python", make=code_tools.bash_execution),
    Hosted(begins="web_search_", needs="web", make=web_tools.search),
    Hosted(begins="web_fetch_", needs="web", make=web_tools.fetch),
)
CHAT = RESPONSES  # types of a request that the agent makes up itself: chat has no hosted types
KINDS: Mapping[str, tuple[Hosted, ...]] = {"responses": RESPONSES, "messages": MESSAGES, "chat": CHAT}


def hosted(api: str, tool: Any) -> Hosted | None:
    """The row for a tool of a request, or None: the client runs it."""
    kind = str(tool.get("type", "")) if isinstance(tool, dict) else ""
    return next((row for row in KINDS[api] if kind.startswith(row.begins)), None)
