"""The checkpoint of a conversion: on a hub or in a folder, fetched, and staged for the converter. Disk, network.

The converter sees a folder of links to the chosen files, with config.json in the hub's form. The folder has no code,
so neither the converter nor transformers can run any of the model's.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from nemotron_ops import files
from nemotron_ops.errors import ModelError, UsageError
from nemotron_ops.hub_names import read_hub_name
from nemotron_ops.installation import Installation
from nemotron_ops.models.checkpoint import choice
from nemotron_ops.models.checkpoint.config import converter_config
from nemotron_ops.models.checkpoint.fetch import Remote, bytes_to_fetch, fetch_into, look
from nemotron_ops.models.checkpoint.shapes import Stored, tensors_in
from nemotron_ops.models.store import LOCAL


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What is to be converted. `folder` holds its files, for a remote one once it is fetched.

    `commit` is the hub's, or a hash of the names, sizes and times of a local folder's files.
    """

    what: str  # in messages
    repo: str  # its name in the store
    commit: str
    names: tuple[str, ...]
    folder: Path | None = None
    remote: Remote | None = None

    @property
    def origin(self) -> str:
        """Where it came from."""
        return self.remote.hub if self.remote else str(self.folder)


def find_checkpoint(target: str, revision: str, name: str, here: Installation) -> Checkpoint:
    """The checkpoint that `target` names, a folder or a repository; `name` is its name in the store.

    Raises UsageError, or ModelError if it is no checkpoint in safetensors.
    """
    repo = _store_name(name) if name else ""
    if Path(target).is_dir():
        return _local(Path(target).resolve(), repo)
    named = read_hub_name(target, here.env)
    if named is None or named.quant:
        raise UsageError(
            f"cannot convert {target!r}: it is no folder and no repository",
            hint="name a folder with config.json, or owner/name; the quants are named by --quant",
        )
    remote = look(named.repo, revision or named.revision or "main", here)
    names = tuple(f.name for f in remote.files)
    return Checkpoint(what=named.repo, repo=repo or named.repo, commit=remote.commit, names=names, remote=remote)


def fetched(found: Checkpoint, work: Path, here: Installation) -> Path:
    """The folder with the checkpoint's files, downloaded into `work` if it is on a hub. Raises ModelError."""
    if found.remote is None:
        assert found.folder
        return found.folder
    folder = work / "checkpoint"
    fetch_into(folder, found.remote, here)
    return folder


def left_to_fetch(found: Checkpoint, work: Path, here: Installation) -> int:
    """Bytes that are to be downloaded."""
    return bytes_to_fetch(work / "checkpoint", found.remote, here) if found.remote else 0


def read_tensors(found: Checkpoint, folder: Path) -> tuple[Stored, ...]:
    """The tensors, from the heads of its files. Raises ModelError if one is missing or cut off."""
    weights = [n for n in found.names if choice.is_weights(n)]
    if choice.INDEX in found.names:
        choice.check_index(_json(folder / choice.INDEX), weights, found.what)
    return tensors_in(folder / n for n in weights)


def stage(found: Checkpoint, folder: Path, staged: Path) -> Path:
    """Make `staged` anew: a folder of links to the chosen files, with the config as the converter reads it."""
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    for name in found.names:
        if name != choice.CONFIG:
            os.symlink(folder / name, staged / name)
    config = converter_config(_json(folder / choice.CONFIG))
    config.pop("auto_map", None)  # names code, which is not here
    files.write_json(staged / choice.CONFIG, config)
    return staged


def _local(folder: Path, repo: str) -> Checkpoint:
    names = choice.chosen((p.name for p in folder.iterdir() if p.is_file()), str(folder))
    seen = [(n, (folder / n).stat()) for n in names]
    about = json.dumps([(n, s.st_size, s.st_mtime_ns) for n, s in sorted(seen)])
    slug = re.sub(r"[^\w.-]+", "-", folder.name, flags=re.ASCII).strip("-._") or "model"
    commit = hashlib.sha256(f"{folder}\0{about}".encode()).hexdigest()[:40]
    return Checkpoint(what=str(folder), repo=repo or f"{LOCAL}/{slug[:90]}", commit=commit, names=names, folder=folder)


def _store_name(text: str) -> str:
    named = read_hub_name(text if "/" in text else f"{LOCAL}/{text}", {})
    if named is None or named.quant:
        raise UsageError(f"cannot store the model as {text!r}: write NAME or OWNER/NAME, without a quant")
    return named.repo


def _json(path: Path) -> dict[str, object]:
    try:
        value = json.loads(files.read_plain(path))
    except OSError as exc:
        raise ModelError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except (ValueError, RecursionError) as exc:
        raise ModelError(f"cannot read {path}: it is not JSON ({exc})") from exc
    if not isinstance(value, dict):
        raise ModelError(f"cannot read {path}: it is no JSON object")
    return value
