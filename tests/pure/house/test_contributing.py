"""CONTRIBUTING.md names paths and make targets that exist, and tests import no other test module."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()


def test_every_path_that_it_names_exists() -> None:
    paths = re.findall(r"`((?:nemotron_ops|tests|docs)/[\w./-]+)`", PAGE) + re.findall(r"\]\((docs/[^)#]+)", PAGE)
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert len(paths) > 20


def test_every_make_target_that_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)[ `|]", PAGE)) - targets == set()


def test_no_test_module_imports_another() -> None:
    wrong = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and re.match(r"tests\..*\.test_", node.module or ""):
                wrong.add(str(path.relative_to(ROOT / "tests")))
    assert wrong == set()
