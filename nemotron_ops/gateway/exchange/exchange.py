"""Runs one request, from the arrival of its last byte to the end of its response. asyncio.

    prepare -> wait for a slot -> attempt -> whole response or stream -> end
                     ^               |
                     +--- failed ----+

A request of which the client has received nothing is sent again. A stream that has begun is continued, or ends in an
error, so a cut response never looks complete. A client that disconnects cancels the task and the upstream request.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.api.routes import Kind
from nemotron_ops.gateway.client.heads import client_patience_s, upstream_head
from nemotron_ops.gateway.continuation.partial_call import PartialCall
from nemotron_ops.gateway.continuation.rewrite import Continuation
from nemotron_ops.gateway.exchange import respond
from nemotron_ops.gateway.exchange.ask_whole import ask_whole
from nemotron_ops.gateway.exchange.batch_routes import reply_store
from nemotron_ops.gateway.exchange.chat_control import control_chat
from nemotron_ops.gateway.exchange.culprit import Guilt, guilt_of, loss_of
from nemotron_ops.gateway.exchange.engine_pages import show_page
from nemotron_ops.gateway.exchange.failover import (
    Again,
    Rest,
    blame,
    diverged,
    engine_lost,
    next_step,
    not_ready,
    overflowed,
)
from nemotron_ops.gateway.exchange.forced_call import begin_call, call_behind, writes_calls
from nemotron_ops.gateway.exchange.hosted_tools import hand_over, is_for_agent
from nemotron_ops.gateway.exchange.intake import folded_again, new_ticket, prepare_request
from nemotron_ops.gateway.exchange.keepalive import PATIENCE_HEADER, first_token_timeout, first_token_timer
from nemotron_ops.gateway.exchange.model_access import check_model
from nemotron_ops.gateway.exchange.own_routes import reply_own
from nemotron_ops.gateway.keys.ring import ANYONE
from nemotron_ops.gateway.loop.eager_task import EagerTask
from nemotron_ops.gateway.queue.ticket import ALL_SLOTS
from nemotron_ops.gateway.record import Record
from nemotron_ops.gateway.request.prepare import Prepared
from nemotron_ops.gateway.shared import Shared
from nemotron_ops.gateway.streams import sse
from nemotron_ops.gateway.streams.fold import Fold
from nemotron_ops.gateway.streams.relay import Outlet, Relay, nothing
from nemotron_ops.gateway.streams.usage import Tally, Usage
from nemotron_ops.gateway.toolcalls.healing import Healing, level_of
from nemotron_ops.gateway.toolcalls.reask import AskAgain, Kept
from nemotron_ops.gateway.upstream.attempt import Attempt, Late, Outcome, Whole
from nemotron_ops.gateway.upstream.connection import Upstream
from nemotron_ops.gateway.warnings_log import log_bug

if TYPE_CHECKING:
    from nemotron_ops.supervisor.snapshot import ModelView


class Exchange(Record, eq=False, kw_only=True):
    """One request being answered: its record, and the task that runs it."""

    shared: Shared
    ran: Callable[[Exchange], None]  # is told that the request is over
    stopped: bool = False
    task: EagerTask | None = None
    cut: Refusal | None = None  # why it was stopped, if not because its client disconnected
    fold: Fold | None = None
    patient_until: float = 0.0  # the deadline for the wait after a continuation

    def start(self) -> None:
        """Answer the request in a task of its own, until it is over or the client disconnects."""
        self.task = EagerTask(self._answer(), self.shared.outbox, self._over)
        self.client.on_gone = self.stop
        self.task.go()

    def stop(self) -> None:
        """Cancel all work for this request, and end its response if the client is still connected."""
        self.stopped = True
        if self.task is not None:
            self.task.cancel()

    @property
    def key_id(self) -> str:
        """The id of the client's key; empty if none is required."""
        return "" if self.key is ANYONE else self.key.id

    def refuse(self, refusal: Refusal) -> None:
        """End the response with an error."""
        respond.refuse(self, refusal)

    def _over(self, bug: Exception | None) -> None:
        """The task has ended; `bug` is an exception that it should have handled."""
        self.task = None  # breaks a reference cycle
        try:
            self.ran(self)
        except Exception as exc:  # noqa: BLE001  must not affect other requests
            bug = bug or exc
        if bug is not None:
            log_bug(bug)

    async def _answer(self) -> None:
        try:
            if self.stopped:
                raise asyncio.CancelledError
            pool = self.shared.pool
            if not pool.known:
                await pool.know()
            if self.route.infers:
                try:
                    await self._infer()
                except Refusal as refusal:
                    if not is_for_agent(self, refusal, self.shared):
                        raise
                    await hand_over(self, self.shared)
            elif self.route.local:
                reply_own(self, self.shared)
            elif self.route.kind is Kind.INSPECT:
                await show_page(self, pool)
            elif self.route.kind is Kind.STORE:
                await reply_store(self, self.shared)
            else:
                await control_chat(self, self.shared)
        except Refusal as refusal:
            if not (respond.reply_first(self) or self._send_held_end()):
                self.refuse(refusal)
        except asyncio.CancelledError:
            if self.client.transport is not None:  # the client is still connected
                self.refuse(self.cut or Refusal(status=503, code="stopping", message="shutting down", retry_after_s=5))
            self.cause = self.cause or "client_gone"
            raise
        except Exception as exc:  # noqa: BLE001  the client gets an answer in spite of a bug
            log_bug(exc)
            self.refuse(Refusal(status=500, code="internal", message="the gateway failed; its log says why"))
        finally:
            self.shared.steerable.discard(self)
            self.release(finished=False)
            self._estimate_usage()
            if self.healing is not None:
                self.healing.count(self.model, self.shared.metrics)

    # one request for a model

    async def _infer(self) -> None:
        shared, recovery = self.shared, self.recovery
        prepared = prepare_request(self, shared)
        model = prepared.named.model
        self.model, self.asked = model.name, prepared.named.asked
        check_model(self.key, model)
        if shared.denylist.bodies:
            shared.denylist.check(self.model, self.key_id, self.request.body, shared.loop.time())
        ticket = self.ticket = new_ticket(self, shared.pool, prepared)
        if prepared.tools:
            level = level_of(self.request.headers, model.heal_tool_calls)
            most = self.conversion.turn.most_calls if self.conversion is not None else 0
            reasks = model.reask_tool_calls if prepared.fold is not None else 0
            self.healing = Healing(self.route.wire, prepared.fields, level, most, reasks)
            if self.conversion is not None:
                self.healing.folds = reasks > 0
                prepared = replace(prepared, fold=folded_again(self, prepared))
        if prepared.stream or prepared.fold is not None:
            self.relay = self._new_relay(prepared)
        while True:
            if self.tries or not shared.pool.go(ticket, model):
                await self._wait(model)
            self.instance, self.granted_at = ticket.instance, shared.loop.time()
            outcome = await self._attempt(prepared)
            whole = outcome if isinstance(outcome, Whole) and not not_ready(outcome) else None
            if recovery.lost_in_thought():
                if (plan := self._ask_for_content(prepared)) is not None:
                    prepared = self._continue(plan, prepared)
                    continue
                self._send_held_end()
                return
            if whole is not None and self._send_held_end():
                return
            if self.relay is not None and (self.relay.complete or self.relay.failed):
                try:
                    self._end_stream(self.relay, prepared.fold)
                except AskAgain as again:
                    prepared = await self._ask_again(again.kept, prepared)
                    continue
                return
            if whole is not None and not overflowed(self, whole) and not recovery.refused(whole.status):
                self.release(finished=whole.status == 200)
                respond.reply_whole(self, whole, self.asked, hidden=prepared.hidden)
                return
            rest = await self._after_failure(outcome, prepared)
            if rest is None:
                return
            prepared = rest

    def _new_relay(self, prepared: Prepared) -> Relay:
        outlet: Outlet = prepared.fold or self.client.answer
        begin = partial(respond.begin_stream, self) if prepared.fold is None else nothing
        if self.conversion is not None and prepared.fold is None:
            outlet = self.conversion.outlet(outlet)
            if self.conversion.lines:
                begin = partial(respond.begin_lines, self)
        if self.healing is not None and (prepared.fold is None or not self.healing.folds):
            outlet = self.healing.stream(outlet)
        shared = self.shared
        relay = Relay(
            self.route.wire, prepared.named.asked, outlet, begin=begin, clock=shared.loop.time, memory=shared.memory
        )
        if self.ticket is not None:
            self.ticket.answer = relay
        if prepared.answers > 1:
            relay.tally = Tally()
        self.fold = prepared.fold
        if bytes(prepared.fields.get("reasoning_control", b"")) == b"true":
            shared.steerable.add(self)
        self.recovery.begin(relay, prepared.fields)
        return relay

    async def _wait(self, model: ModelView) -> None:
        """Wait for a slot. Raises Refusal."""
        assert self.ticket is not None
        shared = self.shared
        before = shared.loop.time()
        deadline = self.patient_until or self.started + min(model.queue_wait_s, client_patience_s(self.request))
        comment = partial(respond.comment, self)
        answers = self.ticket.answers
        if self.suspected:
            self.ticket.answers = ALL_SLOTS
        self.granted_at = math.inf  # no engine has it, also where the ticket has an instance already
        try:
            await shared.pool.admit(self.ticket, model, again=self.tries > 0, deadline=deadline, waiting=comment)
        finally:
            self.granted_at = shared.loop.time()
            self.ticket.answers = answers
        self.queued_s += shared.loop.time() - before

    def _cleared(self, timer: asyncio.TimerHandle | None) -> None:
        """The first event has come from an engine that had this request alone: it lives, others may run there too."""
        if timer is not None:
            timer.cancel()
        self.suspected = False
        assert self.ticket is not None
        self.shared.pool.narrow(self.ticket)

    async def _attempt(self, prepared: Prepared) -> Outcome:
        self.tries += 1
        shared = self.shared
        self.upstream = upstream = shared.pool.upstreams[self.instance]
        if self.recovery.partial_call is not None:
            prepared = await self._continue_call(upstream, self.recovery.partial_call, prepared)
        elif prepared.forced is not None:
            known, api = shared.call_formats, self.route.wire
            body = await begin_call(prepared.forced, api, prepared.body, upstream, known, self.relay)
            prepared = replace(prepared, body=body)
        headers, relay = self.request.headers, self.relay
        head = upstream_head(
            self.route.upstream, key=upstream.key, length=len(prepared.body),
            content_type=prepared.content_type,
        )  # fmt: skip
        attempt = Attempt(upstream, relay)
        self.client.watch(attempt.pause)
        timer = first_token_timer(self, attempt, shared.loop) if PATIENCE_HEADER in headers else None
        if relay is not None:
            if self.suspected and not relay.began:
                relay.on_first = partial(self._cleared, timer)
            self.events_before = relay.events
            relay.at(shared.metrics.between_tokens_s[(self.model, self.instance)].observe)
            if prepared.fold is None:
                shared.waiting_since[self] = shared.loop.time()
        try:
            outcome = await attempt.ask(head, prepared.body)
        finally:
            if relay is not None:
                shared.waiting_since.pop(self, None)
            if timer is not None:
                timer.cancel()
        if isinstance(outcome, Late):
            raise first_token_timeout(self.request)
        return outcome

    # recovery

    async def _after_failure(self, outcome: Outcome, prepared: Prepared) -> Prepared | None:
        """What to send after a failed attempt; None if the response is complete. Raises Refusal."""
        shared = self.shared
        loss = loss_of(self, shared.running) if engine_lost(self, outcome) else None
        blame(self, shared.pool, outcome)
        self.release(finished=False)
        if loss is not None:
            self._convict(await guilt_of(self, shared.pool, loss))
        match next_step(self, outcome, prepared):
            case Again():
                return self._restart(prepared)
            case Rest(plan):
                shared.metrics.resumed[(self.model,)] += not diverged(outcome)
                return self._continue(plan, prepared)
            case _:
                assert self.relay is not None
                self.relay.outlet.send(sse.LAST_EVENT[self.route.wire])
                self.relay.complete = True
                self._end_stream(self.relay, prepared.fold)
                return None

    def _convict(self, guilt: Guilt) -> None:
        """Take a verdict over: a request that engines were lost on goes to no other, and comes in no more."""
        recovery, shared = self.recovery, self.shared
        if guilt is Guilt.NONE:
            return
        self.suspected = True
        if guilt is Guilt.SUSPECTED:
            recovery.died()
        else:
            recovery.convicted()
            shared.denylist.add(self.model, self.key_id, self.request.body, shared.loop.time())

    def _restart(self, prepared: Prepared) -> Prepared:
        """The same request, to be sent again from its beginning."""
        if self.relay is not None:
            self.relay.forget()
            prepared = replace(prepared, fold=folded_again(self, prepared))
            self.relay = self._new_relay(prepared)
        return prepared

    def _continue(self, plan: Continuation, prepared: Prepared) -> Prepared:
        """The request for the rest of a stream."""
        assert self.relay is not None
        self.recovery.go_on(self.relay, plan)
        self.patient_until = self.shared.loop.time() + prepared.named.model.queue_wait_s
        return replace(prepared, body=plan.body, forced=prepared.forced if plan.replays else None)

    async def _ask_again(self, kept: Kept, prepared: Prepared) -> Prepared:
        """The request that asks again for a call, once. Raises Refusal where the first answer has to do."""
        body, upstream = call_behind(self.route.wire, prepared.fields, kept), self.upstream
        if body is None or upstream is None or not await writes_calls(upstream, self.shared.call_formats):
            raise Refusal(status=500, code="engine_error", message="the call cannot be asked for again")
        return self._restart(replace(prepared, body=body, forced=None))

    async def _continue_call(self, upstream: Upstream, call: PartialCall, prepared: Prepared) -> Prepared:
        """The request that continues a partial tool call, if the model's template shows how the call is written."""
        self.recovery.partial_call = None
        template = await ask_whole(upstream, "/apply-template", call.body)
        if self.relay is None or template is None or template.status != 200:
            return prepared
        plan = self.recovery.go_on_with_call(self.relay, prepared.fields, call, template.body)
        return prepared if plan is None else replace(prepared, body=plan.body)

    def _ask_for_content(self, prepared: Prepared) -> Continuation | None:
        """How to ask for content after a stream without any, if the recipe wants that (once), else None."""
        assert self.relay is not None
        self.cause = "lost_in_thought"
        wanted = prepared.named.model.lost_in_thought == "retry"
        plan = self.recovery.content(self.relay, prepared.fields, wanted=wanted, whole=prepared.fold is not None)
        if plan is not None:
            self.release(finished=True)
        return plan

    # the end

    def _end_stream(self, relay: Relay, fold: Fold | None) -> None:
        """End the response to a stream that is over. Raises Refusal if llama-server ended it with an error."""
        respond.check_stream(relay)
        self.cause = ""  # not lost in thought: content came on the second request
        self.release(finished=relay.complete)
        respond.end_stream(self, fold)

    def _send_held_end(self) -> bool:
        """Send the held-back end of a stream without content; returns whether there was one."""
        if self.healing is not None:
            self.healing.reasks = 0  # there is no call in an answer without content
        end = self.recovery.end()
        if not end or self.relay is None:
            return False
        self.relay.restart()
        self.relay.feed(end)
        self.release(finished=True)
        respond.end_stream(self, self.fold)
        return True

    def release(self, *, finished: bool) -> None:
        """Return the slot, if the request holds one; `finished` if the instance has answered to the end."""
        ticket = self.ticket
        if ticket is not None and ticket.instance:
            shared = self.shared
            if finished and self.tries == 1 and self.relay is not None and self.relay.usage is not None:
                shared.pool.estimates.learn(ticket, self.relay.usage.prompt_tokens)
            shared.pool.release(ticket, took_s=shared.loop.time() - self.granted_at, answered=finished)
            ticket.instance = ""

    def _estimate_usage(self) -> None:
        """Estimate the usage of a response that does not state it: it was cut off, or its client disconnected."""
        relay = self.relay
        if self.ticket is None or self.ticket.light or not self.tries or self.whole:
            return
        events = relay.events if relay is not None else 0
        if (relay is None or relay.usage is None) and (events or self.cause == "client_gone"):
            prompt_tokens = self.shared.pool.estimates.prompt_tokens(self.model, self.request.body)
            self.usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=events)
