"""The reference of recipes: their dataclasses, and the comment behind each field. Pure."""

from __future__ import annotations

import ast
import inspect
import typing
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import StrEnum
from typing import Any

from nemotron_ops import policy
from nemotron_ops.recipes import resolve, schema


def page() -> str:
    """One table per TOML table, from the dataclasses and the comments of their fields."""
    parts = [
        "# Recipes\n",
        "A recipe is a TOML file in `recipes/` (shipped) or in the configuration folder's `recipes/` (yours, which "
        "replaces a shipped one of the same name). Unknown keys are errors.\n",
    ]
    tables: list[tuple[str, type]] = [("(top level)", schema.Recipe)]
    for f in fields(schema.Recipe):
        kind = typing.get_type_hints(schema.Recipe)[f.name]
        if is_dataclass(kind) and isinstance(kind, type):
            tables.append((f"[{f.name}]", kind))
    tables.append(("[profiles.NAME]", schema.Profile))
    for title, kind in tables:
        parts += _table(title, kind)
    parts.append("# settings.toml\n\nSettings for every model on a machine; the file is in the configuration folder.\n")
    parts += _table("(top level)", resolve.Settings)
    return "\n".join(parts)


def _table(title: str, kind: type) -> list[str]:
    comments, hints = field_comments(kind), typing.get_type_hints(kind)
    about = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for f in fields(kind):
        if f.name in {"name", "origin"} and kind is schema.Recipe:
            continue
        if is_dataclass(hints[f.name]) or (kind is schema.Recipe and f.name == "profiles"):
            continue
        rows.append(f"| `{f.name}` | {_type(hints[f.name])} | {_default(f)} | {comments.get(f.name, '')} |")
    return [f"## {title}\n", about + "\n", "\n".join(rows) + "\n"]


def field_comments(kind: type) -> dict[str, str]:
    """The comment behind each field of a dataclass."""
    source = inspect.getsource(kind)
    lines = source.splitlines()
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            _, _, comment = lines[(node.end_lineno or node.lineno) - 1].partition("  # ")
            found[node.target.id] = comment.strip().replace("|", "or")
    return found


def _type(hint: Any) -> str:
    options = [h for h in (typing.get_args(hint) or (hint,)) if h is not type(None)]
    if typing.get_origin(hint) is tuple:
        return "list of strings"
    if typing.get_origin(hint) is not None and "Mapping" in str(typing.get_origin(hint)):
        return "table"
    names = {int: "integer", float: "number", str: "string", bool: "true or false"}
    return " or ".join(
        ", ".join(f"`{v}`" for v in h) if isinstance(h, type) and issubclass(h, StrEnum) else names.get(h, str(h))
        for h in options
    )


def _default(f: Field[Any]) -> str:
    if f.default is MISSING:
        return "" if f.default_factory is MISSING else "(none)"
    return (
        ""
        if f.default in (None, "", ())
        else f"`{str(f.default).lower() if f.default in (True, False) else f.default}`"
    )


def documented_classes() -> list[type]:
    """Every dataclass whose fields are keys of a recipe or of settings.toml."""
    own = [schema.Model, schema.Context, schema.Server, schema.Profile, schema.Reasoning, schema.Requests]
    return [*own, policy.Restart, policy.Health, policy.Lifecycle, resolve.Settings]
