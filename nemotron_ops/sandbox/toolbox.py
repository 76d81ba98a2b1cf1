"""A content-addressed virtual environment with numpy, pandas, matplotlib, sympy and scipy, bound read-only. Disk, pip.

Made on demand, as builds are: the key is a hash of the lock and of the Python that will import the packages. Each wheel
must have a sha256 of `toolbox.lock`. The environment is made under another name, imports its packages once, and is
renamed: a toolbox that is there is whole.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path

from nemotron_ops import files, proc
from nemotron_ops.errors import HostError
from nemotron_ops.progress import Report, Step
from nemotron_ops.sandbox.interpreter import Interpreter

PACKAGES = ("numpy", "pandas", "matplotlib", "sympy", "scipy")
MANIFEST = "toolbox.json"
STALL_S = 300.0
IMPORTS_S = 180.0
DISK_BYTES = 500 * 10**6
PROOF = (
    "import numpy, pandas, sympy, scipy.stats, matplotlib; matplotlib.use('agg'); import matplotlib.pyplot as p;"
    "p.plot(numpy.arange(3)); p.savefig('proof.png'); assert pandas.DataFrame({'a': [1, 2]}).a.sum() == 3;"
    "assert str(sympy.integrate(sympy.Symbol('x'))) == 'x**2/2'; print('proven')"
)


def lock() -> str:
    """Requirements with hashes, as pip reads them."""
    return resources.files("nemotron_ops.sandbox").joinpath("toolbox.lock").read_text()


def key(python: str) -> str:
    """Names the toolbox of this lock for one Python."""
    return hashlib.sha256(f"{lock()}\0{python}\0{sys.version}".encode()).hexdigest()[:16]


def current(toolboxes: Path, python: str) -> Path | None:
    """The finished toolbox for this Python, or None."""
    found = toolboxes / key(python)
    return found if (found / MANIFEST).is_file() else None


def with_packages(inside: Interpreter, toolbox: Path) -> Interpreter:
    """The interpreter with the toolbox's packages behind its own."""
    return replace(inside, toolbox=str(toolbox), site=str(_site(toolbox).relative_to(toolbox)))


def make(toolboxes: Path, python: str, report: Report) -> Path:
    """The toolbox for this Python, made if it is not there. Raises HostError with the last lines of the installer."""
    toolboxes.mkdir(parents=True, exist_ok=True)
    with files.locked(toolboxes / ".lock"):
        if found := current(toolboxes, python):
            return found
        if shutil.disk_usage(toolboxes).free < DISK_BYTES:
            raise HostError(f"cannot make the toolbox: {toolboxes} has less than {DISK_BYTES // 10**6} MB free")
        for unfinished in toolboxes.glob(".new-*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        new = toolboxes / f".new-{key(python)}"
        try:
            _install(new, python, report)
            _prove(new, report)
            files.write_json(new / MANIFEST, {"python": python, "packages": list(PACKAGES)})
            os.rename(new, toolboxes / key(python))
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        files.sync_dir(toolboxes)
    return toolboxes / key(python)


def _install(new: Path, python: str, report: Report) -> None:
    made = proc.run([python, "-I", "-m", "venv", "--without-pip", new], timeout_s=STALL_S)
    if not made.ok:
        raise _failure("make a virtual environment", made)
    requirements = new / "toolbox.lock"
    requirements.write_text(lock())
    total = len(re.findall(r"^\S+==", lock(), re.MULTILINE))
    begun: set[str] = set()

    def line(text: str) -> None:
        if text.startswith("Collecting "):
            begun.add(text)
            report(Step(what="toolbox", done=min(len(begun), total), total=total + 2, unit="packages"))

    argv = (*proc.python_argv("pip"), "--python", str(new / "bin" / "python"), "install", "--require-hashes")
    words = ("--only-binary", ":all:", "--no-input", "--disable-pip-version-check", "--progress-bar", "off")
    done = proc.run_lines((*argv, *words, "--requirement", str(requirements)), on_line=line, stall_s=STALL_S)
    if not done.ok:
        raise _failure("install its packages", done)
    report(Step(what="toolbox", done=total + 1, total=total + 2, unit="packages"))


def _prove(new: Path, report: Report) -> None:
    """Import and use the packages once: also writes nothing but a figure, which is deleted."""
    done = proc.run([new / "bin" / "python", "-I", "-c", PROOF], cwd=new, timeout_s=IMPORTS_S)
    (new / "proof.png").unlink(missing_ok=True)
    if "proven" not in done.stdout:
        raise _failure("import its packages", done)
    report(Step(what="toolbox", done=1, total=1, unit="packages", note="toolbox made"))


def _site(toolbox: Path) -> Path:
    found = sorted(toolbox.glob("lib/python3.*/site-packages"))
    return found[0] if found else toolbox / "lib" / "site-packages"


def _failure(what: str, done: proc.Finished) -> HostError:
    tail = (done.stdout + done.stderr).strip().splitlines()[-5:]
    return HostError(
        f"cannot make the toolbox: cannot {what} (exit code {done.returncode})",
        hint="code runs without it, with Python's own library only; try again: nemotron-ops tools enable python",
        log_tail=tuple(tail),
    )
