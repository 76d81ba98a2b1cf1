"""What builds that were begun and never finished have left in the store. Disk.

Work has the lock of its build for as long as it lasts, so a folder whose lock nobody holds is left over. Only whoever
unpacks an archive does not know yet which build it will be: its folder is named by its process.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from nemotron_ops.builds.store import store
from nemotron_ops.paths import Layout

PLACES = (".work", ".new", ".replaced", ".trash")


def leftovers(layout: Layout) -> tuple[Path, ...]:
    """Folders of builds that were begun and never finished, and that nobody works on."""
    parents = [p for name in PLACES if (p := layout.builds / name).is_dir()]
    return tuple(sorted(p for parent in parents for p in parent.iterdir() if p.is_dir() and not _needed(layout, p)))


def clear(layout: Layout, leftover: Path) -> bool:
    """Delete a folder that `leftovers` named, unless somebody has begun to work in it since; whether it went."""
    if leftover.parent.name == ".trash" or _importer(leftover):
        shutil.rmtree(leftover, ignore_errors=True)
        return True
    try:
        with store.building(layout, _owner(leftover), timeout_s=0):
            shutil.rmtree(leftover, ignore_errors=True)
            return True
    except store.Busy:
        return False


def _needed(layout: Layout, folder: Path) -> bool:
    """Whether somebody works in `folder`, or it is all that is left of a build."""
    if folder.parent.name == ".trash":
        return False
    if folder.parent.name == ".replaced" and not (layout.builds / folder.name).exists():
        return True
    if pid := _importer(folder):
        return _alive(pid)
    return store.is_building(layout, _owner(folder))


def _owner(folder: Path) -> str:
    """The id whose lock whoever works in `folder` holds."""
    return folder.name.removesuffix(".selftest")


def _importer(folder: Path) -> int:
    """The process that unpacks an archive there, before it is known which build that is; 0 for other folders."""
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
