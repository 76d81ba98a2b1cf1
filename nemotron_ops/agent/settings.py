"""agent.toml: budgets of an answer, and which tools ask before they run. Disk.

[budgets]
turns = 12                  # of the model, in one answer
calls = 24                  # of hosted tools; a client may ask for fewer
total_s = 600.0
result_share = 0.125        # of the context, for one result
approval_s = 120.0          # how long a call waits to be approved

[approve]                   # by the tool's exact name; others are "never"
code_interpreter = "never"  # runs without asking
read_page = "once"          # asks a key's first time
web_search = "always"       # asks each time
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from nemotron_ops.agent.loop import Budgets
from nemotron_ops.errors import RecipeError

POLICIES = ("never", "once", "always")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The tables of agent.toml."""

    budgets: Budgets = field(default_factory=Budgets)
    approve: Mapping[str, str] = field(default_factory=dict)

    def policy(self, tool: str) -> str:
        """When a tool asks: never, once or always."""
        return self.approve.get(tool, "never")


def settings_path(config: Path) -> Path:
    """The file below the configuration folder."""
    return config / "agent.toml"


def load(config: Path) -> Settings:
    """The settings, or the defaults without that file. Raises RecipeError."""
    path = settings_path(config)
    try:
        value = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Settings()
    except (OSError, ValueError, RecursionError) as exc:
        raise RecipeError(f"cannot read {path}: {exc}") from exc
    if unknown := set(value) - {"budgets", "approve"}:
        raise RecipeError(f"{path}: {min(unknown)}: unknown table", hint="known: budgets, approve")
    return Settings(budgets=_budgets(value.get("budgets", {}), path), approve=_approve(value.get("approve", {}), path))


def _budgets(value: Any, path: Path) -> Budgets:
    known = {f.name: f.default for f in fields(Budgets)}
    if not isinstance(value, dict):
        raise RecipeError(f"{path}: budgets: expected a table")
    for name, given in value.items():
        if name not in known:
            raise RecipeError(f"{path}: budgets.{name}: unknown key", hint=f"known: {', '.join(known)}")
        kinds = (int, float) if isinstance(known[name], float) else (int,)
        if isinstance(given, bool) or not isinstance(given, kinds) or given <= 0:
            raise RecipeError(f"{path}: budgets.{name}: expected a number above 0, found {given!r}")
    if value.get("result_share", 0) > 1:
        raise RecipeError(f"{path}: budgets.result_share: expected at most 1")
    return Budgets(**value)


def _approve(value: Any, path: Path) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise RecipeError(f"{path}: approve: expected a table")
    for name, policy in value.items():
        if policy not in POLICIES:
            raise RecipeError(f"{path}: approve.{name}: expected never, once or always, found {policy!r}")
    return value
