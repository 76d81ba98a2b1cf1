"""The given attacks on every backend that this machine has, as root and as an ordinary user. A minute on 2 busy cores.

Each attack is also run bare, to show that it is one. An ordinary user's run needs a Python that any user may start, so
it uses the system's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.sandbox import probe
from nemotron_ops.sandbox.choose import Backend
from tests.stages.attacks import SECRET, corpus

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="walls of Linux")]

ROOT = Path(__file__).parents[3]
SYSTEM_PYTHON = Path("/usr/bin/python3")
USER = 64123
RUN_S = 120.0
LINUX = [a for a in corpus() if a["lang"] != "js"]


def attacks_on(backend: str, *, as_user: bool) -> dict[str, dict[str, object]]:
    """The attack program's lines for one backend, by the attack's id."""
    env = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "NEMOTRON_SECRET_KEY": SECRET,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    python = str(SYSTEM_PYTHON) if as_user else sys.executable
    identity: dict[str, Any] = {"user": USER, "group": USER, "extra_groups": []} if as_user else {}
    done = subprocess.run(
        [python, "-P", "-m", "tests.stages.attacks", backend], env=env, cwd="/", capture_output=True, text=True,
        timeout=RUN_S, check=False, **identity,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {line["id"]: line for line in map(json.loads, done.stdout.splitlines())}


def needs(backend: str, *, as_user: bool) -> None:
    """Skip where this machine cannot have the backend; in CI, bubblewrap must be there."""
    if as_user and (os.geteuid() != 0 or not SYSTEM_PYTHON.exists() or not _readable(ROOT)):
        pytest.skip("needs root, to become an ordinary user that can read this tree")
    facts = probe.look(os.environ)
    there = {
        Backend.BUBBLEWRAP: facts.bwrap,
        Backend.BUBBLEWRAP_WHEEL: facts.wheel,
        Backend.LANDLOCK: facts.landlock_abi,
        Backend.MONTY: facts.monty,
    }[Backend(backend)]
    if not there:
        assert os.environ.get("CI") != "true" or backend != Backend.BUBBLEWRAP
        pytest.skip(f"no {backend} here")


def _readable(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in (path, *path.parents))


@pytest.mark.parametrize(
    ("backend", "as_user"),
    [
        (Backend.BUBBLEWRAP, False),
        (Backend.BUBBLEWRAP, True),
        (Backend.BUBBLEWRAP_WHEEL, False),
        (Backend.LANDLOCK, False),
        (Backend.LANDLOCK, True),
        (Backend.MONTY, False),
    ],
)
def test_every_attack_is_held(backend: Backend, as_user: bool) -> None:
    needs(backend, as_user=as_user)
    lines = attacks_on(backend, as_user=as_user)
    wanted = [a["id"] for a in LINUX if backend is not Backend.MONTY or a["lang"] == "python"]
    assert list(lines) == wanted
    assert {name: line["wrong"] for name, line in lines.items() if line["wrong"]} == {}


def test_the_attacks_succeed_without_a_wall() -> None:
    if os.geteuid() == 0 and (not SYSTEM_PYTHON.exists() or not _readable(ROOT)):
        pytest.skip("needs a Python for an ordinary user")
    lines = attacks_on("none", as_user=os.geteuid() == 0)
    measured = {a["id"] for a in LINUX if a["measured"].get("none") == "escaped"}
    # Without /dev/vsock, or where user namespaces are refused, two of them are held by the machine itself.
    of_the_machine = {"net-vsock", "clone3-userns"}
    assert {name for name, line in lines.items() if not line["escaped"]} <= of_the_machine
    assert set(lines) == measured
