"""What is written to clients in one round of the loop, written together at its end. asyncio.

A send through TCP is long enough for the processor to forget all else, so tokens that came together are all read and
looked at first, and then all sent. None waits longer for that than the others take.
"""

from __future__ import annotations

import asyncio
from typing import Protocol


class Writer(Protocol):
    """Somebody with something to write."""

    def flush(self) -> None: ...


class Outbox:
    """All who have something to write in this round."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[Writer] = []

    def add(self, writer: Writer) -> None:
        """`writer.flush` is called at the end of the round."""
        self._waiting.append(writer)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for writer in waiting:
            writer.flush()
