"""What is written to clients in one round of the loop, written together at its end. asyncio.

A send through TCP is long enough for the processor to forget all else, so tokens that came together are all read and
looked at first, and then all sent. None waits longer for that than the others take. Where few requests run, hardly any
come together, and each is written at once. The same holds for the steps of whole requests (`eager`).
"""

from __future__ import annotations

import asyncio
from typing import Protocol

FEW = 8  # requests, up to which what is to be written is written at once
LONELY = 2  # up to which each takes its next step at once


class Writer(Protocol):
    """Somebody with something to write."""

    def flush(self) -> None: ...


class Outbox:
    """All who have something to write in this round."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.gathers = False  # whether what is to be written waits for the end of the round
        self.crowded = False  # whether so many run that each waits for the next round before it goes on
        self.loop = loop
        self._waiting: list[Writer] = []

    def runs(self, requests: int) -> None:
        """So many requests are being answered now."""
        self.gathers = requests > FEW
        self.crowded = requests > LONELY

    def add(self, writer: Writer) -> None:
        """`writer.flush` is called at the end of the round."""
        self._waiting.append(writer)
        if len(self._waiting) == 1:
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for writer in waiting:
            try:
                writer.flush()
            except Exception as exc:  # noqa: BLE001  the others have nothing to do with it
                self.loop.call_exception_handler({"message": "a client could not be written to", "exception": exc})
