"""Hashes of files: sha256, or git's blob id for files outside LFS. Disk.

During a download, a separate thread hashes the bytes in order; hashlib releases Python's lock meanwhile, so on two
cores hashing takes no extra time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from nemotron_ops.errors import ModelError
from nemotron_ops.progress import Report, Step

PIECE = 4 << 20
SHA1_DIGITS, SHA256_DIGITS = 40, 64


def start(proof: str, size_bytes: int) -> hashlib._Hash:
    """An empty hash of the kind of `proof`: git's blob sha1, which includes the size, by its length, else sha256."""
    if len(proof) != SHA1_DIGITS:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False)


def file_hash(path: Path, proof: str, *, report: Report, stop: Callable[[], bool] = lambda: False) -> str:
    """The hash of a file, of the kind of `proof`, with progress. Raises OSError as the disk does."""
    size = path.stat().st_size
    digest = start(proof, size)
    buffer = bytearray(PIECE)
    done = 0
    with path.open("rb", buffering=0) as f:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while (n := f.readinto(buffer)) and not stop():
            digest.update(memoryview(buffer)[:n])
            done += n
            report(Step(what=f"check {path.name}", done=done, total=size, unit="B"))
    return digest.hexdigest()


def sha256_to_record(path: Path, *, report: Report) -> str:
    """The sha256 of a file that is new to the store, with progress. Raises ModelError if it cannot be read."""
    try:
        return file_hash(path, "0" * SHA256_DIGITS, report=report)
    except OSError as exc:
        raise ModelError(f"cannot read {path}: {exc.strerror or exc}") from exc
