"""The owners of processes are the only writers of their state: no other module assigns to a keeper or a companion."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import nemotron_ops

ROOT = Path(nemotron_ops.__file__).parent
OWNERS = {"Keeper": "supervisor/instance/keeper.py", "Companion": "supervisor/companion.py"}


def targets(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Every `name.attribute` that is assigned to or deleted, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def attributes_of(owner: str) -> set[str]:
    """What the owner's methods assign to `self`."""
    tree = ast.parse((ROOT / OWNERS[owner]).read_text())
    (found,) = (n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == owner)
    return {t.attr for t in targets(found) if is_self(t.value)}


@pytest.mark.parametrize("owner", OWNERS)
def test_only_the_owner_of_a_process_writes_its_state(owner: str) -> None:
    own = attributes_of(owner)
    assert {"status", "record"} <= own
    wrong = []
    for path in sorted((ROOT / "supervisor").rglob("*.py")):
        if path == ROOT / OWNERS[owner]:
            continue
        tree = ast.parse(path.read_text())
        wrong += [f"{path.name}: {ast.unparse(t)}" for t in targets(tree) if t.attr in own and not is_self(t.value)]
        calls = (n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name))
        wrong += [f"{path.name}: {ast.unparse(c)}" for c in calls if c.func.id == "setattr"]  # type: ignore[attr-defined]
    assert wrong == []
