"""What the system refuses reaches a person as one line: no rights, a file in the way. Processes, 5 s."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nemotron_ops.proc import python_argv

pytestmark = pytest.mark.process

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command with an empty home; returns its exit code and what it printed."""

    def command(*words: str, **env: str) -> tuple[int, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("NEMOTRON_OPS", "XDG_", "LC_", "LANG"))}
        done = subprocess.run(
            python_argv("nemotron_ops", *words), env={**kept, "HOME": str(tmp_path / "home"), **env},
            capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    return command


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path, run: Run) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/.config").write_text("")
    code, said = run("keys", "create", "x")
    assert code in (1, 4), said
    assert "Traceback" not in said
    assert str(tmp_path / "home/.config") in said


@pytest.mark.parametrize(
    "words", [("--help",), ("doctor", "--offline"), ("recipes", "list"), ("serve", "--help")], ids=str
)
def test_the_c_locale_is_enough(run: Run, words: tuple[str, ...]) -> None:
    code, said = run(*words, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert "Traceback" not in said
    assert code in (0, 4), said
