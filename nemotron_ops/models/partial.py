"""A file that is being downloaded: its bytes, and which of them are there. Disk.

`X.partial` is written at any offset. Beside it, `X.progress` holds a line of JSON that names the target, then eight
bytes per segment: the number of bytes present from the segment's start. A segment's counter is written after its bytes,
so a kill loses at most the piece being written. A power cut can leave a counter ahead of its bytes; the final hash then
fails, and the download starts over.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import asdict, dataclass
from pathlib import Path

from nemotron_ops.errors import ModelError
from nemotron_ops.files import sync_dir

HEAD_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class Target:
    """The file to be downloaded. `proof` is its sha256, or a git blob id of 40 digits."""

    name: str
    size_bytes: int
    proof: str
    segment_bytes: int

    @property
    def segments(self) -> int:
        return max(1, -(-self.size_bytes // self.segment_bytes))

    def bounds(self, segment: int) -> tuple[int, int]:
        """First byte of a segment, and the one after its last."""
        start = segment * self.segment_bytes
        return start, min(start + self.segment_bytes, self.size_bytes)


class Partial:
    """The partial file of one Target. Segments are written by one thread each; use as a context manager."""

    def __init__(self, path: Path, target: Target) -> None:
        self.path = path
        self.progress_path = path.with_suffix(".progress")
        self.target = target
        path.parent.mkdir(parents=True, exist_ok=True)
        self._data = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._counts = os.open(self.progress_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.done = self._load()

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._data)
        os.close(self._counts)

    @property
    def total(self) -> int:
        """Bytes present."""
        return sum(self.done)

    @property
    def prefix(self) -> int:
        """Bytes present from the start without a gap."""
        for segment, count in enumerate(self.done):
            start, end = self.target.bounds(segment)
            if start + count < end:
                return start + count
        return self.target.size_bytes

    def write(self, segment: int, data: bytes | memoryview) -> None:
        """Append `data` to a segment. Raises OSError as the disk does."""
        start, _ = self.target.bounds(segment)
        at = start + self.done[segment]
        view = memoryview(data)
        while view:
            written = os.pwrite(self._data, view, at)
            at, view = at + written, view[written:]
        self.done[segment] += len(data)
        os.pwrite(self._counts, struct.pack("<Q", self.done[segment]), HEAD_BYTES + 8 * segment)

    def read(self, at: int, n: int) -> bytes:
        """Bytes that have been written."""
        return os.pread(self._data, n, at)

    def reset(self) -> None:
        """Forget all bytes."""
        os.ftruncate(self._data, 0)
        self._start_over()

    def finish(self, final: Path) -> None:
        """Flush the file to disk and rename it to its final path."""
        os.fsync(self._data)
        final.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self.path, final)
        sync_dir(final.parent)
        self.progress_path.unlink(missing_ok=True)

    def _load(self) -> list[int]:
        """The counters of an earlier run for the same target, limited by the file's size; else zeros."""
        raw = os.pread(self._counts, HEAD_BYTES + 8 * self.target.segments, 0)
        try:
            same = json.loads(raw[:HEAD_BYTES].rstrip(b"\0 ").decode() or "null") == asdict(self.target)
        except ValueError:
            same = False
        if not same or len(raw) < HEAD_BYTES + 8 * self.target.segments:
            self._start_over()
            return self.done
        there = os.fstat(self._data).st_size
        counts = struct.unpack(f"<{self.target.segments}Q", raw[HEAD_BYTES:])
        found = []
        for segment, count in enumerate(counts):
            start, end = self.target.bounds(segment)
            found.append(min(count, end - start, max(0, there - start)))
        return found

    def _start_over(self) -> None:
        head = json.dumps(asdict(self.target)).encode()
        if len(head) > HEAD_BYTES:
            raise ModelError(f"cannot fetch {self.target.name}: its name is too long")
        os.ftruncate(self._counts, 0)
        os.pwrite(self._counts, head.ljust(HEAD_BYTES) + bytes(8 * self.target.segments), 0)
        self.done = [0] * self.target.segments


def done_bytes(path: Path) -> int:
    """Bytes present in the partial file at `path`, by its progress file; 0 if there is none."""
    try:
        raw = path.with_suffix(".progress").read_bytes()[HEAD_BYTES:]
    except OSError:
        return 0
    whole = len(raw) // 8
    return sum(struct.unpack(f"<{whole}Q", raw[: whole * 8]))
