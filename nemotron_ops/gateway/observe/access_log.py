"""The access log: JSON lines that are collected here and written by a thread, bounded in size. Disk.

A disk that is full or slow costs lines of the log, never an answer: what cannot be written waits, up to a bound, and
what is lost is counted. A log that was moved away (`logrotate`, or another gateway that serves beside this one) is
noticed before the next line.
"""

from __future__ import annotations

import os
import stat

from nemotron_ops.errors import GatewayError
from nemotron_ops.gateway.warnings_log import Trouble

STDERR = 2
WAITING_LINES = 20_000  # collected since the last write
WAITING_BYTES = 8 << 20  # that could not be written


class AccessLog:
    """`add` is called where requests pass; `write` by one thread at a time."""

    def __init__(self, path: str, *, limit_bytes: int = 0) -> None:
        self.path = path
        self.limit_bytes = limit_bytes
        self.wanted = bool(path)
        self._lines: list[bytes] = []
        self._lost = 0
        self._rest = b""  # what could not be written
        self._reopen = False
        self._trouble = Trouble("write the access log")
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
        """Before the next write, go on with a new file."""
        self._reopen = True

    def take(self) -> list[bytes]:
        """The lines that wait."""
        lines, self._lines = self._lines, []
        return lines

    @property
    def busy(self) -> bool:
        """Whether there is anything to write or to do."""
        return bool(self._lines or self._rest or self._reopen)

    def write(self, lines: list[bytes]) -> None:
        """Write what could not be written before, and `lines`. Raises nothing."""
        data = self._rest + b"".join(lines)
        try:
            self._follow()
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as exc:
            self._trouble.met(exc)
        else:
            self._trouble.over(f"; {self._lost} lines are lost" if self._lost else "")
            self._lost = 0
        self._rest = self._bounded(data)

    def _bounded(self, data: bytes) -> bytes:
        if len(data) <= WAITING_BYTES:
            return data
        end = data.rfind(b"\n", 0, WAITING_BYTES) + 1
        self._lost += data.count(b"\n", end)
        return data[:end]

    def _follow(self) -> None:
        """Open the file anew if ours was moved away or has grown too large. Raises OSError; then ours stays open."""
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
    """The access log's descriptor; -1 for none."""
    if not path:
        return -1
    if path == "-":
        return STDERR
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
