"""Unpacks untrusted archives. Disk.

Only plain files, folders and links inside the target folder are made. Absolute names, names that leave the folder,
names below a link, links that lead out through other links, devices and archives larger than any llama.cpp are refused
before anything is unpacked. Owners and special mode bits are ignored.
"""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO

from nemotron_ops.errors import SourceError

MOST_BYTES = 4 << 30  # llama.cpp is 0.2 GB; the largest wheel of a CUDA toolkit holds 0.7 GB
MOST_FILES = 200_000
MOST_LINKS = 40  # that one target passes through, as in the kernel

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


def safe_links(to: Path, names: Iterable[PurePosixPath], links: Mapping[PurePosixPath, str]) -> None:
    """Check all `names` of an archive, and the targets of its `links`, before anything is unpacked into `to`.

    No name may lie below a link, neither below one of the archive nor below one that is in `to` already, and no link
    may lead out of the folder, through other links either. Raises SourceError.
    """
    fine: set[PurePosixPath] = {PurePosixPath()}
    for name in names:
        for parent in name.parents:
            if parent in fine:
                break
            if parent in links or (to / parent).is_symlink():
                raise SourceError(f"cannot unpack {str(name)!r}: it lies below a link")
            fine.add(parent)
    for at, target in links.items():
        _resolved(to, at, target, links)


def _resolved(to: Path, at: PurePosixPath, target: str, links: Mapping[PurePosixPath, str]) -> None:
    """Raises SourceError if the link `at` leads out of the folder by any of its steps."""
    wrong = SourceError(f"cannot unpack {str(at)!r}: a link to {target!r} leads out of the folder")
    here, ahead, followed = at.parent, list(reversed(PurePosixPath(target).parts)), 0
    if PurePosixPath(target).is_absolute():
        raise wrong
    while ahead:
        part = ahead.pop()
        if part == "..":
            if not here.parts:
                raise wrong
            here = here.parent
            continue
        here /= part
        further = links.get(here) or (os.readlink(to / here) if (to / here).is_symlink() else None)
        if further is not None:
            followed += 1
            if PurePosixPath(further).is_absolute() or followed > MOST_LINKS:
                raise wrong
            ahead += reversed(PurePosixPath(further).parts)
            here = here.parent


class _Budget:
    """Counts files and bytes, and refuses an archive that exceeds the limits."""

    def __init__(self) -> None:
        self.files = self.bytes = 0

    def spend(self, size: int) -> None:
        self.files, self.bytes = self.files + 1, self.bytes + size
        if self.files > MOST_FILES or self.bytes > MOST_BYTES:
            raise SourceError("cannot unpack the archive: it is larger than any llama.cpp")


class _Listing:
    """The names of an archive that are kept, checked before the first of them is unpacked."""

    def __init__(self, rename: Rename) -> None:
        self._rename, self._budget = rename, _Budget()
        self.files: set[PurePosixPath] = set()
        self.links: dict[PurePosixPath, str] = {}

    def kept(self, name: str) -> PurePosixPath | None:
        """The path that `name` is unpacked to; None for what is left out."""
        path = self._rename(safe_name(name))
        return path if path is not None and path.parts else None

    def file(self, path: PurePosixPath, size: int) -> None:
        self._budget.spend(size)
        self.files.add(path)

    def link(self, path: PurePosixPath, target: str) -> None:
        self._budget.spend(0)
        if self.links.setdefault(path, target) != target:
            raise SourceError(f"cannot unpack {str(path)!r}: it is there twice")

    def check(self, to: Path) -> None:
        if twice := self.files & set(self.links):
            raise SourceError(f"cannot unpack {str(min(twice))!r}: it is there twice")
        safe_links(to, [*self.files, *self.links], self.links)


def _unpack_tar(archive: Path, to: Path, rename: Rename) -> int:
    listing = _Listing(rename)
    with tarfile.open(archive, mode="r|*") as tar:
        for member in tar:
            name = listing.kept(member.name)
            if name is None or member.isdir():
                continue
            if member.issym():
                listing.link(name, member.linkname)
            elif member.isfile():
                listing.file(name, member.size)
            else:
                raise SourceError(f"cannot unpack {member.name!r}: neither file, folder nor symbolic link")
    listing.check(to)
    with tarfile.open(archive, mode="r|*") as tar:
        for member in tar:
            name = listing.kept(member.name)
            if name in listing.files and member.isfile():
                content = tar.extractfile(member)
                assert content is not None
                _write(content, to / name, executable=bool(member.mode & 0o100))
    _make_links(to, listing.links)
    return len(listing.files)


def _unpack_zip(archive: Path, to: Path, rename: Rename) -> int:
    listing = _Listing(rename)
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            name = listing.kept(member.filename)
            if name is None or member.is_dir():
                continue
            if stat.S_ISLNK(member.external_attr >> 16):
                with packed.open(member) as content:
                    listing.link(name, content.read(4096).decode())
            else:
                listing.file(name, member.file_size)
        listing.check(to)
        for member in packed.infolist():
            name = listing.kept(member.filename)
            if name in listing.files and not member.is_dir():
                with packed.open(member) as content:
                    _write(content, to / name, executable=bool(member.external_attr >> 16 & 0o100))
    _make_links(to, listing.links)
    return len(listing.files)


def _make_links(to: Path, links: Mapping[PurePosixPath, str]) -> None:
    """Make links after all files, so that no file is written through a link."""
    for name, target in links.items():
        path = to / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        os.symlink(target, path)


def _write(content: IO[bytes], path: Path, *, executable: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        path.unlink()  # never written through
    with path.open("wb") as out:
        shutil.copyfileobj(content, out, 1 << 20)
    path.chmod(0o755 if executable else 0o644)
