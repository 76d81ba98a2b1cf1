"""Decides how an answer goes on that was cut off, or that ended without content. Pure.

An answer of which the client has received nothing is asked for again from its beginning. Otherwise its rest is asked
for:

    in a tool call    the call is given in the template's format and continues; otherwise it is made again
    diverged          the rest is asked for again, a few times
    refused           an engine refused to continue: the request is replayed, and only the rest is forwarded
    without content   content is asked for once, if the recipe says so; otherwise the end is sent, marked
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.continuation.lost_in_thought import LostInThought, can_be_lost, marked
from nemotron_ops.gateway.continuation.partial_call import PartialCall, partial_call, text_of_call
from nemotron_ops.gateway.continuation.plan import TIMES_AGAIN, can_continue, continuation, replay
from nemotron_ops.gateway.continuation.rewrite import Continuation, rewriter
from nemotron_ops.gateway.continuation.transcript import transcript_of
from nemotron_ops.gateway.streams import sse
from nemotron_ops.gateway.streams.relay import Relay

Fields = Mapping[str, msgspec.Raw]
MAX_ENGINE_DEATHS = 2


class NothingMissing(Exception):
    """A stream was lost after its last content, before the event that marks its end."""


class Recovery(msgspec.Struct, eq=False):
    """The further attempts of one request."""

    api: Api
    retries: int
    resumed: bool = False
    reasoning_ended: bool = False  # by the client's control request
    partial_call: PartialCall | None = None  # a tool call that may continue
    _engine_deaths: int = 0  # engines that died with the request before sending anything
    _differed: int = 0  # continuations that were refused or diverged
    _replays: bool = False
    _asked_for_content: bool = False
    _detector: LostInThought | None = None
    _held_end: bytes = b""  # the end of a stream without content

    def begin(self, relay: Relay, fields: Fields) -> None:
        """An attempt asks for the answer from its beginning."""
        self._detector, self._held_end = None, b""
        if can_be_lost(self.api) and can_continue(self.api, fields):
            self._detector = LostInThought(self.api, relay.as_is)
            relay.restart(self._detector)

    def go_on(self, relay: Relay, plan: Continuation) -> None:
        """The next attempt brings the rest of the stream."""
        rewrite = rewriter(self.api, plan)
        if self._detector is None or self._detector.has_content:
            relay.restart(rewrite)
        else:
            self._detector.next_attempt(rewrite)
            relay.restart(self._detector)
        self.resumed = True

    # cut off

    def may_try(self, tries: int) -> bool:
        """Whether another attempt is allowed after `tries`."""
        return not self.kills_engines and (self._differed < TIMES_AGAIN and tries - self._differed <= self.retries)

    @property
    def kills_engines(self) -> bool:
        """Whether the request itself seems to kill engines: then no further engine gets it."""
        return self._engine_deaths >= MAX_ENGINE_DEATHS

    def died(self) -> None:
        """An engine died with the request before it sent anything."""
        self._engine_deaths += 1

    def convicted(self) -> None:
        """An engine was lost on this very request."""
        self._engine_deaths = MAX_ENGINE_DEATHS

    def refused(self, status: int) -> bool:
        """Whether an engine refused a continuation (because of a grammar, say), so that the request is replayed."""
        if not self.resumed or self._replays or status < 400:
            return False
        self._replays = True
        return True

    def differed(self) -> None:
        """An attempt failed because of the engine's answer; the engine was not lost."""
        self._differed += 1

    def rest(self, relay: Relay, fields: Fields, tries: int) -> Continuation | None:
        """How to get the rest of a stream, or None if there is no correct way. Raises NothingMissing."""
        transcript = transcript_of(relay.kept if relay.kept.whole else [])
        if transcript.finished and self.api in sse.LAST_EVENT:
            raise NothingMissing
        if not (self.may_try(tries) and relay.kept.whole):
            return None
        closed = bool(self._held_end) or self.reasoning_ended
        plan = continuation(self.api, fields, transcript, again=self._differed, closed=closed)
        if plan is not None and self._replays:
            return replay(fields, transcript)
        may_continue_call = plan is not None and not (self._differed or transcript.ending)
        self.partial_call = partial_call(transcript.calls) if may_continue_call else None
        return plan

    def go_on_with_call(self, relay: Relay, fields: Fields, call: PartialCall, answer: bytes) -> Continuation | None:
        """Continue with the partial call in the prefill; `answer` is the template's. None if that is not possible."""
        text = text_of_call(answer)
        if text is None:
            return None
        plan = continuation(self.api, fields, transcript_of(relay.kept), call=text, tail=call.tail)
        if plan is None or plan.replays:
            return None
        self.go_on(relay, plan)
        return plan

    # without content

    def lost_in_thought(self) -> bool:
        """Whether the stream has ended without content."""
        return self._detector is not None and self._detector.lost

    def content(self, relay: Relay, fields: Fields, *, wanted: bool, whole: bool) -> Continuation | None:
        """How to ask for content, once, if `wanted`. The end is kept, and marked unless the answer is sent `whole`."""
        assert self._detector is not None
        held_end = self._detector.held_end
        self._held_end = held_end if whole else marked(self.api, held_end)
        if self._asked_for_content or not wanted or not relay.kept.whole:
            return None
        self._asked_for_content = True
        plan = continuation(self.api, fields, transcript_of(relay.kept), closed=True)
        return None if plan is None or plan.replays else plan

    def end(self) -> bytes:
        """The held-back end, to be sent now; empty if there is none, or if content has come."""
        if self._detector is None or self._detector.has_content:
            return b""
        end, self._held_end = self._held_end, b""
        return end
