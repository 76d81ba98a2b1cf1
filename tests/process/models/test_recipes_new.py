"""`recipes new REPO` against a hub on loopback: a whole recipe, and one that serves."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemotron_ops.models.synthetic.shape import MOE
from nemotron_ops.models.synthetic.write import write_tiny
from tests.fakes.hub import Hub
from tests.stages.installation import Installation

pytestmark = pytest.mark.process

REPO = "owner/Tiny-Test-GGUF"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub() as hub:
        for label in ("Q8_0", "Q4_0"):
            hub.add(REPO, f"Tiny-Test-{label}.gguf", write_tiny(MOE, tmp_path / f"{label}.gguf", quant=label)[0])
        hub.add(REPO, "mmproj-F16.gguf", b"GGUF")
        yield hub


@pytest.fixture
def here(home: Path, hub: Hub) -> Installation:
    home.mkdir()
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("NEMOTRON_OPS", "XDG_", "HF_", "LLAMA_"))}
    return Installation(home=home, env={**keep, "HOME": str(home), "NEMOTRON_OPS_HOME": str(home), **hub.env})


def test_a_recipe_is_written_from_header_and_card(here: Installation, hub: Hub) -> None:
    path = Path(here.json("recipes", "new", f"{REPO}:Q4_0")["path"])
    assert path.name == "tiny-test.toml"
    recipe = tomllib.loads(path.read_text())
    assert recipe["model"] == {"repo": REPO, "quant": "Q4_0", "alias": "owner/Tiny-Test", "mmproj": True}
    assert recipe["arch"] == "nemotron_h_moe"
    assert recipe["profiles"]["chat"]["temp"] == 1.0
    assert "general.sampling" in recipe["profiles"]["chat"]["about"]
    assert not json.loads(here.run("recipes", "validate", "--json").stdout)["wrong"]


def test_a_second_one_of_the_name_is_refused_with_the_command_to_use(here: Installation) -> None:
    here.run("recipes", "new", REPO + ":Q8_0")
    told = here.run("recipes", "new", REPO, code=3).stderr
    assert "there is one of that name" in told
    assert f"recipes new NAME --repo {REPO}" in told
    assert (
        tomllib.loads(here.run("recipes", "new", "mine", "--repo", REPO, "--dry-run").stdout)["model"]["repo"] == REPO
    )


def test_a_repository_that_is_not_there_leaves_no_file(here: Installation) -> None:
    assert "Traceback" not in here.run("recipes", "new", "owner/None-GGUF", code=7).stderr
    assert not list(here.home.glob("config/recipes/*"))
