"""Old builds and what interrupted ones left, removed; and the list of pinned ones. Disk.

    builds/.pinned.json    {"pinned": [ID, …]}; never removed by a rule

A build goes into the trash by rename and only then loses its files, so a kill leaves builds that are whole or gone;
the trash is emptied by whoever comes next.
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
    """What was removed (or, before it is done, would be)."""

    builds: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()
    freed_bytes: int = 0


def pinned(layout: Layout) -> frozenset[str]:
    """Ids of builds that stay until they are unpinned."""
    return frozenset((read_json(_file(layout)) or {}).get("pinned", []))


def pin(layout: Layout, build: Build, *, on: bool = True) -> None:
    """Pin `build`, or with `on` false unpin it; does nothing if it is so already."""
    with locked(layout.builds / ".locks" / "pinned.pointer"):
        ids = pinned(layout) | {build.id} if on else pinned(layout) - {build.id}
        write_json(_file(layout), {"pinned": sorted(i for i in ids if store.get(layout, i))})


def outlook(old: Sequence[Build], leftovers: Sequence[Path] = ()) -> Removed:
    """What removing `old` and `leftovers` would bring."""
    return Removed(
        builds=tuple(b.id for b in old),
        leftovers=tuple(str(p) for p in leftovers),
        freed_bytes=sum(freed_bytes(p) for p in [*(b.path for b in old), *leftovers]),
    )


def prune(layout: Layout, old: Iterable[Build], leftovers: Iterable[Path] = ()) -> Removed:
    """Remove `old` and `leftovers`, all but what became current, is worked on or went meanwhile."""
    gone, left, freed = [], [], 0
    for build in old:
        size = freed_bytes(build.path)
        try:
            store.remove(layout, build)
        except (BuildError, FileNotFoundError):  # somebody else needs it now, or was quicker
            continue
        gone.append(build.id)
        freed += size
    for path in leftovers:
        size = freed_bytes(path)
        if path.is_relative_to(layout.builds):
            if not unfinished.clear(layout, path):  # somebody goes on with it
                continue
        else:
            shutil.rmtree(path, ignore_errors=True)
        freed += size
        left.append(str(path))
    return Removed(builds=tuple(gone), leftovers=tuple(left), freed_bytes=freed)


def freed_bytes(folder: Path) -> int:
    """Bytes that the disk gets back when `folder` goes: files that have other names (a toolkit's) stay."""
    sizes = (p.lstat() for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    return sum(stat.st_size for stat in sizes if stat.st_nlink == 1)


def _file(layout: Layout) -> Path:
    return layout.builds / ".pinned.json"
