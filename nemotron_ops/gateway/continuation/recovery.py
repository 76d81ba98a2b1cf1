"""What becomes of an answer that is cut off, or that ends without words. Pure.

An answer of which nothing was seen is asked for once more from its beginning. Else its rest is asked for:

    in a tool call    the call is given as the model's template writes it, and goes on; else it is made again
    came differently  the rest is asked for again, a few times
    refused           an engine would not go on from what was said: all is said again, only the rest is passed on
    without words     as the recipe says: words are asked for, once; else the end is sent, marked
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.continuation.lost_in_thought import Watch, can_be_lost, marked, ran_out
from nemotron_ops.gateway.continuation.partial_call import HalfCall, half_call, text_of_call
from nemotron_ops.gateway.continuation.plan import TIMES_AGAIN, can_continue, continuation, replay
from nemotron_ops.gateway.continuation.rewrite import Continuation, rewriter
from nemotron_ops.gateway.continuation.transcript import said_in
from nemotron_ops.gateway.streams import sse
from nemotron_ops.gateway.streams.usage import usage_in

if TYPE_CHECKING:
    from nemotron_ops.gateway.streams.relay import Relay

Fields = Mapping[str, msgspec.Raw]
DEADLY = 2  # engines in a row


class AllSaid(Exception):
    """A stream was lost after its last word, before the mark of its end."""


class Recovery(msgspec.Struct, eq=False):
    """One answer's second tries."""

    api: Api
    retries: int
    resumed: bool = False
    thoughts_over: bool = False  # the client has ended them
    half: HalfCall | None = None  # a tool call in progress that could go on
    _deaths: int = 0  # of engines that had got the request, and had not said anything
    _differed: int = 0  # continuations that an engine refused, or that came out differently
    _replays: bool = False
    _asked_for_words: bool = False
    _watch: Watch | None = None
    _wordless: bytes = b""  # the end of a stream that said nothing

    def begin(self, relay: Relay, fields: Fields) -> None:
        """An answer begins at its beginning."""
        self._watch, self._wordless = None, b""
        if can_be_lost(self.api) and can_continue(self.api, fields):
            self._watch = Watch(self.api, relay.as_is)
            relay.restart(self._watch)

    def go_on(self, relay: Relay, plan: Continuation) -> None:
        """What comes next is the rest of what was passed on."""
        rewrite = rewriter(self.api, plan)
        if self._watch is None or self._watch.spoke:
            relay.restart(rewrite)
        else:
            self._watch.over(rewrite)
            relay.restart(self._watch)
        self.resumed = True

    # cut off

    def may_try(self, tries: int) -> bool:
        """Whether there may be another attempt after `tries`."""
        return not self.deadly and (self._differed < TIMES_AGAIN and tries - self._differed <= self.retries)

    @property
    def deadly(self) -> bool:
        """Whether it looks as if the request itself kills engines: no other is to be lost to it."""
        return self._deaths >= DEADLY

    def died(self) -> None:
        """An engine was lost with the request, before it said anything."""
        self._deaths += 1

    def refused(self, status: int) -> bool:
        """Whether an engine refused what it was to go on from (a grammar may, say), and all is to be said again."""
        if not self.resumed or self._replays or status < 400:
            return False
        self._replays = True
        return True

    def differed(self) -> None:
        """An attempt's end was the engine's answer, not its loss."""
        self._differed += 1

    def rest(self, relay: Relay, fields: Fields, tries: int) -> Continuation | None:
        """How to get the rest of a stream, or None if there is no right way. Raises AllSaid if nothing is missing."""
        said = said_in(relay.kept if relay.kept.whole else [])
        if said.finished and self.api in sse.LAST_EVENT:
            raise AllSaid
        if not (self.may_try(tries) and relay.kept.whole):
            return None
        closed = bool(self._wordless) or self.thoughts_over
        plan = continuation(self.api, fields, said, again=self._differed, closed=closed)
        if plan is not None and self._replays:
            return replay(fields, said)
        self.half = half_call(said.calls) if plan is not None and not (self._differed or said.ending) else None
        return plan

    def go_on_with_call(self, relay: Relay, fields: Fields, half: HalfCall, answer: bytes) -> Continuation | None:
        """The same with the call given as far as it went; `answer` is the template's. None if that cannot be."""
        call = text_of_call(answer)
        if call is None:
            return None
        plan = continuation(self.api, fields, said_in(relay.kept), call=call, tail=half.tail)
        if plan is None or plan.anew:
            return None
        self.go_on(relay, plan)
        return plan

    # without words

    def wordless(self) -> bool:
        """Whether a stream is over and nothing was said."""
        return self._watch is not None and self._watch.lost

    def ran_out(self, fields: Fields, ctx_tokens: int) -> bool:
        """Whether its tokens ran out before it could say a word: then there is nothing wrong with its end."""
        assert self._watch is not None
        if not ran_out(self.api, fields, usage_in(self._watch.held), ctx_tokens):
            return False
        self._wordless = self._watch.held
        return True

    def words(self, relay: Relay, fields: Fields, *, wanted: bool, whole: bool) -> Continuation | None:
        """How to ask for words, once, if they are `wanted`. The end is kept; only one of a `whole` answer unmarked."""
        assert self._watch is not None
        self._wordless = self._watch.held if whole else marked(self.api, self._watch.held)
        if self._asked_for_words or not wanted or not relay.kept.whole:
            return None
        self._asked_for_words = True
        plan = continuation(self.api, fields, said_in(relay.kept), closed=True)
        return None if plan is None or plan.anew else plan

    def end(self) -> bytes:
        """The end of a stream that said nothing, to be sent now; empty if there is none, or words have come."""
        if self._watch is None or self._watch.spoke:
            return b""
        end, self._wordless = self._wordless, b""
        return end
