"""The store of self-tested builds, and the pointer to the current one. Disk.

    builds/ID/bin/llama-server …      a build; never changed once it has this name
    builds/ID/manifest.json           its plan, its source and its self-test (on a GPU perhaps later)
    builds/current.json               {"current": ID, "previous": [ID, …]}, newest first
    builds/.work/ID/                  being compiled; survives interruptions, removed at the end
    builds/.new/ID/                   installed, not yet self-tested; beside it the work folders ID.selftest, import-PID
    builds/.replaced/ID/              a build while it is replaced by one of the same id
    builds/.locks/ID.lock             held while ID is built
    builds/.steps.json                seconds per step of past builds, for the estimate
    builds/.fixes.json                ids that failed their self-test, and the fixes that they need
    builds/.trash/                    being removed; emptied by the next removal

A folder gets its final name by rename when everything in it is on disk, so a kill at any moment leaves either no
build or a whole one. `get()` restores a build from `.replaced` after a crash. `current` is a pointer file: changing it
copies nothing and can be undone.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nemotron_ops.builds.spec import Fix, Source, source_from_json
from nemotron_ops.builds.store import build_lock
from nemotron_ops.errors import BuildError
from nemotron_ops.files import locked, read_json, sync_dir, write_json
from nemotron_ops.paths import Layout

MANIFEST = "manifest.json"
PREVIOUS_KEPT = 10


@dataclass(frozen=True, kw_only=True)
class Build:
    """A build in the store. `manifest` is what `manifest.json` says."""

    id: str
    path: Path
    manifest: dict[str, Any]

    def binary(self, name: str) -> Path:
        """The path of one of its programs, such as "llama-server". Raises BuildError if it has no such program."""
        path = self.path / "bin" / name
        if not path.exists():
            raise BuildError(
                f"cannot use {name} of build {self.id}: it is not there", hint="build again: nemotron-ops build --force"
            )
        return path

    @property
    def source(self) -> Source:
        return source_from_json(self.manifest["plan"]["source"])

    @property
    def version(self) -> str:
        """llama.cpp's version for people: "0.5.0 b11312 (llama-cpp-python 0.3.36)"; no number where none is known."""
        source = self.source
        number = f"b{source.number}" if source.number else ""
        known = " ".join(
            word for word in (self.manifest.get("version", ""), number) if word and word not in source.label
        )
        return f"{known} ({source.label})" if known else source.label

    @property
    def backend(self) -> str:
        return str(self.manifest["plan"]["backend"])

    @property
    def made_at(self) -> float:
        return float(self.manifest.get("made_at", 0))

    @property
    def proven(self) -> bool:
        """Whether it has passed its self-test on the device that it is for."""
        return bool(self.manifest.get("selftest", {}).get("whole", True))

    @property
    def imported(self) -> bool:
        """Whether it was made on another machine."""
        return "imported_at" in self.manifest

    @property
    def size_bytes(self) -> int:
        return sum(p.lstat().st_size for p in self.path.rglob("*") if p.is_file())


def work_dir(layout: Layout, build_id: str) -> Path:
    return layout.builds / ".work" / build_id


def new_dir(layout: Layout, build_id: str) -> Path:
    return layout.builds / ".new" / build_id


def steps_file(layout: Layout) -> Path:
    return layout.builds / ".steps.json"


def fixes_needed(layout: Layout, build_id: str) -> frozenset[Fix]:
    """Fixes that `build_id` needs to pass its self-test on this machine."""
    return frozenset(Fix(name) for name in (read_json(_fixes_file(layout)) or {}).get(build_id, []))


def remember_fixes(layout: Layout, build_id: str, fixes: frozenset[Fix]) -> None:
    """Record that `build_id` needs `fixes`; the next build of it starts with them."""
    with _pointer_lock(layout):
        write_json(_fixes_file(layout), {**(read_json(_fixes_file(layout)) or {}), build_id: sorted(fixes)})


def _fixes_file(layout: Layout) -> Path:
    return layout.builds / ".fixes.json"


def get(layout: Layout, build_id: str) -> Build | None:
    """The build with exactly this id, if the store has it."""
    if not build_id or build_id.startswith(".") or "/" in build_id:
        return None
    path = layout.builds / build_id
    manifest = read_json(path / MANIFEST)
    if manifest is None and _restore_replaced(layout, build_id):
        manifest = read_json(path / MANIFEST)
    return Build(id=build_id, path=path, manifest=manifest) if isinstance(manifest, dict) else None


def find(layout: Layout, name: str) -> Build:
    """The build whose id is `name` or contains it, if there is just one; "current" too. Raises BuildError."""
    if name == "current" and (now := current(layout)):
        return now
    if exact := get(layout, name):
        return exact
    matches = [b for b in listed(layout) if name and name in b.id]
    if len(matches) == 1:
        return matches[0]
    what = f"{len(matches)} builds match" if matches else "no such build"
    raise BuildError(f"cannot choose build {name!r}: {what}", hint="see: nemotron-ops builds list")


def listed(layout: Layout) -> tuple[Build, ...]:
    """All builds, newest first."""
    names = {p.name for p in (*_folders(layout.builds), *_folders(layout.builds / ".replaced"))}
    found = (get(layout, name) for name in names)
    return tuple(sorted((b for b in found if b), key=lambda b: (b.made_at, b.id), reverse=True))


def current(layout: Layout) -> Build | None:
    """The build in use, or None. A pointer to a missing build counts as none."""
    return get(layout, _pointer(layout)["current"])


def previous(layout: Layout) -> Build | None:
    """The newest build of the history that can still be used."""
    found = (get(layout, name) for name in _pointer(layout)["previous"])
    return next((b for b in found if b and b.proven), None)


def use(layout: Layout, build: Build) -> None:
    """Make `build` current; the previous one is kept for `rollback`. Raises BuildError if it is not proven."""
    refuse_unproven(build)
    with _pointer_lock(layout):
        pointer = _pointer(layout)
        if pointer["current"] == build.id:
            return
        before = [name for name in [pointer["current"], *pointer["previous"]] if name and name != build.id]
        _point(layout, build.id, before)


def refuse_unproven(build: Build) -> None:
    """Raises BuildError for a build that was tested on the CPU only, without its own device."""
    if not build.proven:
        raise BuildError(
            f"cannot use build {build.id}: it was never tested on its own device",
            hint="on a machine with that device, `nemotron-ops build` with the same options tests and activates it",
        )


def rollback(layout: Layout) -> Build:
    """Make the previous build current again. Raises BuildError if there is none.

    The build that was current leaves the history, so a second rollback goes further back.
    """
    with _pointer_lock(layout):
        history = _pointer(layout)["previous"]
        for i, name in enumerate(history):
            if (build := get(layout, name)) and build.proven:
                _point(layout, name, history[i + 1 :])
                return build
    raise BuildError("cannot roll back: there is no previous build", hint="see: nemotron-ops builds list")


def publish(layout: Layout, build_id: str, manifest: dict[str, Any]) -> Build:
    """Give the proven folder `.new/ID` its name in the store, replacing a build of the same id if there is one.

    The caller holds the lock of `building`.
    """
    made, here, old = new_dir(layout, build_id), layout.builds / build_id, _replaced_dir(layout, build_id)
    write_json(made / MANIFEST, manifest)
    sync_tree(made)
    if here.exists():
        _to_trash(layout, old)
        old.parent.mkdir(exist_ok=True)
        os.rename(here, old)
    os.rename(made, here)
    sync_dir(layout.builds)
    _to_trash(layout, old)
    _empty_trash(layout)
    return Build(id=build_id, path=here, manifest=manifest)


def amend(build: Build, changes: dict[str, Any]) -> Build:
    """Write `changes` into the manifest of `build`: facts that became known after publishing."""
    manifest = {**build.manifest, **changes}
    write_json(build.path / MANIFEST, manifest)
    return replace(build, manifest=manifest)


def remove(layout: Layout, build: Build, *, force: bool = False) -> None:
    """Delete `build`. Raises BuildError if it is current (unless forced) or being built, FileNotFoundError if gone."""
    with _pointer_lock(layout):
        pointer = _pointer(layout)
        if pointer["current"] == build.id and not force:
            raise BuildError(f"cannot remove build {build.id}: it is current", hint="use another first, or add --force")
        with build_lock.building(layout, build.id, timeout_s=0):
            build.path.lstat()
            _to_trash(layout, _replaced_dir(layout, build.id))
            _to_trash(layout, build.path)
            if pointer["current"] == build.id:
                _point(layout, "", pointer["previous"])
    _empty_trash(layout)


def now() -> float:
    """Seconds since the epoch, for manifests."""
    return time.time()


def sync_tree(folder: Path) -> None:
    """Flush every file below `folder` to disk, so that a later rename publishes complete files."""
    for path in [folder, *folder.rglob("*")]:
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            continue
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _restore_replaced(layout: Layout, build_id: str) -> bool:
    """Restore a build whose replacement was killed halfway; returns whether the build is there."""
    old, here = _replaced_dir(layout, build_id), layout.builds / build_id
    if not old.is_dir():
        return False
    with suppress(OSError, build_lock.Busy), build_lock.building(layout, build_id, timeout_s=0):
        if not here.exists():
            os.rename(old, here)
    return here.exists()


def _replaced_dir(layout: Layout, build_id: str) -> Path:
    return layout.builds / ".replaced" / build_id


def _folders(parent: Path) -> list[Path]:
    return [p for p in parent.iterdir() if p.is_dir() and not p.name.startswith(".")] if parent.is_dir() else []


def _to_trash(layout: Layout, path: Path) -> None:
    """Move `path`, if it exists, into the trash by one rename."""
    trash = layout.builds / ".trash" / f"{path.name}-{os.getpid()}-{time.monotonic_ns()}"
    while os.path.lexists(path):
        trash.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # another process removed the trash folder in between
            os.rename(path, trash)


def _empty_trash(layout: Layout) -> None:
    shutil.rmtree(layout.builds / ".trash", ignore_errors=True)


def _pointer(layout: Layout) -> dict[str, Any]:
    value = read_json(layout.builds / "current.json") or {}
    return {"current": value.get("current", ""), "previous": list(value.get("previous", []))}


def _point(layout: Layout, build_id: str, before: list[str]) -> None:
    write_json(layout.builds / "current.json", {"current": build_id, "previous": before[:PREVIOUS_KEPT]})


@contextmanager
def _pointer_lock(layout: Layout) -> Iterator[None]:
    with locked(layout.builds / ".locks" / "current.pointer"):
        yield
