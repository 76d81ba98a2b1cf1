"""Models on this machine: listing, verification, adding, removing. Disk.

    models/owner--name/<commit>/…           files, named as in the repository
    models/owner--name/QUANT.json           the manifest of a model; written last, removed first
    models/.partial/                        unfinished downloads

A model exists when its manifest does. The manifest holds size, sha256 and mtime of each file: a file of the same size
and mtime counts as verified, which costs nothing at start-up.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nemotron_ops.errors import ModelError, NemotronOpsError
from nemotron_ops.files import read_json, write_json
from nemotron_ops.hub_names import REPO
from nemotron_ops.models import proof
from nemotron_ops.models.ref import Ref, quant_label, safe_name
from nemotron_ops.paths import Layout
from nemotron_ops.progress import Report, silent

MANIFEST_VERSION = 1
COMMIT = re.compile(r"[0-9a-f]{0,64}")
LOCAL = "local"  # owner of models that were imported without a repository
SYNTHETIC = "synthetic"  # folder of generated tiny models


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """One file of a model and its hash. `role` is "weights" or "mmproj"."""

    name: str  # path in the repository
    path: str
    size_bytes: int
    sha256: str
    mtime_ns: int
    role: str = "weights"
    git_sha1: str = ""

    @property
    def proof(self) -> str:
        return self.sha256 or self.git_sha1


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """A model in the store. `revision` is the requested one, `commit` its commit at that time."""

    repo: str
    quant: str
    revision: str
    commit: str
    files: tuple[StoredFile, ...]
    source: str = ""  # the hub it came from
    fetched_at: float = 0.0  # seconds since the epoch
    used_at: float = 0.0

    @property
    def id(self) -> str:
        return f"{self.repo}:{self.quant}" if self.quant else self.repo

    @property
    def path(self) -> Path:
        """The file for llama-server: the first shard, or the only file."""
        return Path(next(f.path for f in self.files if f.role == "weights"))

    @property
    def mmproj(self) -> Path | None:
        return next((Path(f.path) for f in self.files if f.role == "mmproj"), None)

    @property
    def size_bytes(self) -> int:
        return sum(f.size_bytes for f in self.files)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong with one file."""

    path: str
    what: str


def repo_dir(layout: Layout, repo: str) -> Path:
    """The folder of a repository's models."""
    return layout.models / repo.replace("/", "--")


def manifest_path(layout: Layout, repo: str, quant: str) -> Path:
    """Where the manifest of a model is."""
    return repo_dir(layout, repo) / f"{(quant or 'model').replace('/', '--')}.json"


def list_models(layout: Layout) -> tuple[StoredModel, ...]:
    """All models, by name. Raises ModelError for a manifest that cannot be read."""
    return tuple(_load(path, layout) for path in sorted(layout.models.glob("*/*.json")))


def find(layout: Layout, ref: Ref) -> StoredModel | None:
    """The model that `ref` names, or None. Without a quant: the only model of that repository.

    Raises ModelError if there are several.
    """
    if ref.quant:
        path = manifest_path(layout, ref.repo, ref.quant)
        exact = path if path.exists() else manifest_path(layout, ref.repo, quant_label(ref.quant) or ref.quant.upper())
        return _load(exact, layout) if exact.exists() else None
    found = [_load(path, layout) for path in sorted(repo_dir(layout, ref.repo).glob("*.json"))]
    if len(found) > 1:
        raise ModelError(
            f"cannot choose a quant of {ref.repo}: several are here", hint=f"name one: {', '.join(m.id for m in found)}"
        )
    return found[0] if found else None


def need(layout: Layout, ref: Ref) -> StoredModel:
    """The model that `ref` names. Raises ModelError if it is not here."""
    model = find(layout, ref)
    if model is None:
        here = ", ".join(m.id for m in list_models(layout)) or "none"
        raise ModelError(f"cannot find {ref}: it is not on this machine", hint=f"models here: {here}")
    return model


def save(layout: Layout, model: StoredModel) -> None:
    """Write the manifest, which makes the model exist."""
    value: dict[str, Any] = {"version": MANIFEST_VERSION, **asdict(model)}
    for file in value["files"]:
        file["path"] = _relative(file["path"], layout)
    write_json(manifest_path(layout, model.repo, model.quant), value)


def record(name: str, path: Path, *, sha256: str, role: str = "weights", git_sha1: str = "") -> StoredFile:
    """The StoredFile for the verified file at `path`."""
    stat = path.stat()
    return StoredFile(
        name=name,
        path=str(path),
        size_bytes=stat.st_size,
        sha256=sha256,
        mtime_ns=stat.st_mtime_ns,
        role=role,
        git_sha1=git_sha1,
    )


def verify(model: StoredModel, *, deep: bool = True, report: Report = silent) -> list[Problem]:
    """What is wrong with the model's files; `deep` hashes all bytes, else size and mtime decide."""
    problems = []
    for file in model.files:
        if what := _wrong(file, deep=deep, report=report):
            problems.append(Problem(path=file.path, what=what))
    return problems


def intact(file: StoredFile) -> bool:
    """Whether a file has the size and mtime that it was verified with."""
    return not _wrong(file, deep=False, report=silent)


def remove(layout: Layout, model: StoredModel) -> list[Path]:
    """Remove a model: its manifest, then its files, except files of other models and files outside the store.

    Returns the files removed.
    """
    manifest_path(layout, model.repo, model.quant).unlink(missing_ok=True)
    kept = {f.path for other in list_models(layout) for f in other.files}
    removed = []
    for file in model.files:
        path = Path(file.path)
        if file.path in kept or not path.is_relative_to(layout.models):
            continue
        path.unlink(missing_ok=True)
        removed.append(path)
        _remove_empty(path.parent, layout.models)
    return removed


def mark_used(layout: Layout, model: StoredModel, now: float) -> None:
    """Record that the model was used at `now` (seconds since the epoch), for `models gc`."""
    save(layout, replace(model, used_at=now))


def orphans(layout: Layout) -> list[Path]:
    """Files in the store that no model uses: leftovers of an update or a stopped fetch, oldest first."""
    used = {f.path for model in list_models(layout) for f in model.files}
    folders = [p for p in layout.models.glob("*") if p.name != SYNTHETIC]
    files = [p for folder in folders for p in folder.rglob("*") if p.is_file() or p.is_symlink()]
    mine = (p for p in files if p.suffix in (".gguf", ".partial", ".progress") and str(p) not in used)
    return sorted(mine, key=lambda p: (p.lstat().st_mtime, str(p)))


def now() -> float:
    """Seconds since the epoch, for manifests."""
    return time.time()


def free_bytes(path: Path) -> int:
    """Bytes free on the disk that `path` is, or will be, on."""
    there = path
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free


def bring(source: Path, target: Path, *, copy: bool = False) -> str:
    """Make `target` the same file as `source`, sharing its bytes if possible; returns how.

    The answer is "reflink" or "hardlink"; where neither works "symlink", or "copy" if `copy` is true. `target` appears
    complete or not at all. Raises OSError as the disk does.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.bringing")
    temporary.unlink(missing_ok=True)
    real = source.resolve()
    try:
        how = _share(real, temporary, copy=copy)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return how


def _share(source: Path, target: Path, *, copy: bool) -> str:
    if _reflink(source, target):
        return "reflink"
    try:
        os.link(source, target)
    except OSError:
        if copy:
            shutil.copyfile(source, target)
            with target.open("rb") as f:
                os.fsync(f.fileno())
            return "copy"
        target.symlink_to(source)
        return "symlink"
    return "hardlink"


def _reflink(source: Path, target: Path) -> bool:
    """Share the bytes of a file copy-on-write, where the file system can (Btrfs, XFS)."""
    try:
        import fcntl
    except ImportError:
        return False
    ficlone = 0x40049409  # linux/fs.h: FICLONE
    try:
        with source.open("rb") as src, target.open("wb") as dst:
            fcntl.ioctl(dst.fileno(), ficlone, src.fileno())
    except OSError:
        target.unlink(missing_ok=True)
        return False
    return True


def _wrong(file: StoredFile, *, deep: bool, report: Report) -> str:
    path = Path(file.path)
    try:
        stat = path.stat()
        if stat.st_size != file.size_bytes:
            return f"has {stat.st_size:,} bytes, should have {file.size_bytes:,}"
        if not deep:
            return "" if stat.st_mtime_ns == file.mtime_ns else "has changed since it was verified"
        found = proof.file_hash(path, file.proof, report=report)
    except FileNotFoundError:
        return "is missing"
    except OSError as exc:
        return f"cannot be read: {exc.strerror or exc}"
    return "" if found == file.proof else f"has the hash {found[:16]}…, should have {file.proof[:16]}…"


def _load(path: Path, layout: Layout) -> StoredModel:
    try:
        return from_json(read_json(path) or {}, base=layout.models)
    except (KeyError, TypeError, ValueError, NemotronOpsError) as exc:
        raise ModelError(
            f"cannot read the manifest {path}: {exc}",
            hint="remove that file; fetching the model again writes a new one",
        ) from exc


def from_json(value: Mapping[str, Any], *, base: Path) -> StoredModel:
    """The model in a manifest; its relative paths are below `base`. Raises KeyError, TypeError or ValueError."""
    if value["version"] != MANIFEST_VERSION:
        raise ValueError(f"version {value['version']} is not known")
    files = tuple(StoredFile(**{**f, "path": str(base / f["path"])}) for f in value["files"])
    if not files or any(not safe_name(f.name) for f in files) or all(f.role != "weights" for f in files):
        raise ValueError("it names no usable files")
    repo, quant, commit = str(value["repo"]), str(value["quant"]), str(value["commit"])
    if not REPO.fullmatch(repo) or ".." in repo or (quant and not safe_name(quant)) or not COMMIT.fullmatch(commit):
        raise ValueError(f"it names the model {repo}:{quant} at {commit!r}")
    known = {k: v for k, v in value.items() if k in StoredModel.__dataclass_fields__ and k != "files"}
    return StoredModel(**known, files=files)


def _relative(path: str, layout: Layout) -> str:
    inside = Path(path).is_relative_to(layout.models)
    return str(Path(path).relative_to(layout.models)) if inside else path


def _remove_empty(folder: Path, top: Path) -> None:
    """Remove folders that have become empty, up to but without `top`."""
    while folder != top and folder.is_relative_to(top) and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def total_bytes(models: Iterable[StoredModel]) -> int:
    """Bytes of all files, each counted once."""
    return sum({f.path: f.size_bytes for m in models for f in m.files}.values())
