"""What happens while an instance works on a request and says nothing: comments, and an end of patience. asyncio.

A long prompt takes minutes, in which llama-server sends nothing that could be passed on: nobody knows yet whether
the answer will come from there. A comment is no answer, so a request whose instance is lost goes elsewhere as if
none had been sent.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.client.heads import PATIENCE_S, Request, client_patience_s
from nemotron_ops.gateway.upstream.attempt import Attempt

if TYPE_CHECKING:
    from nemotron_ops.gateway.exchange.exchange import Exchange

PATIENCE_HEADER = b"x-request-timeout"


class Silence:
    """Streams whose instances are at work. Where nothing comes for nearly `period_s`, a comment is sent.

    All are looked at together now and then: a timer for each would cost a stream of a few tokens a thirtieth.
    """

    def __init__(self, period_s: float) -> None:
        self._tick_s = max(0.01, min(1.0, period_s / 10))
        self._silent_s = period_s - self._tick_s
        self._since: dict[Exchange, float] = {}  # when its instance got it, or the last comment was sent

    def begin(self, exchange: Exchange) -> None:
        """An instance has got the request of `exchange`."""
        self._since[exchange] = exchange.loop.time()

    def end(self, exchange: Exchange) -> None:
        """It has answered, or is lost."""
        self._since.pop(exchange, None)

    async def run(self) -> None:
        """Look for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._tick_s)
            self.look(loop.time())

    def look(self, now: float) -> None:
        """Send the comments that are due."""
        for exchange, since in self._since.items():
            relay = exchange.relay
            if relay is None or relay.complete or relay.failed:
                continue
            if now - max(since, relay.last_at) >= self._silent_s:
                self._since[exchange] = now
                try:
                    exchange.comment()
                except Exception as exc:  # noqa: BLE001  one that cannot be written to does not hold up the others
                    exchange.gateway.log_bug(exc)


def first_token_in_time(exchange: Exchange, attempt: Attempt) -> asyncio.TimerHandle | None:
    """End `attempt` as `Late` if it brings no token within the client's own time. A timer, if there is such a time."""
    patience_s = client_patience_s(exchange.request)
    relay = exchange.relay
    if patience_s >= PATIENCE_S or (relay is not None and relay.began):
        return None
    timer = exchange.loop.call_at(exchange.started + patience_s, attempt.give_up)
    if relay is not None:
        relay.on_first = timer.cancel
    return timer


def late(request: Request) -> Refusal:
    """What a client hears whose patience is at its end."""
    message = f"no token came within {client_patience_s(request):g} s (X-Request-Timeout)"
    return Refusal(status=504, code="first_token_timeout", message=message)
