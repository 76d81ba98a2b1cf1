"""Refuses work that needs more room than a file system has. Disk."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from nemotron_ops.errors import HostError

HINT = "`nemotron-ops builds prune` and `nemotron-ops models rm` make room"


def check_room(to_do: str, needs: Mapping[Path, int]) -> None:
    """Raises HostError if a file system lacks room for all bytes of `needs` in its folders together.

    The folders are made where they are missing. `to_do` completes "cannot …".
    """
    on: dict[int, list[Path]] = {}
    for folder in needs:
        folder.mkdir(parents=True, exist_ok=True)
        on.setdefault(folder.stat().st_dev, []).append(folder)
    for folders in on.values():
        needed, free = sum(needs[folder] for folder in folders), shutil.disk_usage(folders[0]).free
        if free < needed:
            have = f"{folders[0]} has {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB are needed"
            raise HostError(f"cannot {to_do}: {have}", hint=HINT)
