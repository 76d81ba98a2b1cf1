"""Names of Ollama's library mean recipes."""

from __future__ import annotations

import pytest

from nemotron_ops.errors import UsageError
from nemotron_ops.paths import Layout
from nemotron_ops.recipes.load import recipe_for
from nemotron_ops.recipes.ollama_names import recipe_word


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nemotron-3-nano", "30b"),
        ("nemotron-3-nano:latest", "30b"),
        ("Nemotron-3-Nano:30B", "30b"),
        ("nemotron-3-nano:4b-q8_0", "4b:Q8_0"),
        ("nemotron-3-nano:30b-a3b-q4_K_M", "30b:Q4_K_M"),
        ("library/nemotron-3-nano:4b", "4b"),
        ("nemotron-3-super", "120b"),
        ("ollama://nemotron-3-nano:4b", "4b"),
        ("https://ollama.com/library/nemotron-3-nano:4b", "4b"),
        ("https://ollama.com/library/nemotron-3-nano/tags", "30b"),
        ("registry.ollama.ai/library/nemotron-3-super:120b", "120b"),
    ],
)
def test_a_name_of_ollamas_library_means_a_recipe(text: str, expected: str, layout: Layout) -> None:
    assert recipe_word(text) == expected
    recipe = recipe_for(text, layout)
    name, _, quant = expected.partition(":")
    assert recipe.name == name
    assert not quant or recipe.model.quant == quant


@pytest.mark.parametrize(
    "text", ["30b", "30b:Q8_0", "a/b", "./x.gguf", "library/other", "llama3:8b", "", "hf.co/a/b:Q4"]
)
def test_other_words_stay_as_they_are(text: str) -> None:
    assert recipe_word(text) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("https://ollama.com/library/llama3", "no recipe here is that model"),
        ("nemotron-3-nano:30b-cloud", "it runs on Ollama's machines"),
        ("nemotron-3-nano:7b", "no recipe here is that model"),
    ],
)
def test_a_model_without_a_recipe_is_refused_with_the_commands_to_use(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        recipe_word(text)
    assert "models search" in str(caught.value.hint)
