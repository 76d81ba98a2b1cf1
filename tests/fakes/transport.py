"""A loop whose time is set by hand, and a transport that remembers what was written to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Loop:
    """Time by hand, callbacks at once."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> None:
        callback(*args)


class Transport:
    """Remembers what was written."""

    def __init__(self) -> None:
        self.out = b""
        self.stuck = 0  # bytes that the client does not take
        self.closed = self.eof = self.paused = False

    def get_extra_info(self, name: str) -> None:
        return None

    def set_write_buffer_limits(self, **limits: int) -> None: ...

    def write(self, data: bytes) -> None:
        self.out += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof = True

    def get_write_buffer_size(self) -> int:
        return self.stuck

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
