"""Unpacks untrusted archives. Disk.

Only plain files, folders and links inside the target folder are made. Absolute names, names that leave the folder,
devices and archives larger than any llama.cpp are refused. Owners and special mode bits are ignored.
"""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from nemotron_ops.errors import SourceError

MOST_BYTES = 4 << 30  # llama.cpp is 0.2 GB; the largest wheel of a CUDA toolkit holds 0.7 GB
MOST_FILES = 200_000

# Errors of broken archives; RuntimeError is zipfile's for encryption or an unknown compression.
BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError)

Rename = Callable[[PurePosixPath], PurePosixPath | None]


def keep_all(name: PurePosixPath) -> PurePosixPath | None:
    return name


def under(prefix: PurePosixPath) -> Rename:
    """Keeps only names below `prefix`, without the prefix."""

    def rename(name: PurePosixPath) -> PurePosixPath | None:
        return name.relative_to(prefix) if name.is_relative_to(prefix) and name != prefix else None

    return rename


def prefix_of(archive: Path, mark: str) -> PurePosixPath | None:
    """The folder in `archive` that holds the file `mark` ("src/x.cpp"); None if there is none."""
    parts = PurePosixPath(mark).parts
    try:
        for name in _zip_names(archive) if zipfile.is_zipfile(archive) else _tar_names(archive):
            path = PurePosixPath(name)
            if path.parts[-len(parts) :] == parts:
                return PurePosixPath(*path.parts[: -len(parts)])
    except BROKEN as exc:
        raise SourceError(f"cannot read archive {archive.name}: {exc}") from exc
    return None


def _zip_names(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as packed:
        return packed.namelist()


def _tar_names(archive: Path) -> Iterator[str]:
    with tarfile.open(archive, mode="r|*") as tar:
        yield from (member.name for member in tar)


def unpack(archive: Path, to: Path, *, rename: Rename = keep_all) -> int:
    """Unpack `archive` (tar of any compression, zip) into `to`; returns the number of files. Raises SourceError."""
    to.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(archive):
            return _unpack_zip(archive, to, rename)
        return _unpack_tar(archive, to, rename)
    except BROKEN as exc:
        raise SourceError(f"cannot unpack {archive.name}: {exc}") from exc


def read_member(archive: Path, suffix: str, *, most_bytes: int = 4096) -> str:
    """The text of the first file in a tar whose name ends in `suffix`; empty if there is none."""
    try:
        with tarfile.open(archive, mode="r|*") as tar:
            for member in tar:
                if member.isfile() and member.name.endswith(suffix):
                    found = tar.extractfile(member)
                    return found.read(most_bytes).decode(errors="replace").strip() if found else ""
    except BROKEN:
        return ""
    return ""


def deb_content(package: Path, to: Path) -> Path:
    """The tar with the files of a Debian package, written into the folder `to`. Raises SourceError.

    A .deb is an `ar` archive: a mark, then members of a 60-byte header (name, …, size at 48) and content, padded to
    even.
    """
    with package.open("rb") as f:
        mark = f.read(8)
        while mark == b"!<arch>\n" and len(header := f.read(60)) == 60 and header[48:58].strip().isdigit():
            name, size = header[:16].decode("ascii", "replace").strip().rstrip("/"), int(header[48:58])
            if name.startswith("data.tar"):
                content = to / "data.tar"
                content.write_bytes(f.read(size))  # 0.1 GB at most: it is one compiler
                return content
            f.seek(size + size % 2, os.SEEK_CUR)
    raise SourceError(f"cannot unpack {package.name}: it is not a Debian package")


def safe_name(name: str) -> PurePosixPath:
    """`name` as a relative path inside the folder. Raises SourceError for any other."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise SourceError(f"cannot unpack {name!r}: the name leads out of the folder")
    return path


def safe_link(at: PurePosixPath, target: str) -> str:
    """`target` of a symbolic link at `at`, if it is inside the folder. Raises SourceError."""
    depth = len(at.parts) - 1
    if PurePosixPath(target).is_absolute():
        raise SourceError(f"cannot unpack {str(at)!r}: a link to {target!r} leads out of the folder")
    for part in PurePosixPath(target).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            raise SourceError(f"cannot unpack {str(at)!r}: a link to {target!r} leads out of the folder")
    return target


class _Budget:
    """Counts files and bytes, and refuses an archive that exceeds the limits."""

    def __init__(self) -> None:
        self.files = self.bytes = 0

    def spend(self, size: int) -> None:
        self.files, self.bytes = self.files + 1, self.bytes + size
        if self.files > MOST_FILES or self.bytes > MOST_BYTES:
            raise SourceError("cannot unpack the archive: it is larger than any llama.cpp")


def _unpack_tar(archive: Path, to: Path, rename: Rename) -> int:
    budget, links = _Budget(), []
    with tarfile.open(archive, mode="r|*") as tar:
        for member in tar:
            name = rename(safe_name(member.name))
            if name is None or member.isdir() or not name.parts:
                continue
            if member.issym():
                links.append((name, safe_link(name, member.linkname)))
            elif member.isfile():
                budget.spend(member.size)
                content = tar.extractfile(member)
                assert content is not None
                _write(content, to / name, executable=bool(member.mode & 0o100))
            else:
                raise SourceError(f"cannot unpack {member.name!r}: neither file, folder nor symbolic link")
    _make_links(to, links)
    return budget.files


def _unpack_zip(archive: Path, to: Path, rename: Rename) -> int:
    budget, links = _Budget(), []
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            name = rename(safe_name(member.filename))
            mode = member.external_attr >> 16
            if name is None or member.is_dir() or not name.parts:
                continue
            budget.spend(member.file_size)
            with packed.open(member) as content:
                if stat.S_ISLNK(mode):
                    links.append((name, safe_link(name, content.read(4096).decode())))
                else:
                    _write(content, to / name, executable=bool(mode & 0o100))
    _make_links(to, links)
    return budget.files


def _make_links(to: Path, links: list[tuple[PurePosixPath, str]]) -> None:
    """Make links after all files, so that no file is written through a link."""
    for name, target in links:
        path = to / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        os.symlink(target, path)


def _write(content: IO[bytes], path: Path, *, executable: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        shutil.copyfileobj(content, out, 1 << 20)
    path.chmod(0o755 if executable else 0o644)
