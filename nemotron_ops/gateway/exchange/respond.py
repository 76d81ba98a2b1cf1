"""How an answer that is there goes out: a stream's end, a folded stream, a whole answer. Writes to the connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from nemotron_ops.gateway.api import errors
from nemotron_ops.gateway.api.errors import Refusal, engine_error, error_event, upstream_error
from nemotron_ops.gateway.request.prepare import Prepared
from nemotron_ops.gateway.streams import sse
from nemotron_ops.gateway.streams.fold import Fold
from nemotron_ops.gateway.upstream.attempt import Whole

if TYPE_CHECKING:
    from nemotron_ops.gateway.exchange.exchange import Exchange

JSON_TYPE = b"application/json; charset=utf-8"


def close_said(exchange: Exchange, prepared: Prepared) -> None:
    """End a stream of which only the mark of the end was missing: everything has been said."""
    relay = exchange.relay
    assert relay is not None
    relay.outlet.send(sse.LAST_EVENT[exchange.route.api])
    relay.complete = True
    end_stream(exchange, prepared)


def end_stream(exchange: Exchange, prepared: Prepared) -> None:
    """A stream is over. Raises Refusal if llama-server ended it with an error."""
    relay = exchange.relay
    assert relay is not None
    if relay.failed:
        status = relay.error.get("code")
        raise Refusal(
            status=status if status in errors.REASONS else 500, code="engine_error",
            message=str(relay.error.get("message", "the engine gave no answer")),
        )  # fmt: skip
    exchange.cause = ""  # words came when they were asked for
    exchange.release(finished=relay.complete)
    if prepared.fold is None:
        exchange.client.end()
    else:
        reply_folded(exchange, prepared.fold)


def reply_folded(exchange: Exchange, fold: Fold) -> None:
    """A stream has been folded into one answer. Raises Refusal if there is nothing in it."""
    result = fold.result()
    if result is None:
        raise Refusal(status=500, code="engine_error", message="the engine gave no answer")
    exchange.status = 200
    extra = exchange.headers()
    if exchange.cause == "lost_in_thought":
        extra.append(b"X-Lost-In-Thought: true")
    exchange.client.reply(200, msgspec.json.encode(result), extra=extra)


def reply_whole(exchange: Exchange, outcome: Whole, asked: str) -> None:
    """llama-server's answer, or its error in the shape of the API; `asked` is the client's name for the model."""
    exchange.status = outcome.status
    exchange.release(finished=outcome.status == 200)
    api, client, body = exchange.route.api, exchange.client, outcome.body
    if outcome.status >= 400:
        exchange.cause = "engine_refused" if outcome.status < 500 else "engine_error"
        body = upstream_error(api, outcome.status, body)
    else:
        exchange.whole = body
        if own := sse.name_in(body):
            body = body.replace(own, sse.named(asked))
    if client.answer.began:  # comments went out while it waited: only an event can follow
        error = error_event(api, engine_error(outcome.status, outcome.body))
        client.answer.send(error if outcome.status >= 400 else b"data: " + body + b"\n\n")
        client.abort()
        return
    client.reply(outcome.status, body, content_type=outcome.content_type or JSON_TYPE, extra=exchange.headers())
