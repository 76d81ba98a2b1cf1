"""Log files that children append to: bounded in size, without a lost line. Disk.

A child appends to `<id>.log` and never reopens it, so the file cannot be renamed, and truncating it would lose lines
written meanwhile. Instead `rotate` copies the old part up to a line's end into `<id>.log.1` (older files move on) and
then frees its blocks in the live file with `fallocate(PUNCH_HOLE)`: offsets stay, the child needs no signal, and no
byte between copy and punch is lost. The live file then begins with a hole, which reads as zeros and is skipped here. On
file systems without hole punching, a log is rotated only between two processes, by moving it.

All sizes are bounded: of a part that outgrew the limit before it was looked at, the newest `2 * limit_bytes` are kept,
a line without an end is cut, and on a full disk the oldest file makes room.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

LIMIT_BYTES = 32 * 1024 * 1024
KEPT = 4  # rotated files beside the live one
CHUNK_BYTES = 1 << 20
TAIL_BYTES = 256 * 1024
PUNCH_HOLE, KEEP_SIZE = 2, 1  # linux/falloc.h
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def rotate(log: Path, *, limit_bytes: int = LIMIT_BYTES, kept: int = KEPT) -> bool:
    """Move the old part of a live log away if it holds more than `limit_bytes`; True if it was moved.

    Raises OSError as the disk does; on a full one, the oldest rotated file is removed first.
    """
    try:
        fd = os.open(log, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        start, size = _data_start(fd), os.fstat(fd).st_size
        if size - start <= limit_bytes:
            return False
        if not _can_punch(log):
            return False
        end = _line_end(fd, start, size)
        try:
            _copy_away(fd, max(start, end - 2 * limit_bytes), end, log, kept)
        except OSError as exc:
            # nothing else to remove: the part goes without a copy, since a full disk stops more than a log
            if exc.errno not in FULL or _drop_oldest(log, kept):
                raise
        return _punch(fd, 0, end)
    finally:
        os.close(fd)


def rotate_between(log: Path, *, limit_bytes: int = LIMIT_BYTES, kept: int = KEPT) -> None:
    """Move a large log away whole, before a new process opens it."""
    try:
        fd = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        start, size = _data_start(fd), os.fstat(fd).st_size
        if size <= limit_bytes:
            return
        _copy_away(fd, max(start, size - 2 * limit_bytes), size, log, kept)
        log.unlink()
    finally:
        os.close(fd)


def prune(folder: Path, keep: frozenset[str], *, kept_files: int = 40) -> None:
    """Remove the oldest logs of instances that are not in `keep`, beyond `kept_files` of them."""
    strangers = [p for p in folder.glob("*.log*") if p.name.split(".log")[0] not in keep]
    strangers.sort(key=lambda p: p.stat().st_mtime)
    for path in strangers[: max(0, len(strangers) - kept_files)]:
        path.unlink(missing_ok=True)


def tail(log: Path, *, lines: int = 50, offset: int = 0) -> list[str]:
    """The last lines written at or after `offset`, oldest first; control characters other than tabs are dropped."""
    try:
        with log.open("rb") as f:
            size = f.seek(0, os.SEEK_END)
            f.seek(max(offset, size - TAIL_BYTES, 0))
            text = f.read(TAIL_BYTES).lstrip(b"\0").decode(errors="replace")
    except FileNotFoundError:
        return []
    return [clean(line) for line in deque(text.splitlines(), maxlen=lines)]


def files_of(log: Path, *, kept: int = KEPT) -> list[Path]:
    """The rotated files and the live one, oldest first, as far as they exist."""
    rotated = [log.with_name(f"{log.name}.{n}") for n in range(kept, 0, -1)]
    return [p for p in (*rotated, log) if p.exists()]


def read_lines(log: Path, *, kept: int = KEPT) -> Iterator[str]:
    """Every line that is kept, oldest first."""
    for path in files_of(log, kept=kept):
        with path.open("rb") as f:
            f.seek(_data_start(f.fileno()))
            for raw in f:
                if line := raw.lstrip(b"\0"):  # the last block of a hole reads as zeros
                    yield clean(line.decode(errors="replace").rstrip("\n"))


def read_from(log: Path, offset: int) -> tuple[bytes, int]:
    """The bytes after `offset`, up to one chunk, and the next offset. A shorter (replaced) file is read whole."""
    try:
        with log.open("rb") as f:
            if f.seek(0, os.SEEK_END) < offset:
                offset = 0
            f.seek(offset)
            data = f.read(CHUNK_BYTES)
    except FileNotFoundError:
        return b"", offset
    return data.lstrip(b"\0"), offset + len(data)


def clean(line: str) -> str:
    """`line` without control characters: model output in a log must not drive a terminal."""
    return "".join(c for c in line if c == "\t" or (ord(c) >= 32 and not 127 <= ord(c) < 160))


def _shift(log: Path, kept: int) -> None:
    log.with_name(f"{log.name}.{kept}").unlink(missing_ok=True)
    for n in range(kept - 1, 0, -1):
        old = log.with_name(f"{log.name}.{n}")
        if old.exists():
            old.rename(log.with_name(f"{log.name}.{n + 1}"))


def _copy_away(fd: int, start: int, end: int, log: Path, kept: int) -> None:
    """Copy a part of the live log into the newest rotated file, which appears complete or not at all."""
    new = log.with_name(f".{log.name}.new")
    try:
        _copy(fd, start, end, new)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    _shift(log, kept)
    new.rename(log.with_name(f"{log.name}.1"))


def _copy(fd: int, start: int, end: int, to: Path) -> None:
    with open(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as out:
        at, first = start, True
        while at < end:
            data = os.pread(fd, min(CHUNK_BYTES, end - at), at)
            if not data:
                break
            out.write(data.lstrip(b"\0") if first else data)
            first = first and not data.strip(b"\0")
            at += len(data)
        out.flush()
        os.fsync(out.fileno())


def _line_end(fd: int, start: int, size: int) -> int:
    """The offset after the last newline before `size`; `size` if there is none in the last chunk: the line is cut."""
    at = max(start, size - CHUNK_BYTES)
    newline = os.pread(fd, size - at, at).rfind(b"\n")
    return at + newline + 1 if newline >= 0 else size


def _data_start(fd: int) -> int:
    """The offset of the first byte after a leading hole."""
    try:
        return os.lseek(fd, 0, os.SEEK_DATA) if os.fstat(fd).st_size else 0
    except (OSError, AttributeError):
        return 0


def _drop_oldest(log: Path, kept: int) -> bool:
    """Remove the oldest rotated file; whether there was one."""
    rotated = files_of(log, kept=kept)[:-1]
    if rotated:
        rotated[0].unlink(missing_ok=True)
    return bool(rotated)


def _can_punch(log: Path) -> bool:
    """Whether this file system frees blocks inside a file, tried on a scratch file beside the log; a full one may."""
    scratch = log.with_name(f".{log.name}.punch")
    fd = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, b"x" * 8192)
        return _punch(fd, 0, 4096)
    except OSError as exc:
        if exc.errno not in FULL:
            raise
        return True
    finally:
        os.close(fd)
        scratch.unlink(missing_ok=True)


def _punch(fd: int, start: int, length: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return bool(libc.fallocate(fd, PUNCH_HOLE | KEEP_SIZE, start, length) == 0)
