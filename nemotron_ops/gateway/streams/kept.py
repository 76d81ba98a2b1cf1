"""Keeps the events of a stream so that it can be continued elsewhere; compresses them if memory is short. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import chain

KEPT_BYTES = 16 << 20  # the most of one stream
ALL_KEPT_BYTES = 64 << 20  # the most of all streams together
TIGHT_BYTES = 48 << 20  # below this much free memory, kept events are compressed (about 25:1, 0.5 µs per token)
PACK_BYTES = 16384  # compressed at once
PACK_LEVEL = 1


class Memory:
    """How many bytes may still be kept, of all streams together."""

    def __init__(self, left: int = ALL_KEPT_BYTES) -> None:
        self.left = left


class Kept:
    """The events of one stream that were passed on, in their order; all of them while `whole`."""

    __slots__ = ("_loose_bytes", "_packed", "loose", "memory", "size", "whole")

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.whole = True  # nothing was dropped
        self.size = 0  # bytes, as they take memory
        self.loose: list[bytes] = []  # not compressed yet; the newest may not be counted yet (`count`)
        self._loose_bytes = 0
        self._packed: list[bytes] = []

    def __iter__(self) -> Iterator[bytes]:
        """All events; incomplete unless `whole`."""
        return chain(map(zlib.decompress, self._packed), self.loose)

    def count(self, newest: int) -> None:
        """Count the `newest` loose blobs; drop everything if there is no room for them."""
        loose = self.loose
        size = len(loose[-1]) if newest == 1 else sum(map(len, loose[-newest:]))
        if self.size + size > KEPT_BYTES or size > self.memory.left:
            self.drop()
            return
        self._loose_bytes += size
        self.size += size
        self.memory.left -= size
        if self._loose_bytes >= PACK_BYTES and self.memory.left < TIGHT_BYTES:
            self._pack()

    def drop(self) -> None:
        """Keep nothing of this stream any more."""
        self.whole = False
        self.memory.left += self.size
        self.size = self._loose_bytes = 0
        self._packed, self.loose = [], []

    def _pack(self) -> None:
        """Compress the oldest events, a bounded number at once so that no token waits long for it."""
        count = size = 0
        for blob in self.loose:
            count += 1
            size += len(blob)
            if size >= PACK_BYTES:
                break
        packed = zlib.compress(b"".join(self.loose[:count]), PACK_LEVEL)
        self._packed.append(packed)
        del self.loose[:count]
        self._loose_bytes -= size
        self.size -= size - len(packed)
        self.memory.left += size - len(packed)
