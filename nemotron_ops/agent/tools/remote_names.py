"""Names of other servers' tools as functions for the model: `server__tool`. Pure."""

from __future__ import annotations

import re

PARTS = "__"
LONGEST = 64  # letters of a function's name in OpenAI's API
OTHER = re.compile(r"[^a-zA-Z0-9_-]")


def function_name(server: str, tool: str) -> str:
    """The function's name for a tool of a server; two tools may come to one name."""
    return OTHER.sub("_", f"{server}{PARTS}{tool}")[:LONGEST]
