"""Decides what follows a failed attempt: whether the instance is at fault, and what is sent next. Changes the pool.

`blame` tells pool and recovery about the failure; `next_step` only decides.
"""

from __future__ import annotations

from dataclasses import dataclass

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.continuation.recovery import NothingMissing
from nemotron_ops.gateway.continuation.rewrite import Continuation
from nemotron_ops.gateway.queue.pool import Pool
from nemotron_ops.gateway.queue.ticket import ALONE
from nemotron_ops.gateway.record import Record
from nemotron_ops.gateway.request.prepare import Prepared
from nemotron_ops.gateway.streams import sse
from nemotron_ops.gateway.upstream.attempt import Lost, Outcome, Streamed, Whole

NOT_READY = b"Loading model"


@dataclass(frozen=True, slots=True)
class Again:
    """Send the same request again, from its beginning."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Continue the stream with `plan`."""

    plan: Continuation


@dataclass(frozen=True, slots=True)
class Complete:
    """The client has the whole stream, except for the event that marks its end."""


def blame(record: Record, pool: Pool, outcome: Outcome) -> None:
    """Record a failed attempt, and avoid its instance if the instance is at fault."""
    ticket, recovery = record.ticket, record.recovery
    assert ticket is not None
    record.losses += ((pool.loop.time(), record.instance, reason(outcome)),)
    if overflowed(record, outcome):
        pool.overflowed(ticket)
    elif diverged(outcome) or (isinstance(outcome, Whole) and not not_ready(outcome)):
        recovery.differed()
    elif isinstance(outcome, Streamed):  # the instance is alive
        pool.lost(record.instance, record.model)
        ticket.avoid = record.instance
    else:
        pool.failed(record.instance, record.model)
        ticket.avoid = record.instance


def next_step(record: Record, outcome: Outcome, prepared: Prepared) -> Again | Rest | Complete:
    """What to send next. Raises Refusal if nothing can be sent."""
    relay, recovery = record.relay, record.recovery
    may_retry = recovery.may_try(record.tries)
    if relay is None or not relay.began:
        if may_retry:
            return Again()
        message = f"no instance could answer: {reason(outcome)}"
        if recovery.kills_engines:
            message = f"instances were lost on this request, it is not given to another: {reason(outcome)}"
        raise Refusal(status=502, code="engine_lost", message=message, retry_after_s=1)
    try:
        plan = recovery.rest(relay, prepared.fields, record.tries)
    except NothingMissing:
        return Complete()
    if plan is not None:
        return Rest(plan)
    if may_retry and prepared.fold is not None:
        return Again()  # the client has seen nothing of a folded answer
    raise Refusal(status=502, code="engine_lost", message=f"the answer was cut off: {reason(outcome)}")


def not_ready(outcome: Whole) -> bool:
    """Whether an instance answered that it is still loading."""
    return outcome.status == 503 and NOT_READY in outcome.body


def overflowed(record: Record, outcome: Outcome) -> bool:
    """Whether other slots filled the shared context. False if the request ran alone: then it exceeded it by itself."""
    if record.ticket is None or not 0 < record.ticket.tokens < ALONE:
        return False
    if isinstance(outcome, Whole):
        return outcome.status == 500 and sse.CONTEXT_FULL in outcome.body
    return isinstance(outcome, Lost) and outcome.full


def diverged(outcome: Outcome) -> bool:
    """Whether an instance answered with something that does not continue what the client has."""
    return isinstance(outcome, Lost) and outcome.diverged


def engine_lost(record: Record, outcome: Outcome) -> bool:
    """Whether an attempt ended because its engine did."""
    return isinstance(outcome, Lost) and outcome.connected and not (diverged(outcome) or overflowed(record, outcome))


def reason(outcome: Outcome) -> str:
    """Why an attempt failed, for errors and traces."""
    match outcome:
        case Lost():
            return outcome.reason
        case Streamed():
            return "the engine ended the stream early"
        case Whole():
            return "the engine is still loading" if not_ready(outcome) else "the engine refused to continue the answer"
