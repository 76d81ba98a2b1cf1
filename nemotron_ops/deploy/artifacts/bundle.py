"""Everything a target needs to install this version without a network, as one tar file. Disk, pip.

The wheels of our dependencies are for the *target's* Python, machine and C library, not ours. They are kept in the
cache under a hash of the request for them, so deploying the same version twice sends the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from nemotron_ops.deploy.artifacts.wheel import own_distribution, write_wheel
from nemotron_ops.errors import DeployError
from nemotron_ops.files import locked, sha256_of
from nemotron_ops.proc import run
from nemotron_ops.progress import Report, Step

OLDEST_MANYLINUX = 5  # glibc 2.5: manylinux1
BUNDLES_KEPT = 8


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A tar file of wheels, and its hash; `version` is ours."""

    path: Path
    sha256: str
    version: str


@dataclass(frozen=True, kw_only=True)
class Platform:
    """The platform that wheels must support."""

    python: tuple[int, int]
    machine: str
    glibc: tuple[int, int]

    @property
    def tags(self) -> tuple[str, ...]:
        """pip's platform tags, newest first: every manylinux up to the target's C library."""
        major, minor = self.glibc
        names = [f"manylinux_{major}_{m}_{self.machine}" for m in range(minor, OLDEST_MANYLINUX - 1, -1)]
        named = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
        return tuple(names + [f"{n}_{self.machine}" for m, n in named.items() if m <= minor])


def make_bundle(platform: Platform, *, cache: Path, report: Report, python: str = sys.executable) -> Bundle:
    """The bundle for `platform`, from the cache or made now. Raises DeployError if wheels cannot be downloaded."""
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / ".lock"):
        wheels = _dependencies(platform, cache=cache, report=report, python=python)
        own = write_wheel(cache / "own")
        return _pack([own, *sorted(wheels.glob("*.whl"))], cache)


def download_argv(platform: Platform, requirements: tuple[str, ...], to: Path, *, python: str) -> tuple[str, ...]:
    """The pip command that downloads wheels for another machine."""
    return (
        python, "-P", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--only-binary=:all:",
        "--implementation=cp", f"--python-version={platform.python[0]}.{platform.python[1]}",
        *(f"--platform={tag}" for tag in platform.tags), f"--dest={to}", "pip", *requirements,
    )  # fmt: skip


def _dependencies(platform: Platform, *, cache: Path, report: Report, python: str) -> Path:
    """The folder with our dependencies' wheels for `platform`; it gets its final name when it is complete."""
    requirements = tuple(r for r in own_distribution().requires or () if "extra ==" not in r)
    asked = repr((sorted(requirements), platform.python, platform.machine, platform.glibc))
    folder = cache / f"wheels-{hashlib.sha256(asked.encode()).hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    major, minor = platform.python
    report(Step(what="bundle", note=f"fetching wheels for Python {major}.{minor} on {platform.machine}"))
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    done = run(download_argv(platform, requirements, part, python=python), timeout_s=1800)
    if not done.ok:
        missing = "No module named pip" in done.stderr
        raise DeployError(
            "cannot make the bundle: " + ("this Python has no pip" if missing else "pip could not download all wheels"),
            hint="python -m ensurepip" if missing else "check the package registry with: nemotron-ops doctor",
            log_tail=tuple(done.stderr.splitlines()[-8:]),
        )
    part.rename(folder)
    return folder


def _pack(wheels: list[Path], cache: Path) -> Bundle:
    """One tar of all wheels, without times and owners, so that the same content gives the same bytes."""
    part = cache / ".bundle.tar.part"
    with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as tar:
        for wheel in sorted(wheels, key=lambda p: p.name):
            info = tarfile.TarInfo(wheel.name)
            info.size = wheel.stat().st_size
            with wheel.open("rb") as f:
                tar.addfile(info, f)
    sha256 = sha256_of(part)
    path = cache / f"bundle-{sha256[:16]}.tar"
    part.rename(path)
    # each platform has its own bundle, and all are made before the first is sent
    for old in sorted(cache.glob("bundle-*.tar"), key=lambda p: p.stat().st_mtime)[:-BUNDLES_KEPT]:
        old.unlink()
    return Bundle(path=path, sha256=sha256, version=own_distribution().version)


def pack_folder(folder: Path, cache: Path, *, prefix: str) -> tuple[Path, str]:
    """`folder` as an uncompressed tar in `cache`, everything below `prefix/`; returns its path and sha256.

    The same content has the same name, and the file appears whole: another deploy may be sending it.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".pack-") as room:
        part = Path(room) / "part"
        _write_tar(folder, part, prefix=prefix)
        sha256 = sha256_of(part)
        path = cache / f"build-{prefix}-{sha256[:16]}.tar"
        os.replace(part, path)
    return path, sha256


def _write_tar(folder: Path, to: Path, *, prefix: str) -> None:
    with tarfile.open(to, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            info = tar.gettarinfo(path, f"{prefix}/{path.relative_to(folder).as_posix()}")
            info.mtime, info.uid, info.gid, info.uname, info.gname = 0, 0, 0, "", ""
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as f:
                    tar.addfile(info, f)
            else:
                tar.addfile(info, io.BytesIO())
