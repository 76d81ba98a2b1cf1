"""Sets keys of a recipe's `[server]` table, each with a comment; everything else stays, comments included. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

TABLE = re.compile(r"^\s*\[")
SERVER = re.compile(r"^\s*\[\s*server\s*\]\s*(#.*)?$")


def with_server(text: str, values: Mapping[str, Any], comment: str) -> str:
    """`text` with `values` in `[server]`; the old line of a key is kept in its comment."""
    lines = text.rstrip("\n").split("\n")
    start = next((i for i, line in enumerate(lines) if SERVER.match(line)), None)
    if start is None:
        lines += ["", "[server]"]
        start = len(lines) - 1
    for key, value in values.items():
        end = next((i for i in range(start + 1, len(lines)) if TABLE.match(lines[i])), len(lines))
        at = next((i for i in range(start + 1, end) if re.match(rf"\s*{re.escape(key)}\s*=", lines[i])), None)
        was = f"; was {_value_in(lines[at])}" if at is not None else ""
        line = f"{key} = {toml(value)}".ljust(34) + f" # {comment}{was}"
        if at is None:
            lines.insert(start + 1, line)
        else:
            lines[at] = line
    return "\n".join(lines) + "\n"


def toml(value: Any) -> str:
    """A number, a text or a truth value in TOML."""
    return json.dumps(value)


def _value_in(line: str) -> str:
    return line.partition("=")[2].partition("#")[0].strip()
