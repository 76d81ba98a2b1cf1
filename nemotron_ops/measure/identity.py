"""What made a number: machine, build, model files with their hashes, flags, versions. Disk."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemotron_ops import __version__
from nemotron_ops.files import sha256_of
from nemotron_ops.installation import Installation

if TYPE_CHECKING:
    from nemotron_ops.supervisor.spec import InstanceSpec

HASHED_BYTES = 2 * 10**9  # a larger file that is not in the store is named by size and time: hashing takes a minute


def machine_of(here: Installation) -> dict[str, Any]:
    """This machine, as far as it makes a difference to speed."""
    facts = here.machine
    return {
        "system": facts.system,
        "machine": facts.machine,
        "cpu": facts.cpu,
        "cores": facts.cores,
        "ram_bytes": facts.ram_bytes,
        "gpus": [{"name": g.name, "kind": g.kind, "memory_bytes": g.memory_bytes} for g in facts.gpus],
        "driver": facts.driver_version,
        "kernel": platform.release(),
    }


def versions() -> dict[str, str]:
    return {"nemotron_ops": __version__, "python": platform.python_version()}


def made_by(spec: InstanceSpec, here: Installation) -> dict[str, Any]:
    """Everything known of an instance of this machine."""
    return {
        "machine": machine_of(here),
        "build": build_of(spec.build, here),
        "model": {"name": spec.model, "files": files_of(spec.files, here)},
        "flags": flags_of(spec.argv),
        "versions": versions(),
    }


def flags_of(argv: Sequence[str]) -> list[str]:
    """llama-server's flags without the paths that differ between two starts of the same."""
    skip = {"--model", "--host", "--api-key-file", "--slot-save-path", "--mmproj", "--alias"}
    found, words = [], list(argv[1:])
    while words:
        word = words.pop(0)
        if word in skip:
            words = words[1:]
        else:
            found.append(word)
    return found


def build_of(build_id: str, here: Installation) -> dict[str, Any]:
    """The build's id, with source, backend and compiler where the store has it."""
    from nemotron_ops.builds.store import store

    found = store.get(here.layout, build_id) if build_id else None
    if found is None:
        return {"id": build_id}
    source = found.source
    return {"id": found.id, "source": source.label, "commit": source.commit_text, "backend": found.backend}


def files_of(paths: Sequence[str], here: Installation) -> list[dict[str, Any]]:
    """Name, size and sha256 of each file: from the store's manifest, or computed if it is not large."""
    from nemotron_ops.models import store

    known = {f.path: f.sha256 for model in store.list_models(here.layout) for f in model.files}
    return [_file(Path(p), known.get(p, "")) for p in paths]


def _file(path: Path, sha256: str) -> dict[str, Any]:
    try:
        stat = path.stat()
        if not sha256 and stat.st_size <= HASHED_BYTES:
            sha256 = sha256_of(path)
    except OSError:
        return {"name": path.name}
    found = {"name": path.name, "bytes": stat.st_size}
    return found | ({"sha256": sha256} if sha256 else {"mtime_ns": stat.st_mtime_ns})
