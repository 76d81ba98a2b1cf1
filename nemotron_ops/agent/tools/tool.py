"""A tool that a model may call, one call of it, and what the call gave. Pure.

For the model each tool is a function. What a client sees of it depends on its kind and on the client's API: see `apis`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class ToolKind(StrEnum):
    """What a tool does: each API has its own shape for each kind."""

    PYTHON = "python"
    BASH = "bash"
    SEARCH = "search"
    PAGE = "page"
    MCP = "mcp"


class InvalidError(ValueError):
    """A request that cannot be run; `code` is that of the error in the answer."""

    def __init__(self, message: str, code: str = "invalid_field") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call as the model made it; `arguments` is its JSON text."""

    id: str
    name: str
    arguments: str

    @property
    def given(self) -> dict[str, Any]:
        """The arguments; empty if they are no JSON object."""
        try:
            value = json.loads(self.arguments or "{}")
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    def text(self, name: str) -> str | None:
        """The argument `name` if it is a text."""
        value = self.given.get(name)
        return value if isinstance(value, str) else None


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a call gave: `text` for the model, `detail` for the shapes of its kind, `error` a code if it failed.

    Codes: invalid_tool_input, unavailable, too_many_requests, max_uses_exceeded, url_not_allowed,
    url_not_in_prior_context, url_not_accessible, tool_failed, denied.
    """

    text: str
    detail: Any = None
    error: str = ""


Run = Callable[[Call], Awaitable[Ran]]


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One function for the model. `sends`: a call may send data out or change something outside."""

    name: str
    kind: ToolKind
    description: str
    parameters: Mapping[str, Any]
    run: Run
    most: int = 0  # calls in one answer; 0: as many as the budget allows
    sends: bool = False
    approval: str = ""  # the request's own wish, or its server's: never, once or always
    server: str = ""  # label of the server that has it
    remote: str = ""  # its name there
    listed: Mapping[str, Any] | None = None  # its definition, as that server gives it


def object_schema(**texts: str) -> dict[str, Any]:
    """The schema of arguments that are all texts, each with its description; all are required."""
    return {
        "type": "object",
        "properties": {name: {"type": "string", "description": about} for name, about in texts.items()},
        "required": list(texts),
        "additionalProperties": False,
    }
