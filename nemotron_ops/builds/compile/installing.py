"""Copies programs and their libraries out of the compile folder. Disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from nemotron_ops.builds.backends import amx_variants
from nemotron_ops.builds.plan import BuildPlan
from nemotron_ops.builds.spec import Fix
from nemotron_ops.errors import BuildError


def install(chosen: BuildPlan, *, source: Path, work: Path, to: Path, libraries: tuple[Path, ...]) -> Path:
    """Copy the programs of folder `work` into `to`, with CUDA's `libraries` beside them. Raises BuildError."""
    shutil.rmtree(to, ignore_errors=True)
    (to / "bin").mkdir(parents=True)
    for target in chosen.targets:
        if not (work / "bin" / target).exists():
            raise BuildError(f"cannot install {target}: compiling did not make it", hint="try --force")
        shutil.copy2(work / "bin" / target, to / "bin" / target)
    if chosen.portable:
        without = left_out(chosen, source)
        for library in sorted((work / "bin").glob("*.so*")) + sorted((work / "bin").glob("*.dylib")):
            if library.name not in without:
                shutil.copy2(library, to / "bin" / library.name, follow_symlinks=False)
    for library in libraries:
        (to / "cuda/lib").mkdir(parents=True, exist_ok=True)
        _link_or_copy(library.resolve(), to / "cuda/lib" / library.name)
    return to


def left_out(chosen: BuildPlan, source: Path) -> frozenset[str]:
    """CPU variants to leave out: those with AMX, where the compiler miscompiles it.

    The flags of the whole build cannot turn AMX off in them, because each variant's own flags come later on the command
    line. Without them, ggml loads the next best variant that the CPU can run.
    """
    cmake = source / "ggml/src/CMakeLists.txt"
    if Fix.NO_AMX not in chosen.fixes or not cmake.exists():
        return frozenset()
    return frozenset(f"libggml-cpu-{name}.so" for name in amx_variants(cmake.read_text(errors="replace")))


def _link_or_copy(source: Path, to: Path) -> None:
    """Share the bytes of a toolkit's libraries (0.6 GB) between builds where the file system can."""
    try:
        os.link(source, to)
    except OSError:
        shutil.copy2(source, to)
