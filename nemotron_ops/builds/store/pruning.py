"""Removes old builds and leftovers, and keeps the list of pinned builds. Disk.

    builds/.pinned.json    {"pinned": [ID, …]}; never pruned

A build is renamed into the trash before its files are deleted, so a kill leaves each build whole or gone; the next
removal empties the trash.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nemotron_ops.builds.store import store, unfinished
from nemotron_ops.builds.store.store import Build
from nemotron_ops.errors import BuildError
from nemotron_ops.files import locked, read_json, write_json
from nemotron_ops.paths import Layout


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What was removed, or would be."""

    builds: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()
    freed_bytes: int = 0


def pinned(layout: Layout) -> frozenset[str]:
    """Ids of builds that stay until they are unpinned."""
    return frozenset((read_json(_file(layout)) or {}).get("pinned", []))


def pin(layout: Layout, build: Build, *, on: bool = True) -> None:
    """Pin `build`, or unpin it if `on` is false."""
    with locked(layout.builds / ".locks" / "pinned.pointer"):
        ids = pinned(layout) | {build.id} if on else pinned(layout) - {build.id}
        write_json(_file(layout), {"pinned": sorted(i for i in ids if store.get(layout, i))})


def outlook(old: Sequence[Build], leftovers: Sequence[Path] = ()) -> Removed:
    """The result that removing `old` and `leftovers` would have."""
    return Removed(
        builds=tuple(b.id for b in old),
        leftovers=tuple(str(p) for p in leftovers),
        freed_bytes=sum(freed_bytes(p) for p in [*(b.path for b in old), *leftovers]),
    )


def prune(layout: Layout, old: Iterable[Build], leftovers: Iterable[Path] = ()) -> Removed:
    """Remove `old` and `leftovers`, except what has become current, is being built or has gone meanwhile."""
    gone, left, freed = [], [], 0
    for build in old:
        size = freed_bytes(build.path)
        try:
            store.remove(layout, build)
        except (BuildError, FileNotFoundError):  # needed by now, or removed by another process
            continue
        gone.append(build.id)
        freed += size
    for path in leftovers:
        size = freed_bytes(path)
        if path.is_relative_to(layout.builds):
            if not unfinished.clear(layout, path):  # a build continues with it
                continue
        else:
            shutil.rmtree(path, ignore_errors=True)
        freed += size
        left.append(str(path))
    return Removed(builds=tuple(gone), leftovers=tuple(left), freed_bytes=freed)


def freed_bytes(folder: Path) -> int:
    """Bytes that removing `folder` frees: files with further hard links (in a toolkit) do not count."""
    sizes = (p.lstat() for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    return sum(stat.st_size for stat in sizes if stat.st_nlink == 1)


def _file(layout: Layout) -> Path:
    return layout.builds / ".pinned.json"
