"""Imports models from files, and exports them into folders for machines without network. Disk.

An exported folder holds the files under their names and `nemotron-ops-model.json`, the manifest with their hashes; an
import verifies every byte again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

from nemotron_ops.errors import ModelError
from nemotron_ops.files import read_json, write_json
from nemotron_ops.installation import Installation
from nemotron_ops.models import proof, store
from nemotron_ops.models.local import read_header
from nemotron_ops.models.ref import SHARD, Ref, quant_label, safe_name, shard_names
from nemotron_ops.models.store import StoredFile, StoredModel
from nemotron_ops.models.transfer import disk_error

MANIFEST = "nemotron-ops-model.json"


def export(model: StoredModel, folder: Path, installation: Installation) -> list[Path]:
    """Copy a model's files and manifest into `folder`. Raises ModelError if a file no longer has its hash."""
    written = []
    for file in model.files:
        target = folder / file.name
        try:
            store.bring(Path(file.path), target, copy=True)
        except OSError as exc:
            raise disk_error(exc, target) from exc
        written.append(target)
    carried = tuple(replace(f, path=f.name) for f in model.files)
    _prove(carried, folder, installation)
    value = {"version": store.MANIFEST_VERSION, **asdict(replace(model, files=carried))}
    write_json(folder / MANIFEST, value)
    return [*written, folder / MANIFEST]


def import_path(path: Path, installation: Installation, *, name: Ref | None = None) -> StoredModel:
    """Import a GGUF file (any shard of a set) or an exported folder into the store, and return the model.

    `name` is the model's name in the store; by default an exported model keeps its name and a bare file becomes
    `local/FILE`. Raises ModelError if a file is no model, or differs from the manifest.
    """
    manifest = path / MANIFEST if path.is_dir() else path
    if path.is_dir() and not manifest.is_file():
        raise ModelError(f"cannot import {path}: it holds no {MANIFEST}", hint="name a .gguf file in it instead")
    model = _exported(path, installation) if path.is_dir() else _bare(path, installation, name)
    if name:
        model = replace(model, repo=name.repo, quant=name.quant or model.quant)
    folder = store.repo_dir(installation.layout, model.repo) / (model.commit[:12] or "imported")
    files = tuple(_take(file, folder) for file in model.files)
    now = store.now()
    taken = replace(model, files=files, fetched_at=now, used_at=now)
    read_header(taken.path)
    store.save(installation.layout, taken)
    return taken


def _exported(folder: Path, installation: Installation) -> StoredModel:
    try:
        model = store.from_json(read_json(folder / MANIFEST) or {}, base=folder)
    except (KeyError, TypeError, ValueError) as exc:
        raise ModelError(f"cannot read {folder / MANIFEST}: {exc}") from exc
    files = tuple(replace(f, path=str(folder / f.name)) for f in model.files)
    _prove(files, folder, installation)
    return replace(model, files=files)


def _bare(path: Path, installation: Installation, name: Ref | None) -> StoredModel:
    read_header(_first_shard(path))
    files = []
    for shard in shard_names(_first_shard(path).name):
        if not safe_name(shard):
            raise ModelError(f"cannot import {shard}: its name has characters that are not allowed")
        file = path.with_name(shard)
        files.append(store.record(shard, file, sha256=proof.sha256_to_record(file, report=installation.report)))
    first = SHARD.fullmatch(files[0].name)
    stem = first["stem"] if first else Path(files[0].name).stem
    slug = re.sub(r"[^\w.-]+", "-", stem).strip("-._") or "model"
    repo = name.repo if name else f"{store.LOCAL}/{slug}"
    return StoredModel(
        repo=repo, quant=quant_label(files[0].name), revision="", commit="", files=tuple(files), source=str(path.parent)
    )


def _first_shard(path: Path) -> Path:
    return path.with_name(shard_names(path.name)[0])


def _prove(files: Iterable[StoredFile], folder: Path, installation: Installation) -> None:
    """Raise ModelError unless every file below `folder` has the hash of its record."""
    for file in files:
        path = folder / file.name
        try:
            found = proof.file_hash(path, file.proof, report=installation.report)
        except OSError as exc:
            raise ModelError(f"cannot read {path}: {exc.strerror or exc}") from exc
        if found != file.proof:
            raise ModelError(f"cannot use {path}: its hash is {found[:16]}…, the manifest says {file.proof[:16]}…")


def _take(file: StoredFile, folder: Path) -> StoredFile:
    target = folder / file.name
    if Path(file.path) != target:
        try:
            free = store.free_bytes(folder)
            if free < file.size_bytes and Path(file.path).stat().st_dev != _device(folder):
                raise ModelError(f"cannot import {file.name}: {file.size_bytes:,} bytes, {free:,} free")
            store.bring(Path(file.path), target, copy=True)
        except OSError as exc:
            raise disk_error(exc, target) from exc
    return store.record(file.name, target, sha256=file.sha256, role=file.role, git_sha1=file.git_sha1)


def _device(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return folder.stat().st_dev
