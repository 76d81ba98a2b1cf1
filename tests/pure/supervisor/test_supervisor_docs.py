"""Promises and architecture name tests that exist; control socket and lifecycle are documented completely."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from nemotron_ops.supervisor.instance.diagram import MEANINGS, mermaid
from nemotron_ops.supervisor.snapshot import State

ROOT = Path(__file__).parents[3]
KEYED = {"table", "status", "_instance"}
PROMISES = (ROOT / "docs/explanation/promises.md").read_text()
ARCHITECTURE = (ROOT / "docs/explanation/architecture.md").read_text()
NAMED = r"`(test_\w+\.py)::(test_\w+)`"


def names_in(name: str) -> set[str]:
    (path,) = (ROOT / "tests").rglob(name)
    return {n.name for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef)}


def test_every_promise_names_a_test_that_exists() -> None:
    named = re.findall(NAMED, PROMISES)
    assert len(named) > 30
    assert [f"{f}::{t}" for f, t in named if t not in names_in(f)] == []


def test_every_rule_of_the_architecture_names_a_test_that_exists() -> None:
    named = re.findall(NAMED, ARCHITECTURE)
    assert len(named) > 5
    assert [f"{f}::{t}" for f, t in named if t not in names_in(f)] == []


def test_every_line_of_the_promises_is_held_by_a_test() -> None:
    rows = [line for line in PROMISES.splitlines() if line.startswith("| ") and "---" not in line]
    heads = ("held by |",)
    assert [r for r in rows if not r.endswith(heads) and "::test_" not in r] == []


def test_every_verb_and_every_key_of_the_control_socket_is_documented() -> None:
    page = (ROOT / "docs/reference/control-socket.md").read_text()
    tree = ast.parse((ROOT / "nemotron_ops/supervisor/control/verbs.py").read_text())
    keys: set[str] = set()
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and function.name in KEYED:
            dicts = [n for n in ast.walk(function) if isinstance(n, ast.Dict)]
            keys |= {str(k.value) for d in dicts for k in d.keys if isinstance(k, ast.Constant)}
    assert {"status", "want", "load_progress", "gateway"} <= keys
    assert {k for k in keys if f"`{k}`" not in page} == set()


def test_every_state_has_a_meaning_and_is_in_the_picture() -> None:
    assert set(MEANINGS) == set(State)
    assert all(str(state) in mermaid() for state in State)
