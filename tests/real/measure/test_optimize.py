"""`optimize tiny` with the real llama-server: trials, the written recipe, undo, mistakes. Costs 40 s."""

from __future__ import annotations

import tomllib

import pytest

from tests.stages.installation import Installation

pytestmark = [pytest.mark.real, pytest.mark.serial]


def test_a_worse_recipe_gets_its_flags_back_and_undo_takes_them_out(installation: Installation) -> None:
    own = installation.home / "config" / "recipes" / "slow.toml"
    own.parent.mkdir(parents=True)
    text = (
        'title = "slow"\narch = "nemotron_h_moe"\n[model]\nsynthetic = "moe"\nquant = "Q8_0"\nalias = "slow"\n'
        "[context]\ndefault_tokens = 1024\n[server]\nthreads = 1\nubatch_size = 1  # a token at a time\nparallel = 2\n"
    )
    own.write_text(text)
    found = installation.json("optimize", "slow", "--minutes", "0.5", "--most", "6")
    assert found["chosen"]["ubatch_size"] >= 128
    assert found["gain"] > 0.1
    written = tomllib.loads(own.read_text())["server"]
    assert written["ubatch_size"] == found["chosen"]["ubatch_size"]
    assert "optimize" in own.read_text()
    assert "was 1" in own.read_text()
    assert found["trials"][0]["candidate"] == {}  # the recipe as it is comes first
    assert f"--ubatch-size {written['ubatch_size']}" in installation.run("serve", "slow", "--dry-run").stdout
    installation.run("optimize", "slow", "--undo")
    assert own.read_text() == text


def test_a_dry_run_names_the_candidates_and_measures_nothing(installation: Installation) -> None:
    found = installation.json("optimize", "tiny", "--dry-run", "--try", "cache_type_k=q8_0", "--most", "50")
    assert found[0] == {}
    assert {"cache_type_k": "q8_0"} in found
    assert not (installation.home / "state" / "measure").exists()


def test_mistakes_are_told(installation: Installation) -> None:
    assert "it is no recipe by name" in installation.run("optimize", "a/b:Q4", code=2).stderr
    assert "it is no flag" in installation.run("optimize", "tiny", "--try", "speed=9", code=2).stderr
    assert "has written no recipe tiny" in installation.run("optimize", "tiny", "--undo", code=2).stderr
