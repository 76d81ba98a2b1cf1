"""Which tools the operator has allowed: `tools.json` in the config folder. Disk.

No tool is allowed until it is named. The agent and the gateway read this file; only `nemotron-ops tools` writes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from nemotron_ops import files
from nemotron_ops.errors import RecipeError, UsageError

TOOLS = ("python", "web", "mcp")
FILE = "tools.json"


def allowed(config: Path) -> tuple[str, ...]:
    """Allowed tools in the order of `TOOLS`. Raises RecipeError if the file is wrong."""
    value = files.read_json(config / FILE)
    if value is None:
        return ()
    names = value.get("enabled") if isinstance(value, dict) else None
    if not isinstance(names, list) or not all(name in TOOLS for name in names):
        raise RecipeError(
            f'cannot read {config / FILE}: expected {{"enabled": [...]}} with names of {", ".join(TOOLS)}',
            hint="write it anew: nemotron-ops tools enable python",
        )
    return tuple(tool for tool in TOOLS if tool in names)


def change(config: Path, names: Iterable[str], *, on: bool) -> tuple[str, ...]:
    """Allow or forbid tools; returns those that are allowed then."""
    given = set(names)
    with files.locked(config / f".{FILE}.lock"):
        before = set(allowed(config))
        after = tuple(tool for tool in TOOLS if tool in (before | given if on else before - given))
        files.write_json(config / FILE, {"enabled": list(after)})
    return after


def names_in(text: str) -> tuple[str, ...]:
    """`python,web` as names. Raises UsageError with the nearest right one."""
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    for name in names:
        if name not in TOOLS:
            near = get_close_matches(name, TOOLS, n=1)
            raise UsageError(
                f"cannot find the tool {name!r}: expected {', '.join(TOOLS)}",
                hint=f"did you mean {near[0]}?" if near else None,
            )
    if not names:
        raise UsageError(f"cannot change tools: expected one or more of {', '.join(TOOLS)}")
    return names


def refusal(tool: str) -> tuple[str, str]:
    """Text and hint for a request that asks for a tool which is not allowed."""
    return f"cannot use the tool {tool}: it is not enabled here", f"nemotron-ops tools enable {tool}"
