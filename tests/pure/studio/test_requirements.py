"""Every requirement of the page has a test that is there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.tables.page_requirements import REQUIREMENTS

TESTS = Path(__file__).parents[2]


def test_the_requirements_are_all_there() -> None:
    assert list(REQUIREMENTS) == list(range(1, 30))


@pytest.mark.parametrize("number", REQUIREMENTS)
def test_its_tests_are_there(number: int) -> None:
    _, tests = REQUIREMENTS[number]
    assert tests
    for test in tests:
        file, _, name = test.partition("::")
        tree = ast.parse((TESTS / f"{file}.py").read_text())
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, test
