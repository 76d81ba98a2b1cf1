"""Writes the found flags into a user recipe, and takes them out again. Disk.

The recipe as it was is kept first, in `state/measure/optimize/NAME.json`, then the new one is written: a kill between
both leaves the old recipe. Undo refuses a recipe that was changed by hand since.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemotron_ops.errors import RecipeError, UsageError
from nemotron_ops.files import read_json, write_atomic, write_json
from nemotron_ops.measure.tuning.edit import with_server
from nemotron_ops.paths import Layout
from nemotron_ops.recipes.load import load_recipe, parse_recipe


def write(name: str, values: Mapping[str, Any], comment: str, layout: Layout) -> Path:
    """Write the user recipe `name` with `values` in `[server]`; returns its path."""
    path = layout.user_recipes / f"{name}.toml"
    before = path.read_text(encoding="utf-8") if path.exists() else None
    source = before if before is not None else Path(load_recipe(name, layout).origin).read_text(encoding="utf-8")
    text = with_server(source, values, comment)
    parse_recipe(text, name=name, origin=str(path))
    kept = read_json(_kept(name, layout)) or {}
    original = kept["before"] if kept and before is not None and kept["after"] == _hash(before) else before
    write_json(_kept(name, layout), {"before": original, "after": _hash(text)})
    write_atomic(path, text)
    return path


def undo(name: str, layout: Layout) -> Path | None:
    """Put the recipe back as it was before; returns its path, None if it was the shipped one.

    Raises UsageError where nothing was written, RecipeError where the recipe was changed since.
    """
    path, kept = layout.user_recipes / f"{name}.toml", read_json(_kept(name, layout))
    if kept is None:
        raise UsageError(f"cannot undo: `optimize` has written no recipe {name}")
    now = path.read_text(encoding="utf-8") if path.exists() else None
    if now is not None and _hash(now) != kept["after"] and now != kept["before"]:
        raise RecipeError(
            f"cannot undo {name}: {path} was changed since", hint="take the lines of `optimize` out of it"
        )
    if kept["before"] is None:
        path.unlink(missing_ok=True)
    else:
        write_atomic(path, kept["before"])
    _kept(name, layout).unlink()
    return path if kept["before"] is not None else None


def _kept(name: str, layout: Layout) -> Path:
    return layout.state / "measure" / "optimize" / f"{name}.json"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
