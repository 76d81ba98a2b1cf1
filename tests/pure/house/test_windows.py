"""On Windows itself: one clear refusal; the command line and all pure parts import there. Simulated. Costs 5 s."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nemotron_ops.cli.windows import check_platform
from nemotron_ops.errors import HostError

ROOT = Path(__file__).parents[3]
# Packages of others come first, as they are: only our own modules are tried without what Windows lacks.
SIMULATED = """
import sys
from importlib.abc import MetaPathFinder
import asyncio, click, filelock, gguf, httpx, jinja2, mcp_types, msgspec, numpy, psutil, rich, starlette, subprocess
ABSENT = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "uvloop", "syslog"}
class Windows(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
for name in ABSENT:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Windows())
sys.platform = "win32"
"""
IMPORTS = """
import ast
from importlib import import_module
from pathlib import Path
wrong, count = [], 0
for path in sorted(Path("nemotron_ops").rglob("*.py")):
    head = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\\n\\n")[0].rstrip()
    if head.endswith("Pure.") or path.parts[1] == "cli":
        count += 1
        try:
            import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
        except ImportError as exc:
            wrong.append(f"{path}: {exc}")
assert count > 250, count
assert not wrong, "\\n".join(wrong)
"""


def simulated(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", SIMULATED + program, *words]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def test_the_command_line_and_all_pure_parts_import_without_unix() -> None:
    done = simulated(IMPORTS)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("words", [("serve", "30b"), ("doctor",), ("fetch", "30b", "--json")])
def test_a_command_is_refused_in_two_lines_with_the_way_on(words: tuple[str, ...]) -> None:
    done = simulated("from nemotron_ops.cli import main; main()", *words)
    assert done.returncode == 4
    first, second = done.stderr.splitlines()
    assert first.startswith("error: cannot run on Windows itself")
    assert "WSL 2" in second
    assert done.stdout == ""


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("serve", "--help")])
def test_help_and_version_are_shown(words: tuple[str, ...]) -> None:
    done = simulated("from nemotron_ops.cli import main; main()", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "nemotron-ops" in done.stdout


def test_other_systems_are_not_refused() -> None:
    for platform in ("linux", "darwin"):
        check_platform(platform, ["serve"])
    check_platform("win32", [])
    with pytest.raises(HostError):
        check_platform("win32", ["status"])
