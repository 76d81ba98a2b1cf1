"""An attempt brought no answer, or half of one: whose fault it was, and what is asked for next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.queue.ticket import ALONE
from nemotron_ops.gateway.request.prepare import Prepared
from nemotron_ops.gateway.streams import sse
from nemotron_ops.gateway.upstream.attempt import Lost, Outcome, Streamed, Whole

if TYPE_CHECKING:
    from nemotron_ops.gateway.exchange.exchange import Exchange

NOT_READY = b"Loading model"


def after_loss(exchange: Exchange, outcome: Outcome, prepared: Prepared) -> Prepared:
    """What to send to the next instance. Raises Refusal if that makes no sense, AllSaid if nothing is missing."""
    relay, recovery = exchange.relay, exchange.recovery
    reason = _reason(outcome)
    exchange.losses += ((exchange.loop.time(), exchange.instance, reason),)
    _blame(exchange, outcome)
    exchange.release(finished=False)
    again = recovery.may_try(exchange.tries)
    if relay is None or not relay.began:
        if again:
            return exchange.anew(prepared)
        message = f"no instance could answer: {reason}"
        if recovery.deadly:
            message = f"instances were lost on this request, it is not given to another: {reason}"
        raise Refusal(status=502, code="engine_lost", message=message, retry_after_s=1)
    plan = recovery.rest(relay, prepared.fields, exchange.tries)
    if plan is None and again and prepared.fold is not None:
        return exchange.anew(prepared)  # the client has seen nothing of a folded answer
    if plan is None:
        raise Refusal(status=502, code="engine_lost", message=f"the answer was cut off: {reason}")
    exchange.gateway.books.metrics.resumed[(exchange.model,)] += not _differs(outcome)
    return exchange.go_on(plan, prepared)


def not_ready(outcome: Whole) -> bool:
    """Whether an instance said that it is still loading."""
    return outcome.status == 503 and NOT_READY in outcome.body


def overflowed(exchange: Exchange, outcome: Outcome) -> bool:
    """Whether others filled the context that slots share. Who was alone in it has filled it himself."""
    if exchange.ticket is None or not 0 < exchange.ticket.tokens < ALONE:
        return False
    if isinstance(outcome, Whole):
        return outcome.status == 500 and sse.CONTEXT_FULL in outcome.body
    return isinstance(outcome, Lost) and outcome.full


def _blame(exchange: Exchange, outcome: Outcome) -> None:
    """Keep away from who failed, as far as it was somebody's fault."""
    pool, ticket, recovery = exchange.pool, exchange.ticket, exchange.recovery
    assert ticket is not None
    if overflowed(exchange, outcome):
        pool.overflowed(ticket)
    elif _differs(outcome) or (isinstance(outcome, Whole) and not not_ready(outcome)):
        recovery.differed()
    elif isinstance(outcome, Streamed):  # it is alive
        pool.lost(exchange.instance, exchange.model)
        ticket.avoid = exchange.instance
    else:
        pool.failed(exchange.instance, exchange.model)
        ticket.avoid = exchange.instance
        if isinstance(outcome, Lost) and outcome.connected and not _has_moved(exchange) and not _is_cut(exchange):
            recovery.died()


def _differs(outcome: Outcome) -> bool:
    """Whether it answered, but not so that what was said could be continued."""
    return isinstance(outcome, Lost) and outcome.diverged


def _has_moved(exchange: Exchange) -> bool:
    """Whether this attempt has brought anything."""
    return exchange.relay is not None and exchange.relay.events > exchange.events_before


def _is_cut(exchange: Exchange) -> bool:
    """Whether the supervisor wanted the instance's connections closed."""
    view = exchange.pool.directory.by_name.get(exchange.instance)
    return view is None or view.cut


def _reason(outcome: Outcome) -> str:
    match outcome:
        case Lost():
            return outcome.reason
        case Streamed():
            return "the engine ended it early"
        case Whole():
            return "the engine is still loading" if not_ready(outcome) else "the engine would not go on with it"
