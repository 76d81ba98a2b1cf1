"""Unpacks zig, a C and C++ compiler, from its wheel, without root. httpx, disk.

zig is clang with its own C and C++ libraries. llama.cpp built by it is as fast as by gcc within noise
(llama-bench, 88 M random parameters, Q8_0, one thread, v0.5.0: prompt 502 against 455 tokens/s, generation 86 against
84), depends on libc alone, and does not have gcc 12's AMX bug.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath

from nemotron_ops.builds.packages import archive
from nemotron_ops.builds.packages.wheel_files import check_disk, fetch_wheels
from nemotron_ops.builds.packages.wheel_pins import Wheel, zig_folder
from nemotron_ops.files import locked, sync_dir
from nemotron_ops.installation import Installation

PROGRAMS = {"cc": "cc", "c++": "c++", "ar": "ar", "ranlib": "ranlib"}
UNPACKED_FACTOR = 4.2
HINT = "install a system compiler instead; `nemotron-ops doctor` shows the command"


def assemble(wheel: Wheel, installation: Installation) -> Path:
    """The folder with cc, c++, ar and ranlib, made if it is not there yet. Raises SourceError, HostError."""
    toolchains, cache = installation.layout.toolchains, installation.layout.cache / "wheels"
    root = toolchains / zig_folder(wheel)
    with locked(toolchains / f".{root.name}.lock"):
        if root.is_dir():
            return root
        check_disk("zig", (wheel,), cache=cache, to=toolchains, unpacked_factor=UNPACKED_FACTOR)
        (path,) = fetch_wheels((wheel,), cache=cache, env=installation.env, report=installation.report, hint=HINT)
        made = toolchains / f".{root.name}.new"
        shutil.rmtree(made, ignore_errors=True)
        archive.unpack(path, made, rename=archive.under(PurePosixPath("ziglang")))
        (made / "zig").chmod(0o755)
        for name, word in PROGRAMS.items():
            write_wrapper(made / name, root, word)
        os.rename(made, root)
        sync_dir(toolchains)
        path.unlink()
    return root


def write_wrapper(at: Path, root: Path, word: str) -> None:
    """Write a script for one tool: cmake expects a program per tool, zig has subcommands. Caches stay in its folder."""
    at.write_text(
        f"#!/bin/sh\nexport ZIG_GLOBAL_CACHE_DIR='{root}/cache' ZIG_LOCAL_CACHE_DIR='{root}/cache'\n"
        f"exec '{root}/zig' {word} \"$@\"\n"
    )
    at.chmod(0o755)
