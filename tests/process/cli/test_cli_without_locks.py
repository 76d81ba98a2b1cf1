"""Homes on file systems without locks: one line that says so, no traceback, no second kind of lock. About 8 s.

A small library in front of libc makes `flock` fail as NFS without locks, Lustre and others do.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process
SOURCE = """
#include <errno.h>
#include <stdlib.h>
int flock(int fd, int operation) { errno = atoi(getenv("FLOCK_ERRNO")); return -1; }
"""
COMMANDS = (("stop",), ("serve", "tiny", "--offline", "--no-build"), ("keys", "create", "x"), ("builds", "list"))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("noflock") / "noflock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-o", made, "-"], input=SOURCE.encode(), check=True)
    return made


def run(library: Path, home: Path, number: int, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "NEMOTRON_OPS_HOME": str(home), "LD_PRELOAD": str(library), "FLOCK_ERRNO": str(number)}
    argv = [sys.executable, "-m", "nemotron_ops", *words]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF], ids=lambda n: errno.errorcode[n]
)
@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_a_command_says_in_one_line_that_there_are_no_locks(
    library: Path, tmp_path: Path, words: tuple[str, ...], number: int
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/supervisor.lock").touch()
    done = run(library, tmp_path, number, *words)
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    if words[0] in ("stop", "keys"):
        assert done.returncode == 4, done.stderr
        assert "its file system has no working locks" in done.stderr
        assert "hint: set NEMOTRON_OPS_HOME" in done.stderr
    if done.returncode and "no working locks" not in done.stderr:
        assert words[0] == "serve", done.stderr  # it has no build, and says so first
        assert done.stderr.startswith(("error: ", "hint: ")), done.stderr


def test_doctor_names_a_folder_without_locks(library: Path, tmp_path: Path) -> None:
    done = run(library, tmp_path, errno.ENOLCK, "doctor", "--offline")
    assert "its file system has no working locks" in done.stdout
    assert "NEMOTRON_OPS_STATE" in done.stdout


def test_a_file_where_a_folder_should_be_is_one_line(library: Path, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    done = run(library, tmp_path, errno.ENOLCK, "doctor", "--offline")
    assert done.stderr.startswith(f"error: cannot use {tmp_path}/data/builds/current.json: Not a directory\nhint: ")
