"""A word to a chat stream that is running (`/v1/chat/completions/control`). asyncio.

llama-server knows one: `reasoning_end` ends the thinking of a stream that was asked for with `reasoning_control`. It
is passed on to the instance where the stream is now, under the id that the stream has there: after a continuation
that is another instance and another id than the client knows. A key reaches its own streams only; to all others the
answer is that of llama-server to an id that it does not know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.client.heads import upstream_head
from nemotron_ops.gateway.request.json_fields import read_fields, text_field
from nemotron_ops.gateway.upstream.attempt import Attempt, Whole

if TYPE_CHECKING:
    from nemotron_ops.gateway.exchange.exchange import Exchange

REASONING_END = "reasoning_end"


async def steer(exchange: Exchange) -> None:
    """Answer a request to `/v1/chat/completions/control`. Raises Refusal."""
    fields = read_fields(exchange.request.body)
    answer_id, action = text_field(fields, "id"), text_field(fields, "action")
    if not answer_id or action != REASONING_END:
        what = f"unknown action; known: {REASONING_END}" if answer_id else "id: missing"
        raise Refusal(status=400, code="invalid_field", message=what)
    running = _running(exchange, answer_id)
    if running is None:
        return _reply(exchange, False, "no active completion for this id")
    upstream = exchange.pool.upstreams.get(running.ticket.instance if running.ticket is not None else "")
    if upstream is None or running.relay is None:
        return _reply(exchange, False, "the completion waits for an instance")
    body = msgspec.json.encode({"id": running.relay.ids[-1], "action": action})
    head = upstream_head(exchange.route.upstream, key=upstream.key, length=len(body), content_type=b"")
    exchange.model, exchange.instance = running.model, upstream.name
    outcome = await Attempt(upstream).ask(head, body)
    if not isinstance(outcome, Whole):
        raise Refusal(status=502, code="engine_lost", message="the instance did not answer")
    if outcome.body.startswith(b'{"success":true'):
        running.recovery.thoughts_over = True
    exchange.status = outcome.status
    exchange.client.reply(outcome.status, outcome.body, content_type=outcome.content_type, extra=exchange.headers())
    return None


def _running(exchange: Exchange, answer_id: str) -> Exchange | None:
    """The stream that a client of the same key knows by this id."""
    for other in exchange.gateway.steerable:
        if other.key.id == exchange.key.id and other.relay is not None and other.relay.ids[:1] == [answer_id]:
            return other
    return None


def _reply(exchange: Exchange, success: bool, message: str) -> None:
    exchange.status = 200
    body = msgspec.json.encode({"success": success, "message": message})
    exchange.client.reply(200, body, extra=exchange.headers())
