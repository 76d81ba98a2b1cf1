"""Virtual environments made on demand from a lock file, apart from the installation. Disk, pip.

Content-addressed, as builds are: the id is a hash of lock, Python and platform. An environment is made under another
name, passes its test, and is renamed: one that is there is whole.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from nemotron_ops import files, proc
from nemotron_ops.errors import HostError
from nemotron_ops.progress import Report, Step

MANIFEST = "environment.json"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """An environment: the start of its id, its name in messages, its lock, and a program that must run in it.

    `test` prints the versions; `disk_bytes` is what the environment and its making take at most.
    """

    kind: str
    name: str
    packages: str  # the main ones, for people
    tested: str  # what `test` does, for people
    lock: str
    test: str
    disk_bytes: int

    @property
    def id(self) -> str:
        """Names the environment of this lock for this Python and platform."""
        about = f"{self.lock}\0{sys.version}\0{platform.platform()}"
        return f"{self.kind}-{hashlib.sha256(about.encode()).hexdigest()[:12]}"


def current(wanted: Wanted, environments: Path) -> Path | None:
    """The Python of the finished environment, or None."""
    found = environments / wanted.id
    return found / "bin" / "python" if (found / MANIFEST).is_file() else None


def ensure(wanted: Wanted, environments: Path, report: Report) -> Path:
    """The Python of the environment, made if it is not there. Raises HostError with the installer's last lines."""
    environments.mkdir(parents=True, exist_ok=True)
    with files.locked(environments / ".lock"):
        if (found := current(wanted, environments)) is not None:
            return found
        free = shutil.disk_usage(environments).free
        if free < wanted.disk_bytes:
            raise HostError(
                f"cannot make the {wanted.name}: {free / 1e9:.1f} GB are free in {environments}, "
                f"{wanted.disk_bytes / 1e9:.0f} are needed"
            )
        half, final = environments / f".{wanted.id}", environments / wanted.id
        for old in (half, final):
            shutil.rmtree(old, ignore_errors=True)
        _make(wanted, half, report)
        os.replace(half, final)
        files.sync_dir(environments)
    return final / "bin" / "python"


def _make(wanted: Wanted, folder: Path, report: Report) -> None:
    report(Step(what=f"make the {wanted.name}", done=0, total=3, unit="steps"))
    _run([sys.executable, "-m", "venv", str(folder)], "make a virtual environment")
    python = folder / "bin" / "python"
    lock = folder / f"{wanted.kind}.lock"
    lock.write_text(wanted.lock)
    report(Step(what=f"install {wanted.packages}", done=1, total=3, unit="steps"))
    _run([str(python), "-m", "pip", "install", "-q", "--no-input", "-r", str(lock)], "install the packages")
    report(Step(what=wanted.tested, done=2, total=3, unit="steps"))
    versions = _run([str(python), "-c", wanted.test], f"use the {wanted.name}")
    files.write_json(folder / MANIFEST, {"versions": versions.split(), "python": sys.version})
    report(Step(what=wanted.tested, done=3, total=3, unit="steps"))


def _run(argv: list[str], what: str) -> str:
    env = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "HF_HUB_OFFLINE": "1"}
    done = proc.run(argv, env=env)
    if done.returncode:
        tail = tuple(done.stderr.strip().splitlines()[-10:])
        raise HostError(f"cannot {what}: it ended with {done.returncode}", log_tail=tail)
    return done.stdout
