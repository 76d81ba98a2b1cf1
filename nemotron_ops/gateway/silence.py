"""What happens while an instance works on a request and says nothing: comments, and an end of patience. asyncio.

A long prompt takes minutes, in which llama-server sends nothing that could be passed on: nobody knows yet whether
the answer will come from there. A comment is no answer, so a request whose instance is lost goes elsewhere as if
none had been sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from nemotron_ops.gateway.attempt import Outcome
from nemotron_ops.gateway.headers import PATIENCE_S, client_patience_s
from nemotron_ops.gateway.replies import Refusal

if TYPE_CHECKING:
    from nemotron_ops.gateway.exchange import Exchange

PATIENCE_HEADER = b"x-request-timeout"
Asked = Coroutine[Any, Any, Outcome]


async def commented(exchange: Exchange, asked: Asked) -> Outcome:
    """What `asked` brings; its stream gets comments while it is silent."""
    loop, period_s = exchange.loop, exchange.gateway.options.keep_alive_s
    timer: asyncio.TimerHandle | None = None

    def look() -> None:
        nonlocal timer
        relay = exchange.relay
        if relay is None or relay.complete or relay.failed:
            return
        wait_s = relay.last_at + period_s - loop.time()
        if wait_s <= 0:
            exchange.comment()
            wait_s = period_s
        timer = loop.call_later(wait_s, look)

    timer = loop.call_later(period_s, look)
    try:
        return await asked
    finally:
        if timer is not None:
            timer.cancel()


async def first_token_in_time(exchange: Exchange, asked: Asked) -> Outcome:
    """What `asked` brings, if its first token comes within the client's own time. Raises Refusal if it does not."""
    patience_s = client_patience_s(exchange.request)
    relay = exchange.relay
    if patience_s >= PATIENCE_S or (relay is not None and relay.began):
        return await asked
    try:
        async with asyncio.timeout_at(exchange.started + patience_s) as limit:
            if relay is not None:
                relay.on_first = lambda: limit.reschedule(None)
            return await asked
    except TimeoutError:
        message = f"no token came within {patience_s:g} s (X-Request-Timeout)"
        raise Refusal(status=504, code="first_token_timeout", message=message) from None
