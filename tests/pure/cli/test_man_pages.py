"""Man pages of all commands, and completion that lists models and builds only while a shell asks."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from nemotron_ops.cli import COMMANDS, cli
from nemotron_ops.cli.completion import SHELLS, VARIABLE, script
from nemotron_ops.cli.man_pages import pages, roff
from nemotron_ops.errors import HostError
from nemotron_ops.operations.own_installation import OwnInstallation, how_installed, upgrade_argv


def test_every_command_has_a_page_with_all_its_options() -> None:
    made = dict(pages(cli, "nemotron-ops", "1.2"))
    assert {f"nemotron-ops-{name}.1" for name in COMMANDS} <= made.keys()
    assert "nemotron-ops-self-man.1" in made
    fetch = made["nemotron-ops-fetch.1"]
    assert fetch.startswith('.TH "NEMOTRON-OPS-FETCH" "1" "" "nemotron-ops 1.2"')
    for option in ("quant", "revision", "dry\\-run", "json"):
        assert f"\\-\\-{option}" in fetch
    assert all(text.isascii() for text in made.values())
    wrong = [line for text in made.values() for line in text.splitlines() if re.match(r"\.(?!TH|SH|B |BR|PP|TP)", line)]
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "written"),
    [(".hidden", "\\&.hidden"), ("a\\b", "a\\eb"), ("it's", "it\\(aqs"), ("x…", "x\\[u2026]"), ("a\n  b", "a b")],
)
def test_letters_mean_themselves_in_a_page(text: str, written: str) -> None:
    assert roff(text) == written


def completions(words: list[str], incomplete: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    monkeypatch.setenv("NEMOTRON_OPS_HOME", str(home))
    monkeypatch.setenv(VARIABLE, "bash_complete")
    return {c.value for c in ShellComplete(cli, {}, "nemotron-ops", VARIABLE).get_completions(words, incomplete)}


@pytest.mark.parametrize(
    ("words", "incomplete", "found"),
    [
        (["serve"], "3", {"30b", "30b-mtp"}),
        (["models", "show"], "12", {"120b"}),
        (["builds", "use"], "cpu", {"cpu-1"}),
        (["serve", "30b"], "--de", {"--detach"}),
        ([], "fet", {"fetch"}),
    ],
)
def test_models_builds_options_and_commands_are_completed(
    words: list[str], incomplete: str, found: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = tmp_path / "data" / "builds" / "cpu-1"
    build.mkdir(parents=True)
    (build / "manifest.json").touch()
    got = completions(words, incomplete, tmp_path, monkeypatch)
    assert got >= found - {"30b-mtp"}
    assert all(name.startswith(incomplete) for name in got)


def test_a_store_that_cannot_be_read_completes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "data" / "models" / "a--b" / "Q8_0.json"
    bad.parent.mkdir(parents=True)
    bad.write_text("not json")
    assert completions(["serve"], "3", tmp_path, monkeypatch) == set()


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_each_shell_asks_for_our_words(shell: str) -> None:
    assert VARIABLE in script(shell, cli)


def test_arguments_have_plain_types_while_no_shell_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert VARIABLE.startswith("_NEMOTRON_OPS")  # click makes this name of the program's
    group = cli.get_command(click.Context(cli), "self")
    assert isinstance(group, click.Group)
    assert set(group.commands) == {"completion", "man", "check", "upgrade"}


@pytest.mark.parametrize(
    ("prefix", "editable", "how"),
    [
        ("/home/u/.local/share/pipx/venvs/nemotron-ops", False, "pipx"),
        ("/home/u/venv", False, "pip"),
        ("/home/u/checkout/.venv", True, "source"),
    ],
)
def test_how_it_was_installed_is_told_by_its_folder(prefix: str, editable: bool, how: str) -> None:
    assert how_installed(Path(prefix), editable=editable) == how


def test_an_upgrade_uses_the_program_that_installed(tmp_path: Path) -> None:
    (tmp_path / "uv-receipt.toml").touch()
    uv = OwnInstallation(version="1", how=how_installed(tmp_path, editable=False), place="/x")
    assert upgrade_argv(uv, "nemotron-ops") == ["uv", "tool", "upgrade", "nemotron-ops"]
    assert upgrade_argv(uv, "./a.whl") == ["uv", "tool", "install", "--force", "./a.whl"]
    pipx = OwnInstallation(version="1", how="pipx", place="/x")
    assert upgrade_argv(pipx, "nemotron-ops") == ["pipx", "upgrade", "nemotron-ops"]
    for how, why in (("source", "runs from a checkout"), ("deploy", "belong to the deploy")):
        with pytest.raises(HostError, match=why):
            upgrade_argv(OwnInstallation(version="1", how=how, place="/x"), "nemotron-ops")
