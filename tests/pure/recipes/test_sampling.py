"""Sampling of models that no recipe knows."""

from __future__ import annotations

import json

import pytest

from nemotron_ops.paths import Layout
from nemotron_ops.recipes.load import recipe_for
from nemotron_ops.recipes.resolve import Setting, resolve
from nemotron_ops.recipes.sampling import is_open, of_generation_config, of_header, with_sampling


def test_a_header_states_sampling_and_odd_values_are_left_out() -> None:
    values = {
        "general.sampling.temp": 0.6000000238418579, "general.sampling.top_k": 20.0, "general.sampling.top_p": 7.0,
        "general.sampling.min_p": True,
    }  # fmt: skip
    assert of_header(values) == {"temp": 0.6, "top_k": 20}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (json.dumps({"temperature": 0.6, "top_p": 0.95, "eos_token_id": 11}), {"temp": 0.6, "top_p": 0.95}),
        (json.dumps({"do_sample": False, "temperature": 0.6}), {}),
        (json.dumps({"temperature": "hot", "top_k": -1, "min_p": None}), {}),
        ("[]", {}),
        ("<html>", {}),
        ("", {}),
        ("[" * 100_000, {}),
    ],
)
def test_a_generation_config_is_read_as_far_as_it_makes_sense(text: str, expected: dict[str, float]) -> None:
    assert of_generation_config(text) == expected


def test_recipe_and_flags_win_and_the_source_is_named(layout: Layout) -> None:
    plan = resolve(recipe_for("owner/Other-GGUF", layout), flags={"temp": 0.1})
    assert is_open(plan)
    told = with_sampling(plan, {"temp": 0.6, "top_p": 0.9}, "generation_config.json of owner/Other")
    assert told.settings["temp"] == Setting(value=0.1, source="--temp")
    assert told.settings["top_p"] == Setting(value=0.9, source="generation_config.json of owner/Other")
    assert not is_open(resolve(recipe_for("30b", layout)))
