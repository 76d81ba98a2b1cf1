"""The whole llama-server and llama-cli command line of every shipped recipe and profile, word by word.

`python tests/pure/engine/test_golden_argv.py` writes the golden files again; read the diff before you commit it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from nemotron_ops.cli.serve import command_text
from nemotron_ops.engine.args import cli_argv, server_argv
from nemotron_ops.recipes.load import read_recipe, shipped_dir
from nemotron_ops.recipes.resolve import resolve

GOLDEN = Path(__file__).parents[2] / "golden" / "argv"
RECIPES = sorted(p.stem for p in shipped_dir().glob("*.toml"))
CASES = [f"{name}-{profile}" for name in RECIPES for profile in ("chat", "conversation", "guide", "tools")]


def command_lines(case: str) -> str:
    name, _, profile = case.rpartition("-")
    plan = resolve(read_recipe(shipped_dir() / f"{name}.toml"), profile=profile)
    model = "MODEL.gguf"
    if profile == "conversation":
        return command_text(cli_argv(binary="llama-cli", model=model, settings=plan.server)) + "\n"
    argv = server_argv(
        binary="llama-server", model=model, socket="{socket}", api_key_file="{api_key_file}", alias=plan.alias,
        settings=plan.server,
    )  # fmt: skip
    return command_text(argv) + "\n"


@pytest.mark.parametrize("case", CASES)
def test_the_command_line_is_word_for_word_as_expected(case: str) -> None:
    assert command_lines(case) == (GOLDEN / f"{case}.txt").read_text()


@pytest.mark.parametrize("name", RECIPES)
def test_the_guides_flags_are_in_its_profile(name: str) -> None:
    line = command_lines(f"{name}-guide")
    for flag in ("--prio 3", "--min-p 0.01", "--temp 0.6", "--top-p 0.95", "--ctx-size 16384"):
        assert flag in line
    assert "--special" not in line
    conversation = command_lines(f"{name}-conversation")
    for flag in ("--ctx-size 16384", "--seed 3407", "--prio 2", "--temp 0.6", "--top-p 0.95"):
        assert flag in conversation


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for one in CASES:
        (GOLDEN / f"{one}.txt").write_text(command_lines(one))
