"""The table of faults that hosts survive: each row belongs to the test that shows it; printed in the docs.

`make docs` writes the tables.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

HOW_TO = Path(__file__).parents[2] / "docs/how-to"
PAGES = {
    "test_service_hosts": HOW_TO / "service.md",
    "test_deploy_hosts": HOW_TO / "deploy.md",
    "test_balancer_hosts": HOW_TO / "balancer.md",
}
Test = TypeVar("Test", bound=Callable[..., None])


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault, its outcome, and the test that shows it."""

    what: str
    follows: str
    test: str


def fault(what: str, follows: str) -> Callable[[Test], Test]:
    """Add a test to the table of its page."""

    def mark(test: Test) -> Test:
        test.__dict__["fault"] = Fault(what=what, follows=follows, test=test.__name__)
        return test

    return mark


def faults(module: str) -> tuple[Fault, ...]:
    """The faults that a module's tests show, in the order of the tests."""
    tests = vars(importlib.import_module(f"tests.hosts.{module}")).values()
    return tuple(t.fault for t in tests if getattr(t, "__module__", "").endswith(module) and hasattr(t, "fault"))


def table(module: str) -> str:
    """The faults as a table in Markdown, one row per test."""
    rows = [f"| what happens | what follows | `python -m pytest tests/hosts/{module}.py -k …` |", "|---|---|---|"]
    rows += [f"| {f.what} | {f.follows} | `{f.test.removeprefix('test_')}` |" for f in faults(module)]
    return "\n".join(rows)


def page_with_table(text: str, module: str) -> str:
    """The page with its table up to date."""
    begin, end = f"<!-- faults: tests/hosts/{module}.py -->", "<!-- /faults -->"
    before, found, rest = text.partition(begin)
    assert found, f"no table of {module} in the page"
    return f"{before}{begin}\n{table(module)}\n{end}{rest.partition(end)[2]}"
