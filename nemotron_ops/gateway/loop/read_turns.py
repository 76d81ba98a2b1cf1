"""Round-robin reads, so that one fast upstream cannot starve the others. asyncio.

Engines can send faster than the gateway passes on. If each connection were read until it is empty, a new stream's first
token would wait behind all of them: 0.2 s at 128 streams at full speed. So a connection is read one chunk at a time;
one that fills its chunk waits for a turn, and each loop iteration grants few turns. Streams at the pace of real models
never fill a chunk.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

CHUNK_BYTES = 16384
AT_ONCE = 4


class Reader(Protocol):
    """A connection that has filled its chunk."""

    def take_turn(self) -> None: ...


class Turns:
    """The readers of one loop, and the chunk that they share: each empties it before the next one reads."""

    def __init__(self) -> None:
        self.chunk = memoryview(bytearray(CHUNK_BYTES))
        self._waiting: deque[Reader] = deque()

    def wait(self, reader: Reader) -> None:
        """Call `take_turn` of `reader`, which has filled the chunk, when it is next."""
        self._waiting.append(reader)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._round)

    def _round(self) -> None:
        for _ in range(min(AT_ONCE, len(self._waiting))):
            self._waiting.popleft().take_turn()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._round)
