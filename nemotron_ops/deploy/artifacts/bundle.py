"""Everything a target needs to install this version without a network, as one tar file. Disk, pip.

The wheels of our dependencies are for the *target's* Python, machine and C library, not ours. Their versions and hashes
are those of the lock: the registry cannot choose what a target runs. They are kept in the cache under a hash of the
lock and the platform, and compared with the lock each time, so deploying the same version twice sends the same bytes.

`requirements.txt` in the tar has one line for each wheel, ours too, with its sha256: pip on the target installs exactly
these files.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from nemotron_ops.deploy.artifacts.lock import HASH, Locked, check_files, locked_for, requirements_text
from nemotron_ops.deploy.artifacts.wheel import own_distribution, write_wheel
from nemotron_ops.errors import DeployError
from nemotron_ops.files import locked, sha256_of, write_atomic
from nemotron_ops.proc import run
from nemotron_ops.progress import Report, Step

OLDEST_MANYLINUX = 5  # glibc 2.5: manylinux1
BUNDLES_KEPT = 8
REQUIREMENTS = "requirements.txt"


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

    @property
    def environment(self) -> Mapping[str, str]:
        """The values of the environment markers (PEP 508) there."""
        version = f"{self.python[0]}.{self.python[1]}"
        return {
            "python_version": version, "python_full_version": f"{version}.0", "platform_machine": self.machine,
            "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix",
            "implementation_name": "cpython", "platform_python_implementation": "CPython",
        }  # fmt: skip


def shipped_lock() -> str:
    """The lock that this version was tested with."""
    return files("nemotron_ops.deploy").joinpath("data/requirements.lock").read_text(encoding="utf-8")


def make_bundle(
    platform: Platform, *, cache: Path, report: Report, python: str = sys.executable, lock: str = ""
) -> Bundle:
    """The bundle for `platform`, from the cache or made now; `lock` is the shipped one by default.

    Raises DeployError if wheels cannot be downloaded, or are not the locked ones.
    """
    cache.mkdir(parents=True, exist_ok=True)
    wanted = locked_for(lock or shipped_lock(), platform.environment)
    with locked(cache / ".lock"):
        folder = _dependencies(platform, wanted, cache=cache, report=report, python=python)
        wheels = sorted(folder.glob("*.whl"))
        check_files({w.name: sha256_of(w) for w in wheels}, wanted, where=str(folder))
        return pack_wheels([write_wheel(cache / "own"), *wheels], cache)


def download_argv(platform: Platform, requirements: Path, to: Path, *, python: str) -> tuple[str, ...]:
    """The pip command that downloads the locked wheels for another machine."""
    return (
        python, "-P", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--only-binary=:all:",
        "--implementation=cp", f"--python-version={platform.python[0]}.{platform.python[1]}",
        *(f"--platform={tag}" for tag in platform.tags), f"--dest={to}",
        "--no-deps", "--require-hashes", f"--requirement={requirements}",
    )  # fmt: skip


def _dependencies(platform: Platform, wanted: Sequence[Locked], *, cache: Path, report: Report, python: str) -> Path:
    """The folder with our dependencies' wheels for `platform`; it gets its final name when it is complete."""
    asked = requirements_text(wanted)
    key = repr((asked, platform.python, platform.machine, platform.glibc))
    folder = cache / f"wheels-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    major, minor = platform.python
    report(Step(what="bundle", note=f"fetching wheels for Python {major}.{minor} on {platform.machine}"))
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    write_atomic(part / REQUIREMENTS, asked)
    done = run(download_argv(platform, part / REQUIREMENTS, part, python=python), timeout_s=1800)
    if not done.ok:
        why, hint = _why_no_wheels(done.stderr)
        raise DeployError(f"cannot make the bundle: {why}", hint=hint, log_tail=tuple(done.stderr.splitlines()[-8:]))
    part.rename(folder)
    return folder


def _why_no_wheels(stderr: str) -> tuple[str, str]:
    """The cause of pip's failure, and a hint."""
    if "No module named pip" in stderr:
        return "this Python has no pip", "python -m ensurepip"
    registry = "check the package registry with: nemotron-ops doctor"
    if "DO NOT MATCH THE HASHES" in stderr:
        return "the package registry sent a file that is not the locked one", registry
    if "No matching distribution" in stderr:
        return "the package registry has no wheel of a locked version for this target", registry
    return "pip could not download all wheels", registry


def pack_wheels(wheels: Sequence[Path], cache: Path) -> Bundle:
    """One tar of all wheels, without times and owners, so that the same content gives the same bytes."""
    part = cache / ".bundle.tar.part"
    named = sorted(wheels, key=lambda p: p.name)
    with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as tar:
        text = "".join(f"{_pinned(wheel)}\n" for wheel in named).encode()
        info = tarfile.TarInfo(REQUIREMENTS)
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
        for wheel in named:
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


def _pinned(wheel: Path) -> str:
    """The line of one wheel in `requirements.txt`."""
    name, version = wheel.name.split("-")[:2]
    return f"{name}=={version} {HASH}{sha256_of(wheel)}"


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
