"""Batches the writes to clients of one loop iteration, and sends them at its end. asyncio.

`send()` evicts the CPU caches, so tokens that arrive together are all read and inspected first, and then all sent; none
waits longer than this takes for the others. With few requests hardly any tokens arrive together, and each is sent at
once. The same holds for the steps of whole requests (`eager_task`).
"""

from __future__ import annotations

import asyncio
from typing import Protocol

FEW = 8  # up to this many requests, writes are not batched
LONELY = 2  # up to this many requests, each takes its next step synchronously


class Writer(Protocol):
    """A connection with something to write."""

    def flush(self) -> None: ...


class Outbox:
    """The writers of one loop that wait for the end of its iteration."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.gathers = False  # writes wait for the end of the iteration
        self.crowded = False  # steps of requests wait for the next iteration
        self.loop = loop
        self._waiting: list[Writer] = []

    def runs(self, requests: int) -> None:
        """Set how many requests are being answered."""
        self.gathers = requests > FEW
        self.crowded = requests > LONELY

    def add(self, writer: Writer) -> None:
        """Call `writer.flush` at the end of the iteration."""
        self._waiting.append(writer)
        if len(self._waiting) == 1:
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for writer in waiting:
            try:
                writer.flush()
            except Exception as exc:  # noqa: BLE001  must not stop the other writers
                self.loop.call_exception_handler({"message": "cannot write to a client", "exception": exc})
