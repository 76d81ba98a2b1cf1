"""Finds and removes what interrupted builds left in the store. Disk.

A build holds its lock as long as it works, so a folder whose lock is free is a leftover. An import does not know its
build's id before it has unpacked the archive, so its folder is named by its process.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from nemotron_ops.builds.store import build_lock
from nemotron_ops.paths import Layout

PLACES = (".work", ".new", ".replaced", ".trash")


def leftovers(layout: Layout) -> tuple[Path, ...]:
    """Folders of interrupted builds that no process works in."""
    parents = [p for name in PLACES if (p := layout.builds / name).is_dir()]
    return tuple(sorted(p for parent in parents for p in parent.iterdir() if p.is_dir() and not _needed(layout, p)))


def clear(layout: Layout, leftover: Path) -> bool:
    """Delete a folder that `leftovers` named, unless a process works in it by now; returns whether it did."""
    if leftover.parent.name == ".trash" or _importer(leftover):
        shutil.rmtree(leftover, ignore_errors=True)
        return True
    try:
        with build_lock.building(layout, _owner(leftover), timeout_s=0):
            shutil.rmtree(leftover, ignore_errors=True)
            return True
    except build_lock.Busy:
        return False


def _needed(layout: Layout, folder: Path) -> bool:
    """Whether a process works in `folder`, or the folder is all that is left of a build."""
    if folder.parent.name == ".trash":
        return False
    if folder.parent.name == ".replaced" and not (layout.builds / folder.name).exists():
        return True
    if pid := _importer(folder):
        return _alive(pid)
    return build_lock.is_building(layout, _owner(folder))


def _owner(folder: Path) -> str:
    """The id whose lock protects `folder`."""
    return folder.name.removesuffix(".selftest")


def _importer(folder: Path) -> int:
    """The pid of the import that unpacks into `folder`; 0 for other folders."""
    found = re.fullmatch(r"import-(\d+)", folder.name)
    return int(found.group(1)) if found else 0


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
