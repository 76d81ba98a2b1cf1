"""`[[adapters]]` of recipes, and `--adapter` beside them. Pure."""

from __future__ import annotations

import pytest

from nemotron_ops.errors import RecipeError
from nemotron_ops.operations.adapters import with_adapters
from nemotron_ops.recipes.load import parse_recipe
from nemotron_ops.recipes.schema import Adapter

TEXT = '[model]\nsynthetic = "moe"\n[profiles.chat]\n[[adapters]]\nname = "support"\nfile = "s.gguf"\nscale = 0.5\n'


def test_adapters_of_a_recipe() -> None:
    recipe = parse_recipe(TEXT, name="mine", origin="x")
    assert recipe.adapters == (Adapter(name="support", file="s.gguf", scale=0.5),)


@pytest.mark.parametrize(
    "more",
    [
        'name = "support"', 'name = "chat"', 'name = "Not It"', 'name = "b"\nbase_sha256 = ["12"]',
        'name = "b"\nscale = 99',
    ],
)  # fmt: skip
def test_names_hashes_and_scales_are_checked(more: str) -> None:
    with pytest.raises(RecipeError, match=r"x: adapters\[1\]"):
        parse_recipe(f"{TEXT}[[adapters]]\n{more}\n", name="mine", origin="x")


def test_words_of_the_command_line_are_added() -> None:
    recipe = with_adapters(
        parse_recipe(TEXT, name="mine", origin="x"), ("support", "legal", "/a/Big One.gguf", "x=/y.gguf")
    )
    assert [(a.name, a.file) for a in recipe.adapters] == [
        ("support", "s.gguf"), ("legal", ""), ("big-one", "/a/Big One.gguf"), ("x", "/y.gguf"),
    ]  # fmt: skip
    with pytest.raises(RecipeError, match="--adapter: adapters"):
        with_adapters(recipe, ("chat",))
