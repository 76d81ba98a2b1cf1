"""`nemotron-ops tools` as a user runs it. About 8 s on 2 cores."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nemotron_ops.sandbox import reap

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="walls of Linux")]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(home: Path) -> Run:
    env = {**os.environ, "NEMOTRON_OPS_HOME": str(home), "A_SECRET_TOKEN": "sk-secret"}

    def command(*words: str, code: str = "", exit_code: int = 0) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "nemotron_ops", "tools", *words]
        done = subprocess.run(argv, env=env, input=code, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == exit_code, done.stderr
        return done

    return command


def test_run_prints_what_the_code_printed_and_ends_with_its_exit_code(run: Run) -> None:
    done = run("run", "python", code="import sys\nprint('out')\nsys.stderr.write('err\\n')\nsys.exit(5)", exit_code=5)
    assert done.stdout == "out\n"
    assert "err\n" in done.stderr
    assert run("run", "bash", "-", code="echo $A_SECRET_TOKEN-; false", exit_code=1).stdout == "-\n"


def test_a_limit_is_named(run: Run) -> None:
    done = run("run", "python", "--timeout", "1", code="while True: pass", exit_code=124)
    assert "stopped: the limit of time (1 s) was reached" in done.stderr
    assert "limits hit: time" in done.stderr


def test_json_gives_everything(run: Run, tmp_path: Path) -> None:
    program = tmp_path / "p.py"
    program.write_text("open('a.csv', 'w').write('1')\nprint('x')")
    found = json.loads(run("run", "python", str(program), "--json").stdout)
    assert (found["stdout"], found["exit_code"], found["limits_hit"], found["ended"]) == ("x\n", 0, [], False)
    assert found["backend"] in ("bubblewrap", "bubblewrap-wheel", "landlock", "monty")
    assert [(f["name"], f["mime"]) for f in found["files"]] == [("a.csv", "text/csv")]


def test_files_are_written_where_asked_and_overwrite_nothing(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        run("run", "python", "--out", str(out), code="import os\nos.mkdir('d')\nopen('d/.bashrc', 'w').write('1')")
    assert sorted(p.name for p in out.iterdir()) == ["bashrc", "bashrc-1"]


def test_a_session_keeps_variables_and_says_when_it_is_over(run: Run) -> None:
    run("run", "python", "--session", "mine", code="x = 20")
    assert run("run", "python", "--session", "mine", code="print(x + 1)").stdout == "21\n"
    assert run("run", "python", "--session", "other", code="print('x' in globals())").stdout == "False\n"
    done = run("run", "python", "--session", "mine", code="import os; os._exit(3)", exit_code=3)
    assert "the session 'mine' is over" in done.stderr
    assert run("run", "python", "--session", "mine", code="print('x' in globals())").stdout == "False\n"
    for name in ("mine", "other"):
        run("run", "python", "--session", name, code="import os; os._exit(1)", exit_code=1)


def test_a_killed_session_leaves_nothing_and_the_next_call_begins_anew(
    run: Run, home: Path, eventually: Callable[..., None]
) -> None:
    name = f"k{secrets.token_hex(6)}"
    run("run", "python", "--session", name, code="x = 1")
    (server,) = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if name in words_of(pid)]
    pids = [server, *reap.tree(server)]
    assert len(pids) > 2
    os.kill(server, signal.SIGKILL)
    eventually(lambda: not any(reap.alive(pid) for pid in pids))
    assert run("run", "python", "--session", name, code="print('x' in globals())").stdout == "False\n"
    run("run", "python", "--session", name, code="import os; os._exit(1)", exit_code=1)


def words_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def test_mistakes_are_told_with_the_way_out(run: Run) -> None:
    assert "expected up to 32 letters" in run("run", "python", "--session", "../x", exit_code=2).stderr
    assert "there is no backend 'nope'" in run("run", "python", "--backend", "nope", exit_code=2).stderr
    assert "did you mean python?" in run("enable", "pyhton", exit_code=2).stderr


def test_tools_are_enabled_in_a_file_that_others_read(run: Run, home: Path) -> None:
    assert "code runs in: " in run("enable", "python,web").stderr
    assert json.loads((home / "config" / "tools.json").read_text()) == {"enabled": ["python", "web"]}
    assert json.loads(run("disable", "python", "--json").stdout)["enabled"] == ["web"]
    run("enable", "mcp", "--dry-run")
    assert json.loads((home / "config" / "tools.json").read_text()) == {"enabled": ["web"]}


def test_the_doctor_names_every_wall_and_what_it_held(run: Run) -> None:
    found = json.loads(run("doctor", "--json").stdout)
    assert found["backend"]
    by_name = {b["backend"]: b for b in found["backends"]}
    assert by_name[found["backend"]]["attacks_held"] == by_name[found["backend"]]["attacks"] == 8
    assert by_name["seatbelt"]["reason"] == "needs macOS"
    assert "8 of 8 attacks held" in run("doctor").stdout
