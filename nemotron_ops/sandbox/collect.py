"""Files out of a work folder whose owner is hostile. Disk.

Every step goes through a descriptor of the folder with O_NOFOLLOW: links lead nowhere. O_NONBLOCK: a FIFO does not
hang. Only regular files with one link count: a hard link could be a file that the code may not read.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from nemotron_ops.sandbox.limits import Limits
from nemotron_ops.sandbox.outcome import Item
from nemotron_ops.sandbox.output import plain

DEPTH = 8
ENTRIES = 5000
FIGURES = ".figures"
NAME_LETTERS = 200
OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b", "application/gzip"),
    (b"SQLite format 3\x00", "application/vnd.sqlite3"),
    (b"PAR1", "application/vnd.apache.parquet"),
)
# Of a text, the name may say more. Nothing that a browser would run is among them.
TEXTS = {".csv": "text/csv", ".json": "application/json", ".md": "text/markdown", ".tsv": "text/tab-separated-values"}

Mark = tuple[int, int, int, int]  # inode, times, size: changes when the file does


@dataclass(frozen=True, kw_only=True)
class Collected:
    """New and changed files; `left_out`: some were too many or too large."""

    items: tuple[Item, ...]
    left_out: bool


def marks(work_fd: int) -> dict[str, Mark]:
    """Every file that may be collected, with what tells a change."""
    return dict(_walk(work_fd, "", DEPTH))


def files(work_fd: int, before: Mapping[str, Mark], now: Mapping[str, Mark], limits: Limits) -> Collected:
    """Files that are new or changed since `before`."""
    return _read_all(work_fd, [name for name, mark in now.items() if before.get(name) != mark], limits)


def images(work_fd: int, names: list[object], limits: Limits) -> Collected:
    """Figures that the kernel process says it saved; only what is a PNG is one."""
    paths = [f"{FIGURES}/{name}" for name in names if "/" not in str(name)]
    found = _read_all(work_fd, paths, limits)
    return Collected(items=tuple(i for i in found.items if i.mime == "image/png"), left_out=found.left_out)


def _read_all(work_fd: int, names: list[str], limits: Limits) -> Collected:
    items = []
    left_out = len(names) > limits.artifacts
    for name in names[: limits.artifacts]:
        content = read(work_fd, name, limits.artifact_bytes)
        if content is None:
            left_out = True
            continue
        shown = plain(name.encode(errors="replace").decode()).replace("\n", " ")[-NAME_LETTERS:]
        items.append(Item(id=f"file-{secrets.token_hex(12)}", name=shown, mime=mime(shown, content), content=content))
    return Collected(items=tuple(items), left_out=left_out)


def read(work_fd: int, name: str, most: int) -> bytes | None:
    """The bytes of one file, or None if it is no plain file of the folder, or larger than `most`."""
    folder = os.dup(work_fd)
    try:
        *parents, last = name.split("/")
        for part in parents:
            inner = os.open(part, OPEN | os.O_DIRECTORY, dir_fd=folder)
            os.close(folder)
            folder = inner
        fd = os.open(last, OPEN, dir_fd=folder)
    except OSError:
        return None
    finally:
        os.close(folder)
    with open(fd, "rb", buffering=0) as f:
        if not _plain_file(os.fstat(fd)) or os.fstat(fd).st_size > most:
            return None
        content = b""
        while len(content) <= most and (more := f.read(most + 1 - len(content))):
            content += more
    return content if len(content) <= most else None


def mime(name: str, content: bytes) -> str:
    """The type of a file by its content; of a text, its name may say more."""
    for magic, kind in MAGIC:
        if content.startswith(magic):
            return kind
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    try:
        content.decode()
    except UnicodeDecodeError:
        return "application/octet-stream"
    if b"\x00" in content:
        return "application/octet-stream"
    return TEXTS.get(os.path.splitext(name)[1].lower(), "text/plain")


def _walk(folder: int, prefix: str, depth: int, left: list[int] | None = None) -> Iterator[tuple[str, Mark]]:
    left = [ENTRIES] if left is None else left
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            left[0] -= 1
            if left[0] < 0:
                return
            if not prefix and entry.name.startswith("."):
                continue
            with suppress(OSError):
                found = entry.stat(follow_symlinks=False)
                if _plain_file(found):
                    yield prefix + entry.name, (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
                elif stat.S_ISDIR(found.st_mode) and depth:
                    yield from _inner(folder, entry.name, prefix, depth, left)


def _inner(folder: int, name: str, prefix: str, depth: int, left: list[int]) -> Iterator[tuple[str, Mark]]:
    with suppress(OSError):
        fd = os.open(name, OPEN | os.O_DIRECTORY, dir_fd=folder)
        try:
            yield from _walk(fd, f"{prefix}{name}/", depth - 1, left)
        finally:
            os.close(fd)


def _plain_file(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1
