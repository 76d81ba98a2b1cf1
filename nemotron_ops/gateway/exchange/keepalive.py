"""Keeps waiting clients informed: SSE keep-alive comments, timeouts of the first token. asyncio.

A long prompt takes minutes in which llama-server sends nothing. A comment is not part of the answer, so a request that
loses its instance after a comment is still retried from its beginning.
"""

from __future__ import annotations

import asyncio

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.client.heads import PATIENCE_S, Request, client_patience_s
from nemotron_ops.gateway.exchange.respond import comment
from nemotron_ops.gateway.record import Record
from nemotron_ops.gateway.shared import Shared
from nemotron_ops.gateway.upstream.attempt import Attempt
from nemotron_ops.gateway.warnings_log import log_bug

PATIENCE_HEADER = b"x-request-timeout"
SLOWEST_BYTES_PER_S = 10.0  # of a prompt; no engine that is worth asking reads more slowly


async def keep_alive(shared: Shared) -> None:
    """Send comments until cancelled.

    One task checks all streams: a timer for each would make a stream of a few tokens 3 % more expensive.
    """
    while True:
        await asyncio.sleep(tick_s(shared.options.keep_alive_s))
        send_comments(shared, shared.loop.time())


def tick_s(period_s: float) -> float:
    """The time between two checks, for a comment every `period_s`."""
    return max(0.01, min(1.0, period_s / 10))


def send_comments(shared: Shared, now: float) -> None:
    """Send a comment to every stream that has been silent for the keep-alive period, less one tick."""
    period_s = shared.options.keep_alive_s
    silent_s = period_s - tick_s(period_s)
    for record, since in shared.waiting_since.items():
        relay = record.relay
        if relay is None or relay.complete or relay.failed:
            continue
        if now - max(since, relay.last_at) >= silent_s:
            shared.waiting_since[record] = now
            try:
                comment(record)
            except Exception as exc:  # noqa: BLE001  a broken connection must not hold up the other streams
                log_bug(exc)


def first_token_timer(record: Record, attempt: Attempt, loop: asyncio.AbstractEventLoop) -> asyncio.TimerHandle | None:
    """A timer that ends `attempt` as `Late` if no token comes within the client's timeout; None without a timeout."""
    patience_s = client_patience_s(record.request)
    relay = record.relay
    if patience_s >= PATIENCE_S or (relay is not None and relay.began):
        return None
    timer = loop.call_at(record.started + patience_s, attempt.give_up)
    if relay is not None:
        relay.on_first = timer.cancel
    return timer


def first_token_timeout(request: Request) -> Refusal:
    """The error after the client's first-token timeout."""
    message = f"no token came within {client_patience_s(request):g} s (X-Request-Timeout)"
    return Refusal(status=504, code="first_token_timeout", message=message)


def too_silent(record: Record, silence_s: float, now: float) -> Refusal | None:
    """Why a request is given up whose engine has sent nothing for longer than any prompt takes; None if it is not.

    Such a request holds its slot for ever: llama-server has had bugs in which it never ends. Answers that are not
    streamed have no events, and are not judged.
    """
    relay, ticket = record.relay, record.ticket
    if relay is None or ticket is None or not ticket.instance or ticket.light or relay.events > record.events_before:
        return None
    if now - record.granted_at <= silence_s + len(record.request.body) / SLOWEST_BYTES_PER_S:
        return None
    message = f"the engine has sent nothing for {now - record.granted_at:.0f} s, which no prompt of this size takes"
    return Refusal(status=504, code="engine_silent", message=message)
