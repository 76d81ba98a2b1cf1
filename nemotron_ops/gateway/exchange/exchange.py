"""One request, from its last byte to the end of its answer. asyncio.

    authorise -> prepare -> wait for a slot -> attempt -> whole answer, stream, or loss
                                 ^                          |
                                 +---- nothing was sent ----+

What a client has not seen can be tried again; what it has seen is continued or ends in an error, never in an end
that looks regular. A client that leaves cancels the task that runs this, and with it the work upstream.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from nemotron_ops.gateway.api.catalog import Match
from nemotron_ops.gateway.api.errors import Refusal, error_body, error_event
from nemotron_ops.gateway.api.routes import Kind, Route
from nemotron_ops.gateway.client.connection import ClientConnection
from nemotron_ops.gateway.client.heads import Request, client_patience_s, upstream_head
from nemotron_ops.gateway.continuation.partial_call import HalfCall
from nemotron_ops.gateway.continuation.recovery import AllSaid, Recovery
from nemotron_ops.gateway.continuation.rewrite import Continuation
from nemotron_ops.gateway.exchange.chat_control import steer
from nemotron_ops.gateway.exchange.engine_pages import show_page
from nemotron_ops.gateway.exchange.failover import after_loss, not_ready, overflowed
from nemotron_ops.gateway.exchange.keepalive import PATIENCE_HEADER, first_token_in_time, late
from nemotron_ops.gateway.exchange.respond import close_said, end_stream, reply_folded, reply_whole
from nemotron_ops.gateway.keys.ring import ANYONE, Key, may_use
from nemotron_ops.gateway.loop.eager_task import EagerTask
from nemotron_ops.gateway.queue.affinity import prefixes
from nemotron_ops.gateway.queue.ticket import Ticket
from nemotron_ops.gateway.request.form import prepare_form
from nemotron_ops.gateway.request.prepare import Prepared, prepare
from nemotron_ops.gateway.streams import sse
from nemotron_ops.gateway.streams.fold import Fold, fold_for
from nemotron_ops.gateway.streams.relay import Relay, nothing
from nemotron_ops.gateway.streams.usage import Tally, Usage
from nemotron_ops.gateway.upstream.attempt import Attempt, Late, Outcome, Whole
from nemotron_ops.gateway.upstream.connection import Upstream

if TYPE_CHECKING:
    from nemotron_ops.gateway.queue.pool import Pool
    from nemotron_ops.gateway.server import Gateway
    from nemotron_ops.supervisor.snapshot import ModelView

EVENT_STREAM = b"text/event-stream"


class Exchange(msgspec.Struct, eq=False):
    """One request being answered."""

    gateway: Gateway
    pool: Pool
    loop: asyncio.AbstractEventLoop
    client: ClientConnection
    request: Request
    route: Route
    id: str
    started: float  # by the loop's clock
    recovery: Recovery
    key: Key = ANYONE
    stopped: bool = False
    entered: bool = False  # counted in the key's quota
    model: str = ""
    asked: str = ""  # the client's name for it
    instance: str = ""
    status: int = 0
    cause: str = ""  # of an error
    task: EagerTask | None = None
    cut: Refusal | None = None  # why it is stopped, if not because its client left
    queued_s: float = 0.0
    tries: int = 0
    ticket: Ticket | None = None
    relay: Relay | None = None
    usage: Usage | None = None
    whole: bytes = b""  # an answer that says itself what it cost
    losses: tuple[tuple[float, str, str], ...] = ()  # when, which instance, why
    fold: Fold | None = None
    patient_until: float = 0.0
    events_before: int = 0  # this attempt
    _granted_at: float = 0.0

    @property
    def resumed(self) -> bool:
        """Whether a part of the answer came from a second attempt."""
        return self.recovery.resumed

    def start(self) -> None:
        """Answer the request in a task of its own, until it is done or the client leaves."""
        self.task = EagerTask(self._answer(), self.gateway.outbox, self._over)
        self.client.on_gone = self.stop
        self.task.go()

    def stop(self) -> None:
        """Stop all work for this request, and end its answer if the client is still there."""
        self.stopped = True
        if self.task is not None:
            self.task.cancel()

    def _over(self, bug: Exception | None) -> None:
        """The answer has ended, perhaps in a way that it should not have."""
        self.task = None  # which knows this
        try:
            self.gateway.ran(self)
        except Exception as exc:  # noqa: BLE001  costs no other request anything
            bug = bug or exc
        if bug is not None:
            self.gateway.log_bug(bug)

    async def _answer(self) -> None:
        try:
            if self.stopped:
                raise asyncio.CancelledError
            if not self.pool.known:
                await self.pool.know()
            if self.route.infers:
                await self._infer()
            elif self.route.local:
                self.gateway.answer(self)
            elif self.route.kind is Kind.INSPECT:
                await show_page(self)
            else:
                await steer(self)
        except Refusal as refusal:
            if not self._end_without_words():
                self.refuse(refusal)
        except asyncio.CancelledError:
            if self.client.transport is not None:  # not its client's doing
                self.refuse(self.cut or Refusal(status=503, code="stopping", message="shutting down", retry_after_s=5))
            self.cause = self.cause or "client_gone"
            raise
        except Exception as exc:  # noqa: BLE001  a bug in one request must not leave its client without an answer
            self.gateway.log_bug(exc)
            self.refuse(Refusal(status=500, code="internal", message="the gateway failed; its log says why"))
        finally:
            self.gateway.steerable.discard(self)
            self.release(finished=False)
            self._estimate_usage()

    def refuse(self, refusal: Refusal) -> None:
        """End with an error, in the way that is still open."""
        self.cause = refusal.code
        self.status = refusal.status
        api = self.route.api
        if not self.client.answer.began:
            extra = self.headers()
            if refusal.retry_after_s is not None:
                extra.append(b"Retry-After: %d" % max(1, round(refusal.retry_after_s)))
            if refusal.allow:
                extra.append(b"Allow: " + refusal.allow.encode())
            self.client.reply(refusal.status, error_body(api, refusal), extra=extra)
            return
        self.client.answer.send(error_event(api, refusal))
        self.client.abort()

    # one request for a model

    async def _infer(self) -> None:
        prepared = self._prepare()
        self.model = prepared.named.model.name
        self.asked = prepared.named.asked
        self._check_model(prepared.named)
        ticket = self.ticket = self._new_ticket(prepared)
        if prepared.stream or prepared.fold is not None:
            self.relay = self._new_relay(prepared)
        while True:
            if self.tries or not self.pool.go(ticket, prepared.named.model):
                await self._wait(prepared.named.model)
            self.instance, self._granted_at = ticket.instance, self.loop.time()
            outcome = await self._attempt(prepared)
            whole = outcome if isinstance(outcome, Whole) and not not_ready(outcome) else None
            if self.recovery.wordless():
                if (plan := self._ask_for_words(prepared)) is not None:
                    prepared = self.go_on(plan, prepared)
                    continue
                self._end_without_words()
                return
            if whole is not None and self._end_without_words():
                return
            if self.relay is not None and (self.relay.complete or self.relay.failed):
                end_stream(self, prepared)
                return
            if whole is not None and not overflowed(self, whole) and not self.recovery.refused(whole.status):
                reply_whole(self, whole, prepared.named.asked)
                return
            try:
                prepared = after_loss(self, outcome, prepared)
            except AllSaid:
                close_said(self, prepared)
                return

    def _prepare(self) -> Prepared:
        directory, body = self.pool.directory, self.request.body
        if self.route.form:
            resolve = partial(directory.resolve, only=self.key.models)
            return prepare_form(self.request.headers.get(b"content-type", b""), body, resolve)
        return prepare(self.route, body, directory, self.key.models)

    def _check_model(self, named: Match) -> None:
        if not may_use(self.key, (named.model.name, *named.model.names)):
            raise Refusal(status=403, code="model_not_allowed", message="this API key may not use this model")

    def _ask_for_words(self, prepared: Prepared) -> Continuation | None:
        """A stream ended without words: how to ask for them, if the recipe wants that (once), or None."""
        assert self.relay is not None
        instance = self.pool.directory.by_name.get(self.instance)
        if self.recovery.ran_out(prepared.fields, instance.ctx_tokens if instance is not None else 0):
            return None
        self.cause = "lost_in_thought"
        wanted = prepared.named.model.lost_in_thought == "retry"
        plan = self.recovery.words(self.relay, prepared.fields, wanted=wanted, whole=prepared.fold is not None)
        if plan is not None:
            self.release(finished=True)
        return plan

    def _end_without_words(self) -> bool:
        """Send the end of a stream that said nothing, if there is one; returns whether there was."""
        end = self.recovery.end()
        if not end or self.relay is None:
            return False
        self.relay.restart()
        self.relay.feed(end)
        self.release(finished=True)
        if self.fold is None:
            self.client.end()
        else:
            reply_folded(self, self.fold)
        return True

    def _new_ticket(self, prepared: Prepared) -> Ticket:
        ticket = Ticket(model=self.model, key=self.key.id, weight=self.key.weight, bytes=len(prepared.body))
        ticket.light = self.route.light
        ticket.answers = prepared.answers
        if self.route.generates and self.pool.replicated(self.model):
            session = self.request.headers.get(b"x-session-id", b"").decode("latin-1")
            ticket.prefixes = prefixes(self.route.api, self.model, prepared.fields, session)
        self.pool.estimates.reserve(ticket, prepared, self.route)
        return ticket

    async def _wait(self, model: ModelView) -> None:
        """Wait for a slot. Raises Refusal."""
        assert self.ticket is not None
        before = self.loop.time()
        deadline = self.patient_until or self.started + min(model.queue_wait_s, client_patience_s(self.request))
        await self.pool.admit(self.ticket, model, again=self.tries > 0, deadline=deadline, waiting=self.comment)
        self.queued_s += self.loop.time() - before

    def comment(self) -> None:
        """A comment for a client whose stream waits, so that nothing between us takes it for dead."""
        if self.relay is None or self.relay.outlet is not self.client.answer:
            return
        if not self.client.answer.began:
            self._begin()
        self.client.answer.send(sse.KEEP_ALIVE)

    async def _attempt(self, prepared: Prepared) -> Outcome:
        self.tries += 1
        upstream = self.pool.upstreams[self.instance]
        if self.recovery.half is not None:
            prepared = await self._give_call(upstream, self.recovery.half, prepared)
        headers, relay = self.request.headers, self.relay
        head = upstream_head(
            self.route.upstream, key=upstream.key, length=len(prepared.body),
            content_type=headers.get(b"content-type", b""),
        )  # fmt: skip
        attempt = Attempt(upstream, relay)
        self.client.watch(attempt.pause)
        timer = first_token_in_time(self, attempt) if PATIENCE_HEADER in headers else None
        if relay is not None:
            self.events_before = relay.events
            relay.at(self.gateway.books.metrics.between_tokens_s[(self.model, self.instance)].observe)
            if relay.outlet is self.client.answer:
                self.gateway.silence.begin(self)
        try:
            outcome = await attempt.ask(head, prepared.body)
        finally:
            if relay is not None:
                self.gateway.silence.end(self)
            if timer is not None:
                timer.cancel()
        if isinstance(outcome, Late):
            raise late(self.request)
        return outcome

    async def _give_call(self, upstream: Upstream, half: HalfCall, prepared: Prepared) -> Prepared:
        """Let a tool call in progress go on where it was, if the model's template says how it is written."""
        self.recovery.half = None
        head = upstream_head("/apply-template", key=upstream.key, length=len(half.body), content_type=b"")
        answer = await Attempt(upstream).ask(head, half.body)
        if self.relay is None or not isinstance(answer, Whole) or answer.status != 200:
            return prepared
        plan = self.recovery.go_on_with_call(self.relay, prepared.fields, half, answer.body)
        return prepared if plan is None else replace(prepared, body=plan.body)

    def go_on(self, plan: Continuation, prepared: Prepared) -> Prepared:
        """What to send for the rest of a stream."""
        assert self.relay is not None
        self.recovery.go_on(self.relay, plan)
        self.patient_until = self.loop.time() + prepared.named.model.queue_wait_s
        return replace(prepared, body=plan.body)

    def anew(self, prepared: Prepared) -> Prepared:
        """The same request once more, from its beginning."""
        if self.relay is not None:
            self.relay.forget()
            prepared = replace(prepared, fold=fold_for(self.route.api, prepared.fields) if prepared.fold else None)
            self.relay = self._new_relay(prepared)
        return prepared

    def release(self, *, finished: bool) -> None:
        """Give the slot back, if there is one; `finished` if the instance has answered to the end."""
        ticket = self.ticket
        if ticket is not None and ticket.instance:
            if finished and self.tries == 1 and self.relay is not None and self.relay.usage is not None:
                self.pool.estimates.learn(ticket, self.relay.usage.prompt_tokens)
            self.pool.release(ticket, took_s=self.loop.time() - self._granted_at, answered=finished)
            ticket.instance = ""

    def _estimate_usage(self) -> None:
        """What an answer cost that does not say it, because it was cut off or its client has left."""
        relay = self.relay
        if self.ticket is None or self.ticket.light or not self.tries or self.whole:
            return
        events = relay.events if relay is not None else 0
        if (relay is None or relay.usage is None) and (events or self.cause == "client_gone"):
            prompt_tokens = self.pool.estimates.prompt_tokens(self.model, self.request.body)
            self.usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=events)

    # answers

    def _new_relay(self, prepared: Prepared) -> Relay:
        outlet = prepared.fold or self.client.answer
        begin = self._begin if prepared.fold is None else nothing
        relay = Relay(
            self.route.api, prepared.named.asked, outlet, begin=begin, clock=self.loop.time, memory=self.gateway.memory
        )
        if self.ticket is not None:
            self.ticket.answer = relay
        if prepared.answers > 1:
            relay.tally = Tally()
        self.fold = prepared.fold
        if bytes(prepared.fields.get("reasoning_control", b"")) == b"true":
            self.gateway.steerable.add(self)
        self.recovery.begin(relay, prepared.fields)
        return relay

    def _begin(self) -> None:
        self.status = 200
        if not self.client.answer.began:
            self.client.begin(200, EVENT_STREAM, [*self.headers(), b"Cache-Control: no-store"])

    def headers(self) -> list[bytes]:
        """What the gateway adds to an answer's head, line by line."""
        headers = self.gateway.cors(self.request)
        headers.append(b"X-Request-Id: " + self.id.encode())
        if self.instance:
            headers.append(b"X-Instance: " + self.instance.encode())
            headers.append(b"X-Queue-Ms: %d" % round(self.queued_s * 1000))
        return headers
