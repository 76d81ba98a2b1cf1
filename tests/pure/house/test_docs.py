"""The reference pages are what the code says, and nothing that people write is undocumented."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = generator()


@pytest.mark.parametrize("name", sorted(GENERATE.pages()))
def test_the_reference_page_is_up_to_date(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == GENERATE.pages()[name], "run `make docs`"


@pytest.mark.parametrize("kind", GENERATE.documented_classes(), ids=lambda k: k.__name__)
def test_every_key_of_a_recipe_has_a_meaning(kind: type) -> None:
    silent = [name for name, comment in GENERATE.field_comments(kind).items() if not comment]
    simple = {"server"}  # tables have their own section
    assert [n for n in silent if n not in simple] == []


def test_every_link_between_pages_leads_somewhere() -> None:
    broken = []
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []
