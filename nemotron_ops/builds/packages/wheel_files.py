"""Fetches pinned files: wheels from pip's registries, packages from Debian, checked by hash. httpx, disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from nemotron_ops.builds.disk import check_room
from nemotron_ops.builds.packages import download, registry
from nemotron_ops.builds.packages.pip_config import PipConfig
from nemotron_ops.builds.packages.simple_index import RemoteFile
from nemotron_ops.builds.packages.wheel_pins import Deb, Wheel
from nemotron_ops.builds.spec import without_secrets
from nemotron_ops.errors import SourceError
from nemotron_ops.files import sha256_of
from nemotron_ops.progress import Report

if TYPE_CHECKING:
    import httpx

# The second archives every version.
DEBIAN = ("https://deb.debian.org/debian", "https://snapshot.debian.org/archive/debian/20250901T000000Z")


def fetch_wheels(
    wheels: tuple[Wheel, ...], *, cache: Path, env: Mapping[str, str], report: Report, hint: str
) -> tuple[Path, ...]:
    """The wheels in `cache`, each with its pinned hash. Raises SourceError, with `hint`, if one cannot be fetched."""
    config = registry.pip_config(env)
    with download.client(config, env) as http:
        return tuple(_ensure(wheel, http, config, cache, report, hint) for wheel in wheels)


def fetch_deb(deb: Deb, *, cache: Path, env: Mapping[str, str], report: Report, hint: str) -> Path:
    """Debian's package in `cache`, with its pinned hash, from any mirror. Raises SourceError, with `hint`."""
    problems = []
    with download.client(registry.pip_config(env), env) as http:
        for mirror in mirrors(env):
            offered = RemoteFile(name=deb.file, url=f"{mirror}/{quote(deb.path)}", size=deb.size)
            try:
                return download.fetch_file(http, offered, cache / deb.file, sha256=deb.sha256, report=report)
            except SourceError as exc:
                problems.append(f"{without_secrets(mirror)}: {exc.message}")
    raise SourceError(f"cannot get {deb.file}: {'; '.join(problems)}", hint=hint)


def mirrors(env: Mapping[str, str]) -> tuple[str, ...]:
    """Roots of Debian's archive: the one that NEMOTRON_OPS_DEBIAN_MIRROR names, or the public ones."""
    own = env.get("NEMOTRON_OPS_DEBIAN_MIRROR", "").rstrip("/")
    return (own,) if own else DEBIAN


def check_disk(what: str, wheels: Sequence[Wheel | Deb], *, cache: Path, to: Path, unpacked_factor: float) -> None:
    """Raises HostError if the disk lacks room for the download and its unpacked files, which coexist for a while."""
    needed = sum(wheel.size for wheel in wheels)
    check_room(f"assemble {what}", {cache: needed, to: int(needed * unpacked_factor)})


def _ensure(wheel: Wheel, http: httpx.Client, config: PipConfig, cache: Path, report: Report, hint: str) -> Path:
    to = cache / wheel.file
    if to.exists() and sha256_of(to) == wheel.sha256:
        return to
    files, problems = registry.files_of(http, config, wheel.package)
    offered = next((f for f in files if f.name == wheel.file), None)
    if offered is None:
        why = f" ({'; '.join(problems)})" if problems else ""
        raise SourceError(f"cannot get {wheel.file}: it is not in the package registry{why}", hint=hint)
    return download.fetch_file(http, offered, to, sha256=wheel.sha256, report=report)
