"""Recipes written for models of the hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemotron_ops.engine.args import server_argv
from nemotron_ops.recipes.load import parse_recipe
from nemotron_ops.recipes.resolve import resolve
from nemotron_ops.recipes.schema import Recipe
from nemotron_ops.recipes.written import Described, recipe_text


def read(model: Described) -> Recipe:
    return parse_recipe(recipe_text(model), name="own", origin="own.toml")


def test_a_chat_model_gets_context_profile_and_projector() -> None:
    model = Described(
        repo="owner/Model-GGUF", quant="Q8_0", alias="owner/Model", title="Model 1", arch="nemotron_h",
        license="apache-2.0", base="owner/Model", trained_tokens=8192, mmproj=True,
        sampling={"temp": 0.6, "top_k": 20}, sampling_from="generation_config.json of owner/Model",
    )  # fmt: skip
    recipe = read(model)
    assert (recipe.model.repo, recipe.model.quant, recipe.model.mmproj) == ("owner/Model-GGUF", "Q8_0", True)
    assert (recipe.context.default_tokens, recipe.context.max_tokens) == (8192, 8192)
    plan = resolve(recipe)
    assert plan.profile == "chat"
    assert (plan.value("temp"), plan.value("top_k")) == (0.6, 20)
    assert "Licence: apache-2.0" in recipe_text(model)


@pytest.mark.parametrize(
    ("pooling", "words"),
    [(1, ("--embedding", "--pooling", "mean")), (3, ("--embedding", "--pooling", "last")), (4, ("--rerank",))],
)
def test_embedding_and_reranking_models_get_their_flags(pooling: int, words: tuple[str, ...]) -> None:
    recipe = read(Described(repo="owner/Embed-GGUF", pooling=pooling, trained_tokens=512))
    assert recipe.server.extra_args == words
    assert not recipe.profiles
    argv = server_argv(
        binary=Path("llama-server"), model=Path("m.gguf"), socket="s", api_key_file="k", alias="a",
        settings={"parallel": 4}, extra=words,
    )  # fmt: skip
    assert set(words) <= set(argv)


def test_text_of_the_network_stays_text() -> None:
    title = 'a"\n[model]\npath = "/etc/passwd"\\ \x1b[31m\x7f “ü”'
    recipe = read(
        Described(repo="owner/Model-GGUF", title=title, license="x\ny = 1", base="a\nb", trained_tokens=1 << 20)
    )
    assert recipe.model.path == ""
    assert recipe.title.startswith('a" [model] path = "/etc/passwd"\\')
