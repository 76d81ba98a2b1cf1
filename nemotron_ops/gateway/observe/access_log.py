"""Writes the access log: collects JSON lines, writes them from a thread, rotates the file by size. Disk.

A full or slow disk loses log lines, never a response: unwritten lines are kept up to a bound, and losses are counted.
A log file that was renamed (by `logrotate`, or by another gateway on the same file) is reopened before the next write.
"""

from __future__ import annotations

import os
import stat

from nemotron_ops.errors import GatewayError
from nemotron_ops.gateway.warnings_log import OnceLog

STDERR = 2
WAITING_LINES = 20_000  # collected between two writes
WAITING_BYTES = 8 << 20  # kept after a failed write


class AccessLog:
    """The event loop calls `add` and `take`; one thread at a time calls `write`."""

    def __init__(self, path: str, *, limit_bytes: int = 0) -> None:
        self.path = path
        self.limit_bytes = limit_bytes
        self.wanted = bool(path)
        self._lines: list[bytes] = []
        self._lost = 0
        self._rest = b""  # unwritten, after a failure
        self._reopen = False
        self._failure = OnceLog("write the access log")
        try:
            self._fd = open_log(path)
        except OSError as exc:
            raise GatewayError(f"cannot open the access log {path}: {exc.strerror}") from exc

    def add(self, line: bytes) -> None:
        """Keep a line for the next write."""
        if len(self._lines) < WAITING_LINES:
            self._lines.append(line)
        else:
            self._lost += 1

    def reopen(self) -> None:
        """Reopen the file before the next write."""
        self._reopen = True

    def take(self) -> list[bytes]:
        """The collected lines, which are then no longer kept here."""
        lines, self._lines = self._lines, []
        return lines

    @property
    def busy(self) -> bool:
        """Whether `write` has anything to do."""
        return bool(self._lines or self._rest or self._reopen)

    def write(self, lines: list[bytes]) -> None:
        """Write the rest of the last write, and `lines`. Raises nothing."""
        data = self._rest + b"".join(lines)
        try:
            self._reopen_or_rotate()
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as exc:
            self._failure.failed(exc)
        else:
            self._failure.recovered(f"; {self._lost} lines are lost" if self._lost else "")
            self._lost = 0
        self._rest = self._bounded(data)

    def _bounded(self, data: bytes) -> bytes:
        if len(data) <= WAITING_BYTES:
            return data
        end = data.rfind(b"\n", 0, WAITING_BYTES) + 1
        self._lost += data.count(b"\n", end)
        return data[:end]

    def _reopen_or_rotate(self) -> None:
        """Open a new file if ours was renamed or is too large. Raises OSError, and keeps the open file then."""
        if self._fd <= STDERR:
            self._reopen = False
            return
        ours = os.fstat(self._fd)
        if not stat.S_ISREG(ours.st_mode):
            return
        if not self._reopen and _is_at(self.path, ours):
            if not self.limit_bytes or ours.st_size < self.limit_bytes:
                return
            os.replace(self.path, self.path + ".1")
        fresh = open_log(self.path)
        os.close(self._fd)
        self._fd, self._reopen = fresh, False


def _is_at(path: str, ours: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), ours)
    except FileNotFoundError:
        return False


def open_log(path: str) -> int:
    """The access log's file descriptor; -1 without a path."""
    if not path:
        return -1
    if path == "-":
        return STDERR
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
