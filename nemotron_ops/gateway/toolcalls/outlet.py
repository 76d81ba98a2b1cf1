"""Where the events of a stream go. Pure."""

from __future__ import annotations

from typing import Protocol


class Outlet(Protocol):
    """Takes whole events; `last` if none can follow."""

    def send(self, data: bytes, *, last: bool = False) -> None: ...
