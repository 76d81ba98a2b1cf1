"""The inbox of an owner: messages in order, and a limit on each wait. asyncio."""

from __future__ import annotations

import asyncio
import time
from typing import Generic, TypeVar

T = TypeVar("T")


class Inbox(Generic[T]):
    """Any task puts, one task takes."""

    def __init__(self, *, beat_s: float) -> None:
        self._queue: asyncio.Queue[T] = asyncio.Queue()
        self._beat_s = beat_s

    def put(self, message: T) -> None:
        self._queue.put_nowait(message)

    @property
    def empty(self) -> bool:
        return self._queue.empty()

    async def next(self, *, until: float | None) -> T | None:
        """The next message; None at `until` (monotonic seconds), or after `beat_s` so that the owner's loop turns."""
        left_s = self._beat_s if until is None else until - time.monotonic()
        try:
            async with asyncio.timeout(min(self._beat_s, max(0.0, left_s))):
                return await self._queue.get()
        except TimeoutError:
            return None
