"""Pinned wheels as files: found in the registries that pip uses, fetched, checked by hash. httpx, disk."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nemotron_ops.build import fetch, registry
from nemotron_ops.build.pip_config import PipConfig
from nemotron_ops.build.wheel_pins import Wheel
from nemotron_ops.errors import HostError, SourceError
from nemotron_ops.progress import Report

if TYPE_CHECKING:
    import httpx


def fetch_wheels(
    wheels: tuple[Wheel, ...], *, cache: Path, env: Mapping[str, str], report: Report, hint: str
) -> tuple[Path, ...]:
    """The wheels in `cache`, each with its pinned hash. Raises SourceError, with `hint`, if one cannot be had."""
    config = registry.pip_config(env)
    with fetch.client(config, env) as http:
        return tuple(_ensure(wheel, http, config, cache, report, hint) for wheel in wheels)


def check_disk(what: str, wheels: tuple[Wheel, ...], *, cache: Path, to: Path, unpacked_factor: float) -> None:
    """Raises HostError if there is too little room for the download or for what is in it."""
    needed = sum(wheel.size for wheel in wheels)
    for folder, n in ((cache, needed), (to, int(needed * unpacked_factor))):
        folder.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(folder).free) < n:
            raise HostError(
                f"cannot assemble {what}: {folder} has {free / 1e9:.1f} GB free, {n / 1e9:.1f} GB are needed",
                hint="`nemotron-ops builds prune` and `nemotron-ops models rm` make room",
            )


def _ensure(wheel: Wheel, http: httpx.Client, config: PipConfig, cache: Path, report: Report, hint: str) -> Path:
    to = cache / wheel.file
    if to.exists() and fetch.hash_of(to) == wheel.sha256:
        return to
    files, problems = registry.files_of(http, config, wheel.package)
    offered = next((f for f in files if f.name == wheel.file), None)
    if offered is None:
        why = f" ({'; '.join(problems)})" if problems else ""
        raise SourceError(f"cannot get {wheel.file}: it is not in the package registry{why}", hint=hint)
    return fetch.fetch_file(http, offered, to, sha256=wheel.sha256, report=report)
