"""The command line as a product: quick to start, every command documented, JSON everywhere, errors in words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from nemotron_ops.cli import COMMANDS, cli, main
from nemotron_ops.models.synthetic.shape import MOE
from nemotron_ops.models.synthetic.write import write_tiny

HEAVY = ("httpx", "huggingface_hub", "numpy", "gguf", "psutil", "rich", "asyncio", "prometheus_client", "uvloop")
WITHOUT_JSON = {"mcp", "tunnel", "attach", "self completion"}  # they hand the terminal over, or print for a shell


def leaves(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            sub = command.get_command(click.Context(command), name)
            assert sub is not None
            yield from leaves(sub, f"{path} {name}".strip())
    else:
        yield path, command


LEAVES = dict(leaves(cli, ""))


@pytest.mark.process
def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom nemotron_ops.cli import cli\ntry:\n cli(['--help'])\nexcept SystemExit: pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_one_line_in_the_list_of_commands(name: str) -> None:
    line = COMMANDS[name][2]
    assert line.endswith(".")
    assert len(line) <= 80


@pytest.mark.parametrize("path", sorted(LEAVES))
def test_every_command_has_help_for_itself_and_its_options(path: str) -> None:
    command = LEAVES[path]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{path} {parameter.opts[0]} has no help"


@pytest.mark.parametrize("path", sorted(LEAVES))
def test_every_command_can_answer_in_json(path: str) -> None:
    if path not in WITHOUT_JSON:
        assert any("--json" in p.opts for p in LEAVES[path].params), f"{path} has no --json"


@pytest.mark.process
def test_planning_a_file_that_is_here_imports_no_hub(tmp_path: Path) -> None:
    """Takes 0.3 s: a process of its own."""
    path = write_tiny(MOE, tmp_path / "t.gguf", quant="Q8_0")[0]
    code = (
        "import sys; from nemotron_ops.cli import cli; cli.main(sys.argv[1:], standalone_mode=False); "
        "print([m for m in ('httpx', 'huggingface_hub', 'nemotron_ops.models.hub') if m in sys.modules])"
    )
    words = ["plan", str(path), "--gpu", "none", "--ram", "16", "--backend", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, env={"HOME": str(tmp_path)}
    )
    assert done.stdout.splitlines()[-1] == "[]"


def outcome(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert isinstance(ended.value.code, int)
    return ended.value.code, capsys.readouterr().err


def test_a_mistyped_command_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    code, err = outcome(capsys, "biuld")
    assert code == 2
    assert "Did you mean 'build'?" in err


def test_an_error_is_one_line_with_a_hint_and_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    code, err = outcome(capsys, "recipes", "show", "31b")
    assert code == 3
    assert err.splitlines() == ["error: cannot load recipe 31b: there is no such recipe", "hint: did you mean 30b?"]


def test_serving_nothing_says_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    code, err = outcome(capsys, "serve")
    assert code == 2
    assert "hint: try `nemotron-ops serve 30b`" in err


def test_listening_beyond_loopback_without_a_key_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, err = outcome(capsys, "serve", "tiny", "--host", "0.0.0.0", "--dry-run")
    assert code == 11
    assert "keys create" in err
