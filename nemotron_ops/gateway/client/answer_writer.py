"""Writes the answers of one connection: whole, or in parts as chunks; batches the parts of a round. asyncio."""

from __future__ import annotations

import asyncio

from nemotron_ops.gateway.loop.outbox import Outbox


class AnswerWriter:
    """The writing side of one connection; all of its answers pass through it, one after the other."""

    __slots__ = (  # makes a stream's token a twentieth cheaper
        "_before", "_ended", "_queued", "_seen_sent", "_stalled_at", "_waiting", "began", "chunked", "outbox",
        "promised", "transport", "written",
    )  # fmt: skip

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.transport: asyncio.Transport | None = None
        self.began = False  # the head of the current answer was written or waits to be
        self.chunked = False
        self.promised = False  # that head allows the client to send another request
        self.written = 0  # bytes, of all answers
        self._before = 0  # bytes of earlier answers
        self._waiting = b""  # written at the end of the loop's round; a head alone waits for its first part
        self._queued = False  # the outbox will call `flush`
        self._ended = False  # the last chunk was written
        self._seen_sent = 0  # bytes that the kernel had taken at the last check for a stall
        self._stalled_at = 0.0  # when the client will count as stalled; 0.0 while it keeps reading

    def renew(self) -> None:
        """Begin the next answer's count; nothing of it is written yet."""
        self.began = False
        self._before = self.written

    def bytes_out(self) -> int:
        """Bytes of the current answer, or of the last one."""
        return self.written - self._before

    def begin(self, head: bytes, *, chunked: bool, promised: bool) -> None:
        """The head of an answer of unknown length; it is written together with its first part."""
        self.chunked = chunked
        self.promised = promised
        self.began = True
        self._ended = False
        self._waiting += head

    def send(self, data: bytes, *, last: bool = False) -> None:
        """A part of an answer that has begun; the `last` one carries the last chunk. `end` must follow."""
        if not data:
            return  # an empty chunk would end the answer
        if self.chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
            if last:
                data += b"0\r\n\r\n"
                self._ended = True
        outbox = self.outbox
        if not outbox.gathers:
            self.write(data)
            return
        self._waiting += data
        if not self._queued:
            self._queued = True
            outbox.add(self)

    def flush(self) -> None:
        """Write what waits for the end of the round."""
        self._queued = False
        self.write(b"")

    def end(self) -> None:
        """Write what waits, and the last chunk if no part carried it."""
        self.write(b"0\r\n\r\n" if self.chunked and not self._ended else b"")

    def write(self, data: bytes) -> None:
        """Write `data` behind what waits; nothing once the connection is closing."""
        if self._waiting:
            data, self._waiting = self._waiting + data, b""
        transport = self.transport
        if data and transport is not None and not transport.is_closing():
            self.written += len(data)
            transport.write(data)

    def stalled(self, now: float, allowed_s: float) -> bool:
        """Whether the client has taken nothing for `allowed_s` although something waits for it."""
        unsent = self.transport.get_write_buffer_size() if self.transport is not None else 0
        sent = self.written - unsent
        if not unsent or sent != self._seen_sent or not self._stalled_at:
            self._seen_sent = sent
            self._stalled_at = now + allowed_s if unsent else 0.0
        return unsent > 0 and now >= self._stalled_at
