"""A file system that is really full: a tmpfs of a few MiB in a mount namespace of its own (Linux, root). 10 s."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nemotron_ops.proc import python_argv

pytestmark = pytest.mark.process
Script = Callable[[str], str]
FILL = "dd if=/dev/zero of=full/filler bs=4k 2>/dev/null || true\n"


@pytest.fixture
def on_small_disk(tmp_path: Path) -> Script:
    """Runs a shell script beside a folder `full`, a disk of 8 MiB; returns what it printed. `ops` is our command."""
    probe = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    if os.geteuid() or probe.returncode:
        pytest.skip("mounting needs root and mount namespaces")
    (tmp_path / "full").mkdir()

    def run(script: str) -> str:
        command = " ".join(python_argv("nemotron_ops"))
        ops = (
            f'ops() {{ NEMOTRON_OPS_HOME="$PWD/full/home" {command} "$@" 2>&1 && echo "code 0" || echo "code $?"; }}\n'
        )
        mount = "mount -t tmpfs -o size=8m tmpfs full\n"
        done = subprocess.run(
            ["unshare", "-m", "sh", "-ec", mount + ops + script], cwd=tmp_path, capture_output=True, text=True,
            timeout=120, stdin=subprocess.DEVNULL, check=False, env={**os.environ, "PYTHON": sys.executable},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_a_log_on_a_full_disk_makes_room_for_itself(on_small_disk: Script) -> None:
    said = on_small_disk(
        "head -c 1000000 /dev/zero | tr '\\0' x > full/a.log.1\n"
        "head -c 3000000 /dev/zero | tr '\\0' y > full/a.log\n"
        + FILL
        + """$PYTHON -P - <<'END'
from pathlib import Path
from nemotron_ops.processes import logfiles
log = Path("full/a.log")
for turn in range(3):
    try:
        logfiles.rotate(log, limit_bytes=1_000_000, kept=4)
    except OSError as exc:
        print(exc.strerror)
print(log.stat().st_blocks * 512 < 1_000_000, sorted(p.name for p in Path("full").iterdir()))
END
"""
    )
    assert said.splitlines()[0] == "No space left on device"
    assert said.splitlines()[-1].startswith("True")
    assert ".a.log.new" not in said


def test_commands_on_a_full_disk_say_so_and_lose_nothing(on_small_disk: Script) -> None:
    said = on_small_disk(
        "ops keys create first\n" + FILL + "echo FULL\nops keys create second\n"
        "ops fetch tiny\nops status\nrm full/filler\necho FREE\nops keys list\nops keys create third\n"
        "ops fetch tiny\nfind full/home -name '*.tmp'\n"
    )
    full, _, free = said.partition("FULL")[2].partition("FREE")
    assert "Traceback" not in said
    assert full.count("No space left on device") >= 2, full
    assert "first" in free
    assert free.count("code 0") == 3, free
    assert ".tmp" not in free
