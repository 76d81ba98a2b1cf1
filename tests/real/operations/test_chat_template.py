"""A recipe's own chat template: the engine reads it, a reload rolls an edit out, a bad one harms nothing. 8 s."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.stages.installation import Installation

pytestmark = pytest.mark.real

RECIPE = '[model]\nsynthetic = "moe"\nchat_template_file = "mine.jinja"\n[context]\ndefault_tokens = 2048\n'


@pytest.fixture
def template(installation: Installation) -> Path:
    recipes = installation.home / "config" / "recipes"
    recipes.mkdir(parents=True)
    (recipes / "mine.toml").write_text(RECIPE)
    own = installation.run("models", "show", "tiny", "--template").stdout
    path = recipes / "mine.jinja"
    path.write_text("{{- '<marked one>' -}}" + own)
    return path


@pytest.fixture
def port(installation: Installation, template: Path, free_port: Callable[[], int]) -> Iterator[int]:
    port = free_port()
    installation.run("serve", "mine", "--detach", "--port", str(port))
    yield port
    installation.run("stop", "--now")


def prompt(port: int) -> str:
    body = {"model": "mine", "messages": [{"role": "user", "content": "What is 2 + 2?"}]}
    answer = httpx.post(f"http://127.0.0.1:{port}/apply-template", json=body, timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["prompt"])


def test_the_engine_reads_it_and_an_edit_is_rolled_out_by_a_reload(
    installation: Installation, template: Path, port: int
) -> None:
    assert prompt(port).startswith("<marked one>")
    before = installation.json("status")["instances"][0]["pid"]
    template.write_text(template.read_text().replace("marked one", "marked two"))
    assert installation.json("reload")["replaced"] == ["mine-0"]
    assert prompt(port).startswith("<marked two>")
    assert installation.json("status")["instances"][0]["pid"] != before


def test_a_template_that_cannot_be_used_is_told_and_what_runs_goes_on(
    installation: Installation, template: Path, port: int
) -> None:
    template.write_text("{% if %}")
    refused = installation.run("reload", code=9)
    assert "mine-0" in refused.stderr
    assert prompt(port).startswith("<marked one>")
    template.unlink()
    refused = installation.run("reload", code=10)
    assert "cannot read the chat template" in refused.stderr
    assert prompt(port).startswith("<marked one>")
    wrong = installation.run("recipes", "validate", code=3)
    assert "cannot read the chat template" in wrong.stderr


def test_a_recipe_is_given_a_template_and_the_models_own_again(
    installation: Installation, template: Path, port: int, tmp_path: Path
) -> None:
    before = installation.json("recipes", "template", "mine")
    assert before["own"]
    assert before["chat_template"].startswith("{{- '<marked one>' -}}")
    recipe, kept = template.with_name("mine.toml"), template.read_text()
    for wrong, code in (
        ("{% if %}", 3),
        ("", 3),
        ("{{ raise_exception('never') }}", 9),
    ):  # the last for the engine alone
        (tmp_path / "wrong.jinja").write_text(wrong)
        refused = installation.run("recipes", "template", "mine", str(tmp_path / "wrong.jinja"), code=code)
        assert "Traceback" not in refused.stderr
        assert (recipe.read_text(), template.read_text()) == (RECIPE, kept)
        assert prompt(port).startswith("<marked one>")
    (tmp_path / "other.jinja").write_text(kept.replace("marked one", "marked two"))
    assert installation.json("recipes", "template", "mine", str(tmp_path / "other.jinja"))["reload"]["replaced"]
    assert prompt(port).startswith("<marked two>")
    installation.run("recipes", "template", "mine", "--own")
    assert not prompt(port).startswith("<marked")
    assert "chat_template_file" not in recipe.read_text()
    assert not template.exists()
    assert "names none" in installation.run("recipes", "template", "mine", "--own", code=3).stderr


def test_a_shipped_recipe_is_copied_for_a_template_and_comes_back(installation: Installation, tmp_path: Path) -> None:
    file, copy = tmp_path / "t.jinja", installation.home / "config" / "recipes" / "tiny.toml"
    file.write_text(installation.run("recipes", "template", "tiny").stdout)
    installation.run("recipes", "template", "tiny", str(file))
    assert 'chat_template_file = "tiny.jinja"' in copy.read_text()
    assert installation.json("recipes", "template", "tiny")["own"]
    installation.run("recipes", "template", "tiny", "--own")
    assert list(copy.parent.iterdir()) == []
