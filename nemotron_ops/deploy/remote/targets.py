"""`targets.toml`: groups of targets and what they serve. Pure.

[groups.prod]
targets = ["gpu1", "gpu2", "admin@gpu3"]    # any name that ssh accepts
recipes = ["30b"]                           # default for `deploy --recipe`
scope = "system"
host = "0.0.0.0"
port = 8001
slots = 4                                   # concurrent requests per target (balancer)
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from nemotron_ops.errors import RecipeError, UsageError
from nemotron_ops.service.spec import Scope


@dataclass(frozen=True, kw_only=True)
class Group:
    """One table of `[groups]`."""

    name: str
    targets: tuple[str, ...]
    recipes: tuple[str, ...] = ()
    profile: str = ""
    scope: Scope = Scope.USER
    host: str = ""
    port: int = 8001
    slots: int = 4


def parse_groups(text: str, *, origin: str) -> dict[str, Group]:
    """The groups in `text`. Raises RecipeError that names file, key, what was expected and what was found."""
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise RecipeError(f"{origin}: not valid TOML: {exc}") from exc
    unknown = set(value) - {"groups"}
    if unknown:
        raise RecipeError(f"{origin}: {min(unknown)}: unknown key; expected [groups.NAME]")
    return {name: _group(name, table, origin) for name, table in value.get("groups", {}).items()}


def expand(words: Sequence[str], groups: dict[str, Group]) -> tuple[tuple[str, ...], Group | None]:
    """The targets that `words` name, without duplicates, and the group if there is exactly one."""
    found: list[str] = []
    for word in words:
        found += groups[word].targets if word in groups else [word]
    if not found:
        raise UsageError(
            "cannot deploy: no target named", hint="any name that `ssh NAME` takes, or a group of targets.toml"
        )
    for target in found:
        if target.startswith("-") or any(c.isspace() for c in target):
            raise UsageError(f"cannot deploy to {target!r}: not the name of a host")
    group = groups.get(words[0]) if len(words) == 1 else None
    return tuple(dict.fromkeys(found)), group


def _group(name: str, table: Any, origin: str) -> Group:
    if not isinstance(table, dict):
        raise RecipeError(f"{origin}: groups.{name}: expected a table, found {table!r}")
    kinds: dict[str, type | str] = {
        "targets": "list", "recipes": "list", "profile": str, "scope": "scope", "host": str, "port": int, "slots": int,
    }  # fmt: skip
    known = {f.name for f in fields(Group)} - {"name"}
    given: dict[str, Any] = {}
    for key, found in table.items():
        where = f"{origin}: groups.{name}.{key}"
        if key not in known:
            near = get_close_matches(key, known, n=1)
            raise RecipeError(f"{where}: unknown key" + (f"; did you mean {near[0]}?" if near else ""))
        given[key] = _checked(where, found, kinds[key])
    if not given.get("targets"):
        raise RecipeError(f"{origin}: groups.{name}.targets: expected a list of host names, found nothing")
    return Group(name=name, **given)


def _checked(where: str, found: Any, kind: type | str) -> Any:
    if kind == "list":
        if isinstance(found, list) and all(isinstance(x, str) for x in found):
            return tuple(found)
        raise RecipeError(f"{where}: expected a list of strings, found {found!r}")
    if kind == "scope":
        if found in list(Scope):
            return Scope(found)
        raise RecipeError(f'{where}: expected "user" or "system", found {found!r}')
    assert isinstance(kind, type)
    if not isinstance(found, kind) or isinstance(found, bool):
        raise RecipeError(f"{where}: expected {'an integer' if kind is int else 'a string'}, found {found!r}")
    return found
