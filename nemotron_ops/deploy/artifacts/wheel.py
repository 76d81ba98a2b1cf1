"""Packs this program as a wheel, from an installation or a checkout. Disk.

The wheel's bytes depend only on its content (fixed times, sorted names), so the same code is the same release.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from nemotron_ops.errors import DeployError

PACKAGE = Path(__file__).parents[2]
LEFT_OUT = ("__pycache__", ".pyc", ".mypy_cache", ".ruff_cache")
EPOCH = (1980, 1, 1, 0, 0, 0)


def own_distribution() -> Distribution:
    """Our metadata. Raises DeployError if the program runs without being installed."""
    try:
        return distribution("nemotron-ops")
    except PackageNotFoundError as exc:
        raise DeployError(
            "cannot pack this program for other machines: it is not installed as a package",
            hint="pip install -e . in the checkout",
        ) from exc


def write_wheel(folder: Path, *, package: Path = PACKAGE) -> Path:
    """Write this program as a wheel into `folder`; returns its path."""
    dist = own_distribution()
    version = dist.version
    info = f"nemotron_ops-{version}.dist-info"
    files = dict(package_files(package))
    files[f"{info}/METADATA"] = (dist.read_text("METADATA") or "").encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: nemotron-ops\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/entry_points.txt"] = (dist.read_text("entry_points.txt") or "").encode()
    record = "".join(f"{name},sha256={digest(data)},{len(data)}\n" for name, data in sorted(files.items()))
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"nemotron_ops-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in sorted(files.items()):
            z.writestr(zipfile.ZipInfo(name, EPOCH), data, compress_type=zipfile.ZIP_DEFLATED)
    return path


def package_files(package: Path) -> Iterator[tuple[str, bytes]]:
    """The package's files as a wheel has them; the recipes of a checkout go to their place in a built wheel."""
    for path in sorted(package.rglob("*")):
        name = path.relative_to(package.parent).as_posix()
        if path.is_file() and not any(part in name for part in LEFT_OUT):
            yield name, path.read_bytes()
    recipes = package.parent / "recipes"
    if not (package / "recipes/shipped").is_dir() and recipes.is_dir():
        for path in sorted(recipes.glob("*.toml")):
            yield f"nemotron_ops/recipes/shipped/{path.name}", path.read_bytes()


def digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
