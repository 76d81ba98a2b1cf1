"""Passes a control request on to a running chat stream (`/v1/chat/completions/control`). asyncio.

llama-server has one action: `reasoning_end` ends the reasoning of a stream that was started with `reasoning_control`.
The request goes to the stream's current instance, with the id that the stream has there: after a continuation both
differ from those that the client knows. A key reaches only its own streams; for any other id the response is
llama-server's response to an unknown id.
"""

from __future__ import annotations

import msgspec

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.exchange.ask_whole import ask_whole
from nemotron_ops.gateway.exchange.respond import headers, reply_page
from nemotron_ops.gateway.record import Record
from nemotron_ops.gateway.request.json_fields import read_fields, text_field
from nemotron_ops.gateway.responses.conversion import Conversion
from nemotron_ops.gateway.shared import Shared

REASONING_END = "reasoning_end"


async def control_chat(record: Record, shared: Shared) -> None:
    """Answer a request to `/v1/chat/completions/control`. Raises Refusal."""
    fields = read_fields(record.request.body)
    answer_id, action = text_field(fields, "id"), text_field(fields, "action")
    if not answer_id or action != REASONING_END:
        message = f"unknown action; known: {REASONING_END}" if answer_id else "id: missing"
        raise Refusal(status=400, code="invalid_field", message=message)
    stream = _find_stream(shared, record, answer_id)
    if stream is None:
        return _reply_failure(record, "no active completion for this id")
    upstream = shared.pool.upstreams.get(stream.ticket.instance if stream.ticket is not None else "")
    if upstream is None or stream.relay is None:
        return _reply_failure(record, "the completion waits for an instance")
    body = msgspec.json.encode({"id": stream.relay.ids[-1], "action": action})
    record.model, record.instance = stream.model, upstream.name
    whole = await ask_whole(upstream, record.route.upstream, body)
    if whole is not None and whole.body.startswith(b'{"success":true'):
        stream.recovery.reasoning_ended = True
    return reply_page(record, whole)


def _find_stream(shared: Shared, record: Record, answer_id: str) -> Record | None:
    """The stream of the same key that its client knows by this id."""
    for stream in shared.steerable:
        if stream.key.id == record.key.id and stream.relay is not None and _id_of(stream) == answer_id:
            return stream
    return None


def _id_of(stream: Record) -> str:
    """The id that the client knows the stream by."""
    if isinstance(stream.conversion, Conversion):
        return stream.conversion.turn.id
    return next(iter(stream.relay.ids), "") if stream.relay is not None else ""


def _reply_failure(record: Record, message: str) -> None:
    record.status = 200
    record.client.reply(200, msgspec.json.encode({"success": False, "message": message}), extra=headers(record))
