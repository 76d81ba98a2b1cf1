"""Passes a stream of events from llama-server on to a client. Writes to the client's connection.

Only whole events are passed on, as they come: a client has no use for half an event, and would be misled if the rest
never came. The head goes out with the first event, because llama-server sends its own before it has computed anything
(until then its failure can still be repaired by another instance). llama-server's own name in `"model"` is replaced by
the name that the client asked for; all other bytes stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.streams import sse
from nemotron_ops.gateway.streams.kept import TIGHT_BYTES, Kept, Memory
from nemotron_ops.gateway.streams.usage import Tally, Usage, has_usage, usage_in

SETTLE_TOKENS = 16  # tokens that are counted together, which takes a fifth of the time


class ContextFullError(Exception):
    """llama-server ended a stream because other slots had filled the context that they share."""


class Diverged(Exception):
    """A continuation repeats the stream differently from what the client has received."""


class Outlet(Protocol):
    """Where events go: a client's `AnswerWriter`, or a fold into one answer."""

    def send(self, data: bytes, *, last: bool = False) -> None: ...


class Relay:
    """One answer's events, over all attempts to get them."""

    __slots__ = (  # makes a stream's token a twentieth cheaper
        "_asked", "_flows", "_gaps", "_on_gap", "_own", "_rest", "_rewrite", "api", "began", "begin", "clock",
        "complete", "error", "events", "failed", "first_at", "ids", "kept", "last_at", "on_first", "outlet",
        "tally", "usage",
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
        self.failed = False  # llama-server sent an error event
        self.error: dict[str, Any] = {}  # the content of that event, which is rewritten before it is passed on
        self.tally: Tally | None = None  # if there are several answers
        self.on_first: Callable[[], None] | None = None  # called with the first token
        self.events = 0
        self.first_at = 0.0
        self.last_at = 0.0
        self.ids: list[str] = []  # of the chat, at each llama-server that sent a part of it
        self.usage: Usage | None = None
        self.kept = Kept(memory)
        self._on_gap: Callable[[float, int], None] | None = None
        self._gaps: list[float] = []  # before the tokens that are not settled yet
        self._flows = False  # plain tokens are passed on with at most the name replaced
        self._asked = sse.named(asked)
        self._own = b""  # llama-server's own name, once it is known
        self._rest = b""  # the beginning of an event whose end has not come
        self._rewrite: Callable[[bytes], bytes] | None = None

    def at(self, on_gap: Callable[[float, int], None]) -> None:
        """Begin an attempt at an instance; `on_gap` gets the times between its tokens."""
        self.settle()
        self._on_gap = on_gap

    def token(self, event: bytes) -> bool:
        """Pass on `event` if it is one plain token; otherwise do nothing and return False."""
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
        """Send a plain token that is not the first event; it is settled later, unless memory is short."""
        self.outlet.send(event)
        now = self.clock()
        self.complete = False
        self.events += 1
        self._gaps.append(now - self.last_at)
        self.last_at = now
        kept = self.kept
        if kept.whole:
            kept.loose.append(event)
        if len(self._gaps) == SETTLE_TOKENS or kept.memory.left < TIGHT_BYTES:
            self.settle()

    def settle(self) -> None:
        """Count the tokens since the last time, and the memory that they take."""
        gaps, self._gaps = self._gaps, []
        if not gaps:
            return
        if self._on_gap is not None:
            for gap in gaps:
                self._on_gap(gap, 1)
        if self.kept.whole:
            self.kept.count(len(gaps))

    def feed(self, data: bytes) -> None:
        """Pass on bytes of an answer's body. Raises Diverged and ContextFullError."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        if not data.endswith(b"\n\n"):
            whole = sse.whole_events(data)
            data, self._rest = data[:whole], data[whole:]
        if data:
            self._pass(data)

    def restart(self, rewrite: Callable[[bytes], bytes] | None = None) -> None:
        """Begin with another attempt's bytes; `rewrite` turns them into the rest of the stream so far."""
        self._rest = b""
        self._flows = False
        self._own = b""
        self._rewrite = rewrite

    def rewrite_first(self, rewrite: Callable[[bytes], bytes]) -> None:
        """Rewrite an attempt's bytes before what rewrites them already."""
        then = self._rewrite
        self._rewrite = rewrite if then is None else lambda blob: then(rewrite(blob))

    def _pass(self, blob: bytes) -> None:
        if not self.began and not self._begins(blob):
            return
        if not self._own:
            self._learn_name(blob)
        if self._own and self._own != self._asked:
            blob = blob.replace(self._own, self._asked)
        if self._rewrite is not None:
            blob = self._rewrite(blob)
        self._flows = self._rewrite is None
        count = blob.count(b"data: ")
        if count == 1 and self.events and blob.startswith(sse.PLAIN):  # also a token that the rewriter watches
            self._one_more(blob)
            return
        if self._gaps:
            self.settle()
        if count:  # the latest event decides: each of several prompts has an end of its own
            self.complete = sse.is_complete(self.api, blob)
        if not self.complete and sse.is_error(blob):
            blob = self._before_error(blob)
            count = blob.count(b"data: ")
        if blob:
            self.outlet.send(blob, last=sse.is_last(self.api, blob))
        if count:
            self._record(blob, count)

    def _begins(self, blob: bytes) -> bool:
        """Whether `blob` begins the answer; comments do not, nor does an error. Raises ContextFullError."""
        if blob.find(b"data: ") < 0:
            return False
        if sse.is_context_full(blob):
            raise ContextFullError
        if sse.is_error(blob) and not sse.split_error(blob)[0]:
            self.failed, self.error = True, sse.split_error(blob)[1]
            return False
        self.began = True
        self.first_at = self.last_at = self.clock()
        if self.on_first is not None:
            self.on_first()
        self.begin()
        return True

    def _before_error(self, blob: bytes) -> bytes:
        """The events before llama-server's error event, which is kept in `error`. Raises ContextFullError."""
        if sse.CONTEXT_FULL in blob:
            raise ContextFullError
        self.failed = True
        blob, self.error = sse.split_error(blob)
        return blob

    def _record(self, blob: bytes, count: int) -> None:
        """Count, keep and measure events that were passed on."""
        now = self.clock()
        if self.events and self._on_gap is not None:
            self._on_gap(now - self.last_at, count)
        self.events += count
        self.last_at = now
        kept = self.kept
        if kept.whole:
            kept.loose.append(blob)
            kept.count(1)
        if has_usage(blob):
            self.usage = usage_in(blob, self.usage) if self.tally is None else self.tally.take(blob)

    def spent(self) -> Usage:
        """The answer's usage: llama-server's numbers, or a token per event if it was cut off."""
        return self.usage or Usage(completion_tokens=self.events)

    def _learn_name(self, blob: bytes) -> None:
        """Learn llama-server's own name, if `blob` has it."""
        self._own = sse.name_in(blob)
        if self._own:
            self.ids.append(sse.answer_id(blob))

    def as_is(self) -> None:
        """Stop rewriting; only the name is still replaced."""
        self._rewrite = None

    def forget(self) -> None:
        """Keep nothing of this stream any more."""
        self.settle()
        self.kept.drop()
        self.begin, self._rewrite = nothing, None  # both refer back to this relay


def nothing() -> None:
    """Does nothing; stands for `begin` if an answer is over, or is sent only as a whole."""
