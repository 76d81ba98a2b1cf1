"""Running commands to their end."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nemotron_ops import proc

pytestmark = pytest.mark.process
START_S = 3.0  # in which a command says its first line also on a machine that is busy


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def lines_of(script: str, **options: object) -> tuple[proc.Finished, list[str]]:
    seen: list[str] = []
    done = proc.run_lines(sh(script), on_line=seen.append, **options)  # type: ignore[arg-type]
    return done, seen


def test_lines_of_both_streams_come_in_order() -> None:
    done, seen = lines_of("echo a; echo b >&2; printf c")
    assert seen == ["a", "b", "c"]
    assert done.stdout == "a\nb\nc"
    assert done.ok


def test_progress_that_is_written_over_itself_comes_as_lines() -> None:
    _, seen = lines_of(r"printf '1%%\r2%%\r\n3%%\n'")
    assert seen == ["1%", "2%", "3%"]


def test_empty_lines_and_broken_bytes_survive() -> None:
    _, seen = lines_of(r"printf 'a\n\n\377b\n'")
    assert seen == ["a", "", "\ufffdb"]


def test_the_log_gets_every_line(tmp_path: Path) -> None:
    lines_of("echo a; echo b", log=tmp_path / "log")
    assert (tmp_path / "log").read_text() == "a\nb\n"


def test_a_signal_is_a_negative_code() -> None:
    done, _ = lines_of("kill -ILL $$")
    assert done.returncode == -signal.SIGILL


def test_a_program_that_is_not_there_ends_with_127() -> None:
    assert proc.run(["/nonexistent/x"]).returncode == 127
    assert proc.run_lines(["/nonexistent/x"], on_line=print).returncode == 127
    assert proc.run(["/etc/passwd"]).returncode == 126


def test_a_silent_command_is_killed_with_its_children(tmp_path: Path, eventually: Callable[..., None]) -> None:
    done, seen = lines_of(f"sleep 600 & echo $! > {tmp_path}/pid; echo up; wait", stall_s=START_S)
    assert done.stalled
    assert seen == ["up"]
    pid = int((tmp_path / "pid").read_text())
    eventually(lambda: not _alive(pid))


def test_an_interrupted_command_is_killed_with_its_children(tmp_path: Path, eventually: Callable[..., None]) -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        proc.run_lines(sh(f"sleep 600 & echo $! > {tmp_path}/pid; echo up; wait"), on_line=interrupt)
    pid = int((tmp_path / "pid").read_text())
    eventually(lambda: not _alive(pid))


@pytest.mark.parametrize("stubborn", ["", "trap '' TERM; "], ids=["ends when told", "ignores it"])
def test_a_child_with_a_group_of_its_own_is_ended_too(
    stubborn: str, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    script = f"{stubborn}echo $$ > {tmp_path}/pid; sleep 600; true"
    with pytest.raises(KeyboardInterrupt):
        proc.run_lines(sh(f"setsid sh -c {shlex.quote(script)} & sleep 0.5; echo up; wait"), on_line=interrupt)
    pid = int((tmp_path / "pid").read_text())
    eventually(lambda: not _alive(pid))


def test_a_timeout_ends_with_124_and_keeps_what_was_said() -> None:
    done = proc.run(sh("echo a; exec sleep 600"), timeout_s=START_S)
    assert (done.returncode, done.stdout) == (124, "a\n")


def test_the_environment_is_replaced_not_extended() -> None:
    done = proc.run([sys.executable, "-c", "import os; print('HOME' in os.environ)"], env={})
    assert done.stdout.strip() == "False"


def _alive(pid: int) -> bool:
    """Whether `pid` runs; a dead one that nobody has waited for does not count."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")
