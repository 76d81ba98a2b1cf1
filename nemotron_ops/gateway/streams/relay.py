"""A stream of events on its way from llama-server to a client. Writes to the client's connection.

Whole events only are passed on, as they come: half an event would be of no use to a client, and a lie if the rest
never came. The head goes out with the first event, because llama-server sends its own before it has done anything
(its failure until then can still be repaired elsewhere). llama-server's name for itself in `"model"` becomes the
name that the client asked for; all other bytes stay.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Protocol

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.streams import sse

KEPT_BYTES = 16 << 20  # of a stream, to continue it elsewhere
ALL_KEPT_BYTES = 64 << 20  # of all streams together
TIGHT_BYTES = 48 << 20  # where less than this is left of it, events are packed: that takes 0.5 µs per token,
PACK_BYTES = 16384  # and makes a twenty-fifth of them, because they repeat each other
PACK_LEVEL = 1
SETTLED_AT_ONCE = 16  # tokens that are counted and weighed together, which takes a fifth of the time


class ContextFullError(Exception):
    """A stream ended, through no fault of its own, because other slots had filled the context that they share."""


class Diverged(Exception):
    """A continuation does not repeat what the client has received, or cannot follow it."""


class Outlet(Protocol):
    """Where events go: a client's connection, or what folds them into one answer."""

    def send(self, data: bytes, *, last: bool = False) -> None: ...


class Memory:
    """How much may still be kept of all streams."""

    def __init__(self, left: int = ALL_KEPT_BYTES) -> None:
        self.left = left


class Relay:
    """One answer's events, over all attempts to get them."""

    __slots__ = (  # a stream's token costs a twentieth less with them
        "_asked", "_flows", "_gaps", "_loose", "_loose_bytes", "_on_gap", "_own", "_packed", "_rest",
        "_rewrite", "api", "began", "begin", "clock", "complete", "error", "events", "failed", "first_at",
        "ids", "kept_bytes", "last_at", "memory", "on_first", "outlet", "tally", "usage", "whole_kept",
    )  # fmt: skip

    def __init__(
        self,
        api: Api,
        asked: str,
        outlet: Outlet,
        *,
        begin: Callable[[], None],
        clock: Callable[[], float],
        memory: Memory,
    ) -> None:
        self.api = api
        self.outlet = outlet
        self.begin = begin
        self.clock = clock
        self.began = False
        self.complete = False
        self.failed = False  # llama-server itself ended it with an error event,
        self.error: dict[str, Any] = {}  # which said this, and is not passed on as it is
        self.tally: sse.Tally | None = None  # where there are several answers
        self.on_first: Callable[[], None] | None = None  # token
        self.events = 0
        self.first_at = 0.0
        self.last_at = 0.0
        self.ids: list[str] = []  # of the answer at each llama-server that gave a part of it (of chats)
        self.usage: sse.Usage | None = None
        self.kept_bytes = 0
        self.whole_kept = True  # everything that was passed on is kept
        self.memory = memory
        self._on_gap: Callable[[float, int], None] | None = None
        self._gaps: list[float] = []  # before tokens that are not settled yet
        self._flows = False  # what comes next is passed on with at most another name
        self._asked = sse.named(asked)
        self._own = b""  # what llama-server says there, once that is known
        self._rest = b""
        self._rewrite: Callable[[bytes], bytes] | None = None
        self._packed: list[bytes] = []
        self._loose: list[bytes] = []  # what is kept and not packed yet
        self._loose_bytes = 0

    @property
    def kept(self) -> Iterator[bytes]:
        """Everything that was passed on, as whole events; incomplete unless `whole_kept`."""
        return chain(map(zlib.decompress, self._packed), self._loose)

    def at(self, on_gap: Callable[[float, int], None]) -> None:
        """What comes next is from an attempt at an instance; `on_gap` is told of the times between its tokens."""
        self.settle()
        self._on_gap = on_gap

    def token(self, event: bytes) -> bool:
        """Pass on one more token and nothing else. False, and nothing is done, if `event` (or several) is not that."""
        if not self._flows or event.count(b"data: ") != 1 or not event.startswith(sse.PLAIN):
            return False
        if not self._own:
            if sse.MODEL in event:
                return False
        elif self._own != self._asked:
            event = event.replace(self._own, self._asked)
        self._one_more(event)
        return True

    def _one_more(self, event: bytes) -> None:
        """Send a plain token that is not the first event; it is settled later, but where memory is tight."""
        self.outlet.send(event)
        now = self.clock()
        self.complete = False
        self.events += 1
        self._gaps.append(now - self.last_at)
        self.last_at = now
        if self.whole_kept:
            self._loose.append(event)
        if len(self._gaps) == SETTLED_AT_ONCE or self.memory.left < TIGHT_BYTES:
            self.settle()

    def settle(self) -> None:
        """Count and weigh the tokens since the last time."""
        gaps, self._gaps = self._gaps, []
        if not gaps:
            return
        if self._on_gap is not None:
            for gap in gaps:
                self._on_gap(gap, 1)
        if self.whole_kept:
            self._weigh(sum(map(len, self._loose[-len(gaps) :])))

    def feed(self, data: bytes) -> None:
        """Bytes of an answer's body. Raises Diverged and ContextFullError."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        if not data.endswith(b"\n\n"):
            whole = sse.whole_events(data)
            data, self._rest = data[:whole], data[whole:]
        if data:
            self._pass(data)

    def restart(self, rewrite: Callable[[bytes], bytes] | None = None) -> None:
        """The next bytes come from another attempt; `rewrite` makes them go on with what was passed on."""
        self._rest = b""
        self._flows = False
        self._own = b""
        self._rewrite = rewrite

    def _pass(self, blob: bytes) -> None:
        count = blob.count(b"data: ")
        if not self.began:
            if not count:
                return  # comments, before anything is said
            if sse.is_context_full(blob):
                raise ContextFullError
            if sse.is_error(blob) and not sse.split_error(blob)[0]:
                self.failed, self.error = True, sse.split_error(blob)[1]
                return
            self.began = True
            self.first_at = self.last_at = self.clock()
            if self.on_first is not None:
                self.on_first()
            self.begin()
        if not self._own:
            self._learn_name(blob)
        if self._own and self._own != self._asked:
            blob = blob.replace(self._own, self._asked)
        if self._rewrite is not None:
            blob = self._rewrite(blob)
            count = blob.count(b"data: ")
        self._flows = self._rewrite is None
        if count == 1 and self.events and blob.startswith(sse.PLAIN):  # a thought, say, that is watched
            self._one_more(blob)
            return
        self.settle()
        if count:  # the latest event decides: each of several prompts has an end of its own
            self.complete = sse.is_complete(self.api, blob)
        if not self.complete and sse.is_error(blob):
            if sse.CONTEXT_FULL in blob:
                raise ContextFullError
            self.failed = True
            blob, self.error = sse.split_error(blob)
            count = blob.count(b"data: ")
        if blob:
            self.outlet.send(blob, last=sse.is_last(self.api, blob))
        if not count:
            return
        now = self.clock()
        if self.events and self._on_gap is not None:
            self._on_gap(now - self.last_at, count)
        self.events += count
        self.last_at = now
        if self.whole_kept:
            self._loose.append(blob)
            self._weigh(len(blob))
        if sse.has_usage(blob):
            self.usage = sse.usage_in(blob, self.usage) if self.tally is None else self.tally.take(blob)

    def spent(self) -> sse.Usage:
        """What the answer cost: as llama-server said, or for one that was cut off, a token per event."""
        return self.usage or sse.Usage(completion_tokens=self.events)

    def _learn_name(self, blob: bytes) -> None:
        """By what name llama-server calls itself, if `blob` says so."""
        self._own = sse.name_in(blob)
        if self._own:
            self.ids.append(sse.answer_id(blob))

    def _weigh(self, size: int) -> None:
        """So many bytes more are kept, if there is room for them."""
        if self.kept_bytes + size > KEPT_BYTES or size > self.memory.left:
            self._drop()
            return
        self._loose_bytes += size
        self.kept_bytes += size
        self.memory.left -= size
        if self._loose_bytes >= PACK_BYTES and self.memory.left < TIGHT_BYTES:
            self._pack()

    def _pack(self) -> None:
        """Pack the oldest events, a bounded number, so that no token waits for it."""
        count = size = 0
        for blob in self._loose:
            count += 1
            size += len(blob)
            if size >= PACK_BYTES:
                break
        packed = zlib.compress(b"".join(self._loose[:count]), PACK_LEVEL)
        self._packed.append(packed)
        del self._loose[:count]
        self._loose_bytes -= size
        self.kept_bytes -= size - len(packed)
        self.memory.left += size - len(packed)

    def as_is(self) -> None:
        """From now on nothing of it is changed but the name."""
        self._rewrite = None

    def forget(self) -> None:
        """Keep nothing of this stream any more."""
        self.settle()
        self._drop()
        self.begin, self._rewrite = nothing, None  # they know who knows this

    def _drop(self) -> None:
        self.whole_kept = False
        self.memory.left += self.kept_bytes
        self.kept_bytes = self._loose_bytes = 0
        self._packed, self._loose = [], []


def nothing() -> None:
    """What is done where an answer is over, or is not sent before it is whole."""
