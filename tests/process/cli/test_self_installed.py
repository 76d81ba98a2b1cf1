"""The wheel and the sdist: built, installed by pip and as uv's tool, whole, damaged, completed by bash. Costs 11 s."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.process, pytest.mark.long, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[3]
UV = Path(sys.executable).with_name("uv")


def run(*words: str | Path, code: int = 0, env: dict[str, str] | None = None) -> str:
    argv = [str(word) for word in words]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=200, env={**os.environ, **(env or {})}
    )
    assert done.returncode == code, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist of this checkout, and the wheel that is built from that sdist alone."""
    folder = tmp_path_factory.mktemp("dist")
    run(UV, "build", "--sdist", "--out-dir", folder, ROOT)
    run(UV, "build", "--wheel", "--out-dir", folder, next(folder.glob("*.tar.gz")))
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a `uv tool install` of the wheel; its dependencies come from this machine's index."""
    home = tmp_path_factory.mktemp("tools")
    env = {"UV_TOOL_DIR": str(home / "tools"), "UV_TOOL_BIN_DIR": str(home / "bin")}
    run(UV, "tool", "install", "--python", sys.executable, next(built.glob("*.whl")), env=env)
    return home / "bin"


def test_a_tool_of_uv_is_whole_and_knows_who_upgrades_it(installed: Path) -> None:
    program = installed / "nemotron-ops"
    assert "installed by uv" in run(program, "self", "check")
    assert run(program, "self", "upgrade", "--dry-run").split()[:3] == ["uv", "tool", "upgrade"]
    assert "30b" in run(program, "recipes", "list")


def test_bash_completes_the_installed_program(installed: Path) -> None:
    ask = (
        'eval "$(nemotron-ops self completion bash)"; COMP_WORDS=(nemotron-ops serve 30); COMP_CWORD=2; '
        "_nemotron_ops_completion nemotron-ops; echo ${COMPREPLY[@]}"
    )
    words = run("bash", "-c", ask, env={"PATH": f"{installed}:{os.environ['PATH']}"}).split()
    assert "30b" in words
    assert all(word.startswith("30") for word in words)


def test_a_file_that_was_changed_is_named(installed: Path) -> None:
    place = next((installed.parent / "tools").rglob("nemotron_ops/progress.py"))
    place.write_text(place.read_text() + "\n# changed\n")
    said = run(installed / "nemotron-ops", "self", "check", code=4)
    assert f"{place}: has changed since it was installed" in said
